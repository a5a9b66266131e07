"""The table of captions of a folder of images: CSV with any delimiter, parquet, JSON lines or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import IO, Any, Final

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from cachetools import LRUCache

from dedup.errors import InputError
from dedup.storage.input.encodings import Decoded, clean_text, guess_encoding
from dedup.storage.input.paths import Joined, comparable, comparable_column, join_rows
from dedup.storage.input.records import captions_in, objects_in, plain_name
from dedup.storage.input.rows import Row, RowReader, text_as_bytes
from dedup.storage.input.samples import one_line
from dedup.storage.input.stamps import stamp

# of the file, the likeliest first
FILE_NAMES: Final = (
    "file", "file_name", "filename", "filepath", "file_path", "image_path", "img_path", "image_file", "image_filename", "image_name",
    "img_name", "image", "img", "path", "rel_path", "relative_path", "key", "__key__", "image_id", "img_id", "id", "name",
)  # fmt: skip
_DELIMITERS: Final = ",\t;|"
_EXPECTED: Final = "expected a header with a column of files (file, file_name, path, image, key, …) and one of captions (caption, text, …)"
_HEAD_BYTES: Final = 1024 * 1024
_ROWS_AT_ONCE: Final = 65_536
_JSON: Final = "\0json"  # the column that holds whole records
_HELD_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True)
class CaptionTable:
    """A table of captions, with its texts as bytes."""

    paths: pa.ChunkedArray  # string; as `comparable_column` gives them
    table: pa.Table
    reader: RowReader | None  # None: rows are JSON
    names: frozenset[str]
    guessed: str = ""  # the encoding of a JSON file, if it was guessed

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        return int(self.table.nbytes + self.paths.nbytes)

    def join(self, folder: str, images: Mapping[str, tuple[int, int]], *, has_exact: bool) -> Joined:
        """The rows of some images; see `join_rows`."""
        return join_rows(self.paths, folder, images, has_exact=has_exact, spelling=self._spelling)

    def _spelling(self, path: str) -> str:
        """A path on disk as the table's are compared: one that is not UTF-8 is read as the table is."""
        try:
            path.encode()
        except UnicodeEncodeError:
            path = clean_text(os.fsencode(path).decode("utf-8", "replace") if self.reader is None else self.reader.text(os.fsencode(path)))
        return comparable(path)

    def read(self, rows: Sequence[int]) -> Row:
        """What some rows say."""
        found = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        return self.reader.read(found) if self.reader is not None else _of_json((record[_JSON] for record in found), self.guessed)


def _of_json(texts: Iterable[bytes], guessed: str) -> Row:
    whole = Row()
    for text in texts:
        value = json.loads(text)
        whole.records += objects_in(value)
        whole.captions += captions_in(value, weak=False)
        whole.weak_captions += captions_in(value, weak=True)
        if not text.isascii():
            whole.decoded.append(Decoded("", guessed, is_damaged="\ufffd" in text.decode()))
    return whole


_LOADED: LRUCache[tuple[str, tuple[str, ...]], CaptionTable] = LRUCache(_HELD_BYTES, lambda loaded: loaded.n_bytes)
_LOCK: Final = Lock()


def load_table(url: str, carry: Sequence[str] = ()) -> CaptionTable:
    """Read a table of captions; the last ones, 512 MiB together, are kept, since every part of a folder asks for them.

    `url`: CSV (``,``, tab, ``;`` or ``|``, told by the header), parquet, JSON lines or JSON (a list of records, an object by file name, or
    COCO's `images` and `annotations`), by its suffix; compressed ones as well.
    Raises InputError if it can't be read, or has no column for the file or nothing else of use.
    """
    try:
        key = ("\0".join((url, *stamp(url))), tuple(carry))
    except Exception as error:  # each file system has its own
        raise InputError(f"input.captions={url} can't be reached ({one_line(error)}); try again") from error
    with _LOCK:
        if (held := _LOADED.get(key)) is not None:
            return held
        loaded = _load(url, carry)
        if loaded.n_bytes < _HELD_BYTES:
            _LOADED[key] = loaded
        return loaded


def read_paths(url: str) -> pa.ChunkedArray:
    """The paths of a table of captions, as `comparable_column` gives them.

    Raises InputError as `load_table` does.
    """
    return _load(url, (), has_text=False).paths


