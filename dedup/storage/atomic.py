"""Files that appear under their names only when complete, and temporary ones that vanish with their process."""

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
from typing import IO, Any

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
    # not the process id: two machines on a shared file system may have the same
    return posixpath.join(folder, f"_{uuid.uuid4().hex[:12]}-{name}")


def close_or_abort(writer: Any, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
    """The `__exit__` of what is written whole or not at all: `close` it, or after an error `abort`."""
    if kind is None:
        writer.close()
    else:
        writer.abort()


class Replacement:
    """A local file in the making: it has a hidden name beside its path until it is complete.

    As a context it gives that name, and renames at the end, or deletes after an error.

    `path`: absolute; missing folders are created.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.path, self.hidden = path, hidden_name(path)

    def close(self) -> None:
        """Move it to its path, replacing what was there."""
        try:
            os.replace(self.hidden, self.path)
        except OSError:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            os.unlink(self.hidden)

    def __enter__(self) -> str:
        return self.hidden

    __exit__ = close_or_abort


class AtomicFile:
    """A binary file that appears under its name only when complete, on any fsspec URL.

    Written under a hidden name beside its path, or for a remote path in a temporary file that is uploaded in one PUT. As a context it
    gives the open file.

    `file`: open for writing; seekable, so that a header can be rewritten at the end.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._path = filesystem(url)
        self._scratch = ExitStack()
        self._replacement = Replacement(self._path) if is_local(url) else None
        if self._replacement is not None:
            self._hidden = self._replacement.hidden
        else:
            self._hidden = os.path.join(self._scratch.enter_context(scratch_folder()), os.path.basename(self._path))
        self.file: IO[bytes] = open(self._hidden, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed in close and abort)

    def close(self) -> int:
        """Give the file its name, or leave nothing behind; returns its size in bytes."""
        try:
            self.file.close()
            n_bytes = os.path.getsize(self._hidden)
            if self._replacement is not None:
                self._replacement.close()
            else:
                self._fs.put_file(self._hidden, self._path)
        except BaseException:
            self.abort()
            raise
        self._scratch.close()
        return n_bytes

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: the error that led here matters
            self.file.close()
        with suppress(OSError):
            os.unlink(self._hidden)
        self._scratch.close()

    def __enter__(self) -> IO[bytes]:
        return self.file

    __exit__ = close_or_abort


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file atomically: renamed into place on a file system, one PUT on an object store."""
    fs, path = filesystem(url)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    with Replacement(path) as hidden, open(hidden, "wb") as file:
        file.write(data)


def write_json(url: str, value: JsonDict) -> None:
    """Write a JSON object, indented, with sorted keys."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def link_or_copy(source: str, target: str) -> None:
    """Give a file a second name, completely or not at all, replacing what was there.

    `source`, `target`: paths or any fsspec URLs.
    Raises FileNotFoundError if there is no such file.

    On one local file system it is a hard link, which takes no room. That is safe because no file of a run is ever modified: all are
    written under another name and then renamed, so that redoing a run makes new files and the link keeps the old one.
    """
    from_fs, from_path = filesystem(source)
    to_fs, to_path = filesystem(target)
    if is_local(target):
        replacement = Replacement(to_path)
        with replacement as hidden:
            if is_local(source):
                _link_or_copy_local(from_path, hidden)
            else:
                from_fs.get_file(from_path, hidden)
        replacement.abort()  # renaming one of two links to the same file onto the other does nothing
    elif is_local(source):
        to_fs.put_file(from_path, to_path)
    elif from_fs is to_fs:
        from_fs.cp_file(from_path, to_path)
    else:
        with from_fs.open(from_path, "rb") as reader, to_fs.open(to_path, "wb") as writer:
            shutil.copyfileobj(reader, writer, _COPY_BYTES)


def link_to(place: str, url: str) -> None:
    """Make a local file a symbolic link to another, replacing what was there.

    Raises OSError where the file system has none.
    """
    with Replacement(filesystem(url)[1]) as hidden:
        os.symlink(place, hidden)


def linked_place(url: str) -> str:
    """Where a symbolic link leads; '' for any other file, and for remote ones."""
    path = filesystem(url)[1]
    return os.readlink(path) if is_local(url) and os.path.islink(path) else ""


def _link_or_copy_local(source: str, target: str) -> None:
    if os.path.islink(source):  # vectors that are read where they lie
        with suppress(OSError):  # a file system without such links
            os.symlink(os.readlink(source), target)
            return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


@contextmanager
def hidden_folder(path: str) -> Iterator[str]:
    """A hidden folder beside a local path, from which finished files are moved by renaming; removed at the end."""
    folder = hidden_name(path)
    os.makedirs(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_half_written(folder: str) -> None:
    """Delete what killed processes left under hidden names in a folder and its subfolders; object stores have no such files."""
    if not is_local(folder):
        return
    for parent, folders, names in os.walk(filesystem(folder)[1]):
        for name in filter(_HALF_WRITTEN.match, folders):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
        for name in filter(_HALF_WRITTEN.match, names):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(parent, name))


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for temporary files (below TMPDIR), removed at the end.

    What a killed process left behind is removed by the next process that wants such a folder: the operating system releases a lock when
    its holder ends.
    """
    _remove_abandoned(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        # locked before it has the name that others search for
        unnamed = os.path.join(folder, "lock")
        with open(unnamed, "wb") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.replace(unnamed, os.path.join(folder, _LOCK))
            yield folder


@lru_cache(maxsize=1)
def _remove_abandoned(root: str) -> None:
    """Remove folders whose lock nobody holds, once per process."""
    for path in glob(os.path.join(escape(root), f"{_PREFIX}*", _LOCK)):
        with suppress(OSError), open(path, "rb+") as lock:  # other users' can't be opened
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)
