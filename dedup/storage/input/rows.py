"""Rows of tables as what they say about an image; the parquet beside a shard."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.storage.input.encodings import Decoded, Guesser, lines_to_learn_from
from dedup.storage.input.records import Record, aliases, as_text, caption_columns, captions_in, is_weak, plain_name, url_columns
from dedup.storage.input.samples import TextSources, one_line

KEY_NAMES: Final = ("key", "__key__", "image_path", "KEY")
TAR_ENDINGS: Final = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tar")
_LOOKED_THROUGH: Final = 200_000  # rows of a column from which its encoding is learnt


@dataclass
class Row:
    """What a table says about one image; it may have several rows in it."""

    records: list[Record] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    weak_captions: list[str] = field(default_factory=list)  # by names that mean a caption only for want of better ones
    decoded: list[Decoded] = field(default_factory=list)  # texts that are not ASCII


class RowReader:
    """Reads rows of a table whose texts may be in any encoding.

    Parameters
    ----------
    names : iterable of str
        Columns of the table.
    carry : sequence of str
        Carried columns.
    """

    def __init__(self, names: Iterable[str], carry: Sequence[str]) -> None:
        names = list(names)
        groups = caption_columns(names)
        self._strong = [group for group in groups if not is_weak(group)]
        self._weak = [group for group in groups if is_weak(group)]
        wanted = [name for group in groups for name in group]
        wanted += [*url_columns(names), *(alias for name in carry for alias in aliases(name) if alias in names)]
        self.columns = list(dict.fromkeys(wanted))
        self._guesser = Guesser()
        self._has_learnt = False

    def learn(self, table: pa.Table) -> None:
        """Learn the encoding of the table's texts, which are bytes, unless an earlier part of it has told."""
        if self._has_learnt:
            return
        strange: list[bytes] = []
        for name in self.columns:
            column = table.column(name) if name in table.column_names else None
            if column is None or not pa.types.is_large_binary(column.type):
                continue
            column = column.slice(0, _LOOKED_THROUGH)
            try:
                column.cast(pa.large_string()).validate(full=True)
            except pa.ArrowInvalid:
                strange += lines_to_learn_from(pc.drop_null(column).to_pylist())
        if strange:
            self._guesser.learn(strange)
            self._has_learnt = True

    def text(self, value: bytes) -> str:
        """A text of the table."""
        return self._guesser.decode(value).text

    def read(self, rows: Iterable[dict[str, Any]]) -> Row:
        """What the rows of one image say, in their order."""
        whole = Row()
        for row in rows:
            record = {name: self._decoded(row.get(name), whole) for name in self.columns}
            whole.records.append(record)
            whole.captions += _captions(record, self._strong)
            whole.weak_captions += _captions(record, self._weak)
        return whole

    def _decoded(self, value: object, whole: Row) -> object:
        if isinstance(value, list):
            return [self._decoded(item, whole) for item in value]
        if not isinstance(value, bytes):
            return value
        if value.isascii() and b"\0" not in value:
            return value.decode()
        whole.decoded.append(self._guesser.decode(value))
        return whole.decoded[-1].text


def _captions(record: Record, groups: Sequence[Sequence[str]]) -> list[str]:
    for group in groups:
        if found := [text for name in group for text in captions_in({"caption": record[name]}, weak=False)]:
            return found
    return []


def text_as_bytes(table: pa.Table, *, apart_from: Sequence[str] = ()) -> pa.Table:
    """Cast text columns, and columns of lists of texts, to bytes: they may hold invalid UTF-8, on which `to_pylist` would fail."""
    for position, column in enumerate(table.schema):
        if column.name not in apart_from and (kind := _as_bytes(column.type)) is not None:
            table = table.set_column(position, column.name, table.column(position).cast(kind))
    return table


def _as_bytes(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _as_bytes(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _as_bytes(kind.value_type)
        return None if inner is None else pa.large_list(inner)
    return None


def sidecar_url(shard: str) -> str:
    """URL of the parquet beside a shard.

    Examples
    --------
    >>> sidecar_url("s3://bucket/00000.tar"), sidecar_url("/data/a.tar.gz")
    ('s3://bucket/00000.parquet', '/data/a.parquet')
    """
    return without_ending(shard) + ".parquet"


def without_ending(shard: str) -> str:
    """A path without ``.tar``, ``.tar.gz`` and their like, or without its suffix."""
    ending = next((ending for ending in TAR_ENDINGS if shard.endswith(ending)), posixpath.splitext(shard)[1])
    return shard[: len(shard) - len(ending)]


class Sidecar:
    """The parquet beside a shard, by key: img2dataset also writes rows for failed downloads, so row numbers mean nothing.

    Parameters
    ----------
    shard : str
        URL of the tar.
    carry : sequence of str
        Carried columns.
    found : TextSources, optional
        Gains names of columns and counts of rows.

    Attributes
    ----------
    note : str or None
        Why there is nothing to join, or None.

    Raises
    ------
    OSError
        If the file exists but can't be fetched.
    """

    def __init__(self, shard: str, carry: Sequence[str], found: TextSources | None = None) -> None:
        self.note: str | None = None
        self._found = TextSources() if found is None else found
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._taken: set[str] = set()
        self._reader = RowReader([], carry)
        url = sidecar_url(shard)
        try:
            with fsspec.open(url, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            self.note = f"input.sidecar is set, but {url} does not exist; captions come from the tar alone"
            return
        try:
            self._load(data, carry)
        except (pa.ArrowException, OSError, ValueError) as error:
            self.note = (
                f"{url} is not parquet with a column of {', '.join(KEY_NAMES)} ({one_line(error)}); captions come from the tar alone"
            )

    def _load(self, data: bytes, carry: Sequence[str]) -> None:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        key = next((name for wanted in KEY_NAMES for name in names if plain_name(name) == plain_name(wanted)), None)
        if key is None:
            raise ValueError(f"found {', '.join(names)}")
        self._reader = RowReader([name for name in names if name != key], carry)
        table = text_as_bytes(file.read(columns=[key, *self._reader.columns]))
        self._reader.learn(table)
        self._found.names.update(names)
        self._found.n_rows = table.num_rows
        for row in table.to_pylist():
            value = row.pop(key)
            name = as_text(value) if isinstance(value, (str, bytes)) else None if value is None else str(value)
            if name is not None:
                self._rows.setdefault(name, []).append(row)

    def find(self, key: str) -> Row | None:
        """What the rows of a sample say, found by its key, or else its base name, which only one sample gets; None without any."""
        self._found.n_images += 1
        name = key if key in self._rows else posixpath.basename(key)
        rows = self._rows.get(name)
        if rows is None or (name != key and name in self._taken):
            return None
        if name not in self._taken:
            self._found.n_joined_rows += len(rows)
        self._taken.add(name)
        self._found.n_joined_images += 1
        return self._reader.read(rows)
