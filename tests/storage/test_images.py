"""Bytes to pixels: Pillow and numpy are the oracles, broken bytes give a reason and nothing else."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from image_data import decode, encode, photo, reason
from PIL import Image, ImageOps

from dedup.errors import SampleError
from dedup.schemas import REJECT_REASONS
from dedup.storage.images.decode import DecodedImage, decode_image


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WebP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_lossless_formats_give_the_pixels(kind: str, options: dict[str, Any]) -> None:
    decoded = decode(encode(photo(), kind, **options))
    np.testing.assert_array_equal(decoded.pixels, photo())
    assert (decoded.width, decoded.height) == (90, 60)


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 80, "progressive": True}, {"quality": 90, "subsampling": 0}])
def test_jpeg_decodes_as_libjpeg_does(options: dict[str, Any]) -> None:
    data = encode(photo(), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_allclose(decode(data).pixels.astype(int), np.asarray(image).astype(int), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(), kind, exif=exif.tobytes(), **({"lossless": True} if kind == "WebP" else {}))
    decoded = decode(data)
    stored = simplejpeg.decode_jpeg(data, "RGB") if kind == "JPEG" else photo()
    turn = Image.fromarray(stored)
    turn.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turn))
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.shape[:2] == (decoded.height, decoded.width) == ((90, 60) if orientation >= 5 else (60, 90))
    reduced = decode(data, min_side=20)
    assert (reduced.width, reduced.height) == (decoded.width, decoded.height)
    assert 20 <= min(reduced.pixels.shape[:2]) < 60
    assert (reduced.pixels.shape[0] > reduced.pixels.shape[1]) == (orientation >= 5)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_count_as_none(value: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(encode(photo(), "JPEG", exif=exif.tobytes())).pixels.shape == (60, 90, 3)


def test_broken_exif_keeps_the_image() -> None:
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode(data).pixels, simplejpeg.decode_jpeg(data, "RGB"))


def on_white(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def test_transparency_lies_on_white() -> None:
    alpha = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))
    rgba = np.dstack([photo(), alpha])
    for kind, options in (("PNG", {}), ("WebP", {"lossless": True, "exact": True}), ("TIFF", {})):
        np.testing.assert_allclose(decode(encode(rgba, kind, **options)).pixels, on_white(rgba), atol=1.01)
    grey = Image.fromarray(photo()[..., 0])
    grey.putalpha(Image.fromarray(alpha))
    np.testing.assert_allclose(decode(encode(grey, "PNG")).pixels, on_white(np.asarray(grey.convert("RGBA"))), atol=1.01)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image = Image.fromarray(photo()).quantize(16) if mode == "P" else Image.fromarray(photo()).convert(mode)
    key = image.getpixel((3, 4))
    decoded = decode(encode(image, "PNG", transparency=key)).pixels
    plain = np.array(image.convert("RGB"))
    mask = np.asarray(image) == key if mode != "RGB" else (np.asarray(image) == key).all(axis=2)
    plain[mask] = 255
    np.testing.assert_array_equal(decoded, plain)


def test_palettes_with_partial_transparency_and_gif() -> None:
    image = Image.fromarray(photo()).quantize(4)
    data = encode(image, "PNG", transparency=bytes([0, 85, 170, 255]))
    rgba = np.dstack([np.asarray(image.convert("RGB")), np.asarray(image) * 85])
    np.testing.assert_allclose(decode(data).pixels, on_white(rgba), atol=1.01)
    first = decode(encode(image, "GIF", transparency=2)).pixels
    expected = np.array(image.convert("RGB"))
    expected[np.asarray(image) == 2] = 255
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    image = Image.fromarray(photo()).convert("CMYK")
    data = encode(image, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    np.testing.assert_allclose(decode(data).pixels.astype(int), photo().astype(int), atol=0 if kind == "TIFF" else 6)
    assert decode(data, min_side=20).pixels.shape == (20, 30, 3)


@pytest.mark.parametrize(("mode", "atol"), [("1", 0), ("L", 0), ("YCbCr", 2), ("LAB", 2)])
def test_other_modes(mode: str, atol: int) -> None:
    rgb = Image.fromarray(photo())
    if mode == "LAB":
        from PIL import ImageCms

        image = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
        assert image is not None
    else:
        image = rgb.convert(mode)
    expected = photo() if mode == "LAB" else np.asarray(image.convert("RGB"))
    difference = np.abs(decode(encode(image, "TIFF")).pixels.astype(int) - expected.astype(int))
    # 8-bit LAB is coarse and clips colours at the edge of the gamut, so there only the mean is close.
    assert (difference.mean() if mode == "LAB" else difference.max()) <= atol


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (512, 512), (700, 64), (64, 700), (10, 900), (1, 1), (333, 777)])
def test_reduced_images_keep_the_smallest_side(kind: str, height: int, width: int) -> None:
    full = decode(encode(photo(height, width), kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {})))
    for min_side in (16, 64, 100):
        reduced = decode(encode(photo(height, width), kind), min_side=min_side)
        assert (reduced.width, reduced.height) == (width, height)
        smallest = min(reduced.pixels.shape[:2])
        assert smallest >= min(min_side, height, width)
        if min(height, width) >= 2 * min_side:
            assert smallest < min(height, width)
        assert abs(reduced.pixels.mean(axis=(0, 1)) - full.pixels.mean(axis=(0, 1))).max() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"])
def test_the_pixel_limit_comes_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo(), kind)
    assert reason(data, max_pixels=60 * 90 - 1) == "too_many_pixels"
    assert reason(data[: len(data) * 2 // 3] if kind not in ("TIFF", "WebP") else data, max_pixels=100) == "too_many_pixels"
    if kind in ("WebP", "TIFF"):
        return  # their plugins check Pillow's own limit too
    # Pillow's own limit is another program's business: here neither its error nor its warning matters.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data, max_pixels=60 * 90).pixels.shape == (60, 90, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_bomb_is_refused_unread() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
    assert reason(bomb) == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty_image"),
        (b"\0", "undecodable_image"),
        (b"<html><body>404</body></html>", "undecodable_image"),
        (b"GIF89a", "truncated_image"),
        (b"\xff\xd8\xff\xe0", "truncated_image"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 50, "unsupported_format"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b"8BPS\0\1", "unsupported_format"),
        (b"%PDF-1.7", "unsupported_format"),
    ],
)
def test_reasons(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_images_cut_short_are_called_so(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    assert reason(data[: int(len(data) * share)]) == "truncated_image"


def test_a_jpeg_without_its_end_marker_is_whole() -> None:
    data = encode(photo(), "JPEG")
    np.testing.assert_array_equal(decode(data[:-2]).pixels, decode(data).pixels)
    np.testing.assert_array_equal(decode(data + b"trailing bytes").pixels, decode(data).pixels)


IMAGES = {
    "JPEG": encode(photo(), "JPEG", exif=Image.Exif().tobytes()),
    "progressive": encode(photo(), "JPEG", progressive=True),
    "CMYK": encode(Image.fromarray(photo()).convert("CMYK"), "JPEG"),
    "PNG": encode(photo(), "PNG"),
    "palette": encode(Image.fromarray(photo()).quantize(16), "PNG", transparency=b"\x10\x20"),
    "WebP": encode(photo(), "WebP"),
    "lossless": encode(photo(), "WebP", lossless=True),
    "GIF": encode(Image.fromarray(photo()).quantize(16), "GIF"),
    "BMP": encode(photo(), "BMP"),
    "TIFF": encode(photo(), "TIFF"),
    "LZW": encode(photo(), "TIFF", compression="tiff_lzw"),
    "deflate": encode(photo()[..., 0].astype(np.uint16) * 257, "TIFF", compression="tiff_adobe_deflate"),
    "JPEG in TIFF": encode(photo(), "TIFF", compression="jpeg"),
}


def attempt(data: bytes, min_side: int | None) -> DecodedImage | str:
    try:
        return decode_image(data, max_pixels=10**6, min_side=min_side)
    except SampleError as error:
        return error.reason


@settings(deadline=None, max_examples=600)
@given(st.data())
def test_no_bytes_raise_anything_else(data: st.DataObject) -> None:
    content = bytearray(IMAGES[data.draw(st.sampled_from(sorted(IMAGES)))])
    near = data.draw(st.sampled_from([64, 512, len(content)]))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(near, len(content)) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    min_side = data.draw(st.sampled_from([None, 16]))
    decoded = attempt(bytes(content[:cut]), min_side)
    if isinstance(decoded, DecodedImage):
        assert decoded.width * decoded.height <= 10**6
        assert min_side or decoded.pixels.shape == (decoded.height, decoded.width, 3)
    else:
        assert decoded in REJECT_REASONS


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\x10\0\0\0WEBP"]),
)
def test_random_bytes_give_a_reason(data: bytes, magic: bytes) -> None:
    decoded = attempt(magic + data, None)
    assert isinstance(decoded, DecodedImage) or decoded in REJECT_REASONS


def test_running_out_of_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    data = encode(photo(), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    assert reason(data) == "undecodable_image"
