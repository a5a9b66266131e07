"""Pixels of images that a stage asks for again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.storage.images import decode_image
from dedup.storage.shards import read_image_bytes


@dataclass(frozen=True)
class Place:
    """Where an image lies, as `metadata` has it."""

    sample_id: int
    shard: str
    key: str
    byte_offset: int | None
    n_bytes: int


class PictureReader:
    """Reads images again by byte range."""

    def __init__(self, run_dir: str, *, min_side: int, max_pixels: int) -> None:
        self.min_side, self.max_pixels = min_side, max_pixels

    def prefetch(self, places: Sequence[Place]) -> None:
        """Take note of what will be asked for."""

    def read(self, place: Place) -> npt.NDArray[np.uint8]:
        """Pixels of an image, uint8 (height, width, 3)."""
        data = read_image_bytes(place.shard, place.key, place.byte_offset, place.n_bytes)
        image = decode_image(data, max_pixels=self.max_pixels, min_side=self.min_side)
        left, top, right, bottom = image.box
        return image.pixels[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]
