"""More than 8 bits: the range that is used, the same for copies of other sizes."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from image_data import decode, detailed, encode, photo
from PIL import Image

from dedup.errors import SampleError
from dedup.storage.images.decode import decode_image
from dedup.storage.images.tones import grey_to_8_bits, used_bits


def png16(values: npt.NDArray[Any], significant: int = 0) -> bytes:
    """A PNG of 16 bits: grey, grey and alpha, RGB or RGBA by the last axis; `significant` goes into sBIT."""
    values = values if values.ndim == 3 else values[:, :, None]
    height, width, n = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, 0)
    said = chunk(b"sBIT", bytes([significant] * n)) if significant else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + said + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: npt.NDArray[Any], **tags: int) -> bytes:
    """An uncompressed TIFF by hand, of any numbers Pillow does not write; further tags by ``t`` and their number."""
    planes = values if values.ndim == 3 else values[:, :, None]
    height, width, n = planes.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = 8 * values.itemsize
    entries = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 1 if n == 1 else 2,
        273: 0,
        277: n,
        278: height,
        279: values.nbytes,
        339: kind,
    }
    entries |= {int(name[1:]): value for name, value in tags.items()}
    lists = {tag: [entries[tag]] * n for tag in (258, 339)}
    at = 8 + 2 + 12 * len(entries) + 4
    table, extra = b"", b""
    for tag, value in sorted(entries.items()):
        if tag in lists and n > 2:
            table += struct.pack("<HHII", tag, 3, n, at + len(extra))
            extra += struct.pack(f"<{n}H", *lists[tag])
        else:
            table += struct.pack("<HHII", tag, 4 if tag == 273 or value > 65535 else 3, 1, value)
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + extra
    body = bytearray(body + planes.astype(values.dtype.newbyteorder("<")).tobytes())
    place = body.index(struct.pack("<HHI", 273, 4, 1)) + 8
    struct.pack_into("<I", body, place, at + len(extra))
    return bytes(body)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 25700, 65535]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, 0.2, np.inf]], np.float32), [0, 51, 0]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
    ],
)
def test_grey_of_more_than_8_bits(values: npt.NDArray[Any], expected: list[int]) -> None:
    decoded = decode(encode(values, "TIFF")).pixels
    np.testing.assert_array_equal(decoded, np.repeat(np.array(expected, np.uint8)[None, :, None], 3, axis=2))


def test_16_bit_png() -> None:
    grey = photo()[..., 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(encode(grey, "PNG")).pixels[..., 1], photo()[..., 0])


GREY = np.asarray(detailed(3).convert("L")).astype(np.float64)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_the_range_in_use_counts(bits: int) -> None:
    top = 2 ** {9: 10}.get(bits, bits) - 1
    values = np.round(GREY / 255 * (2**bits - 1)).astype(np.uint16)
    for data in (png16(values), encode(values, "TIFF"), tiff(values)):
        found = decode(data).pixels
        np.testing.assert_allclose(found[:, :, 0], values * (255 / top), atol=1)
        assert (found == found[:, :, :1]).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("level", [0.35, 1.0])
def test_copies_of_other_sizes_use_the_same_range(bits: int, level: float) -> None:
    top = 2**bits - 1
    values = np.round((GREY / 255 * 0.6 + 0.3) * level * top).astype(np.uint16)
    half = Image.fromarray(values).resize((100, 75), Image.Resampling.BICUBIC)
    hot = values.copy()
    hot.flat[::9_999] = 65_535
    means = [decode(data).pixels.mean() for data in (png16(values), encode(half, "TIFF"), png16(hot), tiff(hot))]
    assert max(means) - min(means) < 2


def test_colours_share_one_range() -> None:
    colours = photo().astype(np.uint32)
    for bits in (10, 12, 14):
        values = (colours * (2**bits - 1) // 255).astype(np.uint16)
        np.testing.assert_allclose(decode(png16(values)).pixels, colours, atol=1)
        np.testing.assert_allclose(decode(tiff(values)).pixels, colours, atol=1)
        for opaque in (2**bits - 1, 65_535):
            alpha = np.full((60, 90), opaque, np.uint16)
            np.testing.assert_allclose(decode(png16(np.dstack([values, alpha]))).pixels, colours, atol=1)
            grey = decode(png16(np.dstack([values[:, :, 0], alpha]))).pixels
            np.testing.assert_allclose(grey, colours[:, :, [0, 0, 0]], atol=1)


def test_full_colours_keep_their_upper_byte() -> None:
    values = photo().astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(png16(values)).pixels, photo())
    np.testing.assert_array_equal(decode(tiff(values)).pixels, photo())


def test_colours_under_alpha_0_set_no_range() -> None:
    values = (photo().astype(np.uint32) * 1023 // 255).astype(np.uint16)
    alpha = np.full((60, 90), 65_535, np.uint16)
    alpha[:10] = 0
    hidden = values.copy()
    hidden[:10] = 65_535
    found = [decode(png16(np.dstack([part, alpha]))).pixels for part in (values, hidden)]
    np.testing.assert_array_equal(*found)


def test_a_transparent_colour_of_16_bits() -> None:
    values = photo().astype(np.uint16) * 257
    values[5, 5] = (300, 500, 700)
    values[6, 6] = (301, 500, 700)  # the same upper bytes
    data = encode_with_key(values, (300, 500, 700))
    found = decode(data).pixels
    assert (found[5, 5] == 255).all()
    assert (found[6, 6] == (1, 1, 2)).all() or (found[6, 6] <= 3).all()


def encode_with_key(values: npt.NDArray[Any], key: tuple[int, int, int]) -> bytes:
    data = png16(values)
    body = b"tRNS" + struct.pack(">3H", *key)
    at = data.index(b"IDAT") - 4
    return data[:at] + struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body)) + data[at:]


def test_what_the_file_says_counts() -> None:
    dark = np.round(GREY / 255 * 900).astype(np.uint16)
    plain = decode(png16(dark)).pixels.astype(int)
    said = decode(png16(dark, significant=12)).pixels.astype(int)
    np.testing.assert_allclose(plain, 4 * said, atol=3)
    np.testing.assert_array_equal(decode(tiff(dark, t281=4095)).pixels, said)
    # what lies above the depth that is said belies it
    np.testing.assert_array_equal(decode(png16((GREY * 257).astype(np.uint16), significant=12)).pixels[:, :, 0], GREY.astype(np.uint8))


def test_32_bits_without_a_sign_do_not_wrap() -> None:
    values = np.round(GREY * 16_843_009).astype(np.uint32)
    np.testing.assert_array_equal(decode(tiff(values)).pixels[:, :, 0], GREY.astype(np.uint8))
    np.testing.assert_array_equal(decode(tiff((values.astype(np.int64) - 2**31).astype(np.int32))).pixels[:, :, 0], GREY.astype(np.uint8))


@pytest.mark.parametrize(("factor", "top"), [(1 / 255, 1), (3.0 / 255, 4), (1.0, 255), (16.0, 4095), (257.0, 65535)])
def test_floats(factor: float, top: float) -> None:
    values = (GREY * factor).astype(np.float32)
    np.testing.assert_allclose(decode(tiff(values)).pixels[:, :, 0], values * (255 / top), atol=1)


@pytest.mark.parametrize("kind", ["f2", "f8", "f4", "u4", "i2"])
def test_numbers_that_pillow_does_not_read_are_named(kind: str) -> None:
    values = GREY if kind in ("f2", "f8") else photo()
    with pytest.raises(SampleError, match=f"{8 * int(kind[1])} bits a pixel") as caught:
        decode_image(tiff(values.astype(kind)), max_pixels=10**7)
    assert caught.value.reason == "unsupported_format"


def test_what_is_dark_in_all_its_bits_stays_dark_by_its_range_only() -> None:
    assert used_bits(np.array([0, 255])) == 8
    assert used_bits(np.array([0, 300])) == 10
    assert used_bits(np.full(10_000, 80_000)) == 24
    assert grey_to_8_bits(np.zeros((3, 3), np.uint16)).max() == 0


def test_portable_greymaps_say_their_range() -> None:
    values = (GREY / 255 * 600).astype(">u2")
    data = b"P5\n200 150\n1023\n" + values.tobytes()
    np.testing.assert_allclose(decode(data).pixels[:, :, 0], values * (255 / 1023), atol=1)
