"""An image opened with Pillow: its frames, and what its container says about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from dedup.errors import unsupported
from dedup.storage.images.deep import is_grey_of_many_bits, png_to_8_bits, tiff_to_8_bits, widen_planes
from dedup.storage.images.formats import largest_icon, open_image
from dedup.storage.images.frames import WINDOW, Timeline, gif_frames, webp_frames
from dedup.storage.images.jpeg import JpegHead
from dedup.storage.images.png import PngFile, read_png
from dedup.storage.images.tiff import Page, full_pages, read_pages
from dedup.storage.images.tones import scaled

_MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
_WITH_ALPHA: Final = ("RGBA", "RGBa", "LA", "La", "PA")
_MAY_HAVE_ALPHA: Final = ("1", "L", "P", "RGB")  # with a transparent colour

Check = Callable[[int, int], None]  # takes width and height, raises SampleError if they are too large


@dataclass
class Source:
    """An image that is open; frames are loaded in ascending order."""

    image: Any
    check: Check
    exif: bytes = b""
    profile: bytes = b""  # ICC
    frames: Timeline = field(default_factory=Timeline)
    png: PngFile | None = None
    pages: list[Page] = field(default_factory=list)
    reopen: Callable[[bytes], Any] | None = None  # opens bytes of the same format
    data: bytes = b""

    @property
    def n_pixels(self) -> int:
        """Of one frame, on the canvas of all."""
        return max(int(self.image.width * self.image.height), self.frames.width * self.frames.height)

    def load(self, number: int) -> Image.Image:
        """A frame of 8 bits, at full size: mode L, LA, RGB, RGBA or CMYK, with alpha only where something is transparent.

        Raises SampleError if it is too large, and whatever Pillow raises for broken bytes.
        """
        page = self.pages[number] if self.pages else None
        self._seek(self.image, number)
        self.check(*self.image.size)
        self.image.load()
        if self.png is not None and self.png.depth == 16 and self.reopen is not None and not number:
            return plain(png_to_8_bits(self.image, self.png, self.reopen))
        if page is not None:
            return plain(tiff_to_8_bits(self.image, page, lambda: self._reopened(number)))
        return plain(self.image)

    def _seek(self, image: Any, number: int) -> None:
        page = self.pages[number] if self.pages else None
        place = page.number if page else number
        if place != image.tell():
            image.seek(place)
        if page is not None:
            image.info.pop("xmp", None)  # whose orientation would be applied
            widen_planes(image, page, "L" if self.data[:2] == b"II" else "B")

    def _reopened(self, number: int) -> Any:
        image = self.reopen(self.data) if self.reopen else None
        self._seek(image, number)
        return image


def open_source(data: bytes, kind: str, head: JpegHead | None, check: Check) -> Source:
    """Open an image of the format that `sniff` found.

    `head`: of a JPEG.
    Raises SampleError if it is too large or its format can't be read, and whatever Pillow raises for broken bytes.
    """
    if kind == "ICO":
        icon = largest_icon(data, check)
        if not isinstance(icon, bytes):
            return Source(icon, check)
        data, kind = icon, "PNG"
    if kind == "PNG":
        return _open_png(data, check)
    if kind == "TIFF":
        return _open_tiff(data, check)
    image = open_image(data, kind, check)
    check(*image.size)
    if head is not None:
        return Source(image, check, head.exif, head.profile)
    frames = {"GIF": gif_frames, "WebP": webp_frames}.get(kind)
    timeline = frames(data) if frames else Timeline([], getattr(image, "n_frames", 1) if kind == "AVIF" else 1)
    # libjxl turns a picture itself, except one that it hands out as the JPEG it was made of
    exif = b"" if kind == "JPEG XL" and not image.jpeg else _bytes_of(image, "exif")
    return Source(image, check, exif, _bytes_of(image, "icc_profile"), timeline)


def _open_png(data: bytes, check: Check) -> Source:
    png = read_png(data)
    if png.width and png.height:
        check(png.width, png.height)
    image = open_image(png.data, "PNG", check)
    n_frames = getattr(image, "n_frames", 1)  # which is 1 if the animation is broken
    timeline = Timeline(png.frames.delays, max(1, min(n_frames, png.frames.n_frames)))
    return Source(image, check, png.exif, png.profile, timeline, png, reopen=lambda other: open_image(other, "PNG", check))


def _open_tiff(data: bytes, check: Check) -> Source:
    pages = full_pages(read_pages(data))
    try:
        image = open_image(data, "TIFF", check)
        if pages and pages[0].number:
            image.seek(pages[0].number)
    except (SyntaxError, ValueError, KeyError) as error:
        if pages and "unknown" in str(error):
            raise unsupported(f"TIFF of {pages[0].describe()}, which Pillow can't read ({error})") from error
        raise
    check(*image.size)
    width, height = (max((getattr(page, side) for page in pages[:WINDOW]), default=0) for side in ("width", "height"))
    timeline = Timeline([], max(len(pages), 1), width, height)
    profile = _bytes_of(image, "icc_profile")
    return Source(
        image, check, profile=profile, frames=timeline, pages=pages, data=data, reopen=lambda other: open_image(other, "TIFF", check)
    )


def _bytes_of(image: Image.Image, name: str) -> bytes:
    value = image.info.get(name)
    return value if isinstance(value, bytes) and len(value) <= _MAX_PROFILE_BYTES else b""


def plain(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to L, LA, RGB, RGBA or CMYK; with alpha only if something is transparent.

    `image`: of any mode that Pillow reads: 1, L, P, RGB, LA, La, PA, RGBA, RGBa, RGBX, CMYK, YCbCr, LAB, HSV, I;16…, I, F.
    Raises ValueError if Pillow can't convert that mode.
    """
    mode = image.mode
    if is_grey_of_many_bits(image):  # PNG and TIFF come as 8 bits; what other formats store, Pillow scales to 16
        return Image.fromarray(scaled(np.asarray(image), 65535.0))
    if mode == "LAB":  # Pillow converts LAB only through a colour profile
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        return converted if converted is not None else image
    if mode == "La":
        image = image.convert("LA")
    is_grey = image.mode in ("1", "L", "LA")
    if image.mode in _WITH_ALPHA or ("transparency" in image.info and mode in _MAY_HAVE_ALPHA):
        image = image.convert("RGBA")
        channels = image.split()
        is_opaque = channels[3].getextrema()[0] == 255
        if is_grey:
            return channels[0] if is_opaque else Image.merge("LA", (channels[0], channels[3]))
        return image.convert("RGB") if is_opaque else image
    return image if mode in ("L", "CMYK") else image.convert("L" if is_grey else "RGB")
