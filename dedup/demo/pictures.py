"""The demo's pictures: photographs that come with scikit-image and scikit-learn, and drawn ones."""

from __future__ import annotations

import colorsys
import dataclasses
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import Voronoi

from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.image.descriptor import DIM, VARIANTS, describe, turn

__all__ = ["KINDS", "Photo", "Pixels", "photo_scenes", "procedural_scene"]
Pixels = npt.NDArray[np.uint8]

# motorcycle_right is left out: it is the other eye's view of motorcycle_left
_PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "china.jpg", "flower.jpg", "rocket.jpg", "motorcycle_left.png", "camera.png",
    "hubble_deep_field.jpg", "retina.jpg", "ihc.png", "coins.png", "gravel.png", "grass.png", "brick.png", "page.png", "text.png",
    "horse.png", "logo.png",
)  # fmt: skip
_OF_SKLEARN = ("china.jpg", "flower.jpg")  # the others ship with scikit-image
# columns and rows to cut a photo into where it is not one subject
_CUT = {"hubble_deep_field.jpg": (3, 2)} | dict.fromkeys(("ihc.png", "coins.png", "gravel.png", "grass.png", "brick.png"), (2, 2))

_MAX_SIDE = 512
_MIN_DETAIL = 12.0  # per cent of cells with detail: below 8 the low-detail rule of the search applies
_MAX_COSINE = 0.55  # more similar crops of one photo could be called copies


@dataclasses.dataclass(frozen=True)
class Photo:
    """One scene cut from a photo."""

    name: str  # file name without extension: what the picture shows
    pixels: Pixels  # shape (height, width, 3); RGB, read-only, neither side above 512


@lru_cache(maxsize=1)
def photo_scenes() -> tuple[Photo, ...]:
    """Read the photos that ship in two wheels and cut them into disjoint scenes; nothing is downloaded.

    Returns about 40, those that look well in a montage first. Crops with little detail, or too similar to an earlier one, are left out.
    Raises MissingExtra if scikit-image or scikit-learn is not installed.
    Raises ConfigError if an installed version no longer ships one of the photos.
    """
    photos: list[Photo] = []
    descriptors = np.empty((0, DIM), dtype=np.float32)
    for file_name in _PHOTOS:
        is_sklearn, (columns, rows) = file_name in _OF_SKLEARN, _CUT.get(file_name, (1, 1))
        image = _read_photo("sklearn", f"datasets/images/{file_name}") if is_sklearn else _read_photo("skimage", f"data/{file_name}")
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
            # every turn of it: planted changes turn images
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


Field = npt.NDArray[np.float32]


def procedural_scene(rng: np.random.Generator, size: tuple[int, int] = (400, 350), kind: str | None = None) -> Pixels:
    """Paint one of an unlimited number of distinct images; equal states of `rng` give equal ones.

    `size`: width and height in pixels, at least 32.
    `kind`: one of `KINDS`; drawn where not given.
    Raises ConfigError if the kind is unknown or the size too small.

    Examples
    --------
    >>> procedural_scene(np.random.default_rng(7), (320, 240)).shape
    (240, 320, 3)
    """
    if min(size) < 32:
        raise ConfigError(f"a scene needs at least 32 x 32 pixels, found {size[0]} x {size[1]}")
    if kind is None:
        kind = str(rng.choice(list(KINDS)))
    if kind not in KINDS:
        raise ConfigError(f"unknown scene '{kind}'; expected one of {', '.join(KINDS)}")
    pixels = np.asarray(KINDS[kind](rng, *size)).astype(np.int16)
    # light and colour of its own all over: what scenes of one kind share, such as the sky, becomes a small part
    light = _octaves(rng, 64, 64, 4, 0.85) * np.float32(22.0) + np.float32(128.0)
    tint = np.stack([light + _octaves(rng, 32, 32, 3, 0.8).repeat(2, axis=0).repeat(2, axis=1) * np.float32(7.0) for _ in range(3)], axis=2)
    pixels += _upsample(tint, size).astype(np.int16) - 128
    top, left = rng.integers(0, 1024, 2)
    grain = _grain()[(top + np.arange(size[1])) % 1024][:, (left + np.arange(size[0])) % 1024]
    pixels += grain[:, :, None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _grain() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).normal(0.0, 3.0, (1024, 1024)).astype(np.int16)


