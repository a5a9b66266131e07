"""Lists of samples that must go: hashes, urls, keys and images."""

from __future__ import annotations

import io
import os
import re
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.errors import InputError
from dedup.storage.samples import IMAGE_SUFFIXES, file_suffix, one_line
from dedup.storage.urls import read_bytes

KINDS = ("sha256", "url", "key", "image")


class Entry(NamedTuple):
    """One entry: what it is, its value, and the entry as it stands in the list."""

    kind: str
    value: str
    text: str


def read_list(url: str) -> list[Entry]:
    """The entries of a list, in order, none twice.

    Parameters
    ----------
    url : str
        A ``.csv`` or ``.parquet`` with columns of `KINDS`, or text with an entry a line: ``sha256:…``, ``url:…``, ``key:…``, ``image:…``,
        or without the word a sha256 (64 hex digits), a url (with ``://``), the path of an image that is there, or else a key. Lines that
        begin with ``#`` are left out.

    Raises
    ------
    InputError
        If the list can't be read, or a table has none of the columns.
    """
    data = read_bytes(url)
    if data is None:
        raise InputError(f"exclude.list={url} does not exist; expected a file of hashes, urls, keys or images")
    if url.endswith((".csv", ".parquet")):
        return list(dict.fromkeys(_of_table(url, data)))
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"exclude.list={url} is no text ({one_line(error)}); expected UTF-8 with an entry a line") from error
    return list(dict.fromkeys(_of_line(line.strip()) for line in lines if line.strip() and not line.startswith("#")))


def _of_line(line: str) -> Entry:
    kind, colon, value = line.partition(":")
    if colon and kind in KINDS and not value.startswith("//"):
        return Entry(kind, value.strip().lower() if kind == "sha256" else value.strip(), line)
    if re.fullmatch(r"[0-9a-fA-F]{64}", line):
        return Entry("sha256", line.lower(), line)
    if "://" in line:
        return Entry("url", line, line)
    if file_suffix(os.path.basename(line)) in IMAGE_SUFFIXES and os.path.isfile(line):
        return Entry("image", line, line)
    return Entry("key", line, line)


def _of_table(url: str, data: bytes) -> list[Entry]:
    try:
        table = pq.read_table(io.BytesIO(data)) if url.endswith(".parquet") else pa.csv.read_csv(io.BytesIO(data))
    except pa.ArrowException as error:
        raise InputError(
            f"exclude.list={url} can't be read ({one_line(error)}); expected a table with columns {', '.join(KINDS)}"
        ) from error
    columns = [name for name in table.column_names if name in KINDS]
    if not columns:
        found = ", ".join(table.column_names)
        raise InputError(f"exclude.list={url} has the columns {found}; expected at least one of {', '.join(KINDS)}")
    entries = []
    for name in columns:
        for value in table[name].cast(pa.string()).to_pylist():
            if value:
                entries.append(Entry(name, value.lower() if name == "sha256" else value, value))
    return entries
