"""All near-duplicate pairs among the members of one inverted list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Ids, Rows16, Rows32, Sims
from dedup.numerics.graph.components import sparsify, weights_of
from dedup.numerics.search.balls import Ball, Ownership, evenly_spread, find_balls, may_hold_ball
from dedup.numerics.search.gpu import TILING
from dedup.numerics.search.strips import DEFAULTS, EdgeBuffer, JoinSettings, StripJoin
from dedup.numerics.similarity import FLOAT32_BAND, Rows, exact_similarity, unit_rows

_BALLS_FROM = 1_024  # members from which searching for balls pays


def self_join(
    vectors: Rows,
    thresholds: Sims,
    weights: Ids,
    ownership: Ownership,
    settings: JoinSettings = DEFAULTS,
    *,
    projected: Rows16 | None = None,
    earlier: Earlier | None = None,
) -> Joined:
    """Find all pairs within the threshold and keep a sparse set of them.

    `vectors`: shape (n, dim); unit rows up to float16 rounding, ordered by sample_id.
    `thresholds`: shape (n,); similarity each row requires of a copy; a pair needs the larger of its two.
    `weights`: shape (n,); samples each row represents.
    `ownership`: pairs that another list owns are left out.
    `projected`: shape (n, k + 1); projections (`dedup.numerics.search.project`) whose products bound the similarities.
    `earlier`: result of an earlier join of the first rows. Only pairs with at least one other row are compared, and those of rows that
    represent more samples than they did then.
    Returns, with `earlier`, the edges of all rows, and by how much the counts have grown since (weights of the rows themselves left out).
    Without balls, the edges are exactly the forest and the best edges of all pairs within the threshold. Inside a ball (`find_balls`) they
    are a star around its middle and a path: linear in its members.
    Raises ShapeError if the shapes do not match.
    """
    n = len(vectors)
    if thresholds.shape != (n,) or weights.shape != (n,):
        raise ShapeError(f"expected {n} thresholds and weights, found {thresholds.shape} and {weights.shape}")
    if projected is not None and len(projected) != n:
        raise ShapeError(f"expected projections of {n} rows, found {projected.shape}")
    if earlier is not None and len(earlier.added) != n:
        raise ShapeError(f"expected what was added to {n} rows, found {len(earlier.added)}")
    join = ListJoin(vectors, thresholds, weights, ownership, settings, projected, earlier)
    usable = thresholds <= 1.0  # others match equal bytes only, which are one row already
    balls: list[Ball] = []
    if n >= _BALLS_FROM and join.may_be_dense():
        least = float(thresholds.min())
        balls = find_balls(vectors, least, thresholds == np.float32(least)) if least <= 1.0 else []
    for ball in balls:
        usable[ball.rows] = False
    rest = np.flatnonzero(usable)
    join.among(rest)
    for number, ball in enumerate(balls):
        join.inside(ball)
        join.between(rest, ball)
        for later in balls[number + 1 :]:
            join.between(later.rows, ball)
    return join.result()


_HELD = 2_000_000  # edges held before they are sparsified
_DENSE = 0.05  # share of a product's pairs that are close, above which only each row's best edges are kept
_PROBE = 512  # rows whose projections show whether a list is dense anywhere
_FRESH_PROBE = 64  # rows added to a list that are compared with these


@dataclass(frozen=True)
class Joined:
    """Edges and counts of one list, in positions of its rows."""

    src: Ids  # src < dst
    dst: Ids
    similarity: Sims  # exact
    n_neighbors: Ids  # weight of the other rows within the threshold, of pairs that this list owns


@dataclass(frozen=True)
class Earlier:
    """The first rows of a list, which an earlier join has compared, and its edges."""

    n_rows: int  # number of these first rows
    added: Ids  # how many more samples each row represents than it did then; for the other rows, how many it represents
    # src, dst, similarity: edges of the list then; src < dst
    src: Ids
    dst: Ids
    similarity: Sims


class ListJoin:
    """Counts and edges of one list as they are found; its parameters are those of `self_join`."""

    def __init__(
        self,
        vectors: Rows,
        thresholds: Sims,
        weights: Ids,
        ownership: Ownership,
        settings: JoinSettings,
        projected: Rows16 | None,
        earlier: Earlier | None,
    ) -> None:
        self.vectors, self.thresholds, self.weights = vectors, thresholds, weights
        self.ownership, self.best, self.projected = ownership, settings.best, projected
        self.threshold = float(thresholds.min()) if len(thresholds) else 2.0
        self.strips = StripJoin(vectors, self.threshold, None if projected is None else partial(_projections, projected), settings)
        self.n_neighbors = np.zeros(len(vectors), dtype=np.int64)
        no_ids = np.zeros(0, np.int64)
        self.edges = EdgeBuffer(partial(_sparse, best=self.best), (no_ids, no_ids, np.zeros(0, np.float32)), _HELD)
        # rows before this one were compared with each other
        self.n_earlier = 0 if earlier is None else earlier.n_rows
        self.added = weights if earlier is None else earlier.added
        self.is_fresh = np.ones(len(vectors), dtype=bool) if earlier is None else self.added > 0
        if earlier is not None and settings.share[0] == 0:
            self.edges.add(earlier.src, earlier.dst, earlier.similarity)

    def may_be_dense(self) -> bool:
        """Whether many rows may be near one that is compared: a cheap estimate; missing a small ball only costs time."""
        if self.projected is None:
            return True
        n = len(self.projected)
        sample = self.strips.columns(evenly_spread(n, _PROBE))
        compared = sample
        if self.n_earlier:
            fresh = np.flatnonzero(self.is_fresh)
            compared = self.strips.columns(fresh[evenly_spread(len(fresh), _FRESH_PROBE)])
        return may_hold_ball(compared, sample, self.strips.limit, n)

    def among(self, rows: Ids) -> None:
        """Compare all pairs of some rows, except those that an earlier join has counted with their present weights."""
        fresh = rows[self.is_fresh[rows]]
        self._compare(fresh, fresh)
        if len(fresh) < len(rows):
            self._compare(fresh, rows[~self.is_fresh[rows]])

    def _compare(self, rows: Ids, others: Ids) -> None:
        for a, b, is_close in self.strips.pairs(rows, others):
            self._judge(a, b, is_close=is_close)

    def inside(self, ball: Ball) -> None:
        """Pairs of a ball: counted without a product, joined by a star around its middle and a path."""
        if not self.strips.takes_next():
            return
        rows = ball.rows
        is_earlier = rows < self.n_earlier
        for part, weights in ((rows[~is_earlier], self.weights), (rows[is_earlier], self.added)):
            themselves = np.where(self.ownership.pairs(part, part), weights[part], 0)
            self.n_neighbors[part] += self.ownership.weights(part, rows, weights[rows]) - themselves
        middle = rows[int(np.argmax(ball.cosines))]
        others = rows[rows != middle]
        on_path = (rows[:-1] != middle) & (rows[1:] != middle)
        low = np.concatenate([np.minimum(others, middle), rows[:-1][on_path]])
        high = np.concatenate([np.maximum(others, middle), rows[1:][on_path]])
        owned = self.ownership.pairs(low, high) & (high >= self.n_earlier)
        self._add_edges(low[owned], high[owned])

    def between(self, rows: Ids, ball: Ball) -> None:
        """Compare other rows with a ball's: rows too far from its pivot need no product."""
        # a cosine near 1 tells little about a small angle, so its rounding error counts as angle
        radius = np.arccos(np.clip(float(ball.cosines.min()) - FLOAT32_BAND, -1.0, 1.0))
        reach = np.arccos(np.clip(self.threshold, -1.0, 1.0)) + radius
        limit = float(np.cos(min(reach, np.pi))) - FLOAT32_BAND
        near = rows[self._products(rows, ball.pivot.astype(np.float32)) >= limit]
        is_fresh = self.is_fresh[near]
        self._with_members(near[is_fresh], ball.rows)
        self._with_members(near[~is_fresh], ball.rows[self.is_fresh[ball.rows]])

    def _with_members(self, rows: Ids, members: Ids) -> None:
        loaded, unit = -1, np.zeros((0, 0), dtype=np.float32)  # first of the columns in memory
        for strip, columns, close in self.strips.strips(rows, members):
            if not close.is_dense(_DENSE):
                i, j = close.pairs
                self._judge(strip[i], columns[j], is_close=self.projected is None)
                continue
            if columns[0] != loaded:
                loaded, unit = int(columns[0]), unit_rows(self.vectors[columns])
            self._judge_dense(strip, columns, unit)

    def _products(self, rows: Ids, pivot: Sims) -> Sims:
        products = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), TILING.columns):
            part = slice(start, start + TILING.columns)
            products[part] = unit_rows(self.vectors[rows[part]]) @ pivot
        return products

    def _judge_dense(self, rows: Ids, members: Ids, unit: Rows32) -> None:
        """Pairs of rows with a ball's members where many are near: all are counted, each row's best edges are kept.

        The members are connected without these edges, so one edge connects a row to all of them.
        """
        product = unit_rows(self.vectors[rows]) @ unit.T
        above = product - np.maximum.outer(self.thresholds[rows], self.thresholds[members])
        near = above >= FLOAT32_BAND
        i, j = np.nonzero(np.abs(above) < FLOAT32_BAND)
        similarity = self._exact(np.minimum(rows[i], members[j]), np.maximum(rows[i], members[j]))
        near[i, j] = similarity >= np.maximum(self.thresholds[rows[i]], self.thresholds[members[j]])
        near &= self.ownership.mask(rows, members)
        if self.n_earlier:
            is_earlier = np.logical_and.outer(rows < self.n_earlier, members < self.n_earlier)
            heavier = near & is_earlier
            self.n_neighbors[rows] += heavier @ self.added[members]
            self.n_neighbors[members] += heavier.T @ self.added[rows]
            near &= ~is_earlier
        self.n_neighbors[rows] += weights_of(near, self.weights[members])
        self.n_neighbors[members] += weights_of(near.T, self.weights[rows])
        k = min(max(self.best, 1), len(members))
        best = np.argpartition(np.where(near, -product, 2.0), k - 1, axis=1)[:, :k]
        i, j = np.repeat(np.arange(len(rows)), k), best.ravel()
        i, j = i[near[i, j]], j[near[i, j]]
        self._add_edges(np.minimum(rows[i], members[j]), np.maximum(rows[i], members[j]))

    def _exact(self, a: Ids, b: Ids) -> Sims:
        similarity = np.empty(len(a), dtype=np.float32)
        for start in range(0, len(a), 16_384):
            part = slice(start, start + 16_384)
            similarity[part] = exact_similarity(self.vectors[a[part]], self.vectors[b[part]])
        return similarity

    def _judge(self, rows: Ids, others: Ids, *, is_close: bool) -> None:
        """Judge proposed pairs exactly; count and keep those within the threshold."""
        if not len(rows):
            return
        a, b = np.minimum(rows, others), np.maximum(rows, others)
        owned = self.ownership.pairs(a, b)
        a, b = a[owned], b[owned]
        if not is_close:
            close = self.strips.close(a, b)
            a, b = a[close], b[close]
        similarity = self._exact(a, b)
        near = similarity >= np.maximum(self.thresholds[a], self.thresholds[b])
        a, b, similarity = a[near], b[near], similarity[near]
        if not len(a):
            return
        # float64 sums of weights are exact up to 2^53
        n = len(self.vectors)
        is_new = b >= self.n_earlier
        for row, neighbor in ((a, b), (b, a)):
            weights = np.where(is_new, self.weights[neighbor], self.added[neighbor]) if self.n_earlier else self.weights[neighbor]
            self.n_neighbors += np.bincount(row, weights=weights, minlength=n).astype(np.int64)
        if self.n_earlier:
            a, b, similarity = a[is_new], b[is_new], similarity[is_new]
        self.edges.add(a, b, similarity)

    def _add_edges(self, a: Ids, b: Ids) -> None:
        self.edges.add(a, b, self._exact(a, b))

    def result(self) -> Joined:
        """The sparse edges, sorted, and the counts."""
        src, dst, similarity = self.edges.thinned()
        order = np.lexsort((dst, src))
        return Joined(src[order], dst[order], similarity[order], self.n_neighbors)


def _projections(projected: Rows16, rows: Ids) -> Rows32:
    return projected[rows].astype(np.float32)


def _sparse(src: Ids, dst: Ids, similarity: Sims, *, best: int) -> tuple[Ids, Ids, Sims]:
    kept = sparsify(src, dst, similarity, best)
    return src[kept], dst[kept], similarity[kept]
