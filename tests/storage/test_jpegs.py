"""JPEGs of rare kinds, and those whose segments tell stories: the fast path takes only what it can't write past its buffer for."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import rare_jpegs
import simplejpeg
from image_data import decode, detailed, encode, photo, reason
from PIL import Image

from dedup.errors import SampleError
from dedup.storage.images.decode import decode_image
from dedup.storage.images.jpeg import decode_scaled, read_head


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """The segments right after the start of the image."""
    return data[:2] + b"".join(segments) + data[2:]


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


@pytest.mark.parametrize("min_side", [None, 4, 8])
@pytest.mark.parametrize(("name", "atol"), [("LOSSLESS", 0), ("LOSSLESS_GREY", 0), ("ARITHMETIC", 24), ("ARITHMETIC_PROGRESSIVE", 24)])
def test_lossless_and_arithmetic_jpegs_are_decoded_at_full_size(name: str, atol: int, min_side: int | None) -> None:
    data = getattr(rare_jpegs, name)
    assert decode_scaled(data, read_head(data), min_side) is None
    expected = rare_jpegs.jpeg_pixels()
    expected = expected if name != "LOSSLESS_GREY" else np.repeat(expected[:, :, :1], 3, axis=2)
    decoded = decode(data, min_side=min_side)
    assert (decoded.width, decoded.height) == (16, 12)
    if min_side is None:
        assert np.abs(decoded.pixels.astype(int) - expected.astype(int)).max() <= atol
    assert abs(decoded.pixels.mean() - expected.mean()) < 16


def test_a_lossless_jpeg_of_some_size_leaves_memory_alone() -> None:
    # a scaled buffer is 64 times too small for it: this ended the interpreter
    at = rare_jpegs.LOSSLESS.index(b"\xff\xc3")
    data = bytearray(rare_jpegs.LOSSLESS)
    data[at + 5 : at + 9] = struct.pack(">HH", 1200, 1600)
    for min_side in (None, 128):
        try:
            decode_image(bytes(data), max_pixels=10**8, min_side=min_side)
        except SampleError as error:
            assert error.reason in ("truncated_image", "undecodable_image")


@pytest.mark.parametrize(("marker", "word"), [(0xC5, "hierarchical"), (0xCB, "lossless, arithmetic"), (0xDE, "hierarchical")])
def test_frames_that_nothing_decodes_are_called_by_name(marker: int, word: str) -> None:
    data = encode(photo(), "JPEG").replace(b"\xff\xc0", bytes((0xFF, marker)))
    with pytest.raises(SampleError, match=word) as caught:
        decode_image(data, max_pixels=10**7)
    assert caught.value.reason == "unsupported_format"


def test_twelve_bits_are_called_so() -> None:
    with pytest.raises(SampleError, match="12 bits a sample") as caught:
        decode_image(rare_jpegs.TWELVE_BITS, max_pixels=10**7)
    assert caught.value.reason == "unsupported_format"


def test_a_height_that_follows_the_scan_is_called_so() -> None:
    data = bytearray(encode(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    with pytest.raises(SampleError, match="DNL"):
        decode_image(bytes(data), max_pixels=10**7)


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC9])
def test_a_second_frame_header_is_refused(marker: int) -> None:
    data = encode(photo(), "JPEG")
    at = data.index(b"\xff\xc0")
    frame = data[at + 4 : at + 19]
    for place in (2, at, data.index(b"\xff\xda")):
        assert reason(data[:place] + segment(marker, frame) + data[place:]) == "undecodable_image"


def test_the_larger_of_two_headers_sizes_nothing() -> None:
    small, large = encode(photo(16, 16), "JPEG"), encode(photo(400, 400), "JPEG")
    assert decode(small + large).pixels.shape == (16, 16, 3)
    assert decode(large + small, min_side=50).width == 400


def test_thumbnails_in_segments_do_not_count() -> None:
    data = encode(photo(300, 200), "JPEG")
    thumbnail = encode(photo(30, 20), "JPEG")
    lossless = rare_jpegs.LOSSLESS
    inside = with_segments(data, segment(0xE1, exif(1) + thumbnail), segment(0xE1, exif(1) + lossless), segment(0xFE, lossless))
    decoded = decode(inside, min_side=40)
    assert (decoded.width, decoded.height) == (200, 300)
    np.testing.assert_array_equal(decoded.pixels, decode(data, min_side=40).pixels)


def test_bytes_between_segments_are_passed_over() -> None:
    data = encode(photo(), "JPEG")
    at = data.index(b"\xff\xdb")
    for between in (b"\xff\xff\xff", b"\x01\xff\xd0"[1:]):
        assert decode(data[:at] + between + data[at:]).pixels.shape == (60, 90, 3)


@pytest.mark.parametrize("name", ["JPEG", "CMYK"])
@pytest.mark.parametrize("n_before", [0, 1, 3])
def test_exif_counts_wherever_it_lies(name: str, n_before: int) -> None:
    image = Image.fromarray(photo()) if name == "JPEG" else Image.fromarray(photo()).convert("CMYK")
    data = encode(image, "JPEG", quality=95)
    turned = with_segments(data, *[segment(0xEB, bytes(65_000))] * n_before, segment(0xE1, exif(6)))
    decoded = decode(turned)
    assert (decoded.width, decoded.height) == (60, 90)
    np.testing.assert_array_equal(decoded.pixels, np.rot90(decode(data).pixels, -1))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG", "WebP", "TIFF", "AVIF"])
def test_the_orientation_of_xmp_never_counts(kind: str) -> None:
    image = Image.fromarray(photo())
    if kind in ("JPEG", "CMYK"):
        xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        data = with_segments(encode(image if kind == "JPEG" else image.convert("CMYK"), "JPEG"), xmp)
    elif kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = encode(image, "PNG", pnginfo=text)
    elif kind == "TIFF":
        data = encode(image, "TIFF", tiffinfo={700: XMP})
    else:
        data = encode(image, kind, xmp=XMP)
    assert XMP in data
    assert (decode(data).width, decode(data).height) == (90, 60)


def test_a_file_of_several_jpegs_is_its_first() -> None:
    first, second = Image.fromarray(photo()), detailed(1, (90, 60))
    data = encode(first, "MPO", save_all=True, append_images=[second])
    decoded = decode(data)
    assert decoded.n_frames == 1
    np.testing.assert_array_equal(decoded.pixels, simplejpeg.decode_jpeg(data, "RGB"))


def test_the_pillow_path_sees_the_same_head() -> None:
    data = encode(Image.fromarray(photo()).convert("CMYK"), "JPEG")
    head = read_head(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (head.width, head.height) == image.size
    assert head.n_components == 4
