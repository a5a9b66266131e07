"""The one list of planted changes: what happens to images between one copy on the web and another.

Demo shards, calibration and the quality benchmark plant the same changes, so that their figures can be compared.
Pillow encodes, filters and draws text.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from dedup.errors import ConfigError
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.image.descriptor import check_rgb

_WORDS = ("when you see it", "stock preview", "photo of the day", "sale 50% off", "wait for it", "look at this", "limited offer")
_INKS = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (178, 34, 34), (24, 60, 120), (240, 224, 190))


def on_picture(change: Callable[..., Image.Image], image: Pixels, rng: np.random.Generator, **options: Any) -> Pixels:
    """Apply an edit of Pillow images to an array, shape (height, width, 3)."""
    return np.array(change(Image.fromarray(image), rng, **options).convert("RGB"))


def _to_pixels(values: npt.NDArray[Any]) -> Pixels:
    pixels: Pixels = np.clip(values, 0, 255).round().astype(np.uint8)
    return pixels


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    return _INKS[int(rng.integers(len(_INKS)))]


def _contrary(ink: tuple[int, int, int]) -> tuple[int, int, int]:
    return (0, 0, 0) if sum(ink) > 384 else (255, 255, 255)


def encode(image: Image.Image, rng: np.random.Generator, *, kind: str, quality: int) -> Image.Image:
    """Encode and decode: what the JPEG or WebP encoder leaves of the image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer)


