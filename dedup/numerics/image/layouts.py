"""Pictures that hold another picture: a template filled in, and an inset, a page or a collage that shows one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dedup.numerics.arraytypes import Pixels
from dedup.numerics.image.descriptor import check_rgb

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

LEAST_SIDE: Final = 64  # pixels that either side of a picture needs
_REGION: Final = (0.27, 0.58)  # of a template's area; 0.25 to 0.6 is promised, and whole pixels are less exact
_REGION_SHAPE: Final = 1.25  # how much wider or higher than the picture its region may be
_MAX_SIDE: Final = 1024  # of a picture shown on a page or in a collage: what is written stays of the size of web images
_PART: Final = (0.6, 0.8)  # of the sides, that a central part keeps
_INSET: Final = (0.45, 0.7)  # of the host's sides, that an inset may take
_ON_PAGE: Final = (0.5, 0.8)  # of the page's width, that its picture takes
_LINES_ON_PAGE: Final = 40  # as wide as the page is: the height of a line is this part of its width
_WORDS: Final = (
    "the", "of", "and", "in", "to", "a", "is", "that", "it", "was", "for", "on", "with", "as", "by", "at", "from", "this", "which", "there",
    "year", "city", "river", "paper", "house", "road", "water", "light", "morning", "winter", "market", "station", "music", "colour",
)  # fmt: skip


def template_region(width: int, height: int, rng: np.random.Generator) -> Box:
    """Draw the region of a template in which its copies differ.

    `width`, `height`: of the picture in pixels, at least `LEAST_SIDE` each.
    Returns a box of 25 to 60% of the picture's area, anywhere inside it.

    >>> left, top, right, bottom = template_region(200, 100, np.random.default_rng(0))
    >>> bool(0.25 <= (right - left) * (bottom - top) / 20_000 <= 0.6)
    True
    """
    share, shape = rng.uniform(*_REGION), rng.uniform(1 / _REGION_SHAPE, _REGION_SHAPE)
    wide, high = round(width * math.sqrt(share) * shape), round(height * math.sqrt(share) / shape)
    left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    return left, top, left + wide, top + high


def fill_region(ground: Pixels, region: Box, filling: Pixels) -> Pixels:
    """Fill a region of a picture with another picture, cut to the region's shape about its middle.

    `ground`, `filling`: shape (height, width, 3) each; RGB; not written to.
    `region`: inside the ground.
    Returns shape of the ground.
    Raises ShapeError if one is no RGB picture.
    """
    check_rgb(ground)
    check_rgb(filling)
    left, top, right, bottom = region
    filled = ground.copy()
    filled[top:bottom, left:right] = _cut_to(Image.fromarray(filling), (right - left, bottom - top))
    return filled


def show_inside(content: Pixels, host: Pixels, rng: np.random.Generator) -> tuple[str, Pixels, Box]:
    """Show a picture, or its central part, inside another.

    `content`, `host`: shape (height, width, 3) each; RGB; not written to; sides of at least `LEAST_SIDE`.
    `rng`: draws the layout, what of the content is shown, and where.
    Returns the layout (a name of `LAYOUTS`), the picture, shape (height, width, 3), and where the content lies in it.
    Raises ShapeError if one is no RGB picture.

    >>> content, host = np.zeros((80, 100, 3), np.uint8), np.full((90, 90, 3), 255, np.uint8)
    >>> layout, picture, (left, top, right, bottom) = show_inside(content, host, np.random.default_rng(0))
    >>> layout in LAYOUTS, int(picture[top:bottom, left:right].max())
    (True, 0)
    """
    check_rgb(content)
    check_rgb(host)
    shown, around = _reduced(_part_of(Image.fromarray(content), rng)), _reduced(Image.fromarray(host))
    layout = list(LAYOUTS)[int(rng.integers(len(LAYOUTS)))]
    picture, box = LAYOUTS[layout](shown, around, rng)
    return layout, np.array(picture), box


def _part_of(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The whole image, or as often its central part."""
    if rng.integers(2):
        return image
    share = rng.uniform(*_PART)
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _inset(shown: Image.Image, host: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Box]:
    """The picture lies in the host, somewhere."""
    # as many pixels as the picture has, so that the picture is not lost in a larger host, nor reduced to nothing by a small one
    host = _scaled(host, math.sqrt(shown.width * shown.height / (host.width * host.height)))
    share = rng.uniform(*_INSET)
    shown = _scaled(shown, min(share * host.width / shown.width, share * host.height / shown.height))
    left, top = int(rng.integers(host.width - shown.width + 1)), int(rng.integers(host.height - shown.height + 1))
    host.paste(shown, (left, top))
    return host, (left, top, left + shown.width, top + shown.height)


def _collage(shown: Image.Image, host: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Box]:
    """The picture is one half, beside or above the host or the other way round."""
    width, height = shown.size
    is_beside, is_second = width <= height, bool(rng.integers(2))
    step = (width, 0) if is_beside else (0, height)
    both = Image.new("RGB", (width + step[0], height + step[1]))
    first, second = (0, 0), step
    left, top = second if is_second else first
    both.paste(ImageOps.fit(host, shown.size, Image.Resampling.LANCZOS), first if is_second else second)
    both.paste(shown, (left, top))
    return both, (left, top, left + width, top + height)


def _page(shown: Image.Image, host: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Box]:
    """The picture stands on a page of text that has a smaller one as well."""
    width = round(shown.width / rng.uniform(*_ON_PAGE))
    margin, line = max(2, width // 16), max(6, width // _LINES_ON_PAGE)
    host = _scaled(host, rng.uniform(0.3, 0.45) * width / host.width)
    pictures = [shown, host] if rng.integers(2) else [host, shown]
    n_lines = [int(n) for n in rng.integers(2, 7, 3)]
    height = 2 * margin + sum(picture.height for picture in pictures) + 2 * sum(n_lines) * line + 4 * margin
    page = Image.new("RGB", (width, height), (252, 251, 247))
    top, box = margin, (0, 0, 0, 0)
    for picture, n in zip([*pictures, None], n_lines, strict=True):
        top = _write(page, top, n, margin, line, rng) + margin
        if picture is not None:
            left = (width - picture.width) // 2 if picture is shown else int(rng.integers(margin, width - margin - picture.width + 1))
            page.paste(picture, (left, top))
            box = (left, top, left + picture.width, top + picture.height) if picture is shown else box
            top += picture.height + margin
    return page, box


def _write(page: Image.Image, top: int, n_lines: int, margin: int, line: int, rng: np.random.Generator) -> int:
    """Write lines of words, two line heights apart; returns where they end."""
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(line)
    for number in range(n_lines):
        text = ""
        while draw.textlength(wider := f"{text} {rng.choice(_WORDS)}".strip(), font=font) <= page.width - 2 * margin:
            text = wider
        draw.text((margin, top + 2 * number * line), text, (40, 40, 44), font)
    return top + 2 * n_lines * line


LAYOUTS: Final[dict[str, Callable[[Image.Image, Image.Image, np.random.Generator], tuple[Image.Image, Box]]]] = {
    "inset": _inset,
    "page": _page,
    "collage": _collage,
}


def _cut_to(image: Image.Image, size: tuple[int, int]) -> Pixels:
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


def _reduced(image: Image.Image) -> Image.Image:
    """A copy with no side above `_MAX_SIDE`."""
    return _scaled(image, min(1.0, _MAX_SIDE / max(image.size)))


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
