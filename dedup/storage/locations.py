"""Paths and URLs: which are local, the one form that tables hold, and opening them."""

from __future__ import annotations

import os
from typing import IO

import fsspec

_BUFFER_BYTES = 1024 * 1024


def is_local(url: str) -> bool:
    """Whether this is a plain path; ``file://`` URLs become one by `absolute`.

    Examples
    --------
    >>> is_local("/data/a.tar"), is_local("s3://bucket/a.tar"), is_local("simplecache::memory://a.tar")
    (True, False, False)
    """
    return "://" not in url and "::" not in url


def absolute(url: str) -> str:
    """Bring a path or URL to the one form that tables hold: local paths absolute, without ``file://``; URLs as they are.

    Examples
    --------
    >>> absolute("file:///data/../a.tar"), absolute("s3://bucket/a.tar")
    ('/a.tar', 's3://bucket/a.tar')
    """
    url = url.removeprefix("file://").removeprefix("local://")
    return os.path.abspath(os.path.expanduser(url)) if is_local(url) else url


def open_binary(url: str) -> IO[bytes]:
    """Open a path or fsspec URL to be read from its beginning, buffered; the caller closes it.

    Raises
    ------
    Exception
        OSError for local files; for others whatever their file system raises.
    """
    if is_local(url):  # past fsspec, whose wrapper costs a Python call for each read
        return open(url, "rb", buffering=_BUFFER_BYTES)
    file: IO[bytes] = fsspec.open(url, "rb").open()
    return file
