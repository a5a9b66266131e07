"""What the planted changes do to pixels: an edit takes an image, a Generator and its strength, and returns a new image.

Those typed `Image.Image` run on arrays through `on_picture`. `planting` holds the list of changes made of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

Pixels = npt.NDArray[np.uint8]
_WORDS = ("when you see it", "stock preview", "photo of the day", "sale 50% off", "wait for it", "look at this", "limited offer")
_INKS = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (178, 34, 34), (24, 60, 120), (240, 224, 190))


def on_picture(change: Callable[..., Image.Image], image: Pixels, rng: np.random.Generator, **options: Any) -> Pixels:
    """Run an edit that works on a Pillow image on an array, shape (height, width, 3)."""
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
    """Resize by a factor on each axis."""
    size = (max(1, round(image.width * x)), max(1, round(image.height * y)))
    return image.resize(size, Image.Resampling.LANCZOS)


def crop(image: Image.Image, rng: np.random.Generator, *, percent: float, is_centred: bool) -> Image.Image:
    """Keep `percent` of each side, about the middle or against two edges."""
    width, height = (max(1, round(side * percent / 100)) for side in image.size)
    # off-centre means against two edges: the farthest a crop of that size can lie from the middle
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
    """Run one of Pillow's filters."""
    return image.filter(kernel)


def noise(image: Pixels, rng: np.random.Generator, *, deviation: float) -> Pixels:
    """Add Gaussian noise; `deviation` in grey levels."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(deviation)
    return _to_pixels(image + noise)


def rotate(image: Image.Image, rng: np.random.Generator, *, degrees: float) -> Image.Image:
    """Rotate to either side at the same size, the corners filled with black or white."""
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
