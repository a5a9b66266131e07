"""The view of the disc: one vector for all rotations of a picture."""

import numpy as np
import pytest
from PIL import Image

from dedup.demo.pictures import photo_scenes
from dedup.errors import ShapeError
from dedup.numerics.image.descriptor import describe
from dedup.numerics.image.views import DISC_DIM, disc_views


def views_of(pictures):
    aspect = np.array([picture.shape[1] / picture.shape[0] for picture in pictures])
    return disc_views(np.stack([describe(picture)[0] for picture in pictures]), aspect)


@pytest.fixture(scope="module")
def photos():
    return [photo.pixels for photo in photo_scenes()][:8]


@pytest.mark.parametrize("degrees", [3, 28, 90, 137, 180, 251, 345])
def test_rotated_copies_have_one_view(photos, degrees):
    rotated = [np.array(Image.fromarray(photo).rotate(degrees, Image.Resampling.BICUBIC)) for photo in photos]
    before, after = views_of(photos)[0], views_of(rotated)[0]
    assert (before * after).sum(axis=1).min() > 0.85


def test_quarter_turns_of_pictures_that_are_not_square(photos):
    turned = [np.rot90(photo) for photo in photos]
    assert (views_of(photos)[0] * views_of(turned)[0]).sum(axis=1).min() > 0.98


def test_different_pictures_have_different_views(photos):
    views, is_usable = views_of(photos)
    assert is_usable.all()
    products = views @ views.T
    assert views.shape == (len(photos), DISC_DIM)
    assert np.allclose(np.diag(products), 1, atol=1e-5)
    assert products[np.triu_indices(len(photos), 1)].max() < 0.85


def test_uniform_pictures_tell_no_direction():
    flat = np.full((64, 64, 3), 90, dtype=np.uint8)
    views, is_usable = views_of([flat])
    assert not is_usable.any()
    assert np.isfinite(views).all()


@pytest.mark.parametrize("aspect", [1e-9, 0.001, 1000.0])
def test_extreme_aspect_ratios(photos, aspect):
    views, _ = disc_views(describe(photos[0])[0][None], np.array([aspect]))
    assert np.isfinite(views).all()


def test_shapes_are_checked():
    with pytest.raises(ShapeError):
        disc_views(np.zeros((2, 384), np.float32), np.ones(3))
    with pytest.raises(ShapeError):
        disc_views(np.zeros((2, 100), np.float32), np.ones(2))
