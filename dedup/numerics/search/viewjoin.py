"""Pairs of views in one inverted list: what whole pictures in one orientation can't tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.graph.components import sparsify
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.image.views import DISC, WHOLE, relative_turns
from dedup.numerics.search.balls import Ball, Ownership, fewest_in_sample, find_balls
from dedup.numerics.search.gpu import COLUMNS, STRIP, Device, Grid, HalfProducts
from dedup.numerics.search.project import PROJECTION_BAND
from dedup.numerics.similarity import FLOAT32_BAND, Rows, exact_similarity, unit_rows

ROTATED = len(VARIANTS)  # the turn of pairs whose discs are alike: by an angle that is not known

DISC_SIMILARITY = 0.85  # that discs need: they hold less of the picture than the other views

_JUDGED = 8_192  # pairs judged at a time

_BUFFER = 1_000_000  # pairs held before they are sparsified

_KEPT_MIDDLE = 8  # views of a crowd's middle that stand for it

_KEPT_SPREAD = 56  # and others from its middle to its edge

_COLLAPSE_FROM = 1_024  # rows from which looking for crowds pays

_PROBE = 256  # rows that tell whether there may be one

_ON_DEVICE_FROM = 512  # columns from which pairs are looked for on a device; below, starting it costs more


@dataclass(frozen=True)
class Views:
    """The views in one list; images are numbered within the list's run.

    Parameters
    ----------
    vectors : float16 array, shape (n, dim)
        Unit rows up to float16 rounding, in principal coordinates.
    image : int64 array, shape (n,)
    kind, orientation : int8 array, shape (n,)
    is_base : bool array, shape (n,)
        See `dedup.numerics.image.views.ViewRows`.
    """

    vectors: npt.NDArray[np.float16]
    image: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    orientation: npt.NDArray[np.int8]
    is_base: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ViewEdges:
    """Pairs of images; `src` < `dst`, no pair twice, sorted.

    Parameters
    ----------
    src, dst : int64 array, shape (n,)
        Images.
    similarity : float32 array, shape (n,)
        Of their most similar views, exact.
    turn : int8 array, shape (n,)
        How src is turned to meet dst, in the order of `VARIANTS`; or `ROTATED`.
    """

    src: npt.NDArray[np.int64]
    dst: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    turn: npt.NDArray[np.int8]


def no_edges() -> ViewEdges:
    """No pair at all."""
    none = np.zeros(0, dtype=np.int64)
    return ViewEdges(none, none, np.zeros(0, np.float32), np.zeros(0, np.int8))


def best_of_pairs(edges: ViewEdges, best: int) -> ViewEdges:
    """One edge for each pair of images, its best; of these the maximum-similarity forest and each image's `best`.

    Both compose: of parts and then of their union, as of all at once.
    """
    order = np.lexsort((edges.turn, -edges.similarity, edges.dst, edges.src))
    src, dst = edges.src[order], edges.dst[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (src[1:] != src[:-1]) | (dst[1:] != dst[:-1])
    chosen = order[first]
    src, dst, similarity = edges.src[chosen], edges.dst[chosen], edges.similarity[chosen]
    kept = sparsify(src, dst, similarity, best)
    return ViewEdges(src[kept], dst[kept], similarity[kept], edges.turn[chosen][kept])


def join_views(
    views: Views,
    ownership: Ownership,
    wholes: Rows,
    min_similarity: float,
    view_min_similarity: float,
    *,
    n_filter: int = 0,
    best: int = 8,
    share: tuple[int, int] = (0, 1),
    device: Device | None = None,
    n_earlier: int = 0,
) -> ViewEdges:
    """Find pairs of images of which two views are alike and the whole pictures are not.

    Parameters
    ----------
    views : Views
    ownership : Ownership
        Pairs of rows that another list owns are left out.
    wholes : Rows
        Of each row the vector of the whole image that it is a view of.
    min_similarity : float
        Of whole pictures, from which a pair is the main join's.
    view_min_similarity : float
        Of views.
    n_filter : int
        Leading coordinates that propose pairs; 0 = all.
    best : int
        Edges kept for each image beside the forest.
    share : (int, int)
        Which share of the comparisons is made here, and of how many: `best_of_pairs` of all shares are the edges of the whole.
    device : Device, optional
        Where the products are computed that propose pairs; None = the CPU. The edges are the same.
    n_earlier : int
        Images below this number were compared with each other before: only pairs with another one are looked for.

    Returns
    -------
    ViewEdges

    Notes
    -----
    Base rows are compared with all rows, others only with base rows. A crowd of rows that are alike is represented
    by a few from its middle to its edge, and its own base rows are compared with the middle only: linear in its members.
    """
    join = _ViewJoin(views, ownership, wholes, (min_similarity, view_min_similarity), n_filter, best, share, device, n_earlier)
    base, others = np.flatnonzero(views.is_base), np.flatnonzero(~views.is_base)
    if len(views.image) >= _COLLAPSE_FROM:
        for rows in (base, others):
            is_left = np.zeros(len(views.image), dtype=bool)
            is_left[rows] = True
            for ball in join.crowds(rows):
                by_cosine = np.argsort(-ball.cosines, kind="stable")
                spread = np.linspace(0, len(by_cosine) - 1, _KEPT_SPREAD).astype(np.int64)
                is_left[ball.rows] = False
                is_left[ball.rows[by_cosine[np.concatenate([np.arange(_KEPT_MIDDLE), spread])]]] = True
                if rows is base and join.is_ours():
                    middle = int(ball.rows[by_cosine[0]])
                    join.judge(np.full(len(ball.rows), middle), ball.rows)
            if rows is base:
                base = np.flatnonzero(is_left)
            else:
                others = np.flatnonzero(is_left)
    is_new = views.image >= n_earlier
    new, known = base[is_new[base]], base[~is_new[base]]
    join.between(new, new)
    join.between(new, known)
    join.between(new, others)
    join.between(known, others[is_new[others]])
    return join.result()


class _ViewJoin:
    """The pairs of one list while they are found."""

    def __init__(
        self,
        views: Views,
        ownership: Ownership,
        wholes: Rows,
        min_similarity: tuple[float, float],
        n_filter: int,
        best: int,
        share: tuple[int, int],
        device: Device | None,
        n_earlier: int,
    ) -> None:
        self.n_earlier = n_earlier
        self.views, self.ownership, self.wholes, self.best = views, ownership, wholes, best
        self.whole_threshold, self.threshold = min_similarity
        self.n_filter, self.device = n_filter, device
        self.share, self.n_shares = share
        self.n_asked = 0
        self.parts: list[ViewEdges] = []
        self.n_buffered = 0

    def is_ours(self) -> bool:
        """Whether the next product is of the share that is joined here: they are dealt out in turn."""
        self.n_asked += 1
        return (self.n_asked - 1) % self.n_shares == self.share

    def columns(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What products are taken of: the leading coordinates and the norm of the rest, or all of them."""
        unit = unit_rows(self.views.vectors[rows])
        if not self.n_filter:
            return unit
        tail = unit[:, self.n_filter :]
        rest = np.sqrt(np.einsum("ij,ij->i", tail, tail))
        return np.concatenate([unit[:, : self.n_filter], rest[:, None]], axis=1)

    def crowds(self, rows: npt.NDArray[np.int64]) -> list[Ball]:
        """Crowds of rows that are all alike."""
        if len(rows) < _COLLAPSE_FROM // 2:
            return []
        sample = self.columns(rows[np.linspace(0, len(rows) - 1, min(_PROBE, len(rows))).astype(np.int64)])
        near = (sample @ sample.T >= self.threshold - PROJECTION_BAND).sum(axis=1)
        if near.max() < fewest_in_sample(len(sample), len(rows)):
            return []
        candidates = np.zeros(len(self.views.image), dtype=bool)
        candidates[rows] = True
        return find_balls(self.views.vectors, self.threshold, candidates)

    def between(self, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
        """Pairs of some rows with others; the same rows twice are each pair once."""
        grid = Grid(len(rows), len(others), rows is others)
        strips = [strip for strip in grid.strips() if self.is_ours()]
        if self.device is not None and strips and len(others) >= _ON_DEVICE_FROM:
            products = HalfProducts(self.device, self.views.vectors, rows, None if grid.is_same else others, self.threshold)
            for i, j in products.pairs(strips):
                self.judge(rows[i], others[j])
            strips = strips[products.n_done :]
        proposed = self.threshold - (PROJECTION_BAND if self.n_filter else FLOAT32_BAND)
        held, columns = -1, self.columns(others[:0])
        for left, top in strips:
            if left != held:
                held, columns = left, self.columns(others[left : left + COLUMNS])
            i, j = np.divmod(np.flatnonzero(self.columns(rows[top : top + STRIP]) @ columns.T >= proposed), len(columns))
            i, j = i + top, j + left
            if grid.is_same:
                i, j = i[i < j], j[i < j]
            self.judge(rows[i], others[j])

    def judge(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> None:
        """Keep the pairs of rows whose views are alike, that this list owns, and that tell something new."""
        views = self.views
        is_whole = (views.kind[a] == WHOLE) & (views.kind[b] == WHOLE)
        # whole pictures in one orientation are the main join's to judge
        is_new = (views.image[a] != views.image[b]) & ~(is_whole & (views.orientation[a] == views.orientation[b]))
        is_new &= (views.kind[a] == DISC) == (views.kind[b] == DISC)
        is_new &= np.maximum(views.image[a], views.image[b]) >= self.n_earlier
        a, b = a[is_new], b[is_new]
        for start in range(0, len(a), _JUDGED):
            self._judge(a[start : start + _JUDGED], b[start : start + _JUDGED])

    def _judge(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> None:
        views = self.views
        if self.n_filter:
            product = np.einsum("ij,ij->i", unit_rows(views.vectors[a]), unit_rows(views.vectors[b]))
            close = product >= self.threshold - FLOAT32_BAND
            a, b = a[close], b[close]
        owned = self.ownership.pairs(a, b)
        a, b = a[owned], b[owned]
        similarity = exact_similarity(views.vectors[a], views.vectors[b])
        threshold = np.where(views.kind[a] == DISC, max(self.threshold, DISC_SIMILARITY), self.threshold)
        near = similarity >= threshold.astype(np.float32)
        a, b, similarity = a[near], b[near], similarity[near]
        if not len(a):
            return
        swap = views.image[a] > views.image[b]
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        src, dst = views.image[a], views.image[b]
        known = exact_similarity(self.wholes[a], self.wholes[b]) >= np.float32(self.whole_threshold)
        turn = np.where(views.kind[a] == DISC, ROTATED, relative_turns()[views.orientation[a], views.orientation[b]]).astype(np.int8)
        left = ~known
        self.parts.append(ViewEdges(src[left], dst[left], similarity[left], turn[left]))
        self.n_buffered += int(left.sum())
        if self.n_buffered > _BUFFER:
            self.parts = [self.result()]
            self.n_buffered = 0

    def result(self) -> ViewEdges:
        """The sparse edges."""
        if not self.parts:
            return no_edges()
        columns = [[getattr(part, name) for part in self.parts] for name in ("src", "dst", "similarity", "turn")]
        return best_of_pairs(ViewEdges(*(np.concatenate(column) for column in columns)), self.best)
