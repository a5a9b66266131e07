"""Formats by their bytes: what is read, what is refused by its name, and PNGs that viewers open all the same."""

from __future__ import annotations

import importlib
import struct
import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from image_data import decode, detailed, encode, photo, reason
from PIL import Image

from dedup.errors import SampleError
from dedup.storage.images.decode import decode_image
from dedup.storage.images.formats import sniff
from dedup.storage.images.jxl import jxl_size


@pytest.mark.parametrize(
    ("kind", "options", "atol"),
    [("AVIF", {"quality": 95}, 24), ("JPEG2000", {}, 0), ("PPM", {}, 0), ("TGA", {}, 0), ("TGA", {"compression": "tga_rle"}, 0), ("PCX", {}, 0), ("DDS", {}, 0), ("DIB", {}, None)],
)  # fmt: skip
def test_further_formats(kind: str, options: dict[str, Any], atol: int | None) -> None:
    data = encode(photo(), kind, **options)
    if atol is None:  # a bitmap without its header has no mark
        assert reason(data) == "undecodable_image"
        return
    decoded = decode(data)
    assert (decoded.width, decoded.height, decoded.n_frames) == (90, 60, 1)
    assert np.abs(decoded.pixels.astype(int) - photo()).max() <= atol
    assert decode(data, min_side=20).pixels.shape == (20, 30, 3)
    assert reason(data, max_pixels=60 * 90 - 1) == "too_many_pixels"


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", "PCX", "DDS", "ICO"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_cut_files_give_a_reason(kind: str, share: float) -> None:
    data = encode(detailed(1), kind)
    assert reason(data[: int(len(data) * share)]) in ("truncated_image", "undecodable_image")


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_of_an_icon_the_largest_counts(bitmap_format: str) -> None:
    data = encode(detailed(1, (128, 128)), "ICO", sizes=[(16, 16), (128, 128), (48, 48)], bitmap_format=bitmap_format)
    decoded = decode(data)
    assert (decoded.width, decoded.height, decoded.n_frames) == (128, 128, 1)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(detailed(1, (128, 128))))
    assert reason(data, max_pixels=128 * 128 - 1) == "too_many_pixels"


def test_an_icon_is_as_large_as_its_image_says() -> None:
    inner = encode(Image.new("L", (3000, 2000)), "PNG")
    data = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    assert decode(data).width == 3000
    assert reason(data, max_pixels=10**6) == "too_many_pixels"


def test_heic(require_extra: Callable[[str], ModuleType]) -> None:
    require_extra("pillow_heif.HeifImagePlugin")
    image = detailed(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image, "HEIF", quality=90, exif=exif.tobytes())
    decoded = decode(data)
    assert (decoded.width, decoded.height) == (150, 200)
    assert np.abs(decoded.pixels.astype(int) - np.rot90(np.asarray(image), -1)).mean() < 6
    assert reason(data, max_pixels=1000) == "too_many_pixels"
    assert reason(data[: len(data) // 2]) in ("truncated_image", "undecodable_image")


@pytest.mark.parametrize("options", [{}, {"use_container": True}, {"lossless": True}])
def test_jpeg_xl(require_extra: Callable[[str], ModuleType], options: dict[str, Any]) -> None:
    require_extra("pillow_jxl")
    for size in ((200, 150), (64, 64), (321, 77)):
        data = encode(detailed(1, size), "JXL", **options)
        assert jxl_size(data) == size
        decoded = decode(data)
        assert (decoded.width, decoded.height) == size
        assert np.abs(decoded.pixels.astype(int) - np.asarray(detailed(1, size))).mean() < 4
        assert reason(data, max_pixels=1000) == "too_many_pixels"
        assert reason(data[: len(data) // 2]) in ("truncated_image", "undecodable_image")


@pytest.mark.parametrize(
    ("module", "data"),
    [("pillow_heif", b"\0\0\0\x18ftypheic" + bytes(50)), ("pillow_heif", b"\0\0\0\x18ftypmif1\0\0\0\0miafheic" + bytes(50)), ("pillow_jxl", b"\xff\x0a\x41" + bytes(50))],
)  # fmt: skip
def test_what_an_extra_would_read_says_so(module: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SampleError, match=r"pip install 'webdedup\[formats\]'") as caught:
        decode_image(data, max_pixels=10**7)
    assert caught.value.reason == "unsupported_format"
    assert module in str(caught.value)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"8BPS\0\1", "PSD"), (b"%PDF-1.4", "PDF"), (b"<svg xmlns='a'/>", "SVG"), (b"\0\0\0\x18ftypmp42" + bytes(20), "video"), (b"%!PS-Adobe", "EPS")],
)  # fmt: skip
def test_formats_that_are_not_read_are_named(data: bytes, word: str) -> None:
    with pytest.raises(SampleError, match=word) as caught:
        sniff(data)
    assert caught.value.reason == "unsupported_format"


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def after_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


BOMB = zlib.compress(bytes(200_000_000), 9)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"tEXt", b"a\0b", crc=1)],
        [chunk(b"tIME", b"", crc=1), chunk(b"gAMA", b"\0\0\0\1", crc=5)],
        [chunk(b"tRNS", b"\0\1\0\2\0\3", crc=9)],
        [chunk(b"iCCP", b"name\0\0" + zlib.compress(b"x" * 99), crc=9)],
        [chunk(b"zTXt", b"a\0\0" + BOMB)],
        [chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)],
        [chunk(b"iCCP", b"a\0\0" + BOMB)],
        [chunk(b"zTXt", b"a\0\0" + zlib.compress(b"y" * 2_000_000))] * 70,
        [chunk(b"tEXt", b"a\0" + b"y" * 2_000_000)],
        [chunk(b"eXIf", b"nonsense"), chunk(b"acTL", b"\0\0\0\0\0\0\0\0"), chunk(b"prIv", b"any")],
    ],
)
def test_pngs_with_broken_or_huge_trifles_are_read(chunks: list[bytes]) -> None:
    np.testing.assert_array_equal(decode(after_header(encode(photo(), "PNG"), *chunks)).pixels, photo())


def test_pngs_without_an_end_or_with_more_after_it_are_read() -> None:
    data = encode(photo(), "PNG")
    for changed in (data[:-12], data[:-5], data + b"trailing" * 9, data[:-12] + b"\0\0\0\0", data[:-16]):
        np.testing.assert_array_equal(decode(changed).pixels, photo())
    assert reason(data[:-40]) == "truncated_image"


def test_a_wrong_crc_of_what_matters_still_counts() -> None:
    data = bytearray(encode(photo(), "PNG"))
    data[29] ^= 1  # of the header
    assert reason(bytes(data)) == "undecodable_image"


def test_nothing_of_pillow_is_changed() -> None:
    from PIL import ImageFile, PngImagePlugin

    before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
    decode(after_header(encode(photo(), "PNG"), chunk(b"zTXt", b"a\0\0" + BOMB)))
    assert before == (
        ImageFile.LOAD_TRUNCATED_IMAGES,
        PngImagePlugin.MAX_TEXT_CHUNK,
        PngImagePlugin.MAX_TEXT_MEMORY,
        Image.MAX_IMAGE_PIXELS,
    )


def test_exif_of_a_png_counts_before_and_after_the_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data, body = encode(photo(), "PNG"), chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    for changed in (after_header(data, body), data[:-12] + body + data[-12:]):
        assert (decode(changed).width, decode(changed).height) == (60, 90)
