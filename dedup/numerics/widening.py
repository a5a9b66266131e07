"""Searches that end when they have everything within a similarity, not when they have k."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FIRST = 128  # candidates that a search begins with
_TAIL = 0.25  # of the candidates, by their codes the farthest, that must hold no neighbour for a search to end

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # ids and exact similarities, in the order of their codes


def search_all(
    search: Callable[[npt.NDArray[np.int64], int], Found], least: npt.NDArray[np.float32], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """All neighbours of some queries, as far as a search by codes finds them.

    Parameters
    ----------
    search : callable
        Takes rows of queries and k; gives ids (m, k), -1 where there are fewer, and exact similarities (m, k), the candidates in the order
        of their codes. Fewer than k columns mean that it gives no more.
    least : float32 array, shape (n_queries,)
        Similarity that each asks of a neighbour.
    n : int
        Vectors in the index.

    Returns
    -------
    query : int64 array, shape (n_found,)
    ids : int64 array, shape (n_found,)
    similarity : float32 array, shape (n_found,)

    Notes
    -----
    A query is asked for twice as many until the last quarter of its candidates holds no neighbour.
    """
    k, open_rows = min(FIRST, n), np.arange(len(least))
    queries, ids_found, similarities = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    while len(open_rows):
        ids, similarity = search(open_rows, k)
        is_near = (similarity >= least[open_rows, None]) & (ids >= 0)
        is_last = k >= n or ids.shape[1] < k
        is_done = np.logical_or(~np.any(is_near[:, -max(1, int(_TAIL * k)) :], axis=1), np.full(len(open_rows), is_last))
        row, place = np.nonzero(is_near & is_done[:, None])
        queries.append(open_rows[row])
        ids_found.append(ids[row, place])
        similarities.append(similarity[row, place])
        open_rows, k = open_rows[~is_done], min(2 * k, n)
    return np.concatenate(queries), np.concatenate(ids_found), np.concatenate(similarities)
