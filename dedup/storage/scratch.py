"""A binary file that appears under its name only when it is whole, on any fsspec URL."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from dedup.storage.tables import filesystem, hidden_name, is_local

_BUFFER_BYTES = 256 * 1024


class ScratchFile:
    """Written under a hidden name beside its place, or in a temporary file for a remote place, which gets it in one PUT.

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
        if self._local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._scratch = hidden_name(path)
        else:
            handle, self._scratch = tempfile.mkstemp(suffix=os.path.splitext(path)[1])
            os.close(handle)
        self.file = open(self._scratch, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed in close and abort)

    def close(self) -> int:
        """Give the file its name; returns its size in bytes."""
        self.file.close()
        n_bytes = os.path.getsize(self._scratch)
        if self._local:
            os.replace(self._scratch, self._path)
        else:
            self._fs.put_file(self._scratch, self._path)
            os.unlink(self._scratch)
        return n_bytes

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # the disk may be full: what counts is the error that led here
            self.file.close()
        with suppress(OSError):
            os.unlink(self._scratch)
