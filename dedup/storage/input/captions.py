"""Captions, addresses and carried columns: from txt and json members, from a parquet beside a shard, from a CSV.

Each value comes from the first of txt, json, parquet that has it: what is in the tar certainly belongs to the image,
the joined parquet fills gaps. Every text is made valid UTF-8 without NUL, because Arrow refuses lone surrogates and
DuckDB and Spark cut or refuse NUL.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.schemas import CARRIED_TYPES
from dedup.storage.input.samples import one_line

CAPTION_NAMES: Final = ("caption", "text", "TEXT", "Caption", "CAPTION", "Text")
URL_NAMES: Final = ("url", "URL", "Url")
KEY_NAMES: Final = ("key", "__key__", "image_path", "KEY")
MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
_TAR_ENDINGS: Final = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tar")
_Record = Mapping[str, object]


def clean_text(text: str) -> str:
    r"""Replace what Arrow, DuckDB or Spark can't handle: lone surrogates and NUL become U+FFFD.

    Examples
    --------
    >>> clean_text("a\x00b\ud800") == "a\ufffdb\ufffd"
    True
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def clean_name(name: str) -> str:
    r"""Make a member name valid UTF-8; invalid bytes become ``\xNN``, so that different names stay different.

    Examples
    --------
    >>> clean_name("a\udcff.jpg")
    'a\\xff.jpg'
    """
    if name.isascii() and "\0" not in name:
        return name
    name = name.replace("\0", "\\x00")
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate from a pax header that encodes no byte
        return name.encode("utf-8", "backslashreplace").decode()


def parse_text(data: bytes) -> str | None:
    """Decode a txt member: UTF-8, invalid bytes replaced, surrounding whitespace stripped; None if nothing remains."""
    return _text(data.decode("utf-8", "replace"))


def parse_json(data: bytes) -> dict[str, object]:
    """Parse a json member; {} if it is broken, not an object, or nested too deeply."""
    try:
        record = json.loads(data.decode("utf-8", "replace").lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def read_caption(records: Iterable[_Record]) -> str | None:
    """First non-empty caption of the records, by `CAPTION_NAMES`."""
    return _first_text(records, CAPTION_NAMES)


def read_url(records: Iterable[_Record]) -> str | None:
    """First non-empty address of the records, by `URL_NAMES`."""
    return _first_text(records, URL_NAMES)


def _first_text(records: Iterable[_Record], names: Sequence[str]) -> str | None:
    return next((text for record in records for name in names if (text := _text(record.get(name))) is not None), None)


def read_carried(records: Sequence[_Record], carry: Sequence[str]) -> dict[str, object]:
    """Values of the carried columns, of the types of `CARRIED_TYPES`; None where no record has a usable one.

    `records`: the first that has a usable value gives it.
    `carry`: column names; lower and upper case count as well (LICENSE, license).
    """
    return {name: _carried(records, name) for name in carry}


def aliases(name: str) -> tuple[str, ...]:
    """The names that a carried column may have in the data.

    Examples
    --------
    >>> aliases("LICENSE")
    ('LICENSE', 'license')
    """
    return tuple(dict.fromkeys((name, name.lower(), name.upper())))


def _carried(records: Sequence[_Record], name: str) -> object:
    for record in records:
        for alias in aliases(name):
            if alias in record and (value := coerce(name, record[alias])) is not None:
                return value
    return None


def coerce(name: str, value: object) -> float | int | str | None:
    """Convert a value to the type of a carried column; None if it can't be.

    Examples
    --------
    >>> coerce("similarity", "0.31"), coerce("original_width", 512.0), coerce("LICENSE", ["a", 1]), coerce("punsafe", "?")
    (0.31, 512, '["a", 1]', None)
    """
    kind = CARRIED_TYPES.get(name)
    if value is None:
        return None
    if kind is None:
        if isinstance(value, bytes):
            return clean_text(value.decode("utf-8", "replace"))
        return clean_text(value if isinstance(value, str) else json.dumps(value, default=str))
    if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
        return None
    try:
        if pa.types.is_floating(kind):
            return float(value)
        whole = int(value)
    except (ValueError, OverflowError):
        return None
    return whole if -(2**63) <= whole < 2**63 else None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return clean_text(value).lstrip("\ufeff").strip() or None


def sidecar_url(shard: str) -> str:
    """URL of the parquet beside a shard.

    Examples
    --------
    >>> sidecar_url("s3://bucket/00000.tar"), sidecar_url("/data/a.tar.gz")
    ('s3://bucket/00000.parquet', '/data/a.parquet')
    """
    ending = next((ending for ending in _TAR_ENDINGS if shard.endswith(ending)), posixpath.splitext(shard)[1])
    return shard[: len(shard) - len(ending)] + ".parquet"


class Sidecar:
    """The parquet beside a shard, by key: img2dataset also writes rows for failed downloads, so row numbers mean nothing.

    Parameters
    ----------
    shard : str
        URL of the tar.
    carry : sequence of str
        Carried columns.

    Attributes
    ----------
    note : str or None
        Why there is nothing to join, or None.

    Raises
    ------
    OSError
        If the file exists but can't be fetched.
    """

    def __init__(self, shard: str, carry: Sequence[str]) -> None:
        self.note: str | None = None
        self._rows: dict[str, _Record] = {}
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
        names = set(file.schema_arrow.names)
        key = next((name for name in KEY_NAMES if name in names), None)
        if key is None:
            raise ValueError(f"found {', '.join(file.schema_arrow.names)}")
        wanted = [*CAPTION_NAMES, *URL_NAMES, *(alias for name in carry for alias in aliases(name))]
        columns = [name for name in dict.fromkeys(wanted) if name in names and name != key]
        for row in text_as_bytes(file.read(columns=[key, *columns])).to_pylist():
            name = _text(row.pop(key))
            if name is not None:
                self._rows.setdefault(name, row)

    def get(self, key: str) -> _Record:
        """The row of a sample, by its key or else the key's base name; {} if there is none."""
        row = self._rows.get(key)
        return row if row is not None else self._rows.get(posixpath.basename(key), {})


def text_as_bytes(table: pa.Table) -> pa.Table:
    """Cast text columns to bytes: they may hold invalid UTF-8, on which `to_pylist` would fail."""
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(pa.large_binary()))
    return table
