"""Byte ranges of files, local ones kept open: an open costs as much as the read behind it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from cachetools import LRUCache
from fsspec.core import url_to_fs

from dedup.storage.locations import is_local

_MAX_OPEN: Final = 64  # a process may often have no more than 256 or 1,024 files open


class _OpenFiles(LRUCache[str, int]):
    """Handles of open files by path; the one read longest ago is closed for a new one."""

    def popitem(self) -> tuple[str, int]:
        path, handle = super().popitem()
        os.close(handle)
        return path, handle


class RangeReader:
    """Reads byte ranges; the local files read last stay open. Not for several threads at a time.

    Parameters
    ----------
    max_open : int
        Local files kept open at most.
    """

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._open = _OpenFiles(max_open)

    def read(self, url: str, start: int, n_bytes: int) -> bytes:
        """Bytes of a path or fsspec URL; fewer than asked for where the file ends before.

        Raises
        ------
        Exception
            OSError for local files; for others whatever their file system raises.
        """
        if not is_local(url):
            files, remote = url_to_fs(url)
            return bytes(files.cat_file(remote, start=start, end=start + n_bytes))
        handle = self._open.get(url)
        if handle is None:
            handle = self._open[url] = os.open(url, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return os.pread(handle, n_bytes, start)

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        while self._open:
            self._open.popitem()

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # the constructor may not have run, the interpreter may be ending
            self.close()
