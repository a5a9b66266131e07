"""Anchored groups: a component cut so that every member is near its anchor.

Chains are real: A is a copy of B, and B of C, yet A looks nothing like C. The same greedy cover serves twice:
with members ordered by their neighbour counts it makes the groups, with members ordered by the keep policy
it chooses the keepers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.similarity import Rows, exact_similarity

_CHUNK = 16_384  # rows gathered at a time


@dataclass(frozen=True)
class Link:
    """How alike two members are that are copies of each other."""

    similarity: float
    distance: float | None  # None where their pixels were not compared


def greedy_cover(
    vectors: Rows,
    min_similarity: Sims,
    rows: Ids,
    *,
    n_forced: int = 1,
    nearest: bool = False,
    max_anchors: int | None = None,
) -> tuple[Ids, Sims]:
    """Choose anchors in order until every member is within the threshold of one.

    `vectors`: shape (n_vectors, dim); distinct vectors of one component.
    `min_similarity`: shape (n_vectors,); similarity each requires of a copy; a pair needs the larger of its two.
    `rows`: shape (n,); the members in order of preference, as positions in `vectors`; members with one position are byte-identical copies,
    similar by 1.
    `n_forced`: the first members that are anchors whether covered or not.
    `nearest`: whether a member goes with the most similar anchor that covers it, not with the first one.
    `max_anchors`: stop after so many anchors.
    Returns `anchor`: shape (n,); position in `rows` of each member's anchor; an anchor is its own; -1 for a member that `max_anchors` left
    without one.
    Returns `similarity`: shape (n,); to that anchor; 1 for anchors.

    Each anchor costs one pass over the component's vectors: O(anchors * n_vectors * dim).
    """
    n = len(rows)
    anchor = np.full(n, -1, dtype=np.int64)
    similarity = np.full(n, -2.0, dtype=np.float32)
    is_anchor = np.zeros(n, dtype=bool)
    start, n_anchors = 0, 0
    while start < n and (max_anchors is None or n_anchors < max_anchors):
        if start >= n_forced and anchor[start] >= 0:
            start += 1
            continue
        is_anchor[start], n_anchors = True, n_anchors + 1
        place = rows[start]
        to_anchor = _similarities(vectors, len(min_similarity), place)
        is_near = to_anchor >= np.maximum(min_similarity, min_similarity[place])
        to_anchor[place], is_near[place] = 1.0, True
        candidate = to_anchor[rows]
        is_taken = is_near[rows] & (candidate > similarity if nearest else anchor < 0)
        anchor[is_taken], similarity[is_taken] = start, candidate[is_taken]
        start += 1
    positions = np.flatnonzero(is_anchor)
    anchor[positions], similarity[positions] = positions, 1.0
    return anchor, similarity


def _similarities(vectors: Rows, n: int, place: np.int64) -> Sims:
    vector = vectors[np.array([place])]
    parts = []
    for start in range(0, n, _CHUNK):
        rows = vectors[np.arange(start, min(start + _CHUNK, n))]
        parts.append(exact_similarity(rows, np.broadcast_to(vector, rows.shape)))
    return np.concatenate(parts)


def confirmed_cover(
    rows: Ids,
    links: Mapping[tuple[int, int], Link],
    similarities: Callable[[int, Ids], Sims],
    confirm: Callable[[int, int, float], Link | None],
    *,
    min_similarity: Sims,
    n_forced: int = 1,
    tries: int = 3,
) -> tuple[Ids, list[Link]]:
    """Choose anchors in order until every member is confirmed as a copy of one.

    `rows`: shape (n,); the members in order of preference, as positions among the distinct images; members with one position are
    byte-identical copies.
    `links`: by (smaller position, larger position); pairs that are confirmed already.
    `similarities`: from a position and an array of positions to their cosines, float32.
    `confirm`: from an anchor's position, a member's and their similarity to the link, or None if they are not copies.
    `min_similarity`: shape (n_distinct,); all anchors within the threshold are tried.
    `n_forced`: the first members that are anchors whether covered or not.
    `tries`: how many anchors, the most similar first, are tried even below the threshold: an image and its crop may be far apart as
    vectors.
    Returns `anchor`: shape (n,); position in `rows` of each member's anchor; an anchor is its own.
    Returns `link`: to that anchor; similarity 1 for anchors and byte-identical copies.

    A member goes to the most similar anchor that it is linked with, otherwise to the most similar one that is confirmed.
    """
    anchor = np.arange(len(rows), dtype=np.int64)
    link_of = [Link(1.0, None)] * len(rows)
    anchors: list[int] = []  # positions in `rows`
    placed: dict[int, tuple[int, Link]] = {}  # distinct image -> its first member's anchor
    for k, row in enumerate(rows.tolist()):
        if k >= n_forced and row in placed:
            anchor[k], link_of[k] = placed[row]
            continue
        if k >= n_forced:
            choice = _choose(row, [int(rows[a]) for a in anchors], links, similarities, confirm, min_similarity, tries)
            if choice is not None:
                anchor[k], link_of[k] = anchors[choice[0]], choice[1]
                placed[row] = int(anchor[k]), link_of[k]
                continue
        anchors.append(k)
        placed.setdefault(row, (k, Link(1.0, None)))
    return anchor, link_of


def _choose(
    row: int,
    anchors: Sequence[int],
    links: Mapping[tuple[int, int], Link],
    similarities: Callable[[int, Ids], Sims],
    confirm: Callable[[int, int, float], Link | None],
    min_similarity: Sims,
    tries: int,
) -> tuple[int, Link] | None:
    """Place in `anchors` of the one that an image goes to, with the link."""
    linked = [(k, links[pair]) for k, anchor in enumerate(anchors) if (pair := (min(row, anchor), max(row, anchor))) in links]
    if linked:
        return max(linked, key=lambda item: (item[1].similarity, -item[0]))
    places = np.array(anchors, dtype=np.int64)
    similar = similarities(row, places)
    for n_tried, k in enumerate(np.argsort(-similar, kind="stable").tolist()):
        if n_tried >= tries and similar[k] < max(min_similarity[row], min_similarity[places[k]]):
            break
        link = confirm(anchors[k], row, float(similar[k]))
        if link is not None:
            return k, link
    return None


def region_cover(
    vectors: Rows,
    min_similarity: Sims,
    src: Ids,
    dst: Ids,
) -> tuple[Ids, Sims]:
    """Groups of a component too large to compare each anchor with every member.

    A region grows from each anchor along the edges, through members within the threshold of the anchor and not yet
    taken. What `greedy_cover` would find beyond a gap in that region becomes a group of its own instead: two groups
    may then be near each other, but every member is still within the threshold of its anchor.

    `vectors`: shape (n, dim); members in the order anchors are taken.
    `src`, `dst`: shape (n_edges,); edges, as positions in `vectors`.
    Returns `anchor`, `similarity`: shape (n,).

    Each member is taken once and refused at most once per edge and anchor.
    """
    n = len(min_similarity)
    graph = csr_array((np.ones(2 * len(src), dtype=np.int8), (np.r_[src, dst], np.r_[dst, src])), shape=(n, n))
    starts, neighbours = graph.indptr, graph.indices
    anchor = np.full(n, -1, dtype=np.int64)
    similarity = np.ones(n, dtype=np.float32)
    refused_by = np.full(n, -1, dtype=np.int64)
    for start in range(n):
        if anchor[start] >= 0:
            continue
        anchor[start] = start
        vector = vectors[np.array([start])]
        frontier = np.array([start])
        while len(frontier):
            reached = np.unique(np.concatenate([neighbours[starts[k] : starts[k + 1]] for k in frontier]))
            reached = reached[(anchor[reached] < 0) & (refused_by[reached] != start)]
            similar = exact_similarity(vectors[reached], np.repeat(vector, len(reached), axis=0))
            near = similar >= np.maximum(min_similarity[reached], min_similarity[start])
            frontier = reached[near]
            anchor[frontier], similarity[frontier] = start, similar[near]
            refused_by[reached[~near]] = start
    return anchor, similarity


def component_slices(component: Ids) -> Ids:
    """Bounds of the runs of equal values in a sorted array, shape (n_runs + 1,).

    >>> component_slices(np.array([3, 3, 7]))
    array([0, 2, 3])
    """
    if not len(component):
        return np.zeros(1, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(component)) + 1, [len(component)]]).astype(np.int64)
