"""Shards: streamed into samples, and one image fetched again by its place."""

from __future__ import annotations

import re
import tarfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from dedup.config.keys import MAX_IMAGE_BYTES
from dedup.errors import InputError, SampleError
from dedup.storage.input.captions import MAX_TEXT_BYTES, SampleTexts, TextReader, names_of_images, text_suffix
from dedup.storage.input.encodings import clean_name, clean_text, file_at
from dedup.storage.input.kinds import HEAD_BYTES, image_kind, is_surely_image
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_images import LEFT_OUT, images_at, read_rows
from dedup.storage.input.rows import Sidecar, sidecar_url
from dedup.storage.input.samples import (
    IMAGE_SUFFIXES,
    SELDOM_READ,
    LateMembers,
    RawSample,
    SampleReader,
    file_suffix,
    kind_by_name,
    may_be_image,
    one_line,
)
from dedup.storage.input.tars import Cut, TarStream
from dedup.storage.urls import is_local, local_path, read_range

_NO_SUFFIX: Final = "the name has no suffix"
_LATEST: Final = 2**40  # seconds since 1970
_META: Final = re.compile(r"__[^/]*__($|/)")  # webdataset's own rule


class Member(NamedTuple):
    """What a member's name tells."""

    key: str  # the name up to the first dot of its base name, folder included, as valid UTF-8
    suffix: str  # what follows, in lower case; '' if there is none, or the member is hidden
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
        return Member(clean_name(name), "", _NO_SUFFIX if dot < 0 else "a hidden file")
    return Member(clean_name(name[:dot]), name[dot + 1 :].lower())


class Grouping:
    """Tells where one run of members ends and the next begins, and which earlier sample a run belongs to.

    Consecutive members with one key are a run; a repeated suffix begins another run. The first run of a key is a sample, or its
    beginning: a later run of that key whose suffixes are all new belongs to it, as in a tar of ``*.jpg *.txt``. Any other is another
    sample of that key.
    """

    def __init__(self) -> None:
        self._key: str | None = None
        self._suffixes: set[str] = set()
        self._of_key: dict[str, frozenset[str]] = {}
        self._sets: dict[frozenset[str], frozenset[str]] = {}  # each kept once: a shard's samples mostly have the same suffixes
        self._spellings: dict[str, str] = {}

    def spelled(self, member: Member) -> Member:
        """A member with its key as it was spelled first: a name that is composed and one that is not are one key."""
        if member.key.isascii():
            return member
        return member._replace(key=self._spellings.setdefault(unicodedata.normalize("NFC", member.key), member.key))

    def begins(self, member: Member) -> bool:
        """Whether a member is the first of a run; call once per member, in order."""
        is_new = member.key != self._key or member.suffix in self._suffixes
        if is_new:
            self._close()
            self._key, self._suffixes = member.key, set()
        self._suffixes.add(member.suffix)
        return is_new

    @property
    def is_duplicate(self) -> bool:
        """Whether the current run, as far as it has come, repeats a suffix of an earlier run with its key."""
        return not self._suffixes.isdisjoint(self._of_key.get(self._key or "", ()))

    def _close(self) -> None:
        if self._key is not None and not self.is_duplicate:
            suffixes = frozenset(self._suffixes | self._of_key.get(self._key, frozenset()))
            self._of_key[self._key] = self._sets.setdefault(suffixes, suffixes)


@dataclass(frozen=True)
class ReadOptions:
    """How shards are read."""

    carry: tuple[str, ...] = ()  # columns to carry over from json members or the sidecar
    sidecar: bool = False  # join the parquet beside the shard by key
    max_image_bytes: int = MAX_IMAGE_BYTES  # larger images become samples with the error ``too_many_bytes``, unread
    images: str = "all"  # `input.images_per_sample`


