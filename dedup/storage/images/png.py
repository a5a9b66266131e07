"""PNG by its chunks: what viewers pass over is passed over, and what Pillow gets is only what it needs."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from dedup.storage.images.frames import MAX_COUNTED, Timeline

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CRITICAL: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_READ_HERE: Final = frozenset({b"sBIT", b"iCCP", b"eXIf"})
_MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
_HEAD: Final = struct.Struct(">I4s")
GREY, GREY_ALPHA, RGBA = 0, 4, 6  # colour types


@dataclass
class PngFile:
    """A PNG, taken apart."""

    data: bytes  # critical chunks, transparency and animation only, whole
    width: int = 0
    height: int = 0
    depth: int = 8  # bits per sample
    colour: int = 2  # the colour type
    used_bits: int = 0  # of sBIT, the most of any channel; 0 = not said
    exif: bytes = b""
    profile: bytes = b""  # the ICC profile, decompressed
    is_complete: bool = True  # whether it has its IEND
    frames: Timeline = field(default_factory=Timeline)


def read_png(data: bytes) -> PngFile:
    """Take a PNG apart without decompressing pixels.

    Texts and all other ancillary chunks are passed over unread, as are those with a wrong CRC and what follows IEND. A last chunk of
    pixels that is cut short is kept as far as it goes, and a missing IEND supplied: whether the pixels are complete, only their
    decompression tells.

    `data`: from the signature on; may be broken anywhere.
    """
    png = PngFile(data, is_complete=False)
    chunks: list[bytes] = []
    delays: list[float] = []
    profile, at = b"", len(SIGNATURE)
    while at + _HEAD.size <= len(data):
        length, kind = _HEAD.unpack_from(data, at)
        start, end = at + _HEAD.size, at + _HEAD.size + length
        is_whole = end + 4 <= len(data)
        if kind == b"IEND":
            png.is_complete = True
            break
        if kind in _CRITICAL or (is_whole and not kind[0] & 0x20):  # unknown critical chunks are Pillow's to refuse
            chunks.append(data[at : end + 4] if is_whole else _chunk(kind, data[start:end]))
            if kind == b"IHDR" and length == 13 and is_whole:
                png.width, png.height, png.depth, png.colour = struct.unpack_from(">IIBB", data, start)
        elif is_whole and _is_wanted(kind) and zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big"):
            if kind == b"fcTL" and length == 26 and len(delays) < MAX_COUNTED:
                delays.append(_delay(data, start))
            elif kind == b"iCCP":
                profile = data[start:end]
            elif kind == b"eXIf":
                png.exif = png.exif or data[start:end]
            elif kind == b"sBIT":
                png.used_bits = max(data[start:end], default=0)
            if kind not in _READ_HERE:
                chunks.append(data[at : end + 4])
        at = end + 4
    png.data = b"".join([SIGNATURE, *chunks, _chunk(b"IEND", b"")])
    png.profile = _decompressed(profile)
    png.frames = Timeline(delays, len(delays))
    return png


def relabelled(png: PngFile, colour: int) -> bytes:
    """The same bytes as pixels of 8 bits of another colour type that has as many bytes a pixel: 16 bits of grey and alpha as RGBA."""
    at = png.data.index(b"IHDR")
    header = bytearray(png.data[at + 4 : at + 17])
    header[8:10] = bytes((8, colour))
    return png.data[: at - 4] + _chunk(b"IHDR", bytes(header)) + png.data[at + 21 :]


def _is_wanted(kind: bytes) -> bool:
    return kind == b"tRNS" or kind in _ANIMATION or kind in _READ_HERE


def _chunk(kind: bytes, data: bytes) -> bytes:
    return _HEAD.pack(len(data), kind) + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _delay(data: bytes, start: int) -> float:
    """Milliseconds that a frame is shown."""
    numerator, denominator = struct.unpack_from(">HH", data, start + 20)
    return float(1000 * numerator / (denominator or 100))


def _decompressed(profile: bytes) -> bytes:
    """The profile of an iCCP chunk; empty if it is broken, or larger than profiles are."""
    name, _, rest = profile.partition(b"\0")
    if not name or len(rest) < 2:
        return b""
    try:
        inflater = zlib.decompressobj()
        found = inflater.decompress(rest[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return found if inflater.eof else b""
