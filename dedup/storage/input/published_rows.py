"""The rows of published embeddings: vectors, and what their metadata say of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.schemas import CARRIED_TYPES, METADATA
from dedup.storage.arrays import read_rows
from dedup.storage.input.bare_arrays import RAW_SUFFIXES, RawRows, raw_rows, read_raw
from dedup.storage.input.encodings import clean_text
from dedup.storage.input.records import aliases, caption_columns, captions_in, coerce, url_columns
from dedup.storage.input.row_tables import open_table
from dedup.storage.urls import open_binary

KEY_NAMES: Final = ("key", "__key__", "image_id", "id", "uid", "SAMPLE_ID", "image_path", "KEY")
# that of the file at its address before that of the one that was downloaded and resized
_WIDTH_NAMES: Final = ("original_width", "width", "WIDTH")
_HEIGHT_NAMES: Final = ("original_height", "height", "HEIGHT")
PLACE: Final = ("shard", "byte_offset", "n_bytes")
CAPTIONS: Final = METADATA.field("captions")
BATCH_ROWS = 16_384


@dataclass(frozen=True)
class EmbeddingFile:
    """Vectors and their metadata, row by row."""

    url: str  # the file with the vectors: an array, or a table with a column of them
    # a table with as many rows, in the same order; `url` itself where the vectors are a column of it; '' if there is none
    metadata: str
    column: str  # that column; of an .npz the name of the array; '' for other arrays
    n_rows: int
    dim: int
    columns: tuple[str, ...]  # of the metadata, without those that hold nothing
    named: tuple[tuple[str, str], ...] = ()  # roles with the columns that the user named for them
    raw: str = ""  # `input.raw`

    @property
    def has_sha256(self) -> bool:
        """Whether the metadata have a hash of each image's bytes."""
        return "sha256" in self.columns

    @property
    def has_places(self) -> bool:
        """Whether the metadata say where in a tar each image is."""
        return all(name in self.columns for name in PLACE)


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists, of any length or of one."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def unnested(column: pa.Array) -> pa.Array:
    """A column of lists of numbers from one of lists of one such list each, or of tensors; others become null."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    while is_list(column.type.value_type):
        is_one = pc.fill_null(pc.equal(pc.list_value_length(column), 1), pa.scalar(value=False))
        inner = column.filter(is_one).flatten()
        if pa.types.is_fixed_size_list(inner.type):
            inner = inner.cast(pa.list_(inner.type.value_type))
        places = pc.if_else(is_one, pa.array(np.cumsum(is_one.to_numpy(zero_copy_only=False)) - 1, pa.int64()), pa.scalar(None, pa.int64()))
        column = inner.take(places)
    return column


def read_embeddings(
    source: EmbeddingFile, carry: Sequence[str] = (), *, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[npt.NDArray[np.float32], pa.Table]]:
    """The rows of a file, in batches of (vectors, rows).

    `carry`: further columns.
    `vectors`: shape (n, dim); as stored, not normalised; a row that is null or of another width is NaN.
    `rows`: `key, url, caption, captions, sha256, width, height`, with places `shard, byte_offset, n_bytes`, and the carried columns; null
    where the file has none. Without a key column the row numbers are the keys.
    """
    named = dict(source.named)
    spellings: dict[str, Sequence[str]] = {
        "key": (named["key"],) if "key" in named else KEY_NAMES,
        "url": (named["url"],) if "url" in named else url_columns(source.columns),
        "sha256": ("sha256",), "width": _WIDTH_NAMES, "height": _HEIGHT_NAMES,
        **({name: (name,) for name in PLACE} if source.has_places else {}), **{name: aliases(name) for name in carry},
    }  # fmt: skip
    origins = {name: next((alias for alias in names if alias in source.columns), None) for name, names in spellings.items()}
    groups = [(named["caption"],)] if "caption" in named else caption_columns(source.columns)
    of_captions = [name for group in groups for name in group]
    is_table = source.url == source.metadata
    wanted = [*dict.fromkeys([*filter(None, origins.values()), *of_captions, *([source.column] if is_table else [])])]
    rows_between = None if is_table else _row_reader(source)
    start = 0
    for batch in _batches(source, wanted, batch_rows):
        n = batch.num_rows
        if rows_between is None:
            vectors = _stacked(batch.column(source.column), source.dim, raw_rows(source.raw))
        else:
            vectors = rows_between(start, start + n).astype(np.float32)
        columns = {name: _column(name, None if origin is None else batch.column(origin), n) for name, origin in origins.items()}
        if origins["key"] is None:
            columns["key"] = pa.array([str(number) for number in range(start, start + n)])
        columns["captions"] = _captions([[batch.column(name) for name in group] for group in groups], n)
        columns["caption"] = pc.list_element(columns["captions"], 0)
        yield vectors, pa.table(columns)
        start += n


def _batches(source: EmbeddingFile, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Rows of the metadata; of a file without any as many rows without columns."""
    if not source.metadata:
        for start in range(0, source.n_rows, n_rows):
            yield pa.record_batch({"": pa.nulls(min(n_rows, source.n_rows - start))})
        return
    with open_table(source.metadata) as table:
        # a column that says nothing tells the number of rows
        yield from table.batches(columns or table.names[:1], n_rows)


