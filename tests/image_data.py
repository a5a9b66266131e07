"""Images made for tests, encoded, and decoded with every promise checked."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from dedup.errors import SampleError
from dedup.schemas import REJECT_REASONS
from dedup.storage.images.decode import DecodedImage, decode_image

MAX = 10**7


def photo(height: int = 60, width: int = 90) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [127 + 120 * np.sin(x / 9 + y / 17), 2.5 * x, 255 * (y / height)]
    pixels: npt.NDArray[np.uint8] = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    return pixels


def encode(image: Image.Image | npt.NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, **options: Any) -> DecodedImage:
    decoded = decode_image(data, max_pixels=MAX, **options)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.ndim == 3
    assert decoded.pixels.shape[2] == 3
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable
    return decoded


def reason(data: bytes, max_pixels: int = MAX) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data, max_pixels=max_pixels)
    assert caught.value.reason in REJECT_REASONS
    assert caught.value.detail
    assert "\n" not in str(caught.value)
    return caught.value.reason


def detailed(seed: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A picture with much detail, other for each seed."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(int) + rng.integers(-40, 40, (size[1], size[0], 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
