"""Pairs of pictures judged by their pixels: planted copies stand, look-alikes and bursts do not."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from dedup.demo.pictures import photo_scenes, procedural_scene
from dedup.errors import ShapeError
from dedup.numerics.image.descriptor import VARIANTS, describe, turn
from dedup.numerics.image.planting import CHANGES, plant
from dedup.numerics.judge.compare import MAX_DISTANCE, REASONS, compare, turned
from dedup.numerics.judge.picture import SIDE, Picture
from dedup.numerics.judge.register import align

HARD = {"jpeg_10", "crop_50", "crop_off_50", "rotate_15", "caption_over_12", "caption_over_20", "saturation_2.5", "contrast_1.6"} | {
    "blur_4",
    "noise_25",
}
TURNS = {"mirror": "mirror", "vertical_flip": "flip"}


@lru_cache
def photos():
    """Photos, and scenes with as much to see."""
    scenes = [
        procedural_scene(np.random.default_rng(seed), kind=kind) for seed, kind in enumerate(("ridges", "skyline", "marble", "mosaic"))
    ]
    return [photo.pixels for photo in photo_scenes()][:6] + scenes


def judged(a, b):
    return compare(Picture(a), Picture(b))


@pytest.mark.parametrize("change", [change for change in CHANGES if change.family not in (*TURNS, "quarter_turn")], ids=lambda c: c.name)
def test_planted_changes_stand(change):
    verdicts = [judged(photo, plant(photo, change.name, np.random.default_rng(k))) for k, photo in enumerate(photos()[:6])]
    refused = [(k, verdict.reason, verdict.distance) for k, verdict in enumerate(verdicts) if not verdict.is_copy]
    assert len(refused) <= (6 if not change.is_expected and change.family == "jpeg" else 2 if change.name in HARD else 0), refused


def test_different_pictures_do_not_stand():
    pictures = [Picture(photo) for photo in photos()]
    for k, a in enumerate(pictures):
        for b in pictures[k + 1 :]:
            verdict = compare(a, b)
            assert not verdict.is_copy
            assert verdict.reason in REASONS


@pytest.mark.parametrize("variant", VARIANTS)
def test_turned_copies_stand_when_turned_back_only(variant):
    photo = photos()[0]
    copy = turned(photo, variant)
    assert judged(turned(photo, variant), copy).distance < 0.01
    if variant != "none":
        assert not judged(photo, copy).is_copy


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_turn_as_descriptors_do(variant):
    photo = photos()[0]
    assert np.allclose(describe(turned(photo, variant))[0], turn(describe(photo)[0][None], variant)[0], atol=2e-2)


def test_the_transform_says_where_a_crop_lies():
    photo = photos()[0]
    height, width, _ = photo.shape
    left, top, right, bottom = width // 10, height // 5, width * 8 // 10, height * 9 // 10
    verdict = judged(photo, photo[top:bottom, left:right])
    assert verdict.is_copy
    corners = np.array([[left / width, top / height, 1], [right / width, bottom / height, 1]])
    assert np.allclose(corners @ verdict.matrix.T, [[0, 0], [1, 1]], atol=0.02)


def test_alignment_finds_the_inverse_the_other_way():
    a, b = Picture(photos()[1]).level(SIDE), Picture(plant(photos()[1], "crop_80", np.random.default_rng(0))).level(SIDE)
    there, back = align(a, b), align(b, a)
    assert np.allclose(cv2.invertAffineTransform(there.matrix), back.matrix, atol=0.5)
    assert min(there.agreement, back.agreement) > 0.9


def _burst(photo, rng, kind):
    """A second shot of the same scene: a subject that moved or came in, or a camera that moved before a scene with depth."""
    height, width, _ = photo.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if kind == "parallax":
        field = cv2.resize(rng.standard_normal((4, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        return cv2.remap(photo, x + field / np.abs(field).max() * 0.04 * width, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    reach = 0.3 if kind == "subject" else 0.14  # of each side: 28% and 6% of the picture
    inside = (((y - height / 2) / (reach * height)) ** 2 + ((x - width / 2) / (reach * width)) ** 2 < 1)[:, :, None]
    if kind == "newcomer":
        return np.where(inside, cv2.resize(photos()[-1 - rng.integers(4)], (width, height)), photo)
    return np.where(inside, np.roll(photo, (int(0.05 * height), int(0.05 * width)), axis=(0, 1)), photo)


@pytest.mark.parametrize("kind", ["parallax", "subject", "newcomer"])
def test_two_shots_of_one_scene_do_not_stand(kind):
    rng = np.random.default_rng(3)
    verdicts = [judged(photo, _burst(photo, rng, kind)) for photo in photos()[:6]]
    assert sum(verdict.is_copy for verdict in verdicts) <= 1, [(v.reason, v.distance, v.moved) for v in verdicts]


def test_recoloured_subject_does_not_stand():
    photo = photos()[0]
    height, width, _ = photo.shape
    other = photo.copy()
    middle = (slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4))
    other[middle] = other[middle][:, :, [2, 0, 1]]
    assert not judged(photo, other).is_copy


def test_verdicts_do_not_depend_on_what_was_asked_before():
    a, b = photos()[0], plant(photos()[0], "crop_off_80", np.random.default_rng(0))
    first = judged(a, b)
    for photo in photos()[1:4]:
        judged(photo, b)
    again = judged(a, b)
    assert (first.distance, first.moved, first.matrix.tolist()) == (again.distance, again.moved, again.matrix.tolist())


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2000), (2000, 5), (20, 20)])
def test_extreme_shapes_are_judged(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    other = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert 0.0 <= judged(pixels, pixels).distance <= 1.0
    assert not judged(pixels, photos()[0]).is_copy
    assert not judged(pixels, other).is_copy or max(shape) < 12


@pytest.mark.parametrize("value", [0, 255])
def test_uniform_pictures_are_no_evidence(value):
    flat = np.full((100, 120, 3), value, dtype=np.uint8)
    assert not judged(flat, photos()[0]).is_copy
    assert not judged(flat, flat).is_copy


def test_the_limit_is_the_caller_s():
    a, b = Picture(photos()[0]), Picture(plant(photos()[0], "jpeg_3", np.random.default_rng(0)))
    distance = compare(a, b).distance
    assert distance > 0.0
    assert not compare(a, b, max_distance=distance / 2).is_copy
    assert MAX_DISTANCE == 0.15


def test_only_rgb_pixels():
    with pytest.raises(ShapeError):
        Picture(np.zeros((10, 10), dtype=np.uint8))
    with pytest.raises(ShapeError):
        Picture(np.zeros((10, 10, 3), dtype=np.float32))


def garment_on_grain(seed):
    """A plain thing on fine grain: what a copy on 48 pixels does not show any more."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(300, 400)).astype(np.float32), (0, 0), 0.8)
    pixels = np.clip([120.0, 130.0, 60.0] + 25.0 * (grain / grain.std())[:, :, None], 0.0, 255.0)
    pixels[50:270, 130:270] = [200.0, 100.0, 40.0]
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_tracks_align_what_the_small_copy_has_lost(seed):
    photo = garment_on_grain(seed)
    boxed = cv2.copyMakeBorder(photo, 30, 30, 0, 0, cv2.BORDER_CONSTANT)
    assert judged(photo, boxed).is_copy
    other = judged(photo, garment_on_grain(seed + 50))
    assert (other.is_copy, other.reason) == (False, "unaligned")
