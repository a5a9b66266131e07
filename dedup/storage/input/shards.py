"""Webdataset shards: a tar streamed into samples, and one image fetched again by its byte range."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from dedup.config.keys import MAX_IMAGE_BYTES
from dedup.errors import InputError, SampleError
from dedup.storage.input.captions import MAX_TEXT_BYTES, SampleTexts, TextReader, text_suffix
from dedup.storage.input.encodings import clean_name, clean_text
from dedup.storage.input.rows import Sidecar, sidecar_url
from dedup.storage.input.samples import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, RawSample, SampleReader, file_suffix, one_line
from dedup.storage.input.tars import Cut, TarStream
from dedup.storage.urls import is_local, local_path, read_range

_META: Final = re.compile(r"__[^/]*__($|/)")  # webdataset's own rule


class Member(NamedTuple):
    """What a member's name tells."""

    key: str  # the name up to the first dot of its base name, folder included, as valid UTF-8
    suffix: str  # what follows, in lower case; '' if the member belongs to no sample
    problem: str = ""  # why it belongs to no sample


def parse_name(name: str) -> Member | None:
    """Split the name of a member; None for webdataset's meta members, such as ``__info__.json``.

    Examples
    --------
    >>> parse_name("a.b/000.seg.PNG")
    Member(key='a.b/000', suffix='seg.png', problem='')
    >>> parse_name("folder/.hidden").problem
    'a hidden file'
    """
    if name.startswith("__") and _META.match(name):
        return None
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    if dot <= base:
        return Member(clean_name(name), "", "the name has no suffix" if dot < 0 else "a hidden file")
    return Member(clean_name(name[:dot]), name[dot + 1 :].lower())


class Grouping:
    """Tells where one sample ends and the next begins in a stream of members.

    Consecutive members with one key are one sample; a repeated suffix begins another sample of that key. Of samples with one key the
    first is kept.

    Attributes
    ----------
    is_duplicate : bool
        Whether the current sample's key has occurred before.
    """

    def __init__(self) -> None:
        self.is_duplicate = False
        self._key: str | None = None
        self._suffixes: set[str] = set()
        self._seen: set[str] = set()

    def begins(self, member: Member) -> bool:
        """Whether a member is the first of a sample; call once per member, in order."""
        is_new = member.key != self._key or member.suffix in self._suffixes
        if is_new:
            self.is_duplicate = member.key in self._seen
            self._key, self._suffixes = member.key, set()
            self._seen.add(member.key)
        self._suffixes.add(member.suffix)
        return is_new


def read_shard(url: str, *, carry: Sequence[str] = (), sidecar: bool = False, max_image_bytes: int = MAX_IMAGE_BYTES) -> SampleReader:
    """Stream a tar into samples, grouped by key as webdataset does.

    `url`: a path or any fsspec URL of a tar, plain or compressed.
    `carry`: columns to carry over from json members or the sidecar.
    `sidecar`: join the parquet beside the shard by key.
    `max_image_bytes`: larger images become samples with the error ``too_many_bytes``, unread.
    Returns an iterable of `RawSample` whose `status`, `error` and `is_reachable` then tell how it ended. No file makes it raise: what
    can't be used is a sample with an `error`, or shows in the status.

    Notes
    -----
    A key is the member's name up to the first dot of its base name; consecutive members with one key are one sample.
    The image is the first member whose whole suffix is an image's (``jpg``), else the first that ends like one
    (``mask.png``). Differences from webdataset, which ends the shard or drops samples silently: a repeated suffix
    begins another sample of that key; of samples with one key the first is kept and the others get ``duplicate_key``;
    names without a suffix, and hidden files, get ``no_key``. Of other members only those of `captions.text_suffix` are parsed.

    A zero-byte file counts as truncated; a tar of only zero blocks is empty and ok.
    """
    return SampleReader(lambda reader: _samples(reader, url, carry, sidecar, max_image_bytes))


