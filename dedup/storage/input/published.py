"""Published embeddings: clip-retrieval's and LAION's folders, DataComp's archives, NeMo Curator's parquet, Lance, plain and raw arrays."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.errors import ConfigError, DedupError, InputError
from dedup.storage.arrays import array_shape, header_of, missing_bytes
from dedup.storage.input.bare_arrays import RAW_SUFFIXES, RawRows, raw_length, raw_rows
from dedup.storage.input.published_rows import BATCH_ROWS, PLACE, EmbeddingFile, is_bytes, is_list, read_embeddings, unnested
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_tables import LANCE, TABLE_SUFFIXES, TYPED_SUFFIXES, RowTable, open_table, outermost
from dedup.storage.input.samples import one_line
from dedup.storage.input.walk import files_below
from dedup.storage.urls import absolute, is_local, open_binary

EMBEDDING_SUFFIXES: Final = (".npy", ".npz", *TYPED_SUFFIXES, *RAW_SUFFIXES)
VECTOR_COLUMNS: Final = ("embedding", "embeddings", "image_embedding", "vector")
ROLES: Final = ("vector", "key", "url", "caption")  # that `input.columns` can name
_WIDTH_ROWS = 1_024  # whose most frequent width is that of the file
_HASHED_ROWS = 4_096  # whose hashes are compared with their vectors
_LEAST_OF_EQUAL = 0.9  # cosine of images of the same bytes, however they were rounded
_THREADS = 32


def roles_of(columns: Sequence[str]) -> dict[str, str]:
    """The columns that `input.columns` names, by role.

    Raises ConfigError if an entry is no ``role=column``.

    >>> roles_of(["vector=l14_img", "key=uid"])
    {'vector': 'l14_img', 'key': 'uid'}
    """
    roles: dict[str, str] = {}
    for entry in columns:
        role, _, column = (part.strip() for part in entry.partition("="))
        if role not in ROLES or not column:
            raise ConfigError(f"input.columns={entry}: expected ROLE=COLUMN with one of {', '.join(ROLES)}, such as vector=l14_img")
        roles[role] = column
    return roles


def find_embeddings(
    folder: str, passed_over: Counter[str] | None = None, *, allow_missing: bool = False, columns: Sequence[str] = (), raw: str = ""
) -> list[EmbeddingFile]:
    """The files of a folder of embeddings.

    `folder`: a path or any fsspec URL, searched with its subfolders; run directories below it are passed over. ``img_emb_0.npy`` belongs
    to the ``metadata_0.parquet``, by number, however padded, of its own folder, or of one beside its own; any other ``NAME.npy`` to the
    ``NAME.parquet`` in its folder, and so does an archive ``NAME.npz`` (DataComp); tables may be Arrow, CSV or Lance as well. Where no
    array has a table, rows have their numbers alone. A parquet, Arrow file or Lance data set without arrays holds a column of vectors.
    `passed_over`: gains what was not read, by reason.
    `allow_missing`: pass over arrays that are cut off, and tables whose array is missing, instead of refusing them.
    `columns`: see `roles_of`.
    `raw`: see `raw_rows`; with it raw arrays are read.
    Returns sorted by url, of one width. Columns that hold nothing, or a hash that far vectors share, are left out of `columns`.
    Raises InputError if there are none, an array has no table or more than one, a table no array, rows do not match, or widths differ.
    """
    roles, counts = roles_of(columns), Counter[str]() if passed_over is None else passed_over
    is_raw = raw_rows(raw) is not None
    root = os.path.realpath(absolute(folder)) if is_local(folder) else folder.rstrip("/")
    arrays, tables = _list_urls(root, counts, is_raw=is_raw)
    try:
        pairs = pair_up(arrays, tables, counts, allow_missing=allow_missing)
    except InputError as error:
        raise InputError(f"input.embeddings={folder}: {error}") from None
    if not pairs:
        raise InputError(
            f"input.embeddings={folder} holds no embeddings; expected img_emb/img_emb_0.npy with metadata/metadata_0.parquet, "
            "NAME.npy or NAME.npz with NAME.parquet or NAME.csv or alone, or parquet or Lance with a column 'embedding'; raw arrays need "
            "their type and width: input.raw=float16x512"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(lambda pair: _read_headers(*pair, roles=roles, raw=raw, allow_missing=allow_missing), sorted(pairs)))
    files = []
    for file, n_missing, is_identity in read:
        if not is_identity:
            counts["columns sha256 that unlike vectors share"] += 1
        if n_missing and not allow_missing:
            raise InputError(
                f"input.embeddings={folder}: {file.url} is cut off: its header announces {file.n_rows:,} rows, and {n_missing:,} bytes of "
                "them are missing; fetch it again, or set input.allow_missing=true to continue without it"
            )
        if n_missing:
            counts["rows of arrays that are cut off"] += file.n_rows
        else:
            files.append(file)
    for file in files:
        if file.dim != files[0].dim:
            raise InputError(
                f"input.embeddings={folder}: {file.url} has vectors of width {file.dim}, {files[0].url} of {files[0].dim}; "
                "expected one encoder: keep its files in a folder of their own"
            )
    return files


def pair_up(arrays: Sequence[str], tables: Sequence[str], passed_over: Counter[str], *, allow_missing: bool) -> list[tuple[str, str]]:
    """Each array with its table; without any array, each table with itself.

    Raises InputError if an array has no table or more than one, two have one table, or a table lacks its array.
    """
    if not arrays:
        kind = next((suffix for suffix in TYPED_SUFFIXES if any(table.endswith(suffix) for table in tables)), "")
        chosen = [table for table in tables if kind and table.endswith(kind)]
        passed_over.update({"tables of other kinds": len(tables) - len(chosen)} if len(chosen) < len(tables) else {})
        return [(table, table) for table in chosen]
    known = _Tables(tables)
    try:
        pairs = [(array, _table_of(array, known)) for array in arrays]
    except InputError:
        # a text file may be anything's
        if any(table.endswith(TYPED_SUFFIXES) for table in tables) or any(_has_table(array, known) for array in arrays):
            raise
        pairs = [(array, "") for array in arrays]
    array_of: dict[str, str] = {}
    for array, table in pairs:
        if table and table in array_of:
            raise InputError(f"{array_of[table]} and {array} both belong to {table}; expected a table for each: keep their folders apart")
        array_of[table] = array
    has_numbers = _number(arrays[0], "img_emb") is not None
    alone = [table for table in tables if table not in array_of]
    twins = set(map(_stem, array_of))  # the same table, written in several forms
    lacking = [table for table in alone if _is_lacking(table, has_numbers=has_numbers) and _stem(table) not in twins]
    if lacking and not allow_missing:
        number = _number(lacking[0], "metadata")
        suffix = posixpath.splitext(arrays[0])[1]
        expected = f"img_emb_{number}{suffix}" if has_numbers else posixpath.basename(posixpath.splitext(lacking[0])[0]) + suffix
        raise InputError(
            f"{len(lacking)} of {len(tables)} tables have no array, the first {lacking[0]}; expected {expected}: fetch it, move the table "
            "elsewhere, or set input.allow_missing=true to continue without its rows"
        )
    passed_over.update({"tables without an array": len(lacking)} if lacking else {})
    passed_over.update({"tables of other names": len(alone) - len(lacking)} if len(alone) > len(lacking) else {})
    return pairs


def _stem(table: str) -> str:
    return next((table[: -len(suffix)] for suffix in TABLE_SUFFIXES if table.endswith(suffix)), table)


def _is_lacking(table: str, *, has_numbers: bool) -> bool:
    """Whether a table without an array should have one."""
    return _number(table, "metadata") is not None if has_numbers else table.endswith(TYPED_SUFFIXES)


class _Tables:
    """Tables by their URL, and those of a number by it: a data set has ten thousands."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = frozenset(urls)
        self.numbered: dict[int, list[str]] = {}
        for url in urls:
            if (number := _number(url, "metadata")) is not None:
                self.numbered.setdefault(number, []).append(url)


