"""What is kept as a folder that Hugging Face `datasets` reads: parquet files, with the images' bytes in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dedup.contracts import JsonDict, Table
from dedup.errors import InputError
from dedup.release.plan import Cleaned, kept_rows
from dedup.storage.atomic import AtomicFile, write_bytes
from dedup.storage.input.samples import RawSample, SampleReader, one_line
from dedup.storage.input.shards import read_shard
from dedup.storage.urls import filesystem, join, open_binary

FILE_BYTES: Final = 500_000_000  # of images in a file: what the Hub likes

_GROUP_ROWS: Final = 10_000

_IMAGE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

_KINDS: Final = {pa.string(): "string", pa.int32(): "int32", pa.int64(): "int64", pa.float32(): "float32", pa.float64(): "float64"}

_NOT_COPIED: Final = ("byte_offset", "n_bytes")

_CARD: Final = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
{n_samples} samples, de-duplicated with webdedup: a row for each image that was kept; `duplication_count` tells how many samples of the
original data show it.
"""


@dataclass(frozen=True)
class HfTask:
    """One parquet file."""

    kept: Table
    file: Cleaned
    n_files: int
    out: str
    with_images: bool
    group_bytes: int = 32 * 1024 * 1024  # of images in a row group, all of which is held


def write_card(out: str, n_samples: int) -> None:
    """Write the folder's README, which names its files."""
    write_bytes(join(out, "README.md"), _CARD.format(n_samples=f"{n_samples:,}").encode())


def export_file(task: HfTask) -> int:
    """Write one file, unless it is there; returns its rows.

    Raises
    ------
    InputError
        If an image can't be read any more.
    """
    target = join(task.out, "data", f"train-{task.file.number:05d}-of-{task.n_files:05d}.parquet")
    fs, path = filesystem(target)
    if fs.exists(path):
        return task.file.n_samples
    places = kept_rows(task.kept, task.file)
    rows = places.select([name for name in places.column_names if name not in _NOT_COPIED or not task.with_images])
    schema = _schema(rows.schema, task.with_images)
    with AtomicFile(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in _with_images(places, rows, task.group_bytes) if task.with_images else [rows]:
            writer.write_table(part.cast(schema), row_group_size=_GROUP_ROWS)
    return int(rows.num_rows)


def _schema(rows: pa.Schema, with_images: bool) -> pa.Schema:
    """The file's schema, with what tells `datasets` that a column holds images."""
    fields = [pa.field("image", _IMAGE)] if with_images else []
    fields += [pa.field(field.name, field.type) for field in rows]
    features: JsonDict = {field.name: {"dtype": _KINDS[field.type], "_type": "Value"} for field in fields if field.type in _KINDS}
    if with_images:
        features["image"] = {"_type": "Image"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _with_images(places: pa.Table, rows: pa.Table, group_bytes: int) -> Iterator[pa.Table]:
    """The rows in parts, each with its images' bytes."""
    held: list[dict[str, Any]] = []
    n_bytes, start = 0, 0
    for image in _images(places):
        held.append(image)
        n_bytes += len(image["bytes"])
        if n_bytes >= group_bytes or len(held) == _GROUP_ROWS:
            yield rows.slice(start, len(held)).add_column(0, "image", pa.array(held, _IMAGE))
            start, held, n_bytes = start + len(held), [], 0
    if held:
        yield rows.slice(start).add_column(0, "image", pa.array(held, _IMAGE))


def _images(places: pa.Table) -> Iterator[dict[str, Any]]:
    """The images of samples that are ordered as they lie in their shards; each shard is read once, as a stream."""
    shard_read, reader = "", SampleReader(lambda reader: iter(()))
    samples: Iterator[RawSample] = iter(())
    columns = (places[name].to_pylist() for name in ("shard", "key", "n_bytes"))
    for shard, key, n_bytes in zip(*columns, strict=True):
        if shard.endswith("/"):
            yield {"bytes": _file(shard + key, n_bytes), "path": key}
            continue
        if shard != shard_read:
            reader = read_shard(shard)
            shard_read, samples = shard, iter(reader)
        found = next((sample for sample in samples if sample.key == key and sample.image is not None), None)
        if found is None or found.image is None or len(found.image) != n_bytes:
            why = reader.error or "it has changed since it was embedded"
            raise InputError(f"{shard} gave no image of {n_bytes} bytes under the key {key!r} ({why}); restore it, or run embed again")
        yield {"bytes": found.image, "path": found.image_name}


def _file(path: str, n_bytes: int) -> bytes:
    try:
        with open_binary(path) as file:
            data = file.read(n_bytes + 1)
    except Exception as error:  # each file system has its own
        raise InputError(f"{path} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
    if len(data) != n_bytes:
        raise InputError(f"{path} does not have {n_bytes} bytes; it has changed since it was embedded, run embed again")
    return data
