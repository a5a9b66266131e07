"""The tail of the similarities of unrelated images: a generalised Pareto distribution.

Similarities enter as -log(1 - similarity). Near 1 the share of pairs that are closer than some distance falls like a power
of that distance, whose exponent is the number of dimensions in which images vary (the basis of Levina and Bickel's estimator
of dimension, 2004). On this scale such a tail is exponential, so that the generalised Pareto distribution has little left
to bend, and it never ends before similarity 1. Fitted to plain similarities it would end where the sample does, and call
pairs impossible that merely were not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Ids, Mask, Sims

_REPLICATES = 400
LEAST_EXCESSES = 50  # below, no tail is fitted
_MOST_EXCESSES = 2_000
_FEWEST_TRIED = 250
_MOST_SHARE = 0.01  # of the pairs that may count as their tail
_CLOSEST = 1e-6  # 1 - similarity, at least: float32 can't tell smaller ones apart
_SHAPES = (-0.5, 0.5)  # below -0.5 the maximum of the likelihood has no known distribution (Smith 1985)
_GOOD_FIT = 1.0  # `_misfit` up to which a fit is accepted


@dataclass(frozen=True)
class PairSample:
    """The most similar pairs of sampled images with others."""

    # shape (n,); the sampled image of each pair, 0 .. n_rows - 1; a pair of two sampled images is listed from both sides
    row: Ids
    similarity: Sims  # shape (n,); all pairs at `floor` and above, below `upper`
    n_rows: int  # sampled images
    n_others: int  # images that each is compared with
    floor: float
    upper: float = 1.0


@dataclass(frozen=True)
class PairShares:
    """Share of unrelated pairs that reach each threshold."""

    # thresholds, shares: shape (n,)
    thresholds: Floats
    shares: Floats
    replicates: Floats  # shape (n_replicates, n); the same from resampled images
    n_counted: Ids  # shape (n,); pairs of the sample
    is_counted: Mask  # shape (n,); whether the share is that of the pairs counted; otherwise it is that of the tail
    tail: Tail | None


@dataclass(frozen=True)
class Tail:
    """A fitted tail."""

    start: float  # similarity from which it is fitted
    share: float  # share of the pairs that reach it
    # scale, shape: of the excesses of `log_closeness`
    scale: float
    shape: float
    n_excesses: int
    # largest difference between the fitted and the counted distribution of the excesses (Kolmogorov and Smirnov's), 0 to 1
    deviation: float
    upper: float = 1.0  # similarity from which pairs were left out, since they may be copies; 1 = none were

    def shares(self, thresholds: npt.ArrayLike) -> Floats:
        """Share of the pairs that reach each threshold; meaningful from `start` up."""
        excess = np.maximum(log_closeness(thresholds) - log_closeness(self.start), 0.0)
        return self.share * survival(excess, self.scale, self.shape)


def pair_shares(sample: PairSample, counts: Ids, thresholds: Floats, *, seed: int, n_replicates: int = _REPLICATES) -> PairShares:
    """Share of the pairs at or above each threshold, with replicates that show how it varies between samples of images.

    `counts`: shape (n_rows, n); of each sampled image, others at or above each threshold, and below `sample.upper`.
    `thresholds`: shape (n,); ascending.
    Raises ShapeError if the shapes do not match.
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
        for number, replicate_weights in enumerate(weights):
            refitted = _refitted(sample, tail, starts[number % len(starts)], replicate_weights)
            replicates[number] = _with_tail(replicates[number], thresholds, refitted)
    return PairShares(thresholds, shares, replicates, n_counted, is_counted, tail)


def image_weights(n_rows: int, n_others: int, n_replicates: int, rng: np.random.Generator) -> Floats:
    """Weights of sampled images for each replicate: a smooth bootstrap over images.

    `n_rows`, `n_others`: sampled images, and those each is compared with.
    Returns shape (n_replicates, n_rows); gamma distributed, of mean 1 and variance 1 + 3 n_rows / n_others.

    Pairs that share an image depend on each other, so images are resampled, by smooth weights as in Rubin's Bayesian
    bootstrap (1981). With few rows against many others the variance of the count is that of its rows. Where all N images are
    rows, each is also a column of all others, so that its influence is double and the variance four times that of the rows
    alone. In between, each of m rows has an influence of N / m as a row and of 1 as a column, the N - m others one of 1:
    m (N/m + 1)² + (N - m) = N²/m (1 + 3 m/N).
    """
    variance = 1.0 + 3.0 * min(1.0, n_rows / max(n_others, 1))
    return rng.gamma(1.0 / variance, variance, size=(n_replicates, n_rows))


