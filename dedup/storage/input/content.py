"""What a source of the input holds, whatever its path: by which data that has moved is known again."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from typing import Final

from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.row_tables import LANCE
from dedup.storage.input.sources import FolderPart, size_of
from dedup.storage.urls import matching, read_range

_SAMPLE_BYTES: Final = 65_536


def content_stamp(source: str | FolderPart | EmbeddingFile) -> str:
    """Identity of a shard, a part of a folder or a file of embeddings: 32 hex digits; '' if it can't be read.

    Of each file its size and 64 KiB of its beginning, middle and end; of a folder's part the relative paths, its first file and its last.
    """
    digest = hashlib.sha256()
    try:
        for name, url in _files(source):
            size = size_of(url)
            if size is None:
                return ""
            digest.update(f"{name}\n{size}\n".encode("utf-8", "surrogateescape"))
            for start in dict.fromkeys((0, max(0, (size - _SAMPLE_BYTES) // 2), max(0, size - _SAMPLE_BYTES))):
                digest.update(read_range(url, start, min(size, start + _SAMPLE_BYTES)))
    except Exception:  # each file system has its own; whoever reads the source reports what is wrong
        return ""
    if isinstance(source, FolderPart):
        digest.update("\n".join(source.images).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _files(source: str | FolderPart | EmbeddingFile) -> Iterator[tuple[str, str]]:
    """Files that are looked into: name and URL."""
    if isinstance(source, str):
        yield posixpath.basename(source), source
    elif isinstance(source, FolderPart):
        for name in dict.fromkeys((source.images[0], source.images[-1])):
            yield name, f"{source.folder}/{name}"
    else:
        for url in dict.fromkeys(filter(None, (source.url, source.metadata))):
            if url.endswith(LANCE):
                names = [posixpath.basename(name) for name in matching(f"{url}/_versions", "*.manifest")]
                yield from ((name, f"{url}/_versions/{name}") for name in dict.fromkeys((names[0], names[-1])))
            else:
                yield posixpath.basename(url), url
