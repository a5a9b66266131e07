"""When lists that were trained on other vectors are to be trained anew."""

import numpy as np
import pytest
from vector_data import power_law

from dedup.numerics.search.lists import Lists, Training, train_lists
from dedup.numerics.statistics.drift import Drift, cost_against, imbalance, quantization_error

DRIFT = Drift(0.4, 0.45, 5_000, 1.3, 1.4, 1.1, 50.0)


@pytest.fixture(scope="module")
def lists():
    rows = power_law(np.random.default_rng(0), 4_000, 64).astype(np.float32)
    return train_lists(rows, Training(60, 4, 6, 1), 0.8), rows


def test_vectors_of_the_same_kind_do_not_drift(lists):
    trained, rows = lists
    added = power_law(np.random.default_rng(1), 3_000, 64).astype(np.float32)
    before, after = quantization_error(trained, rows), quantization_error(trained, added)
    assert before < after  # the lists were trained on the first
    assert not Drift(before, after, 3_000, 1.0, 1.0, 1.0, 4_000 / 60).reasons


@pytest.mark.parametrize("nlist", [50, 250])
def test_lists_of_few_vectors_each_suit_their_own_best(nlist):
    """That is no drift, although the error of others is far above that of those they were trained on."""
    rng = np.random.default_rng(3)
    rows, added = (power_law(rng, n, 256).astype(np.float32) for n in (2_000, 2_000))
    trained = train_lists(rows, Training(nlist, 4, 6, 1), 0.8)
    before, after = quantization_error(trained, rows), quantization_error(trained, added)
    assert after / before > 1.02
    assert not Drift(before, after, 2_000, 1.0, 1.0, 1.0, 2_000 / nlist).reasons


def test_vectors_of_another_kind_do(lists):
    trained, rows = lists
    rng = np.random.default_rng(2)
    added = rng.standard_normal((3_000, 64)) * np.arange(64, 0, -1) ** -0.5  # their weight lies in other directions
    added = (added / np.linalg.norm(added, axis=1, keepdims=True)).astype(np.float32)
    drift = Drift(quantization_error(trained, rows), quantization_error(trained, added), 3_000, 1.0, 1.0, 1.0, 4_000 / 60)
    assert len(drift.reasons) == 1
    assert "times as far" in drift.reasons[0]


def test_error_is_that_of_brute_force(lists):
    trained, rows = lists
    along = rows[:50].astype(np.float64) @ trained.axes[:, : trained.centroids.shape[1]].astype(np.float64)
    expected = 1.0 - (along @ trained.centroids.T.astype(np.float64)).max(axis=1).mean()
    assert quantization_error(trained, rows[:50]) == pytest.approx(expected, abs=1e-6)
    assert quantization_error(trained, rows[:0]) is None
    assert quantization_error(Lists(np.eye(4, 2, dtype=np.float32), np.zeros((1, 2), np.float32), np.zeros(1, np.float32), 0), rows) is None


@pytest.mark.parametrize(
    ("changes", "n_reasons"),
    [
        ({}, 0),
        ({"error_added": 0.51}, 0),  # as much as those of the kind differ
        ({"error_added": 0.53}, 1),
        ({"error_added": 0.53, "per_list": 10.0}, 0),
        ({"error_added": 0.53, "n_added": 20}, 0),  # too few to tell
        ({"error_before": None, "error_added": None}, 0),
        ({"cost": 1.9}, 0),
        ({"cost": 2.1}, 1),
        ({"cost": 2.1, "error_added": 0.6}, 2),
    ],
)
def test_each_reason_has_its_limit(changes, n_reasons):
    assert len(Drift(**{**DRIFT.__dict__, **changes}).reasons) == n_reasons


def test_cost_of_lists():
    even, uneven = np.full(8, 100), np.array([400, 100, 100, 100, 25, 25, 25, 25])
    assert imbalance(even) == 1.0
    assert imbalance(uneven) == pytest.approx(8 * (uneven**2).sum() / 800**2)
    assert imbalance(np.zeros(3, np.int64)) == 1.0
    # four times the vectors want twice the lists: the old ones cost twice as much
    assert cost_against(4 * even, 3_200, 16, 1, imbalance(even)) == pytest.approx(2.0)
    assert cost_against(even, 800, 8, 1, imbalance(even)) == pytest.approx(1.0)
