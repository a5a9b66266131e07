"""One picture laid on another, as the judge registers them."""

from __future__ import annotations

import cv2
import numpy as np

from dedup.numerics.arraytypes import Pixels
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.picture import FINE_SIDE, Picture


def laid_on(pixels: Pixels, other: Pixels) -> Pixels:
    """A picture moved and scaled so that it lies on another of its size as the two agree best; as it is where they do not.

    `pixels`, `other`: shape (height, width, 3).
    Places that it does not cover are filled with its rim.
    """
    verdict = compare(Picture(pixels), Picture(other))
    if verdict.relation == "different":
        return pixels
    matrix = verdict.matrix if verdict.fine_matrix is None else verdict.fine_matrix
    height, width = pixels.shape[:2]
    # the judge's shares of the sides are of the indices of pixels at its own size, whose centres lie half such a pixel inside
    fine = FINE_SIDE / max(height, width, FINE_SIDE)
    scale, unscale = np.diag([width, height, 1.0]), np.diag([1.0 / width, 1.0 / height, 1.0])
    shift, unshift = np.eye(3), np.eye(3)
    shift[:2, 2] = 0.5 / fine - 0.5
    unshift[:2, 2] = -shift[:2, 2]
    in_pixels = shift @ scale @ np.vstack([matrix, [0.0, 0.0, 1.0]]) @ unscale @ unshift
    laid = cv2.warpAffine(pixels, in_pixels[:2], (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(laid, dtype=np.uint8)
