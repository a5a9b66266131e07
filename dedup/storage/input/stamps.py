"""What tells a file from a changed one of its name, without reading it."""

from __future__ import annotations

from typing import Any, Final

from dedup.storage.urls import filesystem

_NAMES: Final = ("ETag", "etag", "e_tag", "md5Hash", "Content-MD5", "generation", "LastModified", "Last-Modified", "mtime")


def stamp_of(info: dict[str, Any]) -> list[str]:
    """Size, and time of modification or ETag, of what a file system says of a file."""
    return [str(info.get("size")), *(str(info[name]) for name in _NAMES if info.get(name) is not None)]


def stamp(url: str) -> list[str]:
    """`stamp_of` a file; empty if it does not exist.

    Raises what its file system raises if it does not answer.
    """
    files, path = filesystem(url)
    try:
        return stamp_of(files.info(path))
    except FileNotFoundError:
        return []
