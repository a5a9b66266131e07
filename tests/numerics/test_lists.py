"""Placing vectors in lists, with projections and turns."""

import numpy as np
import pytest
from vector_data import power_law

from dedup.encoders.dct import turns
from dedup.numerics.distances import apply_turn
from dedup.numerics.lists import draw_sample, train_lists
from dedup.numerics.quantizer import Quantizer


@pytest.fixture(scope="module")
def rows():
    return power_law(np.random.default_rng(0), 3_000, 384).astype(np.float32)


def test_lists_and_projections(rows):
    lists = train_lists(rows, 20, 4, 0.9, iterations=4, seed=1)
    flat, lengths, projected = lists.place(rows, 4)
    assert lists.nlist == 20
    assert not lists.is_idle
    assert set(lengths.tolist()) == {4}
    assert all(len(set(row)) == 4 for row in flat.reshape(-1, 4).tolist())
    assert projected.shape == (3_000, lists.n_filter + 1)
    bound = projected[:300].astype(np.float32) @ projected[:300].astype(np.float32).T
    assert (bound + 2e-3 >= rows[:300] @ rows[:300].T).all()


def test_turned_vectors_add_their_lists_once(rows):
    ways = turns()
    lists = train_lists(rows, 20, 8, 0.9, iterations=4, seed=1, is_projected=False)
    flat, lengths, projected = lists.place(rows[:200], 8, ways)
    assert projected is None
    quantizer, k = Quantizer(lists.centroids, lists.offsets), lists.centroids.shape[1]
    ends = np.cumsum(lengths)
    for i in range(0, 200, 17):
        own = flat[ends[i] - lengths[i] : ends[i]].tolist()
        assert len(own) == len(set(own))
        expected = set(quantizer.assign(rows[i : i + 1] @ lists.axes[:, :k], 8)[0].tolist())
        for way in ways:
            expected |= set(quantizer.assign(apply_turn(rows[i : i + 1], way) @ lists.axes[:, :k], 2)[0].tolist())
        assert set(own) == expected
        assert own[0] == quantizer.assign(rows[i : i + 1] @ lists.axes[:, :k], 1)[0, 0]


def test_one_list_needs_no_vectors(rows):
    lists = train_lists(rows[:50], 1, 1, 0.05, iterations=4, seed=1, is_projected=False)
    assert lists.is_idle
    flat, lengths, _ = lists.place(rows[:5], 1)
    assert (flat.tolist(), lengths.tolist()) == ([0] * 5, [1] * 5)


def test_samples_are_reproducible_and_ascending():
    first = draw_sample(50_000, 20_000, 3)
    assert np.array_equal(first, draw_sample(50_000, 20_000, 3))
    assert len(first) == len(set(first.tolist())) == 20_000
    assert (np.diff(first) > 0).all()
    assert len(draw_sample(500, 20_000, 3)) == 500
    assert len(draw_sample(50_000, 10, 3)) == 10_000
