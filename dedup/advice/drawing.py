"""Pictures and text of montages."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from dedup.config.keys import MAX_PIXELS
from dedup.errors import DedupError
from dedup.storage.images import decode_image
from dedup.storage.shards import read_image_bytes
from dedup.text import printable

CELL = 176  # pixels
TEXT = 44  # pixels under each picture
GAP = 8
KEPT = "#1a7f37"
COPY = "#0b5394"
_MAX_CHARS = 200  # a caption may have megabytes

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(size: int) -> Font:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)


def thumbnail(shard: str, key: str, byte_offset: int | None, n_bytes: int | None) -> Image.Image | None:
    """A picture that fits a cell, or None where the shard or the image is gone."""
    if not n_bytes:
        return None
    try:
        data = read_image_bytes(shard, key, byte_offset, n_bytes)
        picture = Image.fromarray(decode_image(data, max_pixels=MAX_PIXELS, min_side=CELL).pixels)
    except DedupError:
        return None
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def draw_cell(
    sheet: Image.Image, left: int, top: int, picture: Image.Image | None, label: str, text: str, colour: str, *, is_framed: bool = False
) -> None:
    """Draw a picture in its cell, a coloured label and a line of text under it."""
    draw, small = ImageDraw.Draw(sheet), font(13)
    if picture is None:
        draw.rectangle((left, top, left + CELL, top + CELL), outline="grey")
        draw.text((left + 8, top + CELL // 2), "image can't be read", "grey", small)
    else:
        sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
    if is_framed:
        draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=colour, width=2)
    draw.text((left, top + CELL + 3), fit(label, small, CELL), colour, small)
    draw.text((left, top + CELL + 20), fit(text, small, CELL), "black", small)


def fit(text: str, of: Font, width: int) -> str:
    """As much of a text as fits into so many pixels, on one line."""
    text = printable(text, _MAX_CHARS)
    if of.getlength(text) <= width:
        return text
    while text and of.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
