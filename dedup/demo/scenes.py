"""Distinct source images: photos that ship in the wheels of scikit-image and scikit-learn, and procedural scenes.

No two of them are copies of each other, so whatever a run merges across sources is a false merge.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.demo.procedural import KINDS, procedural_scene
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.descriptor import DIM, VARIANTS, describe, turn

__all__ = ["KINDS", "Photo", "photo_scenes", "procedural_scene"]

Pixels = npt.NDArray[np.uint8]

# package, folder, file, columns and rows to cut the photo into: 1 x 1 where the picture is one subject.
# motorcycle_right is left out: it is the other eye's view of motorcycle_left.
_PHOTOS = (
    ("skimage", "data", "astronaut.png", 1, 1),
    ("skimage", "data", "chelsea.png", 1, 1),
    ("skimage", "data", "coffee.png", 1, 1),
    ("sklearn", "datasets/images", "china.jpg", 1, 1),
    ("sklearn", "datasets/images", "flower.jpg", 1, 1),
    ("skimage", "data", "rocket.jpg", 1, 1),
    ("skimage", "data", "motorcycle_left.png", 1, 1),
    ("skimage", "data", "camera.png", 1, 1),
    ("skimage", "data", "hubble_deep_field.jpg", 3, 2),
    ("skimage", "data", "retina.jpg", 1, 1),
    ("skimage", "data", "ihc.png", 2, 2),
    ("skimage", "data", "coins.png", 2, 2),
    ("skimage", "data", "gravel.png", 2, 2),
    ("skimage", "data", "grass.png", 2, 2),
    ("skimage", "data", "brick.png", 2, 2),
    ("skimage", "data", "page.png", 1, 1),
    ("skimage", "data", "text.png", 1, 1),
    ("skimage", "data", "horse.png", 1, 1),
    ("skimage", "data", "logo.png", 1, 1),
)
_MAX_SIDE = 512
_MIN_DETAIL = 12.0  # per cent of cells with detail: below 8 the low-detail rule of the search begins
_MAX_COSINE = 0.55  # two crops of one photo more alike than this would be arguable copies


@dataclasses.dataclass(frozen=True)
class Photo:
    """One scene cut from a photo.

    Attributes
    ----------
    name : str
        File name without extension: what the picture shows.
    pixels : uint8 array, shape (height, width, 3)
        RGB, read-only, neither side above 512.
    """

    name: str
    pixels: Pixels


@lru_cache(maxsize=1)
def photo_scenes() -> tuple[Photo, ...]:
    """Read the photos that ship in two wheels and cut them into disjoint scenes; nothing is downloaded.

    Returns
    -------
    tuple of Photo
        About 40, the ones that make a nice montage first. Crops with little detail, or too like an earlier
        one, are left out.

    Raises
    ------
    MissingExtra
        If scikit-image or scikit-learn is not installed.
    ConfigError
        If an installed version no longer ships one of the photos.
    """
    photos: list[Photo] = []
    descriptors = np.empty((0, DIM), dtype=np.float32)
    for package, folder, file_name, columns, rows in _PHOTOS:
        image = _read_photo(package, f"{folder}/{file_name}")
        width, height = image.size[0] // columns, image.size[1] // rows
        for i in range(columns * rows):
            left, top = i % columns * width, i // columns * height
            crop = image.crop((left, top, left + width, top + height))
            crop.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
            pixels = np.asarray(crop)
            descriptor, quality = describe(pixels)
            if quality < _MIN_DETAIL or (descriptors @ descriptor > _MAX_COSINE).any():
                continue
            pixels.setflags(write=False)
            # turned and mirrored too: planted changes turn images
            descriptors = np.vstack([descriptors, *(turn(descriptor[None], variant) for variant in VARIANTS)])
            photos.append(Photo(file_name.split(".")[0], pixels))
    return tuple(photos)


def _read_photo(package: str, path: str) -> Image.Image:
    # found, not imported: importing scikit-learn takes seconds and only its files are needed
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(package, "demo")
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise ConfigError(f"the installed {package} does not ship {path}; expected scikit-image >= 0.24 and scikit-learn >= 1.5")
    with Image.open(file) as image:
        rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
