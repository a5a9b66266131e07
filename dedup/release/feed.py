"""The members of one sample after another, as the tars of a run hold them."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, Final, NamedTuple, Protocol

import pyarrow.compute as pc

from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.storage.input.kinds import HEAD_BYTES, usual_suffix
from dedup.storage.input.samples import SampleReader
from dedup.storage.input.shards import Grouping, is_of_no_sample, parse_name
from dedup.storage.input.tars import Cut, TarStream
from dedup.storage.tables import dataset

_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK_BYTES: Final = 1024 * 1024
_CAPTION: Final = "txt"  # suffix of the member that holds the caption


def unsorted_shards(run_dir: str) -> frozenset[str]:
    """The tars of a run in which members of one sample stand apart."""
    table = dataset(Run(run_dir).table("partitions")).to_table(columns=["shard"], filter=pc.field("n_late") > 0)
    return frozenset(table["shard"].to_pylist())


class _Samples(Protocol):
    """The samples of one tar."""

    def copy(self, key: str, file: IO[bytes], caption: str | None) -> list[int]:
        """Copy all members of a sample with their headers; returns the members' sizes, none if there is no such sample from here on.

        `caption`: goes into its txt member; None leaves that as it is.
        """


class Feed:
    """The tar that is being read: the next shard to be written goes on where the last one stopped.

    Parameters
    ----------
    unsorted : frozenset of str
        Tars whose members are put into order first, in a temporary file of their size.
    """

    def __init__(self, unsorted: frozenset[str] = frozenset()) -> None:
        self._unsorted = unsorted
        self._shard = ""
        self._reader: SampleReader | None = None
        self._samples: _Samples | None = None

    def copy(self, shard: str, key: str, n_bytes: int, file: IO[bytes], caption: str | None = None) -> None:
        """Copy the members of the next sample with a key.

        `caption`: what its txt member is to hold, which is added if there is none; None leaves all members as they are.

        Raises InputError if the shard has no such sample from here on, or its image has another size.
        """
        try:
            if self._samples is None or shard != self._shard:
                self._shard, self._reader = shard, SampleReader(lambda reader: iter(()))
                tar = TarStream(shard, self._reader)
                self._samples = _Sorted(tar) if shard in self._unsorted else _Streamed(tar)
            sizes = self._samples.copy(key, file, caption)
        except Cut as cut:
            self.close()
            raise InputError(f"{shard} breaks off inside the sample {key!r} ({cut}); restore the shard, or run embed again") from cut
        if n_bytes in sizes:
            return
        why = (self._reader.error if self._reader else None) or "it has changed since it was embedded"
        self.close()
        if not sizes:
            raise InputError(f"{shard} gave no sample {key!r} ({why}); restore the shard, or run embed again")
        held = ", ".join(map(str, sizes))
        raise InputError(f"{shard}: {key!r} has members of {held} bytes, expected an image of {n_bytes} ({why}); run embed again")

    def close(self) -> None:
        """Drop the tar; a shard that is read again begins anew."""
        self._shard, self._samples, self._reader = "", None, None


class _Streamed:
    """The samples of a tar, one at a time; only the first member of the next one shows that a sample has ended."""

    def __init__(self, tar: TarStream) -> None:
        self._tar, self._members, self._grouping = tar, iter(tar), Grouping()
        self._first: tarfile.TarInfo | None = None  # of the current sample, not read yet
        self._key = ""

    def copy(self, key: str, file: IO[bytes], caption: str | None) -> list[int]:
        if not self._go_to(key):
            return []
        sizes, last = [], ""
        for member in self._sample():
            last = member.name
            if caption is None or not _is_caption(last):
                sizes.append(_copy_member(self._tar, member, file))
            else:
                sizes.append(member.size)
                with tempfile.SpooledTemporaryFile(_CHUNK_BYTES) as held:
                    _copy_member(self._tar, member, held)
                    _write_caption(held, member.size, last, caption, file)
                caption = None
        if caption is not None:
            _add_caption(last, caption, file)
        return sizes

    def _go_to(self, key: str) -> bool:
        """Skip to the first sample with this key, from the current one on; False if there is none."""
        while self._first is None or self._key != key or self._grouping.is_duplicate:
            for _ in self._sample():
                pass
            if self._first is None:
                return False
        return True

    def _sample(self) -> Iterator[tarfile.TarInfo]:
        """The members of the current sample; afterwards the next one is current, if there is one."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        for member in self._members:
            named = parse_name(member.name)
            if named is None or is_of_no_sample(self._tar, member, named):
                continue
            named = self._grouping.spelled(named)
            if self._grouping.begins(named):
                self._first, self._key = member, named.key
                return
            yield member


