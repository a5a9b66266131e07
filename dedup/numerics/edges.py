"""Edges that generated images share: the black-box attack of Webster (2023) looks for them after a single denoising step.

One step gives a blurred picture for most prompts, and a sharp one for a verbatim copy of a training image, the same for every seed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Mask, Pixels

EDGE_SIDE: Final = 256  # pixels to a side at which the attack's threshold was chosen
_LEAST_MAGNITUDE: Final = 1.5


def edge_masks(images: Pixels) -> Mask:
    """Where images have edges.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width, channels)
        `EDGE_SIDE` pixels to a side, for scores that compare with the paper's.

    Returns
    -------
    bool array, shape (n, height, width)
        True where the sum over the channels of sqrt(Gy² + Gx²) exceeds 1.5. Gy and Gx are the responses of Sobel's filter: the
        difference -1, 0, 1 along one side, smoothed by 1, 2, 1 along the other side and along the channels. Pixels are in [0, 1], and
        every border is reflected.

    Raises
    ------
    ShapeError
        If the images are not uint8 of that shape.

    Notes
    -----
    After Webster (2023), "A Reproducible Extraction of Training Images from Diffusion Models", arXiv 2305.08694. The channels are smoothed
    because the program published with it does so, and the threshold belongs to that: without, gradients are about a quarter as large.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ShapeError(
            f"images: expected uint8 of shape (n, height, width, channels), found {images.dtype} of shape {images.shape}; "
            "stack images of one size"
        )
    masks = np.zeros(images.shape[:3], dtype=bool)
    for mask, image in zip(masks, images, strict=True):  # one at a time: the gradients take 8 bytes a value
        pixels: Floats = image / 255.0
        magnitudes: Floats = np.hypot(ndimage.sobel(pixels, axis=0), ndimage.sobel(pixels, axis=1))
        mask[...] = magnitudes.sum(axis=2) > _LEAST_MAGNITUDE
    return masks


def edge_consistency(masks: Mask) -> float:
    """The edge consistency score: the share of pixels at which more than half of the images have an edge.

    Parameters
    ----------
    masks : bool array, shape (n, height, width)
        Of `edge_masks`; n is at least 1.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ShapeError
        If there is no image or no pixel.
    """
    if masks.ndim != 3 or not masks.size:
        raise ShapeError(
            f"masks: expected shape (n, height, width) with at least one image, found {masks.shape}; leave out targets without"
        )
    return float((2 * masks.sum(axis=0, dtype=np.int64) > len(masks)).mean())
