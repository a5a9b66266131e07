"""Pairs of views in one inverted list, for copies that whole pictures in one orientation don't reveal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Ids, Mask, Rows16, Rows32, Sims
from dedup.numerics.graph.components import sparsify
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.image.views import DISC, WHOLE, relative_turns
from dedup.numerics.search.balls import Ball, Ownership, evenly_spread, find_balls, may_hold_ball
from dedup.numerics.search.project import PROJECTION_BAND
from dedup.numerics.search.strips import DEFAULTS, EdgeBuffer, JoinSettings, StripJoin
from dedup.numerics.similarity import Rows, exact_similarity, unit_rows

ROTATED = len(VARIANTS)  # the turn of pairs whose discs are alike: by an unknown angle
DISC_SIMILARITY = 0.85  # required of discs, which hold less of the picture than the other views
_JUDGED = 8_192  # pairs judged at a time
_HELD = 1_000_000  # pairs held before they are sparsified
_KEPT_MIDDLE = 8  # views in a ball's middle that represent it
_KEPT_SPREAD = 56  # and others from its middle to its edge
_BALLS_FROM = 1_024  # rows from which searching for balls pays
_PROBE = 256  # rows that show whether there may be one
Turns = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Views:
    """The views in one list; images are numbered within the list's run. See `dedup.numerics.image.views.ViewRows`."""

    vectors: Rows16  # unit rows up to float16 rounding, in principal coordinates
    image: Ids
    kind: npt.NDArray[np.int8]
    orientation: Turns
    is_base: Mask


@dataclass(frozen=True)
class ViewRule:
    """Which pairs of views are kept, and how they are proposed."""

    min_similarity: float  # of whole pictures, from which a pair belongs to the main join
    view_min_similarity: float  # of views
    n_filter: int = 0  # leading coordinates that propose pairs; 0 = all


@dataclass(frozen=True)
class ViewEdges:
    """Pairs of images; no pair twice, sorted."""

    src: Ids  # images; src < dst
    dst: Ids
    similarity: Sims  # of their most similar views, exact
    turn: Turns  # how src is turned to meet dst, in the order of `VARIANTS`; or `ROTATED`


def no_edges() -> ViewEdges:
    """Edges without any pair."""
    no_ids = np.zeros(0, dtype=np.int64)
    return ViewEdges(no_ids, no_ids, np.zeros(0, np.float32), np.zeros(0, np.int8))


