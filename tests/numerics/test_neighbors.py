"""Nearest neighbours against exact similarities of all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_data import all_similarities, copies_of, power_law, with_planted

from dedup.numerics.search.exhaustive import mean_distances, nearest_neighbors


def by_definition(similarity, k):
    np.fill_diagonal(similarity, -2.0)
    order = np.lexsort((np.broadcast_to(np.arange(len(similarity)), similarity.shape), -similarity), axis=1)[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


def in_blocks(rows, size):
    return ((np.arange(start, min(start + size, len(rows))), rows[start : start + size]) for start in range(0, len(rows), size))


@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.integers(1, 12), st.integers(1, 200))
def test_all_are_found(seed, n, k, size):
    rows = with_planted(np.random.default_rng(seed), n, dim=16)
    ids, similarity = nearest_neighbors(rows, np.arange(n), in_blocks(rows, size), k)
    expected_ids, expected = by_definition(all_similarities(rows), k)
    assert np.array_equal(similarity[:, : n - 1], expected[:, : n - 1])
    assert np.array_equal(ids[:, : n - 1], expected_ids[:, : n - 1])
    assert (ids[:, n - 1 :] == -1).all()
    assert (similarity[:, n - 1 :] == -2).all()


def test_many_blocks_of_products():
    rows = with_planted(np.random.default_rng(0), 3_000)
    chosen = np.arange(0, 3_000, 7)
    ids, similarity = nearest_neighbors(rows[chosen], chosen, in_blocks(rows, 2_000), 10, max_products=1)
    expected_ids, expected = by_definition(all_similarities(rows), 10)
    assert np.array_equal(ids, expected_ids[chosen])
    assert np.array_equal(similarity, expected[chosen])


def test_a_crowd_of_copies_costs_no_exactness_that_matters():
    rng = np.random.default_rng(1)
    rows = np.concatenate([copies_of(rng, power_law(rng, 1)[0], 2_000, 0.999999), power_law(rng, 500)]).astype(np.float16)
    rows[:1_000] = rows[0]
    ids, similarity = nearest_neighbors(rows, np.arange(len(rows)), in_blocks(rows, 700), 5)
    _, expected = by_definition(all_similarities(rows), 5)
    assert np.abs(similarity - expected).max() < 1e-5
    assert (ids >= 0).all()


def test_means():
    rows = with_planted(np.random.default_rng(2), 200)
    _, similarity = nearest_neighbors(rows, np.arange(200), in_blocks(rows, 64), 4)
    _, expected = by_definition(all_similarities(rows), 4)
    np.testing.assert_allclose(mean_distances(similarity), (1 - expected.astype(float)).mean(axis=1), atol=1e-12)
    few, _ = nearest_neighbors(rows[:1], np.array([0]), [(np.array([0, 9]), rows[[0, 9]])], 3)
    assert few.tolist() == [[9, -1, -1]]
    assert mean_distances(np.full((1, 3), -2.0, np.float32)) == pytest.approx(2.0)
