"""Published embeddings: clip-retrieval's and LAION's folders, NeMo Curator's parquet, plain .npy beside .parquet."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.errors import InputError
from dedup.schemas import CARRIED_TYPES, METADATA
from dedup.storage.arrays import array_shape, read_rows
from dedup.storage.input.encodings import clean_text
from dedup.storage.input.records import aliases, caption_columns, captions_in, coerce, url_columns
from dedup.storage.input.samples import one_line
from dedup.storage.urls import absolute, filesystem

VECTOR_COLUMNS: Final = ("embedding", "embeddings", "image_embedding", "vector")
KEY_NAMES: Final = ("key", "__key__", "image_id", "id", "image_path", "KEY")
_WIDTH_NAMES: Final = ("width", "original_width", "WIDTH")
_HEIGHT_NAMES: Final = ("height", "original_height", "HEIGHT")
_PLACE: Final = ("shard", "byte_offset", "n_bytes")
CAPTIONS: Final = METADATA.field("captions")
BATCH_ROWS = 16_384
_THREADS = 32


@dataclass(frozen=True)
class EmbeddingFile:
    """Vectors and their metadata, row by row."""

    url: str  # the file with the vectors: .npy, or parquet with a column of them
    metadata: str  # parquet with as many rows, in the same order; `url` itself where the vectors are a column of it
    column: str  # that column; '' for .npy
    n_rows: int
    dim: int
    columns: tuple[str, ...]  # of the metadata

    @property
    def has_sha256(self) -> bool:
        """Whether the metadata have a hash of each image's bytes."""
        return "sha256" in self.columns

    @property
    def has_places(self) -> bool:
        """Whether the metadata say where in a tar each image is."""
        return all(name in self.columns for name in _PLACE)