def table_columns(url: str) -> list[str] | None:
    """The columns of a table that says so at its beginning; None for JSON, which does not.

    Raises InputError as `load_table` does.
    """
    kind = _kind(url)
    if kind == "json":
        return None
    try:
        with fsspec.open(url, "rb", compression="infer") as file:
            if kind == "parquet":
                return [str(name) for name in pq.read_schema(file).names]
            return _header(url, file.read(_HEAD_BYTES)).names
    except InputError:
        raise
    except Exception as error:  # pyarrow, csv and the file system each have their own
        raise InputError(f"input.captions={url} can't be read ({one_line(error)}); {_EXPECTED}") from error


def _kind(url: str) -> str:
    name = posixpath.basename(url).lower()
    for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"):
        name = name.removesuffix(packed)
    suffix = posixpath.splitext(name)[1]
    return "parquet" if suffix in (".parquet", ".pq") else "json" if suffix in (".jsonl", ".ndjson", ".json") else "csv"


def _load(url: str, carry: Sequence[str], *, has_text: bool = True) -> CaptionTable:
    """`has_text`: whether more than the paths is wanted."""
    kind = _kind(url)
    try:
        if kind == "json":
            return _load_json(url, has_text)
        table, name = _read_parquet(url, carry, has_text) if kind == "parquet" else _read_csv(url, has_text)
        reader = RowReader([column for column in table.column_names if column != name], carry)
        if has_text and not reader.columns:
            raise InputError(f"input.captions={url} has the columns {', '.join(table.column_names)}; {_EXPECTED}")
        reader.learn(table)
        paths = _paths(table.column(name), reader)
    except InputError:
        raise
    except Exception as error:  # pyarrow, csv, json and the file system each have their own
        expected = "expected a CSV or parquet with a header, or JSON lines"
        raise InputError(f"input.captions={url} can't be read ({one_line(error)}); {expected}") from error
    return CaptionTable(paths, table.select(reader.columns), reader, frozenset(table.column_names))


def _file_column(names: Iterable[str]) -> str | None:
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(plain_name(name), name)
    return next((plain[wanted] for wanted in FILE_NAMES if wanted in plain), None)


def _paths(column: pa.ChunkedArray, reader: RowReader) -> pa.ChunkedArray:
    """Paths of any type as they are compared."""
    chunks = []
    for chunk in column.chunks:
        if not pa.types.is_large_binary(chunk.type):
            chunks.append(chunk.cast(pa.string()))
            continue
        try:
            texts = chunk.cast(pa.large_string())
            texts.validate(full=True)
        except pa.ArrowInvalid:
            texts = pa.array([None if value is None else reader.text(value) for value in chunk.to_pylist()], pa.large_string())
        chunks.append(texts.cast(pa.string()))
    return comparable_column(pa.chunked_array(chunks, pa.string()))


def _read_parquet(url: str, carry: Sequence[str], has_text: bool) -> tuple[pa.Table, str]:
    """The columns that are wanted, with the name of the file's."""
    with fsspec.open(url, "rb", compression="infer") as file:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        names = [str(name) for name in schema.names]
        name = _file_column(name for name in names if not pa.types.is_nested(schema.field(name).type))
        if name is None:
            raise InputError(f"input.captions={url} has the columns {', '.join(names)}; {_EXPECTED}")
        others = RowReader([column for column in names if column != name], carry).columns if has_text else []
        return text_as_bytes(parquet.read(columns=[name, *others])), name


@dataclass(frozen=True)
class _Header:
    names: list[str]
    delimiter: str
    encoding: str
    is_plain: bool  # whether the names are those in the file: ASCII, none twice


def _header(url: str, head: bytes) -> _Header:
    """The columns of a CSV, told from its beginning."""
    encoding = guess_encoding(head)
    text = head.decode(encoding, "replace")
    found: list[tuple[bool, int, str, list[str]]] = []
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        found.append((_file_column(names) is not None, len(names), delimiter, names))
    # of several, the first that names a file and has most columns
    has_file, _, delimiter, names = max(found, key=lambda each: each[:2], default=(False, 0, ",", []))
    if not has_file:
        raise InputError(f"input.captions={url} begins with the line {delimiter.join(names)[:200]!r}; {_EXPECTED}")
    n_of_name: Counter[str] = Counter()
    unique = []
    for name in names:
        unique.append(f"{name}_{n_of_name[name]}" if n_of_name[name] else name)
        n_of_name[name] += 1
    return _Header(unique, delimiter, encoding, is_plain=unique == names and all(map(str.isascii, names)))


