"""The tables that say what the rows of published embeddings are: parquet, Arrow, CSV or Lance, read a few rows at a time."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Final

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.errors import MissingExtra
from dedup.storage.input.encodings import guess_encoding
from dedup.storage.input.row_files import RowFile
from dedup.storage.urls import is_local, local_path, open_binary

LANCE: Final = ".lance"  # a folder
TYPED_SUFFIXES: Final = (".parquet", LANCE, ".arrow", ".feather")  # which may hold vectors, the likeliest first
TEXT_SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
TABLE_SUFFIXES: Final = TYPED_SUFFIXES + TEXT_SUFFIXES
_HEAD_BYTES: Final = 1024 * 1024
_DELIMITERS: Final = ",\t;|"
_BLOCK_BYTES: Final = 8 * 1024 * 1024


def outermost(name: str) -> str:
    """Of a file inside a data set of Lance, which is a folder, that folder; of any other itself.

    Examples
    --------
    >>> outermost("a/b.lance/data/0.lance"), outermost("a/b.parquet")
    ('a/b.lance', 'a/b.parquet')
    """
    outer, mark, _ = name.partition(f"{LANCE}/")
    return outer + LANCE if mark else name


class RowTable(ABC):
    """A table that is open.

    Attributes
    ----------
    schema : pyarrow.Schema
    n_rows : int
    """

    schema: pa.Schema
    n_rows: int

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [str(name) for name in self.schema.names]

    @abstractmethod
    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """All rows in their order, `n_rows` or fewer at a time.

        `columns`: names, at least one; others are not read.
        """


@contextmanager
def open_table(url: str) -> Iterator[RowTable]:
    """Open a table by its suffix, one of `TABLE_SUFFIXES`.

    Raises MissingExtra if it is Lance's and the package lance is not installed, and whatever the file system, pyarrow or lance raise for a
    file that can't be read.
    """
    with ExitStack() as stack:
        if url.endswith(LANCE):
            yield _Lance(url)
        elif url.endswith(TEXT_SUFFIXES):
            yield _Text(url)
        elif url.endswith(".parquet"):
            yield _Parquet(stack.enter_context(open_binary(url)))
        else:
            yield _Arrow(stack.enter_context(RowFile(url)))


class _Parquet(RowTable):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = pq.ParquetFile(file)
        self.schema, self.n_rows = self._file.schema_arrow, self._file.metadata.num_rows

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(n_rows, columns=list(columns))


class _Arrow(RowTable):
    def __init__(self, file: RowFile) -> None:
        self._file, self.schema, self.n_rows = file, file.schema, file.n_rows()

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        for _, table in self._file.batches(columns):
            yield from table.to_batches(n_rows)


class _Text(RowTable):
    """CSV: all columns are texts, which need not be UTF-8; the delimiter is the likeliest of the header."""

    def __init__(self, url: str) -> None:
        self._url = url
        with self._open() as file:
            head = file.read(_HEAD_BYTES)
        guessed = guess_encoding(head)
        self._encoding = guessed if guessed.startswith(("utf-16", "utf-32")) else "utf8"
        header = head.decode("utf-8" if self._encoding == "utf8" else guessed, "replace").lstrip("\ufeff").splitlines()
        first = header[0] if header else ""
        self._delimiter = max(_DELIMITERS, key=first.count)
        names = next(csv.reader([first], delimiter=self._delimiter), [])
        self.schema = pa.schema([(name, pa.string()) for name in names])
        self.n_rows = sum(batch.num_rows for batch in self.batches(names[:1], 0)) if names else 0

    def _open(self) -> Any:
        return fsspec.open(self._url, "rb", compression="infer")

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        reading = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, encoding=self._encoding)
        # of one column an empty line is a row
        is_one = len(self.names) < 2
        parsing = pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, ignore_empty_lines=not is_one)
        converting = pyarrow.csv.ConvertOptions(
            check_utf8=False, column_types=self.schema, include_columns=list(columns), null_values=[""], strings_can_be_null=True
        )
        with self._open() as file:
            for batch in pyarrow.csv.open_csv(file, reading, parsing, converting):
                starts = range(0, batch.num_rows, n_rows or max(batch.num_rows, 1))
                yield from (batch.slice(start, n_rows or batch.num_rows) for start in starts)


class _Lance(RowTable):
    def __init__(self, url: str) -> None:
        try:
            import lance
        except ImportError as error:
            raise MissingExtra(error.name or "lance", "lance") from error
        self._data: Any = lance.dataset(local_path(url) if is_local(url) else url)
        self.schema, self.n_rows = self._data.schema, int(self._data.count_rows())

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._data.to_batches(columns=list(columns), batch_size=n_rows, scan_in_order=True)
