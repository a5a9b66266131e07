"""Members of a tar as a stream, and how the tar really ended.

The standard library's `tarfile` does the parsing, but a tar that simply stops, or has a damaged header in its middle,
looks to it like a regular end. The subclasses here record what the last header was.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from copy import copy
from typing import IO, TYPE_CHECKING, Any, Final

import pyarrow as pa

from dedup.storage.input.samples import SampleReader, one_line
from dedup.storage.urls import open_binary

if TYPE_CHECKING:
    from typing import Self

# Headers of long names and pax records are far smaller; tarfile would read them whole, however large they claim to be.
_MAX_EXTENDED_HEADER_BYTES: Final = 1024 * 1024

_EXTENDED_TYPES: Final = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)

_CHUNK_BYTES: Final = 1024 * 1024
_LEAST_PACKED: Final = 64  # bytes of a packed tar: one that ends early is cut off, less is none
_MAX_EMPTY_READS: Final = 16  # a regular end is read a few times, not over and over
_MAX_ZERO_BLOCKS: Final = 65_536  # 32 MiB: padding is shorter, and a few compressed bytes can hold endless zeros


class _Header(tarfile.TarInfo):
    """A header that refuses impossible sizes, records on its tar what ended it, and keeps its block."""

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


class _Source(io.RawIOBase):
    """A file that remembers whether the transport failed rather than the tar; its first bytes can be peeked at."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._head = file, b""
        self.n_bytes = 0
        self.error: Exception | None = None

    def head(self, size: int) -> bytes:
        """Peek at the first bytes."""
        while len(self._head) < size and (data := self._fetch(size - len(self._head))):
            self._head += data
        return self._head

    def read(self, size: int = -1) -> bytes:
        if self._head:
            size = len(self._head) if size < 0 else size
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._fetch(size)

    def readable(self) -> bool:
        return True

    def _fetch(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except Exception as error:  # each file system has its own (aiohttp, botocore, OSError)
            self.error = error
            raise
        self.n_bytes += len(data)
        return data


class _Ending:
    """A stream that refuses endless reads past its end: tarfile skips what a header claims, up to 2^88 bytes, block by block."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._n_empty = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data:
            self._n_empty += 1
            if self._n_empty > _MAX_EMPTY_READS:
                raise tarfile.ReadError("unexpected end of data")
        return data


def _unpacked(source: _Source) -> IO[bytes] | None:
    """The bytes unpacked from gzip, bzip2, xz or zstd, of one or more parts; None if the file is packed by none of them."""
    head = source.head(6)
    packed: Any = source
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed, mode="rb")  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        unpacked: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")
        return unpacked
    return lzma.LZMAFile(packed) if head.startswith(b"\xfd7zXZ\0") else None


class Cut(Exception):
    """The tar ended inside the member that was being read."""


class TarStream:
    """Regular members of one tar, in order, never extracted and held one at a time.

    Parameters
    ----------
    url : str
        A path or any fsspec URL; a plain, gzip, bzip2, xz or zstd tar, told by its first bytes.
    reader : SampleReader
        Receives `fail("unreadable", …)` if the file can't be fetched or is no tar, `fail("truncated", …)` if it breaks off:
        no end-of-archive block, a damaged header, or no byte at all (as left by a download that never began).
    """

    def __init__(self, url: str, reader: SampleReader) -> None:
        self._url, self._reader = url, reader
        self._tar: _Tar | None = None
        self._is_plain = False
        self._cut: Cut | None = None
        self._peeked = b""

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
        unpacked = _unpacked(source)
        self._is_plain = unpacked is None
        stream: Any = _Ending(unpacked or source)  # type: ignore[arg-type]  # tarfile asks for read() alone in streaming mode
        tar = self._tar = _Tar.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape")
        while True:
            # tarfile would read on although opening has already met the end
            is_ended = tar.last_header is not None
            while not is_ended and (member := tar.next()) is not None:
                tar.members.clear()
                if member.islnk() or member.issym():
                    self._reader.passed_over["links inside tars, which are not followed"] += 1
                elif member.isreg():
                    self._peeked = b""
                    yield member
                    if self._cut is not None:
                        raise self._cut
            if not self._is_followed(tar):
                return

    def _is_followed(self, tar: _Tar) -> bool:
        """Whether another tar follows the end of this one, as in files joined by `cat`.

        Raises tarfile.ReadError if the tar ended without an end-of-archive block.
        """
        n_zero = 0
        while isinstance(tar.last_header, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            n_zero += 1
            if n_zero > _MAX_ZERO_BLOCKS:
                return False
            tar.offset += tarfile.BLOCKSIZE
            tar.last_header = None
            try:
                tar.firstmember = tar.tarinfo.fromtarfile(tar)  # type: ignore[attr-defined]
            except tarfile.HeaderError:
                continue
            tar._loaded = False  # type: ignore[attr-defined]
            return True
        if n_zero and isinstance(tar.last_header, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            return False
        if n_zero and tar.last_header is not None:
            self._reader.error = f"{self._url} has data after the end of the tar that are not a tar ({tar.last_header}): ignored"
            return False
        if tar.last_header is not None:
            raise tarfile.ReadError(f"{tar.last_header} where a header or the end-of-archive block should be")
        return False

    def _broke_off(self, error: Exception, source: _Source) -> None:
        if source.error is not None:
            text = f"{self._url} can't be read beyond {source.n_bytes} bytes ({one_line(source.error)}); try again"
            self._reader.fail("unreadable", text, is_reachable=False)
        elif self._tar is None and source.n_bytes and not (isinstance(error, EOFError) and source.n_bytes >= _LEAST_PACKED):
            self._reader.fail("unreadable", f"{self._url} is not a tar ({one_line(error)}); expected a plain, gzip, bzip2, xz or zstd tar")
        else:
            text = f"{self._url} breaks off after {source.n_bytes} bytes ({one_line(error)}); fetch it again to get the rest"
            self._reader.fail("truncated", text)

    def peek(self, member: tarfile.TarInfo, size: int) -> bytes:
        """First bytes of the last member yielded, which `read` gives all the same; raises `Cut` as `read` does. Of a sparse member none."""
        if not self._peeked and not member.issparse():
            head = copy(member)
            head.size = min(size, member.size)
            self._peeked = self.read(head)
        return self._peeked

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Bytes of the last member yielded; raises `Cut` if the tar or the connection ends inside it."""
        tar = self._tar
        if tar is None or tar.fileobj is None:
            raise Cut("the tar is not open")
        peeked, self._peeked = self._peeked, b""
        try:
            if member.issparse():
                file = tar.extractfile(member)
                data = file.read() if file is not None else b""
            else:
                data = peeked + tar.fileobj.read(member.size - len(peeked))
        except Exception as error:  # of tarfile, zlib, lzma or the file system; the iteration ends with it and reports it
            self._cut = Cut(one_line(error))
            raise self._cut from error
        if len(data) != member.size:
            self._cut = Cut(f"{len(data)} of {member.size} bytes of {member.name!r}")
            raise self._cut
        return data

    def chunks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Bytes of the last member yielded, a mebibyte at a time; raises `Cut` as `read` does."""
        if member.size <= _CHUNK_BYTES or member.issparse():
            yield self.read(member)
            return
        part = copy(member)
        for start in range(0, member.size, _CHUNK_BYTES):
            part.size = min(_CHUNK_BYTES, member.size - start)
            yield self.read(part)

    def header(self, member: tarfile.TarInfo, name: str = "") -> bytes:
        """Header to write before the bytes of the last member yielded: unchanged, unless it took several blocks, or gets another name."""
        block: bytes = getattr(member, "block", b"")
        if not name and member.offset_data - member.offset == tarfile.BLOCKSIZE == len(block) and not member.issparse():
            return block
        plain = copy(member)
        plain.name = name or member.name
        plain.type = tarfile.REGTYPE  # a sparse member's bytes are written whole
        # only this format keeps names that are not UTF-8 as they are
        return plain.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def offset(self, member: tarfile.TarInfo) -> int | None:
        """Where the member's bytes start in the file; None if they are compressed or sparse there."""
        return member.offset_data if self._is_plain and not member.issparse() else None
