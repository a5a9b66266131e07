"""Anchored groups: a component cut so that every member is near its anchor.

Chains are real: A is a copy of B and B of C, and A looks nothing like C. The same greedy cover serves twice:
with the members in the order of their neighbour counts it makes the groups, with the members in the order
of the keep policy it chooses the keepers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from dedup.numerics.collapse import Rows
from dedup.numerics.distances import Turn, best_turn_similarity


def greedy_cover(
    vectors: npt.NDArray[np.float16],
    min_similarity: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    *,
    n_forced: int = 1,
    nearest: bool = False,
    turns: Sequence[Turn] = (),
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Choose anchors in order until every member is within the threshold of one.

    Parameters
    ----------
    vectors : float16 array, shape (n_vectors, dim)
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
    turns : sequence of Turn

    Returns
    -------
    anchor : int64 array, shape (n,)
        Position in `rows` of each member's anchor; an anchor's own position for an anchor.
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
    start = 0
    while start < n:
        if start >= n_forced and anchor[start] >= 0:
            start += 1
            continue
        is_anchor[start] = True
        place = rows[start]
        distinct, _ = best_turn_similarity(vectors, np.broadcast_to(vectors[place], vectors.shape), turns)
        covers = distinct >= np.maximum(min_similarity, min_similarity[place])
        distinct[place], covers[place] = 1.0, True
        candidate, covered = distinct[rows], covers[rows]
        taken = covered & (candidate > similarity if nearest else anchor < 0)
        anchor[taken], similarity[taken] = start, candidate[taken]
        start += 1
    positions = np.flatnonzero(is_anchor)
    anchor[positions], similarity[positions] = positions, 1.0
    return anchor, similarity


def region_cover(
    vectors: Rows,
    min_similarity: npt.NDArray[np.float32],
    src: npt.NDArray[np.int64],
    dst: npt.NDArray[np.int64],
    *,
    turns: Sequence[Turn] = (),
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
    turns : sequence of Turn

    Returns
    -------
    anchor : int64 array, shape (n,)
    similarity : float32 array, shape (n,)

    Notes
    -----
    Each member is taken once and refused at most once per edge: O(n_edges * dim).
    """
    n = len(min_similarity)
    graph = csr_array((np.ones(2 * len(src), dtype=np.int8), (np.r_[src, dst], np.r_[dst, src])), shape=(n, n))
    starts, neighbours = graph.indptr, graph.indices
    anchor = np.full(n, -1, dtype=np.int64)
    similarity = np.ones(n, dtype=np.float32)
    for start in range(n):
        if anchor[start] >= 0:
            continue
        anchor[start] = start
        at = vectors[np.array([start])]
        frontier, refused = np.array([start]), np.zeros(0, dtype=np.int64)
        while len(frontier):
            reached = np.unique(np.concatenate([neighbours[starts[k] : starts[k + 1]] for k in frontier]))
            reached = np.setdiff1d(reached[anchor[reached] < 0], refused, assume_unique=True)
            similar, _ = best_turn_similarity(vectors[reached], np.repeat(at, len(reached), axis=0), turns)
            near = similar >= np.maximum(min_similarity[reached], min_similarity[start])
            frontier = reached[near]
            anchor[frontier], similarity[frontier] = start, similar[near]
            refused = np.concatenate([refused, reached[~near]])
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
