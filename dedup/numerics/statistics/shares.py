"""Shares with their intervals: recall of copies, and precision of what a threshold joins."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats

LEVEL = 0.95  # of all intervals
_LEAST = 0.5  # pairs, right and wrong together, below which there is no precision


@lru_cache(maxsize=4096)  # a curve has the same few counts at each of its thresholds
def wilson(n_found: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of the share n_found / n; `n` is 1 or more.

    Wilson (1927); Brown, Cai and DasGupta (2001) recommend it for samples of any size.

    >>> low, high = wilson(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    interval = stats.binomtest(n_found, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def interval(replicates: Floats) -> tuple[Floats, Floats]:
    """The middle 95% of each column of replicates, shape (n_replicates, n)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def accepted_share(n_accepted: npt.ArrayLike, n_judged: npt.ArrayLike, n_replicates: int, rng: np.random.Generator) -> Floats:
    """Draws from Jeffreys' posterior of the share n_accepted / n_judged, shape (n_replicates, k)."""
    accepted, judged = np.asarray(n_accepted, dtype=np.float64), np.asarray(n_judged, dtype=np.float64)
    return rng.beta(accepted + 0.5, judged - accepted + 0.5, size=(n_replicates, len(accepted)))


def share_beside(
    n_right: npt.ArrayLike,
    expected: Floats,
    replicates: Floats,
    rng: np.random.Generator,
    *,
    among: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Precision where the right pairs are known and wrong ones are expected besides: right / (right + wrong).

    `n_right`: shape (n,).
    `expected`: shape (n,); wrong pairs expected.
    `replicates`: shape (n_replicates, n); the same from other samples.
    `among`: expected and replicates of those that are wrong among the right ones after all; a share of these, so without noise of its own.
    Returns `precision`, `low`, `high`: shape (n,); between 0 and 1; NaN where less than half a pair is expected in all. The interval is for
    the pairs that a run finds: the expected number of wrong ones is uncertain, and the number that occurs varies about it (Poisson).
    Raises ShapeError if the shapes do not match.
    """
    right, wrong = _checked(n_right, expected, replicates), _drawn(replicates, rng)
    if among is None:
        return _bounded(right, right + expected, right, right + wrong)
    _checked(n_right, *among)
    return _bounded(right - among[0], right + expected, right - among[1], right + wrong)


def share_within(
    n_found: npt.ArrayLike,
    expected: Floats,
    replicates: Floats,
    rng: np.random.Generator,
    *,
    among: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Precision where the wrong pairs are expected among those found: (found - wrong) / found; otherwise as `share_beside`."""
    pairs, wrong = _checked(n_found, expected, replicates), _drawn(replicates, rng)
    if among is not None:
        _checked(n_found, *among)
        expected, wrong = expected + among[0], wrong + among[1]
    return _bounded(pairs - expected, pairs, pairs - wrong, np.broadcast_to(pairs, wrong.shape))


def _checked(n: npt.ArrayLike, expected: Floats, replicates: Floats) -> Floats:
    counts = np.asarray(n, dtype=np.float64)
    if counts.shape != expected.shape or replicates.shape[1:] != expected.shape:
        raise ShapeError(f"expected counts and replicates of one width, found {counts.shape}, {expected.shape}, {replicates.shape}")
    return counts


def _drawn(replicates: Floats, rng: np.random.Generator) -> Floats:
    # at a billion and more a Poisson number is practically its mean
    return np.where(replicates < 1e9, rng.poisson(np.minimum(replicates, 1e9)), replicates)


def _bounded(part: Floats, whole: Floats, parts: Floats, wholes: Floats) -> tuple[Floats, Floats, Floats]:
    precision = np.where(whole >= _LEAST, np.clip(part / np.maximum(whole, _LEAST), 0.0, 1.0), np.nan)
    drawn = np.where(wholes > 0, np.clip(parts / np.where(wholes > 0, wholes, 1.0), 0.0, 1.0), 1.0)
    low, high = interval(drawn)
    unknown = np.isnan(precision)
    low, high = np.minimum(low, np.nan_to_num(precision)), np.maximum(high, np.nan_to_num(precision))
    return precision, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