class _Group:
    """The members of one sample, as they arrive."""

    __slots__ = ("error", "image", "image_name", "is_duplicate", "key", "n_bytes", "offset", "rank", "suffixes", "texts")

    def __init__(self, key: str, is_duplicate: bool) -> None:
        self.key, self.is_duplicate = key, is_duplicate
        self.suffixes: set[str] = set()
        self.image: bytes | None = None
        self.image_name: str | None = None
        self.offset: int | None = None
        self.n_bytes = 0
        self.rank = 9  # of the image member: 0 whole suffix, 1 compound suffix, 2 a format that is not read
        self.texts = SampleTexts(key)
        self.error: SampleError | None = None

    def take(self, tar: TarStream, member: tarfile.TarInfo, suffix: str, max_image_bytes: int) -> None:
        """Read the member if it is needed; raises `Cut` if the tar ends inside it."""
        self.suffixes.add(suffix)
        if self.is_duplicate:
            return
        if text_suffix(suffix):
            if member.size <= MAX_TEXT_BYTES:
                self.texts.add(suffix, tar.read(member))
            else:
                self.texts.skip()
            return
        ending = suffix if "." not in suffix else file_suffix(suffix)
        rank = (0 if ending == suffix else 1) if ending in IMAGE_SUFFIXES else 2 if ending in UNSUPPORTED_SUFFIXES else 9
        if rank >= self.rank:
            return
        self.rank, self.image, self.error = rank, None, None
        self.image_name, self.offset, self.n_bytes = clean_name(member.name), tar.offset(member), member.size
        if rank == 2:
            self.error = SampleError("unsupported_format", f"{ending}; only JPEG, PNG, WebP, GIF, BMP and TIFF are read")
        elif member.size == 0:
            self.error = SampleError("empty_image", f"{self.image_name} has zero bytes")
        elif member.size > max_image_bytes:
            self.error = SampleError("too_many_bytes", f"{member.size} bytes, input.max_image_bytes={max_image_bytes}")
        else:
            try:
                self.image = tar.read(member)
            except Cut as cut:
                self.error = SampleError("truncated_image", f"the shard breaks off inside the image: {cut}")
                raise

    def sample(self, shard: str, *, is_cut: bool) -> tuple[RawSample, SampleTexts | None]:
        """The sample so far, with its text members; `is_cut`: the shard broke off here, so members may be missing."""
        if self.is_duplicate:
            text = "the key occurred before in this shard; the first sample stays"
            return RawSample(self.key, shard, error=SampleError("duplicate_key", text)), None
        error = self.error
        if error is None and self.image is None:
            if is_cut:
                error = SampleError("truncated_image", "the shard breaks off before the image")
            else:
                text = f"no member with the suffix of an image; found {', '.join(sorted(self.suffixes))}"
                error = SampleError("no_image", clean_text(text[:300]))
        image = None if error is not None else self.image
        return RawSample(self.key, shard, image, self.image_name, self.offset, self.n_bytes, error=error), self.texts


def _samples(reader: SampleReader, url: str, carry: Sequence[str], join: bool, max_image_bytes: int) -> Iterator[RawSample]:
    sidecar = None
    if join:
        try:
            sidecar = Sidecar(url, carry, reader.found)
        except Exception as error:  # each file system has its own
            text = f"{sidecar_url(url)} can't be fetched ({one_line(error)}); try again, or set input.sidecar=false"
            reader.fail("unreadable", text, is_reachable=False)
            return
    texts = TextReader(carry, None if sidecar is None else sidecar.find, found=reader.found)
    yield from texts.complete(_groups(reader, url, max_image_bytes))
    if reader.status == "ok" and sidecar is not None and sidecar.note is not None:
        reader.error = sidecar.note


def _groups(reader: SampleReader, url: str, max_image_bytes: int) -> Iterator[tuple[RawSample, SampleTexts | None]]:
    """The samples of a tar without their text, and their text members."""
    tar = TarStream(url, reader)
    grouping = Grouping()
    group: _Group | None = None
    for member in tar:
        named = parse_name(member.name)
        if named is None:
            continue
        if named.problem:
            yield RawSample(named.key, url, error=SampleError("no_key", f"{named.problem}; expected KEY.SUFFIX")), None
            continue
        if grouping.begins(named) or group is None:
            if group is not None:
                yield group.sample(url, is_cut=False)
            group = _Group(named.key, grouping.is_duplicate)
        with suppress(Cut):  # the tar's next step ends the loop and records why
            group.take(tar, member, named.suffix, max_image_bytes)
    if group is not None:
        yield group.sample(url, is_cut=reader.status != "ok")


def read_image_bytes(shard: str, key: str, byte_offset: int | None, n_bytes: int) -> bytes:
    """Fetch one image again, by its place in `metadata`.

    `shard`: URL of the tar; of a folder of images, ending with '/'.
    `byte_offset`: where its bytes start; None streams the (compressed) tar up to the key.
    `n_bytes`: size of the encoded image.
    Raises InputError if shard or image are gone, can't be reached, or have another size.
    """
    path = shard + key if shard.endswith("/") else shard
    if byte_offset is None:
        reader = read_shard(shard, max_image_bytes=n_bytes)
        image = next((sample.image for sample in reader if sample.key == key and sample.image is not None), None)
        if image is None or len(image) != n_bytes:
            why = reader.error or "it has changed"
            raise InputError(f"{shard} has no image of {n_bytes} bytes under the key {key!r} ({why}); run embed again")
        return image
    try:
        if is_local(path):
            with open(local_path(path), "rb") as file:
                file.seek(byte_offset)
                data = file.read(n_bytes)
        else:
            data = read_range(path, byte_offset, byte_offset + n_bytes)
    except Exception as error:  # each file system has its own
        raise InputError(f"{path} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
    return check_range(data, path, key, byte_offset, n_bytes)


def check_range(data: bytes, path: str, key: str, byte_offset: int, n_bytes: int) -> bytes:
    """The bytes read from a file; raises InputError if the file ends inside the image."""
    if len(data) != n_bytes:
        text = f"{path} ends inside the image {key!r}: expected {n_bytes} bytes at {byte_offset}, found {len(data)}"
        raise InputError(f"{text}; it has changed, run embed again")
    return data