class _Sorted:
    """The samples of a tar whose members are not in order, by way of a temporary file."""

    def __init__(self, tar: TarStream) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._places: dict[str, list[_Place]] = {}  # of each sample's members
        grouping = Grouping()
        run: list[_Place] = []
        key, is_duplicate = "", False
        for member in tar:
            named = parse_name(member.name)
            if named is None or is_of_no_sample(tar, member, named):
                continue
            named = grouping.spelled(named)
            if grouping.begins(named):
                self._add(key, run, is_duplicate=is_duplicate)
                key, run, is_duplicate = named.key, [], False
            is_duplicate = is_duplicate or grouping.is_duplicate
            start = self._held.tell()
            size = _copy_member(tar, member, self._held)
            run.append(_Place(start, self._held.tell() - start, size, member.name))
        self._add(key, run, is_duplicate=is_duplicate)

    def _add(self, key: str, run: list[_Place], *, is_duplicate: bool) -> None:
        if not is_duplicate:
            self._places.setdefault(key, []).extend(run)

    def copy(self, key: str, file: IO[bytes], caption: str | None) -> list[int]:
        places = self._places.get(key, [])
        for place in places:
            self._held.seek(place.start)
            if caption is None or not _is_caption(place.name):
                _copy_bytes(self._held, place.length, file)
                continue
            with tempfile.SpooledTemporaryFile(_CHUNK_BYTES) as held:
                _copy_bytes(self._held, place.length, held)
                _write_caption(held, place.size, place.name, caption, file)
            caption = None
        if places and caption is not None:
            _add_caption(places[-1].name, caption, file)
        return [place.size for place in places]


class _Place(NamedTuple):
    """Where a member lies in a temporary file."""

    start: int  # first byte of its header
    length: int  # bytes, header and padding included
    size: int  # own bytes
    name: str


def _is_caption(name: str) -> bool:
    """Whether a member holds the caption that training reads."""
    named = parse_name(name)
    return named is not None and named.suffix == _CAPTION


def _write_caption(held: IO[bytes], size: int, name: str, caption: str, file: IO[bytes]) -> None:
    """Copy a member that holds a caption, as it is if that is the one wanted.

    `held`: header, bytes and padding of the member.
    """
    n_held = held.tell()
    padded = -(-size // _BLOCK) * _BLOCK
    held.seek(n_held - padded)
    if held.read(size).decode("utf-8", "replace").strip() == caption.strip():
        held.seek(0)
        _copy_bytes(held, n_held, file)
    else:
        write_member(name, caption.encode(), file)


def _add_caption(name: str, caption: str, file: IO[bytes]) -> None:
    """Add a caption to a sample.

    `name`: of one of its members.
    """
    folder, slash, base = name.rpartition("/")
    write_member(f"{folder}{slash}{base.partition('.')[0]}.{_CAPTION}", caption.encode(), file)


def write_member(name: str, data: bytes, file: IO[bytes]) -> None:
    """Write a member of a tar: header, bytes and padding."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    file.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    file.write(data + b"\0" * (-len(data) % _BLOCK))


def _copy_bytes(source: IO[bytes], length: int, target: IO[bytes]) -> None:
    while length and (chunk := source.read(min(length, _CHUNK_BYTES))):
        target.write(chunk)
        length -= len(chunk)


def _new_name(tar: TarStream, member: tarfile.TarInfo) -> str:
    """The name under which a member is written, '' for its own: an image without a suffix gets that of its kind."""
    if "." in member.name.rpartition("/")[2]:
        return ""
    return f"{member.name}.{usual_suffix(tar.peek(member, HEAD_BYTES))}"


def _copy_member(tar: TarStream, member: tarfile.TarInfo, file: IO[bytes]) -> int:
    """Copy a member with its header; returns its size in bytes. An image without a suffix gets that of its kind."""
    file.write(tar.header(member, _new_name(tar, member)))
    n_bytes = 0
    for chunk in tar.chunks(member):
        file.write(chunk)
        n_bytes += len(chunk)
    file.write(b"\0" * (-n_bytes % _BLOCK))
    return n_bytes