def _has_table(array: str, tables: _Tables) -> bool:
    try:
        return bool(_table_of(array, tables))
    except InputError:
        return False


def _table_of(array: str, tables: _Tables) -> str:
    """The table of an array.

    Raises InputError if there is none, or more than one.
    """
    number, home = _number(array, "img_emb"), posixpath.dirname(array)
    if number is None:
        stem = posixpath.splitext(array)[0]
        beside = next((stem + suffix for suffix in TABLE_SUFFIXES if stem + suffix in tables.urls), None)
        if beside is not None:
            return beside
        raise InputError(f"{array} has no metadata; expected {posixpath.basename(stem)}.parquet with a row for each of its rows")
    numbered = [(table, posixpath.dirname(table)) for table in tables.numbered.get(number, [])]
    above = posixpath.dirname(home)
    # in its own folder, in one beside it, in the folder above, in one inside its own: other folders number theirs on their own
    near = (
        [table for table, folder in numbered if folder == home],
        [table for table, folder in numbered if folder != home and posixpath.dirname(folder) == above],
        [table for table, folder in numbered if folder == above],
        [table for table, folder in numbered if posixpath.dirname(folder) == home],
    )
    found = next(filter(None, near), [])
    # of one table in several forms the first kind counts
    ranked = sorted(found, key=lambda table: next(rank for rank, suffix in enumerate((*TABLE_SUFFIXES, "")) if table.endswith(suffix)))
    found = sorted({_stem(table): table for table in reversed(ranked)}.values())
    if not found:
        raise InputError(
            f"{array} has no metadata; expected metadata_{number}.parquet, with any number of zeros and a row for each of its rows, in its "
            "own folder or one beside it"
        )
    if len(found) > 1:
        raise InputError(f"{array} may belong to {found[0]} or to {found[1]}; expected one table: move the other elsewhere")
    return found[0]


