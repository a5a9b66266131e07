"""Draw pairs that were judged: the two pictures, one laid over the other, and the verdict.

python benchmarks/plot_pairs.py docs/pairs.jpg

Copies and look-alikes are made from the demo's photos and scenes, so that anyone can draw them again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dedup.demo.pictures import photo_scenes, procedural_scene
from dedup.numerics.image.planting import plant
from dedup.numerics.judge.compare import REASONS, Verdict, compare
from dedup.numerics.judge.picture import Picture

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT, GAP, TEXT = 210, 160, 8, 34
SEED = 5


def pairs() -> Iterator[tuple[str, Pixels, Pixels]]:
    """What was done to the second picture, and the two."""
    rng = np.random.default_rng(SEED)
    photos = [photo.pixels for photo in photo_scenes()]
    first, second = photos[0], photos[1 % len(photos)]
    ridges, skyline = (procedural_scene(np.random.default_rng(seed), (400, 320), kind) for seed, kind in ((3, "ridges"), (4, "skyline")))
    for text, name, picture in (
        ("cropped to 70%, off centre", "crop_off_70", first),
        ("a caption over a fifth of it", "caption_over_20", second),
        ("rotated by 15 degrees", "rotate_15", ridges),
        ("a watermark all over", "watermark_60", first),
        ("a screenshot of it", "screenshot_10", skyline),
        ("JPEG of quality 3", "jpeg_3", second),
    ):
        yield text, picture, plant(picture, name, rng)
    other = second.copy()
    height, width, _ = other.shape
    middle = (slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4))
    other[middle] = other[middle][:, :, [2, 0, 1]]
    yield "another colour of the subject", second, other
    yield "a second shot from beside", first, parallax(first, rng)
    yield "the subject has moved", ridges, moved(ridges)
    for text, seed in (("another subject before it", 12),):
        yield text, subject(skyline, 11), subject(skyline, seed)


def parallax(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """The scene seen from a little to the side: near things move more than far ones."""
    height, width, _ = photo.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    depth = cv2.resize(rng.standard_normal((4, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    shifted = cv2.remap(photo, x + depth / np.abs(depth).max() * 0.04 * width, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(shifted, dtype=np.uint8)


def moved(photo: Pixels) -> Pixels:
    """The middle of the picture shifted."""
    height, width, _ = photo.shape
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (0.3 * height)) ** 2 + ((x - width / 2) / (0.3 * width)) ** 2 < 1
    return np.where(inside[:, :, None], np.roll(photo, (height // 20, width // 14), axis=(0, 1)), photo)


def subject(background: Pixels, seed: int) -> Pixels:
    """A separate subject in front of a background."""
    height, width, _ = background.shape
    picture = background.copy()
    thing = procedural_scene(np.random.default_rng(seed), (width // 3, height // 2), "mosaic")
    picture[height // 4 : height // 4 + thing.shape[0], width // 3 : width // 3 + thing.shape[1]] = thing
    return picture


def overlay(a: Pixels, b: Pixels, verdict: Verdict) -> Pixels:
    """The difference between the first picture and the second aligned to it, grey where they agree."""
    height, width, _ = a.shape
    to_first = np.diag([b.shape[1], b.shape[0]]) @ verdict.matrix @ np.diag([1 / width, 1 / height, 1.0])
    laid = cv2.warpAffine(b, to_first, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=(128, 128, 128))
    return np.clip(128 + (a.astype(np.int16) - laid) // 2, 0, 255).astype(np.uint8)


def main(out: str) -> None:
    judged = [(text, a, b, compare(Picture(a), Picture(b))) for text, a, b in pairs()]
    rows = -(-len(judged) // 2)
    sheet = Image.new("RGB", (2 * (3 * (WIDTH + GAP) + 3 * GAP), rows * (HEIGHT + TEXT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (text, a, b, verdict) in enumerate(judged):
        left, top = (number % 2) * (3 * (WIDTH + GAP) + 3 * GAP) + GAP, (number // 2) * (HEIGHT + TEXT + GAP) + GAP
        for column, pixels in enumerate((a, b, overlay(a, b, verdict))):
            picture = Image.fromarray(pixels)
            picture.thumbnail((WIDTH, HEIGHT))
            sheet.paste(picture, (left + column * (WIDTH + GAP) + (WIDTH - picture.width) // 2, top + (HEIGHT - picture.height) // 2))
        word = "copy" if verdict.is_copy else f"refused: {verdict.reason}"
        line = f"{text}: {word}, distance {verdict.distance:.3f}" + (f", moved {verdict.moved:.0%}" if verdict.moved else "")
        draw.text((left, top + HEIGHT + 4), line, fill=(20, 110, 40) if verdict.is_copy else (170, 30, 30), font=font)
        print(line, f"({REASONS[verdict.reason]})" if verdict.reason else "")
    sheet.save(out, quality=82)


if __name__ == "__main__":
    main(sys.argv[1])
