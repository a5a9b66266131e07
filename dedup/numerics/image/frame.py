"""Find the picture inside a frame: borders, letterbox bars, caption bars and window frames around it."""

from __future__ import annotations

import numpy as np

from dedup.numerics.arraytypes import Floats, Pixels
from dedup.numerics.image.descriptor import check_rgb

Box = tuple[int, int, int, int]
_TOLERANCE = 10  # grey levels that JPEG may move a uniform ground by
_EDGE_SHARE = 0.8  # of the outermost line that must have the ground's colour; otherwise there is no frame on that side
_LINE_SHARE = 0.5  # of each further line: the words of a caption cover the rest
_LINES = 16  # examined at a time
_LEAST_TRIM = 0.015  # of a side that is worth trimming
_LEAST_LEFT = 0.25  # of a side that must remain


def picture_box(pixels: Pixels) -> Box | None:
    """Box of the picture inside a frame that has one colour on each side.

    A line belongs to the frame as long as at least half of it has the colour of the outermost line, so that the words
    of a caption bar or a window's title are trimmed with it. The sky of a photo may be trimmed too: both copies lose it
    alike, and the trimmed picture is only a further view beside the whole one.

    `pixels`: shape (height, width, 3); RGB.
    Returns left, top, right, bottom in pixels; None if there is no frame, it is thinner than 1.5% of the side, or less than a quarter of a
    side would remain.
    Raises ShapeError if `pixels` is not a non-empty uint8 RGB array.

    >>> framed = np.full((60, 80, 3), 255, dtype=np.uint8)
    >>> framed[10:50] = np.random.default_rng(0).integers(0, 200, (40, 80, 3), dtype=np.uint8)
    >>> picture_box(framed)
    (0, 10, 80, 50)
    """
    check_rgb(pixels)
    height, width, _ = pixels.shape
    left, top, right, bottom = 0, 0, width, height
    # twice: between side bars, the rows of a caption are recognised only once the bars are gone
    for _ in range(2):
        previous = (left, top, right, bottom)
        inside = pixels[top:bottom, left:right]
        top, bottom = top + _frame_lines(inside), bottom - _frame_lines(inside[::-1])
        if bottom <= top:
            return None
        inside = pixels[top:bottom, left:right].transpose(1, 0, 2)
        left, right = left + _frame_lines(inside), right - _frame_lines(inside[::-1])
        if right <= left:
            return None
        if (left, top, right, bottom) == previous:
            break
    if max(top, height - bottom) < _LEAST_TRIM * height and max(left, width - right) < _LEAST_TRIM * width:
        return None
    if bottom - top < _LEAST_LEFT * height or right - left < _LEAST_LEFT * width:
        return None
    return left, top, right, bottom


def _frame_lines(lines: Pixels) -> int:
    """Number of leading lines that are frame, at most half of all; `lines`: shape (n_lines, length, 3)."""
    first = np.ascontiguousarray(lines[0].T)
    ordered = np.sort(first, axis=1).astype(np.int16)
    middle = ordered.shape[1] // 2
    ground = (ordered[:, -1 - middle] + ordered[:, middle]) // 2
    low, high = np.maximum(ground - _TOLERANCE, 0).astype(np.uint8), np.minimum(ground + _TOLERANCE, 255).astype(np.uint8)
    inside = (first >= low[:, None]) & (first <= high[:, None])
    if np.count_nonzero(inside[0] & inside[1] & inside[2]) < _EDGE_SHARE * len(inside[0]):
        return 0
    n_half = len(lines) // 2
    # most frames are thin
    for start in range(0, n_half, _LINES):
        is_ground = _ground_share(lines[start : min(start + _LINES, n_half)], low, high) >= _LINE_SHARE
        if not is_ground.all():
            return start + int(np.argmin(is_ground))
    return n_half


def _ground_share(lines: Pixels, low: Pixels, high: Pixels) -> Floats:
    """Share of each line with a colour between `low` and `high`, shape (3,)."""
    inside = (lines >= low) & (lines <= high)
    share: Floats = (inside[:, :, 0] & inside[:, :, 1] & inside[:, :, 2]).mean(axis=1)
    return share
