"""The size of a JPEG XL, from its header alone: its decoder gives it only with the pixels."""

from __future__ import annotations

from typing import Final

from dedup.errors import SampleError

_RATIOS: Final = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_SIZE_BITS: Final = (9, 13, 18, 30)
_HEADER_BYTES: Final = 16


class _Bits:
    """Bits from the lowest of each byte on."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def take(self, n_bits: int) -> int:
        value = self._bits & (1 << n_bits) - 1
        self._bits >>= n_bits
        return value


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL, in a container or bare (ISO/IEC 18181-1, SizeHeader).

    Raises SampleError if there is no codestream.

    Examples
    --------
    >>> jxl_size(bytes([0xFF, 0x0A, 0x41, 0x00]))
    (8, 8)
    """
    stream = data[: _HEADER_BYTES + 2] if data.startswith(b"\xff\x0a") else _codestream(data)
    if len(stream) < 3:
        raise SampleError("truncated_image", f"JPEG XL of {len(data)} bytes ends before its size")
    bits = _Bits(stream[2:])
    is_small = bits.take(1)
    height = _extent(bits, is_small)
    ratio = bits.take(3)
    if not ratio:
        return _extent(bits, is_small), height
    numerator, denominator = _RATIOS[ratio]
    return height * numerator // denominator, height


def _extent(bits: _Bits, is_small: int) -> int:
    return 8 * (bits.take(5) + 1) if is_small else 1 + bits.take(_SIZE_BITS[bits.take(2)])


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a container of boxes; empty if there is none."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            start = at + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + _HEADER_BYTES + 2]
        if size < head:
            break
        at += size
    return b""
