"""The members of one sample after another, as the tars of a run hold them."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, Final, Protocol

import pyarrow.compute as pc

from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.storage.input.samples import SampleReader
from dedup.storage.input.shards import Grouping, parse_name
from dedup.storage.input.tars import Cut, TarStream
from dedup.storage.tables import dataset

_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK_BYTES: Final = 1024 * 1024


def unsorted_shards(run_dir: str) -> frozenset[str]:
    """The tars of a run in which members of one sample stand apart."""
    table = dataset(Run(run_dir).table("partitions")).to_table(columns=["shard"], filter=pc.field("n_late") > 0)
    return frozenset(table["shard"].to_pylist())


class _Samples(Protocol):
    """The samples of one tar."""

    def copy(self, key: str, file: IO[bytes]) -> list[int]:
        """Copy all members of a sample with their headers; returns the members' sizes, none if there is no such sample from here on."""


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

    def copy(self, shard: str, key: str, n_bytes: int, file: IO[bytes]) -> None:
        """Copy the members of the next sample with a key.

        Raises InputError if the shard has no such sample from here on, or its image has another size.
        """
        try:
            if self._samples is None or shard != self._shard:
                self._shard, self._reader = shard, SampleReader(lambda reader: iter(()))
                tar = TarStream(shard, self._reader)
                self._samples = _Sorted(tar) if shard in self._unsorted else _Streamed(tar)
            sizes = self._samples.copy(key, file)
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

    def copy(self, key: str, file: IO[bytes]) -> list[int]:
        return [_copy_member(self._tar, member, file) for member in self._sample()] if self._go_to(key) else []

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
            if named is None or named.problem:
                continue
            if self._grouping.begins(named):
                self._first, self._key = member, named.key
                return
            yield member


class _Sorted:
    """The samples of a tar whose members are not in order, by way of a temporary file."""

    def __init__(self, tar: TarStream) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._places: dict[str, list[tuple[int, int, int]]] = {}  # of each sample's members: first byte, bytes with header, own size
        grouping = Grouping()
        run: list[tuple[int, int, int]] = []
        key, is_duplicate = "", False
        for member in tar:
            named = parse_name(member.name)
            if named is None or named.problem:
                continue
            if grouping.begins(named):
                self._add(key, run, is_duplicate=is_duplicate)
                key, run, is_duplicate = named.key, [], False
            is_duplicate = is_duplicate or grouping.is_duplicate
            start = self._held.tell()
            size = _copy_member(tar, member, self._held)
            run.append((start, self._held.tell() - start, size))
        self._add(key, run, is_duplicate=is_duplicate)

    def _add(self, key: str, run: list[tuple[int, int, int]], *, is_duplicate: bool) -> None:
        if not is_duplicate:
            self._places.setdefault(key, []).extend(run)

    def copy(self, key: str, file: IO[bytes]) -> list[int]:
        places = self._places.get(key, [])
        for start, length, _ in places:
            self._held.seek(start)
            while length:
                chunk = self._held.read(min(length, _CHUNK_BYTES))
                file.write(chunk)
                length -= len(chunk)
        return [size for _, _, size in places]


def _copy_member(tar: TarStream, member: tarfile.TarInfo, file: IO[bytes]) -> int:
    """Copy a member with its header; returns its size in bytes."""
    file.write(tar.header(member))
    n_bytes = 0
    for chunk in tar.chunks(member):
        file.write(chunk)
        n_bytes += len(chunk)
    file.write(b"\0" * (-n_bytes % _BLOCK))
    return n_bytes