def read_shard(
    url: str, *, carry: Sequence[str] = (), sidecar: bool = False, max_image_bytes: int = MAX_IMAGE_BYTES, images: str = "all"
) -> SampleReader:
    """Stream a tar into the images of its samples, grouped by key as webdataset does; or a parquet or Arrow file, row by row.

    `url`: a path or any fsspec URL of a tar, plain or compressed, or of a file that `dedup.storage.input.row_images.read_rows` reads.
    `carry`, `sidecar`, `max_image_bytes`, `images`: see `ReadOptions`.
    Returns an iterable of `RawSample` whose `status`, `error`, `is_reachable`, `passed_over` and `late` then tell how it ended. No file
    makes it raise: what can't be used is a sample with an `error`, is counted, or shows in the status.

    Notes
    -----
    A key is the member's name up to the first dot of its base name; consecutive members with one key are one sample.
    Members whose last suffix is an image's, or whose bytes begin like an image's, are its images: ``jpg``, ``input.png``. With
    `images` ``first`` only the first whose whole suffix is an image's counts, else the first that ends like one; with any other word
    only the member of that suffix. Of several images each has the texts of its own name (``05.txt`` of ``05.png``) and those that name
    none. Differences from webdataset, which ends the shard or drops samples silently: a repeated suffix
    begins another sample of that key; of samples with one key the first is kept and the others get ``duplicate_key``;
    members of a sample that come later, with suffixes it does not have yet, still belong to it;
    hidden files, and names without a suffix unless they are images by their bytes, get ``no_key``. Of other members only those of
    `captions.text_suffix` are parsed.

    A zero-byte file counts as truncated; a tar of only zero blocks is empty and ok.
    """
    if is_row_file(url):
        return read_rows(url, carry=carry, max_image_bytes=max_image_bytes, images=images)
    options = ReadOptions(tuple(carry), sidecar, max_image_bytes, images)
    return SampleReader(lambda reader: _samples(reader, url, options))


@dataclass(slots=True)
class _Image:
    """One image of a sample."""

    member: str
    name: str
    offset: int | None
    n_bytes: int
    mtime: int | None
    data: bytes | None = None
    error: SampleError | None = None


class _Run:
    """Consecutive members of one sample, as they arrive."""

    __slots__ = ("images", "is_duplicate", "key", "rank", "suffixes", "texts")

    def __init__(self, key: str) -> None:
        self.key, self.is_duplicate = key, False
        self.suffixes: set[str] = set()
        self.images: list[_Image] = []
        self.rank = 9  # of the only image wanted: 0 whole suffix, 1 compound suffix, 2 and 3 kinds that are seldom read
        self.texts = SampleTexts(key)

    def take(self, tar: TarStream, member: tarfile.TarInfo, suffix: str, reader: SampleReader, options: ReadOptions) -> None:
        """Read the member if it is needed; raises `Cut` if the tar ends inside it."""
        self.suffixes.add(suffix)
        if self.is_duplicate:
            return
        ending = suffix if "." not in suffix else file_suffix(suffix)
        is_named = ending in IMAGE_SUFFIXES
        if not is_named and not _begins_as_image(tar.peek(member, HEAD_BYTES), ending):
            if not text_suffix(suffix):
                reader.passed_over[kind_by_name("members", ending)] += 1
            elif member.size <= MAX_TEXT_BYTES:
                self.texts.add(suffix, tar.read(member))
            else:
                self.texts.skip()
            return
        rank = (0 if ending == suffix else 1) + (2 if ending in SELDOM_READ else 0)
        if (options.images == "first" and rank >= self.rank) or (options.images not in ("all", "first") and suffix != options.images):
            if is_named:
                reader.passed_over[LEFT_OUT] += 1
            return
        image = _Image(suffix, clean_name(member.name), tar.offset(member), member.size, _time_of(member))
        try:
            image.data = self._read(tar, member, image, options)
        except Cut as cut:
            image.error = SampleError("truncated_image", f"the shard breaks off inside the image: {cut}")
            self.images.append(image)
            raise
        if options.images == "first":
            if self.images:
                reader.passed_over[LEFT_OUT] += 1
                self.images.clear()
            self.rank = rank
        self.images.append(image)

    @staticmethod
    def _read(tar: TarStream, member: tarfile.TarInfo, image: _Image, options: ReadOptions) -> bytes | None:
        if member.size == 0:
            image.error = SampleError("empty_image", f"{image.name} has zero bytes")
        elif member.size > options.max_image_bytes:
            image.error = SampleError(
                "too_many_bytes", f"{image.name}: {member.size} bytes, input.max_image_bytes={options.max_image_bytes}"
            )
        else:
            return tar.read(member)
        return None


def is_of_no_sample(tar: TarStream, member: tarfile.TarInfo, named: Member) -> bool:
    """Whether a member belongs to no sample by its name; one without a suffix that is an image is a sample of its own."""
    if not named.problem:
        return False
    if not named.key:
        return True
    try:
        return named.problem != _NO_SUFFIX or not is_surely_image(tar.peek(member, HEAD_BYTES))
    except Cut:  # the tar's next step records why
        return True


def _begins_as_image(head: bytes, suffix: str) -> bool:
    """Whether a member whose suffix is no image's is one all the same; a suffix of another kind wants more certainty."""
    return bool(image_kind(head)) if may_be_image(suffix) else is_surely_image(head)


