"""What people do to photos before they post them again: every edit of `edits.py`, from a photo and a seed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from random import Random
from typing import Any

import cv2
import numpy as np
from lookalike_kinds import Page, dark, figure, font, name, pale, relief, strong, words
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Edit = Callable[[Image.Image, Random], Image.Image]
EDITS: dict[str, Edit] = {}
OTHERS: list[Image.Image] = []  # photos that are shown beside the edited one, each once: two collages must share nothing


def edit(make: Edit) -> Edit:
    """Register an edit under the name of its function."""
    EDITS[make.__name__] = make
    return make


def other(rng: Random, width: int, height: int) -> Image.Image:
    """Another picture of a size."""
    if OTHERS:
        return ImageOps.fit(OTHERS.pop(), (width, height))
    return relief(rng, width, height)


def fitted(photo: Image.Image, width: float, height: float) -> Image.Image:
    """The photo as large as it fits into a box."""
    return ImageOps.contain(photo, (max(8, round(width)), max(8, round(height))), Image.Resampling.LANCZOS)


def pasted(ground: Image.Image, picture: Image.Image, x: float, y: float) -> Image.Image:
    """A picture on a ground, its corner at a place."""
    ground.paste(picture, (round(x), round(y)))
    return ground


def jpeg(photo: Image.Image, quality: int) -> Image.Image:
    """What JPEG leaves of the photo."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


# ---- inside another picture


def _phone(photo: Image.Image, rng: Random, ground: tuple[int, int, int], ink: tuple[int, int, int]) -> Image.Image:
    page, face = Page(540, 1100, ground), "DejaVuSans"
    page.text(24, 14, f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}", face, 20, ink)
    page.draw.ellipse((24, 60, 84, 120), fill=strong(rng))
    page.text(100, 74, name(rng), face, 24, ink)
    picture = fitted(photo, 540, 700)
    y = rng.randint(140, 260)
    pasted(page.picture, picture, (540 - picture.width) / 2, y)
    for row in range(rng.randint(2, 4)):
        page.text(24, y + picture.height + 30 + 36 * row, words(rng, 4), face, 20, ink)
    return page.picture


@edit
def phone_screenshot(photo: Image.Image, rng: Random) -> Image.Image:
    """In a light app on a phone."""
    return _phone(photo, rng, (255, 255, 255), (30, 30, 30))


@edit
def dark_phone_screenshot(photo: Image.Image, rng: Random) -> Image.Image:
    """In a dark app on a phone."""
    return _phone(photo, rng, (18, 18, 18), (230, 230, 230))


@edit
def web_page(photo: Image.Image, rng: Random) -> Image.Image:
    """In an article with another picture beside it."""
    page, ink = Page(1100, 800), strong(rng)
    page.box(0, 0, 1100, 70, ink)
    page.text(40, 20, words(rng, 2).upper(), "DejaVuSans-Bold", 30, (255, 255, 255))
    page.text(60, 100, words(rng, 5).title(), "DejaVuSerif-Bold", 32)
    picture = fitted(photo, 640, 480)
    pasted(page.picture, picture, 60, 160)
    page.lines(60, 175 + picture.height, [words(rng, 9) for _ in range(5)], "DejaVuSerif", 18, (50, 50, 50))
    pasted(page.picture, other(rng, 280, 180), 770, 160)
    page.lines(770, 360, [words(rng, 4) for _ in range(8)], "DejaVuSans", 16, ink, 1.8)
    return page.picture


