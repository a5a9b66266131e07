"""All near-duplicate pairs among the members of one inverted list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.graph.components import sparsify, weights_of
from dedup.numerics.search.balls import Ball, Ownership, fewest_in_sample, find_balls
from dedup.numerics.search.gpu import COLUMNS, STRIP, Device, Grid, HalfProducts, Strip
from dedup.numerics.search.project import PROJECTION_BAND
from dedup.numerics.similarity import FLOAT32_BAND, Rows, exact_similarity, unit_rows

_COLLAPSE_FROM = 1_024  # members from which looking for balls pays


def self_join(
    vectors: Rows,
    min_similarity: npt.NDArray[np.float32],
    weights: npt.NDArray[np.int64],
    ownership: Ownership,
    *,
    best: int = 8,
    projected: npt.NDArray[np.float16] | None = None,
    share: tuple[int, int] = (0, 1),
    device: Device | None = None,
    earlier: Earlier | None = None,
) -> Joined:
    """Find all pairs within the threshold and keep a sparse set of them.

    Parameters
    ----------
    vectors : float16 array, shape (n, dim), or Rows
        Unit rows up to float16 rounding, ordered by sample_id.
    min_similarity : float32 array, shape (n,)
        Similarity each row asks of a copy; a pair needs the larger of its two.
    weights : int64 array, shape (n,)
        Samples each row stands for.
    ownership : Ownership
        Pairs that another list owns are left out.
    best : int
        Best edges kept for each row beside the maximum-similarity spanning forest.
    projected : float16 array, shape (n, k + 1), optional
        Projections (`dedup.numerics.search.project`) whose products bound the similarities.
    share : (int, int)
        Which share of the comparisons is made here, and of how many. The counts of all shares add up to those of the whole; their
        edges, sparsified once more, are its edges.
    device : Device, optional
        Where the products are computed that propose pairs; None = the CPU. Edges and counts are the same: float64 on the CPU
        judges what is proposed. What balls there are, and their rows' products with others, stay on the CPU.
    earlier : Earlier, optional
        What an earlier join of the first rows has found. Only pairs with another row are compared, and those of rows that stand for
        more samples than then.

    Returns
    -------
    Joined
        With `earlier`, the edges of all rows, and by how much the counts are more than they were then (weights of the rows themselves
        left out).
        Without balls, the edges are exactly forest and best edges of all pairs within the threshold. Inside a
        ball (`find_balls`) they are a star around its middle and a path: linear in its members.

    Raises
    ------
    ShapeError
        If the shapes do not match.
    """
    n = len(vectors)
    if min_similarity.shape != (n,) or weights.shape != (n,):
        raise ShapeError(f"expected {n} thresholds and weights, found {min_similarity.shape} and {weights.shape}")
    if projected is not None and len(projected) != n:
        raise ShapeError(f"expected projections of {n} rows, found {projected.shape}")
    if earlier is not None and len(earlier.added) != n:
        raise ShapeError(f"expected what was added to {n} rows, found {len(earlier.added)}")
    join = ListJoin(vectors, min_similarity, weights, ownership, best, projected, share, device, earlier)
    usable = min_similarity <= 1.0  # others ask for equal bytes, which are one row already
    balls: list[Ball] = []
    if n >= _COLLAPSE_FROM and join.may_be_dense():
        threshold = float(min_similarity.min())
        balls = find_balls(vectors, threshold, min_similarity == np.float32(threshold)) if threshold <= 1.0 else []
    for ball in balls:
        usable[ball.rows] = False
    rest = np.flatnonzero(usable)
    join.among(rest)
    for number, ball in enumerate(balls):
        join.inside(ball)
        join.between(rest, ball)
        for other in balls[number + 1 :]:
            join.between(other.rows, ball)
    return join.result()


_BUFFER = 2_000_000  # edges held before they are sparsified

_DENSE = 0.05  # share of a product's pairs from which each row's best edges stand for all of them

_PROBE = 512  # rows whose projections tell whether a list is dense anywhere

_FRESH_PROBE = 64  # rows added to a list that are compared with these

_ON_DEVICE_FROM = 512  # rows from which their pairs are looked for on a device; below, starting it costs more


@dataclass(frozen=True)
class Joined:
    """Edges and counts of one list; positions refer to the rows handed in.

    Parameters
    ----------
    src, dst : int64 array, shape (n_edges,)
        src < dst.
    similarity : float32 array, shape (n_edges,)
        Exact.
    n_neighbors : int64 array, shape (n,)
        Weight of the other rows within the threshold, of pairs that this list owns.
    """

    src: npt.NDArray[np.int64]
    dst: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    n_neighbors: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Earlier:
    """What is known of the pairs of a list's first rows, which an earlier join has compared.

    Parameters
    ----------
    n_rows : int
        How many rows come first.
    added : int64 array, shape (n,)
        Samples by which each row stands for more than it did then; of the other rows, what they stand for.
    src, dst : int64 array, shape (n_edges,)
        Edges the list had then; src < dst.
    similarity : float32 array, shape (n_edges,)
    """

    n_rows: int
    added: npt.NDArray[np.int64]
    src: npt.NDArray[np.int64]
    dst: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


class ListJoin:
    """Counts and edges of one list while they grow; its parameters are those of `self_join`."""

    def __init__(
        self,
        vectors: Rows,
        min_similarity: npt.NDArray[np.float32],
        weights: npt.NDArray[np.int64],
        ownership: Ownership,
        best: int,
        projected: npt.NDArray[np.float16] | None,
        share: tuple[int, int],
        device: Device | None,
        earlier: Earlier | None = None,
    ) -> None:
        self.vectors, self.min_similarity, self.weights = vectors, min_similarity, weights
        self.ownership, self.best, self.device = ownership, best, device
        self.share, self.n_shares = share
        self.n_asked = 0
        self.threshold = float(min_similarity.min()) if len(min_similarity) else 2.0
        self.projected = projected
        # what products must reach: projections overestimate, and were rounded to float16
        self.proposed = self.threshold - (FLOAT32_BAND if projected is None else PROJECTION_BAND)
        self.n_neighbors = np.zeros(len(vectors), dtype=np.int64)
        self.parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
        self.n_buffered = 0
        # rows before this one were compared with each other
        self.n_earlier = 0 if earlier is None else earlier.n_rows
        self.added = weights if earlier is None else earlier.added
        self.is_fresh = np.ones(len(vectors), dtype=bool) if earlier is None else self.added > 0
        if earlier is not None and self.share == 0:
            self._append(earlier.src, earlier.dst, earlier.similarity)

    def is_ours(self) -> bool:
        """Whether the next product is of the share that is joined here: they are dealt out in turn."""
        self.n_asked += 1
        return (self.n_asked - 1) % self.n_shares == self.share

    def may_be_dense(self) -> bool:
        """Whether many rows could be near one that is compared: a cheap look; to miss a small ball costs time only."""
        if self.projected is None:
            return True
        sample = self.projected[np.linspace(0, len(self.projected) - 1, _PROBE).astype(np.int64)].astype(np.float32)
        asked = sample
        if self.n_earlier:
            fresh = np.flatnonzero(self.is_fresh)
            chosen = fresh[np.linspace(0, len(fresh) - 1, min(_FRESH_PROBE, len(fresh))).astype(np.int64)]
            asked = self.projected[chosen].astype(np.float32)
        near = (asked @ sample.T >= self.proposed).sum(axis=1)
        return bool(near.max(initial=0) >= fewest_in_sample(_PROBE, len(self.projected)))

    def columns(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What products are taken of: projections where there are any, else unit vectors."""
        return unit_rows(self.vectors[rows]) if self.projected is None else self.projected[rows].astype(np.float32)

    def among(self, rows: npt.NDArray[np.int64]) -> None:
        """All pairs of the given rows that an earlier join has not counted as they are now."""
        fresh = rows[self.is_fresh[rows]]
        self._compare(fresh, fresh)
        if len(fresh) < len(rows):
            self._compare(fresh, rows[~self.is_fresh[rows]])

    def _compare(self, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
        """All pairs of some rows with others, strip by strip; of the same rows twice those of the upper triangle."""
        grid = Grid(len(rows), len(others), rows is others)
        strips = [strip for strip in grid.strips() if self.is_ours()]
        if self.device is not None and strips and len(others) >= _ON_DEVICE_FROM:
            products = HalfProducts(self.device, self.vectors, rows, None if grid.is_same else others, self.threshold)
            for i, j in products.pairs(strips):
                # few of them in vain: float64 decides at once
                self._add(*_ascending(rows[i], others[j]), is_close=True)
            strips = strips[products.n_done :]
        for i, j in self._proposed(rows, others, strips):
            self._add(*_ascending(rows[i], others[j]))

    def _proposed(
        self, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64], strips: Sequence[Strip]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Places of the pairs that products in float32 propose, strip by strip; of the same rows twice, i < j."""
        held, columns, is_same = -1, self.columns(others[:0]), rows is others
        for left, top in strips:
            if left != held:
                held, columns = left, self.columns(others[left : left + COLUMNS])
            if not is_same:
                i, j = self._candidates(self.columns(rows[top : top + STRIP]), columns)
                yield i + top, j + left
                continue
            strip = columns[top - left : top - left + STRIP] if top >= left else self.columns(rows[top : top + STRIP])
            first = max(top - left, 0)
            i, j = self._candidates(strip, columns[first:])
            i, j = i + top, j + left + first
            yield i[i < j], j[i < j]

    def inside(self, ball: Ball) -> None:
        """Pairs of a ball: counted without a product, joined by a star around its middle and a path."""
        if not self.is_ours():
            return
        rows = ball.rows
        is_earlier = rows < self.n_earlier
        for part, weights in ((rows[~is_earlier], self.weights), (rows[is_earlier], self.added)):
            own = np.where(self.ownership.pairs(part, part), weights[part], 0)
            self.n_neighbors[part] += self.ownership.weights(part, rows, weights[rows]) - own
        middle = rows[int(np.argmax(ball.cosines))]
        others = rows[rows != middle]
        neighbours = rows[:-1][(rows[:-1] != middle) & (rows[1:] != middle)]
        after = rows[1:][(rows[:-1] != middle) & (rows[1:] != middle)]
        low = np.concatenate([np.minimum(others, middle), neighbours])
        high = np.concatenate([np.maximum(others, middle), after])
        owned = self.ownership.pairs(low, high) & (high >= self.n_earlier)
        low, high = low[owned], high[owned]
        self._append(low, high, self._exact(low, high))

    def between(self, rows: npt.NDArray[np.int64], ball: Ball) -> None:
        """Pairs of other rows with a ball's: rows too far from its pivot need no product."""
        # a cosine near 1 says little about a small angle: what was rounded away counts as angle
        radius = np.arccos(np.clip(float(ball.cosines.min()) - FLOAT32_BAND, -1.0, 1.0))
        reach = np.arccos(np.clip(self.threshold, -1.0, 1.0)) + radius
        limit = float(np.cos(min(reach, np.pi))) - FLOAT32_BAND
        close = rows[self._products(rows, ball.pivot.astype(np.float32)) >= limit]
        is_fresh = self.is_fresh[close]
        self._between(close[is_fresh], ball.rows)
        self._between(close[~is_fresh], ball.rows[self.is_fresh[ball.rows]])

    def _between(self, close: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
        """Pairs of rows near a ball with members of it."""
        for left in range(0, len(others) if len(close) else 0, COLUMNS):
            members = others[left : left + COLUMNS]
            columns, whole = self.columns(members), None
            for top in range(0, len(close), STRIP):
                if not self.is_ours():
                    continue
                strip_rows = close[top : top + STRIP]
                i, j = self._candidates(self.columns(strip_rows), columns)
                if len(i) > _DENSE * len(strip_rows) * len(members):
                    whole = unit_rows(self.vectors[members]) if whole is None else whole
                    self._crowded(strip_rows, members, whole)
                else:
                    self._add(np.minimum(strip_rows[i], members[j]), np.maximum(strip_rows[i], members[j]))

    def _products(self, rows: npt.NDArray[np.int64], pivot: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Product of each row with a pivot."""
        products = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), COLUMNS):
            part = slice(start, start + COLUMNS)
            products[part] = unit_rows(self.vectors[rows[part]]) @ pivot
        return products

    def _crowded(self, rows: npt.NDArray[np.int64], members: npt.NDArray[np.int64], right: npt.NDArray[np.float32]) -> None:
        """Pairs of rows with a ball's members where most are near: all are counted, each row's best edges are kept.

        The members hold together without these edges, so one edge joins a row to all of them.
        """
        product = unit_rows(self.vectors[rows]) @ right.T
        above = product - np.maximum.outer(self.min_similarity[rows], self.min_similarity[members])
        near = above >= FLOAT32_BAND
        i, j = np.nonzero(np.abs(above) < FLOAT32_BAND)
        similarity = self._exact(np.minimum(rows[i], members[j]), np.maximum(rows[i], members[j]))
        near[i, j] = similarity >= np.maximum(self.min_similarity[rows[i]], self.min_similarity[members[j]])
        near &= self.ownership.mask(rows, members)
        if self.n_earlier:
            is_known = np.logical_and.outer(rows < self.n_earlier, members < self.n_earlier)
            heavier = near & is_known
            self.n_neighbors[rows] += heavier @ self.added[members]
            self.n_neighbors[members] += heavier.T @ self.added[rows]
            near &= ~is_known
        self.n_neighbors[rows] += weights_of(near, self.weights[members])
        self.n_neighbors[members] += weights_of(near.T, self.weights[rows])
        k = min(max(self.best, 1), len(members))
        best = np.argpartition(np.where(near, -product, 2.0), k - 1, axis=1)[:, :k]
        i, j = np.repeat(np.arange(len(rows)), k), best.ravel()
        i, j = i[near[i, j]], j[near[i, j]]
        low, high = np.minimum(rows[i], members[j]), np.maximum(rows[i], members[j])
        self._append(low, high, self._exact(low, high))

    def _candidates(
        self, strip: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positions of the products that may reach the threshold."""
        i, j = np.divmod(np.flatnonzero(strip @ columns.T >= self.proposed), len(columns))
        return i, j

    def _close(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Drop what the projections proposed in vain, in float32, before float64 decides."""
        close = np.empty(len(a), dtype=bool)
        for start in range(0, len(a), 4_096):
            part = slice(start, start + 4_096)
            product = np.einsum("ij,ij->i", unit_rows(self.vectors[a[part]]), unit_rows(self.vectors[b[part]]))
            close[part] = product >= self.threshold - FLOAT32_BAND
        return close

    def _exact(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        similarity = np.empty(len(a), dtype=np.float32)
        for start in range(0, len(a), 16_384):
            part = slice(start, start + 16_384)
            similarity[part] = exact_similarity(self.vectors[a[part]], self.vectors[b[part]])
        return similarity

    def _add(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], *, is_close: bool = False) -> None:
        """Judge candidate pairs a < b exactly; count and keep those within the threshold."""
        if not len(a):
            return
        owned = self.ownership.pairs(a, b)
        a, b = a[owned], b[owned]
        if self.projected is not None and not is_close:
            close = self._close(a, b)
            a, b = a[close], b[close]
        similarity = self._exact(a, b)
        near = similarity >= np.maximum(self.min_similarity[a], self.min_similarity[b])
        a, b, similarity = a[near], b[near], similarity[near]
        if not len(a):
            return
        # float64 sums of weights are exact up to 2^53
        n = len(self.vectors)
        is_new = b >= self.n_earlier
        for one, other in ((a, b), (b, a)):
            weights = np.where(is_new, self.weights[other], self.added[other]) if self.n_earlier else self.weights[other]
            self.n_neighbors += np.bincount(one, weights=weights, minlength=n).astype(np.int64)
        if self.n_earlier:
            a, b, similarity = a[is_new], b[is_new], similarity[is_new]
        self._append(a, b, similarity)

    def _append(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], similarity: npt.NDArray[np.float32]) -> None:
        self.parts.append((a, b, similarity))
        self.n_buffered += len(a)
        if self.n_buffered > _BUFFER:
            self._sparsify()

    def _sparsify(self) -> None:
        src, dst, similarity = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        kept = sparsify(src, dst, similarity, self.best)
        self.parts = [(src[kept], dst[kept], similarity[kept])]
        # what is left may be more than the buffer; the next pass waits until as much has come again
        self.n_buffered = 0

    def result(self) -> Joined:
        """The sparse edges, sorted, and the counts."""
        if not self.parts:
            none = np.zeros(0, dtype=np.int64)
            return Joined(none, none, np.zeros(0, np.float32), self.n_neighbors)
        self._sparsify()
        src, dst, similarity = self.parts[0]
        order = np.lexsort((dst, src))
        return Joined(src[order], dst[order], similarity[order], self.n_neighbors)


def _ascending(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.minimum(a, b), np.maximum(a, b)
