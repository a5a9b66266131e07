"""Encoded images to pixels: every format that is read, of any colour mode, to 8-bit sRGB."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.errors import SampleError
from dedup.storage.images.colour import Transform, to_srgb
from dedup.storage.images.formats import sniff
from dedup.storage.images.frames import contact_sheet, differ, frames_to_look_at
from dedup.storage.images.ground import flatten
from dedup.storage.images.jpeg import JpegHead, decode_scaled, read_head
from dedup.storage.images.origin import date_of, quality_of
from dedup.storage.images.png import read_png
from dedup.storage.images.source import Source, open_source

_Pixels = npt.NDArray[np.uint8]

# Of the rules by which bytes become pixels; part of the encoders' fingerprints. Raise it whenever any picture decodes otherwise.
RULES: Final = 2

_EARLY_ENDS: Final = ("truncated", "unexpected end", "premature", "end of file", "not enough", "ran out of data")
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class DecodedImage:
    """Pixels of one image."""

    # shape (height, width, 3); RGB, C-contiguous; smaller than the image if a `min_side` was given, up to twice its sides if it is a
    # contact sheet of several frames
    pixels: _Pixels
    # width, height: size of the full image in pixels, of one frame if there are several; EXIF orientation applied
    width: int
    height: int
    # left, top, right, bottom of the picture inside `pixels`, in pixels. A reduced image ends inside its last column and row: 350
    # pixels at 3/8 are 131.25 of 132 columns, and a resize that took all 132 would stretch it.
    box: tuple[float, float, float, float]
    n_frames: int = 1  # of an animation, or pages; at most 65,536 are counted
    format: str = ""
    jpeg_quality: int = 0  # 1 to 100; 0 = no JPEG, or not known
    exif_date: str = ""  # ``YYYY-MM-DD HH:MM:SS``, of a JPEG; '' = not known


def decode_image(data: bytes, *, max_pixels: int, min_side: int | None = None) -> DecodedImage:
    """Decode an image of any format in `dedup.storage.images.formats`; docs/images.md tells the rules.

    EXIF orientation is applied (XMP's never), embedded colour profiles are converted to sRGB, transparency lies on a ground that shows
    what is visible (white where that will do), more than 8 bits are scaled by the range they use. Several frames or pages that differ
    become a contact sheet of four.

    `data`: the encoded image; its first bytes tell the format, never a name.
    `max_pixels`: larger images are refused before a pixel is decoded. Of several frames no more are decoded than have so many pixels
    together, but always the first.
    `min_side`: the image may be reduced while it is decoded, as long as both sides keep this many pixels; a smaller image keeps its size.
    JPEGs are reduced by libjpeg in eighths, others by box averages over whole pixels. None decodes at full size.
    Raises SampleError with the reason empty_image, undecodable_image, truncated_image, unsupported_format or too_many_pixels.
    """
    if not data:
        raise SampleError("empty_image", "the image has zero bytes")
    kind = sniff(data)
    head = read_head(data) if kind == "JPEG" else None
    image = _decode_kind(data, kind, head, max_pixels, min_side)
    if head is None:
        return replace(image, format=kind)
    return replace(image, format=kind, jpeg_quality=quality_of(head.luminance), exif_date=date_of(head.exif))


def _decode_kind(data: bytes, kind: str, head: JpegHead | None, max_pixels: int, min_side: int | None) -> DecodedImage:
    """Decode an image of a known kind."""
    if head is not None:
        _check_pixels(head.width, head.height, max_pixels)
        scaled = decode_scaled(data, head, min_side)
        if scaled is not None:
            return _decoded_jpeg(*scaled, head)
    try:
        with warnings.catch_warnings():
            # Damaged metadata makes Pillow warn; only the pixels count, and a library must not leak warnings.
            warnings.simplefilter("ignore")
            source = open_source(data, kind, head, lambda width, height: _check_pixels(width, height, max_pixels))
            return _decode(source, max_pixels, min_side)
    except SampleError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, see formats.py
        raise SampleError("too_many_pixels", f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if it is to be read.") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ValueError, MemoryError and more for broken bytes
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if any(words in text.lower() for words in _EARLY_ENDS) or _ends_early(data, kind):
            raise SampleError("truncated_image", f"{kind} of {len(data)} bytes ends early: {text}") from error
        raise SampleError("undecodable_image", f"{kind} of {len(data)} bytes: {text}") from error


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise SampleError("undecodable_image", f"a size of {width} x {height} pixels")
    if width * height > max_pixels:
        raise SampleError("too_many_pixels", f"{width} x {height} pixels, input.max_pixels={max_pixels}")


def _decoded_jpeg(pixels: _Pixels, scale: float, head: JpegHead) -> DecodedImage:
    """What libjpeg-turbo decoded, in sRGB and upright."""
    transform = to_srgb(head.profile)
    if transform is not None and transform.mode in ("RGB", "L"):
        is_grey = head.n_components == 1
        if is_grey == (transform.mode == "L"):
            pixels = np.array(transform(Image.fromarray(pixels[:, :, 0] if is_grey else pixels)))
    return _oriented(pixels, head.width, head.height, orientation_of(head.exif), scale)


def _decode(source: Source, max_pixels: int, min_side: int | None) -> DecodedImage:
    """Decode what Pillow opened: one frame, or a sheet of four that differ."""
    numbers = frames_to_look_at(source.frames, source.n_pixels, max_pixels)
    transform = to_srgb(source.profile)
    first = source.load(numbers[0])
    if len(numbers) > 1:
        first = first.copy()  # of an image that later frames are loaded into
    width, height = first.size
    # read after loading: TIFF applies its own orientation
    orientation = orientation_of(source.exif)
    sides = 2 * min(width, height) if len(numbers) > 1 else min(width, height)
    factor = max(1, sides // min_side) if min_side else 1
    if len(numbers) > 1:
        frames = [_in_srgb(_reduced(first, factor), transform), *_further_frames(source, numbers[1:], factor, transform)]
        if len(frames) == len(numbers) and differ(frames):
            upright = [frame.transpose(_TURNS[orientation]) if orientation in _TURNS else frame for frame in frames]
            sheet = _flat(contact_sheet(upright))
            if orientation >= 5:
                width, height = height, width
            return DecodedImage(np.array(sheet), width, height, (0.0, 0.0, float(sheet.width), float(sheet.height)), source.frames.n_frames)
        factor = max(1, min(width, height) // min_side) if min_side else 1
    rgb = _flat(_in_srgb(_reduced(first, factor), transform))
    return _oriented(np.array(rgb), width, height, orientation, 1 / factor, source.frames.n_frames)


def _further_frames(source: Source, numbers: list[int], factor: int, transform: Transform | None) -> list[Image.Image]:
    """Frames after the first; fewer than asked for if one is broken or too large: then the first stands for all."""
    frames: list[Image.Image] = []
    try:
        for before, number in zip((0, *numbers), numbers, strict=False):
            if number == before and frames:
                frames.append(frames[-1])
            else:
                frames.append(_in_srgb(_reduced(source.load(number), factor), transform))
    except Exception:  # Pillow raises anything; what shows at first was read
        return []
    return frames


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    return image.reduce(factor) if factor > 1 else image


def _in_srgb(image: Image.Image, transform: Transform | None) -> Image.Image:
    """A picture as mode RGB or RGBA; `image`: of mode L, LA, RGB, RGBA or CMYK."""
    is_grey = image.mode in ("L", "LA")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if transform is None or transform.mode != ("L" if is_grey else image.mode.removesuffix("A")):
        return image.convert("RGB" if alpha is None else "RGBA")
    converted = transform(image.getchannel(0) if is_grey else image.convert(transform.mode))
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _flat(image: Image.Image) -> Image.Image:
    return flatten(image) if image.mode == "RGBA" else image


def _ends_early(data: bytes, kind: str) -> bool:
    """Whether the format itself says that bytes are missing."""
    if kind == "JPEG":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if kind == "PNG":
        return not read_png(data).is_complete
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b"\x3b")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    return False


_ORIENTATION: Final = 0x0112


def orientation_of(exif: bytes) -> int:
    """The orientation that EXIF gives, 1 to 8; 1 without, or if it is broken or none of these.

    `exif`: a TIFF structure, with or without ``Exif`` before it. XMP's orientation never counts, as in browsers.
    """
    if not exif:
        return 1
    try:
        found = Image.Exif()
        found.load(exif)
        value = found.get(_ORIENTATION, 1)
    except Exception:  # broken metadata must not lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _oriented(pixels: _Pixels, width: int, height: int, orientation: int, scale: float, n_frames: int = 1) -> DecodedImage:
    """Apply an EXIF orientation; `width` and `height` are those of the stored image, `scale` the factor it was reduced by."""
    if orientation >= 5:
        pixels, width, height = pixels.transpose(1, 0, 2), height, width
    left, top, right, bottom = 0.0, 0.0, width * scale, height * scale
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
        left, right = pixels.shape[1] - right, float(pixels.shape[1])
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
        top, bottom = pixels.shape[0] - bottom, float(pixels.shape[0])
    return DecodedImage(np.ascontiguousarray(pixels), width, height, (left, top, right, bottom), n_frames)