def _list_urls(root: str, passed_over: Counter[str], *, is_raw: bool) -> tuple[list[str], list[str]]:
    """URLs of arrays of image embeddings and of tables below a folder, sorted."""
    names = dict.fromkeys(map(outermost, sorted(files_below(root, "input.embeddings", passed_over))))
    if root.endswith(LANCE):
        return [], [root]
    urls = [f"{root}/{name}" for name in names if not any(part[0] in "_." for part in name.split("/"))]
    suffixes = (".npy", ".npz", *(RAW_SUFFIXES if is_raw else ()))
    # clip-retrieval puts the captions' embeddings beside the images'
    arrays = [url for url in urls if url.endswith(suffixes) and _number(url, "text_emb") is None]
    images = [url for url in arrays if _number(url, "img_emb") is not None]
    return images or arrays, [url for url in urls if url.endswith(TABLE_SUFFIXES)]


def _number(url: str, prefix: str) -> int | None:
    match = re.fullmatch(rf"{prefix}_?(\d+)\.\w+(\.gz)?", posixpath.basename(url))
    return int(match[1]) if match else None


def _read_headers(url: str, metadata: str, *, roles: Mapping[str, str], raw: str, allow_missing: bool) -> tuple[EmbeddingFile, int, bool]:
    """What a file holds, how many bytes of its array are missing, and whether its hashes, if it has any, are those of its images."""
    try:
        if not metadata:
            found, n_missing = _with_array(EmbeddingFile(url, "", "", 0, 0, (), raw=raw), roles, allow_missing=allow_missing)
            return found, n_missing, True
        with open_table(metadata) as table:
            columns = _columns_with_values(table)
            named = tuple((role, column) for role, column in roles.items() if role != "vector")
            if lacking := [column for _, column in named if column not in table.names]:
                raise InputError(f"{metadata}: input.columns names '{lacking[0]}'; found the columns {', '.join(table.names)}")
            found, n_missing = EmbeddingFile(url, metadata, "", table.n_rows, 0, columns, named, raw), 0
            if url != metadata:
                found, n_missing = _with_array(found, roles, allow_missing=allow_missing)
                if found.n_rows != table.n_rows and not (n_missing and found.raw):
                    raise InputError(
                        f"{url} has {found.n_rows:,} rows and {metadata} {table.n_rows:,}; expected a row of metadata for each vector"
                    )
            else:
                column = _vector_column(table, url, roles.get("vector", ""))
                found = replace(found, column=column, dim=_width(table, column, url, raw_rows(raw)))
        is_identity = "sha256" not in columns or n_missing > 0 or _is_identity(found)
        if not is_identity:
            found = replace(found, columns=tuple(name for name in columns if name != "sha256"))
    except DedupError:
        raise
    except Exception as error:  # pyarrow, numpy and the file system each have their own
        text = f"{url} with {metadata}" if metadata else url
        raise InputError(f"{text} can't be read ({one_line(error)}); expected embeddings and their metadata") from error
    return found, n_missing, is_identity


