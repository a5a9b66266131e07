"""Figures of detectors against their definitions, pair by pair and threshold by threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import ShapeError
from dedup.numerics.detection import area_under_roc, measure_detection, true_positives

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30).map(np.array)


@given(SCORES, SCORES)
def test_area_is_the_share_of_pairs_in_order(positive, negative):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in positive for b in negative]
    assert area_under_roc(positive, negative) == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_true_positives_at_the_lowest_threshold_that_is_allowed(positive, negative, few):
    thresholds = [-np.inf, *np.unique(np.concatenate([positive, negative]))]
    allowed = [threshold for threshold in thresholds if (negative > threshold).mean() <= few + 1e-12]
    assert true_positives(positive, negative, few) == pytest.approx((positive > min(allowed)).mean())


def test_intervals_hold_the_truth():
    """Of normal scores a deviation apart the area is known; 95% of the intervals should hold it."""
    truth, rng = 0.7602499389065233, np.random.default_rng(0)
    held = 0
    for _ in range(30):
        found = measure_detection(rng.normal(1, 1, 60), rng.normal(0, 1, 60))
        assert found.auc_low <= found.auc <= found.auc_high
        assert found.tpr_low <= found.tpr_high
        held += found.auc_low <= truth <= found.auc_high
    assert held >= 25


def test_equal_calls_give_equal_intervals():
    rng = np.random.default_rng(1)
    scores = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    assert measure_detection(*scores) == measure_detection(*scores)


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf, 1.0]])
def test_what_is_no_score(bad):
    with pytest.raises(ShapeError, match="expected finite scores of at least one positive"):
        measure_detection(np.array(bad), np.array([1.0]))
