"""Files that are not yet, or never, results: hidden while they are written, gone when their process is, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from glob import escape, glob

from dedup.storage.tables import filesystem, hidden_name, is_local

_BUFFER_BYTES = 256 * 1024
_PREFIX = "dedup-"
_LOCK = ".lock"


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


class ScratchFile:
    """A binary file that appears under its name only when it is whole, on any fsspec URL.

    Written under a hidden name beside its place, or in a temporary file for a remote place, which gets it in one PUT.

    Parameters
    ----------
    url : str

    Attributes
    ----------
    file : binary file
        Open for writing; may be searched, so that a header can be mended at the end.
    """

    def __init__(self, url: str) -> None:
        fs, path = filesystem(url)
        self._fs, self._path, self._local = fs, path, is_local(url)
        self._folder = ExitStack()
        if self._local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._scratch = hidden_name(path)
        else:
            self._scratch = os.path.join(self._folder.enter_context(scratch_folder()), os.path.basename(path))
        self.file = open(self._scratch, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed in close and abort)

    def close(self) -> int:
        """Give the file its name; returns its size in bytes."""
        self.file.close()
        n_bytes = os.path.getsize(self._scratch)
        if self._local:
            os.replace(self._scratch, self._path)
        else:
            with self._folder:
                self._fs.put_file(self._scratch, self._path)
        return n_bytes

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: what counts is the error that led here
            self.file.close()
        with suppress(OSError):
            os.unlink(self._scratch)
        self._folder.close()
