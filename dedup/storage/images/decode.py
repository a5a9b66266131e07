"""Encoded images to pixels: JPEG, PNG, WebP, GIF, BMP and TIFF of any colour mode to 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dedup.errors import SampleError

_Pixels = npt.NDArray[np.uint8]

# The plugins are called directly: Image.open would check Pillow's own pixel limit, a global that belongs to the importing
# program, and the caller's limit is checked here anyway. The WebP and TIFF plugins still enforce twice Pillow's limit
# (358 million pixels), so max_pixels can't go beyond it for those.
_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}

_ORIENTATION: Final = 0x0112
_HEAD_BYTES: Final = 64 * 1024
_EARLY_ENDS: Final = ("truncated", "unexpected end", "premature", "end of file", "not enough", "ran out of data")


@dataclass(frozen=True)
class DecodedImage:
    """Pixels of one image."""

    pixels: _Pixels  # shape (height, width, 3); RGB, C-contiguous; smaller than the image if a `min_side` was given
    # width, height: size of the full image in pixels, EXIF orientation applied
    width: int
    height: int
    # left, top, right, bottom of the picture inside `pixels`, in pixels. A reduced image ends inside its last column and row: 350
    # pixels at 3/8 are 131.25 of 132 columns, and a resize that took all 132 would stretch it.
    box: tuple[float, float, float, float]


def decode_image(data: bytes, *, max_pixels: int, min_side: int | None = None) -> DecodedImage:
    """Decode a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF (first page).

    EXIF orientation is applied, transparency composited on white, every colour mode brought to 8-bit RGB: 16-bit grey by
    its full range, 32-bit and float grey by the range they use (see `grey_to_8_bits`).

    `data`: the encoded image; its first bytes tell the format, never a name.
    `max_pixels`: larger images are refused before a pixel is decoded.
    `min_side`: the image may be reduced while it is decoded, as long as both sides keep this many pixels; a smaller image keeps its size.
    JPEGs are reduced by libjpeg in eighths, others by box averages over whole pixels. None decodes at full size.
    Raises SampleError with the reason empty_image, undecodable_image, truncated_image, unsupported_format or too_many_pixels.
    """
    if not data:
        raise SampleError("empty_image", "the image has zero bytes")
    kind = _sniff(data)
    if kind == "JPEG":
        decoded = _decode_jpeg(data, max_pixels, min_side)
        if decoded is not None:
            return decoded
    try:
        with warnings.catch_warnings():
            # Damaged metadata makes Pillow warn; only the pixels count, and a library must not leak warnings.
            warnings.simplefilter("ignore")
            return _decode_pillow(data, kind, max_pixels, min_side)
    except SampleError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, see above
        raise SampleError("too_many_pixels", f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if it is to be read.") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ValueError, MemoryError and more for broken bytes
        text = " ".join(str(error).split())[:200]
        if any(words in text.lower() for words in _EARLY_ENDS) or _ends_early(data, kind):
            raise SampleError("truncated_image", f"{kind} of {len(data)} bytes ends early: {text or type(error).__name__}") from error
        raise SampleError("undecodable_image", f"{kind} of {len(data)} bytes: {text or type(error).__name__}") from error


def _sniff(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    unsupported = {
        "AVIF or HEIC": data[4:8] == b"ftyp",
        "JPEG XL": data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")),
        "JPEG 2000": data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
        "SVG": b"<svg" in data[:1024],
        "ICO": data.startswith(b"\0\0\1\0"),
        "PSD": data.startswith(b"8BPS"),
        "PDF": data.startswith(b"%PDF"),
    }
    for name, is_match in unsupported.items():
        if is_match:
            raise SampleError("unsupported_format", f"{name}; only JPEG, PNG, WebP, GIF, BMP and TIFF are read")
    raise SampleError("undecodable_image", f"no image: {len(data)} bytes that begin with {data[:8]!r}")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise SampleError("undecodable_image", f"a size of {width} x {height} pixels")
    if width * height > max_pixels:
        raise SampleError("too_many_pixels", f"{width} x {height} pixels, input.max_pixels={max_pixels}")


def _decode_jpeg(data: bytes, max_pixels: int, min_side: int | None) -> DecodedImage | None:
    """Decode with libjpeg-turbo; None leaves the image to Pillow, which reads CMYK and tolerates more damage."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, MemoryError):
        return None
    _check_pixels(width, height, max_pixels)
    if space in ("CMYK", "YCCK"):
        return None
    side = min_side or 0
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side)
    except (ValueError, MemoryError):
        if data.rstrip(b"\0").endswith(b"\xff\xd9"):
            return None
        try:  # all pixels may be there and only the end marker missing: appending it repairs the file
            pixels = simplejpeg.decode_jpeg(data + b"\xff\xd9", "RGB", min_height=side, min_width=side)
        except (ValueError, MemoryError):
            return None
    # Parsing EXIF costs up to a tenth of the decoding, and most images on the web have none.
    orientation = _jpeg_orientation(data) if b"Exif" in data[:_HEAD_BYTES] else 1
    eighths = next((n for n in range(1, 9) if (-(-height * n // 8), -(-width * n // 8)) == pixels.shape[:2]), 8)
    return _oriented(pixels, width, height, orientation, eighths / 8)


def _jpeg_orientation(data: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _orientation(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
        except Exception:  # broken metadata must not lose the image
            return 1


def _decode_pillow(data: bytes, kind: str, max_pixels: int, min_side: int | None) -> DecodedImage:
    image: Image.Image = _PLUGINS[kind](io.BytesIO(data))
    _check_pixels(*image.size, max_pixels)
    image.load()
    # Read after loading: PNG's EXIF may follow the pixels, and TIFF applies its own orientation and drops the tag.
    orientation = _orientation(image)
    rgb = to_rgb(image)
    width, height = rgb.size
    factor = max(1, min(width, height) // min_side) if min_side else 1
    if factor > 1:
        rgb = rgb.reduce(factor)
    return _oriented(np.array(rgb, dtype=np.uint8), width, height, orientation, 1 / factor)


def _ends_early(data: bytes, kind: str) -> bool:
    """Whether the format itself says that bytes are missing."""
    if kind == "JPEG":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if kind == "PNG":
        return b"IEND" not in data[-64 * 1024 :]
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b"\x3b")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    return False


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken metadata must not lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _oriented(pixels: _Pixels, width: int, height: int, orientation: int, scale: float) -> DecodedImage:
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
    return DecodedImage(np.ascontiguousarray(pixels), width, height, (left, top, right, bottom))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to RGB; transparency is composited on white.

    `image`: of any mode that Pillow reads: 1, L, P, RGB, LA, La, PA, RGBA, RGBa, RGBX, CMYK, YCbCr, LAB, HSV, I;16…, I, F.
    Returns mode RGB, the same size.
    Raises ValueError if Pillow can't convert that mode.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(grey_to_8_bits(np.asarray(image))).convert("RGB")
    if mode == "LAB":  # Pillow converts LAB only through a colour profile
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        return converted if converted is not None else image
    if mode == "La":
        image = image.convert("LA")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or ("transparency" in image.info and mode in ("1", "L", "P", "RGB")):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def grey_to_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Convert grey of more than 8 bits to 8.

    `values`: shape (height, width); integer or float array.
    Returns shape (height, width).

    Notes
    -----
    Integers from 0 to 65535 count as 16-bit (v / 257), floats from 0 to 1 as v * 255, from 0 to 255 as they are; any
    other range is stretched from its minimum to its maximum. Values that are not finite become 0.

    Examples
    --------
    >>> grey_to_8_bits(np.array([[0, 257, 65535]], np.uint16))
    array([[  0,   1, 255]], dtype=uint8)
    """
    if values.dtype.kind == "u":
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    is_float = values.dtype.kind == "f"
    if low >= 0 and is_float and high <= 255:
        grey *= 255 if high <= 1 else 1
    elif low >= 0 and high <= 65535:
        grey /= 257
    else:
        grey = (grey - low) * (255 / max(high - low, 1e-300))
    return np.rint(grey).astype(np.uint8)
