"""Parquet and Arrow files of rows, opened and read a few rows at a time: the tables that people publish images in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.storage.urls import is_local, local_path, open_binary

ROW_SUFFIXES: Final = (".parquet", ".arrow", ".feather")
_BATCH_BYTES: Final = 8 * 1024 * 1024  # uncompressed, of rows held at a time
_MOST_ROWS: Final = 512
_READ_BYTES: Final = 1024 * 1024  # of a column at a time: else a whole row group of images is fetched at once
_FILE_MAGIC: Final = b"ARROW1"


def is_row_file(url: str) -> bool:
    """Whether a shard is a file of rows, by its name; any other is a tar or, with a slash at its end, a folder.

    Examples
    --------
    >>> is_row_file("s3://bucket/train-00000-of-00004.parquet"), is_row_file("a.tar")
    (True, False)
    """
    return url.endswith(ROW_SUFFIXES)


def columns_of(url: str) -> list[str]:
    """The columns of a file of rows.

    Raises what `RowFile` raises.
    """
    with RowFile(url) as file:
        return [str(name) for name in file.schema.names]


class RowFile:
    """A file of rows; a context, which closes it.

    Parameters
    ----------
    url : str
        A path or any fsspec URL of parquet, of an Arrow file, or of an Arrow stream, as `datasets.save_to_disk` writes it.

    Attributes
    ----------
    schema : pyarrow.Schema

    Raises
    ------
    OSError
        If the file can't be opened; a remote file system may raise its own errors.
    pyarrow.ArrowInvalid
        If it is none of these.
    """

    def __init__(self, url: str) -> None:
        self._open = ExitStack()
        self._seen: list[pa.RecordBatch] = []  # of a stream, by `head`
        self._is_looking_ahead = False
        try:
            self._parquet: pq.ParquetFile | None = None
            self._arrow: Any = None
            if url.endswith(".parquet"):
                file = self._open.enter_context(open_binary(url))
                self._parquet = self._open.enter_context(pq.ParquetFile(file, buffer_size=_READ_BYTES))
                self.schema = self._parquet.schema_arrow
            else:
                self._arrow = self._open.enter_context(_open_arrow(url, self._open))
                self.schema = self._arrow.schema
        except BaseException:
            self._open.close()
            raise

    def batches(self, columns: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Stretches of rows in their order, a few MiB each, with the number of the first row.

        `columns`: names, of which others are not read.
        `rows`: numbers, ascending, of the rows wanted; stretches without any of them are passed over. None: all rows.
        Raises pyarrow.ArrowInvalid or OSError where the file is damaged.
        """
        wanted = None if rows is None else np.asarray(rows, dtype=np.int64)
        batches = self._arrow_batches(columns, wanted) if self._parquet is None else _parquet_batches(self._parquet, columns, wanted)
        for first, batch in batches:
            if _holds_any(wanted, first, batch.num_rows):
                yield first, pa.Table.from_batches([batch])

    def head(self, columns: Sequence[str]) -> pa.Table | None:
        """The first rows, which `batches` gives again; None if there are none."""
        self._is_looking_ahead = True
        head = next((table for _, table in self.batches(columns)), None)
        self._is_looking_ahead = False
        return head

    def n_rows(self) -> int:
        """Rows of the whole file."""
        if self._parquet:
            return int(self._parquet.metadata.num_rows)
        return sum(batch.num_rows for batch in self._record_batches())

    def _arrow_batches(self, columns: Sequence[str], wanted: Any) -> Iterator[tuple[int, pa.RecordBatch]]:
        start = 0
        for batch in self._record_batches():
            if _holds_any(wanted, start, batch.num_rows):
                chosen = batch.select(list(columns))
                _validate(chosen)
                size = _rows_at_a_time(chosen.nbytes, chosen.num_rows)
                for first in range(0, chosen.num_rows, size):
                    yield start + first, chosen.slice(first, size)
            start += batch.num_rows

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        if not isinstance(self._arrow, pa.ipc.RecordBatchStreamReader):
            yield from (self._arrow.get_batch(number) for number in range(self._arrow.num_record_batches))
            return
        yield from self._seen
        for batch in self._arrow:  # a stream is read only once
            if self._is_looking_ahead:
                self._seen.append(batch)
            yield batch

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()


def _parquet_batches(file: pq.ParquetFile, columns: Sequence[str], wanted: Any) -> Iterator[tuple[int, pa.RecordBatch]]:
    start = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if _holds_any(wanted, start, group.num_rows):
            first, size = start, _rows_at_a_time(group.total_byte_size, group.num_rows)
            for batch in file.iter_batches(size, row_groups=[number], columns=list(columns), use_threads=False):
                yield first, batch
                first += batch.num_rows
        start += group.num_rows


def _open_arrow(url: str, opened: ExitStack) -> Any:
    if is_local(url):
        source: Any = opened.enter_context(pa.memory_map(local_path(url)))
        magic = source.read_at(len(_FILE_MAGIC), 0) if source.size() else b""
    else:
        file = opened.enter_context(open_binary(url))
        magic = file.read(len(_FILE_MAGIC))
        file.seek(0)
        source = pa.PythonFile(file, mode="r")
    return pa.ipc.open_file(source) if magic == _FILE_MAGIC else pa.ipc.open_stream(source)


def _holds_any(wanted: Any, first: int, n: int) -> bool:
    if wanted is None:
        return n > 0
    place = int(np.searchsorted(wanted, first))
    return place < len(wanted) and int(wanted[place]) < first + n


def _rows_at_a_time(n_bytes: int, n_rows: int) -> int:
    return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / max(1.0, n_bytes / max(1, n_rows)))))


def _validate(batch: pa.RecordBatch) -> None:
    """Check every offset: those of an Arrow file are used as they are, and a wrong one reads strange memory."""
    for column in batch.columns:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        column.validate()  # before it is viewed
        column.view(_without_text(column.type)).validate(full=True)  # text may hold what is no UTF-8: reading allows for that


def _without_text(kind: pa.DataType) -> pa.DataType:
    """The same layout with bytes for text."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_text(field.type)) for field in kind])
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_text(kind.value_type)))
    return pa.list_(kind.value_field.with_type(_without_text(kind.value_type))) if pa.types.is_list(kind) else kind
