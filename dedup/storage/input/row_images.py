"""The images of a parquet or Arrow file as samples, a row each: Hugging Face's `image: {bytes, path}`, or a column of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from dedup.errors import SampleError
from dedup.storage.input.captions import SampleTexts, TextReader
from dedup.storage.input.encodings import clean_name, clean_text
from dedup.storage.input.kinds import image_kind
from dedup.storage.input.records import as_text, plain_name
from dedup.storage.input.row_files import RowFile
from dedup.storage.input.rows import Row, RowReader, text_as_bytes
from dedup.storage.input.samples import IMAGE_SUFFIXES, RawSample, SampleReader, one_line
from dedup.storage.urls import is_local

LEFT_OUT: Final = "images that input.images_per_sample leaves out"
_KEYS: Final = ("key", "__key__")
_STATUS: Final = "status"  # of img2dataset, which says why a row has no image
_NAMES: Final = IMAGE_SUFFIXES | {"image", "images", "img", "image_bytes", "image_data"}
_LOOKED_AT: Final = 16  # values of a column that tell whether it holds images
_OTHER_FEATURES: Final = frozenset({"Audio", "Video", "Pdf", "Nifti"})  # of `datasets`; they have bytes and path as well
_Image = tuple[str, bytes | None, str | None]  # which image of the row; its bytes and its path, as far as they are given


def read_rows(url: str, *, carry: Sequence[str], max_image_bytes: int, images: str) -> SampleReader:
    """Stream a parquet or Arrow file into the images of its rows; see `dedup.storage.input.shards.read_shard`.

    Images are the columns that are so by the features of `datasets`, else those of bytes, or of structs with bytes, whose first values
    look like images, else those called ``image``, ``jpg`` and the like; a list of images gives as many. The key is the column `key` or
    `__key__`, else the number of the row in nine digits; `member` is the column, in a list ``column.number``; `byte_offset` is the
    number of the row. Captions, address and carried values come from the other columns.
    """
    return SampleReader(lambda reader: _Rows(url, reader, tuple(carry), max_image_bytes, images).samples())


def images_at(url: str, rows: Sequence[int]) -> Iterator[tuple[int, str, bytes]]:
    """The images of some rows: number of the row, `member` and bytes.

    `rows`: ascending.
    Raises OSError, pyarrow.ArrowInvalid, or what the file system raises.
    """
    wanted = set(rows)
    with RowFile(url) as file:
        names, _ = _image_columns(file)
        for first, table in file.batches(names, rows):
            chosen = [number - first for number in range(first, first + table.num_rows) if number in wanted]
            for place, row in zip(chosen, _python_rows(table.take(chosen)), strict=True):
                yield from ((first + place, member, data) for member, data, _ in _images_of(row, names) if data is not None)


def holds_images(url: str) -> bool:
    """Whether a parquet or Arrow file has a column of images; False too if it can't be read."""
    try:
        with RowFile(url) as file:
            return bool(_image_columns(file)[0])
    except Exception:  # each file system has its own
        return False


def images_in(table: pa.Table, members: Sequence[str]) -> list[set[int]]:
    """For each row the sizes in bytes of the image, or of the list of images, in the column that one of its images came from.

    `members`: of each row, as `RawSample.member`.
    """
    columns = [member if member in table.column_names else member.rpartition(".")[0] for member in members]
    rows = _python_rows(table.select(list(dict.fromkeys(name for name in columns if name in table.column_names))))
    return [
        {len(data) for _, data, _ in _images_of(row, [name] if name in row else []) if data is not None}
        for row, name in zip(rows, columns, strict=True)
    ]


