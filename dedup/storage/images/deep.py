"""Pixels of 16 and 32 bits, which Pillow cuts to their upper 8 or hands out as numbers of one kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.storage.images.png import GREY, GREY_ALPHA, RGBA, PngFile, relabelled
from dedup.storage.images.tiff import FLOAT, Page
from dedup.storage.images.tones import grey_to_8_bits, scaled, used_bits

# rawmodes by which Pillow reads the upper byte of each 16 bits, and those that read the lower one of the same data
_OTHER_BYTE: Final = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
_COLOURS: Final = ("RGB", "RGBA", "RGBX", "R", "G", "B", "A")
_PLANES: Final = ("R", "G", "B", "A")
_PLANAR: Final = 284
_MIN_IS_WHITE: Final = 0
_PHOTOMETRIC: Final = 262


def is_grey_of_many_bits(image: Image.Image) -> bool:
    """Whether an image holds numbers that Pillow can't convert to colours by their range."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def png_to_8_bits(image: Image.Image, png: PngFile, reopen: Callable[[bytes], Any]) -> Image.Image:
    """A loaded PNG of 16 bits as mode L, LA, RGB or RGBA, by the range that it uses.

    `reopen`: opens other bytes as PNG.
    """
    key = image.info.get("transparency")
    if png.colour == GREY:
        levels = np.asarray(image)
        grey = Image.fromarray(grey_to_8_bits(levels, png.used_bits))
        if key is not None:
            grey.putalpha(Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8)))
        return grey
    upper = np.asarray(image)
    if key is None and _uses_all_bits(upper):
        return image
    if png.colour == GREY_ALPHA:
        both = np.asarray(_loaded(reopen(relabelled(png, RGBA)))).astype(np.uint16)
        values = (both[:, :, 0::2] << 8 | both[:, :, 1::2])[:, :, [0, 0, 0, 1]]
    else:
        lower = _lower_bytes(reopen(png.data))
        if lower is None:
            return image
        values = upper.astype(np.uint16) << 8 | lower
    if key is not None:
        alpha = np.where((values[:, :, :3] == np.array(key)).all(axis=2), 0, 65535).astype(np.uint16)
        values = np.dstack([values[:, :, :3], alpha])
    return _colours_to_8_bits(values, png.used_bits)


def tiff_to_8_bits(image: Image.Image, page: Page, reopen: Callable[[], Any]) -> Image.Image:
    """A loaded page of a TIFF with its numbers brought to 8 bits by the range they use; of 8 bits it stays as it is.

    `reopen`: opens the same page again, not loaded.
    """
    declared = _declared_bits(page)
    if is_grey_of_many_bits(image):
        values = np.asarray(image)
        if image.mode == "I" and page.n_bits == 32 and page.sample_format == 1:
            values = values.view(np.uint32)  # which Pillow reads as signed
        grey = grey_to_8_bits(values, declared)
        is_inverted = image.mode.startswith("I;16") and _photometric(image) == _MIN_IS_WHITE
        return Image.fromarray(255 - grey if is_inverted else grey)
    if page.n_bits == 16 and page.sample_format != FLOAT and image.mode in ("RGB", "RGBA"):
        upper = np.asarray(image)
        if not _uses_all_bits(upper):
            lower = _lower_bytes(reopen())
            # without, the middle of what the upper byte leaves open
            return _colours_to_8_bits(upper.astype(np.uint16) << 8 | (128 if lower is None else lower), declared)
    return image


def widen_planes(image: Any, page: Page, order: str) -> None:
    """Make Pillow read the upper bytes of an uncompressed TIFF whose planes of 16 bits lie one after another; it takes them for 8 bits.

    `image`: not loaded yet; any other stays as it is.
    `order`: L or B, of the file's bytes.
    """
    if page.n_bits == 16 and image.tile and all(_args(tile)[0] in _PLANES for tile in image.tile):
        image.tile = [tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) for tile in image.tile]


def _args(tile: Any) -> tuple[Any, ...]:
    return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _declared_bits(page: Page) -> int:
    """The depth that a page says it uses; 0 if it only says what its numbers could hold."""
    if 8 < page.n_bits < 16:
        return page.n_bits
    return page.greatest.bit_length() if 255 <= page.greatest < 2**page.n_bits - 1 else 0


def _photometric(image: Any) -> int:
    return int(image.tag_v2.get(_PHOTOMETRIC, 1))


def _uses_all_bits(upper: npt.NDArray[np.uint8]) -> bool:
    """Whether colours, known by their upper bytes, use more than 14 of 16 bits where they can be seen."""
    return used_bits(_seen(upper), 6) > 6


def _seen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Colours of the pixels that are not wholly transparent; all, if none can be seen."""
    colours = values[:, :, :3]
    if values.shape[2] < 4:
        return colours
    visible = values[:, :, 3] > 0
    return colours[visible] if visible.any() else colours


def _lower_bytes(image: Any) -> npt.NDArray[np.uint8] | None:
    """The lower byte of each 16 bits of an image that is not loaded yet; None if Pillow has no way to read it."""
    tiles = []
    for tile in image.tile:
        args = _args(tile)
        mode, _, kind = str(args[0]).partition(";")
        is_planar = tile.codec_name == "libtiff" and getattr(image, "tag_v2", {}).get(_PLANAR) == 2  # there Pillow takes no other mode
        if mode not in _COLOURS or kind not in _OTHER_BYTE or is_planar:
            return None
        other = f"{mode};{_OTHER_BYTE[kind]}"
        tiles.append(tile._replace(args=(other, *args[1:]) if isinstance(tile.args, tuple) else other))
    image.tile = tiles
    return np.asarray(_loaded(image))


def _loaded(image: Any) -> Any:
    image.load()
    return image


def _colours_to_8_bits(values: npt.NDArray[Any], declared: int) -> Image.Image:
    """16-bit RGB or RGBA (height, width, 3 or 4) by the range of its colours; alpha by the same if it keeps to it."""
    bits = min(used_bits(_seen(values), declared), 16)
    colours = scaled(values[:, :, :3], 2.0**bits - 1)
    if values.shape[2] < 4:
        return Image.fromarray(colours)
    alpha = values[:, :, 3]
    return Image.fromarray(np.dstack([colours, scaled(alpha, 2.0 ** min(used_bits(alpha, bits), 16) - 1)]))
