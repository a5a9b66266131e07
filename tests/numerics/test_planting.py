"""The list of planted changes."""

import pickle
from functools import lru_cache

import numpy as np
import pytest

from dedup.demo.scenes import photo_scenes, procedural_scene
from dedup.errors import ConfigError, ShapeError
from dedup.numerics.descriptor import describe
from dedup.numerics.planting import CHANGES, FAMILIES, changes, plant


@lru_cache
def photo():
    return photo_scenes()[0].pixels


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_change_keeps_the_contract(change):
    original = photo().copy()
    copy = change.apply(original, np.random.default_rng(5))
    assert copy.dtype == np.uint8
    assert copy.ndim == 3 and copy.shape[2] == 3
    assert np.array_equal(original, photo()), "the image was written to"
    assert copy.shape != original.shape or not np.array_equal(copy, original)
    assert np.array_equal(copy, change.apply(original, np.random.default_rng(5)))
    assert np.array_equal(copy, pickle.loads(pickle.dumps(change)).apply(original, np.random.default_rng(5)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (300, 2, 3)])
def test_extreme_shapes(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for change in CHANGES:
        assert change.apply(image, np.random.default_rng(1)).size > 0, change.name


def test_names_are_unique_and_every_asked_for_family_is_there():
    assert len({change.name for change in CHANGES}) == len(CHANGES)
    assert {change.family for change in CHANGES} == set(FAMILIES)
    asked = """jpeg webp resize aspect crop crop_off border letterbox caption caption_over watermark logo brightness contrast
        gamma saturation cast grey blur noise sharpen rotate mirror vertical_flip quarter_turn screenshot"""
    assert set(FAMILIES) == {*asked.split()}
    assert {change.family for change in changes()} == set(FAMILIES)
    assert changes(strengths="all") == CHANGES


def test_strengths_mean_what_their_unit_says():
    image, rng = np.zeros((200, 300, 3), dtype=np.uint8), np.random.default_rng(0)
    assert plant(image, "resize_0.5", rng).shape == (100, 150, 3)
    assert plant(image, "aspect_1.25", rng).shape == (200, 375, 3)
    assert plant(image, "crop_off_70", rng).shape == (140, 210, 3)
    assert plant(image, "border_5", rng).shape == (220, 330, 3)
    assert plant(image, "letterbox_10", rng).shape == (240, 300, 3)
    assert plant(image, "caption_12", rng).shape == (224, 300, 3)
    assert plant(image, "quarter_turn_90", rng).shape == (300, 200, 3)
    assert np.array_equal(plant(photo(), "mirror", rng), photo()[:, ::-1])
    assert np.array_equal(plant(photo(), "vertical_flip", rng), photo()[::-1])
    grey = plant(photo(), "grey", rng)
    assert (grey == grey[:, :, :1]).all()


def test_expected_means_that_the_default_encoder_finds_most():
    images = [scene.pixels for scene in photo_scenes()[:6]] + [
        procedural_scene(np.random.default_rng([8, i]), (200, 175)) for i in range(10)
    ]
    originals = np.array([describe(image)[0] for image in images])
    for change in CHANGES:
        if change.is_expected:
            copies = np.array([describe(change.apply(image, np.random.default_rng(i)))[0] for i, image in enumerate(images)])
            assert ((originals * copies).sum(axis=1) >= 0.7).mean() >= 0.85, change.name


def test_wrong_arguments_name_what_is_known():
    with pytest.raises(ConfigError, match="unknown change 'jpg_30'; the nearest is 'jpeg_30'"):
        plant(photo(), "jpg_30", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="the nearest is 'rotate'"):
        changes(["rotated"])
    with pytest.raises(ConfigError, match="expected default or all"):
        changes(strengths="hard")
    with pytest.raises(ShapeError, match="found float64"):
        plant(photo() / 255.0, "mirror", np.random.default_rng(0))
