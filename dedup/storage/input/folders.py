"""A folder of images as samples; captions from text files beside each image, or from one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from dedup.config.keys import MAX_IMAGE_BYTES
from dedup.errors import InputError, SampleError
from dedup.storage.input.beside import names_exactly, suffix_of
from dedup.storage.input.captions import MAX_TEXT_BYTES, SampleTexts, TextReader
from dedup.storage.input.encodings import clean_name
from dedup.storage.input.folder_tables import by_table
from dedup.storage.input.kinds import HEAD_BYTES, image_kind
from dedup.storage.input.rows import Row
from dedup.storage.input.samples import IMAGE_SUFFIXES, RawSample, SampleReader, TextSources, file_suffix, kind_by_name, one_line
from dedup.storage.input.sources import NO_IMAGES_TEXT, FolderPart
from dedup.storage.input.tables import CaptionTable, load_table
from dedup.storage.urls import is_local, open_binary


def read_folder_part(part: FolderPart, *, carry: Sequence[str] = (), max_image_bytes: int = MAX_IMAGE_BYTES) -> SampleReader:
    """Read a part of a folder of images as samples.

    `part`: see `dedup.storage.input.sources.folder_parts`.
    `carry`: columns to carry over from json files beside the images, or from tables.
    `max_image_bytes`: larger files become samples with the error ``too_many_bytes``, unread.
    Returns a reader of samples: `shard` is the folder's URL with a final '/', `key` and `image_name` the relative path, `byte_offset` 0.
    A file that vanished or can't be read is a sample with the error ``undecodable_image``; the reader's status is "unreadable" only if
    the captions can't be read or a remote folder does not answer.
    """
    return SampleReader(lambda reader: _samples(reader, part, carry, max_image_bytes))


def _samples(reader: SampleReader, part: FolderPart, carry: Sequence[str], max_image_bytes: int) -> Iterator[RawSample]:
    find_row: Callable[[str], Row | None] | None = None
    if part.tables:
        try:
            find_row = _joined_tables(part, carry, reader.found)
        except InputError as error:
            reader.fail("unreadable", str(error), is_reachable=False)
            return
    texts = TextReader(carry, find_row, "table", found=reader.found)
    yield from texts.complete(_images(reader, part, max_image_bytes))


def _images(reader: SampleReader, part: FolderPart, max_image_bytes: int) -> Iterator[tuple[RawSample, SampleTexts]]:
    """The images of a part, with what stands beside them."""
    shard = part.folder + "/"
    beside = part.texts or ((),) * len(part.images)
    reader.passed_over.update(dict(part.passed_over))
    for name, names in zip(part.images, beside, strict=True):
        texts = SampleTexts(name)
        try:
            image, n_bytes, damage, mtime = _read_image(shard + name, max_image_bytes)
            if image is None and damage is None:
                reader.passed_over[kind_by_name("files", file_suffix(name))] += 1
                reader.passed_over.update({NO_IMAGES_TEXT: len(names)} if names else {})
                continue
            for text in sorted(names, key=lambda text: not names_exactly(name, text)):  # first what is this image's alone
                suffix = file_suffix(text) if names_exactly(name, text) else suffix_of(name, text)
                _read_text(shard + text, suffix, texts)
        except Exception as error:  # each file system has its own
            reader.fail("unreadable", f"{shard}{name} can't be fetched ({one_line(error)}); try again", is_reachable=False)
            return
        key = clean_name(name)
        reader.n_samples += 1
        yield RawSample(key, shard, image, key, byte_offset=0, n_bytes=n_bytes, error=damage, mtime=mtime), texts


def _joined_tables(part: FolderPart, carry: Sequence[str], found: TextSources) -> Callable[[str], Row | None]:
    """Join tables of captions with the images of a part.

    Raises InputError if a table can't be read.
    """
    depths = dict(zip(part.images, part.depths, strict=True))
    places: dict[str, tuple[CaptionTable, list[int]]] = {}
    for table, images in by_table(part.images, part.tables).items():
        loaded = load_table(table.url, carry)
        inside = {name[len(table.folder) :]: depths[name] for name in images}
        joined = loaded.join(f"{part.folder}/{table.folder}".rstrip("/"), inside, has_exact=table.has_exact)
        places |= {table.folder + name: (loaded, rows) for name, rows in joined.rows.items()}
        found.names.update(loaded.names)
        found.tables[table.url] = len(loaded.paths)
        found.n_joined_rows += sum(map(len, joined.rows.values()))
        found.n_images += len(images)
        found.n_joined_images += len(joined.rows)
        found.n_ambiguous_images += len(joined.ambiguous)

    def find(name: str) -> Row | None:
        table, rows = places.get(name, (None, []))
        return None if table is None else table.read(rows)

    return find


def _read_image(path: str, max_image_bytes: int) -> tuple[bytes | None, int, SampleError | None, int | None]:
    """The file's bytes, their number, what is wrong with them, and when it was last changed (seconds since 1970, None if not known).

    Without bytes and without anything wrong it is a file of another kind.
    """
    mtime = None
    is_named = file_suffix(path) in IMAGE_SUFFIXES
    try:
        with open_binary(path) as file:
            mtime = int(os.fstat(file.fileno()).st_mtime) if is_local(path) else None
            head = b"" if is_named else file.read(HEAD_BYTES)
            if not is_named and not image_kind(head):
                return None, 0, None, mtime
            # Reading one byte too many reveals a larger file; asking for its size may cost a request.
            data = head + file.read(max(0, max_image_bytes + 1 - len(head)))
    except _lost_file_errors(path) as error:
        return None, 0, SampleError("undecodable_image", f"the file can't be read ({one_line(error)})"), mtime
    if not data:
        return None, 0, SampleError("empty_image", "the file has zero bytes"), mtime
    if len(data) > max_image_bytes:
        return None, len(data), SampleError("too_many_bytes", f"more than input.max_image_bytes={max_image_bytes}"), mtime
    return data, len(data), None, mtime


def _read_text(path: str, suffix: str, texts: SampleTexts) -> None:
    try:
        with open_binary(path) as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except _lost_file_errors(path):
        texts.skip()
        return
    if len(data) > MAX_TEXT_BYTES:
        texts.skip()
    else:
        texts.add(suffix, data)


def _lost_file_errors(path: str) -> tuple[type[Exception], ...]:
    """Errors that mean this file is lost; for a remote file any other means that the connection is."""
    return (FileNotFoundError, PermissionError) if not is_local(path) else (OSError,)
