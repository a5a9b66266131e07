"""The format of an image by its first bytes, and Pillow's plugin for it; its name never counts."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    DdsImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PcxImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from dedup.errors import SampleError
from dedup.storage.images.jxl import jxl_size
from dedup.storage.input.kinds import image_kind

READ: Final = (
    "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PNM, TGA (version 2), PCX, DDS, ICO; "
    "HEIC and JPEG XL with pip install 'webdedup[formats]'"
)

# The plugins are called directly: Image.open would check Pillow's own pixel limit, a global that belongs to the importing
# program, and the caller's limit is checked here anyway. Several plugins still enforce twice Pillow's limit (358 million
# pixels), so max_pixels can't go beyond it for those.
_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
    "PCX": PcxImagePlugin.PcxImageFile,
    "DDS": DdsImagePlugin.DdsImageFile,
}
_PILLOW_NEEDS: Final = {"AVIF": "avif", "JPEG 2000": "jpg_2000", "WebP": "webp"}  # what a build of Pillow may lack
_EXTRA: Final = {"HEIC": ("pillow_heif.as_plugin", "HeifImageFile"), "JPEG XL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile")}
_UNREAD: Final = frozenset({"PSD", "SVG", "JPEG XR"})
_NO_IMAGES: Final[dict[str, Callable[[bytes], bool]]] = {
    "PDF": lambda data: data.startswith(b"%PDF"),
    "EPS": lambda data: data.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")),
    "gzip-compressed, perhaps SVGZ": lambda data: data.startswith(b"\x1f\x8b"),
    "a video": lambda data: data[4:8] == b"ftyp" or data.startswith(b"\x1a\x45\xdf\xa3"),
}


def sniff(data: bytes) -> str:
    """The format of an image.

    Raises SampleError: unsupported_format, with its name, for one that is recognised but not read; undecodable_image for any other bytes.
    """
    kind = image_kind(data)
    if kind and kind not in _UNREAD:
        return kind
    name = kind or next((name for name, is_match in _NO_IMAGES.items() if is_match(data)), "")
    if name:
        raise SampleError("unsupported_format", f"{name}; read are {READ}")
    raise SampleError("undecodable_image", f"no image: {len(data)} bytes that begin with {data[:8]!r}")


def open_image(data: bytes, kind: str, check: Callable[[int, int], None]) -> Any:
    """Open an image with Pillow, nothing decoded yet.

    `kind`: what `sniff` returned, except ICO.
    `check`: takes width and height, and raises if they are too large; called for formats whose plugin decodes at once.
    Raises SampleError if the format needs a package that is not installed, and whatever Pillow raises for broken files.
    """
    if kind in _EXTRA:
        if kind == "JPEG XL":
            check(*jxl_size(data))
        module, name = _EXTRA[kind]
        try:
            plugin = getattr(importlib.import_module(module), name)
        except ImportError:
            package = module.partition(".")[0]
            raise SampleError(
                "unsupported_format", f"{kind} needs the package {package}, which is not installed; run: pip install 'webdedup[formats]'"
            ) from None
        return plugin(io.BytesIO(data))
    if kind in _PILLOW_NEEDS and not features.check(_PILLOW_NEEDS[kind]):
        raise SampleError("unsupported_format", f"{kind}, which this build of Pillow can't read; run: pip install --force-reinstall Pillow")
    return _PLUGINS[kind](io.BytesIO(data))


def largest_icon(data: bytes, check: Callable[[int, int], None]) -> bytes | Image.Image:
    """The largest image of an ICO: a PNG's bytes, or an image of Windows' bitmap, decoded, with its mask as alpha.

    Raises SampleError if there is none, and whatever Pillow raises for broken bitmaps.
    """
    from PIL.IcoImagePlugin import IcoFile

    entries = []
    for number in range(min(int.from_bytes(data[4:6], "little"), 256)):
        entry = data[6 + 16 * number : 22 + 16 * number]
        if len(entry) == 16:
            n_bytes, offset = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
            is_there = offset + n_bytes <= len(data)
            width, height = _icon_size(data[offset : offset + 26]) if is_there else (entry[0] or 256, entry[1] or 256)
            entries.append((width * height, int.from_bytes(entry[6:8], "little"), offset, n_bytes, width, height, entry))
    if not entries:
        raise SampleError("undecodable_image", f"ICO of {len(data)} bytes with no image in it")
    *_, offset, n_bytes, width, height, entry = max(entries)
    check(width, height)
    if offset + n_bytes > len(data):
        raise SampleError("truncated_image", f"ICO of {len(data)} bytes ends before its largest image")
    if data.startswith(b"\x89PNG", offset):
        return data[offset : offset + n_bytes]
    return IcoFile(io.BytesIO(data[:4] + b"\1\0" + entry + data[22:])).frame(0)


def _icon_size(head: bytes) -> tuple[int, int]:
    """Width and height that the image itself gives: those of the directory end at 256."""
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if len(head) < 12:
        return 0, 0
    # a bitmap's height counts its mask too
    return int.from_bytes(head[4:8], "little", signed=True), abs(int.from_bytes(head[8:12], "little", signed=True)) // 2


def load_all() -> None:
    """Import what formats need when their first image comes, which a jailed process can't, and keep decoders to one thread."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    for module, _ in _EXTRA.values():
        with suppress(ImportError):
            importlib.import_module(module)
    for name, n_threads in (("pillow_heif.options", 1), ("pillow_jxl.JpegXLImagePlugin", 0)):
        if name in sys.modules:
            vars(sys.modules[name])["DECODE_THREADS"] = n_threads
