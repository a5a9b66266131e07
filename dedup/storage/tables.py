"""Parquet tables on any fsspec URL: folders of files, each written whole or not at all."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import Engine, Table
from dedup.errors import RunDirectoryError
from dedup.schemas import conform
from dedup.storage.atomic import Replacement, close_or_abort
from dedup.storage.urls import filesystem, is_local, join, matching

_ROWS_PER_FILE = 1_000_000
_ROW_GROUP = 65_536


class FileWriter:
    """One parquet file, streamed; it appears under its name only when it is whole."""

    def __init__(self, url: str, schema: pa.Schema) -> None:
        self.url, self.schema, self.n_rows = url, schema, 0
        fs, path = filesystem(url)
        # an object store shows an upload only when it is complete, so the final name is safe there
        self._replacement = Replacement(path) if is_local(url) else None
        self._file = fs.open(self._replacement.hidden if self._replacement else path, "wb")
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
        """Write the held rows as one row group: small ones bloat the footer and slow every scan."""
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks(), row_group_size=_ROW_GROUP)
        self._held, self._n_held = [], 0

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._flush()
        self._writer.close()
        self._file.close()
        if self._replacement:
            self._replacement.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: the error that led here matters
            self._writer.close()
        if self._replacement:
            with suppress(OSError):
                self._file.close()
            self._replacement.abort()
        elif hasattr(self._file, "discard"):
            self._file.discard()

    def __enter__(self) -> FileWriter:
        return self

    __exit__ = close_or_abort


def write_table(table: Table, batches: Iterator[pa.Table] | Sequence[pa.Table], prefix: str = "part") -> int:
    """Write a stream of batches as the files of a table; an empty table still gets one file.

    `prefix`: start of the file names; one that starts with '_' keeps the files hidden until `publish`.
    Returns rows written.
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
    """Rename the files written under a hidden prefix ('_name') to their visible names ('part')."""
    fs, _ = filesystem(table.path)
    for name in matching(table.path, f"{prefix}-*.parquet"):
        folder, base = posixpath.split(name)
        fs.mv(name, join(folder, base.replace(prefix, "part", 1)))


def clear(table: Table) -> None:
    """Delete a table's files, hidden and half-written ones included."""
    fs, _ = filesystem(table.path)
    for name in matching(table.path, "*.parquet", "_*", ".*"):
        if fs.isfile(name):
            fs.rm_file(name)


def files(table: Table) -> list[str]:
    """Paths of a table's files inside its file system, sorted.

    Raises RunDirectoryError if there are none.
    """
    paths = matching(table.path, table.pattern)
    if not paths:
        raise RunDirectoryError(f"{table.path} holds no table; run the stage that writes it first (dedup status shows which)")
    return paths


def dataset(table: Table) -> ds.Dataset:
    """The table as a pyarrow dataset, with its whole schema."""
    fs, _ = filesystem(table.path)
    return ds.dataset(files(table), schema=table.schema, format="parquet", filesystem=fs)


def read_table(table: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, into memory; rows in file order."""
    return dataset(table).to_table(columns=list(columns) if columns else None)


def rows_between(table: pa.Table, start: int, stop: int) -> pa.Table:
    """Some consecutive rows, copied: a slice would be pickled with all rows of its table, into every task.

    >>> import pickle
    >>> table = pa.table({"a": range(100_000)})
    >>> len(pickle.dumps(rows_between(table, 5, 7))) < 1_000 < len(pickle.dumps(table.slice(5, 2)))
    True
    """
    return table.take(np.arange(start, max(start, min(stop, len(table)))))


def ask(engine: Engine, query: str, tables: Mapping[str, Table | pa.Table], schema: pa.Schema) -> pa.Table:
    """The whole result of a query, in memory; without rows it still has its columns."""
    batches = list(engine.sql(query, tables, schema))
    return pa.concat_tables(batches) if batches else schema.empty_table()


def count_rows(table: Table) -> int:
    """Rows of a table, from the parquet footers."""
    return int(dataset(table).count_rows())