def _with_array(file: EmbeddingFile, roles: Mapping[str, str], *, allow_missing: bool) -> tuple[EmbeddingFile, int]:
    """A file with the rows and the width of its array, and how many of its bytes are missing."""
    raw = raw_rows(file.raw)
    if raw is not None and file.url.endswith(RAW_SUFFIXES):
        n_rows, n_over = raw_length(file.url, raw)
        if n_over and not allow_missing:
            raise InputError(
                f"{file.url} has {n_rows * raw.n_bytes + n_over:,} bytes, {n_over:,} more than {n_rows:,} rows of input.raw={file.raw}; "
                "expected a multiple of a row: correct type and width, fetch the file again, or set input.allow_missing=true to "
                "continue without it"
            )
        return replace(file, n_rows=n_rows, dim=raw.dim), raw.n_bytes - n_over if n_over else 0
    name, shape, dtype, n_missing = _array_header(file.url, roles.get("vector", ""))
    if len(shape) != 2 or dtype.kind != "f":
        raise InputError(f"{file.url}: found an array of {dtype} of shape {shape}; expected float rows, (n, width)")
    return replace(file, column=name, n_rows=shape[0], dim=shape[1]), n_missing


def _array_header(url: str, wanted: str) -> tuple[str, tuple[int, ...], np.dtype[Any], int]:
    """Name (of the array in an .npz, else ''), shape and type of the vectors of a file, and how many of its bytes are missing.

    An archive that is cut off has no directory, and can't be opened.
    """
    if not url.endswith(".npz"):
        return "", *array_shape(url), missing_bytes(url)
    with open_binary(url) as file, np.load(file, allow_pickle=False) as archive:
        images = [name for name in archive.files if name.endswith("_img")] or list(archive.files)
        if wanted and wanted not in archive.files:
            raise InputError(f"{url}: input.columns names the vectors '{wanted}'; found the arrays {', '.join(archive.files)}")
        if not wanted and len(images) != 1:
            raise InputError(
                f"{url} holds the arrays {', '.join(archive.files)}; name one: input.columns=vector={images[0] if images else '…'}"
            )
        name = wanted or images[0]
        with archive.zip.open(f"{name}.npy") as member:
            shape, dtype, _ = header_of(member)
        return name, shape, dtype, 0


def holds_rows(url: str) -> bool:
    """Whether a file's name says that it holds rows: embeddings, parquet or Arrow."""
    return is_row_file(url) or url.endswith(EMBEDDING_SUFFIXES)


def n_rows_of(url: str, raw: str = "") -> int:
    """Rows of a file of embeddings, or of parquet or Arrow, from its header; `raw`: of the run, see `raw_rows`."""
    rows = raw_rows(raw)
    if rows is not None and url.endswith(RAW_SUFFIXES):
        return raw_length(url, rows)[0]
    if not url.endswith((".npy", ".npz")):
        with open_table(url) as table:
            return table.n_rows
    if url.endswith(".npy"):
        return int(array_shape(url)[0][0])
    with open_binary(url) as data, np.load(data, allow_pickle=False) as archive, archive.zip.open(f"{archive.files[0]}.npy") as member:
        return int(header_of(member)[0][0])