def find_embeddings(folder: str) -> list[EmbeddingFile]:
    """The files of a folder of embeddings.

    `folder`: a path or any fsspec URL, searched with its subfolders. ``img_emb_0.npy`` belongs to ``metadata_0.parquet``, by number,
    however padded; any other ``NAME.npy`` to the ``NAME.parquet`` in its folder; a parquet alone holds a column of vectors.
    Returns sorted by url, of one width.
    Raises InputError if there are none, an array has no metadata, rows do not match, or widths differ.
    """
    root = absolute(folder).rstrip("/")
    arrays, tables = _list_urls(root)
    metadata = {_number(name, "metadata"): name for name in tables}
    pairs: list[tuple[str, str]] = []
    for array in arrays:
        number = _number(array, "img_emb")
        beside = posixpath.splitext(array)[0] + ".parquet"
        table = metadata.get(number) if number is not None else beside if beside in tables else None
        if table is None:
            expected = posixpath.basename(beside) if number is None else f"metadata_{number}.parquet, with any number of zeros"
            raise InputError(f"input.embeddings={folder}: {array} has no metadata; expected {expected} with a row for each of its rows")
        pairs.append((array, table))
    if not arrays:
        pairs = [(table, table) for table in tables]
    if not pairs:
        raise InputError(
            f"input.embeddings={folder} holds no embeddings; expected img_emb/img_emb_0.npy with metadata/metadata_0.parquet, "
            "NAME.npy with NAME.parquet, or parquet with a column 'embedding'"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        files = list(pool.map(lambda pair: _read_headers(*pair), sorted(pairs)))
    for file in files:
        if file.dim != files[0].dim:
            raise InputError(
                f"input.embeddings={folder}: {file.url} has vectors of width {file.dim}, {files[0].url} of {files[0].dim}; "
                "expected one encoder: keep its files in a folder of their own"
            )
    return files


def _list_urls(root: str) -> tuple[list[str], list[str]]:
    """URLs of arrays of image embeddings and of parquet files below a folder, sorted."""
    try:
        fs, path = filesystem(root)
        names = sorted(str(name) for name in fs.find(path))
    except Exception as error:  # each file system has its own
        raise InputError(f"input.embeddings={root} can't be listed ({one_line(error)}); check address and credentials") from error
    urls = [root + name.removeprefix(path.rstrip("/")) for name in names if "/_" not in name[len(path) :] and "/." not in name[len(path) :]]
    # clip-retrieval puts the captions' embeddings beside the images'
    arrays = [url for url in urls if url.endswith(".npy") and _number(url, "text_emb") is None]
    images = [url for url in arrays if _number(url, "img_emb") is not None]
    return images or arrays, [url for url in urls if url.endswith(".parquet")]


def _number(url: str, prefix: str) -> int | None:
    match = re.fullmatch(rf"{prefix}_?(\d+)\.\w+", posixpath.basename(url))
    return int(match[1]) if match else None


def _read_headers(url: str, metadata: str) -> EmbeddingFile:
    try:
        fs, path = filesystem(metadata)
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            schema, n_rows = parquet.schema_arrow, parquet.metadata.num_rows
            if url != metadata:
                shape, dtype = array_shape(url)
                if len(shape) != 2 or dtype.kind != "f":
                    raise InputError(f"{url}: found an array of {dtype} of shape {shape}; expected float rows, (n, width)")
                if shape[0] != n_rows:
                    raise InputError(f"{url} has {shape[0]:,} rows and {metadata} {n_rows:,}; expected a row of metadata for each vector")
                return EmbeddingFile(url, metadata, "", n_rows, shape[1], tuple(schema.names))
            column = next((name for name in VECTOR_COLUMNS if name in schema.names), None)
            if column is None:
                raise InputError(f"{url}: found the columns {', '.join(schema.names)}; expected one of {', '.join(VECTOR_COLUMNS)}")
            lengths = (len(value) for batch in parquet.iter_batches(64, columns=[column]) for value in batch.column(0) if value.is_valid)
            return EmbeddingFile(url, url, column, n_rows, next(lengths, 0), tuple(schema.names))
    except InputError:
        raise
    except Exception as error:  # pyarrow, numpy and the file system each have their own
        raise InputError(f"{url} with {metadata} can't be read ({one_line(error)}); expected embeddings and their metadata") from error


def read_embeddings(
    source: EmbeddingFile, carry: Sequence[str] = (), *, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[npt.NDArray[np.float32], pa.Table]]:
    """The rows of a file, in batches of (vectors, rows).

    `carry`: further columns.
    `vectors`: shape (n, dim); as stored, not normalised; a row that is null or of another width is NaN.
    `rows`: `key, url, caption, captions, sha256, width, height`, with places `shard, byte_offset, n_bytes`, and the carried columns; null
    where the file has none. Without a key column the row numbers are the keys.
    """
    fs, path = filesystem(source.metadata)
    spellings = {
        "key": KEY_NAMES, "url": url_columns(source.columns), "sha256": ("sha256",), "width": _WIDTH_NAMES, "height": _HEIGHT_NAMES,
        **({name: (name,) for name in _PLACE} if source.has_places else {}), **{name: aliases(name) for name in carry},
    }  # fmt: skip
    origins = {name: next((alias for alias in names if alias in source.columns), None) for name, names in spellings.items()}
    groups = caption_columns(source.columns)
    of_captions = [name for group in groups for name in group]
    wanted = [*dict.fromkeys([*filter(None, origins.values()), *of_captions, *([source.column] if source.column else [])])]
    start = 0
    with fs.open(path, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_rows, columns=wanted or [source.columns[0]]):
            n = batch.num_rows
            if source.column:
                vectors = _stacked(batch.column(source.column), source.dim)
            else:
                vectors = read_rows(source.url, start, start + n).astype(np.float32)
            columns = {name: _column(name, None if origin is None else batch.column(origin), n) for name, origin in origins.items()}
            if origins["key"] is None:
                columns["key"] = pa.array([str(number) for number in range(start, start + n)])
            columns["captions"] = _captions([[batch.column(name) for name in group] for group in groups], n)
            columns["caption"] = pc.list_element(columns["captions"], 0)
            yield vectors, pa.table(columns)
            start += n


def _stacked(column: pa.Array, dim: int) -> npt.NDArray[np.float32]:
    """Vectors from a column of lists."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    is_good = lengths == dim
    values = column.filter(pa.array(is_good)).flatten().cast(pa.float32())
    rows = np.full((len(column), dim), np.nan, dtype=np.float32)
    rows[is_good] = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False).reshape(-1, dim)
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
