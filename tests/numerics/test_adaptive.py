"""The adaptive distance against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import ShapeError
from dedup.numerics.pixels import Blocks, adaptive_distances


def by_definition(image, training, k, alpha):
    l2 = np.sqrt((((image.astype(np.float64) - training.astype(np.float64)) / 255.0) ** 2).reshape(len(training), -1).mean(axis=1))
    order = np.argsort(l2, kind="stable")
    spread = alpha * l2[order[:k]].mean()
    return order[0], l2[order[0]], l2[order[0]] / spread if spread else 0.0


def smooth(rng, n, side=8):
    base = rng.integers(0, 256, (n, 2, 2, 3)).astype(float)
    return np.clip(np.kron(base, np.ones((1, side // 2, side // 2, 1))) + rng.normal(0, 9, (n, side, side, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("m", "n", "k"), [(40, 300, 50), (5, 20, 50), (3, 1, 50), (30, 200, 1), (0, 5, 50)])
def test_as_defined(m, n, k):
    rng = np.random.default_rng(m + n)
    generated, training = smooth(rng, m), smooth(rng, n)
    generated[: m // 4] = np.clip(training[rng.integers(0, n, m // 4)].astype(int) + 2, 0, 255)
    found = adaptive_distances(generated, training, n_neighbors=k, alpha=0.5, blocks=Blocks(16, 64))
    for row in range(m):
        nearest, l2, distance = by_definition(generated[row], training, min(k, n), 0.5)
        assert found.nearest[row] == nearest
        assert found.l2[row] == pytest.approx(l2, abs=1e-12)
        assert found.distance[row] == pytest.approx(distance, abs=1e-12)


def test_copies_have_distance_0_and_plain_pictures_are_not_taken_for_copies():
    rng = np.random.default_rng(0)
    training = smooth(rng, 400)
    training[:200] = rng.integers(120, 124, (200, 8, 8, 3))  # plain pictures: near each other by l2
    generated = np.stack([training[300], rng.integers(120, 124, (8, 8, 3), dtype=np.uint8)])
    found = adaptive_distances(generated, training)
    assert found.nearest[0] == 300
    assert found.l2[0] == found.distance[0] == 0.0
    assert found.l2[1] < 0.02  # a copy by l2
    assert found.distance[1] > 1.5  # not by this: 1 / α where all are as far


def test_many_equal_training_images():
    training = np.repeat(np.full((1, 4, 4, 3), 9, np.uint8), 60, axis=0)
    found = adaptive_distances(training[:2], training)
    assert found.nearest.tolist() == [0, 0]
    assert found.distance.tolist() == [0.0, 0.0]


def test_what_can_not_be_compared_is_said():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ShapeError, match="expected generated uint8"):
        adaptive_distances(images.astype(np.float32), images)
    with pytest.raises(ShapeError, match="expected training images of"):
        adaptive_distances(images, np.zeros((2, 5, 4, 3), np.uint8))
    with pytest.raises(ShapeError, match="expected training images of"):
        adaptive_distances(images, images[:0])


def l2(a, b):
    return float(np.sqrt((((a.astype(np.float64) - b.astype(np.float64)) / 255.0) ** 2).mean()))


def row_by_row(generated, training, k, alpha, around):
    """(nearest, l2, distance) of each generated image."""
    rows = []
    for image in generated:
        distances = np.array([l2(image, other) for other in training])
        nearest = int(distances.argmin())
        if around == "training":
            others = sorted(l2(training[nearest], other) for place, other in enumerate(training) if place != nearest)
            mean = float(np.mean(others[:k]))
        else:
            mean = float(np.mean(np.sort(distances)[:k]))
        own = distances[nearest]
        rows.append((nearest, own, 0.0 if own == 0.0 else own / (alpha * mean) if mean else np.inf))
    return [np.array(column) for column in zip(*rows, strict=True)]


def images_of(rng, n, size):
    """Smooth and noisy pictures, equal ones among them."""
    images = np.clip(rng.integers(0, 256, (n, 1, 1, size[2])) + rng.normal(0, 25, (n, *size)), 0, 255).astype(np.uint8)
    images[n // 2] = images[0]
    return images


@pytest.mark.parametrize("around", ["generated", "training"])
@pytest.mark.parametrize("size", [(8, 8, 3), (32, 32, 3), (5, 7, 1), (1, 1, 1)])
def test_all_are_as_defined(around, size):
    rng = np.random.default_rng(0)
    generated, training = images_of(rng, 20, size), images_of(rng, 70, size)
    training[3] = generated[5]
    found = adaptive_distances(generated, training, n_neighbors=9, alpha=0.7, around=around, blocks=Blocks(7, 16))
    nearest, l2s, expected = row_by_row(generated, training, 9, 0.7, around)
    assert np.array_equal(found.nearest, nearest)
    np.testing.assert_allclose(found.l2, l2s, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-12, atol=0)
    assert found.distance[5] == 0.0


def test_values_at_the_ends_are_exact():
    """Black and white: the largest products there are, and more of them than one float32 sum may take."""
    training = np.zeros((60, 40, 40, 3), np.uint8)
    training[::2] = 255
    training[0, 0, 0, 0] = 254
    generated = np.zeros((2, 40, 40, 3), np.uint8)
    generated[0] = 255
    found = adaptive_distances(generated, training, n_neighbors=50)
    assert found.nearest.tolist() == [2, 1]
    assert found.l2.tolist() == [0.0, 0.0]
    only = np.concatenate([training[:1], training[1::2], training[1::2]])
    assert adaptive_distances(generated[:1], only, n_neighbors=50).l2[0] == pytest.approx(np.sqrt(1 / (40 * 40 * 3)) / 255, rel=1e-14)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 12), st.sampled_from(["generated", "training"]))
def test_properties(seed, n, k, around):
    rng = np.random.default_rng(seed)
    values = [0, 1, 128, 255] if seed % 2 else np.arange(256)
    training, generated = rng.choice(values, (n, 2, 3, 1)).astype(np.uint8), rng.choice(values, (4, 2, 3, 1)).astype(np.uint8)
    found = adaptive_distances(generated, training, n_neighbors=k, around=around)
    assert (found.l2 >= 0).all()
    assert (found.l2 <= 1).all()
    if around == "generated":  # the nearest is one of those it is compared with
        assert (found.distance <= 2.0 + 1e-12).all()
    shuffled = rng.permutation(n)
    again = adaptive_distances(generated, training[shuffled], n_neighbors=k, around=around)
    assert np.array_equal(again.l2, found.l2)
    if around == "generated":
        assert np.array_equal(again.distance, found.distance)
    # darker by one everywhere, where there is room: no distance changes
    if min(training.min(), generated.min()) > 0:
        assert np.array_equal(adaptive_distances(generated - 1, training - 1, n_neighbors=k, around=around).distance, found.distance)


def test_numbers_out_of_range_are_said():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ShapeError, match="at least 2"):
        adaptive_distances(images, images[:1], around="training")
    for options in ({"alpha": 0}, {"n_neighbors": 0}):
        with pytest.raises(ShapeError, match="expected at least 1, and a number above 0"):
            adaptive_distances(images, images, **options)