def best_of_pairs(edges: ViewEdges, best: int) -> ViewEdges:
    """Best edge of each pair of images; of these the maximum-similarity forest and each image's `best`.

    Taking the best of parts and then of their union is the same as taking it of all at once.
    """
    order = np.lexsort((edges.turn, -edges.similarity, edges.dst, edges.src))
    src, dst = edges.src[order], edges.dst[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (src[1:] != src[:-1]) | (dst[1:] != dst[:-1])
    chosen = order[first]
    src, dst, similarity = edges.src[chosen], edges.dst[chosen], edges.similarity[chosen]
    kept = sparsify(src, dst, similarity, best)
    return ViewEdges(src[kept], dst[kept], similarity[kept], edges.turn[chosen][kept])


def united(parts: Sequence[ViewEdges], best: int) -> ViewEdges:
    """`best_of_pairs` of the union of at least one part."""
    columns = [[getattr(part, name) for part in parts] for name in ("src", "dst", "similarity", "turn")]
    return best_of_pairs(ViewEdges(*(np.concatenate(column) for column in columns)), best)


def join_views(
    views: Views, ownership: Ownership, wholes: Rows, rule: ViewRule, settings: JoinSettings = DEFAULTS, *, n_earlier: int = 0
) -> ViewEdges:
    """Find pairs of images that have two views alike, though the whole pictures are not.

    `ownership`: pairs of rows that another list owns are left out.
    `wholes`: for each row the vector of the whole image that it is a view of.
    `settings`: `best_of_pairs` of the edges of all shares gives those of the whole.
    `n_earlier`: images below this number were compared with each other before: only pairs with at least one other are compared.

    Base rows are compared with all rows, others only with base rows. A ball of similar rows is represented by a few
    from its middle to its edge, and its base rows are compared with the middle only: linear in its members.
    """
    join = _ViewJoin(views, ownership, wholes, rule, settings, n_earlier)
    base, others = np.flatnonzero(views.is_base), np.flatnonzero(~views.is_base)
    if len(views.image) >= _BALLS_FROM:
        base = join.represented(base, meets_middle=True)
        others = join.represented(others, meets_middle=False)
    is_new = views.image >= n_earlier
    new, earlier = base[is_new[base]], base[~is_new[base]]
    join.between(new, new)
    join.between(new, earlier)
    join.between(new, others)
    join.between(earlier, others[is_new[others]])
    return join.result()


class _ViewJoin:
    """The pairs of one list as they are found."""

    def __init__(self, views: Views, ownership: Ownership, wholes: Rows, rule: ViewRule, settings: JoinSettings, n_earlier: int) -> None:
        self.views, self.ownership, self.wholes, self.rule = views, ownership, wholes, rule
        self.threshold, self.n_earlier = rule.view_min_similarity, n_earlier
        self.strips = StripJoin(views.vectors, self.threshold, self._leading if rule.n_filter else None, settings)
        self.edges = EdgeBuffer(lambda *columns: _columns(best_of_pairs(ViewEdges(*columns), settings.best)), _columns(no_edges()), _HELD)

    def _leading(self, rows: Ids) -> Rows32:
        """Leading coordinates and the norm of the rest."""
        unit, n = unit_rows(self.views.vectors[rows]), self.rule.n_filter
        rest = unit[:, n:]
        norm = np.sqrt(np.einsum("ij,ij->i", rest, rest))
        return np.concatenate([unit[:, :n], norm[:, None]], axis=1)

    def represented(self, rows: Ids, *, meets_middle: bool) -> Ids:
        """Rows without those of balls, but with a ball's representatives; with `meets_middle`, a ball is compared with its middle."""
        is_kept = np.zeros(len(self.views.image), dtype=bool)
        is_kept[rows] = True
        for ball in self._balls(rows, is_kept):
            by_cosine = np.argsort(-ball.cosines, kind="stable")
            spread = evenly_spread(len(by_cosine), _KEPT_SPREAD)
            is_kept[ball.rows] = False
            is_kept[ball.rows[by_cosine[np.concatenate([np.arange(_KEPT_MIDDLE), spread])]]] = True
            if meets_middle and self.strips.takes_next():
                self._judge(np.full(len(ball.rows), ball.rows[by_cosine[0]]), ball.rows, is_close=True)
        return np.flatnonzero(is_kept)

    def _balls(self, rows: Ids, candidates: Mask) -> list[Ball]:
        if len(rows) < _BALLS_FROM // 2:
            return []
        sample = self.strips.columns(rows[evenly_spread(len(rows), _PROBE)])
        may_be = may_hold_ball(sample, sample, self.threshold - PROJECTION_BAND, len(rows))
        return find_balls(self.views.vectors, self.threshold, candidates) if may_be else []

    def between(self, rows: Ids, others: Ids) -> None:
        """Compare some rows with others; each pair once if both are the same rows."""
        for a, b, is_close in self.strips.pairs(rows, others):
            self._judge(a, b, is_close=is_close)

    def _judge(self, a: Ids, b: Ids, *, is_close: bool) -> None:
        """Keep the pairs of rows whose views are alike, that this list owns, and that no other join finds."""
        views = self.views
        is_whole = (views.kind[a] == WHOLE) & (views.kind[b] == WHOLE)
        # pairs of whole pictures in one orientation are judged by the main join
        is_new = (views.image[a] != views.image[b]) & ~(is_whole & (views.orientation[a] == views.orientation[b]))
        is_new &= (views.kind[a] == DISC) == (views.kind[b] == DISC)
        is_new &= np.maximum(views.image[a], views.image[b]) >= self.n_earlier
        a, b = a[is_new], b[is_new]
        for start in range(0, len(a), _JUDGED):
            part = slice(start, start + _JUDGED)
            self._keep(*self._alike(a[part], b[part], is_close=is_close))

    def _alike(self, a: Ids, b: Ids, *, is_close: bool) -> tuple[Ids, Ids, Sims]:
        """The pairs of rows that this list owns and whose views are alike, with their similarity."""
        if not is_close:
            close = self.strips.close(a, b)
            a, b = a[close], b[close]
        owned = self.ownership.pairs(a, b)
        a, b = a[owned], b[owned]
        similarity = exact_similarity(self.views.vectors[a], self.views.vectors[b])
        thresholds = np.where(self.views.kind[a] == DISC, max(self.threshold, DISC_SIMILARITY), self.threshold)
        near = similarity >= thresholds.astype(np.float32)
        return a[near], b[near], similarity[near]

    def _keep(self, a: Ids, b: Ids, similarity: Sims) -> None:
        """Keep the pairs of rows whose whole pictures are not alike, as edges of images."""
        if not len(a):
            return
        views = self.views
        swap = views.image[a] > views.image[b]
        a, b = np.where(swap, b, a), np.where(swap, a, b)
        src, dst = views.image[a], views.image[b]
        is_kept = ~(exact_similarity(self.wholes[a], self.wholes[b]) >= np.float32(self.rule.min_similarity))
        turn = np.where(views.kind[a] == DISC, ROTATED, relative_turns()[views.orientation[a], views.orientation[b]]).astype(np.int8)
        self.edges.add(src[is_kept], dst[is_kept], similarity[is_kept], turn[is_kept])

    def result(self) -> ViewEdges:
        """The sparse edges."""
        return ViewEdges(*self.edges.thinned())


def _columns(edges: ViewEdges) -> tuple[Ids, Ids, Sims, Turns]:
    return edges.src, edges.dst, edges.similarity, edges.turn