_Found = tuple[RawSample, SampleTexts | None]  # a sample without its text, and its text members


class _Joiner:
    """Turns runs of members into samples; what comes late is joined, or left for the end."""

    def __init__(self, reader: SampleReader, shard: str, wanted: str) -> None:
        self._reader, self._shard, self._wanted = reader, shard, wanted
        self._apart: set[str] = set()  # keys whose members stand apart
        self._names: dict[str, set[str]] = {}  # of texts, by key, where they have one
        self._images: dict[str, list[str]] = {}
        self._without_image: dict[str, _Run] = {}
        self._late: dict[str, SampleTexts] = {}

    def join(self, run: _Run, *, is_cut: bool) -> Iterator[_Found]:
        """The images of a run, as samples; `is_cut`: the shard broke off here, so members may be missing."""
        if run.is_duplicate:
            self._reader.n_samples += 1
            text = "the key occurred before in this shard; the first sample stays"
            yield RawSample(run.key, self._shard, error=SampleError("duplicate_key", text)), None
            return
        before = run.key in self._images
        if before and self._wanted == "first" and run.images:
            self._reader.passed_over[LEFT_OUT] += len(run.images)
            run.images.clear()
        if run.images or not before:
            earlier = self._without_image.pop(run.key, None)
            if earlier is not None:
                run.texts.extend(earlier.texts)
                run.suffixes |= earlier.suffixes
            if run.images and (before or earlier):
                self._note_apart(run.key)
        if names := run.texts.names():
            self._names.setdefault(run.key, set()).update(names)
        if run.images:
            self._reader.n_samples += not before
            new = [image.member for image in run.images]
            members = self._images.setdefault(run.key, [])
            if before:
                self._note_late(run, members, new)
            members += new
            texts = run.texts.of_images(new, members)
            yield from ((self._sample(run, image), of_image) for image, of_image in zip(run.images, texts, strict=True))
        elif before:
            self._note_apart(run.key)
            self._late.setdefault(run.key, SampleTexts(run.key)).extend(run.texts)
        elif is_cut:
            self._reader.n_samples += 1
            error = SampleError("truncated_image", "the shard breaks off before the image")
            yield RawSample(run.key, self._shard, error=error), run.texts
        else:
            self._without_image[run.key] = run

    def _note_late(self, run: _Run, members: Sequence[str], new: Sequence[str]) -> None:
        """Note what a run with images says of the sample's other images, and they of its.

        `members`: the images of earlier runs; `new`: those of this one.
        """
        late = self._reader.late
        if (run.key, members[0]) not in late:
            late |= {(run.key, member): LateMembers() for member in members}
        late |= {(run.key, member): LateMembers(shares=True) for member in new}
        if run.texts:
            self._late.setdefault(run.key, SampleTexts(run.key)).extend(run.texts)

    def _note_apart(self, key: str) -> None:
        self._apart.add(key)
        self._reader.n_late = len(self._apart)

    def _why_none(self, run: _Run) -> str:
        found = ", ".join(sorted(run.suffixes))
        if self._wanted in ("all", "first"):
            return f"no member is an image; found {found}"
        return f"no member is {self._wanted}, which input.images_per_sample asks for; found {found}"

    def rest(self) -> Iterator[_Found]:
        """The samples that have no image."""
        for key, run in self._without_image.items():
            self._reader.n_samples += 1
            yield RawSample(key, self._shard, error=SampleError("no_image", clean_text(self._why_none(run)[:300]))), run.texts
        self._without_image.clear()

    def late_texts(self) -> Iterator[_Found]:
        """Images whose texts came late, without their bytes, each with what came; once the shard is read."""
        late = self._reader.late
        for key in self._late:
            for member in self._images[key]:
                late.setdefault((key, member), LateMembers())
        # where texts are named as images are, those of the first image are its own
        is_named = {key for key, names in self._names.items() if not names.isdisjoint(names_of_images(self._images.get(key, ())))}
        for (key, _), members in late.items():
            members.n_images = len(self._images[key])
            members.shares &= key not in is_named
        for key, texts in self._late.items():
            members_of = self._images[key]
            for member, of_image in zip(members_of, texts.of_images(members_of, members_of), strict=True):
                yield RawSample(key, self._shard, member=member), of_image

    def _sample(self, run: _Run, image: _Image) -> RawSample:
        return RawSample(
            run.key,
            self._shard,
            image.data if image.error is None else None,
            image.name,
            image.member,
            image.offset,
            image.n_bytes,
            error=image.error,
            n_images=len(run.images),
            mtime=image.mtime,
        )


