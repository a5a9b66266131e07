"""Widest paths: how two members of a component hang together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from dedup.errors import EdgeError
from dedup.numerics.components import maximum_spanning_forest

Ids = npt.NDArray[np.int64]


def widest_path(src: npt.ArrayLike, dst: npt.ArrayLike, similarity: npt.ArrayLike, start: int, end: int) -> Ids:
    """The path whose weakest edge is the most similar; of several, one with the fewest edges.

    Parameters
    ----------
    src, dst : int array, shape (n_edges,)
        Undirected edges between any ids, in any order; of an edge that occurs twice the more similar one counts.
    similarity : float array, shape (n_edges,)
    start, end : int
        Ids.

    Returns
    -------
    int64 array, shape (n_nodes_of_the_path,)
        From start to end; one node where they are the same.

    Raises
    ------
    EdgeError
        If the shapes differ, or no path joins the two.

    Notes
    -----
    The path along the maximum spanning forest has the greatest minimum (Hu 1961, "The maximum capacity route problem"); a breadth-first
    search through the edges that are no weaker finds the shortest of those. O(n_edges log n_edges).

    Examples
    --------
    >>> widest_path([0, 1, 0], [1, 2, 2], [0.9, 0.8, 0.7], 0, 2)
    array([0, 1, 2])
    """
    a, b = np.asarray(src, dtype=np.int64), np.asarray(dst, dtype=np.int64)
    weight = np.asarray(similarity, dtype=np.float32)
    if not a.shape == b.shape == weight.shape or a.ndim != 1:
        raise EdgeError(f"expected src, dst and similarity of one shape (n_edges,), found {a.shape}, {b.shape} and {weight.shape}")
    if start == end:
        return np.array([start], dtype=np.int64)
    a, b, weight = _each_once(np.minimum(a, b), np.maximum(a, b), weight)
    nodes, ends = np.unique(np.concatenate([a, b]), return_inverse=True)
    if not np.isin([start, end], nodes).all():
        raise EdgeError(f"no edge touches {start} or {end}; expected two members of one component")
    low, high = ends[: len(a)].astype(np.int32), ends[len(a) :].astype(np.int32)
    first, last = np.searchsorted(nodes, [start, end]).tolist()
    forest = maximum_spanning_forest(a, b, weight)
    along = _shortest(low[forest], high[forest], len(nodes), first, last)
    if along is None:
        raise EdgeError(f"no path joins {start} and {end}; expected two members of one component")
    keys = low[forest].astype(np.int64) * len(nodes) + high[forest]
    order = np.argsort(keys)
    steps = np.minimum(along[:-1], along[1:]) * len(nodes) + np.maximum(along[:-1], along[1:])
    weakest = weight[forest][order][np.searchsorted(keys, steps, sorter=order)].min()
    is_wide = weight >= weakest
    shortest = _shortest(low[is_wide], high[is_wide], len(nodes), first, last)
    found: Ids = nodes[along if shortest is None else shortest]
    return found


def _each_once(low: Ids, high: Ids, weight: npt.NDArray[np.float32]) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
    """Edges sorted by their ends, each once with its greatest weight; without loops."""
    order = np.lexsort((-weight, high, low))
    low, high, weight = low[order], high[order], weight[order]
    is_first = np.ones(len(low), dtype=bool)
    is_first[1:] = (np.diff(low) != 0) | (np.diff(high) != 0)
    is_first &= low != high
    return low[is_first], high[is_first], weight[is_first]


def _shortest(low: npt.NDArray[np.int32], high: npt.NDArray[np.int32], n: int, first: int, last: int) -> Ids | None:
    """Nodes from first to last along the fewest edges, by the smallest nodes; None if nothing joins them."""
    graph = coo_array((np.ones(2 * len(low), dtype=np.int8), (np.r_[low, high], np.r_[high, low])), shape=(n, n)).tocsr()
    graph.sort_indices()
    _, before = breadth_first_order(graph, last, directed=True, return_predecessors=True)
    if before[first] < 0:
        return None
    path = [first]
    while path[-1] != last:
        path.append(int(before[path[-1]]))
    return np.array(path, dtype=np.int64)