def _row_reader(source: EmbeddingFile) -> Callable[[int, int], npt.NDArray[Any]]:
    """Gives rows of the array of a file; an archive's is read once, whole."""
    raw = raw_rows(source.raw)
    if raw is not None and source.url.endswith(RAW_SUFFIXES):
        return partial(read_raw, source.url, raw)
    if not source.url.endswith(".npz"):
        return partial(read_rows, source.url)
    with open_binary(source.url) as file, np.load(file, allow_pickle=False) as archive:
        array = archive[source.column]
    return lambda start, stop: array[start:stop]


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes."""
    names = ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary")
    return any(getattr(pa.types, name)(kind) for name in names)


def _stacked(column: pa.Array, dim: int, raw: RawRows | None) -> npt.NDArray[np.float32]:
    """Vectors from a column of lists, or of bytes."""
    if raw is not None and is_bytes(column.type):
        return _from_bytes(column, raw)
    column = unnested(column)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    is_good = lengths == dim
    values = column.filter(pa.array(is_good)).flatten().cast(pa.float32())
    rows = np.full((len(column), dim), np.nan, dtype=np.float32)
    rows[is_good] = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False).reshape(-1, dim)
    return rows


def _from_bytes(column: pa.Array, raw: RawRows) -> npt.NDArray[np.float32]:
    values = column.to_pylist()
    is_good = np.array([value is not None and len(value) == raw.n_bytes for value in values], dtype=bool)
    rows = np.full((len(values), raw.dim), np.nan, dtype=np.float32)
    whole = b"".join(value for value, good in zip(values, is_good, strict=True) if good)
    rows[is_good] = np.frombuffer(whole, raw.dtype).reshape(-1, raw.dim)
    return rows


def _column(name: str, column: pa.Array | None, n: int) -> pa.Array:
    """A column of the run's tables from one of the file's."""
    kind = {"width": pa.int32(), "height": pa.int32(), "byte_offset": pa.int64(), "n_bytes": pa.int64()}.get(name)
    kind = kind or CARRIED_TYPES.get(name, pa.string())
    if column is None:
        return pa.nulls(n, kind)
    if kind == pa.string():
        return _texts(column)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # some value has another type
        like = name if name in CARRIED_TYPES else "original_width"  # a whole number
        return pa.array([coerce(like, value) for value in column.to_pylist()], CARRIED_TYPES[like]).cast(kind)


def _captions(groups: Sequence[Sequence[pa.Array]], n: int) -> pa.Array:
    """Lists of captions, without repetitions, from the first group of columns that has one; null where none has."""
    whole = pa.nulls(n, CAPTIONS.type)
    for group in groups:
        if len(group) == 1 and not pa.types.is_nested(group[0].type):
            texts = _texts(group[0]) if _is_text(group[0].type) else pa.nulls(n, pa.string())
            has_text = texts.is_valid()
            offsets = pc.if_else(has_text, pa.array(np.cumsum(has_text) - np.asarray(has_text), pa.int32()), pa.scalar(None, pa.int32()))
            ends = pa.array([int(pc.sum(has_text).as_py() or 0)], pa.int32())
            lists = pa.ListArray.from_arrays(pa.concat_arrays([offsets, ends]), texts.drop_null()).cast(CAPTIONS.type)
        else:
            rows = zip(*(column.to_pylist() for column in group), strict=True)
            found = (list(dict.fromkeys(text for value in row for text in captions_in({"caption": value}, weak=False))) for row in rows)
            lists = pa.array([texts or None for texts in found], CAPTIONS.type)
        whole = pc.coalesce(whole, lists)
    return whole


def _is_text(kind: pa.DataType) -> bool:
    names = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_dictionary", "is_null")
    return any(getattr(pa.types, name)(kind) for name in names)


def _texts(column: pa.Array) -> pa.Array:
    """Valid UTF-8 without NUL, stripped; null where nothing remains."""
    try:
        column = column.cast(pa.string())
        column.validate(full=True)
        is_clean = not pc.any(pc.match_substring(column, "\0")).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        is_clean = False
    if not is_clean:
        values = column.cast(pa.binary()).to_pylist() if pa.types.is_string(column.type) else column.to_pylist()
        texts = (value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values)
        column = pa.array([None if text is None else clean_text(str(text)) for text in texts], pa.string())
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(pc.binary_length(column), 0), pa.scalar(None, pa.string()), column)
