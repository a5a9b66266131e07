"""Find a caption bar: an area of one ground and its writing along an edge of a picture."""

from __future__ import annotations

import numpy as np

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.judge.picture import Array, largest_channel

_DEEPEST = 0.28  # of the side that a bar may cover
_LEAST_DEPTH = 8  # pixels: a line of writing
_OUTERMOST = 3  # pixels from the edge that tell the ground
_NEAR = 10.0  # grey levels within which pixels have the ground's colour
_CLEAR, _STEPPED = 0.95, 0.75  # share of its last line that has that colour, at least, and of the line beyond, at most
_SOFT = 2  # pixels over which the bar's inner edge may be blurred
_WRITTEN = (0.01, 0.6)  # share of the bar that is writing


def bar_mask(first: Array, second: Array, inside: Mask) -> Mask:
    """Pixels under a bar along an edge of either of two registered pictures.

    `first`, `second`: shape (height, width, 3); luma and chroma.
    `inside`: shape (height, width); where both have pixels.
    """
    found = np.zeros_like(inside)
    for picture in (first, second):
        for is_transposed in (False, True):
            for is_reversed in (False, True):
                lines = slice(None, None, -1 if is_reversed else 1)
                turned = picture.swapaxes(0, 1) if is_transposed else picture
                depth = _depth(turned[lines], (inside.T if is_transposed else inside)[lines])
                (found.T if is_transposed else found)[lines][:depth] = True
    return found & inside


def _depth(picture: Array, inside: Mask) -> int:
    """Lines from the first that a bar covers; 0 where there is none."""
    lines = np.flatnonzero(inside.any(axis=1))
    deepest = int(_DEEPEST * len(picture))
    if not len(lines) or deepest <= lines[0] + _LEAST_DEPTH + _SOFT:
        return 0
    start = int(lines[0])
    outermost = slice(start, start + _OUTERMOST)
    ground = np.median(picture[outermost][inside[outermost]], axis=0)
    # one line more than a bar may cover, to see it end
    strip = slice(start, deepest + _SOFT)
    has_ground = (largest_channel(np.abs(picture[strip] - ground)) < _NEAR) & inside[strip]
    shares: Floats = has_ground.sum(axis=1) / np.maximum(inside[strip].sum(axis=1), 1)
    ends = np.flatnonzero((shares[:-_SOFT] >= _CLEAR) & (shares[_SOFT:] <= _STEPPED)) + 1
    for end in ends[ends >= _LEAST_DEPTH][::-1].tolist():
        written = 1.0 - float(shares[:end].mean())
        if _WRITTEN[0] <= written <= _WRITTEN[1]:
            return start + int(end)
    return 0
