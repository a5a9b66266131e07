"""Placing vectors in lists, with projections."""

from dataclasses import replace

import numpy as np
import pytest
from vector_data import power_law

from dedup.numerics.search.lists import Training, draw_sample, train_lists


@pytest.fixture(scope="module")
def rows():
    return power_law(np.random.default_rng(0), 3_000, 384).astype(np.float32)


def test_lists_and_projections(rows):
    lists = train_lists(rows, Training(20, 4, 4, 1), 0.9)
    chosen, projected = lists.place(rows, 4)
    assert lists.nlist == 20
    assert not lists.is_idle
    assert chosen.shape == (3_000, 4)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert projected.shape == (3_000, lists.n_filter + 1)
    bound = projected[:300].astype(np.float32) @ projected[:300].astype(np.float32).T
    assert (bound + 2e-3 >= rows[:300] @ rows[:300].T).all()


def test_one_list_needs_no_vectors(rows):
    lists = replace(train_lists(rows[:50], Training(1, 1, 4, 1), 0.05), n_filter=0)
    assert lists.is_idle
    chosen, _ = lists.place(rows[:5], 1)
    assert chosen.tolist() == [[0]] * 5


def test_samples_are_reproducible_and_ascending():
    first = draw_sample(50_000, 20_000, 3)
    assert np.array_equal(first, draw_sample(50_000, 20_000, 3))
    assert len(first) == len(set(first.tolist())) == 20_000
    assert (np.diff(first) > 0).all()
    assert len(draw_sample(500, 20_000, 3)) == 500
    assert len(draw_sample(50_000, 10, 3)) == 10_000
