"""Thumbnails: their pixels, their order, and the store on a disk and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shard_data import scene

from dedup.errors import RunDirectoryError, ShapeError
from dedup.numerics.image.descriptor import GRID, area_resize, grid_matrix
from dedup.storage.images.decode import decode_image
from dedup.storage.images.thumbnails import ThumbnailStore, ThumbnailWriter, make_thumbnail, open_thumbnails, remove_thumbnails


def whole(pixels):
    return (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 9))
def test_area_resize_is_the_mean_of_what_a_pixel_covers(height, width, cut_left, cut_bottom, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = (cut_left, 0.0, float(width), height - cut_bottom)
    # the encoder's matrix is made another way
    expected = np.einsum("ih,hwc,jw->ijc", grid_matrix(height, 0.0, box[3]), pixels.astype(float), grid_matrix(width, box[0], box[2]))
    found = area_resize(pixels, GRID, GRID, box)
    assert found.flags.c_contiguous
    assert np.abs(found - expected).max() <= 0.501
    assert np.array_equal(area_resize(pixels, width, height), pixels)


def test_area_resize_refuses_what_is_no_picture():
    with pytest.raises(ShapeError, match="uint8"):
        area_resize(np.zeros((4, 4), np.uint8), 2, 2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((200, 320), (100, 160)),
        ((160, 90), (160, 90)),
        ((20, 30), (20, 30)),
        ((128, 5000), (4, 160)),
        ((3, 2000), (1, 160)),
        ((1, 1), (1, 1)),
    ],
)
def test_thumbnails_keep_the_aspect_and_are_never_enlarged(shape, expected):
    pixels = np.asarray(scene(1, (shape[1], shape[0])))
    image = Image.open(io.BytesIO(make_thumbnail(pixels, whole(pixels))))
    assert image.size == expected[::-1]


def test_a_thumbnail_looks_like_its_picture():
    # 350 px at 3/8 are 131.25 of 132 columns: the box counts, not the pixels
    buffer = io.BytesIO()
    scene(3, (350, 700)).save(buffer, "JPEG", quality=95)
    image = decode_image(buffer.getvalue(), max_pixels=10**6, min_side=128)
    assert image.box[2] == 131.25
    small = decode_image(make_thumbnail(image.pixels, image.box), max_pixels=10**6).pixels
    assert small.shape == (160, 80, 3)
    expected = area_resize(np.asarray(scene(3, (350, 700))), 80, 160)
    luma = (small.astype(float) - expected) @ [0.299, 0.587, 0.114]  # colour is kept at half the size
    assert np.abs(luma).mean() < 1  # 2.0 if all 132 columns are taken


@pytest.fixture(params=["disk", "memory"])
def run_dir(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "run")
        return
    fs = fsspec.filesystem("memory")
    yield "memory://thumbnails-test/run"
    if fs.exists("/thumbnails-test"):
        fs.rm("/thumbnails-test", recursive=True)


def fill(run_dir, partition, images):
    writer = ThumbnailWriter(f"{run_dir}/embeddings", partition)
    writer.write(images[:2])
    writer.write(images[2:])
    writer.close()


def test_round_trip(run_dir):
    assert open_thumbnails(f"{run_dir}/embeddings") is None
    images = {number: [b"%d-%d" % (number, row) * row for row in range(5)] for number in (0, 7)}
    for number, parts in images.items():
        fill(run_dir, number, parts)
    fill(run_dir, 8, [])
    if not run_dir.startswith("memory"):
        store = open_thumbnails(f"{run_dir}/embeddings")
        assert store is open_thumbnails(f"{run_dir}/embeddings")
    else:  # a remote run is looked at again when the record of its embed stage is another
        assert open_thumbnails(f"{run_dir}/embeddings") is None
        fsspec.filesystem("memory").pipe_file("/thumbnails-test/run/_stages/embed.json", b"{}")
        store = open_thumbnails(f"{run_dir}/embeddings")
    assert store is not None
    for number, parts in images.items():
        for row in (4, 0, 1, 3, 2):
            assert store.get((number << 32) + row) == parts[row]
    assert (7 << 32) in store
    assert (1 << 32) not in store
    with pytest.raises(RunDirectoryError, match="no thumbnails of partition 1"):
        store.get(1 << 32)
    for sample_id in ((7 << 32) + 5, 8 << 32):
        with pytest.raises(RunDirectoryError, match="rows"):
            store.get(sample_id)


def test_many_partitions(run_dir):
    for number in range(5):
        fill(run_dir, number, [b"%d" % number] * 3)
    store = ThumbnailStore(f"{run_dir}/embeddings", range(5), max_partitions=2)
    order = np.random.default_rng(0).integers(0, 5, 60).tolist()
    assert [store.get((number << 32) + 1) for number in order] == [b"%d" % number for number in order]


def test_removed_and_damaged(tmp_path):
    run_dir = str(tmp_path)
    fill(run_dir, 0, [b"abc", b"defg", b"hi"])
    fill(run_dir, 1, [b"x"])
    remove_thumbnails(f"{run_dir}/embeddings", 0)
    remove_thumbnails(f"{run_dir}/embeddings", 2)
    store = open_thumbnails(f"{run_dir}/embeddings")
    assert 0 not in store
    assert store.get(1 << 32) == b"x"
    fill(run_dir, 0, [b"abc", b"defg", b"hi"])
    store = open_thumbnails(f"{run_dir}/embeddings")
    path = Path(run_dir, "embeddings", "thumbnails", "thumbnails_00000.bin")
    path.write_bytes(path.read_bytes()[:5])
    assert store.get(0) == b"abc"
    with pytest.raises(RunDirectoryError, match="ends after 2 of 4 bytes.*run embed again"):
        store.get(1)
    path.unlink()
    with pytest.raises(RunDirectoryError, match="--redo"):
        open_thumbnails(f"{run_dir}/embeddings").get(0)


def test_an_aborted_writer_leaves_nothing(run_dir):
    writer = ThumbnailWriter(f"{run_dir}/embeddings", 0)
    writer.write([b"abc"])
    writer.abort()
    fs, path = fsspec.core.url_to_fs(run_dir)
    assert not fs.glob(f"{path}/embeddings/thumbnails/*")