def _starts(sample: PairSample, tail: Tail) -> list[float]:
    """Where the tails of replicates start: with as many pairs, half and a quarter as many, since the start is a choice too."""
    if sample.upper < 1.0:
        return [tail.start]
    order = np.sort(sample.similarity.astype(np.float64))[::-1]
    numbers = [tail.n_excesses // part for part in (2, 4) if tail.n_excesses // part >= LEAST_EXCESSES]
    return [tail.start, *(float(order[n]) for n in numbers)]


def _with_tail(counted: Floats, thresholds: Floats, tail: Tail) -> Floats:
    """Counted shares up to the start of the tail, beyond it the tail's; the tail also stands in for pairs left out above `upper`."""
    missing = float(tail.shares(tail.upper)) if tail.upper < 1.0 else 0.0
    return np.where(thresholds <= tail.start, counted + missing, tail.shares(thresholds))


def _refitted(sample: PairSample, tail: Tail, start: float, weights: Floats) -> Tail:
    """The tail fitted anew from some start, with other weights of the images."""
    inside = sample.similarity > start
    upper = upper_excess(sample, start)
    excess = np.clip(log_closeness(sample.similarity[inside]) - float(log_closeness(start)), 0.0, upper)
    pair_weights = weights[sample.row[inside]]
    if float(pair_weights @ excess) <= 0.0:
        return Tail(start, 0.0, tail.scale, tail.shape, 0, 1.0, tail.upper)
    scale, shape = fit_gpd(excess, pair_weights, upper=upper)
    below = share_below(upper, scale, shape)
    share = float(pair_weights.sum()) / (float(weights.sum()) * sample.n_others) / below
    return Tail(start, share, scale, shape, len(excess), 0.0, tail.upper)


def fit_tail(sample: PairSample) -> Tail | None:
    """Fit the tail of the pairs of a sample; None where there are fewer than 50.

    The largest 2,000 similarities, at most a hundredth of all pairs, are used. While the fit misses the counts, as a whole (the
    distributions differ by more than 1 / sqrt(n)) or at its end (the ranks 16, 32, 64, … are off by more than two standard
    deviations), the number is halved, down to 250: fewer pairs say less, but more about the end. With an `upper` below 1 all
    pairs of the sample are used.
    """
    n_pairs = sample.n_rows * sample.n_others
    order = np.sort(sample.similarity.astype(np.float64))[::-1]
    if sample.upper < 1.0:
        # where the end is missing, only a wide stretch below it shows how the tail bends
        return _fit_from(sample, float(order[-1])) if len(order) > LEAST_EXCESSES else None
    n = min(_MOST_EXCESSES, int(_MOST_SHARE * n_pairs), len(order))
    if n < LEAST_EXCESSES:
        return None
    best: tuple[float, Tail] | None = None
    while True:
        # the tail starts at the next smaller value; where there is none, at the floor
        start = float(order[n]) if n < len(order) else sample.floor
        tail = _fit_from(sample, start)
        if tail is not None:
            misfit = _misfit(tail, order)
            if misfit <= _GOOD_FIT:
                return tail
            best = min(best or (misfit, tail), (misfit, tail), key=lambda pair: pair[0])
        if n // 2 < _FEWEST_TRIED:
            return None if best is None else best[1]
        n //= 2


def _misfit(tail: Tail, order: Floats) -> float:
    """By how much a tail and the counts differ, in units of noise, at the worst of some ranks; `order` is descending."""
    ranks = np.array([rank for rank in (16 * 2**k for k in range(12)) if rank <= tail.n_excesses])
    if not len(ranks):
        return tail.deviation * float(np.sqrt(tail.n_excesses))
    expected = tail.shares(order[ranks - 1]) / tail.share * tail.n_excesses
    off = np.abs(np.log(np.maximum(expected, 1e-9) / ranks)) * np.sqrt(ranks)
    return float(max(off.max() / 2.0, tail.deviation * np.sqrt(tail.n_excesses)))


def _fit_from(sample: PairSample, start: float) -> Tail | None:
    inside = sample.similarity > start
    if int(inside.sum()) < LEAST_EXCESSES // 2:
        return None
    begin, upper = float(log_closeness(start)), upper_excess(sample, start)
    excess = np.sort(log_closeness(sample.similarity[inside])) - begin
    excess = np.clip(excess, 0.0, upper)
    if float(excess.max()) <= 0.0:
        return None
    scale, shape = fit_gpd(excess, upper=upper)
    below = share_below(upper, scale, shape)
    model = (1.0 - survival(excess, scale, shape)) / below
    places = np.arange(len(excess) + 1) / len(excess)
    deviation = float(max(np.abs(model - places[:-1]).max(), np.abs(model - places[1:]).max()))
    share = len(excess) / (sample.n_rows * sample.n_others) / below
    return Tail(start, share, scale, shape, len(excess), deviation, sample.upper)


def fit_gpd(excess: Floats, weights: Floats | None = None, *, upper: float = np.inf) -> tuple[float, float]:
    """Maximum likelihood of a generalised Pareto distribution.

    `excess`: shape (n,); by how much values exceed the start of the tail.
    `weights`: shape (n,); how often each counts.
    `upper`: values above are unknown, so the distribution is fitted truncated at it.
    Returns `scale, shape`: the shape between -0.5 and 0.5.
    Raises ShapeError if there are fewer than two values, or one is negative or above `upper`.

    Nelder and Mead's search over the logarithm of the scale and the shape.
    """
    if excess.ndim != 1 or len(excess) < 2 or excess.min() < 0 or excess.max() > upper:
        raise ShapeError(f"expected two or more excesses between 0 and {upper:g}, found shape {excess.shape}; take more pairs")
    w = np.ones(len(excess)) if weights is None else weights
    total = float(w.sum())
    mean = max(float(w @ excess) / total, 1e-12)

    def loss(parameters: Floats) -> float:
        scale, shape = float(np.exp(parameters[0])), float(parameters[1])
        if not _SHAPES[0] <= shape <= _SHAPES[1]:
            return float("inf")
        if abs(shape) < 1e-8:
            value = parameters[0] * total + float(w @ excess) / scale
        else:
            inside = 1.0 + shape / scale * excess
            if inside.min() <= 0.0:
                return float("inf")
            value = parameters[0] * total + (1.0 + 1.0 / shape) * float(w @ np.log(inside))
        if np.isfinite(upper):
            value += total * float(np.log(max(1.0 - float(survival(upper, scale, shape)), 1e-300)))
        return float(value)

    fit = optimize.minimize(loss, [np.log(mean), 0.01], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4, "maxiter": 400})
    return float(np.exp(fit.x[0])), float(fit.x[1])


