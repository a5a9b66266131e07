"""Whether two pictures that lie on each other show the same in every part: words, numbers, pieces, faces.

`dedup.numerics.judge.tiles` leaves out the tenth that agrees least, since compression, watermarks and bad registration spoil a few tiles
of a copy. A form filled in twice differs in less than that. So the fine detail is compared once more, at twice the size, brought
to one tone and one sharpness first: what then correlates badly is no artefact but something else that is written or drawn there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Mask
from dedup.numerics.judge.match import Matched, match
from dedup.numerics.judge.overlays import box_share, ink_share
from dedup.numerics.judge.picture import Array, box_mean, shifts
from dedup.numerics.judge.recolour import recoloured_share
from dedup.numerics.judge.tiles import Overlap
from dedup.numerics.judge.watermark import unmarked

_WINDOW = 13  # pixels to a side within which detail is correlated
_LINE = 9  # instead, in drawn pictures: a word and the line below it are two things
_STEP = 4  # pixels from one cell to the next
_LEAST_INSIDE = 0.5  # of a cell's window
_DETAIL = (3.0, 0.02, 1.5)  # deviation from which there is something to compare: grey levels, shares of the contrast and of the noise
_MOST_NOISE = 0.1  # of the contrast: what differs by more is no noise
_CELLS = (slice(_STEP // 2, None, _STEP), slice(_STEP // 2, None, _STEP))
_EQUAL = 8.0  # grey levels by which nine pixels together may differ and still be equal
_SAME = 0.6  # correlation below which a cell shows something else
_CHANGED = (8.0, 0.1, 3.0)  # difference from which a pixel has changed: grey levels, shares of the contrast and of the noise
_MOST_IN_DRAWN = 10  # cells that may differ in drawn pictures
_MOST_RECOLOURED = 0.005  # share of their area that may have another colour
_MOST_RECOLOURED_IN_PHOTOS = 0.03
_MOST_IN_PHOTOS = (40, 0.03)  # cells that may differ in photos without an explanation, and share of those with detail
_LEAST_AGREEING = 0.65  # share of the cells with detail that must show the same in any case
_ENOUGH_DETAIL, _ENOUGH_AGREEING = 500, 0.75  # cells, and share of them that agree, from which photos are one in spite of bad tiles
_INK = 0.65  # share of the changed pixels that an overlay must explain
_BOX = 0.4  # share of a box's edges that only one picture may have
_MARGIN = 3  # pixels of the picture's own edge that are not compared
_LEAST_PART = 4  # cells that differ side by side: fewer are noise
_LEAST_FOR_BOX = 20  # cells
_MOST_MARKED = 0.1  # of a cell's window that a watermark may cover and the cell still count


@dataclass(frozen=True)
class Content:
    """What two registered pictures show, cell by cell; a cell is `_STEP` pixels of the larger size to a side."""

    has_detail: Mask  # shape (rows, columns); cells in which there is something to compare
    differs: Mask  # shape (rows, columns); of these, the ones that show something else, and not a watermark
    n_unexplained: int  # of those, the ones that nothing laid over one of the pictures explains
    is_drawn: bool  # mostly flat, of few colours
    recoloured: float  # largest share of the area with another colour; 0 where colours were not compared

    @property
    def agreeing_share(self) -> float:
        """Share of the cells with detail that show the same, 0 to 1; 1 where there is no detail."""
        n = int(self.has_detail.sum())
        return 1.0 - float(self.differs.sum()) / n if n else 1.0

    @property
    def is_same(self) -> bool:
        """Whether nothing differs but what reproduction and overlays explain."""
        if self.is_drawn:
            return int(self.differs.sum()) <= _MOST_IN_DRAWN and self.recoloured <= _MOST_RECOLOURED
        few = max(_MOST_IN_PHOTOS[0], _MOST_IN_PHOTOS[1] * int(self.has_detail.sum()))
        return self.n_unexplained <= few and self.agreeing_share >= _LEAST_AGREEING

    @property
    def is_surely_same(self) -> bool:
        """Whether two photos show the same in so much detail that it counts for more than what lies over a part of one."""
        has_enough = int(self.has_detail.sum()) >= _ENOUGH_DETAIL and self.agreeing_share >= _ENOUGH_AGREEING
        return has_enough and not self.is_drawn and self.is_same and self.recoloured <= _MOST_RECOLOURED_IN_PHOTOS


def compare_content(shared: Overlap, *, checks_colours: bool = False) -> Content:
    """Compare two registered pictures cell by cell.

    `shared`: at `dedup.numerics.judge.picture.FINE_SIDE`.
    `checks_colours`: of photos too; those of drawn pictures are always compared.
    """
    shared = replace(shared, mask=_shrunk(shared.mask))
    if _is_equal(shared):
        inside = shared.mask[_CELLS] > 0
        return Content(inside, np.zeros_like(inside), 0, False, 0.0)
    matched = match(shared)
    is_drawn = matched.is_drawn
    correlation, deviation, is_cell = _correlations(matched, _LINE if is_drawn else _WINDOW)
    has_detail = is_cell & (deviation > _limit(_DETAIL, matched))
    differs = has_detail & (correlation < _SAME)
    if is_drawn:
        return Content(has_detail, differs, int(differs.sum()), True, recoloured_share(shared))
    if int(differs.sum()) > _MOST_IN_PHOTOS[0]:
        differs = _coherent(differs & ~_watermarked(shared))
    recoloured = recoloured_share(_without(shared, differs)) if checks_colours else 0.0
    n_differing = int(differs.sum())
    n_unexplained = _unexplained(shared, matched, differs) if n_differing > _MOST_IN_PHOTOS[0] else n_differing
    return Content(has_detail, differs, n_unexplained, False, recoloured)


def _shrunk(mask: Array) -> Array:
    """Without its outermost pixels: a bar or frame beside the picture begins there, and registration is no better than that."""
    shrunk: Array = cv2.erode(mask, np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return shrunk


def _is_equal(shared: Overlap) -> bool:
    """Whether no spot differs by more than compression does: most copies, and the others take ten times as long."""
    difference = np.abs(cv2.blur(shared.left - shared.right, (3, 3)))
    return float(difference[shared.mask > 0].max(initial=0.0)) < _EQUAL


def _limit(parts: tuple[float, float, float], matched: Matched) -> float:
    least, of_contrast, of_noise = parts
    return max(least, of_contrast * matched.contrast, of_noise * min(matched.noise, _MOST_NOISE * matched.contrast))


def _correlations(matched: Matched, window: int) -> tuple[Array, Array, Mask]:
    """Correlation of the detail about each cell, the best within a shift of one pixel, the larger deviation, and which cells lie inside."""
    mask = matched.mask
    left, right = matched.details
    share = box_mean(mask, window)[_CELLS] + np.float32(1e-6)
    powers = [np.maximum(box_mean(side * side, window)[_CELLS] / share, 0.0) for side in (left, right)]
    spread = np.sqrt(powers[0] * powers[1] + 4.0)
    best = np.full(share.shape, -1.0, dtype=np.float32)
    for shifted in shifts(right):
        best = np.maximum(best, box_mean(left * shifted, window)[_CELLS] / share / spread)
    core = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)[_CELLS] > 0
    return best, np.sqrt(np.maximum(*powers)), core & (share > _LEAST_INSIDE)


def _unexplained(shared: Overlap, matched: Matched, differs: Mask) -> int:
    """Cells that differ, and that nothing laid over one of the pictures explains."""
    changed = (np.abs(matched.left - matched.right) > _limit(_CHANGED, matched)) & matched.inside
    n, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(differs.astype(np.uint8), np.ones((3, 3), np.uint8)), connectivity=8)
    n_cells = np.bincount(labels[differs], minlength=n)
    parts = _in_pixels(labels, matched.mask.shape)
    left = 0
    for part in np.flatnonzero(n_cells).tolist():
        column, row, width, height, _ = (boxes[part] * _STEP).tolist()
        box = slice(row, row + height), slice(column, column + width)
        region = (parts[box] == part) & matched.inside[box]
        if ink_share(shared.left[box], shared.right[box], region, region & changed[box]) >= _INK:
            continue
        if n_cells[part] >= _LEAST_FOR_BOX and box_share(shared.left, shared.right, _closed(parts == part)) >= _BOX:
            continue
        left += int(n_cells[part])
    return left


def _coherent(differs: Mask) -> Mask:
    """Without cells that differ alone or with a few neighbours: that is noise, which compression leaves in fine grain."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(differs.astype(np.uint8), connectivity=8)
    return np.asarray(differs & (sizes[labels, cv2.CC_STAT_AREA] >= _LEAST_PART))


def _watermarked(shared: Overlap) -> Mask:
    """Cells that a watermark over the whole of one picture covers."""
    beside = unmarked(shared.left[:, :, 0], shared.right[:, :, 0], shared.mask)
    if beside is None:
        return np.zeros(shared.mask[_CELLS].shape, dtype=bool)
    return np.asarray(box_mean(shared.mask - beside, _WINDOW)[_CELLS] > _MOST_MARKED)


def _without(shared: Overlap, differs: Mask) -> Overlap:
    """What two pictures share, without the parts that show something else."""
    around = cv2.dilate(differs.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.int32)
    return replace(shared, mask=np.where(_in_pixels(around, shared.mask.shape) > 0, np.float32(0.0), shared.mask))


def _in_pixels(cells: npt.NDArray[np.int32], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    height, width = shape
    pixels = cells.repeat(_STEP, axis=0).repeat(_STEP, axis=1)[:height, :width]
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1])), mode="edge")


def _closed(region: Mask) -> Mask:
    kernel = np.ones((9 * _STEP, 9 * _STEP), np.uint8)
    return np.asarray(cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0)
