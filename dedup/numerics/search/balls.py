"""Balls of mutual neighbours: what keeps 10^6 near-copies of one placeholder linear.

If two vectors lie within half the threshold's angle of one pivot, the triangle inequality of angles makes
them neighbours of each other: their counts need no product. With cos the cosine of the threshold t, half the
angle has the cosine sqrt((1 + t) / 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from dedup.numerics.arraytypes import Floats, Ids, ListIds, Mask, Rows16, Rows32, Sims
from dedup.numerics.similarity import Rows, unit_rows

_SAMPLE = 512  # rows in which balls are searched for
_CHUNK = 8_192
_MIN_BALL = 256  # members below which the products of a ball are cheaper than finding it
_REFINE = 8_192  # rows that a pivot is refined on
_REFINEMENTS = 3
_DIRECT = 64  # comparisons of two numbers that cost about as much as one number in a sort of rows
SAFETY = 1e-5  # of a cosine; keeps float32 rounding on the safe side of the triangle inequality


@dataclass(frozen=True)
class Ball:
    """Rows that are mutual neighbours."""

    rows: Ids  # positions in the list, ascending
    pivot: Floats  # (dim,)
    cosines: Sims  # of each member with the pivot


def half_angle_cosine(min_similarity: float) -> float:
    """Cosine of half the angle whose cosine is `min_similarity`.

    >>> round(half_angle_cosine(0.5), 4)
    0.866
    """
    return float(np.sqrt((1.0 + min_similarity) / 2.0))


def fewest_in_sample(n_sample: int, n: int) -> float:
    """Roughly how many rows of a sample of `n_sample` out of `n` a ball worth finding holds."""
    return max(4.0, 0.5 * _MIN_BALL * n_sample / n)


def evenly_spread(n: int, most: int) -> Ids:
    """At most so many of n places at even distances, including the first and the last."""
    return np.linspace(0, n - 1, min(most, n)).astype(np.int64)


def may_hold_ball(rows: Rows32, sample: Rows32, limit: float, n: int) -> bool:
    """Whether a row has so many neighbours in a sample of n rows that there may be a ball."""
    near = (rows @ sample.T >= limit).sum(axis=1)
    return bool(near.max(initial=0) >= fewest_in_sample(len(sample), n))


def find_balls(vectors: Rows, min_similarity: float, candidates: Mask) -> list[Ball]:
    """Find large balls of mutual neighbours.

    `min_similarity`: members of a ball are at least this similar to each other.
    `candidates`: rows that may become members.
    Returns disjoint balls in the order found; none where the list is not dense anywhere.

    A pivot is the mean direction of a dense neighbourhood, not one of the vectors: copies scatter around their
    original, and around one of the copies the ball would need twice the angle.
    Cost per ball: one pass over the remaining rows.
    """
    cos_half = half_angle_cosine(min_similarity) + SAFETY
    remaining = np.flatnonzero(candidates)
    balls: list[Ball] = []
    while len(remaining) >= 2 * _MIN_BALL:
        sample = remaining[evenly_spread(len(remaining), _SAMPLE)]
        rows = vectors[sample].astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        near = rows @ rows.T >= min_similarity
        densest = int(np.argmax(near.sum(axis=1)))
        if near[densest].sum() < fewest_in_sample(len(sample), len(remaining)):
            break
        pivot = rows[near[densest]].mean(axis=0)
        ball = _grow(vectors, remaining, pivot, cos_half)
        if len(ball.rows) < _MIN_BALL:
            break
        balls.append(ball)
        remaining = np.setdiff1d(remaining, ball.rows, assume_unique=True)
    return balls


def _grow(vectors: Rows, rows: Ids, pivot: Floats, cos_half: float) -> Ball:
    """Rows within the half angle of a pivot that is first moved to the mean direction of a sample of them."""
    pivot = pivot / np.linalg.norm(pivot)
    sample = unit_rows(vectors[rows[evenly_spread(len(rows), _REFINE)]])
    for _ in range(_REFINEMENTS):
        inside = sample[sample @ pivot.astype(np.float32) >= cos_half]
        if not len(inside):
            break
        pivot = inside.astype(np.float64).sum(axis=0)
        pivot /= np.linalg.norm(pivot)
    cosines = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines[part] = unit_rows(vectors[rows[part]]) @ pivot.astype(np.float32)
    inside_all = cosines >= cos_half
    return Ball(rows[inside_all], pivot, cosines[inside_all])


class Ownership:
    """Which list counts a pair that several lists compare: the smallest list that both are in.

    `lists`: shape (n, n_lists_each); the lists each row of this list is in.
    `list_id`: this list.
    """

    def __init__(self, lists: ListIds, list_id: int) -> None:
        self._earlier = np.where(lists < list_id, lists, -1)  # -1: not an earlier list
        self.is_trivial = bool((self._earlier < 0).all())
        self._n_direct = _DIRECT * self._earlier.size  # comparisons of lists that still cost less than the signatures

    @cached_property
    def _signatures(self) -> tuple[Ids, csr_array]:
        """Signature of each row, and the lists of each signature. Rows of one signature own the same pairs; a list has few signatures."""
        signatures, signature = np.unique(np.sort(self._earlier, axis=1), axis=0, return_inverse=True)
        place, column = np.nonzero(signatures >= 0)
        _, columns = np.unique(signatures[place, column], return_inverse=True)
        width = int(columns.max()) + 1 if len(columns) else 1
        return signature, csr_array((np.ones(len(place), dtype=np.int32), (place, columns)), shape=(len(signatures), width))

    def pairs(self, a: Ids, b: Ids) -> Mask:
        """Whether this list owns each of the pairs (a[i], b[i])."""
        if self.is_trivial or not len(a):
            return np.ones(len(a), dtype=bool)
        self._n_direct -= len(a) * self._earlier.shape[1] ** 2
        if self._n_direct >= 0:
            others = self._earlier[b]
            others[others < 0] = -2  # equal to no list of `a`
            is_owned: Mask = ~(self._earlier[a][:, :, None] == others[:, None, :]).any(axis=(1, 2))
            return is_owned
        signature, incidence = self._signatures
        keys, inverse = np.unique(signature[a] * np.int64(incidence.shape[0]) + signature[b], return_inverse=True)
        first, second = np.divmod(keys, incidence.shape[0])
        both: csr_array = incidence[first, :].multiply(incidence[second, :])
        shared = np.asarray(both.sum(axis=1)).ravel()
        owned: Mask = (shared == 0)[inverse]
        return owned

    def mask(self, rows: Ids, others: Ids) -> Mask:
        """Whether this list owns each pair of one of `rows` and one of `others`, bool (n, m)."""
        if self.is_trivial:
            return np.ones((len(rows), len(others)), dtype=bool)
        signature, incidence = self._signatures
        of_rows, row = np.unique(signature[rows], return_inverse=True)
        of_others, column = np.unique(signature[others], return_inverse=True)
        shared: csr_array = incidence[of_rows, :] @ incidence[of_others, :].T
        owned: Mask = (shared.toarray() == 0)[row][:, column]
        return owned

    def weights(self, rows: Ids, others: Ids, weights: Ids) -> Ids:
        """For each of `rows`, the summed weight, int64 (n,), of the `others` whose pair with it this list owns.

        `weights`: shape (m,); of the others.
        """
        total = int(weights.sum())
        if self.is_trivial:
            return np.full(len(rows), total, dtype=np.int64)
        signature, incidence = self._signatures
        weight_of = np.bincount(signature[others], weights=weights, minlength=incidence.shape[0]).astype(np.int64)
        of_rows, inverse = np.unique(signature[rows], return_inverse=True)
        of_others = np.flatnonzero(weight_of)
        owned = np.empty(len(of_rows), dtype=np.int64)
        for start in range(0, len(of_rows), 1024):
            shared: csr_array = incidence[of_rows[start : start + 1024], :] @ incidence[of_others, :].T
            shared.data = np.ones_like(shared.data)
            owned[start : start + 1024] = total - np.asarray(shared @ weight_of[of_others])
        return owned[inverse]


@dataclass(frozen=True)
class Crowds:
    """Balls with their surroundings, merged where these meet: each crowd is joined by itself, without searching an index."""

    group: npt.NDArray[np.int32]  # the crowd that each vector is in, -1 for none; a join of the crowd finds its pairs
    is_inside: Mask  # members of a ball: all their neighbours are in its crowd

    @property
    def n_groups(self) -> int:
        """Number of crowds."""
        return int(self.group.max(initial=-1)) + 1


def find_crowds(sample: Rows16, n: int, blocks: Iterable[tuple[slice, Rows16]], min_similarity: float) -> Crowds:
    """Find balls in a sample, and their surroundings among all vectors.

    `sample`: shape (m, dim).
    `n`: vectors in all.
    `blocks`: (slice, rows (b, dim)) of all vectors, in order; read only if the sample holds a ball.
    `min_similarity`: cosine from which two vectors are neighbours.

    Vectors within half the threshold's angle θ of a pivot are mutual neighbours; every neighbour of one of them is within 1.5 θ
    of the pivot. Surroundings that meet are merged.
    """
    group = np.full(n, -1, dtype=np.int32)
    is_inside = np.zeros(n, dtype=bool)
    balls = find_balls(sample, min_similarity, np.ones(len(sample), dtype=bool))
    if not balls:
        return Crowds(group, is_inside)
    pivots = np.stack([ball.pivot for ball in balls]).astype(np.float32)
    within = half_angle_cosine(min_similarity) + SAFETY
    around = float(np.cos(min(np.pi, 1.5 * np.arccos(min_similarity)))) - SAFETY
    united = np.arange(len(balls))  # the first ball of those that each is merged with
    for part, rows in blocks:
        product = unit_rows(rows) @ pivots.T
        near = product >= around
        is_inside[part] = (product >= within).any(axis=1)
        for place in np.flatnonzero(near.sum(axis=1) > 1).tolist():
            met = np.unique(united[near[place]])
            united[np.isin(united, met)] = met[0]
        group[part] = np.where(near.any(axis=1), near.argmax(axis=1), -1)
    _, numbers = np.unique(united, return_inverse=True)
    group = np.where(group >= 0, numbers[np.maximum(group, 0)], -1).astype(np.int32)
    return Crowds(group, is_inside)