def survival(excess: npt.ArrayLike, scale: float, shape: float) -> Floats:
    """Share of a generalised Pareto distribution that is larger.

    `excess`: not negative.
    `scale`, `shape`: as `scipy.stats.genpareto` defines the shape: 0 is exponential, below 0 the distribution ends at -scale / shape.

    >>> survival([0.0, 1.0], 1.0, 0.0).round(4)
    array([1.    , 0.3679])
    """
    # what genpareto.sf calls after its checks, which take 50 µs; a fit needs some hundred calls
    x = np.asarray(excess, dtype=np.float64) / scale
    return np.asarray(special.inv_boxcox(-x if shape >= 0.0 else np.maximum(-x, 1.0 / shape), -shape))


def log_closeness(similarity: npt.ArrayLike) -> Floats:
    """-log(1 - similarity), float64.

    >>> log_closeness([0.5, 0.9]).round(4)
    array([0.6931, 2.3026])
    """
    return -np.log(np.maximum(1.0 - np.asarray(similarity, dtype=np.float64), _CLOSEST))


def share_below(upper: float, scale: float, shape: float) -> float:
    """Share of the tail that lies below `upper`, at least a millionth."""
    return max(1.0 - float(survival(upper, scale, shape)), 1e-6) if np.isfinite(upper) else 1.0


def upper_excess(sample: PairSample, start: float) -> float:
    """By how much the largest known pair may exceed a start, on the scale of the tail."""
    return float("inf") if sample.upper >= 1.0 else float(log_closeness(sample.upper) - log_closeness(start))