def _time_of(member: tarfile.TarInfo) -> int | None:
    """When a member was last changed, in seconds since 1970; None if the tar does not say: many leave 0, and headers may hold anything."""
    return int(member.mtime) if 0 < member.mtime < _LATEST else None


def _samples(reader: SampleReader, url: str, options: ReadOptions) -> Iterator[RawSample]:
    sidecar = None
    if options.sidecar:
        try:
            sidecar = Sidecar(url, options.carry, reader.found)
        except Exception as error:  # each file system has its own
            text = f"{sidecar_url(url)} can't be fetched ({one_line(error)}); try again, or set input.sidecar=false"
            reader.fail("unreadable", text, is_reachable=False)
            return
    texts = TextReader(options.carry, None if sidecar is None else sidecar.find, found=reader.found)
    joiner = _Joiner(reader, url, options.images)
    yield from texts.complete(_runs(reader, url, options, joiner))
    for sample in texts.complete(joiner.late_texts()):
        late = reader.late[sample.key, sample.member]
        late.captions, late.url, late.carried, late.text = sample.captions, sample.url, sample.carried, sample.text
    if reader.status == "ok" and sidecar is not None and sidecar.note is not None:
        reader.error = sidecar.note


def _runs(reader: SampleReader, url: str, options: ReadOptions, joiner: _Joiner) -> Iterator[_Found]:
    """The images of a tar as samples without their text, and their text members."""
    tar, grouping = TarStream(url, reader), Grouping()
    run: _Run | None = None
    for member in tar:
        named = parse_name(member.name)
        if named is None:
            reader.passed_over["members of webdataset itself, such as __info__"] += 1
            continue
        named = grouping.spelled(named)
        if is_of_no_sample(tar, member, named):
            reader.n_samples += 1
            yield RawSample(named.key, url, error=SampleError("no_key", f"{named.problem}; expected KEY.SUFFIX")), None
            continue
        if grouping.begins(named) or run is None:
            if run is not None:
                yield from joiner.join(run, is_cut=False)
            run = _Run(named.key)
        run.is_duplicate = run.is_duplicate or grouping.is_duplicate
        with suppress(Cut):  # the tar's next step ends the loop and records why
            run.take(tar, member, named.suffix, reader, options)
    if run is not None:
        yield from joiner.join(run, is_cut=reader.status != "ok")
    yield from joiner.rest()


def read_image_bytes(shard: str, key: str, byte_offset: int | None, n_bytes: int, member: str | None = None) -> bytes:
    """Fetch one image again, by its place in `metadata`.

    `shard`: URL of the tar; of a folder of images, ending with '/'.
    `byte_offset`: where its bytes start; in a file of rows the number of its row; None streams the (compressed) tar up to the key.
    `n_bytes`: size of the encoded image.
    `member`: which of the sample's images, where the key is searched for; None: the first of that size.
    Raises InputError if shard or image are gone, can't be reached, or have another size.
    """
    if is_row_file(shard):
        return _read_row(shard, key, byte_offset, n_bytes, member)
    path = file_at(shard, key) if shard.endswith("/") else shard
    if byte_offset is None:
        reader = read_shard(shard, max_image_bytes=n_bytes)
        image = next((sample.image for sample in reader if is_place(sample, key, n_bytes, member)), None)
        if image is None:
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


def _read_row(shard: str, key: str, row: int | None, n_bytes: int, member: str | None) -> bytes:
    if row is None:
        raise InputError(f"{shard} was read as embeddings; where the image of {key!r} is, is not known")
    try:
        images = [data for _, name, data in images_at(shard, [row]) if member in (None, name) and len(data) == n_bytes]
    except Exception as error:  # each file system has its own
        raise InputError(f"{shard} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
    if not images:
        raise InputError(f"{shard} has no image of {n_bytes} bytes in row {row}, key {key!r}; it has changed, run embed again")
    return images[0]


def is_place(sample: RawSample, key: str, n_bytes: int, member: str | None) -> bool:
    """Whether a sample is the image of a key with a size; `member`: None = whichever."""
    return sample.key == key and sample.image is not None and len(sample.image) == n_bytes and member in (None, sample.member)


def check_range(data: bytes, path: str, key: str, byte_offset: int, n_bytes: int) -> bytes:
    """The bytes read from a file; raises InputError if the file ends inside the image."""
    if len(data) != n_bytes:
        text = f"{path} ends inside the image {key!r}: expected {n_bytes} bytes at {byte_offset}, found {len(data)}"
        raise InputError(f"{text}; it has changed, run embed again")
    return data