def _collage(photo: Image.Image, rng: Random, columns: int, rows: int) -> Image.Image:
    cell, gap = 360, rng.choice([0, 8, 16])
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + gap) + gap), rng.choice([(255, 255, 255), (0, 0, 0)]))
    own = rng.randrange(columns * rows)
    for place in range(columns * rows):
        picture = ImageOps.fit(photo, (cell, cell)) if place == own else other(rng, cell, cell)
        pasted(sheet, picture, gap + (place % columns) * (cell + gap), gap + (place // columns) * (cell + gap))
    return sheet


@edit
def collage_of_two(photo: Image.Image, rng: Random) -> Image.Image:
    """Beside another picture."""
    return _collage(photo, rng, 2, 1)


@edit
def collage_of_four(photo: Image.Image, rng: Random) -> Image.Image:
    """Among three others."""
    return _collage(photo, rng, 2, 2)


@edit
def picture_in_picture(photo: Image.Image, rng: Random) -> Image.Image:
    """Large, with another picture in a corner."""
    inset = other(rng, photo.width // 3, photo.height // 3)
    return pasted(photo.copy(), inset, rng.choice([8, photo.width - inset.width - 8]), rng.choice([8, photo.height - inset.height - 8]))


@edit
def inset(photo: Image.Image, rng: Random) -> Image.Image:
    """Small, in a corner of another picture."""
    small = ImageOps.expand(fitted(photo, 420, 300), 4, (255, 255, 255))
    return pasted(other(rng, 1000, 700), small, rng.choice([20, 980 - small.width]), rng.choice([20, 680 - small.height]))


@edit
def polaroid(photo: Image.Image, rng: Random) -> Image.Image:
    """A print that lies on a table, a little turned."""
    picture = fitted(photo, 520, 520)
    card = Image.new("RGB", (picture.width + 50, picture.height + 140), (248, 246, 240))
    pasted(card, picture, 25, 25)
    ImageDraw.Draw(card).text((40, picture.height + 60), words(rng, 2), fill=(40, 40, 90), font=font("STIXGeneral", 34))
    table = relief(rng, 900, 900, 5)
    turned = card.convert("RGBA").rotate(rng.uniform(-9, 9), Image.Resampling.BICUBIC, expand=True)
    table.paste(turned, ((900 - turned.width) // 2, (900 - turned.height) // 2), turned)
    return table


@edit
def vertical_with_blurred_ground(photo: Image.Image, rng: Random) -> Image.Image:
    """In a vertical video, over itself out of focus."""
    ground = ImageEnhance.Brightness(ImageOps.fit(photo, (540, 960)).filter(ImageFilter.GaussianBlur(22))).enhance(0.8)
    picture = fitted(photo, 540, 960)
    return pasted(ground, picture, (540 - picture.width) / 2, (960 - picture.height) / 2)


@edit
def square_with_blurred_ground(photo: Image.Image, rng: Random) -> Image.Image:
    """In a square, over itself out of focus."""
    picture = fitted(photo, 640, 640)
    ground = ImageOps.fit(photo, (720, 720)).filter(ImageFilter.GaussianBlur(25))
    return pasted(ground, picture, (720 - picture.width) / 2, (720 - picture.height) / 2)


@edit
def photographed_from_a_screen(photo: Image.Image, rng: Random) -> Image.Image:
    """Seen from one side, with the screen's edge and its light."""
    width, height = photo.size
    frame = ImageOps.expand(photo, max(6, width // 25), (15, 15, 15))
    corners = np.array([[0, 0], [frame.width, 0], [frame.width, frame.height], [0, frame.height]], np.float32)
    moved = corners + np.array([[rng.uniform(-0.06, 0.06) * width, rng.uniform(-0.06, 0.06) * height] for _ in range(4)], np.float32)
    moved += np.array([0.1 * width, 0.1 * height], np.float32)
    size = (round(frame.width * 1.2), round(frame.height * 1.2))
    seen = cv2.warpPerspective(np.asarray(frame), cv2.getPerspectiveTransform(corners, moved), size, borderValue=(60, 58, 55)).astype(
        np.float32
    )
    seen *= np.linspace(0.85, 1.1, size[0])[None, :, None]
    return Image.fromarray(cv2.GaussianBlur(seen, (0, 0), 0.8).clip(0, 255).astype(np.uint8))


# ---- cut, turned and stretched


@edit
def centre_half(photo: Image.Image, rng: Random) -> Image.Image:
    """The middle, half of each side."""
    return photo.crop((photo.width // 4, photo.height // 4, photo.width * 3 // 4, photo.height * 3 // 4))


@edit
def corner_half(photo: Image.Image, rng: Random) -> Image.Image:
    """A corner, half of each side."""
    left, top = rng.choice([0, photo.width // 2]), rng.choice([0, photo.height // 2])
    return photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))


@edit
def upright_part(photo: Image.Image, rng: Random) -> Image.Image:
    """A vertical part of a wide photo, over its whole height."""
    width = min(photo.width, round(photo.height * 9 / 16))
    left = rng.randint(0, photo.width - width)
    return photo.crop((left, 0, left + width, photo.height))


@edit
def square_part(photo: Image.Image, rng: Random) -> Image.Image:
    """The square in the middle."""
    return ImageOps.fit(photo, (min(photo.size),) * 2)


@edit
def mirrored(photo: Image.Image, rng: Random) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(photo)


@edit
def on_its_side(photo: Image.Image, rng: Random) -> Image.Image:
    """Turned by a quarter."""
    return photo.transpose(rng.choice([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270]))


@edit
def slanted(photo: Image.Image, rng: Random) -> Image.Image:
    """Turned a little, with black corners."""
    return photo.rotate(rng.choice([-1, 1]) * rng.uniform(3, 8), Image.Resampling.BICUBIC, expand=True)


@edit
def straightened(photo: Image.Image, rng: Random) -> Image.Image:
    """Turned a little and cut to what is inside."""
    angle = math.radians(rng.uniform(2, 4))
    turned = photo.rotate(math.degrees(angle), Image.Resampling.BICUBIC)
    dx, dy = photo.height * math.sin(angle) / 2, photo.width * math.sin(angle) / 2
    return turned.crop((round(dx), round(dy), round(photo.width - dx), round(photo.height - dy)))


@edit
def squashed(photo: Image.Image, rng: Random) -> Image.Image:
    """Stretched to the shape of a television."""
    return photo.resize(
        (round(photo.height * 16 / 9), photo.height) if photo.width < photo.height * 1.6 else (photo.width, round(photo.width * 3 / 4))
    )


# ---- colours


@edit
def inverted(photo: Image.Image, rng: Random) -> Image.Image:
    """A negative."""
    return ImageOps.invert(photo)


@edit
def grey(photo: Image.Image, rng: Random) -> Image.Image:
    """Without colours."""
    return photo.convert("L").convert("RGB")


@edit
def sepia(photo: Image.Image, rng: Random) -> Image.Image:
    """Brown, as old photos are."""
    return ImageOps.colorize(photo.convert("L"), (45, 28, 12), (250, 235, 200))


@edit
def duotone(photo: Image.Image, rng: Random) -> Image.Image:
    """Two strong colours."""
    return ImageOps.colorize(photo.convert("L"), dark(rng), strong(rng))


@edit
def filtered(photo: Image.Image, rng: Random) -> Image.Image:
    """A warm filter with a vignette and less contrast."""
    values = np.asarray(ImageEnhance.Contrast(photo).enhance(0.8)).astype(np.float32) * [1.12, 1.0, 0.82] + 12
    y, x = np.mgrid[-1 : 1 : photo.height * 1j, -1 : 1 : photo.width * 1j]
    return Image.fromarray((values * (1 - 0.35 * (x**2 + y**2))[..., None]).clip(0, 255).astype(np.uint8))


@edit
def high_contrast(photo: Image.Image, rng: Random) -> Image.Image:
    """Contrast and colours turned up until they clip."""
    return ImageEnhance.Color(ImageEnhance.Contrast(photo).enhance(1.9)).enhance(1.6)


@edit
def posterised(photo: Image.Image, rng: Random) -> Image.Image:
    """Sixteen colours."""
    return photo.quantize(16).convert("RGB")


@edit
def halftone(photo: Image.Image, rng: Random) -> Image.Image:
    """Black dots on white, as in a newspaper."""
    return photo.convert("1").convert("RGB")


@edit
def noisy(photo: Image.Image, rng: Random) -> Image.Image:
    """Grain of a night photo."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 22, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))


@edit
def thumbnail(photo: Image.Image, rng: Random) -> Image.Image:
    """A thumbnail of 96 pixels."""
    return fitted(photo, 96, 96)


@edit
def jpeg_over_and_over(photo: Image.Image, rng: Random) -> Image.Image:
    """Saved as a JPEG of low quality again and again, in other sizes."""
    for _ in range(4):
        photo = jpeg(
            photo.resize((round(photo.width * rng.uniform(0.8, 1.1)), round(photo.height * rng.uniform(0.8, 1.1)))), rng.randint(12, 35)
        )
    return photo


# ---- laid over it


@edit
def stickers(photo: Image.Image, rng: Random) -> Image.Image:
    """Stickers over a quarter of it."""
    page = Page(*photo.size)
    page.picture.paste(photo)
    for _ in range(6):
        size = min(photo.size) * rng.uniform(0.2, 0.34)
        figure(rng, page, rng.uniform(0, photo.width - size), rng.uniform(0, photo.height - size), size, strong(rng), strong(rng))
    return page.picture


@edit
def play_button(photo: Image.Image, rng: Random) -> Image.Image:
    """The button and bar of a video."""
    picture = photo.copy()
    draw, r, x, y = ImageDraw.Draw(picture), min(photo.size) * 0.14, photo.width / 2, photo.height / 2
    draw.ellipse((x - r, y - r, x + r, y + r), fill=rng.choice([(20, 20, 20), (230, 30, 30), (255, 255, 255)]))
    draw.polygon((x - r * 0.35, y - r * 0.5, x - r * 0.35, y + r * 0.5, x + r * 0.55, y), fill=(200, 200, 200))
    draw.rectangle((0, photo.height * 0.96, photo.width * rng.random(), photo.height), fill=(230, 30, 30))
    return picture


@edit
def subtitles_under_a_letterbox(photo: Image.Image, rng: Random) -> Image.Image:
    """Black bars, with words in the lower one."""
    bar = photo.height // 6
    picture = pasted(Image.new("RGB", (photo.width, photo.height + 2 * bar)), photo, 0, bar)
    place = (photo.width / 2, photo.height + 1.5 * bar)
    ImageDraw.Draw(picture).text(place, words(rng, 4), fill=(255, 255, 255), font=font("DejaVuSans", max(10, bar // 3)), anchor="mm")
    return picture


@edit
def meme_text(photo: Image.Image, rng: Random) -> Image.Image:
    """Large words at the top and the bottom."""
    picture, size = photo.copy(), max(14, photo.width // 14)
    for y in (photo.height * 0.1, photo.height * 0.9):
        text: dict[str, Any] = {
            "font": font("DejaVuSans-Bold", size),
            "anchor": "mm",
            "stroke_width": max(1, size // 14),
            "stroke_fill": (0, 0, 0),
        }
        ImageDraw.Draw(picture).text((photo.width / 2, y), words(rng, 3).upper(), fill=(255, 255, 255), **text)
    return picture


@edit
def post_with_text_above(photo: Image.Image, rng: Random) -> Image.Image:
    """A white bar with a joke above it."""
    bar, size = photo.height // 4, max(12, photo.width // 22)
    picture = pasted(Image.new("RGB", (photo.width, photo.height + bar), (255, 255, 255)), photo, 0, bar)
    for row in range(2):
        ImageDraw.Draw(picture).text((20, 12 + row * size * 1.5), words(rng, 6), fill=(0, 0, 0), font=font("DejaVuSans", size))
    return picture


@edit
def watermark_of_a_stock(photo: Image.Image, rng: Random) -> Image.Image:
    """A firm's name all over it."""
    layer = Image.new("L", photo.size)
    text, size = name(rng), max(12, photo.width // 16)
    for y in range(0, photo.height, size * 3):
        for x in range(-(y // (size * 3) % 2) * size * 3, photo.width, size * 8):
            ImageDraw.Draw(layer).text((x, y), text, fill=90, font=font("DejaVuSans-Bold", size))
    return Image.composite(Image.new("RGB", photo.size, (255, 255, 255)), photo, layer)


@edit
def doodles(photo: Image.Image, rng: Random) -> Image.Image:
    """Arrows and circles drawn by hand."""
    picture = photo.copy()
    for _ in range(4):
        x, y, points = rng.uniform(0.1, 0.9) * photo.width, rng.uniform(0.1, 0.9) * photo.height, []
        for _ in range(30):
            x, y = x + rng.gauss(0, photo.width / 40), y + rng.gauss(0, photo.height / 40)
            points.append((x, y))
        ImageDraw.Draw(picture).line(points, fill=strong(rng), width=max(3, photo.width // 80), joint="curve")
    return picture


@edit
def framed(photo: Image.Image, rng: Random) -> Image.Image:
    """A wide frame of one colour with a fine line."""
    frame = ImageOps.expand(photo, max(4, photo.width // 90), dark(rng))
    return ImageOps.expand(frame, photo.width // 8, pale(rng))


# ---- one after the other


@edit
def screenshot_of_a_meme(photo: Image.Image, rng: Random) -> Image.Image:
    """Words over it, saved badly, then seen on a phone."""
    return jpeg(phone_screenshot(jpeg(meme_text(photo, rng), 30), rng), 40)


@edit
def mirrored_filtered_part(photo: Image.Image, rng: Random) -> Image.Image:
    """Mirrored, cut to 80% of each side and filtered."""
    width, height = photo.width, photo.height
    return filtered(ImageOps.mirror(photo).crop((width // 10, height // 10, width * 9 // 10, height * 9 // 10)), rng)


@edit
def framed_grey_thumbnail(photo: Image.Image, rng: Random) -> Image.Image:
    """Grey, framed, and small."""
    return fitted(framed(grey(photo, rng), rng), 160, 160)
