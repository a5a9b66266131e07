"""Cleaned shards: the kept samples of a run as new tars, members byte for byte."""

from __future__ import annotations

import posixpath
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa

from dedup.contracts import JsonDict, Table
from dedup.errors import NO_ROOM, DedupError, InputError
from dedup.storage.atomic import AtomicFile, write_json
from dedup.storage.grouping import Grouping, parse_name
from dedup.storage.rewriteplan import Cleaned, kept_rows, tar_key
from dedup.storage.rewritetable import write_beside
from dedup.storage.samples import SampleReader, one_line
from dedup.storage.tars import Cut, TarStream
from dedup.storage.urls import filesystem, join, open_binary, read_json

_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = b"\0" * (2 * _BLOCK)
_UNFINISHED: Final = re.compile(r"_[0-9a-f]{12}-\d{5,}(\.tar|\.parquet|_stats\.json)")


@dataclass(frozen=True)
class RewriteTask:
    """Consecutive cleaned shards that one worker writes.

    Parameters
    ----------
    kept : Table
        The samples that stay.
    shards : tuple of Cleaned
    out : str
        Folder for them.
    """

    kept: Table
    shards: tuple[Cleaned, ...]
    out: str


@dataclass(frozen=True)
class Written:
    """What became of a cleaned shard.

    Parameters
    ----------
    number : int
    n_samples : int
    n_bytes : int
        Of the tar; 0 if it was not written.
    error : str
        Why it was not.
    """

    number: int
    n_samples: int
    n_bytes: int
    error: str = ""


def shard_path(out: str, number: int, suffix: str) -> str:
    """Where a cleaned shard, or what belongs to it, lies."""
    return join(out, f"{number:05d}{suffix}")


def finished(out: str, wanted: Cleaned) -> Written | None:
    """The shard as an earlier run has written it, or None."""
    stats = read_json(shard_path(out, wanted.number, "_stats.json"))
    if stats is None or stats.get("first_sample_id") != wanted.first_id or stats.get("count") != wanted.n_samples:
        return None
    fs, path = filesystem(shard_path(out, wanted.number, ".tar"))
    with suppress(FileNotFoundError):
        if int(fs.size(path)) == stats.get("n_bytes"):
            return Written(wanted.number, wanted.n_samples, int(stats["n_bytes"]))
    return None


def clear_unfinished(out: str) -> None:
    """Delete what a run that was killed has left half-written."""
    fs, path = filesystem(out)
    if fs.exists(path):
        for name in fs.ls(path, detail=False):
            if _UNFINISHED.fullmatch(posixpath.basename(str(name))):
                fs.rm_file(str(name))


def rewrite_shards(task: RewriteTask) -> list[Written]:
    """Write consecutive cleaned shards, each whole or not at all; one that can't be written does not stop the others.

    Raises
    ------
    InputError
        If the disk is full.
    """
    feed = _Feed()
    try:
        return [_write(task, wanted, feed) for wanted in task.shards]
    finally:
        feed.close()


def _write(task: RewriteTask, wanted: Cleaned, feed: _Feed) -> Written:
    if (done := finished(task.out, wanted)) is not None:
        return done
    started = time.time()
    rows = kept_rows(task.kept, wanted)
    target = shard_path(task.out, wanted.number, ".tar")
    try:
        scratch = AtomicFile(target)
    except OSError as error:
        raise _failed(target, wanted, error) from error
    try:
        _copy(rows, scratch.file, feed)
        scratch.file.write(_END)
        scratch.file.write(b"\0" * (-scratch.file.tell() % tarfile.RECORDSIZE))
        n_bytes = scratch.close()
        write_beside(rows, shard_path(task.out, wanted.number, ".parquet"))
        write_json(shard_path(task.out, wanted.number, "_stats.json"), _stats(wanted, n_bytes, started))
    except InputError as error:
        scratch.abort()
        return Written(wanted.number, wanted.n_samples, 0, str(error))
    except OSError as error:
        scratch.abort()
        raise _failed(target, wanted, error) from error
    except BaseException:
        scratch.abort()
        raise
    return Written(wanted.number, wanted.n_samples, n_bytes)


