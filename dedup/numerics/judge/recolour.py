"""Whether two registered pictures that are mostly flat have the same colours.

On a photo a few numbers, fitted to thousands of tones, tell a change of the whole picture's colours from another subject. Flat
pictures have so few colours that some change fits any of them to any other: three stripes to three stripes. So only what
reproduction does to them is allowed for: brightness, contrast, saturation, and none of it where the ground stayed as it is.
"""

from __future__ import annotations

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.judge.match import fitted_line, trust
from dedup.numerics.judge.picture import Array
from dedup.numerics.judge.tiles import Overlap

_REDUCED = 3  # pixels to a side that are averaged: letters and JPEG's grain are no areas
_LEAST_PIXELS = 20
_LUMA, _CHROMA = 18.0, 14.0  # grey levels from which a pixel has another colour
_GREY = 8.0  # grey levels of chroma up to which a picture has no colours
_SAME_GROUND = 8.0  # grey levels
_GAINS, _SATURATIONS = (0.45, 2.2), (0.3, 2.6)
_FITTED = 1_000  # pixels to which a change of colours is fitted
_ROUNDS = 5


def recoloured_share(shared: Overlap) -> float:
    """The largest connected area that has another colour, as a share of what both show; 0 to 1."""
    height, width = shared.mask.shape
    size = (max(8, width // _REDUCED), max(8, height // _REDUCED))
    inside = cv2.resize(shared.mask, size, interpolation=cv2.INTER_AREA) > 0.99
    if inside.sum() < _LEAST_PIXELS:
        return 0.0
    first, second = (cv2.resize(side, size, interpolation=cv2.INTER_AREA) for side in (shared.left, shared.right))
    a, b = (side[inside].astype(np.float64) for side in (first, second))
    every = max(1, len(a) // _FITTED)
    has_same_ground = bool(np.abs(_ground(a[::every]) - _ground(b[::every])).max() < _SAME_GROUND)
    gain, offset = (1.0, 0.0) if has_same_ground else fitted_line(a[::every, 0], b[::every, 0], _GAINS)
    is_other = _beyond(np.float32(gain) * first[:, :, 0] + np.float32(offset), second[:, :, 0]) > _LUMA
    areas = [_largest_area(is_other & inside)]
    if min(float(np.abs(side[:, 1:]).max()) for side in (a, b)) >= _GREY:
        factor, shift = _saturation(a[::every, 1:], b[::every, 1:], may_shift=not has_same_ground)
        fitted = np.float32(factor) * first[:, :, 1:] + shift.astype(np.float32)
        differences = [_beyond(np.ascontiguousarray(fitted[:, :, k]), np.ascontiguousarray(second[:, :, 1 + k])) for k in (0, 1)]
        areas.append(_largest_area((np.hypot(*differences) > _CHROMA) & inside))
    return max(areas) / float(inside.sum())


def _beyond(a: Array, b: Array) -> Array:
    """How far each pixel is from what the other picture has about it; of both ways the smaller: an edge is where it was, and no area."""
    kernel = np.ones((3, 3), np.uint8)
    ways = [np.maximum(np.maximum(x - cv2.dilate(y, kernel), cv2.erode(y, kernel) - x), 0.0) for x, y in ((a, b), (b, a))]
    smaller: Array = np.minimum(*ways)
    return smaller


def _largest_area(mask: Mask) -> int:
    """Pixels of the largest connected part."""
    n, _, sizes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int(sizes[1:, cv2.CC_STAT_AREA].max()) if n > 1 else 0


def _ground(pixels: Floats) -> Floats:
    """The most frequent colour."""
    steps = (pixels / 16.0).round().astype(np.intp) @ [1024, 32, 1]
    _, places, counts = np.unique(steps, return_inverse=True, return_counts=True)
    ground: Floats = np.median(pixels[places == counts.argmax()], axis=0)
    return ground


def _saturation(x: Floats, y: Floats, *, may_shift: bool) -> tuple[float, Floats]:
    """The factor, and the shift if there may be one, that fit the chroma of most pixels of one picture to the other's.

    `x`, `y`: shape (n, 2).
    """
    weight, factor, shift = np.ones(len(x)), 1.0, np.zeros(2)
    for _ in range(_ROUNDS):
        means = [np.average(side, axis=0, weights=weight) if may_shift else np.zeros(2) for side in (x, y)]
        u, v = x - means[0], y - means[1]
        factor = float(np.clip(((u * v).sum(axis=1) @ weight + 100.0) / ((u * u).sum(axis=1) @ weight + 100.0), *_SATURATIONS))
        shift = means[1] - factor * means[0]
        weight = trust(np.linalg.norm(y - factor * x - shift, axis=1))
    return factor, shift
