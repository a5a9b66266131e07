"""Keep lists: what somebody else, or an export of another run, says shall stay."""

from __future__ import annotations

import io
import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.errors import InputError
from dedup.storage.samples import one_line
from dedup.storage.urls import read_bytes

# what a list may name samples by; the first of a table's that is there, a shard beside a key included
_NAMED_BY: Final = ("sample_id", "key", "sha256", "uid", "url")
_UID: Final = np.dtype("u8,u8")


def read_keep_list(path: str) -> pa.Table:
    """Read a keep list.

    Parameters
    ----------
    path : str
        Path or fsspec URL of
        - a ``.parquet`` or ``.csv`` with one of the columns `sample_id`, `key` (and `shard`), `sha256`, `uid`, `url`,
        - a ``.npy`` of DataComp's uids, dtype ``u8,u8``,
        - text with one key, sha256 (64 hex digits) or url (with ``://``) a line, all of one kind.

    Returns
    -------
    pyarrow.Table
        One or two columns, `shard` with `key`; rows as the list has them.

    Raises
    ------
    InputError
        If the list can't be read, is empty, or names samples by nothing that is known.
    """
    data = read_bytes(path)
    if data is None:
        raise InputError(f"the keep list {path} does not exist; expected .parquet, .csv, .npy or text with a key a line")
    try:
        table = _uids(data) if path.endswith(".npy") else _columns(path, data) if path.endswith((".parquet", ".csv")) else _lines(data)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"the keep list {path} can't be read ({one_line(error)}); expected .parquet, .csv, .npy or UTF-8 text") from error
    if not table.num_rows:
        raise InputError(f"the keep list {path} names nothing; a data set without samples is surely not meant")
    return table


def _columns(path: str, data: bytes) -> pa.Table:
    if path.endswith(".parquet"):
        table = pq.read_table(pa.BufferReader(data))
    else:
        header = data.partition(b"\n")[0].decode("utf-8-sig").strip().split(",")
        kinds = {name.strip('"'): pa.string() for name in header}  # keys of digits alone stay texts
        options = pyarrow.csv.ConvertOptions(column_types=kinds)
        table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
    name = next((name for name in _NAMED_BY if name in table.column_names), None)
    if name is None:
        raise ValueError(f"found the columns {', '.join(table.column_names)}, expected one of {', '.join(_NAMED_BY)}")
    names = ["shard", "key"] if name == "key" and "shard" in table.column_names else [name]
    kind = pa.int64() if name == "sample_id" else pa.string()
    return table.select(names).cast(pa.schema([(column, kind) for column in names])).drop_null()


def _uids(data: bytes) -> pa.Table:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype != _UID or array.ndim != 1:
        raise ValueError(f"found {array.dtype} of shape {array.shape}, expected a vector of u8,u8")
    return pa.table({"uid": [f"{high:016x}{low:016x}" for high, low in array.tolist()]})


def _lines(data: bytes) -> pa.Table:
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if all(re.fullmatch("[0-9a-fA-F]{64}", line) for line in lines):
        return pa.table({"sha256": pa.array([line.lower() for line in lines], pa.string())})
    is_url = ["://" in line for line in lines]
    if all(is_url):
        return pa.table({"url": pa.array(lines, pa.string())})
    if any(is_url):
        raise ValueError("some lines are urls and some are not; expected one kind")
    return pa.table({"key": pa.array(lines, pa.string())})
