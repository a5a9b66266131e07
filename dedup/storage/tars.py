"""Members of a tar as a stream, with the truth about how the tar ended.

The standard library's `tarfile` does the parsing; it says nothing, though, when a tar simply stops or a header in its
middle is damaged: both look like a regular end. The subclasses here note what the last header was.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from copy import copy
from typing import IO, TYPE_CHECKING, Any, Final

from dedup.storage.locations import open_binary
from dedup.storage.samples import SampleReader, one_line

if TYPE_CHECKING:
    from typing_extensions import Self

# Headers that a long name or pax record needs are far smaller; tarfile would read them whole, however large they claim to be.
_MAX_EXTENDED_HEADER_BYTES: Final = 1024 * 1024
_EXTENDED_TYPES: Final = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)
_CHUNK_BYTES: Final = 1024 * 1024


class _Header(tarfile.TarInfo):
    """A header that refuses impossible sizes, notes on its tar what ended it, and keeps its block."""

    block = b""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENDED_TYPES and header.size > _MAX_EXTENDED_HEADER_BYTES):
            raise tarfile.ReadError(f"impossible size {header.size} in the header of {header.name!r}")
        header.block = bytes(buf)
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(tar, _Tar):
                tar.last_header = error
            raise


class _Tar(tarfile.TarFile):
    """A tar that remembers the header error at which tarfile stopped."""

    tarinfo = _Header
    last_header: tarfile.HeaderError | None = None
    members: list[tarfile.TarInfo]


class _Source:
    """A file that remembers whether it was the transport that failed, not the tar."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.n_bytes = 0
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except Exception as error:  # each file system has its own (aiohttp, botocore, OSError)
            self.error = error
            raise
        self.n_bytes += len(data)
        return data


class Cut(Exception):
    """The tar ended inside the member that was being read."""


class TarStream:
    """Regular members of one tar, in order, unpacked nowhere and held one at a time.

    Parameters
    ----------
    url : str
        A path or any fsspec URL; plain, gzip, bzip2 and xz tars are told apart by their first bytes.
    reader : SampleReader
        Receives `fail("unreadable", …)` if the file can't be fetched or is no tar, `fail("truncated", …)` if it breaks off:
        no end-of-archive block, a damaged header, or no byte at all (what a download that never began leaves behind).
    """

    def __init__(self, url: str, reader: SampleReader) -> None:
        self._url, self._reader = url, reader
        self._tar: _Tar | None = None
        self._is_plain = False
        self._cut: Cut | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            file = open_binary(self._url)
        except Exception as error:  # each file system has its own
            self._reader.fail("unreadable", f"{self._url} can't be opened ({one_line(error)}); check the address", is_reachable=False)
            return
        with file:
            source = _Source(file)
            try:
                yield from self._members(source)
            except GeneratorExit:
                raise
            except Exception as error:  # damaged headers make tarfile raise ValueError, OverflowError, zlib.error, …
                self._broke_off(error, source)

    def _members(self, source: _Source) -> Iterator[tarfile.TarInfo]:
        stream: Any = source  # tarfile asks for read() alone in streaming mode
        tar = self._tar = _Tar.open(fileobj=stream, mode="r|*", encoding="utf-8", errors="surrogateescape")
        # An unknown kind of stream counts as compressed: no offsets are better than wrong ones.
        self._is_plain = getattr(tar.fileobj, "comptype", None) == "tar"
        if isinstance(tar.last_header, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            return  # opening read the first header and it was the end; Python 3.10 would read on
        while (member := tar.next()) is not None:
            tar.members.clear()
            if member.isreg():
                yield member
                if self._cut is not None:
                    raise self._cut
        if tar.last_header is not None and not isinstance(tar.last_header, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{tar.last_header} where a header or the end-of-archive block should be")

    def _broke_off(self, error: Exception, source: _Source) -> None:
        if source.error is not None:
            text = f"{self._url} can't be read on after {source.n_bytes} bytes ({one_line(source.error)}); try again"
            self._reader.fail("unreadable", text, is_reachable=False)
        elif self._tar is None and source.n_bytes:
            self._reader.fail("unreadable", f"{self._url} is no tar ({one_line(error)}); expected a plain, gzip, bzip2 or xz tar")
        else:
            text = f"{self._url} breaks off after {source.n_bytes} bytes ({one_line(error)}); fetch it again to get the rest"
            self._reader.fail("truncated", text)

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Bytes of the member that was yielded last; raises `Cut` if the tar or the connection ends inside it."""
        tar = self._tar
        if tar is None or tar.fileobj is None:
            raise Cut("the tar is not open")
        try:
            if member.issparse():
                file = tar.extractfile(member)
                data = file.read() if file is not None else b""
            else:
                data = tar.fileobj.read(member.size)
        except Exception as error:  # of tarfile, zlib, lzma or the file system; the iteration ends with it and tells which
            self._cut = Cut(one_line(error))
            raise self._cut from error
        if len(data) != member.size:
            self._cut = Cut(f"{len(data)} of {member.size} bytes of {member.name!r}")
            raise self._cut
        return data

    def chunks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Bytes of the member that was yielded last, a mebibyte at a time; raises `Cut` as `read` does."""
        if member.size <= _CHUNK_BYTES or member.issparse():
            yield self.read(member)
            return
        part = copy(member)
        for start in range(0, member.size, _CHUNK_BYTES):
            part.size = min(_CHUNK_BYTES, member.size - start)
            yield self.read(part)

    def header(self, member: tarfile.TarInfo) -> bytes:
        """The header of the member that was yielded last, to be written before its bytes: as it was, unless it took several blocks."""
        block: bytes = getattr(member, "block", b"")
        if member.offset_data - member.offset == tarfile.BLOCKSIZE == len(block) and not member.issparse():
            return block
        plain = copy(member)
        plain.type = tarfile.REGTYPE  # of a sparse member the bytes are written whole
        # names that are no UTF-8 stay as they are only in this format
        return plain.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def offset(self, member: tarfile.TarInfo) -> int | None:
        """Where the member's bytes start in the file; None if they don't lie there as they are."""
        return member.offset_data if self._is_plain and not member.issparse() else None
