"""How well a score tells memorised prompts from others: area under the ROC curve and the true positives at few false ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Ids
from dedup.numerics.statistics.shares import interval

FEW_FALSE = 0.01  # share of negatives that may be taken for memorised: what the field reports beside the area
_N_DRAWN = 1_000
_SEED = 0


class Detection(NamedTuple):
    """Figures of one detector, each with both ends of its 95% interval."""

    auc: float
    auc_low: float
    auc_high: float
    tpr: float  # at the threshold that at most 1% of the negatives exceed
    tpr_low: float
    tpr_high: float


def area_under_roc(positive: Floats, negative: Floats) -> float:
    """Share of pairs in which the positive has the higher score, ties by half: Mann and Whitney's U over their number.

    >>> area_under_roc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    0.875
    """
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def true_positives(positive: Floats, negative: Floats, few: float = FEW_FALSE) -> float:
    """Share of positives above the lowest threshold that at most that share of negatives lies above.

    >>> true_positives(np.array([3.0, 2.0, 0.0]), np.array([1.0] * 98 + [2.5, 1.5]))
    0.6666666666666666
    """
    n_allowed = int(few * len(negative) + 1e-9)
    threshold = np.sort(negative)[::-1][n_allowed] if n_allowed < len(negative) else -np.inf
    return float((positive > threshold).mean())


def measure_detection(positive: Floats, negative: Floats) -> Detection:
    """Figures and their intervals.

    `positive`, `negative`: shape (n,) and (m,); finite, higher for what is more likely memorised; at least one of each.

    Intervals are percentiles of 1,000 bootstrap samples, drawn from both sets by themselves with a fixed seed (Efron and Tibshirani
    1993); the threshold of the true positives is found anew in each.
    Raises ShapeError if a set is empty or has a value that is not finite.
    """
    for name, values in (("positive", positive), ("negative", negative)):
        if not len(values) or not np.isfinite(values).all():
            found = f"found {len(values)}, {(~np.isfinite(values)).sum()} of them not finite"
            raise ShapeError(f"expected finite scores of at least one {name}, {found}")
    rng = np.random.default_rng(_SEED)
    levels, place = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    own, other = place[: len(positive)], place[len(positive) :]
    drawn = np.empty((_N_DRAWN, 2))
    for number in range(_N_DRAWN):
        # how often each level was drawn says all: nothing is sorted again
        n_own, n_other = (np.bincount(rng.choice(values, len(values)), minlength=len(levels)) for values in (own, other))
        drawn[number] = _area_of_counts(n_own, n_other), _true_of_counts(n_own, n_other)
    (auc_low, tpr_low), (auc_high, tpr_high) = (ends.tolist() for ends in interval(drawn))
    return Detection(area_under_roc(positive, negative), auc_low, auc_high, true_positives(positive, negative), tpr_low, tpr_high)


def _area_of_counts(positive: Ids, negative: Ids) -> float:
    """`area_under_roc` of how many scores of each set are at each level, lowest first."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _true_of_counts(positive: Ids, negative: Ids) -> float:
    """`true_positives` of the same."""
    above = negative.sum() - np.cumsum(negative)  # negatives above each level
    threshold = int(np.argmax(above <= int(FEW_FALSE * negative.sum() + 1e-9)))
    return float(positive[threshold + 1 :].sum() / positive.sum())
