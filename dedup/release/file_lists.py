"""Lists of the files that a run over folders keeps, with their captions, as trainers read them."""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator

from dedup.contracts import Table
from dedup.errors import InputError
from dedup.release.apply import path_of
from dedup.storage.atomic import AtomicFile
from dedup.storage.tables import dataset
from dedup.storage.urls import absolute, is_local

_COLUMNS = ["shard", "key", "caption", "duplication_count"]


def export_open_clip(kept: Table, out: str) -> tuple[int, int]:
    """Write the CSV that open_clip trains on (``--dataset-type csv``): columns `filepath` and `title`, separated by tabs.

    Returns the number of rows, and of kept images without a caption, which have no row.
    Raises InputError for a run over anything else than folders.
    """
    n_rows = n_left_out = 0
    with AtomicFile(out) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        lines = csv.writer(text, delimiter="\t", lineterminator="\n")
        lines.writerow(["filepath", "title"])
        for path, caption, _ in _files(kept):
            if caption:
                lines.writerow([path, caption])
                n_rows += 1
            else:
                n_left_out += 1
        text.flush()
        text.detach()
    return n_rows, n_left_out


def export_image_folder(kept: Table, out: str) -> int:
    """Write the ``metadata.jsonl`` with which `datasets` reads a folder of images: the kept files alone, with their captions.

    Returns the number of rows.
    Raises InputError if the kept files do not lie below the folder of `out`, or for a run over anything else than folders.
    """
    home = posixpath.dirname(absolute(out)) + "/"
    n_rows = 0
    with AtomicFile(out) as file:
        for path, caption, count in _files(kept):
            if not path.startswith(home):
                raise InputError(f"{path} does not lie below {home}; expected --out metadata.jsonl in the folder of images itself")
            row = {"file_name": path.removeprefix(home), "text": caption, "duplication_count": count}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
            n_rows += 1
    return n_rows


def _files(kept: Table) -> Iterator[tuple[str, str | None, int]]:
    """Path, caption and duplication count of each kept file."""
    for batch in dataset(kept).to_batches(columns=_COLUMNS):
        for shard, key, caption, count in zip(*(batch[name].to_pylist() for name in _COLUMNS), strict=True):
            if not shard.endswith("/"):
                raise InputError(
                    f"{shard} is no folder of images: only files can be listed; for shards use --format keys, or dedup rewrite"
                )
            yield path_of(shard, key) if is_local(shard) else shard + key, caption, count
