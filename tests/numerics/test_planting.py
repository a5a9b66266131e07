"""The list of planted changes."""

import pickle
from functools import lru_cache

import numpy as np
import pytest

from dedup.demo.pictures import photo_scenes, procedural_scene
from dedup.errors import ConfigError, ShapeError
from dedup.numerics.image.descriptor import describe
from dedup.numerics.image.frame import picture_box
from dedup.numerics.image.planting import CHANGES, FAMILIES, changes, plant
from dedup.numerics.image.views import DISC, view_rows
from dedup.numerics.judge.compare import compare
from dedup.numerics.judge.picture import Picture


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


def is_candidate(original, copy):
    """Whether the whole pictures or two of their looks are near enough."""
    rows = []
    for pixels in (original, copy):
        box = picture_box(pixels)
        inner = [] if box is None else [describe(pixels[box[1] : box[3], box[0] : box[2]])[0]]
        aspect = np.array([pixels.shape[1] / pixels.shape[0]])
        whole = describe(pixels)[0]
        rows.append((whole, view_rows(whole[None], np.array(inner).reshape(-1, len(whole)), np.zeros(len(inner), np.int64), aspect)))
    (a, left), (b, right) = rows
    products = left.vectors @ right.vectors.T
    compared = left.is_base[:, None] | right.is_base[None, :]
    compared &= (left.kind == DISC)[:, None] == (right.kind == DISC)[None, :]
    return a @ b >= 0.7 or products[compared].max() >= 0.8


@pytest.mark.parametrize("change", [change for change in CHANGES if change.is_expected], ids=lambda change: change.name)
def test_expected_means_that_most_become_candidates_and_are_confirmed(change):
    images = [scene.pixels for scene in photo_scenes()[:6]] + [
        procedural_scene(np.random.default_rng([8, i]), (200, 175)) for i in range(8)
    ]
    copies = [change.apply(image, np.random.default_rng(i)) for i, image in enumerate(images)]
    assert np.mean([is_candidate(image, copy) for image, copy in zip(images, copies, strict=True)]) >= 0.85
    if change.family not in ("mirror", "vertical_flip", "quarter_turn"):
        stands = [compare(Picture(image), Picture(copy)).is_copy for image, copy in zip(images, copies, strict=True)]
        assert np.mean(stands) >= 0.75


def test_wrong_arguments_name_what_is_known():
    with pytest.raises(ConfigError, match="unknown change 'jpg_30'; the nearest is 'jpeg_30'"):
        plant(photo(), "jpg_30", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="the nearest is 'rotate'"):
        changes(["rotated"])
    with pytest.raises(ConfigError, match="expected default or all"):
        changes(strengths="hard")
    with pytest.raises(ShapeError, match="found float64"):
        plant(photo() / 255.0, "mirror", np.random.default_rng(0))
