"""How many unrelated pairs of images are how much alike: counted in the body, a fitted tail beyond, both with images drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.tails import LEAST_EXCESSES, PairSample, Tail, fit_gpd, fit_tail, log_closeness, share_below, upper_excess

Floats = npt.NDArray[np.float64]

_REPLICATES = 400


def image_weights(n_rows: int, n_others: int, n_replicates: int, rng: np.random.Generator) -> Floats:
    """Weights of sampled images, drawn as often as replicates are wanted: a smooth bootstrap over images.

    Parameters
    ----------
    n_rows, n_others : int
        Sampled images, and those each is compared with.
    n_replicates : int
    rng : numpy.random.Generator

    Returns
    -------
    float64 array, shape (n_replicates, n_rows)
        Gamma distributed, of mean 1 and variance 1 + 3 n_rows / n_others.

    Notes
    -----
    Pairs that share an image depend on each other: what is drawn anew are images, by smooth weights, as in Rubin's Bayesian
    bootstrap (1981). With few rows against many others the variance of the count is that of its rows. Where all N images are
    rows, each also is a column of all others, so that its influence is double and the variance four times that of the rows
    alone. Between, each of m rows has an influence of N / m as a row and of 1 as a column, the N - m others one of 1:
    m (N/m + 1)² + (N - m) = N²/m (1 + 3 m/N).
    """
    variance = 1.0 + 3.0 * min(1.0, n_rows / max(n_others, 1))
    return rng.gamma(1.0 / variance, variance, size=(n_replicates, n_rows))


@dataclass(frozen=True)
class PairShares:
    """Share of unrelated pairs that reach each threshold.

    Parameters
    ----------
    thresholds, shares : float64 array, shape (n,)
    replicates : float64 array, shape (n_replicates, n)
        The same of samples drawn anew.
    n_counted : int64 array, shape (n,)
        Pairs of the sample.
    is_counted : bool array, shape (n,)
        Whether the share is that of the pairs counted; otherwise it is that of the tail.
    tail : Tail or None
    """

    thresholds: Floats
    shares: Floats
    replicates: Floats
    n_counted: npt.NDArray[np.int64]
    is_counted: npt.NDArray[np.bool_]
    tail: Tail | None


def pair_shares(
    sample: PairSample, counts: npt.NDArray[np.int64], thresholds: Floats, *, seed: int, n_replicates: int = _REPLICATES
) -> PairShares:
    """Share of the pairs at or above each threshold, with what other samples of images would have given.

    Parameters
    ----------
    sample : PairSample
    counts : int64 array, shape (n_rows, n)
        Of each sampled image, others at or above each threshold, and below `sample.upper`.
    thresholds : float64 array, shape (n,)
        Ascending.
    seed : int
    n_replicates : int

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    if counts.shape != (sample.n_rows, len(thresholds)):
        raise ShapeError(f"expected counts of shape ({sample.n_rows}, {len(thresholds)}), found {counts.shape}")
    tail = fit_tail(sample)
    is_counted = np.ones(len(thresholds), dtype=bool) if tail is None else np.asarray(thresholds <= tail.start)
    weights = image_weights(sample.n_rows, sample.n_others, n_replicates, np.random.default_rng(seed))
    n_counted = counts.sum(axis=0)
    shares = n_counted / (sample.n_rows * sample.n_others)
    replicates = (weights @ counts) / (weights.sum(axis=1, keepdims=True) * sample.n_others)
    if tail is not None and (sample.upper < 1.0 or not is_counted.all()):
        shares = _with_tail(shares, thresholds, tail)
        starts = _starts(sample, tail)
        for number, drawn in enumerate(weights):
            again = _drawn_again(sample, tail, starts[number % len(starts)], drawn)
            replicates[number] = _with_tail(replicates[number], thresholds, again)
    return PairShares(thresholds, shares, replicates, n_counted, is_counted, tail)


def _starts(sample: PairSample, tail: Tail) -> list[float]:
    """Where the tails of replicates begin: with as many pairs, half and a quarter as many. Where a tail begins is a choice too."""
    if sample.upper < 1.0:
        return [tail.start]
    order = np.sort(sample.similarity.astype(np.float64))[::-1]
    numbers = [tail.n_excesses // part for part in (2, 4) if tail.n_excesses // part >= LEAST_EXCESSES]
    return [tail.start, *(float(order[n]) for n in numbers)]


def _with_tail(counted: Floats, thresholds: Floats, tail: Tail) -> Floats:
    """What is counted, beyond it the tail; where nothing was taken from `upper` up, what the tail has there is added."""
    missing = float(tail.shares(tail.upper)) if tail.upper < 1.0 else 0.0
    return np.where(thresholds <= tail.start, counted + missing, tail.shares(thresholds))


def _drawn_again(sample: PairSample, tail: Tail, start: float, weights: Floats) -> Tail:
    """The tail from some start with other weights of the images."""
    inside = sample.similarity > start
    upper = upper_excess(sample, start)
    excess = np.clip(log_closeness(sample.similarity[inside]) - float(log_closeness(start)), 0.0, upper)
    own = weights[sample.row[inside]]
    if float(own @ excess) <= 0.0:
        return Tail(start, 0.0, tail.scale, tail.shape, 0, 1.0, tail.upper)
    scale, shape = fit_gpd(excess, own, upper=upper)
    below = share_below(upper, scale, shape)
    share = float(own.sum()) / (float(weights.sum()) * sample.n_others) / below
    return Tail(start, share, scale, shape, len(excess), 0.0, tail.upper)
