"""Files that appear under their names only when they are whole, and temporary ones that are gone when their process is."""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from glob import escape, glob
from types import TracebackType
from typing import IO

from dedup.contracts import JsonDict
from dedup.storage.urls import filesystem, is_local

_HALF_WRITTEN = re.compile(r"_[0-9a-f]{12}-")  # of files and folders, as `hidden_name` makes them
_BUFFER_BYTES = 256 * 1024
_COPY_BYTES = 16 * 1024 * 1024
_PREFIX = "dedup-"
_LOCK = ".lock"


def hidden_name(path: str) -> str:
    """The name a file has while it is written: readers of the folder skip names that start with '_'."""
    folder, name = posixpath.split(path)
    # a process id would do for one machine; two on a shared file system may have the same
    return posixpath.join(folder, f"_{uuid.uuid4().hex[:12]}-{name}")


class Replacement:
    """What is to stand at a path of this machine once it is whole; until then it has a hidden name beside it.

    As a context it gives that name, and renames at the end, or deletes after an error.

    Parameters
    ----------
    path : str
        Absolute; folders that are missing are made.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.path, self.hidden = path, hidden_name(path)

    def publish(self) -> None:
        """Give it its name, in place of what stood there."""
        try:
            os.replace(self.hidden, self.path)
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            os.unlink(self.hidden)

    def __enter__(self) -> str:
        return self.hidden

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.publish()
        else:
            self.discard()


class AtomicFile:
    """A binary file that appears under its name only when it is whole, on any fsspec URL.

    Written under a hidden name beside its place, or in a temporary file for a remote place, which gets it in one PUT. As a context it
    gives the open file.

    Parameters
    ----------
    url : str

    Attributes
    ----------
    file : binary file
        Open for writing; may be searched, so that a header can be written again at the end.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._path = filesystem(url)
        self._folder = ExitStack()
        self._place = Replacement(self._path) if is_local(url) else None
        if self._place is not None:
            self._written = self._place.hidden
        else:
            self._written = os.path.join(self._folder.enter_context(scratch_folder()), os.path.basename(self._path))
        self.file: IO[bytes] = open(self._written, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed in close and abort)

    def close(self) -> int:
        """Give the file its name, or leave nothing behind; returns its size in bytes."""
        try:
            self.file.close()
            n_bytes = os.path.getsize(self._written)
            if self._place is not None:
                self._place.publish()
            else:
                self._fs.put_file(self._written, self._path)
        except BaseException:
            self.abort()
            raise
        self._folder.close()
        return n_bytes

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: what counts is the error that led here
            self.file.close()
        with suppress(OSError):
            os.unlink(self._written)
        self._folder.close()

    def __enter__(self) -> IO[bytes]:
        return self.file

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file atomically: renamed into place on a file system, one PUT on an object store."""
    fs, path = filesystem(url)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    with Replacement(path) as hidden, open(hidden, "wb") as file:
        file.write(data)


def write_json(url: str, value: JsonDict) -> None:
    """Write a JSON object, readable and with sorted keys."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def link_or_copy(source: str, target: str) -> None:
    """Let a file appear under a second name, whole or not at all; what stood there is replaced.

    `source`, `target`: paths or any fsspec URLs.
    Raises FileNotFoundError if there is no such file.

    Notes
    -----
    On one local file system it is a hard link, which takes no room. That is safe because no file of a run is ever changed: all are
    written under another name and then renamed, so that a run that is redone gets files of its own and the link keeps the old one.
    """
    from_fs, from_path = filesystem(source)
    to_fs, to_path = filesystem(target)
    if is_local(target):
        place = Replacement(to_path)
        with place as hidden:
            if is_local(source):
                _link_or_copy_here(from_path, hidden)
            else:
                from_fs.get_file(from_path, hidden)
        place.discard()  # renaming one of two links to the same file onto the other does nothing
    elif is_local(source):
        to_fs.put_file(from_path, to_path)
    elif from_fs is to_fs:
        from_fs.cp_file(from_path, to_path)
    else:
        with from_fs.open(from_path, "rb") as reader, to_fs.open(to_path, "wb") as writer:
            shutil.copyfileobj(reader, writer, _COPY_BYTES)


def _link_or_copy_here(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


@contextmanager
def hidden_folder(path: str) -> Iterator[str]:
    """A hidden folder beside a path of this machine, so that what is made in it need only be renamed; removed at the end."""
    folder = hidden_name(path)
    os.makedirs(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_half_written(folder: str) -> None:
    """Delete what processes that were killed left under hidden names in a folder and those in it; an object store shows no such files."""
    if not is_local(folder):
        return
    for home, folders, names in os.walk(filesystem(folder)[1]):
        for name in filter(_HALF_WRITTEN.match, folders):
            shutil.rmtree(os.path.join(home, name), ignore_errors=True)
        for name in filter(_HALF_WRITTEN.match, names):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(home, name))


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for temporary files (below TMPDIR), removed at the end.

    One that a killed process left behind is removed by the next process that asks for one: the operating system lets go of the lock in
    it when its holder ends.
    """
    _remove_abandoned(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        # locked before it has the name by which others look for it
        unnamed = os.path.join(folder, "lock")
        with open(unnamed, "wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.replace(unnamed, os.path.join(folder, _LOCK))
            yield folder


@lru_cache(maxsize=1)
def _remove_abandoned(root: str) -> None:
    """Remove the folders that nobody holds any more; once for each process."""
    for path in glob(os.path.join(escape(root), f"{_PREFIX}*", _LOCK)):
        with suppress(OSError), open(path, "rb+") as lock:  # those of others can't be opened
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)