def _read_csv(url: str, has_text: bool) -> tuple[pa.Table, str]:
    """The columns, all as bytes, since invalid UTF-8 must not end a run; with the name of the file's."""
    with fsspec.open(url, "rb", compression="infer") as file:
        header = _header(url, file.read(_HEAD_BYTES))
    name = _file_column(header.names)
    if name is None:
        raise AssertionError("a header without a file is refused")
    # texts in 8-bit encodings are decoded when they are used
    is_wide = header.encoding.startswith(("utf-16", "utf-32"))
    with fsspec.open(url, "rb", compression="infer") as file:
        table = pyarrow.csv.read_csv(
            file,
            # More threads would take cores from other workers.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                encoding=header.encoding if is_wide else "utf8",
                # Arrow takes names only if they are UTF-8, and can't tell two of the same apart.
                column_names=None if header.is_plain else header.names,
                skip_rows=0 if header.is_plain else 1,
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
            # Without types, captions that are all digits or dates would come back changed.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header.names, pa.large_binary()), include_columns=None if has_text else [name]
            ),
        )
    return table, name


def _load_json(url: str, has_text: bool) -> CaptionTable:
    """JSON lines or JSON: whole records as bytes, beside their paths."""
    paths: list[pa.Array] = []
    records: list[pa.Array] = []
    names: set[str] = set()
    batch: list[tuple[str | None, bytes]] = []
    with fsspec.open(url, "rb", compression="infer") as file:
        encoding = guess_encoding(file.read(_HEAD_BYTES))
    for path, record in _json_records(url, encoding, names):
        batch.append((path, record if has_text else b""))
        if len(batch) >= _ROWS_AT_ONCE:
            _flush(batch, paths, records)
    _flush(batch, paths, records)
    column = comparable_column(pa.chunked_array(paths, pa.string()))
    guessed = "" if encoding.startswith("utf-") else encoding
    if not pc.any(pc.is_valid(column)).as_py():
        raise InputError(f"input.captions={url} has no record with a file, but {', '.join(sorted(names)[:20]) or 'none'}; {_EXPECTED}")
    return CaptionTable(column, pa.table({_JSON: pa.chunked_array(records, pa.large_binary())}), None, frozenset(names), guessed)


def _flush(batch: list[tuple[str | None, bytes]], paths: list[pa.Array], records: list[pa.Array]) -> None:
    paths.append(pa.array([path for path, _ in batch], pa.string()))
    records.append(pa.array([record for _, record in batch], pa.large_binary()))
    batch.clear()


def _json_records(url: str, encoding: str, names: set[str]) -> Iterator[tuple[str | None, bytes]]:
    with fsspec.open(url, "rt", encoding=encoding, errors="replace", compression="infer", newline="\n") as lines:
        for value in _json_values(lines, is_lines=url.partition("?")[0].removesuffix(".gz").endswith((".jsonl", ".ndjson"))):
            if not isinstance(value, dict):
                continue
            names.update(value)
            name = _file_column(value)
            path = None if name is None or not isinstance(value[name], (str, int)) else str(value[name])
            yield _clean(path), clean_text(json.dumps(value, ensure_ascii=False)).encode()


def _clean(path: str | None) -> str | None:
    return None if path is None else path.encode("utf-8", "replace").decode()


def _json_values(lines: IO[str], *, is_lines: bool) -> Iterator[Any]:
    """The records of JSON lines; of one JSON value, those in it.

    Raises ValueError if a line is no JSON, or the whole is none.
    """
    first = lines.readline()
    with suppress(ValueError):
        value = json.loads(first)
        # a record in a line of its own, unless the file is one long line
        is_lines = isinstance(value, dict) and (is_lines or _file_column(value) is not None)
    if is_lines:
        for number, line in enumerate(chain([first], lines), 1):
            try:
                yield from [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from error
        return
    yield from _records_in(json.loads(first + lines.read()))


def _records_in(value: object) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        images, annotations = value.get("images"), value.get("annotations")
        if isinstance(images, list) and isinstance(annotations, list):
            yield from _coco(images, annotations)
        elif isinstance(images, list):  # Karpathy's split of COCO
            yield from images
        else:
            yield from (
                item | {"file": name} if isinstance(item, dict) else {"file": name, "caption": item} for name, item in value.items()
            )


def _coco(images: list[Any], annotations: list[Any]) -> Iterator[dict[str, Any]]:
    of_image: dict[Any, list[Any]] = {}
    for annotation in annotations:
        if isinstance(annotation, dict) and "caption" in annotation:
            of_image.setdefault(annotation.get("image_id"), []).append(annotation["caption"])
    for image in images:
        if isinstance(image, dict):
            url = image.get("coco_url") or image.get("flickr_url")
            yield {"url": url} | image | {"caption": of_image.get(image.get("id"), [])}
