"""Watermarks found on registered pictures, and what is none."""

import numpy as np
import pytest

from dedup.demo.pictures import photo_scenes
from dedup.numerics.image.planting import plant
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.picture import Level, Picture
from dedup.numerics.judge.watermark import unmarked


def luma(pixels):
    return Level(pixels).luma


@pytest.fixture(scope="module")
def photo():
    return list(photo_scenes())[4].pixels[:320, :480]


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("percent", [20, 35, 60])
def test_what_a_watermark_leaves_is_the_picture(photo, percent, side):
    marked = plant(photo, f"watermark_{percent}", np.random.default_rng(1))
    height, width = min(photo.shape[0], marked.shape[0]), min(photo.shape[1], marked.shape[1])
    photo, marked = photo[:height, :width], marked[:height, :width]
    a, b = (luma(marked), luma(photo)) if side == "first" else (luma(photo), luma(marked))
    left = unmarked(a, b, np.ones_like(a))
    assert left is not None
    assert 0.4 < left.mean() < 0.97
    beside, covered = np.abs(a - b)[left > 0], np.abs(a - b)[left == 0]
    assert np.quantile(beside, 0.99) < np.quantile(covered, 0.8)


def test_a_print_in_the_middle_is_no_watermark(photo):
    printed = photo.copy()
    printed[120:200, 180:300] = 255
    a, b = luma(photo), luma(printed)
    assert unmarked(a, b, np.ones_like(a)) is None


def test_specks_to_either_side_are_no_watermark(photo):
    rng = np.random.default_rng(3)
    a = luma(photo)
    specks = np.where(rng.random(a.shape) < 0.1, rng.choice([-60.0, 60.0], a.shape), 0.0)
    assert unmarked(a, (a + specks).astype(np.float32), np.ones_like(a)) is None


def test_equal_and_unrelated_pictures_have_none(photo):
    a = luma(photo)
    assert unmarked(a, a, np.ones_like(a)) is None
    assert unmarked(a, np.ascontiguousarray(a[::-1]), np.ones_like(a)) is None


def test_a_flat_picture_under_a_watermark_keeps_some_pixels():
    flat = np.full((200, 300, 3), 90, np.uint8)
    marked = plant(flat, "watermark_60", np.random.default_rng(0))[:200, :300]
    a, b = luma(flat), luma(marked)
    left = unmarked(a, b, np.ones_like(a))
    assert left is not None and left.mean() > 0.3


def test_heavy_watermarks_on_smooth_photos_stand():
    for k, scene in enumerate(list(photo_scenes())[:8]):
        verdict = compare(Picture(scene.pixels), Picture(plant(scene.pixels, "watermark_60", np.random.default_rng(k))))
        assert verdict.is_copy, (k, verdict.reason, verdict.distance)


def test_look_alikes_under_a_watermark_do_not_stand():
    pixels = [scene.pixels for scene in photo_scenes()][:6]
    for k, first in enumerate(pixels):
        other = plant(pixels[(k + 1) % 6], "watermark_60", np.random.default_rng(k))
        assert not compare(Picture(first), Picture(other)).is_copy
