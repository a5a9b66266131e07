"""Lists of samples: keep lists and takedown lists."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.errors import InputError
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, one_line
from dedup.storage.urls import read_bytes

# columns that name the samples of a keep list; the first present counts, a key with its `shard` where there is one
_KEPT_BY: Final = ("sample_id", "key", "sha256", "uid", "url")
_TAKEN_DOWN_BY: Final = ("sha256", "url", "key", "image")
_UID: Final = np.dtype("u8,u8")
_SHA256: Final = re.compile("[0-9a-fA-F]{64}")
_TABLES: Final = (".csv", ".parquet")
_Names = TypeVar("_Names")


class Entry(NamedTuple):
    """One entry of a takedown list: what it is, its value, and its text in the list."""

    kind: str
    value: str
    text: str


def read_keep_list(path: str) -> pa.Table:
    """Read a list of samples to keep, such as another run's export.

    `path`: path or fsspec URL of a ``.parquet`` or ``.csv`` with one of the columns `sample_id`, `key` (and `shard`), `sha256`, `uid`,
    `url`; of a ``.npy`` of DataComp's uids, dtype ``u8,u8``; or of text with one key, sha256 (64 hex digits) or url (with ``://``) per
    line, all of one kind.
    Returns one column, or `shard` and `key`, in the order of the list.
    Raises InputError if the list can't be read, is empty, or has none of the columns.
    """
    parse = _kept_uids if path.endswith(".npy") else partial(_kept_columns, path) if path.endswith(_TABLES) else _kept_lines
    table = _parse_file(f"the keep list {path}", path, ".parquet, .csv, .npy or UTF-8 text with a key a line", parse)
    if not table.num_rows:
        raise InputError(f"the keep list {path} names no samples; expected at least one")
    return table


def read_takedown_list(url: str) -> list[Entry]:
    """Read the entries of a takedown list, in order, without repetitions.

    `url`: a ``.csv`` or ``.parquet`` with columns named `sha256`, `url`, `key`, `image`, or text with an entry per line: ``sha256:…``,
    ``url:…``, ``key:…``, ``image:…``, or without a prefix a sha256 (64 hex digits), a url (with ``://``), the path of an existing image,
    or else a key. Lines that begin with ``#`` are skipped.
    Raises InputError if the list can't be read, or a table has none of the columns.
    """
    parse = partial(_taken_down_columns, url) if url.endswith(_TABLES) else _taken_down_lines
    expected = f".parquet or .csv with columns {', '.join(_TAKEN_DOWN_BY)}, or UTF-8 text with one of these a line"
    return list(dict.fromkeys(_parse_file(f"exclude.list={url}", url, expected, parse)))


def _parse_file(what: str, path: str, expected: str, parse: Callable[[bytes], _Names]) -> _Names:
    data = read_bytes(path)
    if data is None:
        raise InputError(f"{what} does not exist; expected {expected}")
    try:
        return parse(data)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{what} can't be read ({one_line(error)}); expected {expected}") from error


def _read_columns(path: str, data: bytes, allowed: Sequence[str]) -> pa.Table:
    """A table with at least one of the allowed columns."""
    if path.endswith(".parquet"):
        table = pq.read_table(pa.BufferReader(data))
    else:
        header = data.partition(b"\n")[0].decode("utf-8-sig").strip().split(",")
        kinds = {name.strip('"'): pa.string() for name in header}  # keys that are all digits stay text
        table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=pyarrow.csv.ConvertOptions(column_types=kinds))
    if not set(allowed) & set(table.column_names):
        raise ValueError(f"found the columns {', '.join(table.column_names)}, expected one of {', '.join(allowed)}")
    return table


def _lines(data: bytes) -> list[str]:
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _kind(line: str) -> str:
    """What a line without a prefix names a sample by."""
    return "sha256" if _SHA256.fullmatch(line) else "url" if "://" in line else "key"


def _kept_columns(path: str, data: bytes) -> pa.Table:
    table = _read_columns(path, data, _KEPT_BY)
    name = next(name for name in _KEPT_BY if name in table.column_names)
    names = ["shard", "key"] if name == "key" and "shard" in table.column_names else [name]
    kind = pa.int64() if name == "sample_id" else pa.string()
    table = table.select(names).cast(pa.schema([(column, kind) for column in names])).drop_null()
    return pa.table({name: pc.utf8_lower(table[name])}) if name == "sha256" else table


def _kept_uids(data: bytes) -> pa.Table:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype != _UID or array.ndim != 1:
        raise ValueError(f"found {array.dtype} of shape {array.shape}, expected a vector of u8,u8")
    return pa.table({"uid": [f"{high:016x}{low:016x}" for high, low in array.tolist()]})


def _kept_lines(data: bytes) -> pa.Table:
    lines = _lines(data)
    kinds = {_kind(line) for line in lines}
    if "url" in kinds and len(kinds) > 1:
        raise ValueError("some lines are urls and some are not; expected one kind")
    kind = kinds.pop() if len(kinds) == 1 else "key"  # a key may look like a hash
    values = [line.lower() for line in lines] if kind == "sha256" else lines
    return pa.table({kind: pa.array(values, pa.string())})


def _taken_down_columns(path: str, data: bytes) -> list[Entry]:
    table = _read_columns(path, data, _TAKEN_DOWN_BY)
    names = [name for name in table.column_names if name in _TAKEN_DOWN_BY]
    return [_entry(name, text, text) for name in names for text in table[name].cast(pa.string()).to_pylist() if text]


def _taken_down_lines(data: bytes) -> list[Entry]:
    return [_taken_down(line) for line in _lines(data)]


def _taken_down(line: str) -> Entry:
    word, colon, value = line.partition(":")
    if colon and word in _TAKEN_DOWN_BY and not value.startswith("//"):
        kind, value = word, value.strip()
    elif (kind := _kind(line)) == "key" and file_suffix(os.path.basename(line)) in IMAGE_SUFFIXES and os.path.isfile(line):
        kind, value = "image", line
    else:
        value = line
    return _entry(kind, value, line)


def _entry(kind: str, value: str, text: str) -> Entry:
    return Entry(kind, value.lower() if kind == "sha256" else value, text)
