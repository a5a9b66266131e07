"""Generated images and training images as uint8 arrays of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.config.keys import MAX_PIXELS
from dedup.errors import InputError, SampleError
from dedup.storage.images import decode_image
from dedup.storage.shards import read_image_bytes

_LEAST_RANGE = 3  # grey levels between the brightest and the darkest value of an image that shows anything

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stack:
    """Images of one size.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width, 3)
    names : list of str
        Of the images that decoded.
    n_rejected : int
        Images that did not, or show one colour alone.
    n_resized : int
        Images that had another size than most of them, in the end.
    """

    images: Pixels
    names: list[str]
    n_rejected: int
    n_resized: int


def read_pixels(shard: str, key: str, byte_offset: int | None, n_bytes: int) -> Pixels:
    """Decode one image of a tar or a folder.

    Raises
    ------
    InputError
        If it is gone.
    SampleError
        If it does not decode.
    """
    return decode_image(read_image_bytes(shard, key, byte_offset, n_bytes), max_pixels=MAX_PIXELS).pixels


def stack(found: Iterable[tuple[str, str, int | None, int]], max_side: int) -> Stack:
    """Read images and bring them to the size that most of them have, its longer side at most `max_side`.

    Parameters
    ----------
    found : iterable of (name, url, byte_offset, n_bytes)
        As `read_image_bytes` takes them, the name as key.
    max_side : int
    """
    images: list[Pixels] = []
    names: list[str] = []
    n_rejected = 0
    for name, url, byte_offset, n_bytes in found:
        try:
            pixels = read_pixels(url, name, byte_offset, n_bytes)
        except (InputError, SampleError):
            n_rejected += 1
            continue
        # one colour: what a safety filter gives instead of an image, and what is left of pixels that are not finite
        if int(pixels.max()) - int(pixels.min()) < _LEAST_RANGE:
            n_rejected += 1
            continue
        height, width = _reduced(pixels.shape[0], pixels.shape[1], max_side)
        images.append(stretched(pixels, height, width))  # at once, so that large images are never held together
        names.append(name)
    if not images:
        return Stack(np.zeros((0, max_side, max_side, 3), np.uint8), [], n_rejected, 0)
    sizes = Counter(image.shape[:2] for image in images)
    (height, width), n_equal = max(sizes.items(), key=lambda item: (item[1], item[0]))
    out = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for place, image in enumerate(images):
        out[place] = stretched(image, height, width)
        images[place] = image[:0]  # freed as the stack fills
    return Stack(out, names, n_rejected, len(out) - n_equal)


def stretched(pixels: Pixels, height: int, width: int) -> Pixels:
    """The whole image at another size, not cropped; bicubic, over the area that each pixel covers."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))


def _reduced(height: int, width: int, max_side: int) -> tuple[int, int]:
    factor = max_side / max(height, width)
    if factor >= 1.0:
        return height, width
    return max(1, round(height * factor)), max(1, round(width * factor))
