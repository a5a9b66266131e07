"""Sampled images against others, against all similarities."""

import numpy as np
import pytest
from vector_data import all_similarities, with_planted

from dedup.errors import ShapeError
from dedup.numerics.search.exhaustive import count_alike


def test_counts_and_pairs_are_those_of_all_similarities():
    rng = np.random.default_rng(0)
    rows = with_planted(rng, 700, 32)
    labels = rng.integers(0, 300, 700)
    thresholds = np.array([0.2, 0.5, 0.8, 0.95])
    chosen = np.sort(rng.permutation(700)[:300])
    found = count_alike(rows[chosen], labels[chosen], rows, labels, thresholds, 0.7)
    similarity = all_similarities(rows)[chosen]
    similarity[labels[chosen][:, None] == labels[None, :]] = -2.0
    for place, threshold in enumerate(thresholds):
        sure = (similarity >= threshold + 2e-5).sum(axis=1)
        maybe = (similarity >= threshold - 2e-5).sum(axis=1)
        assert (sure <= found.counts[:, place]).all()
        assert (found.counts[:, place] <= maybe).all()
    row, column = np.nonzero(similarity >= np.float32(0.7))
    assert np.array_equal(found.row, row)
    assert np.array_equal(found.column, column)
    assert np.array_equal(found.similarity, similarity[row, column])
    assert len(row) > 100


def test_a_floor_below_the_thresholds_lists_more_and_counts_the_same():
    rows = with_planted(np.random.default_rng(1), 200, 32)
    own = np.arange(200)
    high, low = (count_alike(rows, own, rows, own, np.array([0.6]), floor) for floor in (0.9, 0.3))
    assert np.array_equal(high.counts, low.counts)
    assert len(low.row) > len(high.row)


def test_errors():
    rows = np.eye(4, dtype=np.float16)
    with pytest.raises(ShapeError, match="one width"):
        count_alike(rows, np.arange(4), rows[:, :2], np.arange(4), np.array([0.5]), 0.5)
    with pytest.raises(ShapeError, match="at least one threshold"):
        count_alike(rows, np.arange(4), rows, np.arange(4), np.array([]), 0.5)
