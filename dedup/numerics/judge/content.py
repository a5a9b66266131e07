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
from dedup.numerics.judge.bars import bar_mask
from dedup.numerics.judge.match import DRAWN, Matched, contrast_of, detail, drawn_share, match, noise_of
from dedup.numerics.judge.overlays import box_share, ink_shares
from dedup.numerics.judge.picture import Array, box_mean, shifts
from dedup.numerics.judge.recolour import recoloured_share
from dedup.numerics.judge.tiles import Overlap
from dedup.numerics.judge.watermark import shows_through, unmarked

_WINDOW = 13  # pixels to a side within which detail is correlated
_LINE = 9  # instead, in drawn pictures: a word and the line below it are two things
CELL = 4  # pixels from one cell to the next
_LEAST_INSIDE = 0.5  # of a cell's window
_DETAIL = (3.0, 0.02, 1.5)  # deviation from which there is something to compare: grey levels, shares of the contrast and of the noise
_MOST_NOISE = 0.1  # of the contrast: what differs by more is no noise
_CELLS = (slice(CELL // 2, None, CELL), slice(CELL // 2, None, CELL))
_EQUAL = 8.0  # grey levels by which nine pixels together may differ and still be equal
_SAME = 0.6  # correlation below which a cell shows something else
_CHANGED = (8.0, 0.1, 3.0)  # difference from which a pixel has changed: grey levels, shares of the contrast and of the noise
_MOST_IN_DRAWN = 10  # cells that may differ in drawn pictures
_MOST_RECOLOURED = 0.005  # share of their area that may have another colour
_MOST_RECOLOURED_IN_PHOTOS = 0.03
_MOST_IN_PHOTOS = (40, 0.03)  # cells that may differ in photos without an explanation, and share of those with detail
_MOST_PLAINLY = 20  # cells that may differ in photos before tone and sharpness are fitted
_MOST_PLAIN_NOISE = 0.05  # of the contrast
_SURELY_NO_DRAWING = 0.9  # of `Matched.drawn`, well below the limit: it is measured before tones are fitted
_LEAST_AGREEING = 0.65  # share of the cells with detail that must show the same in any case
_ENOUGH_DETAIL, _ENOUGH_AGREEING = 500, 0.75  # cells, and share of them that agree, from which photos are one in spite of bad tiles
_INK = 0.65  # share of the changed pixels that an overlay must explain
_BOX = 0.4  # share of a box's edges that only one picture may have
_MARGIN = 3  # pixels of the picture's own edge that are not compared
_LEAST_PART = 4  # cells that differ side by side: fewer are noise
_LEAST_FOR_BOX = 20  # cells
_LEAST_BESIDE = 0.15  # of the cells with detail that a watermark must leave
_MOST_MARKED = 0.1  # of a cell's window that a watermark may cover and the cell still count


@dataclass(frozen=True)
class Content:
    """What two registered pictures show, cell by cell; a cell is `CELL` pixels of the larger size to a side."""

    has_detail: Mask  # shape (rows, columns); cells in which there is something to compare
    differs: Mask  # shape (rows, columns); of these, the ones that show something else, and not a watermark
    n_unexplained: int  # of those, the ones that nothing laid over one of the pictures explains
    drawn: float  # how flat they are and of how few colours, 0 to 2; see `dedup.numerics.judge.match`
    recoloured: float  # largest share of the area with another colour; 0 where colours were not compared
    difference: float  # median difference of the detail that agrees, as a share of the contrast

    @property
    def is_drawn(self) -> bool:
        """Whether both are drawn, written or printed."""
        return self.drawn > DRAWN

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


def compare_content(shared: Overlap, *, checks_colours: bool = False, is_likely: bool = False) -> Content:
    """Compare two registered pictures cell by cell.

    `shared`: at `dedup.numerics.judge.picture.FINE_SIDE`.
    `checks_colours`: of photos too; those of drawn pictures are always compared.
    `is_likely`: whether they are probably copies: then photos are compared as they are first, which takes a third of the time.
    """
    shared = replace(shared, mask=_shrunk(shared.mask))
    if _is_equal(shared):
        inside = shared.mask[_CELLS] > 0
        contrast = contrast_of(shared.left[:, :, 0], shared.right[:, :, 0], shared.mask > 0)
        return Content(inside, np.zeros_like(inside), 0, drawn_share(shared, contrast), 0.0, 0.0)
    if is_likely and (plain := _plainly_same(shared)) is not None:
        return plain
    matched = match(shared)
    is_drawn = matched.is_drawn
    correlation, deviation, is_cell = _correlations(matched.details, matched.mask, _LINE if is_drawn else _WINDOW)
    has_detail = is_cell & (deviation > _limit(_DETAIL, matched))
    differs = has_detail & (correlation < _SAME)
    if is_drawn:
        return _of_drawn(shared, matched, has_detail, differs)
    beside = np.ones_like(differs)
    if int(differs.sum()) > _MOST_IN_PHOTOS[0]:
        bars = bar_mask(shared.left, shared.right, shared.mask > 0)
        beside = _beside(has_detail, _watermark(shared), _WINDOW) & ~_touched(bars, _WINDOW, 0.0)
    seen = differs & beside
    recoloured = recoloured_share(_without(shared, seen)) if checks_colours else 0.0
    n_unexplained = int(seen.sum())
    if n_unexplained > _MOST_IN_PHOTOS[0]:
        seen = _coherent(seen)
        n_unexplained = _unexplained(shared, matched, differs, seen)
    return Content(has_detail & beside, seen, n_unexplained, matched.drawn, recoloured, _difference(matched, has_detail & ~differs))


def _plainly_same(shared: Overlap) -> Content | None:
    """The content of photos whose detail agrees before tone and sharpness are fitted, which can but raise the agreement; None otherwise."""
    mask, inside = shared.mask, shared.mask > 0
    left, right = (np.ascontiguousarray(side[:, :, 0]) for side in (shared.left, shared.right))
    contrast = contrast_of(left, right, inside)
    details = detail(left, mask), detail(right, mask)
    # what is no noise counts as such here, so less of it is allowed for
    noise = min(noise_of(details, mask), _MOST_PLAIN_NOISE * contrast)
    correlation, deviation, is_cell = _correlations(details, mask, _WINDOW)
    has_detail = is_cell & (deviation > max(_DETAIL[0], _DETAIL[1] * contrast, _DETAIL[2] * noise))
    differs = has_detail & (correlation < _SAME)
    if int(differs.sum()) > _MOST_PLAINLY or (drawn := drawn_share(shared, contrast)) > _SURELY_NO_DRAWING:
        return None
    content = Content(has_detail, differs, int(differs.sum()), drawn, 0.0, 0.0)
    return content if content.is_same else None


def _of_drawn(shared: Overlap, matched: Matched, has_detail: Mask, differs: Mask) -> Content:
    """The content of drawn pictures, in which nothing may differ but what a watermark covers that one can see through."""
    if int(differs.sum()) > _MOST_IN_DRAWN:
        marked = _watermark(shared, is_exact=True)
        if marked.any() and shows_through(shared.left[:, :, 0], shared.right[:, :, 0], marked):
            beside = _beside(has_detail, marked, _LINE)
            has_detail, differs = has_detail & beside, differs & beside
            shared = replace(shared, mask=np.where(marked, np.float32(0.0), shared.mask))
    return Content(
        has_detail, differs, int(differs.sum()), matched.drawn, recoloured_share(shared), _difference(matched, has_detail & ~differs)
    )


def _difference(matched: Matched, agrees: Mask) -> float:
    """Median difference of some cells, as a share of the contrast; 0 where there are none."""
    cells = matched.difference[_CELLS][agrees]
    return float(np.median(cells)) / matched.contrast if len(cells) else 0.0


def _shrunk(mask: Array) -> Array:
    """Without its outermost pixels: a bar or frame beside the picture begins there, and registration is no better than that."""
    shrunk: Array = cv2.erode(mask, np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return shrunk


def _is_equal(shared: Overlap) -> bool:
    """Whether no spot differs by more than compression does: most copies, and the others take ten times as long."""
    difference = cv2.blur(shared.left - shared.right, (3, 3))
    return float(cv2.norm(difference, cv2.NORM_INF, (shared.mask > 0).astype(np.uint8))) < _EQUAL


def _limit(parts: tuple[float, float, float], matched: Matched) -> float:
    least, of_contrast, of_noise = parts
    return max(least, of_contrast * matched.contrast, of_noise * min(matched.noise, _MOST_NOISE * matched.contrast))


def _correlations(details: tuple[Array, Array], mask: Array, window: int) -> tuple[Array, Array, Mask]:
    """Correlation of the detail about each cell, the best within a shift of one pixel, the larger deviation, and which cells lie inside."""
    left, right = details
    share = box_mean(mask, window)[_CELLS] + np.float32(1e-6)
    powers = [np.maximum(box_mean(side * side, window)[_CELLS] / share, 0.0) for side in (left, right)]
    spread = np.sqrt(powers[0] * powers[1] + 4.0)
    best = np.full(share.shape, -1.0, dtype=np.float32)
    for shifted in shifts(right):
        best = np.maximum(best, box_mean(left * shifted, window)[_CELLS] / share / spread)
    core = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)[_CELLS] > 0
    return best, np.sqrt(np.maximum(*powers)), core & (share > _LEAST_INSIDE)


def _unexplained(shared: Overlap, matched: Matched, differs: Mask, seen: Mask) -> int:
    """Cells that differ and that nothing laid over one of the pictures explains; of them those to be `seen` beside watermarks and bars."""
    changed = (np.abs(matched.left - matched.right) > _limit(_CHANGED, matched)) & matched.inside
    n, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(differs.astype(np.uint8), np.ones((3, 3), np.uint8)), connectivity=8)
    n_cells, n_seen = (np.bincount(labels[cells], minlength=n) for cells in (differs, seen))
    parts = _in_pixels(labels, matched.mask.shape)
    left, laid_on = 0, [0, 0]
    for part in np.flatnonzero(n_seen).tolist():
        column, row, width, height, _ = (boxes[part] * CELL).tolist()
        box = slice(row, row + height), slice(column, column + width)
        region = (parts[box] == part) & matched.inside[box]
        on_first, on_second = (
            share >= _INK for share in ink_shares(shared.left[box], shared.right[box], region, region & changed[box], matched.noise)
        )
        if on_first or on_second:
            laid_on[int(on_second)] += int(n_seen[part])
            continue
        if n_cells[part] >= _LEAST_FOR_BOX and box_share(shared.left, shared.right, _closed(parts == part)) >= _BOX:
            continue
        left += int(n_seen[part])
    # a thing that moved is missing where it was and covers something where it is
    return left + min(laid_on)


def _coherent(differs: Mask) -> Mask:
    """Without cells that differ alone or with a few neighbours: that is noise, which compression leaves in fine grain."""
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(differs.astype(np.uint8), connectivity=8)
    return np.asarray(differs & (sizes[labels, cv2.CC_STAT_AREA] >= _LEAST_PART))


def _watermark(shared: Overlap, *, is_exact: bool = False) -> Mask:
    """Pixels of a watermark over the whole of one picture."""
    beside = unmarked(shared.left[:, :, 0], shared.right[:, :, 0], shared.mask, is_exact=is_exact)
    return np.zeros(shared.mask.shape, dtype=bool) if beside is None else (beside < shared.mask)


def _beside(has_detail: Mask, marked: Mask, window: int) -> Mask:
    """Cells that a watermark leaves to be compared; all of them where it leaves so little that it is none."""
    beside = ~_touched(marked, window, _MOST_MARKED)
    return beside if (has_detail & beside).sum() >= _LEAST_BESIDE * has_detail.sum() else np.ones_like(beside)


def _touched(marked: Mask, window: int, least: float) -> Mask:
    """Cells of whose window more than the least share is marked."""
    return np.asarray(box_mean(marked.astype(np.float32), window)[_CELLS] > least)


def _without(shared: Overlap, differs: Mask) -> Overlap:
    """What two pictures share, without the parts that show something else."""
    around = cv2.dilate(differs.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.int32)
    return replace(shared, mask=np.where(_in_pixels(around, shared.mask.shape) > 0, np.float32(0.0), shared.mask))


def _in_pixels(cells: npt.NDArray[np.int32], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    height, width = shape
    pixels = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)[:height, :width]
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1])), mode="edge")


def _closed(region: Mask) -> Mask:
    kernel = np.ones((9 * CELL, 9 * CELL), np.uint8)
    return np.asarray(cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0)