def resize(image: Image.Image, rng: np.random.Generator, *, x: float, y: float) -> Image.Image:
    """Resize by a factor along each axis."""
    size = (max(1, round(image.width * x)), max(1, round(image.height * y)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop(image: Image.Image, rng: np.random.Generator, *, percent: float, is_centred: bool) -> Image.Image:
    """Keep `percent` of each side, about the middle or against two edges."""
    width, height = (max(1, round(side * percent / 100)) for side in image.size)
    # off-centre means against two edges: as far from the middle as a crop of that size can be
    share = (0.5, 0.5) if is_centred else rng.integers(0, 2, 2).tolist()
    left, top = round((image.width - width) * share[0]), round((image.height - height) * share[1])
    return image.crop((left, top, left + width, top + height))


def border(image: Image.Image, rng: np.random.Generator, *, percent: float) -> Image.Image:
    """Add a frame of one colour, `percent` of the side at each end."""
    added = [max(1, round(side * percent / 100)) for side in image.size]
    framed = Image.new("RGB", (image.width + 2 * added[0], image.height + 2 * added[1]), _ink(rng))
    framed.paste(image, (added[0], added[1]))
    return framed


def letterbox(image: Image.Image, rng: np.random.Generator, *, percent: float) -> Image.Image:
    """Add black bars above and below, each `percent` of the height."""
    bar = max(1, round(image.height * percent / 100))
    boxed = Image.new("RGB", (image.width, image.height + 2 * bar), (0, 0, 0))
    boxed.paste(image, (0, bar))
    return boxed


def caption(image: Image.Image, rng: np.random.Generator, *, percent: float, is_over: bool) -> Image.Image:
    """Add a bar with words, `percent` of the height: white beside the image, or black over it."""
    bar = max(1, round(image.height * percent / 100))
    ground = (0, 0, 0) if is_over else (255, 255, 255)
    is_top = bool(rng.integers(2))
    captioned = Image.new("RGB", (image.width, image.height + (0 if is_over else bar)), ground)
    captioned.paste(image, (0, bar if is_top and not is_over else 0))
    top = 0 if is_top else captioned.height - bar
    draw = ImageDraw.Draw(captioned)
    draw.rectangle((0, top, image.width, top + bar - 1), fill=ground)
    text = str(rng.choice(_WORDS))
    draw.text(
        (image.width // 2, top + bar // 2),
        text,
        font=_font(max(6, min(bar * 2 // 3, image.width // 12))),
        fill=_contrary(ground),
        anchor="mm",
    )
    return captioned


def watermark(image: Image.Image, rng: np.random.Generator, *, percent: float) -> Image.Image:
    """Repeat slanted white words over the whole image, at an opacity of `percent`."""
    side = max(image.size)
    layer = Image.new("L", (2 * side, 2 * side), 0)
    draw = ImageDraw.Draw(layer)
    text, step = str(rng.choice(_WORDS)).upper(), max(8, side // 4)
    for row in range(0, 2 * side, step):
        for column in range(-(row // step % 2) * step, 2 * side, 2 * step):
            draw.text((column, row), text, font=_font(max(6, side // 14)), fill=round(255 * percent / 100))
    left, top = (2 * side - image.width) // 2, (2 * side - image.height) // 2
    layer = layer.rotate(30, Image.Resampling.BILINEAR).crop((left, top, left + image.width, top + image.height))
    return Image.composite(Image.new("RGB", image.size, "white"), image, layer)


def logo(image: Image.Image, rng: np.random.Generator, *, percent: float) -> Image.Image:
    """Put a round badge into a corner, `percent` of the shorter side across."""
    marked, side = image.copy(), max(3, round(min(image.size) * percent / 100))
    margin = side // 5
    left = margin if rng.integers(2) else image.width - side - margin
    top = margin if rng.integers(2) else image.height - side - margin
    ink, draw = _ink(rng), ImageDraw.Draw(marked)
    draw.ellipse((left, top, left + side, top + side), fill=ink, outline=_contrary(ink), width=max(1, side // 16))
    letter = chr(65 + int(rng.integers(26)))
    draw.text((left + side // 2, top + side // 2), letter, font=_font(max(6, side * 2 // 3)), fill=_contrary(ink), anchor="mm")
    return marked


def levels(image: Pixels, rng: np.random.Generator, *, gain: float = 1.0, contrast: float = 1.0, gamma: float = 1.0) -> Pixels:
    """Change gamma, then brightness, then contrast."""
    curve = (np.arange(256) / 255.0) ** gamma * 255.0 * gain
    curve = (curve - 128.0) * contrast + 128.0
    return _to_pixels(curve)[image]


def cast(image: Pixels, rng: np.random.Generator, *, percent: float) -> Pixels:
    """Strengthen one channel by `percent` and weaken another."""
    gains = 1.0 + percent / 100 * rng.permutation([-1.0, 0.0, 1.0])
    return _to_pixels(image * gains)


def saturate(image: Image.Image, rng: np.random.Generator, *, saturation: float) -> Image.Image:
    """Scale the saturation; 0 gives grey."""
    return ImageEnhance.Color(image).enhance(saturation)


def blur_or_sharpen(image: Image.Image, rng: np.random.Generator, *, kernel: ImageFilter.Filter) -> Image.Image:
    """Apply one of Pillow's filters."""
    return image.filter(kernel)


def noise(image: Pixels, rng: np.random.Generator, *, deviation: float) -> Pixels:
    """Add Gaussian noise; `deviation` in grey levels."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(deviation)
    return _to_pixels(image + noise)


def rotate(image: Image.Image, rng: np.random.Generator, *, degrees: float) -> Image.Image:
    """Rotate to either side at the same size; the corners are filled with black or white."""
    sign, fill = (1 if rng.integers(2) else -1), (0, 0, 0) if rng.integers(2) else (255, 255, 255)
    return image.rotate(sign * degrees, Image.Resampling.BICUBIC, fillcolor=fill)


def turn(image: Pixels, rng: np.random.Generator, *, quarters: int = 0, axis: int | None = None) -> Pixels:
    """Turn by quarters, or reverse an axis."""
    turned = np.rot90(image, quarters) if axis is None else np.flip(image, axis)
    return np.ascontiguousarray(turned)


def screenshot(image: Image.Image, rng: np.random.Generator, *, percent: float) -> Image.Image:
    """Show the image in a window: title bar, page, words below."""
    is_dark, edge = bool(rng.integers(2)), max(2, round(min(image.size) * percent / 100))
    ground, chrome, ink = ((24, 24, 28), (44, 44, 50), (220, 220, 220)) if is_dark else ((250, 250, 250), (222, 225, 230), (60, 60, 60))
    page = Image.new("RGB", (image.width + 2 * edge, image.height + 4 * edge), ground)
    page.paste(image, (edge, 2 * edge))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, page.width, round(1.2 * edge)), fill=chrome)
    for button, colour in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
        x, y, reach = round((0.5 + 0.6 * button) * edge), round(0.6 * edge), max(1, edge // 5)
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    font = _font(max(6, edge // 2))
    draw.text((round(2.5 * edge), round(0.25 * edge)), "example.org/photos", font=font, fill=ink)
    draw.text((edge, page.height - round(1.5 * edge)), f"{rng.integers(2, 900)} likes · {rng.choice(_WORDS)}", font=font, fill=ink)
    return page


_Apply = Callable[[Pixels, np.random.Generator], Pixels]


@dataclasses.dataclass(frozen=True)
class Change:
    """One way an image is changed on its way to a copy."""

    name: str  # unique: the family and the strength, such as ``jpeg_30`` or ``mirror``
    family: str  # what is done, whatever the strength
    strength: float  # in the family's unit (see `CHANGES`); 0 where there is only one
    # takes a uint8 array of shape (height, width, 3) and a numpy Generator; returns a new uint8 array of shape (new height, new
    # width, 3). Equal states of the generator give equal arrays.
    apply: _Apply
    is_expected: bool = True  # whether the default settings are expected to find such a copy
    is_default: bool = True  # whether it is one of ``changes(strengths="default")``: the common strengths


# Family, what a strength does, all strengths, the common ones, and those the default settings are not expected to find: of
# these `benchmarks/quality.py` found fewer than 0.9 of the copies of photos.
_Row = tuple[str, Callable[[float], _Apply], Sequence[float], Sequence[float], Sequence[float]]
_CROPS = (95, 90, 80, 70, 50)

_ROWS: tuple[_Row, ...] = (
    # quality of the encoder
    ("jpeg", lambda s: partial(on_picture, encode, kind="JPEG", quality=int(s)), (3, 10, 30, 50, 75, 90), (10, 30, 75), (3,)),
    ("webp", lambda s: partial(on_picture, encode, kind="WEBP", quality=int(s)), (30, 75), (30, 75), ()),
    # factor on both sides, and on the width alone
    ("resize", lambda s: partial(on_picture, resize, x=s, y=s), (0.25, 0.5, 0.75, 1.5, 2), (0.5, 0.75, 1.5), ()),
    ("aspect", lambda s: partial(on_picture, resize, x=s, y=1.0), (0.8, 1.25), (0.8, 1.25), ()),
    # per cent of each side that stays; off-centre against two edges
    ("crop", lambda s: partial(on_picture, crop, percent=s, is_centred=True), _CROPS, (95, 90, 80), (50,)),
    ("crop_off", lambda s: partial(on_picture, crop, percent=s, is_centred=False), _CROPS, (95, 90), (70, 50)),
    # per cent of the side added at each end; letterbox: black, above and below
    ("border", lambda s: partial(on_picture, border, percent=s), (2, 5, 10, 20), (2, 5), ()),
    ("letterbox", lambda s: partial(on_picture, letterbox, percent=s), (5, 10, 20), (5, 10), ()),
    # per cent of the height that the bar takes: added beside the image, or drawn over it
    ("caption", lambda s: partial(on_picture, caption, percent=s, is_over=False), (6, 12, 20), (6, 12), ()),
    ("caption_over", lambda s: partial(on_picture, caption, percent=s, is_over=True), (6, 12, 20), (6, 12), ()),
    # opacity in per cent; per cent of the shorter side
    ("watermark", lambda s: partial(on_picture, watermark, percent=s), (20, 35, 60), (20, 35), ()),
    ("logo", lambda s: partial(on_picture, logo, percent=s), (10, 20, 30), (10, 20), ()),
    # light and colour: factors, and per cent between the channels
    ("brightness", lambda s: partial(levels, gain=s), (0.5, 0.75, 1.25, 1.5), (0.75, 1.25), ()),
    ("contrast", lambda s: partial(levels, contrast=s), (0.5, 0.75, 1.3, 1.6), (0.75, 1.3), ()),
    ("gamma", lambda s: partial(levels, gamma=s), (0.5, 0.75, 1.4, 2.2), (0.75, 1.4), ()),
    ("saturation", lambda s: partial(on_picture, saturate, saturation=s), (0.4, 1.6, 2.5), (0.4, 1.6), ()),
    ("cast", lambda s: partial(cast, percent=s), (10, 25), (10,), ()),
    ("grey", lambda s: partial(on_picture, saturate, saturation=0.0), (0,), (0,), ()),
    # deviation in pixels, in grey levels; per cent of an unsharp mask
    ("blur", lambda s: partial(on_picture, blur_or_sharpen, kernel=ImageFilter.GaussianBlur(s)), (1, 2, 4), (1, 2), ()),
    ("noise", lambda s: partial(noise, deviation=s), (5, 10, 25), (5, 10), ()),
    ("sharpen", lambda s: partial(on_picture, blur_or_sharpen, kernel=ImageFilter.UnsharpMask(2, int(s), 2)), (100, 300), (100,), ()),
    # degrees to either side, corners filled; mirrors; quarter turns, in degrees
    ("rotate", lambda s: partial(on_picture, rotate, degrees=s), (1, 2, 5, 10, 15), (1, 2, 5), ()),
    ("mirror", lambda s: partial(turn, axis=1), (0,), (0,), ()),
    ("vertical_flip", lambda s: partial(turn, axis=0), (0,), (0,), ()),
    ("quarter_turn", lambda s: partial(turn, quarters=int(s) // 90), (90, 180, 270), (90, 180), ()),
    # per cent of the shorter side shown around it, a window's bar above
    ("screenshot", lambda s: partial(on_picture, screenshot, percent=s), (5, 10), (5,), ()),
)

CHANGES: tuple[Change, ...] = tuple(
    Change(f"{family}_{s:g}" if s else family, family, float(s), make(s), s not in missed, s in common)
    for family, make, strengths, common, missed in _ROWS
    for s in strengths
)

FAMILIES: tuple[str, ...] = tuple(row[0] for row in _ROWS)
_BY_NAME = {change.name: change for change in CHANGES}


def changes(families: Sequence[str] | None = None, strengths: Literal["default", "all"] = "default") -> tuple[Change, ...]:
    """Pick changes from the list.

    `families`: names of `FAMILIES`; every family where not given.
    `strengths`: the common strengths of each family, or all of them.
    Returns them in the order of `CHANGES`.
    Raises ConfigError if a family, or the value of `strengths`, is unknown.

    >>> [change.name for change in changes(["rotate", "mirror"])]
    ['rotate_1', 'rotate_2', 'rotate_5', 'mirror']
    """
    if strengths not in ("default", "all"):
        raise ConfigError(f"strengths='{strengths}' is unknown; expected default or all")
    for family in families or ():
        if family not in FAMILIES:
            raise ConfigError(_unknown("family of changes", family, FAMILIES))
    picked = FAMILIES if families is None else families
    return tuple(change for change in CHANGES if change.family in picked and (strengths == "all" or change.is_default))


def plant(image: Pixels, name: str, rng: np.random.Generator) -> Pixels:
    """Make the copy that a change makes of an image.

    `image`: shape (height, width, 3); RGB; not written to.
    `name`: name of a change of `CHANGES`.
    `rng`: draws what a change leaves to chance: side, colour, words, noise. Equal states give equal copies.
    Returns shape (new height, new width, 3).
    Raises ConfigError if there is no change of that name.
    Raises ShapeError if the image is not a non-empty uint8 RGB array.

    >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
    >>> plant(image, "crop_80", np.random.default_rng(0)).shape
    (32, 48, 3)
    """
    if name not in _BY_NAME:
        raise ConfigError(_unknown("change", name, list(_BY_NAME)))
    check_rgb(image)
    return _BY_NAME[name].apply(image, rng)


def _unknown(what: str, name: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return f"unknown {what} '{name}'; the nearest is '{nearest}', all are listed in dedup.numerics.image.planting"