def _failed(target: str, wanted: Cleaned, error: OSError) -> DedupError:
    if error.errno in NO_ROOM:
        text = f"no room for {target} (its images alone take {wanted.image_bytes:,} bytes)"
        return InputError(f"{text}: {one_line(error)}; make room and run the same command again, shards that are whole stay")
    return InputError(f"{target} can't be written ({one_line(error)}); check the folder and run the same command again")


def _stats(wanted: Cleaned, n_bytes: int, started: float) -> JsonDict:
    """What img2dataset says of a shard, and what tells that this one is whole."""
    ended = time.time()
    return {
        "count": wanted.n_samples,
        "successes": wanted.n_samples,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": ended - started,
        "start_time": started,
        "end_time": ended,
        "status_dict": {"success": wanted.n_samples},
        "n_bytes": n_bytes,
        "first_sample_id": wanted.first_id,
        "last_sample_id": wanted.last_id,
    }


def _copy(rows: pa.Table, file: IO[bytes], feed: _Feed) -> None:
    """Copy the members of samples, which are ordered as they lie in their shards."""
    columns = (rows[name].to_pylist() for name in ("shard", "key", "n_bytes", "caption"))
    for shard, key, n_bytes, caption in zip(*columns, strict=True):
        if shard.endswith("/"):
            _copy_file(shard, key, n_bytes, caption, file)
        else:
            feed.copy(shard, key, n_bytes, file)


def _copy_file(folder: str, key: str, n_bytes: int, caption: str | None, file: IO[bytes]) -> None:
    """Copy an image of a folder, and its caption as a txt member."""
    try:
        with open_binary(folder + key) as source:
            data = source.read(n_bytes + 1)
    except Exception as error:  # each file system has its own
        raise InputError(f"{folder}{key} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
    if len(data) != n_bytes:
        found = f"{len(data)} bytes" if len(data) < n_bytes else f"more than {n_bytes} bytes"
        raise InputError(f"{folder}{key} has {found}, expected {n_bytes}; it has changed since it was embedded, run embed again")
    members = [(key, data)] + ([] if caption is None else [(tar_key(key) + ".txt", caption.encode())])
    for name, content in members:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        file.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        file.write(content + b"\0" * (-len(content) % _BLOCK))


class _Feed:
    """The tar that is being read: the next shard that is written goes on where the last has stopped."""

    def __init__(self) -> None:
        self._shard = ""
        self._reader: SampleReader | None = None
        self._samples: _Samples | None = None

    def copy(self, shard: str, key: str, n_bytes: int, file: IO[bytes]) -> None:
        """Copy the members of the next sample with a key.

        Raises
        ------
        InputError
            If the shard has no such sample from here on, or its image has another size.
        """
        if self._samples is None or shard != self._shard:
            self._reader = SampleReader(lambda reader: iter(()))
            self._shard, self._samples = shard, _Samples(TarStream(shard, self._reader))
        try:
            sizes = self._samples.copy_to(file) if self._samples.go_to(key) else []
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
        """Let go of the tar."""
        self._shard, self._samples, self._reader = "", None, None


class _Samples:
    """The samples of a tar one at a time; only the first member of the next says that a sample has ended."""

    def __init__(self, tar: TarStream) -> None:
        self._tar, self._members, self._grouping = tar, iter(tar), Grouping()
        self._first: tarfile.TarInfo | None = None  # of the sample that is reached, not read yet
        self._key = ""

    def go_to(self, key: str) -> bool:
        """Pass over members up to the first sample with a key; False at the end of the tar."""
        while self._first is None or self._key != key or self._grouping.is_duplicate:
            for _ in self._sample():
                pass
            if self._first is None:
                return False
        return True

    def copy_to(self, file: IO[bytes]) -> list[int]:
        """Copy all members of the sample that was reached, headers as they are; returns the members' sizes."""
        sizes = []
        for member in self._sample():
            file.write(self._tar.header(member))
            n_bytes = 0
            for chunk in self._tar.chunks(member):
                file.write(chunk)
                n_bytes += len(chunk)
            file.write(b"\0" * (-n_bytes % _BLOCK))
            sizes.append(n_bytes)
        return sizes

    def _sample(self) -> Iterator[tarfile.TarInfo]:
        """The members of the sample that was reached; afterwards the next is, if there is one."""
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
