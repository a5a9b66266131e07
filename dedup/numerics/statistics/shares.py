"""Shares with their intervals: recall of copies, and precision of what a threshold joins."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from dedup.errors import ShapeError

Floats = npt.NDArray[np.float64]
LEVEL = 0.95  # of all intervals
_LEAST = 0.5  # of pairs, right and wrong together, that a precision is said of


@lru_cache(maxsize=4096)  # a curve asks for the same few counts at each of its thresholds
def wilson(n_found: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share, at 95%; `n` is 1 or more.

    Notes
    -----
    Wilson (1927); Brown, Cai and DasGupta (2001) recommend it for samples of any size.

    Examples
    --------
    >>> low, high = wilson(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    interval = stats.binomtest(n_found, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def interval(replicates: Floats) -> tuple[Floats, Floats]:
    """The middle 95% of replicates, shape (n_replicates, n), of each column."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def accepted_share(n_accepted: npt.ArrayLike, n_judged: npt.ArrayLike, n_replicates: int, rng: np.random.Generator) -> Floats:
    """Draws of a share of which n_accepted of n_judged were seen, shape (n_replicates, k): Jeffreys' posterior."""
    seen, judged = np.asarray(n_accepted, dtype=np.float64), np.asarray(n_judged, dtype=np.float64)
    return rng.beta(seen + 0.5, judged - seen + 0.5, size=(n_replicates, len(seen)))


def share_beside(n_right: npt.ArrayLike, expected: Floats, replicates: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Precision where the right ones are known and the wrong ones are expected beside them: right / (right + wrong).

    Parameters
    ----------
    n_right : int array, shape (n,)
    expected : float64 array, shape (n,)
        Wrong ones expected.
    replicates : float64 array, shape (n_replicates, n)
        The same of other samples.
    rng : numpy.random.Generator

    Returns
    -------
    precision, low, high : float64 array, shape (n,)
        Between 0 and 1; NaN where there are less than half a one. The interval is one for what is found in the run, where as many wrong
        ones occur as chance wants it: their expected number is not certain, and the number that occurs varies about it (Poisson).

    Raises
    ------
    ShapeError
        If the shapes do not match.
    """
    right, wrong = _checked(n_right, expected, replicates), _drawn(replicates, rng)
    return _bounded(right, right + expected, right, right + wrong)


def share_within(n_found: npt.ArrayLike, expected: Floats, replicates: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Precision where the wrong ones are expected among those found: (found - wrong) / found; otherwise as `share_beside`."""
    found, wrong = _checked(n_found, expected, replicates), _drawn(replicates, rng)
    return _bounded(found - expected, found, found - wrong, np.broadcast_to(found, wrong.shape))


def _checked(n: npt.ArrayLike, expected: Floats, replicates: Floats) -> Floats:
    known = np.asarray(n, dtype=np.float64)
    if known.shape != expected.shape or replicates.shape[1:] != expected.shape:
        raise ShapeError(f"expected counts and replicates of one width, found {known.shape}, {expected.shape}, {replicates.shape}")
    return known


def _drawn(replicates: Floats, rng: np.random.Generator) -> Floats:
    # beyond some billions a Poisson number is its mean
    return np.where(replicates < 1e9, rng.poisson(np.minimum(replicates, 1e9)), replicates)


def _bounded(part: Floats, whole: Floats, parts: Floats, wholes: Floats) -> tuple[Floats, Floats, Floats]:
    precision = np.where(whole >= _LEAST, np.clip(part / np.maximum(whole, _LEAST), 0.0, 1.0), np.nan)
    drawn = np.where(wholes > 0, np.clip(parts / np.where(wholes > 0, wholes, 1.0), 0.0, 1.0), 1.0)
    low, high = interval(drawn)
    unknown = np.isnan(precision)
    low, high = np.minimum(low, np.nan_to_num(precision)), np.maximum(high, np.nan_to_num(precision))
    return precision, np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