def _vector_column(table: RowTable, url: str, wanted: str) -> str:
    """The column that holds a table's vectors."""
    column = next((name for name in ((wanted,) if wanted else VECTOR_COLUMNS) if name in table.names), None)
    if column is not None:
        return column
    if wanted:
        raise InputError(f"{url}: input.columns names the vectors '{wanted}'; found the columns {', '.join(table.names)}")
    lists = [name for name in table.names if is_list(table.schema.field(name).type)]
    hint = f"; if the vectors are in '{lists[0]}': input.columns=vector={lists[0]}" if lists else ""
    raise InputError(f"{url}: found the columns {', '.join(table.names)}; expected one of {', '.join(VECTOR_COLUMNS)}{hint}")


def _columns_with_values(table: RowTable) -> tuple[str, ...]:
    """Columns of a table, without places and hashes that are empty in every row: a schema is no data."""
    told = [name for name in (*PLACE, "sha256") if name in table.names]
    empty = set(told)
    for batch in table.batches(told, BATCH_ROWS) if told else ():
        empty -= {name for name in empty if batch.column(name).null_count < batch.num_rows}
        if not empty:
            break
    return tuple(name for name in table.names if name not in empty)


def _width(table: RowTable, column: str, url: str, raw: RawRows | None) -> int:
    """Length of most vectors of a column."""
    kind = table.schema.field(column).type
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if is_bytes(kind):
        return _width_of_bytes(table, column, url, raw)
    inner = kind
    while is_list(inner):
        inner = inner.value_type
    if inner is kind or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        raise InputError(f"{url}: the column '{column}' holds {kind}; expected lists of numbers")
    lengths: Counter[int] = Counter()
    for batch in table.batches([column], _WIDTH_ROWS):
        counts = pc.list_value_length(unnested(batch.column(0))).drop_null().to_pylist()
        lengths.update(n for n in counts if n)
        if lengths:
            break
    if not lengths and table.n_rows and is_list(kind.value_type):
        raise InputError(f"{url}: the column '{column}' holds {kind}, several lists in each row; expected one list of numbers")
    return max(lengths, key=lambda n: (lengths[n], n), default=0)


def _width_of_bytes(table: RowTable, column: str, url: str, raw: RawRows | None) -> int:
    """Width of the vectors of a column of bytes, which only `input.raw` tells; most rows must have it."""
    batch = next((batch for batch in table.batches([column], _WIDTH_ROWS) if batch.num_rows), None)
    found = Counter(pc.binary_length(batch.column(0)).drop_null().to_pylist() if batch is not None else [])
    n_bytes = max(found, key=lambda n: (found[n], n), default=0)
    if raw is None:
        raise InputError(
            f"{url}: the column '{column}' holds {n_bytes:,} bytes a row, numbers of a type that it does not tell; expected lists of "
            f"numbers, or their type and width: input.raw=float16x{n_bytes // 2} or input.raw=float32x{n_bytes // 4}"
        )
    if found and n_bytes != raw.n_bytes:
        raise InputError(
            f"{url}: the column '{column}' holds {n_bytes:,} bytes a row; input.raw has {raw.n_bytes:,}: correct type and width"
        )
    return raw.dim


def _is_identity(file: EmbeddingFile) -> bool:
    """Whether images of the first rows that share a hash are near each other: else it is no hash of their bytes."""
    vectors, rows = next(read_embeddings(file, batch_rows=_HASHED_ROWS), (np.zeros((0, 1), np.float32), None))
    if rows is None:
        return True
    first: dict[str, int] = {}
    with np.errstate(all="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [(first.setdefault(value, place), place) for place, value in enumerate(rows["sha256"].to_pylist()) if value is not None]
    repeated = np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)
    similarity: npt.NDArray[np.float32] = (unit[repeated[:, 0]] * unit[repeated[:, 1]]).sum(axis=1)
    return bool(np.all(similarity[np.isfinite(similarity)] >= _LEAST_OF_EQUAL))
