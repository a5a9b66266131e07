"""Parquet tables on any fsspec URL, written whole or not at all."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import JsonDict, Table
from dedup.errors import RunDirectoryError
from dedup.schemas import conform

_ROWS_PER_FILE = 1_000_000
_ROW_GROUP = 65_536
_HALF_WRITTEN = re.compile(r"_[0-9a-f]{12}-")  # of files and folders, as `hidden_name` makes them


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it."""
    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def is_local(url: str) -> bool:
    """Whether a URL lies on this machine's file system."""
    return isinstance(filesystem(url)[0], fsspec.implementations.local.LocalFileSystem)


def join(base: str, *parts: str) -> str:
    """Join a URL and relative parts."""
    return posixpath.join(base, *parts)


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file atomically: renamed into place on a file system, one PUT on an object store."""
    fs, path = filesystem(url)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    hidden = hidden_name(path)
    try:
        with open(hidden, "wb") as file:
            file.write(data)
        os.replace(hidden, path)
    except OSError:
        with suppress(OSError):
            os.unlink(hidden)
        raise


def read_bytes(url: str) -> bytes | None:
    """A small file's bytes, or None where there is none."""
    fs, path = filesystem(url)
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None


def read_range(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Bytes of a file, or a range of them."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path, start=start, end=stop))


def write_json(url: str, value: JsonDict) -> None:
    """Write a JSON object, readable and with sorted keys."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(url: str) -> JsonDict | None:
    """Read a JSON object, or None where there is no file.

    Raises
    ------
    RunDirectoryError
        If the file is there but broken.
    """
    data = read_bytes(url)
    if data is None:
        return None
    try:
        value: JsonDict = json.loads(data)
    except ValueError as error:
        raise RunDirectoryError(f"{url} is not valid JSON ({error}); delete it to redo that part") from error
    return value


def hidden_name(path: str) -> str:
    """The name a file has while it is written: readers of the folder skip names that start with '_'."""
    folder, name = posixpath.split(path)
    # a process id would do for one machine; two on a shared file system may have the same
    return posixpath.join(folder, f"_{uuid.uuid4().hex[:12]}-{name}")


def remove_half_written(folder: str) -> None:
    """Delete what processes that were killed left under hidden names in a folder and those in it; an object store shows no such files."""
    if not is_local(folder):
        return
    for home, folders, names in os.walk(filesystem(folder)[1]):
        for name in filter(_HALF_WRITTEN.match, folders):
            shutil.rmtree(os.path.join(home, name), ignore_errors=True)
        for name in filter(_HALF_WRITTEN.match, names):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(home, name))


class FileWriter:
    """One parquet file, streamed; it appears under its name only when it is whole.

    Parameters
    ----------
    url : str
    schema : pyarrow.Schema
    """

    def __init__(self, url: str, schema: pa.Schema) -> None:
        self.url, self.schema, self.n_rows = url, schema, 0
        fs, path = filesystem(url)
        self._path, self._fs, self._local = path, fs, is_local(url)
        if self._local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        # an object store shows an upload only when it is complete, so the final name is safe there
        self._target = hidden_name(path) if self._local else path
        self._file = fs.open(self._target, "wb")
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._held: list[pa.Table] = []
        self._n_held = 0

    def write(self, table: pa.Table | pa.RecordBatch) -> None:
        """Append rows, conformed to the schema."""
        conformed = conform(table, self.schema)
        if conformed.num_rows:
            self._held.append(conformed)
            self.n_rows += conformed.num_rows
            self._n_held += conformed.num_rows
            if self._n_held >= _ROW_GROUP:
                self._flush()

    def _flush(self) -> None:
        """Write what is held as one row group: small ones bloat the footer and slow every scan."""
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks(), row_group_size=_ROW_GROUP)
        self._held, self._n_held = [], 0

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._flush()
        self._writer.close()
        self._file.close()
        if self._local:
            os.replace(self._target, self._path)

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: what counts is the error that led here
            self._writer.close()
        if self._local:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                os.unlink(self._target)
        elif hasattr(self._file, "discard"):
            self._file.discard()

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_table(table: Table, batches: Iterator[pa.Table] | Sequence[pa.Table], prefix: str = "part") -> int:
    """Write a stream of batches as the files of a table; an empty table still gets one file.

    Parameters
    ----------
    table : Table
    batches : iterable of pyarrow.Table
    prefix : str
        Start of the file names; one that starts with '_' keeps the files hidden until `publish`.

    Returns
    -------
    int
        Rows written.
    """
    n_rows, number = 0, 0
    stream = iter(batches)
    batch = next(stream, None)
    while True:
        with FileWriter(join(table.path, f"{prefix}-{number:05d}.parquet"), table.schema) as writer:
            while batch is not None and writer.n_rows < _ROWS_PER_FILE:
                writer.write(batch)
                batch = next(stream, None)
            n_rows += writer.n_rows
        number += 1
        if batch is None:
            return n_rows


def publish(table: Table, prefix: str) -> None:
    """Give the files that were written under a hidden prefix ('_name') their visible names ('part')."""
    fs, path = filesystem(table.path)
    for name in sorted(fs.glob(join(path, f"{prefix}-*.parquet"))):
        folder, base = posixpath.split(str(name))
        fs.mv(str(name), join(folder, base.replace(prefix, "part", 1)))


def clear(table: Table) -> None:
    """Delete a table's files, hidden and half-written ones included, and the folder's `_stage.json`."""
    fs, path = filesystem(table.path)
    if fs.exists(path):
        for name in fs.glob(join(path, "*.parquet")) + fs.glob(join(path, "_*")) + fs.glob(join(path, ".*")):
            if fs.isfile(name):
                fs.rm_file(str(name))


def clear_prefix(table: Table, prefix: str) -> None:
    """Delete the files of a table whose names start with `prefix` and a dash."""
    fs, path = filesystem(table.path)
    for name in fs.glob(join(path, f"{prefix}-*.parquet")) if fs.exists(path) else []:
        fs.rm_file(str(name))


def files(table: Table) -> list[str]:
    """Paths of a table's files inside its file system, sorted.

    Raises
    ------
    RunDirectoryError
        If there are none.
    """
    fs, path = filesystem(table.path)
    found = sorted(str(name) for name in fs.glob(join(path, table.pattern)))
    if not found:
        raise RunDirectoryError(f"{table.path} holds no table; run the stage that writes it first (dedup status shows which)")
    return found


def dataset(table: Table) -> ds.Dataset:
    """The table as a pyarrow dataset, with its whole schema."""
    fs, _ = filesystem(table.path)
    return ds.dataset(files(table), schema=table.schema, format="parquet", filesystem=fs)


def read_table(table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, into memory; rows in file order."""
    return dataset(table).to_table(columns=list(columns) if columns else None)


def count_rows(table: Table) -> int:
    """Rows of a table, from the parquet footers."""
    return int(dataset(table).count_rows())
