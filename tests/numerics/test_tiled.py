"""Distances against their definition, pair by pair."""

import numpy as np
import pytest

from dedup.errors import ShapeError
from dedup.numerics import pixels as tiled
from dedup.numerics.pixels import l2_distances, pairwise_tiled_distances, tiled_distances
from dedup.numerics.search.gpu import Device


def by_definition(a, b, tiles):
    """Maximum over tiles of sqrt(mean((a - b)²)), pixels in [0, 1]."""
    difference = (a.astype(np.float64) - b.astype(np.float64)) / 255.0
    rows = np.linspace(0, len(a), tiles + 1).astype(int)
    columns = np.linspace(0, a.shape[1], tiles + 1).astype(int)
    return max(
        np.sqrt((difference[top:bottom, left:right] ** 2).mean())
        for top, bottom in zip(rows[:-1], rows[1:], strict=True)
        for left, right in zip(columns[:-1], columns[1:], strict=True)
    )


def images_of(seed, n=12, size=(40, 52), noise=6.0):
    """A few pictures with noisy copies of each, an equal pair among them."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (3, *size, 3)).astype(float)
    images = np.clip(np.rint(base[np.arange(n) % 3] + rng.normal(0, noise, (n, *size, 3))), 0, 255).astype(np.uint8)
    images[n - 1] = images[0]
    return images


@pytest.mark.parametrize("size", [(40, 52), (41, 53), (64, 64), (4, 4)])
@pytest.mark.parametrize("tiles", [1, 4])
def test_all_pairs_are_as_defined(size, tiles):
    images = images_of(0, size=size)
    found = pairwise_tiled_distances(images, tiles)
    expected = np.array([[by_definition(a, b, tiles) for b in images] for a in images])
    assert found.dtype == np.float32
    assert np.array_equal(found, found.T)
    assert not np.diag(found).any()
    assert np.abs(found - expected)[expected > 0.02].max() < 1e-4
    assert np.abs(found - expected).max() < 2e-3


def test_one_against_many_is_exact():
    images = images_of(1)
    np.testing.assert_allclose(tiled_distances(images, images[3]), [by_definition(a, images[3], 4) for a in images], atol=1e-12)
    np.testing.assert_allclose(l2_distances(images, images[3]), [by_definition(a, images[3], 1) for a in images], atol=1e-12)
    assert (tiled_distances(images, images[3]) >= l2_distances(images, images[3])).all()
    assert tiled_distances(images, images[0])[11] == 0.0


def test_rounding_decides_no_pair():
    images = images_of(2, n=30)
    exact = np.array([tiled_distances(images, image) for image in images])
    found = pairwise_tiled_distances(images)
    for threshold in np.unique(exact[exact > 0])[:60].tolist():
        assert np.array_equal(found <= np.float32(threshold), exact.astype(np.float32) <= np.float32(threshold))


def test_products_on_a_device_tell_the_same(monkeypatch):
    images, device = images_of(4, n=40), Device("cpu")
    ours, theirs = (pairwise_tiled_distances(images, device=where) for where in (None, device))
    assert np.abs(ours - theirs).max() < 2e-3
    for threshold in (0.02, 0.03, 0.1, 0.4):
        assert np.array_equal(ours <= np.float32(threshold), theirs <= np.float32(threshold))
    assert device.n_left == 0

    def full(name, tile):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(tiled, "gram", full)
    assert np.array_equal(pairwise_tiled_distances(images, device=device), pairwise_tiled_distances(images))
    assert device.n_left == 16


def test_equal_backgrounds_do_not_make_images_near():
    """A small thing on white: near by l2 whatever it is, far in its tile."""
    rng = np.random.default_rng(3)
    images = np.full((2, 128, 128, 3), 255, np.uint8)
    for image in images:
        image[40:60, 40:60] = rng.integers(0, 256, (20, 20, 3))
    assert l2_distances(images[:1], images[1])[0] < 0.1
    assert tiled_distances(images[:1], images[1])[0] > 0.2


def test_black_and_white_are_one_apart():
    images = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    assert pairwise_tiled_distances(images)[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert l2_distances(images, images[1]).tolist() == [1.0, 0.0]


def test_what_can_not_be_compared_is_said():
    with pytest.raises(ShapeError, match="expected uint8"):
        pairwise_tiled_distances(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ShapeError, match="at least 4 pixels"):
        pairwise_tiled_distances(np.zeros((2, 3, 8, 3), np.uint8))
    with pytest.raises(ShapeError, match="images of one size"):
        l2_distances(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (41, 53)])
def test_all_pairs_are_exact(size):
    """Tiles of more values than one float32 sum takes, black and white among them, pairs at every threshold."""
    rng = np.random.default_rng(4)
    images = rng.choice([0, 1, 128, 255], (10, *size, 9)).astype(np.uint8)
    images[0], images[1], images[2] = 0, 255, images[3]
    images[4] = images[3]
    images[4, -1, -1, -1] ^= 1
    for tiles in (1, 2, 4):
        exact = np.array([tiled_distances(images, image, tiles) for image in images])
        assert np.array_equal(pairwise_tiled_distances(images, tiles), exact.astype(np.float32))
