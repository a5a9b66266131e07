"""Find a watermark: words or lines of one tone over the whole of one of two registered pictures.

Between copies, a watermark changes few pixels much and the others not at all, all over the picture and always towards
the tone of its ink. Look-alikes differ in most pixels, in either direction, and a print on one of two shirts differs in
the middle only.
"""

from __future__ import annotations

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.judge.picture import Array

_TUKEY = 4.7  # deviations beyond which a pixel says nothing about the fit
_FITTED = 8_000  # pixels to which the tones are fitted
_LEAST_SPREAD = 1.5  # grey levels, as JPEG causes
_MOST_SPREAD = 6.0  # grey levels of the pixels that are not marked
_GRAIN = 1.5  # deviation in pixels of the blur that averages out noise
_MARKED = 4.0  # deviations from which a pixel is marked
_LEAST_MARKED = 8.0  # grey levels
_SHARES = (0.02, 0.4)  # of the pixels that a watermark covers
_CELLS = 3  # to a side
_LEAST_IN_CELL = 0.25  # of the mean share
_MOST_CONTRARY = 0.1  # of the marked pixels that may have changed away from the tone
_MOST_CONTRARY_WITH_EDGES = 0.35  # instead, edges included, along which registration is not exact
_LEAST_CORE = 200  # pixels
_LEAST_BENEATH = 10.0  # grey levels of deviation beneath a mark that can be seen through it
_LEAST_THROUGH = 0.3  # of that deviation that the mark must leave
_ALIKE = 0.75  # correlation of what lies beneath with what is seen of it
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def unmarked(a: Array, b: Array, mask: Array, *, is_exact: bool = False) -> Array | None:
    """The pixels that a watermark on one of the pictures leaves unmarked.

    `a`, `b`: shape (height, width); luma in grey levels, registered.
    `mask`: shape (height, width); pixels with mask 1 are in both pictures.
    `is_exact`: whether edges, too, must not have changed away from the tone of the mark: drawings have little else.
    Returns the mask without the marked pixels and their neighbours; None where the difference is not a watermark.
    """
    valid = mask > 0
    fitted, spread = _fitted(a, b, valid)
    if spread > _MOST_SPREAD and not is_exact:  # a mark is broader than grain
        a, b = (np.asarray(cv2.GaussianBlur(side, (0, 0), _GRAIN), dtype=np.float32) for side in (a, b))
        fitted, spread = _fitted(a, b, valid)
    if spread > _MOST_SPREAD:
        return None
    threshold = max(_MARKED * spread, _LEAST_MARKED)
    up, down = valid & (b - fitted > threshold), valid & (b - fitted < -threshold)
    # along edges pictures differ either way by a shift of less than a pixel
    least, largest = cv2.erode(fitted, _NEIGHBOURS), cv2.dilate(fitted, _NEIGHBOURS)
    if up.sum() >= down.sum():
        marked, contrary, is_edge = up, down, b >= least - threshold
    else:
        marked, contrary, is_edge = down, up, b <= largest + threshold
    share, n_marked = marked.sum() / valid.sum(), int(marked.sum())
    if not _SHARES[0] <= share <= _SHARES[1] or contrary.sum() > (_MOST_CONTRARY if is_exact else _MOST_CONTRARY_WITH_EDGES) * n_marked:
        return None
    if (contrary & ~is_edge).sum() > _MOST_CONTRARY * n_marked:
        return None
    if _cell_shares(marked, valid).min() < _LEAST_IN_CELL * share:
        return None
    near = cv2.dilate((marked | contrary).astype(np.uint8), _NEIGHBOURS)
    return np.where(near > 0, np.float32(0.0), mask)


def shows_through(a: Array, b: Array, marked: Mask) -> bool:
    """Whether what lies beneath the marked pixels is still to be seen in both pictures: ink that writing is printed in hides it.

    `a`, `b`: shape (height, width); luma in grey levels, registered.
    `marked`: shape (height, width).
    """
    core = cv2.erode(marked.astype(np.uint8), _NEIGHBOURS) > 0
    if core.sum() < _LEAST_CORE:
        return False
    x, y = a[core].astype(np.float64), b[core].astype(np.float64)
    spreads = sorted((float(x.std()), float(y.std())))
    if spreads[0] < _LEAST_BENEATH or spreads[0] < _LEAST_THROUGH * spreads[1]:
        return False
    return float(((x - x.mean()) * (y - y.mean())).mean()) >= _ALIKE * spreads[0] * spreads[1]


def _fitted(a: Array, b: Array, valid: Mask) -> tuple[Array, float]:
    """The affine function of `a` that fits most pixels of `b` (Tukey's biweight), and the deviation of what is left."""
    every = max(1, int(valid.sum()) // _FITTED)
    x, y = a[valid][::every].astype(np.float64), b[valid][::every].astype(np.float64)
    weight = np.ones(len(x))
    gain, offset, spread = 1.0, 0.0, np.inf
    for _ in range(6):
        total = weight.sum()
        mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
        gain = float((weight @ ((x - mean_x) * (y - mean_y))) / max(float(weight @ (x - mean_x) ** 2), 1e-6))
        offset = float(mean_y - gain * mean_x)
        residual = y - gain * x - offset
        spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(np.abs(residual))))
        weight = np.square(np.clip(1.0 - (residual / (_TUKEY * spread)) ** 2, 0.0, None)) + 1e-9
    return np.asarray(np.float32(gain) * a + np.float32(offset), dtype=np.float32), spread


def _cell_shares(marked: Mask, valid: Mask) -> Floats:
    shares = []
    for marked_rows, valid_rows in zip(np.array_split(marked, _CELLS), np.array_split(valid, _CELLS), strict=True):
        for cell, inside in zip(np.array_split(marked_rows, _CELLS, axis=1), np.array_split(valid_rows, _CELLS, axis=1), strict=True):
            shares.append(cell.sum() / max(1, inside.sum()))
    return np.array(shares)
