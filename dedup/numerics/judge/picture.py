"""Pictures as arrays at the sizes they are compared at, and the few filters that comparisons use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Pixels
from dedup.numerics.image.descriptor import BT601, check_rgb, ycbcr_grid
from dedup.numerics.image.frame import picture_box
from dedup.numerics.image.rectangles import rectangles, refined

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
SIDE = 128  # longer side at which pictures are registered and compared, in pixels
FINE_SIDE = 256  # longer side at which what they show is compared
LEAST_SIDE = FINE_SIDE * 3 // 4  # shorter side that a decoder should leave: of a picture of 4:3, the longer then has `FINE_SIDE`
SMALL_PICTURE_SIDE = 64  # instead, for pictures with fewer pixels
_SMALL = 48  # longer side at which hypotheses are compared
_LEAST_SIDE = 12  # of the shorter side: extreme aspect ratios are stretched to it
_NEARLY_SQUARE = 0.1  # of the shorter side by which the longer is longer
_BAND = (0.7, 3.0)  # deviations of the blurs whose difference is correlated on the small copy, in its pixels


class Picture:
    """Pixels of an image with what comparisons derive from them.

    `pixels`: shape (height, width, 3); RGB; kept with a longer side of at most `FINE_SIDE`.
    """

    def __init__(self, pixels: Pixels) -> None:
        check_rgb(pixels)
        largest = _resized(pixels, FINE_SIDE) if max(pixels.shape[:2]) > FINE_SIDE else pixels
        self.pixels, self.native_side = largest, max(pixels.shape[:2])
        self._levels: dict[int, Level] = {}

    def level(self, side: int) -> Level:
        """The picture with its longer side at `side` pixels."""
        if side not in self._levels:
            self._levels[side] = Level(_resized(self.pixels, side))
        return self._levels[side]


class Level:
    """A picture at one size: luma and chroma, band-passed and equalised copies, the boxes of the whole and inside a frame."""

    def __init__(self, pixels: Pixels) -> None:
        self.ycc: Array = cv2.transform(pixels.astype(np.float32), BT601)
        self.luma: Array = np.ascontiguousarray(self.ycc[:, :, 0])
        self.height, self.width = self.luma.shape
        self._pixels = pixels

    @cached_property
    def boxes(self) -> list[tuple[float, ...]]:
        """The whole picture, and what lies inside its frame if it has one: left, top, right, bottom in pixels."""
        inner = picture_box(self._pixels)
        whole = (0.0, 0.0, float(self.width), float(self.height))
        return [whole] if inner is None else [whole, tuple(float(edge) for edge in inner)]

    @cached_property
    def inner_boxes(self) -> list[tuple[float, ...]]:
        """Pictures inside it, and the square in its middle if it is none: what may lie inside the other picture, or the other in it."""
        grid = ycbcr_grid(self._pixels)
        found = [tuple(float(edge) for edge in refined(self._pixels, share)) for share in rectangles(grid)]
        side = min(self.width, self.height)
        x, y = (self.width - side) / 2, (self.height - side) / 2
        square = [] if abs(self.width - self.height) < _NEARLY_SQUARE * side else [(x, y, x + side, y + side)]
        return [*found, *square]

    @cached_property
    def small(self) -> tuple[Array, Array, npt.NDArray[np.float64]]:
        """Luma with a longer side of 48 pixels, the same band-passed, and the scale factors of (x, y, 1)."""
        factor = _SMALL / max(self.height, self.width)
        size = (max(_LEAST_SIDE, round(self.width * factor)), max(_LEAST_SIDE, round(self.height * factor)))
        luma: Array = cv2.resize(self.luma, size, interpolation=cv2.INTER_AREA)
        return luma, band_pass(luma, *_BAND), np.array([size[0] / self.width, size[1] / self.height, 1.0])

    @cached_property
    def equalised(self) -> Pixels:
        """Detail at equal local contrast, so that gamma, fading and grey copies track alike."""
        detail = band_pass(self.luma, 0.8, 5.5)
        spread = np.sqrt(np.maximum(cv2.boxFilter(detail * detail, -1, (15, 15)), 0.0))  # rounded below 0 on flat ground
        equalised: Pixels = np.clip(128.0 + 48.0 * detail / (spread + 3.0), 0.0, 255.0).astype(np.uint8)
        return equalised


def band_pass(image: Array, fine: float, coarse: float) -> Array:
    """Difference of two Gaussian blurs, given by their deviations in pixels."""
    difference: Array = cv2.GaussianBlur(image, (0, 0), fine) - cv2.GaussianBlur(image, (0, 0), coarse)
    return difference


def warp(image: npt.NDArray[Any], matrix: Matrix, size: tuple[int, int], fill: float = 0.0) -> npt.NDArray[Any]:
    """Sample `image` where `matrix` maps each pixel of a picture of `size` (width, height)."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill))


def local_correlation(a: Array, b: Array, mask: Array, window: int, noise: float) -> tuple[Array, Array, Array, Array]:
    """Correlation of two pictures in a window about each pixel.

    `a`, `b`, `mask`: shape (height, width); only pixels with mask 1 count.
    `window`: pixels to a side.
    `noise`: added to the product of the variances, so that windows with less detail correlate with nothing.
    Returns `correlation`, `variance_a`, `variance_b`, `share`: shape (height, width); share is the part of the window inside the mask.
    """
    share = box_mean(mask, window) + 1e-6
    a, b = a * mask, b * mask
    mean_a, mean_b = box_mean(a, window) / share, box_mean(b, window) / share
    variance_a = np.maximum(box_mean(a * a, window) / share - mean_a * mean_a, 0.0)
    variance_b = np.maximum(box_mean(b * b, window) / share - mean_b * mean_b, 0.0)
    correlation = (box_mean(a * b, window) / share - mean_a * mean_b) / np.sqrt(variance_a * variance_b + noise)
    return correlation, variance_a, variance_b, share


def box_mean(image: Array, window: int) -> Array:
    """Mean of a window about each pixel; outside counts as 0."""
    mean: Array = cv2.boxFilter(image, -1, (window, window), borderType=cv2.BORDER_CONSTANT)
    return mean


def largest_channel(image: Array) -> Array:
    """The largest of the three channels at each pixel; numpy's own reduction along so short an axis takes ten times as long."""
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def masked(image: Array, mask: Array) -> Array:
    """The three channels where the mask is 1, and 0 elsewhere."""
    product: Array = cv2.multiply(image, cv2.merge([mask, mask, mask]))
    return product


def shifts(image: Array) -> Iterator[Array]:
    """The picture shifted by up to one pixel each way, itself among them; 0 where nothing comes in."""
    height, width = image.shape
    padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0.0)
    for down in range(3):
        for across in range(3):
            yield padded[down : down + height, across : across + width]


def _resized(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(_LEAST_SIDE, round(width * factor)), max(_LEAST_SIDE, round(height * factor)))
    if size == (width, height):
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1.0 else cv2.INTER_LINEAR), dtype=np.uint8)


def use_one_thread() -> None:
    """Make OpenCV use the calling thread only, like everything else in a worker process."""
    cv2.setNumThreads(1)
