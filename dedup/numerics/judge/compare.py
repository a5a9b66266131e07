"""Judge a pair of pictures: copies of one, or only look-alikes.

Two pictures brought to one frame (`registration`) are compared in three ways. Each alone has its blind spot:
local correlation of detail is upset by heavy compression and watermarks, the global descriptor by a caption over a part,
and both call two shots of one scene nearly equal, where only the movement between them tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.judge.picture import SIDE, SMALL_PICTURE_SIDE, Level, Picture
from dedup.numerics.judge.register import UNALIGNED, Alignment, align, distortion, magnification
from dedup.numerics.judge.tiles import Overlap, Tiles, overlap, tiles
from dedup.numerics.judge.watermark import unmarked

MAX_DISTANCE = 0.15  # up to which a pair is one picture
_MOVED_UP_TO = ((0.003, 0.02), (0.045, 0.012))  # share of tracked points that may have moved, by distance
_MOST_SHEAR = (2.0, 4.0)  # degrees, at full size and of small pictures
_MOST_STRETCH = (1.15, 1.25)
_LEAST_OVERLAP = 0.1  # of the picture that the other is a part of
_LEAST_COVER = 0.5  # of the part, that lies on the other
_TAIL = 0.1  # of the weight that may agree less than what decides
_BARS = (0.1, 0.16, 0.22, 0.28)  # of a side that a caption bar may cover
_CORNERS = (0.2, 0.3, 0.4)  # of the shorter side that a logo in a corner may cover
_LEAST_UNCOVERED = 0.4  # of the weight that must be left beside bar or logo
_GLOBAL = (0.80, 0.92)  # global similarity that leaves the tiles all to say, and as little as they can have
_GLOBAL_OF_MARKED = 0.75  # of copies under a heavy watermark
_LEAST_BESIDE = 0.2  # of a tile that a watermark must leave
_GLOBAL_WEIGHT = 0.2  # of a tile's disagreement where the pictures agree globally
_MUCH_DETAIL = 0.35  # mean weight of the tiles from which they are evidence enough
_MOST_CHANGED = 0.02  # share of the tiles that may show something else, beside one bar or one corner: a small sticker
_LEAST_TRUST = 0.12  # a bird on a plain sky: what little there is to see must agree eight times as well
Reason = Literal["", "unaligned", "distorted", "overlap", "moved", "different"]

REASONS: dict[str, str] = {
    "unaligned": "no shift, scale or rotation brings one onto the other",
    "distorted": "only skewing or stretching one fits it to the other: things of one kind, not one picture",
    "overlap": "they share too small a part",
    "moved": "parts moved against each other: two shots of one scene",
    "different": "registered on each other, they differ in parts",
    "unreadable": "a picture could not be read again, and confirm.unreadable=refuse",
}


@dataclass(frozen=True)
class Verdict:
    """What was found about a pair."""

    is_copy: bool
    distance: float  # how much the parts that agree least disagree, 0 (equal) to 1; copies have at most the `max_distance` asked for
    reason: Reason  # why it is no copy: a key of `REASONS`; empty for a copy
    # shape (2, 3); takes relative coordinates (0 to 1 across width and height) of the first picture, turned, to the second's
    matrix: npt.NDArray[np.float64]
    # moved, agreement, similarity, overlap: share of points that moved, local agreement of the tiles, global similarity, share of the
    # larger picture that was compared; for whoever wants to know how the verdict came about
    moved: float = 0.0
    agreement: float = 0.0
    similarity: float = 0.0
    overlap: float = 0.0


def turned(pixels: npt.NDArray[np.uint8], variant: str) -> npt.NDArray[np.uint8]:
    """Turn a picture as `dedup.numerics.image.descriptor.VARIANTS` names it.

    Examples
    --------
    >>> turned(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "mirror").tolist()
    [[[3, 4, 5], [0, 1, 2]]]
    """
    transpose, reverse_rows, reverse_columns = VARIANTS[variant]
    view = pixels.transpose(1, 0, 2) if transpose else pixels
    view = view[::-1] if reverse_rows else view
    return np.ascontiguousarray(view[:, ::-1] if reverse_columns else view)


def compare(a: Picture, b: Picture, *, max_distance: float = MAX_DISTANCE) -> Verdict:
    """Judge two pictures.

    Parameters
    ----------
    a, b : Picture
        `a` turned already the way the candidate came.
    max_distance : float
        Up to which they are copies.
    """
    side = SIDE if min(a.native_side, b.native_side) >= 0.75 * SIDE else SMALL_PICTURE_SIDE
    left, right = a.level(side), b.level(side)
    found = align(left, right)
    relative = _relative(found, left, right)
    if found.agreement < UNALIGNED:
        return Verdict(False, 1.0, "unaligned", relative)
    shear, stretch = distortion(found.matrix, left, right)
    is_small = int(side < SIDE)
    if shear > _MOST_SHEAR[is_small] or stretch > _MOST_STRETCH[is_small]:
        return Verdict(False, 1.0, "distorted", relative, found.moved)
    # in the picture whose pixels are the coarser: the other is brought down to it
    is_reverse = magnification(found.matrix) < 1.0
    shared = overlap(right, left, cv2.invertAffineTransform(found.matrix)) if is_reverse else overlap(left, right, found.matrix)
    if shared is None or shared.share < _LEAST_OVERLAP or shared.cover < _LEAST_COVER or (compared := tiles(shared)) is None:
        return Verdict(False, 1.0, "overlap", relative, found.moved)
    agreement, distance, changed = _distance(compared)
    if distance > max_distance and compared.similarity >= _GLOBAL_OF_MARKED and (marked := _beside_watermark(shared)):
        agreement, distance, changed = marked
    # where all tiles agree a few tracks went astray on a repeated pattern; nothing moved
    is_moved = found.moved > np.interp(distance, *_MOVED_UP_TO)
    is_other = distance > max_distance or changed > _MOST_CHANGED
    reason: Reason = "different" if is_other else "moved" if is_moved else ""
    return Verdict(not reason, distance, reason, relative, found.moved, agreement, compared.similarity, shared.share)


def _beside_watermark(shared: Overlap) -> tuple[float, float, float] | None:
    """As `_distance`, of the pixels that a watermark leaves; None where there is none."""
    left = unmarked(shared.left[:, :, 0], shared.right[:, :, 0], shared.mask)
    if left is None:
        return None
    beside = replace(shared, left=shared.left * left[:, :, None], right=shared.right * left[:, :, None], mask=left)
    compared = tiles(beside, least_share=_LEAST_BESIDE)
    return None if compared is None else _distance(compared)


def _distance(compared: Tiles) -> tuple[float, float, float]:
    """Agreement of the tiles that agree least, the distance that makes, and the share of tiles that show something else."""
    agreement, changed = _worst(compared)
    share = np.interp(compared.similarity, _GLOBAL, (1.0, _GLOBAL_WEIGHT)) / np.clip(
        compared.weight.mean() / _MUCH_DETAIL, _LEAST_TRUST, 1.0
    )
    return agreement, float(np.clip((1.0 - agreement) * share, 0.0, 1.0)), changed


def _worst(compared: Tiles) -> tuple[float, float]:
    """Agreement of the tiles that agree least and share of changed tiles, after what one caption bar or one logo in a corner may cover."""
    order = np.argsort(compared.agreement, kind="stable")
    agreement, weight, y, x = compared.agreement[order], compared.weight[order], compared.y[order], compared.x[order]
    height, width = compared.shape
    sides = [np.ones(len(order), dtype=bool)]
    sides += [side for bar in _BARS for side in (y > bar, y < 1 - bar, x > bar, x < 1 - bar)]
    for corner in _CORNERS:
        down, across = corner * min(height, width) / height, corner * min(height, width) / width
        sides += [~(row & column) for row in (y < down, y > 1 - down) for column in (x < across, x > 1 - across)]
    # a row for each choice; in it the weights summed up from the least agreement
    outside = np.stack(sides)
    summed = np.cumsum(outside * weight, axis=1, dtype=np.float64)
    total = summed[:, -1]
    at = (summed < _TAIL * total[:, None]).sum(axis=1).clip(0, len(order) - 1)
    is_enough = total >= _LEAST_UNCOVERED * total[0]
    changed = (outside[is_enough] & compared.is_changed[order]).mean(axis=1).min()
    return float(agreement[at[is_enough]].max()), float(changed)


def _relative(found: Alignment, a: Level, b: Level) -> npt.NDArray[np.float64]:
    matrix = found.matrix.copy()
    matrix[:, :2] *= [a.width, a.height]
    relative: npt.NDArray[np.float64] = matrix / np.array([[b.width], [b.height]])
    return relative
