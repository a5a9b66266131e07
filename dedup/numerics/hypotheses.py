"""Where one picture may lie on another, and how well the small copies agree if it does."""

from __future__ import annotations

import cv2
import numpy as np

from dedup.numerics.affine import box_to_box, compose
from dedup.numerics.pictures import Level, Matrix, local_correlation, warp

_WINDOW = 9  # of local correlation on the small copy
_TEMPLATE_SCALES = tuple(0.95 * 0.92**k for k in range(9))
_BEST_ROTATIONS = 3
_ROTATIONS = (-46.0, -33.0, -22.0, -13.0, -6.0, 6.0, 13.0, 22.0, 33.0, 46.0)  # degrees; tracking finds what lies between


def rotations(a: Level, b: Level) -> list[Matrix]:
    """The whole on the whole, rotated about the middle: the most likely angles."""
    middle, on = (a.width / 2, a.height / 2), box_to_box(a.boxes[0], b.boxes[0])
    turned = [compose(on, cv2.getRotationMatrix2D(middle, degrees, 1.0)) for degrees in _ROTATIONS]
    return sorted(turned, key=lambda matrix: -_likeness(a, b, matrix))[:_BEST_ROTATIONS]


def _likeness(a: Level, b: Level, matrix: Matrix) -> float:
    """Correlation of the small copies as a whole: a fifth of the cost of `agreement`, and good enough to choose by."""
    (_, band_a, scale_a), (_, band_b, scale_b) = a.small, b.small
    there = warp(band_b, matrix * scale_b[:2, None] / scale_a, (band_a.shape[1], band_a.shape[0]))
    return float(np.vdot(band_a, there)) / (float(np.linalg.norm(there)) + 1e-6)


def agreement(a: Level, b: Level, matrix: Matrix) -> float:
    """Mean local correlation on the small copies, weighted by detail; less where they hardly overlap."""
    (_, band_a, scale_a), (_, band_b, scale_b) = a.small, b.small
    small = matrix * scale_b[:2, None] / scale_a
    size = (band_a.shape[1], band_a.shape[0])
    mask = (warp(np.ones_like(band_b), small, size) > 0.99).astype(np.float32)
    correlation, variance_a, variance_b, share = local_correlation(band_a, warp(band_b, small, size), mask, _WINDOW, 4.0)
    inside = (mask > 0) & (share > 0.4)
    if inside.sum() < 60:
        return 0.0
    weight = np.minimum(np.sqrt(np.sqrt(variance_a * variance_b))[inside] + 0.3, 8.0)
    mean = float((weight * np.maximum(correlation[inside], 0.0)).sum() / weight.sum())
    return mean * float(min(1.0, float(inside.mean()) / 0.25) ** 0.5)


def templates(a: Level, b: Level) -> list[Matrix]:
    """The two best places and scales of one picture within the other."""
    (small_a, _, scale_a), (small_b, _, scale_b) = a.small, b.small
    found: list[tuple[float, Matrix]] = []
    for is_reverse, (large, part) in enumerate(((small_a, small_b), (small_b, small_a))):
        for scale in _TEMPLATE_SCALES:
            width, height = round(part.shape[1] * scale), round(part.shape[0] * scale)
            if min(width, height) < 10 or width > large.shape[1] or height > large.shape[0]:
                continue
            template = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            _, value, _, place = cv2.minMaxLoc(cv2.matchTemplate(large, template, cv2.TM_CCOEFF_NORMED))
            to_large = np.array([[width / part.shape[1], 0.0, place[0]], [0.0, height / part.shape[0], place[1]]])
            found.append((value, to_large if is_reverse else cv2.invertAffineTransform(to_large)))
    best = sorted(found, key=lambda item: -item[0])[:2]
    return [matrix * scale_a / scale_b[:2, None] for _, matrix in best]
