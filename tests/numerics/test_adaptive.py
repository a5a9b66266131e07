"""The adaptive distance against its definition, pair by pair in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import ShapeError
from dedup.numerics import adaptive
from dedup.numerics.adaptive import adaptive_distances


def l2(a, b):
    return float(np.sqrt((((a.astype(np.float64) - b.astype(np.float64)) / 255.0) ** 2).mean()))


def by_definition(generated, training, k, alpha, around):
    """(nearest, l2, mean_l2, adaptive) of each generated image."""
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
        rows.append((nearest, own, mean, 0.0 if own == 0.0 else own / (alpha * mean) if mean else np.inf))
    return [np.array(column) for column in zip(*rows, strict=True)]


def images_of(rng, n, size):
    """Smooth and noisy pictures, equal ones among them."""
    images = np.clip(rng.integers(0, 256, (n, 1, 1, size[2])) + rng.normal(0, 25, (n, *size)), 0, 255).astype(np.uint8)
    images[n // 2] = images[0]
    return images


@pytest.mark.parametrize("around", ["generated", "training"])
@pytest.mark.parametrize("size", [(8, 8, 3), (32, 32, 3), (5, 7, 1), (1, 1, 1)])
def test_all_are_as_defined(monkeypatch, around, size):
    monkeypatch.setattr(adaptive, "_ROWS", 7)
    monkeypatch.setattr(adaptive, "_COLUMNS", 16)
    rng = np.random.default_rng(0)
    generated, training = images_of(rng, 20, size), images_of(rng, 70, size)
    training[3] = generated[5]
    found = adaptive_distances(generated, training, n_neighbors=9, alpha=0.7, around=around)
    nearest, distance, mean, expected = by_definition(generated, training, 9, 0.7, around)
    assert np.array_equal(found.nearest, nearest)
    np.testing.assert_allclose(found.l2, distance, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.mean_l2, mean, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.adaptive, expected, rtol=1e-12, atol=0)
    assert found.adaptive[5] == 0.0


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
    if n < k + (around == "training"):
        with pytest.raises(ShapeError, match="training images to choose"):
            adaptive_distances(generated, training, n_neighbors=k, around=around)
        return
    found = adaptive_distances(generated, training, n_neighbors=k, around=around)
    assert (found.l2 >= 0).all()
    assert (found.l2 <= 1).all()
    if around == "generated":  # the nearest is one of those it is compared with
        assert (found.adaptive <= 2.0 + 1e-12).all()
    shuffled = rng.permutation(n)
    again = adaptive_distances(generated, training[shuffled], n_neighbors=k, around=around)
    assert np.array_equal(again.l2, found.l2)
    if around == "generated":
        assert np.array_equal(again.adaptive, found.adaptive)
    # darker by one everywhere, where there is room: no distance changes
    if min(training.min(), generated.min()) > 0:
        assert np.array_equal(adaptive_distances(generated - 1, training - 1, n_neighbors=k, around=around).adaptive, found.adaptive)


def test_a_memorised_image_stands_out():
    """A copy with noise is far below an image of its own; one of plain colour is near in l2 and not by this distance."""
    rng = np.random.default_rng(1)
    training = rng.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
    training[:100] = np.clip(120 + rng.normal(0, 4, (100, 8, 8, 3)), 0, 255)
    copy = np.clip(training[200] + rng.normal(0, 10, (8, 8, 3)), 0, 255).astype(np.uint8)
    plain = np.clip(120 + rng.normal(0, 4, (8, 8, 3)), 0, 255).astype(np.uint8)
    new = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = adaptive_distances(np.stack([copy, plain, new]), training)
    assert found.nearest[0] == 200
    assert found.l2[1] < found.l2[0] < found.l2[2]
    assert found.adaptive[0] < 0.4
    assert found.adaptive[1] > 1.5
    assert found.adaptive[2] > 1.5


def test_wrong_arguments():
    images = np.zeros((60, 4, 4, 3), np.uint8)
    with pytest.raises(ShapeError, match="expected uint8"):
        adaptive_distances(images.astype(np.float32), images)
    with pytest.raises(ShapeError, match="images of one size"):
        adaptive_distances(images[:, :3], images)
    with pytest.raises(ShapeError, match="at least 50 training images"):
        adaptive_distances(images, images[:49])
    with pytest.raises(ShapeError, match="at least 51 training images"):
        adaptive_distances(images, images[:50], around="training")
    with pytest.raises(ShapeError, match="alpha=0"):
        adaptive_distances(images, images, alpha=0)
    assert len(adaptive_distances(images[:0], images).l2) == 0
