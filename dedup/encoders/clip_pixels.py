"""Images brought to what a vision model takes: resized and cropped as open_clip does, in uint8; the model's device normalises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
_SPARE = 2  # an image may be reduced while it is decoded as long as it keeps this many times the model's sides
_GAP = 3.0  # and Pillow may reduce it once more by whole pixels, down to this many times
_LONGEST = 100  # aspect ratio from which an image is cropped before it is resized, or it would fill the memory
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images."""

    # height, width: in pixels
    height: int
    width: int
    # mean, std: of each channel, of values from 0 to 1
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str  # bicubic or bilinear
    # shortest (the shorter side fits, the middle is kept), squash (both sides fit), longest (the longer side fits, the rest is
    # filled)
    resize_mode: str
    fill: int  # grey level of what is filled
    is_exact: bool  # equal to open_clip's own transform to the last bit, up to an aspect ratio of 100; the image is decoded in full

    @property
    def min_side(self) -> int | None:
        """Sides down to which a decoder may reduce an image."""
        return None if self.is_exact else _SPARE * max(self.height, self.width)

    @property
    def decoding(self) -> str:
        """How far images are reduced while they are decoded, in words."""
        return "full size" if self.is_exact else f"scaled to >= {self.min_side} px"

    def __str__(self) -> str:
        kind = "exact" if self.is_exact else "one resampling"
        values = ", ".join(f"{value:g}" for value in (*self.mean, *self.std))
        filled = f" filled with {self.fill}" if self.resize_mode == "longest" else ""
        return f"{self.resize_mode} {self.width}x{self.height}{filled} {self.interpolation}, {kind}, mean and std {values}"

    def __call__(self, pixels: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
        """Resize and crop one image.

        `pixels`: shape (image height, image width, 3); RGB.
        `box`: left, top, right, bottom of the picture inside the pixels.
        Returns shape (height, width, 3).
        """
        image = Image.fromarray(pixels)
        if self.resize_mode == "longest":
            return self._fill(image, box)
        if self.is_exact and max(image.size) <= _LONGEST * min(image.size):
            return self._exact(image)
        # the crop is made in the image's own coordinates, so that only what is kept is resampled, once
        return np.asarray(
            self._resize(image, (self.width, self.height), box if self.resize_mode == "squash" else self._crop(box), gap=_GAP)
        )

    def _resized_size(self, width: float, height: float) -> tuple[int, int]:
        """Width and height of the whole picture once its shorter side fits, rounded as torchvision and open_clip do."""
        if self.width == self.height:
            # a reduced image's sides are fractions: what is a whole number must not become the one below
            longer = max(self.width, int(self.width * max(width, height) / min(width, height) + 1e-6))
            return (self.width, longer) if width <= height else (longer, self.width)
        ratio = min(height / self.height, width / self.width)  # open_clip's ResizeKeepRatio
        return round(width / ratio), round(height / ratio)

    def _crop(self, box: Box) -> Box:
        """The part of a picture that is kept: whole pixels of the resized picture, in the image's own coordinates."""
        left, top, right, bottom = box
        width, height = self._resized_size(right - left, bottom - top)
        x, y = (right - left) / width, (bottom - top) / height
        first_x, first_y = round((width - self.width) / 2.0), round((height - self.height) / 2.0)
        start_x, start_y = left + max(0, first_x) * x, top + max(0, first_y) * y
        return start_x, start_y, min(right, start_x + self.width * x), min(bottom, start_y + self.height * y)

    def _exact(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """What torchvision's Resize and CenterCrop make of it: whole pixels, rounded as there."""
        if self.resize_mode == "squash":
            return np.asarray(self._resize(image, (self.width, self.height)))
        size = self._resized_size(*image.size)
        if size != image.size:
            image = self._resize(image, size)
        left, top = round((size[0] - self.width) / 2.0), round((size[1] - self.height) / 2.0)
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)))

    def _fill(self, image: Image.Image, box: Box) -> npt.NDArray[np.uint8]:
        """The whole picture inside the model's frame, the rest filled, as open_clip's CenterCropOrPad."""
        left, top, right, bottom = box
        ratio = max((bottom - top) / self.height, (right - left) / self.width)
        size = (max(1, round((right - left) / ratio)), max(1, round((bottom - top) / ratio)))
        small = self._resize(image, size, None if self.is_exact else box, gap=None if self.is_exact else _GAP)
        filled = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
        filled.paste(small, (math.floor((self.width - size[0]) / 2), math.floor((self.height - size[1]) / 2)))
        return np.asarray(filled)

    def _resize(self, image: Image.Image, size: tuple[int, int], box: Box | None = None, *, gap: float | None = None) -> Image.Image:
        return image.resize(size, _FILTERS[self.interpolation], box, gap)
