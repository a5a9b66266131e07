"""The parquet beside a cleaned shard, as img2dataset writes it."""

from __future__ import annotations

import posixpath
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.storage.atomic import AtomicFile
from dedup.storage.input.rows import KEY_NAMES, sidecar_url
from dedup.storage.urls import filesystem, read_bytes

_ADDED: Final = ("sample_id", "component_id", "duplication_count")
_PLAIN: Final = ("key", "url", "caption", "width", "height", "sha256")
_NOT_COPIED: Final = {"shard", "byte_offset", "n_bytes", "file", "row", "member", "n_images", "first_image_id"}  # of the shard it came from


def write_beside(rows: pa.Table, url: str, *, chooses_captions: bool = False) -> None:
    """Write the rows of a cleaned shard's samples, which have the columns of the manifest.

    `chooses_captions`: whether `caption` is that of the rows also where the parquet beside a shard has one.

    Columns are those of the parquet beside the shard a sample came from, joined by key, where there is one; else `key, url, caption,
    status, error_message, width, height, sha256` and the carried ones. `component_id`, `duplication_count` and `sample_id` come last.
    The sha256 of img2dataset's parquet, which is that of the downloaded bytes, is not changed.
    """
    parts = []
    for shard in pc.unique(rows["shard"]).to_pylist():
        of_shard = rows.filter(pc.equal(rows["shard"], shard))
        part = _join(of_shard, None if shard.endswith("/") else _sidecar(shard))
        if chooses_captions and "caption" in part.column_names:
            part = part.set_column(part.column_names.index("caption"), "caption", of_shard["caption"])
        parts.append(part)
    table = _concatenate(parts)
    last = [name for name in _ADDED if name in table.column_names]
    table = table.select([name for name in table.column_names if name not in last] + last)
    with AtomicFile(url) as file:
        pq.write_table(table, file, compression="zstd")


def _sidecar(shard: str) -> tuple[pa.Table, str] | None:
    """The parquet beside a shard and the name of its key; None if there is none, or it is broken, as in `embed`."""
    url = sidecar_url(shard)
    fs, path = filesystem(url)
    if not fs.exists(path) or (data := read_bytes(url)) is None:
        return None
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        return None
    key = next((name for name in KEY_NAMES if name in table.column_names), None)
    return None if key is None else (table, key)


def _join(rows: pa.Table, sidecar: tuple[pa.Table, str] | None) -> pa.Table:
    """The rows of one shard's samples, joined with its sidecar."""
    n = rows.num_rows
    manifest = {name: rows[name] for name in rows.column_names if name not in _NOT_COPIED}
    if sidecar is None:
        plain = {name: manifest.pop(name) for name in _PLAIN if name in manifest}
        status = {"status": pa.repeat("success", n), "error_message": pa.nulls(n, pa.string())}
        return pa.table(plain | status | manifest)
    table, key = sidecar
    row_of_key: dict[str, int] = {}
    # as bytes: a string column may hold invalid UTF-8
    for number, name in enumerate(table[key].cast(pa.binary()).to_pylist()):
        if name is not None:
            row_of_key.setdefault(name.decode("utf-8", "replace"), number)
    # by the key, or else its base name, as in `embed`
    matches = [row_of_key.get(name, row_of_key.get(posixpath.basename(name))) for name in rows["key"].to_pylist()]
    joined = table.take(pa.array(matches, pa.int64()))
    columns = {name: joined[name] for name in joined.column_names if name not in _ADDED}
    columns[key] = rows["key"]  # null where the parquet has no such row
    return pa.table(columns | {name: column for name, column in manifest.items() if name not in columns})


def _concatenate(parts: list[pa.Table]) -> pa.Table:
    """One table of all parts; a column that has different types in different shards becomes text."""
    names = dict.fromkeys(name for part in parts for name in part.column_names)
    for name in names:
        kinds = {part.schema.field(name).type for part in parts if name in part.column_names}
        if len(kinds - {pa.null()}) > 1 and not _is_promotable(kinds):
            parts = [_as_text(part, name) for part in parts]
    return pa.concat_tables(parts, promote_options="permissive")


def _is_promotable(kinds: set[pa.DataType]) -> bool:
    try:
        pa.unify_schemas([pa.schema([("a", kind)]) for kind in kinds], promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


def _as_text(part: pa.Table, name: str) -> pa.Table:
    if name not in part.column_names:
        return part
    try:
        column = part[name].cast(pa.string())
    except pa.ArrowException:  # lists and structs
        column = pa.array([None if value is None else str(value) for value in part[name].to_pylist()], pa.string())
    return part.set_column(part.column_names.index(name), name, column)
