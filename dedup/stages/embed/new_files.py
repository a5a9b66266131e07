"""New files of a folder that the base has embedded: they alone are embedded, whatever part of the folder they lie in."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dedup.contracts import Table
from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.runs.record import digest
from dedup.stages.embed.moved import Moves, Source
from dedup.storage.input.encodings import clean_name
from dedup.storage.input.sources import FolderPart, fingerprint, part_of
from dedup.storage.tables import dataset
from dedup.storage.urls import is_local, local_path

_Known = dict[str, tuple[int, int | None] | None]  # by URL: bytes and time of the last change, None where the file was rejected


def only_new_files(base: Run, sources: Mapping[str, tuple[Source, str]], moves: Moves) -> dict[str, tuple[Source, str]]:
    """The sources, with parts of folders reduced to the files that the base has not embedded; parts without new files go.

    `sources`: by URL, with their fingerprints.
    Raises InputError if a file that the base has embedded has changed; one that is gone stays in the run.
    """
    folders = {source.folder for source, _ in sources.values() if isinstance(source, FolderPart)}
    known = _embedded_files(base, folders, moves) if folders else {}
    if not known:
        return dict(sources)
    found: dict[str, tuple[Source, str]] = {}
    changed: list[str] = []
    for url, (source, stamp) in sources.items():
        if not isinstance(source, FolderPart):
            found[url] = source, stamp
            continue
        urls = [f"{source.folder}/{clean_name(name)}" for name in source.images]
        changed += [file for file in urls if _has_changed(file, known.get(file))]
        places = [place for place, file in enumerate(urls) if file not in known]
        if len(places) == len(urls):
            found[url] = source, stamp
        elif places:
            names = digest([source.images[place] for place in places])[:_DIGITS]
            part = part_of(source, f"{url.rpartition('/#')[2]}-{names}", places)
            found[part.url] = part, fingerprint(part)
    if changed:
        raise InputError(
            f"{len(changed)} files have changed since {base.url} embedded them, the first {changed[0]}; expected them unchanged: run "
            f"{base.url} itself again, which embeds what has changed, or run without base.run_dir"
        )
    return found


_DIGITS = 8  # of what tells new files of a part from others


def _embedded_files(base: Run, folders: set[str], moves: Moves) -> _Known:
    """What the base has embedded or rejected of some folders."""
    known: _Known = {}
    for name, columns in (("rejected", ["shard", "key"]), ("metadata", ["shard", "key", "n_bytes", "mtime"])):
        for batch in _of_folders(base.table(name), columns):
            for row in batch.to_pylist():
                before = row["shard"].rstrip("/")
                folder = moves.place(before)
                if folder in folders:
                    mtime = row.get("mtime") if folder == before else None  # a copy has its own time of modification
                    known[f"{folder}/{row['key']}"] = (row["n_bytes"], mtime) if "n_bytes" in row else None
    return known


def _of_folders(table: Table, columns: list[str]) -> list[pa.RecordBatch]:
    batches = dataset(table).to_batches(columns=columns, filter=pc.ends_with(pc.field("shard"), "/"))
    return [batch for batch in batches if len(batch)]


def _has_changed(url: str, known: tuple[int, int | None] | None) -> bool:
    """Whether a local file has another size than it had, or was changed later; remote ones are taken for unchanged."""
    if known is None or not is_local(url):
        return False
    try:
        status = os.stat(local_path(url))
    except OSError:
        return False
    return status.st_size != known[0] or (known[1] is not None and int(status.st_mtime) > known[1])