def _octaves(rng: np.random.Generator, width: int, height: int, n: int = 5, gain: float = 0.65) -> Field:
    """Fractal noise, mean 0 and deviation 1: grids of 2, 4, 8, ... cells resized and added."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(n):
        cells = 3 * 2**octave
        grid = rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(gain**octave)
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    total -= total.mean()
    normal: Field = total / (total.std() + np.float32(1e-6))
    return normal


def _upsample(pixels: npt.NDArray[Any], size: tuple[int, int]) -> Pixels:
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _palette(rng: np.random.Generator) -> Field:
    """256 colours, shape (256, 3): a walk through a few hues that go together, dark to light or mixed."""
    hue, n = rng.random(), int(rng.integers(3, 7))
    hues = hue + rng.choice([0.0, 0.07, -0.07, 0.5, 0.45], n, p=[0.3, 0.25, 0.25, 0.1, 0.1]) + rng.normal(0.0, 0.02, n)
    lights = np.linspace(rng.uniform(0.1, 0.3), rng.uniform(0.85, 1.0), n)
    if rng.random() < 0.5:
        rng.shuffle(lights)
    # light colours are paler: all of them saturated looks like a test card
    colours = [colorsys.hsv_to_rgb(h % 1.0, s * (1.1 - 0.6 * v), v) for h, s, v in zip(hues, rng.uniform(0.3, 1.0, n), lights, strict=True)]
    stops = np.linspace(0, 255, n)
    return np.stack([np.interp(np.arange(256), stops, np.array(colours)[:, c]) for c in range(3)], axis=1).astype(np.float32) * 255


def _paint(palette: Field, field: Field) -> Field:
    """Colour a field of about -2..2."""
    painted: Field = palette[np.clip(field * 60 + 128, 0, 255).astype(np.uint8)]
    return painted


def _colour(rng: np.random.Generator, palette: Field, alpha: int = 255) -> tuple[int, int, int, int]:
    red, green, blue = (int(v) for v in palette[rng.integers(256)])
    return red, green, blue, alpha


def _marble(rng: np.random.Generator, width: int, height: int) -> Pixels:
    field = _octaves(rng, width // 2, height // 2, 6, 0.7)
    veins = np.abs(_octaves(rng, width // 2, height // 2, 5, 0.75))
    return _upsample(_paint(_palette(rng), field) * np.clip(0.55 + veins, 0.4, 1.15)[:, :, None], (width, height))


def _relief(rng: np.random.Generator, width: int, height: int) -> Pixels:
    ground = _octaves(rng, width // 2, height // 2, 6, 0.62)
    slope_y, slope_x = np.gradient(ground)
    light = np.clip(0.85 + rng.uniform(2, 5) * (slope_x * rng.choice([-1, 1]) + slope_y * rng.choice([-1, 1])), 0.35, 1.3)
    return _upsample(_paint(_palette(rng), ground + 0.6 * _octaves(rng, width // 2, height // 2, 3)) * light[:, :, None], (width, height))


def _waves(rng: np.random.Generator, width: int, height: int) -> Pixels:
    y, x = np.mgrid[0 : 1 : complex(0, height // 2), 0 : 1 : complex(0, width // 2)].astype(np.float32)
    angle, turns = rng.uniform(0, np.pi), rng.uniform(2, 7)
    bent = np.float32(rng.uniform(0.8, 2.4)) * _octaves(rng, width // 2, height // 2, 4, 0.55)
    field = np.sin(2 * np.pi * turns * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) + bent)
    return _upsample(_paint(_palette(rng), 1.4 * field + 0.7 * _octaves(rng, width // 2, height // 2, 4)), (width, height))


def _sky(rng: np.random.Generator, width: int, height: int, clouds: float) -> tuple[Image.Image, Field]:
    palette = _palette(rng)
    fall = np.linspace(-1.2, 1.2, height // 2, dtype=np.float32)[:, None]
    field = fall * np.float32(rng.uniform(0.4, 1.0)) + np.float32(clouds) * _octaves(rng, width // 2, height // 2, 6, 0.68)
    return Image.fromarray(_upsample(_paint(palette, field), (width, height))), palette


def _ridges(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    image, _ = _sky(rng, width, height, 0.7)
    draw = ImageDraw.Draw(image)
    sun, x, y = rng.uniform(0.04, 0.14) * width, rng.uniform(0, width), rng.uniform(0, 0.4 * height)
    draw.ellipse((x - sun, y - sun, x + sun, y + sun), fill=_colour(rng, _palette(rng))[:3])
    palette, n_layers, columns = _palette(rng), int(rng.integers(3, 7)), np.linspace(0, width, 97)
    for layer in range(n_layers):
        line = sum(rng.standard_normal() / (k + 1) * np.sin(columns / width * np.pi * k + rng.uniform(0, 7)) for k in range(2, 14))
        top = height * (0.3 + 0.6 * layer / n_layers) + line * height * rng.uniform(0.06, 0.16) + rng.normal(0, 2, 97)
        red, green, blue, _ = _colour(rng, palette)
        ridge = zip(columns.tolist(), top.tolist(), strict=True)
        draw.polygon([(0.0, float(height)), *ridge, (float(width), float(height))], fill=(red, green, blue))
    return image


def _skyline(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    image, palette = _sky(rng, width, height, 0.8)
    draw = ImageDraw.Draw(image)
    lit = _colour(rng, _palette(rng))
    for depth in range(2):
        left = -float(rng.integers(0, 30))
        while left < width:
            right = left + rng.uniform(0.05, 0.16) * width
            top = height * (rng.uniform(0.15, 0.75) + 0.15 * depth)
            draw.rectangle((left, top, right, height), fill=_colour(rng, palette))
            step, rows, columns = int(rng.integers(9, 15)), int(height - top), int(right - left)
            for row in range(6, rows - 6, step):
                for column in range(4, columns - 6, step):
                    if rng.random() < 0.45:
                        draw.rectangle((left + column, top + row, left + column + 4, top + row + 5), fill=lit)
            left = right + rng.choice([0.0, 0.0, rng.uniform(4, 30)])
    return image


def _mosaic(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    sites = rng.uniform(-0.15, 1.15, (int(rng.integers(40, 140)), 2)) * (width, height)
    cells = Voronoi(sites)
    palette, field = _palette(rng), _octaves(rng, 64, 64, 5, 0.8)
    image = Image.new("RGB", (width, height), _colour(rng, palette)[:3])
    draw = ImageDraw.Draw(image)
    line, thick = _colour(rng, palette), int(rng.integers(0, 4))
    for site, corners in zip(sites, (cells.regions[region] for region in cells.point_region), strict=True):
        if len(corners) < 3 or -1 in corners:
            continue
        x, y = np.clip(site / (width, height) * 64, 0, 63).astype(int)
        red, green, blue = (int(v) for v in _paint(palette, field[y, x]))
        polygon = [tuple(corner) for corner in cells.vertices[corners].tolist()]
        draw.polygon(polygon, fill=(red, green, blue), outline=line if thick else None, width=max(1, thick))
    return image


def _shapes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    image, palette = _sky(rng, width, height, 0.5)
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(12, 40))):
        x, y, reach = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.04, 0.22) * width
        colour, form = _colour(rng, palette, int(rng.integers(150, 256))), int(rng.integers(4))
        if form == 0:
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        elif form == 1:
            draw.rectangle((x, y, x + reach, y + rng.uniform(0.3, 1.8) * reach), fill=colour)
        elif form == 2:
            draw.polygon([tuple(p) for p in np.add(rng.normal(0, reach, (int(rng.integers(3, 6)), 2)), (x, y)).tolist()], fill=colour)
        else:
            draw.line((x, y, *(rng.uniform(0, 1, 2) * (width, height)).tolist()), fill=colour, width=int(rng.integers(2, 14)))
    return image


def _bokeh(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    image, palette = _sky(rng, width, height, 0.9)
    image = Image.blend(image, Image.new("RGB", image.size, "black"), rng.uniform(0.2, 0.6))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(30, 90))):
        x, y, reach = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.01, 0.09) * width
        colour = _colour(rng, palette, int(rng.integers(60, 190)))
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour, outline=(*colour[:3], 230))
    return image


_WORDS = ("DREAM", "OCEAN", "HELLO", "MUSIC", "SUMMER", "COFFEE", "TRAVEL", "FOREST", "LIGHT", "FUTURE", "GARDEN", "VOYAGE")


def _poster(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    image = _shapes(rng, width, height) if rng.random() < 0.5 else Image.fromarray(_marble(rng, width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 5))):
        font = ImageFont.load_default(int(rng.uniform(0.08, 0.2) * width) // 6 * 6 + 6)
        place = (int(rng.uniform(-0.1, 0.4) * width), int(rng.uniform(0, 0.85) * height))
        draw.text(place, str(rng.choice(_WORDS)), font=font, fill=(255, 255, 255) if rng.random() < 0.6 else (10, 10, 20))
    return image


KINDS: dict[str, Callable[[np.random.Generator, int, int], Pixels | Image.Image]] = {
    "marble": _marble,
    "relief": _relief,
    "waves": _waves,
    "ridges": _ridges,
    "skyline": _skyline,
    "mosaic": _mosaic,
    "shapes": _shapes,
    "bokeh": _bokeh,
    "poster": _poster,
}
