"""Greedy cover, counts, recall and exact similarities against loops."""

import numpy as np
import pytest
from vector_data import all_similarities, copies_of, power_law, with_planted

from dedup.errors import ShapeError
from dedup.numerics.graph.components import duplication_counts
from dedup.numerics.graph.cover import greedy_cover, region_cover
from dedup.numerics.search.exhaustive import count_neighbors
from dedup.numerics.similarity import exact_similarity, unit_rows


def cover_by_loop(similarity, asked, rows, n_forced, nearest):
    anchors, of = [], {}
    for i, row in enumerate(rows):
        covering = [a for a in anchors if row == rows[a] or similarity[row, rows[a]] >= max(asked[row], asked[rows[a]])]
        if i < n_forced or not covering:
            anchors.append(i)
    for i, row in enumerate(rows):
        if i in anchors:
            of[i] = i
            continue
        value = {a: 1.0 if row == rows[a] else similarity[row, rows[a]] for a in anchors}
        covering = [a for a in anchors if row == rows[a] or value[a] >= max(asked[row], asked[rows[a]])]
        of[i] = max(covering, key=lambda a: (value[a], -a)) if nearest else covering[0]
    return np.array([of[i] for i in range(len(rows))])


@pytest.mark.parametrize(("n_forced", "nearest"), [(1, False), (1, True), (3, True)])
def test_cover_equals_a_loop(n_forced, nearest):
    rng = np.random.default_rng(0)
    vectors = copies_of(rng, power_law(rng, 1)[0], 60, rng.uniform(0.75, 1, 60)).astype(np.float16)
    asked = rng.choice(np.array([0.7, 0.9], np.float32), 60)
    rows = rng.integers(0, 60, 150)
    anchor, similarity = greedy_cover(vectors, asked, rows, n_forced=n_forced, nearest=nearest)
    exact = all_similarities(vectors)
    assert np.array_equal(anchor, cover_by_loop(exact, asked, rows, n_forced, nearest))
    assert (anchor[anchor] == anchor).all()
    expected = np.where(rows == rows[anchor], 1.0, exact[rows, rows[anchor]])
    assert np.allclose(similarity, expected, atol=1e-6)
    dropped = anchor != np.arange(150)
    assert (similarity[dropped] >= np.where(rows == rows[anchor], 0, np.maximum(asked[rows], asked[rows[anchor]]))[dropped]).all()


def test_a_chain_is_cut():
    # each step turns by 10 degrees: neighbours 0.985, ends unrelated
    angles = np.deg2rad(10.0 * np.arange(19))
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16)
    anchor, similarity = greedy_cover(vectors, np.full(19, 0.9, np.float32), np.arange(19))
    assert len(np.unique(anchor)) == 7
    assert similarity.min() >= 0.9


def test_regions_equal_the_cover_where_edges_lead_everywhere():
    rng = np.random.default_rng(2)
    vectors = with_planted(rng, 400)
    asked = np.full(400, 0.7, np.float32)
    src, dst = np.nonzero(np.triu(all_similarities(vectors) >= 0.7, 1))
    assert len(src) > 40
    anchor, similarity = region_cover(vectors, asked, src, dst)
    expected = greedy_cover(vectors, asked, np.arange(400))
    assert np.array_equal(anchor, expected[0])
    assert np.allclose(similarity, expected[1], atol=1e-6)


def test_regions_of_a_long_chain_are_within_the_threshold():
    angles = np.deg2rad(0.05 * np.random.default_rng(0).permutation(5_000))
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16)
    order = np.argsort(angles)
    anchor, similarity = region_cover(vectors, np.full(5_000, 0.9, np.float32), order[:-1], order[1:])
    assert (anchor[anchor] == anchor).all()
    assert (exact_similarity(vectors, vectors[anchor])[anchor != np.arange(5_000)] >= np.float32(0.9)).all()
    assert similarity.min() >= 0.9
    # 250 degrees of chain in pieces of up to twice 25.8
    assert 5 <= len(np.unique(anchor)) <= 16


def test_counts():
    labels = np.random.default_rng(0).integers(0, 50, 300)
    assert duplication_counts(labels).tolist() == [(labels == label).sum() for label in labels]
    assert duplication_counts([]).shape == (0,)
    with pytest.raises(ShapeError):
        duplication_counts([[1, 2]])


def test_exhaustive_counts():
    rng = np.random.default_rng(4)
    rows = with_planted(rng, 700)
    weights, asked = rng.integers(1, 4, 700), rng.choice(np.array([0.7, 0.9], np.float32), 700)
    ids = np.sort(rng.choice(10_000, 700, replace=False))
    chosen = np.sort(rng.choice(700, 100, replace=False))
    blocks = [(ids[s], rows[s], asked[s], weights[s]) for s in (slice(0, 300), slice(300, 700))]
    counts = count_neighbors(rows[chosen], ids[chosen], asked[chosen], blocks)
    near = all_similarities(rows) >= np.maximum.outer(asked, asked)
    np.fill_diagonal(near, False)
    assert np.array_equal(counts, (near * weights).sum(1)[chosen])
    assert counts.sum() > 50


def test_exact_similarity_is_float64_rounded():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((40_000, 16)).astype(np.float16) for _ in range(2))
    x, y = a.astype(np.float64), b.astype(np.float64)
    expected = ((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))).astype(np.float32)
    assert np.abs(exact_similarity(a, b) - expected).max() < 1e-7
    assert exact_similarity(np.zeros((1, 4), np.float16), np.ones((1, 4), np.float16))[0] == 0
    assert np.allclose(np.linalg.norm(unit_rows(a), axis=1), 1, atol=1e-6)
    with pytest.raises(ShapeError):
        exact_similarity(a, b[:3])
