"""The adaptive distance against its definition; thresholds against networkx."""

import networkx as nx
import numpy as np
import pytest

from dedup.errors import ShapeError
from dedup.numerics import adaptive
from dedup.numerics.adaptive import adaptive_distances, removed_by_threshold
from dedup.numerics.components import maximum_spanning_forest


def by_definition(image, training, k, alpha):
    l2 = np.sqrt((((image.astype(np.float64) - training.astype(np.float64)) / 255.0) ** 2).reshape(len(training), -1).mean(axis=1))
    order = np.argsort(l2, kind="stable")
    spread = alpha * l2[order[:k]].mean()
    return order[0], l2[order[0]], l2[order[0]] / spread if spread else 0.0


def smooth(rng, n, side=8):
    base = rng.integers(0, 256, (n, 2, 2, 3)).astype(float)
    return np.clip(np.kron(base, np.ones((1, side // 2, side // 2, 1))) + rng.normal(0, 9, (n, side, side, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("m", "n", "k"), [(40, 300, 50), (5, 20, 50), (3, 1, 50), (30, 200, 1), (0, 5, 50)])
def test_as_defined(m, n, k, monkeypatch):
    monkeypatch.setattr(adaptive, "_BLOCK", 16)
    monkeypatch.setattr(adaptive, "_COLUMNS", 64)
    rng = np.random.default_rng(m + n)
    generated, training = smooth(rng, m), smooth(rng, n)
    generated[: m // 4] = np.clip(training[rng.integers(0, n, m // 4)].astype(int) + 2, 0, 255)
    found = adaptive_distances(generated, training, n_neighbors=k, alpha=0.5)
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


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_remove_what_components_do(seed):
    rng = np.random.default_rng(seed)
    n = 60
    pairs = np.unique(np.sort(rng.integers(0, n, (150, 2)), axis=1), axis=0)
    src, dst = pairs[pairs[:, 0] != pairs[:, 1]].T
    similarity = rng.random(len(src))
    thresholds = [0.0, 0.2, 0.5, 0.8, 1.0]
    expected = []
    for threshold in thresholds:
        graph = nx.empty_graph(n)
        graph.add_edges_from(zip(src[similarity >= threshold], dst[similarity >= threshold], strict=True))
        expected.append(n - nx.number_connected_components(graph))
    assert removed_by_threshold(src, dst, similarity, n, thresholds).tolist() == expected
    forest = maximum_spanning_forest(src, dst, similarity.astype(np.float32))
    assert removed_by_threshold(src[forest], dst[forest], similarity[forest], n, thresholds).tolist() == expected
