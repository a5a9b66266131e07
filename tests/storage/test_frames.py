"""Animations and pages: what differs is told apart, copies in other formats are not, and no file takes long."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from image_data import decode, detailed, encode
from PIL import Image

from dedup.errors import SampleError
from dedup.numerics.image.descriptor import Crop, describe_grids
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.picture import Picture
from dedup.storage.images.decode import decode_image
from dedup.storage.images.frames import MAX_COUNTED, Timeline, frames_to_look_at, gif_frames, webp_frames
from dedup.storage.images.tiff import full_pages, read_pages

ANIMATED = ("GIF", "WebP", "PNG", "TIFF", "AVIF")
LOSSLESS: dict[str, dict[str, Any]] = {"WebP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))


def animation(kind: str, frames: list[Image.Image], **options: Any) -> bytes:
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **LOSSLESS.get(kind, {}), **options)


def quarters(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float64]]:
    """Mean colours of the sheet's cells."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return [pixels[top : top + height, left : left + width].mean(axis=(0, 1)) for top in (0, height) for left in (0, width)]


@pytest.mark.parametrize("kind", ANIMATED)
def test_four_frames_become_a_sheet(kind: str) -> None:
    decoded = decode(animation(kind, [Image.new("RGB", (90, 60), colour) for colour in COLOURS]))
    assert (decoded.width, decoded.height, decoded.n_frames) == (90, 60, 4)
    assert decoded.pixels.shape == (120, 180, 3)
    assert decoded.box == (0, 0, 180, 120)
    for found, colour in zip(quarters(decoded.pixels), COLOURS, strict=True):
        np.testing.assert_allclose(found, colour, atol=3)
    reduced = decode(animation(kind, [Image.new("RGB", (90, 60), colour) for colour in COLOURS]), min_side=30)
    assert reduced.pixels.shape == (30, 45 + 1, 3) or reduced.pixels.shape[0] >= 30
    assert (reduced.width, reduced.height) == (90, 60)


@pytest.mark.parametrize("kind", ANIMATED)
def test_equal_frames_are_one_picture(kind: str) -> None:
    first = detailed(1, (90, 60))
    nearly = Image.fromarray(np.clip(np.asarray(first).astype(int) + 2, 0, 255).astype(np.uint8))
    decoded = decode(animation(kind, [first, nearly, first, nearly]))
    still = decode(encode(first, kind, **LOSSLESS.get(kind, {})))
    assert decoded.pixels.shape == (60, 90, 3)
    assert np.abs(decoded.pixels.astype(int) - still.pixels.astype(int)).mean() < 3
    assert still.n_frames == 1


def test_stills_and_animations_that_share_a_frame_are_told_apart() -> None:
    title = detailed(0)
    found = [
        animation(kind, [title, *(detailed(10 * seed + k) for k in range(1, 6))])
        for seed, kind in enumerate(("GIF", "GIF", "WebP", "TIFF", "TIFF"), 1)
    ]
    decoded = [decode(data, min_side=128) for data in (*found, encode(title, "JPEG"))]
    vectors = describe_grids(np.stack([Crop(image.pixels, image.box).grid for image in decoded]))
    assert (vectors @ vectors.T - np.eye(len(decoded))).max() < 0.5  # far below any threshold
    pictures = [Picture(image.pixels) for image in decoded[:-1]]
    for number, one in enumerate(pictures):
        assert not any(compare(one, other).is_copy for other in pictures[number + 1 :])


@pytest.mark.parametrize("n_frames", [2, 3, 5, 12, 40])
def test_one_animation_in_several_formats_and_sizes_is_one(n_frames: int) -> None:
    frames = [detailed(seed) for seed in range(n_frames)]
    half = [frame.resize((100, 75)) for frame in frames]
    files = [animation("GIF", frames, duration=70), animation("GIF", half, duration=70), encode(frames[0], "WebP", save_all=True, append_images=frames[1:], duration=70, quality=70), animation("PNG", half, duration=70)]  # fmt: skip
    decoded = [decode(data, min_side=128) for data in files]
    assert {one.n_frames for one in decoded} == {n_frames}
    first = Picture(decoded[0].pixels)
    assert all(compare(first, Picture(other.pixels)).is_copy for other in decoded[1:])


def test_frames_are_chosen_by_time() -> None:
    assert frames_to_look_at(Timeline([], 1), 100, 10**6) == [0]
    assert frames_to_look_at(Timeline([50.0] * 4, 4), 100, 10**6) == [0, 1, 2, 3]
    # frames shown for long are what others store as several
    assert frames_to_look_at(Timeline([300.0, 50.0, 50.0, 50.0], 4), 100, 10**6) == [0, 0, 0, 3]
    assert frames_to_look_at(Timeline([0.0] * 9, 9), 100, 10**6) == frames_to_look_at(Timeline([100.0] * 9, 9), 100, 10**6)
    assert max(frames_to_look_at(Timeline([], 10**4), 100, 10**9)) == 63
    # never more pixels than allowed, but always the first
    assert max(frames_to_look_at(Timeline([], 50), 1000, 5000)) == 4
    assert frames_to_look_at(Timeline([], 50), 1000, 1000) == [0]


