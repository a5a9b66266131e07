"""Anchored groups: a component cut so that every member is near its anchor.

Chains are real: A is a copy of B and B of C, and A looks nothing like C. The same greedy cover serves twice:
with the members in the order of their neighbour counts it makes the groups, with the members in the order
of the keep policy it chooses the keepers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from dedup.numerics.similarity import Rows, exact_similarity

_CHUNK = 16_384  # rows gathered at a time


@dataclass(frozen=True)
class Link:
    """What is known of two members that are copies."""

    similarity: float
    distance: float | None  # none where no look was taken


def greedy_cover(
    vectors: Rows,
    min_similarity: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    *,
    n_forced: int = 1,
    nearest: bool = False,
    max_anchors: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Choose anchors in order until every member is within the threshold of one.

    Parameters
    ----------
    vectors : float16 array, shape (n_vectors, dim), or Rows
        Distinct vectors of one component.
    min_similarity : float32 array, shape (n_vectors,)
        Similarity each asks of a copy; a pair needs the larger of its two.
    rows : int64 array, shape (n,)
        The members in order of preference, as positions in `vectors`; members with one position are
        byte-identical copies, similar by 1.
    n_forced : int
        The first members that are anchors whether covered or not.
    nearest : bool
        False: a member stays with the first anchor that covers it. True: with the most similar one.
    max_anchors : int, optional
        Stop after so many anchors.

    Returns
    -------
    anchor : int64 array, shape (n,)
        Position in `rows` of each member's anchor; an anchor's own position for an anchor; -1 for a member that
        `max_anchors` left without.
    similarity : float32 array, shape (n,)
        To that anchor; 1 for anchors.

    Notes
    -----
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
        distinct = _similarities(vectors, len(min_similarity), place)
        covers = distinct >= np.maximum(min_similarity, min_similarity[place])
        distinct[place], covers[place] = 1.0, True
        candidate, covered = distinct[rows], covers[rows]
        taken = covered & (candidate > similarity if nearest else anchor < 0)
        anchor[taken], similarity[taken] = start, candidate[taken]
        start += 1
    positions = np.flatnonzero(is_anchor)
    anchor[positions], similarity[positions] = positions, 1.0
    return anchor, similarity


def _similarities(vectors: Rows, n: int, place: np.int64) -> npt.NDArray[np.float32]:
    """Similarity of every vector with one of them, float32 (n,)."""
    at = vectors[np.array([place])]
    parts = []
    for start in range(0, n, _CHUNK):
        rows = vectors[np.arange(start, min(start + _CHUNK, n))]
        parts.append(exact_similarity(rows, np.broadcast_to(at, rows.shape)))
    return np.concatenate(parts)


def confirmed_cover(
    rows: npt.NDArray[np.int64],
    links: Mapping[tuple[int, int], Link],
    similarities: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    ask: Callable[[int, int, float], Link | None],
    *,
    min_similarity: npt.NDArray[np.float32],
    n_forced: int = 1,
    tries: int = 3,
) -> tuple[npt.NDArray[np.int64], list[Link]]:
    """Choose anchors in order until every member is confirmed as a copy of one.

    Parameters
    ----------
    rows : int64 array, shape (n,)
        The members in order of preference, as positions among the distinct images; members with one position are
        byte-identical copies.
    links : mapping of (smaller position, larger position) to Link
        Pairs that are confirmed already.
    similarities : callable
        Of a position and an array of positions: cosines, float32.
    ask : callable
        Of an anchor's position, a member's and their similarity: the link, or None if they are no copies.
    min_similarity : float32 array, shape (n_distinct,)
        Anchors within the threshold are all asked for.
    n_forced : int
        The first members that are anchors whether covered or not.
    tries : int
        Anchors below the threshold that are asked for, the most similar first: an image and its crop may be far
        apart as vectors.

    Returns
    -------
    anchor : int64 array, shape (n,)
        Position in `rows` of each member's anchor; an anchor's own for an anchor.
    link : list of Link
        To that anchor; similarity 1 for anchors and byte-identical copies.

    Notes
    -----
    A member goes to the most similar anchor that it is linked with, else to the most similar one that confirms it.
    """
    anchor = np.arange(len(rows), dtype=np.int64)
    found = [Link(1.0, None)] * len(rows)
    anchors: list[int] = []  # positions in `rows`
    placed: dict[int, tuple[int, Link]] = {}  # distinct image -> its first member's anchor
    for k, row in enumerate(rows.tolist()):
        if k >= n_forced and row in placed:
            anchor[k], found[k] = placed[row]
            continue
        if k >= n_forced:
            choice = _choose(row, [int(rows[a]) for a in anchors], links, similarities, ask, min_similarity, tries)
            if choice is not None:
                anchor[k], found[k] = anchors[choice[0]], choice[1]
                placed[row] = int(anchor[k]), found[k]
                continue
        anchors.append(k)
        placed.setdefault(row, (k, Link(1.0, None)))
    return anchor, found


def _choose(
    row: int,
    anchors: Sequence[int],
    links: Mapping[tuple[int, int], Link],
    similarities: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    ask: Callable[[int, int, float], Link | None],
    min_similarity: npt.NDArray[np.float32],
    tries: int,
) -> tuple[int, Link] | None:
    """Which anchor an image goes to, with the link."""
    linked = [(k, links[pair]) for k, other in enumerate(anchors) if (pair := (min(row, other), max(row, other))) in links]
    if linked:
        return max(linked, key=lambda item: (item[1].similarity, -item[0]))
    places = np.array(anchors, dtype=np.int64)
    similar = similarities(row, places)
    for turn, k in enumerate(np.argsort(-similar, kind="stable").tolist()):
        if turn >= tries and similar[k] < max(min_similarity[row], min_similarity[places[k]]):
            break
        link = ask(anchors[k], row, float(similar[k]))
        if link is not None:
            return k, link
    return None


def region_cover(
    vectors: Rows,
    min_similarity: npt.NDArray[np.float32],
    src: npt.NDArray[np.int64],
    dst: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Groups of a component too large to compare each anchor with every member.

    A region grows from each anchor along the edges, through members within the threshold of the anchor and not yet
    taken. What `greedy_cover` would find beyond a gap in that region becomes a group of its own instead: two groups
    may then be near, but every member is within the threshold of its anchor all the same.

    Parameters
    ----------
    vectors : float16 array, shape (n, dim), or Rows
        Members in the order anchors are taken.
    min_similarity : float32 array, shape (n,)
    src, dst : int64 array, shape (n_edges,)
        Edges, as positions in `vectors`.

    Returns
    -------
    anchor : int64 array, shape (n,)
    similarity : float32 array, shape (n,)

    Notes
    -----
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
        at = vectors[np.array([start])]
        frontier = np.array([start])
        while len(frontier):
            reached = np.unique(np.concatenate([neighbours[starts[k] : starts[k + 1]] for k in frontier]))
            reached = reached[(anchor[reached] < 0) & (refused_by[reached] != start)]
            similar = exact_similarity(vectors[reached], np.repeat(at, len(reached), axis=0))
            near = similar >= np.maximum(min_similarity[reached], min_similarity[start])
            frontier = reached[near]
            anchor[frontier], similarity[frontier] = start, similar[near]
            refused_by[reached[~near]] = start
    return anchor, similarity


def component_slices(component: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bounds of the runs of equal values in a sorted array, shape (n_runs + 1,).

    Examples
    --------
    >>> component_slices(np.array([3, 3, 7]))
    array([0, 2, 3])
    """
    if not len(component):
        return np.zeros(1, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(component)) + 1, [len(component)]]).astype(np.int64)
