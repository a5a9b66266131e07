"""Paths and fsspec URLs: which are local, the one form that tables hold, and reading them."""

from __future__ import annotations

import json
import os
import posixpath
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import IO, Any, Final

import fsspec
from cachetools import LRUCache

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError

_BUFFER_BYTES: Final = 1024 * 1024
_MAX_OPEN: Final = 64  # a process may often have no more than 256 or 1,024 files open
_LOCAL_SCHEMES: Final = ("file://", "local://")  # as fsspec has them


def is_local(url: str) -> bool:
    """Whether a path or URL is on this machine's disk; `local_path` gives what `open` takes.

    >>> is_local("/data/a.tar"), is_local("file:///data/a.tar"), is_local("local:///data/a.tar")
    (True, True, True)
    >>> is_local("s3://bucket/a.tar"), is_local("simplecache::file:///data/a.tar")
    (False, False)
    """
    return "::" not in url and ("://" not in url or url.startswith(_LOCAL_SCHEMES))


def local_path(url: str) -> str:
    """The plain path of a local URL; a path is returned unchanged.

    >>> local_path("file:///data/a.tar"), local_path("a.tar")
    ('/data/a.tar', 'a.tar')
    """
    for prefix in _LOCAL_SCHEMES:
        url = url.removeprefix(prefix)
    return url


def absolute(url: str) -> str:
    """A path or URL in the one form that tables hold: local ones as absolute paths, others unchanged.

    >>> absolute("file:///data/../a.tar"), absolute("s3://bucket/a.tar")
    ('/a.tar', 's3://bucket/a.tar')
    """
    return os.path.abspath(os.path.expanduser(local_path(url))) if is_local(url) else url


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it."""
    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def join(base: str, *parts: str) -> str:
    """Join a URL and relative parts."""
    return posixpath.join(base, *parts)


def matching(folder: str, *patterns: str) -> list[str]:
    """Files of a folder whose names match a shell pattern: their paths inside the file system, sorted; none if there is no such folder.

    Not fsspec's `glob`: it takes a folder that can't be listed just now for an empty one, and brackets in a folder's name for a pattern.

    Raises OSError, or whatever the file system raises, if the folder can't be listed.
    """
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)  # a store's listing is remembered, and others may have written since
    try:
        names = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(str(name) for name in names if any(fnmatchcase(posixpath.basename(str(name)), pattern) for pattern in patterns))


def open_binary(url: str) -> IO[bytes]:
    """Open a path or fsspec URL for buffered reading; the caller closes it.

    Raises OSError for local files, for others whatever their file system raises.
    """
    if is_local(url):  # not through fsspec, whose wrapper costs a Python call per read
        return open(local_path(url), "rb", buffering=_BUFFER_BYTES)
    file: IO[bytes] = fsspec.open(url, "rb").open()
    return file


def read_bytes(url: str) -> bytes | None:
    """A small file's bytes, or None if it does not exist."""
    fs, path = filesystem(url)
    try:
        return bytes(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_range(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Bytes of a file, or a range of them."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path, start=start, end=stop))


def read_json(url: str) -> JsonDict | None:
    """Read a JSON object; None if the file does not exist.

    Raises RunDirectoryError if the file is not valid JSON.
    """
    data = read_bytes(url)
    if data is None:
        return None
    try:
        value: JsonDict = json.loads(data)
    except ValueError as error:
        raise RunDirectoryError(f"{url} is not valid JSON ({error}); delete it to redo that part") from error
    return value


class _OpenFiles(LRUCache[str, int]):
    """Handles of open files by path; the least recently read is closed to make room."""

    def popitem(self) -> tuple[str, int]:
        path, handle = super().popitem()
        os.close(handle)
        return path, handle


class RangeReader:
    """Reads byte ranges and keeps recent local files open, since opening costs as much as reading. Not thread-safe.

    `max_open`: local files kept open at most.
    """

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._open = _OpenFiles(max_open)

    def read(self, url: str, start: int, n_bytes: int) -> bytes:
        """Bytes of a path or fsspec URL; fewer than `n_bytes` if the file ends first.

        Raises OSError for local files, for others whatever their file system raises.
        """
        if not is_local(url):
            return read_range(url, start, start + n_bytes)
        handle = self._open.get(url)
        if handle is None:
            handle = self._open[url] = os.open(local_path(url), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return os.pread(handle, n_bytes, start)

    def close(self) -> None:
        """Close all files; reading opens them again."""
        while self._open:
            self._open.popitem()

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # the constructor may not have run, the interpreter may be ending
            self.close()