def test_the_ground_is_one_for_all_frames() -> None:
    frames = []
    for left in (5, 25, 45, 65):
        frame = Image.new("RGBA", (90, 60), (0, 0, 0, 0))
        frame.paste((255, 255, 255, 255), (left, 10, left + 20, 50))
        frames.append(frame)
    pixels = decode(animation("PNG", frames, disposal=1)).pixels
    for number, left in enumerate((5, 25, 45, 65)):
        cell = pixels[60 * (number // 2) :, 90 * (number % 2) :][:60, :90]
        assert (cell[12:48, left + 1 : left + 19] == 255).all()
        assert (cell[:8] == 0).all()


@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_every_frame_is_turned(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(animation(kind, [Image.new("RGB", (90, 60), colour) for colour in COLOURS], exif=exif))
    assert (decoded.width, decoded.height) == (60, 90)
    for found, colour in zip(quarters(decoded.pixels), COLOURS, strict=True):
        np.testing.assert_allclose(found, colour, atol=3)


def test_a_broken_later_frame_leaves_the_first() -> None:
    data = animation("GIF", [detailed(seed) for seed in range(8)])
    decoded = decode(data[: len(data) // 2])
    np.testing.assert_array_equal(decoded.pixels, decode(encode(detailed(0), "GIF")).pixels)
    with pytest.raises(SampleError):
        decode_image(data[: len(data) // 20], max_pixels=10**7)


def test_a_million_frames_take_no_longer() -> None:
    frame = b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    data = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * 1_000_000 + b";"
    assert decode(data).n_frames == MAX_COUNTED


def test_frames_beyond_the_canvas_count_for_the_limit() -> None:
    image = b",\0\0\0\0%s\0\2\2D\1\0"
    small, large = image % struct.pack("<HH", 1, 1), image % struct.pack("<HH", 60_000, 60_000)
    decoded = decode(b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + small + large + b";")
    assert decoded.pixels.shape == (1, 1, 3)


def test_counting_agrees_with_pillow() -> None:
    frames = [detailed(seed, (60, 40)) for seed in range(7)]
    gif, webp = (
        animation("GIF", frames, duration=[20, 30, 40, 50, 60, 70, 80]),
        animation("WebP", frames, duration=[20, 30, 40, 50, 60, 70, 80]),
    )
    for found in (gif_frames(gif), webp_frames(webp)):
        assert found.n_frames == 7
        assert found.delays == [20, 30, 40, 50, 60, 70, 80]


def test_pages_of_other_sizes_are_stretched() -> None:
    pages = [Image.new("RGB", size, colour) for size, colour in zip(((90, 60), (60, 90), (120, 20), (90, 60)), COLOURS, strict=True)]
    decoded = decode(animation("TIFF", pages))
    assert (decoded.width, decoded.height, decoded.n_frames) == (90, 60, 4)
    for found, colour in zip(quarters(decoded.pixels), COLOURS, strict=True):
        np.testing.assert_allclose(found, colour, atol=1)


@pytest.mark.parametrize("is_marked", [True, False])
@pytest.mark.parametrize("is_largest_first", [True, False])
def test_a_pyramid_is_one_picture(is_marked: bool, is_largest_first: bool) -> None:
    if not is_marked and not is_largest_first:
        return  # cannot be told from a document
    import io

    from PIL.TiffImagePlugin import AppendingTiffWriter

    levels = [detailed(1).resize(size) for size in ((200, 150), (100, 75), (50, 38), (25, 19))]
    buffer = io.BytesIO()
    with AppendingTiffWriter(buffer, True) as writer:
        for level in levels if is_largest_first else levels[::-1]:
            level.save(writer, "TIFF", tiffinfo={254: 1} if is_marked and level is not levels[0] else {})
            writer.newFrame()
    decoded = decode(buffer.getvalue())
    assert (decoded.n_frames, decoded.width, decoded.height) == (1, 200, 150)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(levels[0]))


def test_directories_that_loop_or_lie_end() -> None:
    data = bytearray(animation("TIFF", [detailed(seed, (20, 10)) for seed in range(3)]))
    assert len(full_pages(read_pages(bytes(data)))) == 3
    (first,) = struct.unpack_from("<I", data, 4)
    (n_entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * n_entries, first)
    assert len(read_pages(bytes(data))) == 1
    for size in range(len(data)):
        assert len(read_pages(bytes(data[:size]))) <= 1
    one = struct.pack("<H", 65_535) + struct.pack("<HHII", 256, 3, 1, 4) * 65_535
    assert len(read_pages(b"II*\0" + struct.pack("<I", 8) + one)) == 1
