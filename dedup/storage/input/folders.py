"""A folder of images as samples; captions from a txt beside each image, or from one CSV or parquet."""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.config.keys import MAX_IMAGE_BYTES
from dedup.errors import InputError, SampleError
from dedup.storage.input import captions
from dedup.storage.input.samples import HEAD_BYTES, IMAGE_SUFFIXES, RawSample, SampleReader, file_suffix, is_image, one_line
from dedup.storage.input.sources import FolderPart
from dedup.storage.urls import is_local, open_binary

_FILE_NAMES: Final = ("file", "file_name", "filename", "image_path", "image", "path", "key")


def read_folder_part(part: FolderPart, *, carry: Sequence[str] = (), max_image_bytes: int = MAX_IMAGE_BYTES) -> SampleReader:
    """Read a part of a folder of images as samples.

    `part`: see `dedup.storage.input.sources.folder_parts`.
    `carry`: columns to carry over from the file of captions.
    `max_image_bytes`: larger files become samples with the error ``too_many_bytes``, unread.
    Returns a reader of samples: `shard` is the folder's URL with a final '/', `key` and `image_name` the relative path, `byte_offset` 0.
    A file that vanished or can't be read is a sample with the error ``undecodable_image``; the reader's status is "unreadable" only if
    the captions can't be read or a remote folder does not answer.
    """
    return SampleReader(lambda reader: _samples(reader, part, carry, max_image_bytes))


def _samples(reader: SampleReader, part: FolderPart, carry: Sequence[str], max_image_bytes: int) -> Iterator[RawSample]:
    rows: Mapping[str, Mapping[str, object]] = {}
    if part.captions:
        try:
            rows = load_captions(part.captions, part, carry)
        except InputError as error:
            reader.fail("unreadable", str(error), is_reachable=False)
            return
    shard = part.folder + "/"
    reader.passed_over.update(dict(part.passed_over))
    for name in part.images:
        try:
            image, n_bytes, damage = _read_image(shard + name, max_image_bytes)
            if image is None and damage is None:
                reader.passed_over[f"files .{file_suffix(name)}" if file_suffix(name) else "files without a suffix"] += 1
                continue
            row = rows.get(name, rows.get(posixpath.basename(name), {}))
            caption = captions.read_caption([row]) if part.captions else _read_txt(shard + name)
        except Exception as error:  # each file system has its own
            reader.fail("unreadable", f"{shard}{name} can't be fetched ({one_line(error)}); try again", is_reachable=False)
            return
        carried = captions.read_carried([row], carry)
        key = captions.clean_name(name)
        reader.n_samples += 1
        yield RawSample(
            key,
            shard,
            image,
            key,
            byte_offset=0,
            n_bytes=n_bytes,
            caption=caption,
            url=captions.read_url([row]),
            carried=carried,
            error=damage,
        )


def _read_image(path: str, max_image_bytes: int) -> tuple[bytes | None, int, SampleError | None]:
    """The file's bytes, their number, and what is wrong with them; without either, it is a file of another kind."""
    is_named = file_suffix(path) in IMAGE_SUFFIXES
    try:
        with open_binary(path) as file:
            head = b"" if is_named else file.read(HEAD_BYTES)
            if not is_named and not is_image(head):
                return None, 0, None
            # Reading one byte too many reveals a larger file; asking for its size may cost a request.
            data = head + file.read(max_image_bytes + 1 - len(head))
    except _lost_file_errors(path) as error:
        return None, 0, SampleError("undecodable_image", f"the file can't be read ({one_line(error)})")
    if not data:
        return None, 0, SampleError("empty_image", "the file has zero bytes")
    if len(data) > max_image_bytes:
        return None, len(data), SampleError("too_many_bytes", f"more than input.max_image_bytes={max_image_bytes}")
    return data, len(data), None


def _read_txt(path: str) -> str | None:
    text = posixpath.splitext(path)[0] + ".txt"
    try:
        with open_binary(text) as file:
            data = file.read(captions.MAX_TEXT_BYTES + 1)
    except _lost_file_errors(text):
        return None
    return captions.parse_text(data) if len(data) <= captions.MAX_TEXT_BYTES else None


def _lost_file_errors(path: str) -> tuple[type[Exception], ...]:
    """Errors that mean this file is lost; for a remote file any other means that the connection is."""
    return (FileNotFoundError, PermissionError) if not is_local(path) else (OSError,)


def load_captions(url: str, part: FolderPart, carry: Sequence[str] = ()) -> dict[str, dict[str, object]]:
    """Rows of a file of captions that belong to the images of a part.

    `url`: CSV (or TSV) with a header, UTF-8, or parquet; columns `file`, `caption` and optionally `url` and carried ones. `file` is the
    path relative to the folder, the absolute path, or the base name.
    Returns the rows by relative path, or by base name where the file gives only that; of several rows the first counts.
    Raises InputError if the file can't be read or has no such columns.
    """
    try:
        table = _read_table(url)
    except InputError:
        raise
    except Exception as error:  # pyarrow, csv and the file system each have their own
        raise InputError(f"input.captions={url} can't be read ({one_line(error)}); expected a CSV or parquet with a header") from error
    name = next((column for column in _FILE_NAMES if column in table.column_names), None)
    if name is None:
        raise InputError(f"input.captions={url} has the columns {', '.join(table.column_names)}; expected file, caption (and url)")
    carried = [alias for column in carry for alias in captions.aliases(column)]
    wanted = [column for column in dict.fromkeys((*captions.CAPTION_NAMES, *captions.URL_NAMES, *carried)) if column in table.column_names]
    folder = part.folder + "/"
    spellings: dict[bytes, str] = {}
    for image in part.images:
        base = posixpath.basename(image)
        for spelling, key in ((image, image), ("./" + image, image), (folder + image, image), (base, base)):
            spellings.setdefault(os.fsencode(spelling), key)
    # Filtered in Arrow first: the file may have 10^7 rows, the part 10^4.
    is_in_part = pc.is_in(table.column(name), value_set=pa.array(list(spellings), pa.large_binary()))
    rows: dict[str, dict[str, object]] = {}
    for row in table.select([name, *(column for column in wanted if column != name)]).filter(is_in_part).to_pylist():
        rows.setdefault(spellings[row[name]], row)
    return rows


def _read_table(url: str) -> pa.Table:
    """The file's columns, all text as large_binary: invalid UTF-8 must not end a run."""
    if url.endswith(".parquet"):
        with fsspec.open(url, "rb") as file:
            return captions.text_as_bytes(pq.read_table(file))
    delimiter = "\t" if url.endswith(".tsv") else ","
    with fsspec.open(url, "r", encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = next(csv.reader(lines, delimiter=delimiter), [])
    if not set(header) & set(_FILE_NAMES):
        raise InputError(f"input.captions={url} begins with the line {header}; expected a header with the columns file, caption (and url)")
    with fsspec.open(url, "rb") as file:
        return pyarrow.csv.read_csv(
            file,
            # More threads would take cores from other workers.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # Without types, captions that are all digits or dates would come back changed.
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.large_binary())),
        )
