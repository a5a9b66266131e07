"""Grey and colour of more than 8 bits, brought to 8 bits by the range they use."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_DEPTHS: Final = (8, 10, 12, 14, 16, 24, 32)
# Hot pixels do not count, nor what resizing overshoots at edges: a picture and its resized copy must use the same range.
_OUTSIDE_SHARE: Final = 0.002
_OVERSHOOT: Final = 1.125
_LEAST_FLOAT: Final = 1 / 16  # floats that stay below are no shares of 1
_MOST_HDR: Final = 16  # floats above 1 and up to here are light, not levels of 0 to 255


def used_bits(values: npt.NDArray[Any], declared: int = 0) -> int:
    """The depth that values use: the least of 8, 10, 12, 14, 16, 24 and 32 bits that holds all but a few.

    `values`: not negative, of any shape.
    `declared`: what the file says, 0 = nothing; it counts unless a value lies above it.
    """
    for bits in sorted({*_DEPTHS, declared or _DEPTHS[0]}):
        if bits >= declared and _fits(values, 2.0**bits):
            return bits
    return _DEPTHS[-1]


def _fits(values: npt.NDArray[Any], top: float) -> bool:
    return int(np.count_nonzero(values > top * _OVERSHOOT)) <= _OUTSIDE_SHARE * values.size


def scaled(values: npt.NDArray[Any], top: float) -> npt.NDArray[np.uint8]:
    """Values from 0 to `top` as 0 to 255; what lies beyond is cut off."""
    if values.dtype == np.uint16 and top == 65535:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(np.clip(values.astype(np.float64) * (255 / top), 0, 255)).astype(np.uint8)


def grey_to_8_bits(values: npt.NDArray[Any], declared: int = 0) -> npt.NDArray[np.uint8]:
    """Convert grey of more than 8 bits to 8.

    `values`: shape (height, width); integer or float array.
    `declared`: bits that the file says are used, 0 = nothing said.
    Returns shape (height, width).

    Notes
    -----
    Integers that are not negative count as the least of 8, 10, 12, 14, 16, 24 or 32 bits that holds all but 0.2% of them, floats as
    shares of 1, as light up to the next power of two (to 16), as levels of 0 to 255, or beyond that as integers do. Integers that need
    all 16 or 32 bits with a sign count from the least of them. Other ranges with negative values, and floats below 1/16, are stretched
    from their least to their greatest value, each without the outermost 0.2%.
    Values that are not finite become 0.

    Examples
    --------
    >>> grey_to_8_bits(np.array([[0, 257, 65535]], np.uint16))
    array([[  0,   1, 255]], dtype=uint8)
    >>> grey_to_8_bits(np.array([[0, 512, 1023]], np.uint16))
    array([[  0, 128, 255]], dtype=uint8)
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        return _floats_to_8_bits(values)
    if values.dtype.kind == "i" and not _fits(-values.astype(np.int64), 0.0):
        return _signed_to_8_bits(values.astype(np.int64))
    if values.dtype.kind == "i":
        values = np.maximum(values, 0)
        for bits in (15, 31):  # all that numbers with a sign can have
            if _fits(values, 2.0**bits) and not _fits(values, 2.0 ** (bits - 1)):
                declared = bits
    return scaled(values, 2.0 ** used_bits(values, declared) - 1)


def _signed_to_8_bits(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    for half in (2.0**15, 2.0**31):
        if _fits(np.abs(values), half) and not _fits(np.abs(values), half / 2):
            return scaled(np.maximum(values + int(half), 0), 2 * half - 1)
    return _stretched(values)


def _floats_to_8_bits(grey: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    if not _fits(-grey, 0.0) or _fits(grey, _LEAST_FLOAT / _OVERSHOOT):
        return _stretched(grey)
    for top in (*(2.0**power for power in range(_MOST_HDR.bit_length())), 255.0, *(2.0**bits - 1 for bits in _DEPTHS[1:])):
        if _fits(grey, top):
            return scaled(grey, top)
    return _stretched(grey)


def _stretched(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    grey = values.astype(np.float64)
    n_outside = int(_OUTSIDE_SHARE * grey.size)
    places = (n_outside, grey.size - 1 - n_outside)
    ordered = np.partition(grey, places, axis=None)
    low, high = float(ordered[places[0]]), float(ordered[places[1]])
    share = (np.clip(grey, low, high) - low) / max(high - low, 1e-300)
    return np.rint(share * 255).astype(np.uint8)
