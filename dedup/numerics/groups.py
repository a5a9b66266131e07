"""Anchored groups: a component cut so that every member is near its anchor.

Chains are real: A is a copy of B and B of C, and A looks nothing like C. The same greedy cover serves twice:
with the members in the order of their neighbour counts it makes the groups, with the members in the order
of the keep policy it chooses the keepers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