class _Rows:
    """Reads one file."""

    def __init__(self, url: str, reader: SampleReader, carry: tuple[str, ...], max_image_bytes: int, wanted: str) -> None:
        self._url, self._reader, self._carry = url, reader, carry
        self._max_image_bytes, self._wanted = max_image_bytes, wanted
        self._keys: set[str] = set()
        self._row: Row | None = None  # what the columns say of the row that is being read

    def samples(self) -> Iterator[RawSample]:
        texts = TextReader(self._carry, lambda key: self._row, "columns", found=self._reader.found)
        try:
            file = RowFile(self._url)
        except Exception as error:  # each file system has its own
            if _is_of_arrow(error):
                text = f"{self._url} is no parquet or Arrow file, or not a whole one ({one_line(error)})"
                text += "; expected one with a column of images: fetch it again"
                self._reader.fail("unreadable", text)
            else:
                self._reader.fail("unreadable", f"{self._url} can't be opened ({one_line(error)}); check the address", is_reachable=False)
            return
        with file:
            yield from texts.complete(self._read(file))

    def _read(self, file: RowFile) -> Iterator[tuple[RawSample, SampleTexts | None]]:
        n_rows = 0
        try:
            names, others = _image_columns(file)
            if not names:
                self._reader.fail("unreadable", f"{self._url} has no column of images; {_described(file.schema)}")
                return
            key = next((name for wanted in _KEYS for name in file.schema.names if plain_name(name) == wanted), None)
            rows = RowReader([name for name in file.schema.names if name not in (*names, *others)], self._carry)
            self._reader.found.names.update(file.schema.names)
            columns = dict.fromkeys([*names, *([key] if key else []), *rows.columns, *(n for n in file.schema.names if n == _STATUS)])
            for first, table in file.batches([*columns]):
                table = text_as_bytes(table, apart_from=names)
                rows.learn(table)
                for place, row in enumerate(_python_rows(table)):
                    self._row = rows.read([row])
                    yield from self._sample(first + place, row, names, key)
                n_rows = first + table.num_rows
                self._reader.passed_over.update({f"values of column {name}, which are no images": table.num_rows for name in others})
        except Exception as error:  # of pyarrow or the file system
            self._fail(error, n_rows)

    def _fail(self, error: Exception, n_rows: int) -> None:
        if is_local(self._url) or _is_of_arrow(error):
            text = f"{self._url} is damaged after {n_rows} rows ({one_line(error)}); fetch it again to get the rest"
            self._reader.fail("truncated" if n_rows else "unreadable", text)
        else:
            text = f"{self._url} can't be read beyond {n_rows} rows ({one_line(error)}); try again"
            self._reader.fail("unreadable", text, is_reachable=False)

    def _sample(
        self, number: int, row: dict[str, Any], names: Sequence[str], key_column: str | None
    ) -> Iterator[tuple[RawSample, SampleTexts | None]]:
        """The images of a row, each with what the row says, or why it has none."""
        self._reader.n_samples += 1
        key = _key(row, key_column, number)
        if key in self._keys:
            repeated = SampleError("duplicate_key", f"row {number}: the key occurred before in this file; the first row stays")
            yield RawSample(key, self._url, error=repeated), None
            return
        self._keys.add(key)
        texts, all_images = SampleTexts(key), list(_images_of(row, names))
        images = self._chosen(all_images)
        self._reader.passed_over.update({LEFT_OUT: len(all_images) - len(images)} if len(images) < len(all_images) else {})
        if not images:
            yield RawSample(key, self._url, error=SampleError("no_image", self._why_none(row, number, names, all_images))), texts
        for member, data, path in images:
            name = clean_name(path or f"{key}.{member}")
            error = self._damage(number, member, data, path)
            size = len(data or b"")
            image = data if error is None else None
            yield RawSample(key, self._url, image, name, member, number, size, error=error, n_images=len(images)), texts

    def _chosen(self, images: list[_Image]) -> list[_Image]:
        if self._wanted == "all":
            return images
        if self._wanted == "first":
            return images[:1]
        return [image for image in images if self._wanted in (image[0], image[0].rpartition(".")[0])]

    def _damage(self, number: int, member: str, data: bytes | None, path: str | None) -> SampleError | None:
        where = f"row {number}, column {member}"
        if data is None:
            text = f"{where}: the path {path} without the bytes; embed the files into the table, or give their folder as input.images"
            return SampleError("no_image", clean_text(text[:300]))
        if not data:
            return SampleError("empty_image", f"{where} has zero bytes")
        if len(data) > self._max_image_bytes:
            return SampleError("too_many_bytes", f"{where}: {len(data)} bytes, input.max_image_bytes={self._max_image_bytes}")
        return None

    def _why_none(self, row: dict[str, Any], number: int, names: Sequence[str], images: Sequence[_Image]) -> str:
        if images:
            return f"row {number} has no {self._wanted}, which input.images_per_sample asks for; found {', '.join(i[0] for i in images)}"
        status = as_text(row.get(_STATUS))
        return clean_text(f"row {number} is empty in {', '.join(names)}{f' (status {status})' if status else ''}"[:300])


def _is_of_arrow(error: Exception) -> bool:
    """Whether it was the file's content that could not be read, not the file."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _image_columns(file: RowFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that hold images, and columns of bytes that hold something else."""
    candidates = [field.name for field in file.schema if _may_hold_images(field.type)]
    features = _features(file.schema)
    undecided = [name for name in candidates if features.get(name) != "Image" and features.get(name) not in _OTHER_FEATURES]
    head = file.head(undecided) if undecided else None
    found = [name for name in candidates if features.get(name) == "Image" or (name in undecided and _are_images(name, head))]
    return tuple(found), tuple(name for name in candidates if name not in found)


def _are_images(name: str, head: pa.Table | None) -> bool:
    if plain_name(name) in _NAMES:
        return True
    rows = [] if head is None else head.select([name]).slice(0, _LOOKED_AT).to_pylist()
    return any(data is not None and image_kind(data) for row in rows for _, data, _ in _images_of(row, [name]))


def _may_hold_images(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _may_hold_images(kind.storage_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return not pa.types.is_list(kind.value_type) and _may_hold_images(kind.value_type)
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _images_of(row: dict[str, Any], names: Sequence[str]) -> Iterator[_Image]:
    for name in names:
        value = row[name]
        items = [(f"{name}.{place}", item) for place, item in enumerate(value)] if isinstance(value, list) else [(name, value)]
        for member, item in items:
            data, path = (item.get("bytes"), as_text(item.get("path"))) if isinstance(item, dict) else (item, None)
            if data is not None or path is not None:
                yield member, data, path


def _features(schema: pa.Schema) -> dict[str, str]:
    """What `datasets` calls the columns; of a list, its items."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: _feature(feature) for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _feature(feature: Any) -> str:
    if isinstance(feature, list):
        return _feature(feature[0]) if feature else ""
    inner = feature.get("feature")
    return _feature(inner) if isinstance(inner, (dict, list)) else str(feature.get("_type", ""))


def _python_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows; text inside structs that is no UTF-8 comes as bytes."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        for place in range(table.num_rows):
            yield {name: _value(table.column(name)[place]) for name in table.column_names}


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(inner) for name, inner in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return [_value(inner) for inner in scalar]
        return scalar.as_buffer().to_pybytes()


def _key(row: dict[str, Any], column: str | None, number: int) -> str:
    value = None if column is None else row[column]
    text = as_text(value) if isinstance(value, (str, bytes)) else None if value is None else str(value)
    return f"{number:09d}" if text is None else text


def _described(schema: pa.Schema) -> str:
    names = ", ".join(f"{field.name}: {field.type}" for field in schema)
    return f"expected bytes, or a struct with bytes, such as image: struct<bytes, path>; found {names[:300]}"
