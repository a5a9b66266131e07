"""Spanning forests and connected components of graphs that fit one machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.sparse.csgraph import connected_components as scipy_components

from dedup.errors import EdgeError, ShapeError
from dedup.numerics.arraytypes import Ids, Mask, Sims


def connected_components(src: npt.ArrayLike, dst: npt.ArrayLike, n: int) -> Ids:
    """Label every node with the smallest node of its component.

    Parameters
    ----------
    src, dst : int array, shape (n_edges,)
        Undirected edges; order and repetition do not matter.
    n : int
        Number of nodes; node ids are 0 .. n-1.

    Returns
    -------
    int64 array, shape (n,)

    Raises
    ------
    EdgeError
        If the shapes differ or an id lies outside [0, n).

    Examples
    --------
    >>> connected_components(np.array([4, 1]), np.array([1, 0]), n=6)
    array([0, 0, 2, 3, 0, 5])
    """
    source, target = np.asarray(src, dtype=np.int64), np.asarray(dst, dtype=np.int64)
    _check(source, target, n)
    nodes: Ids = np.arange(n, dtype=np.int64)
    labels = nodes.copy()
    if 2 * len(source) < n:  # few nodes have edges: the others cost nothing
        nodes, places = np.unique(np.concatenate([source, target]), return_inverse=True)
        source, target = places[: len(source)], places[len(source) :]
    # csgraph counts nodes in 32 bits
    ends = (source.astype(np.int32), target.astype(np.int32))
    graph = coo_array((np.ones(len(source), dtype=np.int8), ends), shape=(len(nodes), len(nodes))).tocsr()
    _, component_of = scipy_components(graph, directed=False)
    # nodes come in ascending order, so the first of each component is its smallest
    _, first = np.unique(component_of, return_index=True)
    labels[nodes] = nodes[first][component_of]
    return labels


def duplication_counts(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Size of each sample's component.

    Parameters
    ----------
    labels : int array, shape (n,)
        Component of each sample.

    Returns
    -------
    int64 array, shape (n,)
        1 = unique.

    Raises
    ------
    ShapeError
        If `labels` is not one-dimensional.

    Examples
    --------
    >>> duplication_counts([0, 0, 2, 0])
    array([3, 3, 1, 3])
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ShapeError(f"expected labels of shape (n,), found {values.shape}")
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[inverse].astype(np.int64)


def weights_of(mask: Mask, weights: Ids) -> Ids:
    """Summed weight of the true entries of each row, exact; `mask`: shape (n, m).

    >>> weights_of(np.array([[True, False], [True, True]]), np.array([3, 4]))
    array([3, 7])
    """
    heavy = np.flatnonzero(weights != 1)  # few images have byte-identical copies, and counting beats multiplying
    sums: Ids = np.count_nonzero(mask, axis=1) + mask[:, heavy] @ (weights[heavy] - 1)
    return sums


def removed_by_threshold(
    src: npt.ArrayLike, dst: npt.ArrayLike, similarity: npt.ArrayLike, n: int, thresholds: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """How many of n images are removed at each threshold when one image of each connected component is kept.

    Parameters
    ----------
    src, dst : int array, shape (n_edges,)
        Undirected edges between ids from 0 to n-1; order and repetition do not matter.
    similarity : float array, shape (n_edges,)
        Compared as float32, as tables hold it.
    n : int
        Images.
    thresholds : float array, shape (n_thresholds,)
        In any order. An edge counts where its similarity is at least the threshold.

    Returns
    -------
    int64 array, shape (n_thresholds,)
        n less the number of components.

    Raises
    ------
    EdgeError
        If shapes differ, an id lies outside [0, n), or a similarity is NaN.

    Notes
    -----
    One maximum-similarity spanning forest serves all thresholds: above each it connects the same nodes as all edges do (Kruskal 1956),
    so the images removed are as many as its edges above the threshold. The edges may already be such a forest.

    Examples
    --------
    >>> removed_by_threshold([0, 1, 0], [1, 2, 2], [0.9, 0.7, 0.8], 4, [0.7, 0.85, 0.95]).tolist()
    [2, 1, 0]
    """
    source, target = np.asarray(src, dtype=np.int64), np.asarray(dst, dtype=np.int64)
    value, limits = np.asarray(similarity, dtype=np.float32), np.asarray(thresholds, dtype=np.float32)
    if not source.shape == target.shape == value.shape or source.ndim != 1 or limits.ndim != 1:
        shapes = f"{source.shape}, {target.shape}, {value.shape} and {limits.shape}"
        raise EdgeError(f"expected src, dst and similarity of one shape (n_edges,) and thresholds (n_thresholds,), found {shapes}")
    _check(source, target, n)
    if np.isnan(value).any() or np.isnan(limits).any():
        raise EdgeError("expected numbers as similarities and thresholds, found NaN")
    low, high, value = _each_once(np.minimum(source, target), np.maximum(source, target), value)
    in_forest = np.sort(value[maximum_spanning_forest(low, high, value)])
    removed: Ids = len(in_forest) - np.searchsorted(in_forest, limits, side="left").astype(np.int64)
    return removed


def maximum_spanning_forest(src: Ids, dst: Ids, similarity: Sims) -> Mask:
    """Mark the edges of the maximum-similarity spanning forest.

    Edges are ordered by (similarity descending, src, dst), a total order: the forest is unique, and the forest
    of a union of edge sets is the forest of the union of their forests.

    `src`, `dst`: undirected edges between any ids, no edge twice.

    The ranks of the order are the weights of scipy's Kruskal, so equal similarities cannot tie.

    >>> edges = np.array([[0, 1], [1, 2], [0, 2]]).T
    >>> maximum_spanning_forest(edges[0], edges[1], np.array([0.9, 0.7, 0.8], np.float32))
    array([ True, False,  True])
    """
    if not len(src):
        return np.zeros(0, dtype=bool)
    nodes, ends = np.unique(np.concatenate([src, dst]), return_inverse=True)
    ends = ends.astype(np.int32)
    _check(ends[: len(src)], ends[len(src) :], len(nodes))
    order = np.lexsort((dst, src, -similarity))
    rank = np.empty(len(src), dtype=np.float64)
    rank[order] = np.arange(1, len(src) + 1)
    graph = coo_array((rank, (ends[: len(src)], ends[len(src) :])), shape=(len(nodes), len(nodes)))
    kept = minimum_spanning_tree(graph.tocsr()).data.astype(np.int64) - 1
    mask = np.zeros(len(src), dtype=bool)
    mask[order[kept]] = True
    return mask


def best_edges(src: Ids, dst: Ids, similarity: Sims, k: int) -> Mask:
    """Mark every edge that is among the `k` best of either of its ends; ties by (src, dst)."""
    if not len(src) or k < 1:
        return np.zeros(len(src), dtype=bool)
    n = len(src)
    end = np.concatenate([src, dst])
    order = np.lexsort((np.tile(dst, 2), np.tile(src, 2), -np.tile(similarity, 2), end))
    sorted_end = end[order]
    starts = np.flatnonzero(np.r_[True, sorted_end[1:] != sorted_end[:-1]])
    rank = np.arange(2 * n) - np.repeat(starts, np.diff(np.r_[starts, 2 * n]))
    mask = np.zeros(n, dtype=bool)
    mask[order[rank < k] % n] = True
    return mask


def sparsify(src: Ids, dst: Ids, similarity: Sims, k: int) -> Mask:
    """Mark the edges worth keeping: the maximum-similarity spanning forest and each node's `k` best.

    Sparsifying the parts and then their union gives the same edges as sparsifying all at once.
    """
    return maximum_spanning_forest(src, dst, similarity) | best_edges(src, dst, similarity, k)


def widest_path(src: npt.ArrayLike, dst: npt.ArrayLike, similarity: npt.ArrayLike, start: int, end: int) -> Ids:
    """The path whose weakest edge is the most similar; of several, one with the fewest edges.

    `src`, `dst`, `similarity`: shape (n_edges,); undirected edges between any ids, in any order; where an edge occurs twice, the more
    similar one counts.
    Returns shape (n_nodes_of_the_path,); from start to end; one node where they are the same.
    Raises EdgeError if the shapes differ, or no path joins the two.

    The path along the maximum spanning forest has the greatest minimum (Hu 1961, "The maximum capacity route problem"); a breadth-first
    search through the edges that are no weaker finds the shortest such path. O(n_edges log n_edges).

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
    path: Ids = nodes[along if shortest is None else shortest]
    return path


def _shortest(low: npt.NDArray[np.int32], high: npt.NDArray[np.int32], n: int, first: int, last: int) -> Ids | None:
    """Nodes from first to last along the fewest edges, ties by the smaller node; None if nothing joins them."""
    graph = coo_array((np.ones(2 * len(low), dtype=np.int8), (np.r_[low, high], np.r_[high, low])), shape=(n, n)).tocsr()
    graph.sort_indices()
    _, predecessors = breadth_first_order(graph, last, directed=True, return_predecessors=True)
    if predecessors[first] < 0:
        return None
    path = [first]
    while path[-1] != last:
        path.append(int(predecessors[path[-1]]))
    return np.array(path, dtype=np.int64)


def _each_once(low: Ids, high: Ids, weight: Sims) -> tuple[Ids, Ids, Sims]:
    """Edges sorted by their ends, each once with its greatest weight; without self-loops."""
    order = np.lexsort((-weight, high, low))
    low, high, weight = low[order], high[order], weight[order]
    is_first = np.ones(len(low), dtype=bool)
    is_first[1:] = (np.diff(low) != 0) | (np.diff(high) != 0)
    is_first &= low != high
    return low[is_first], high[is_first], weight[is_first]


def _check(src: Ids, dst: Ids, n: int) -> None:
    if src.shape != dst.shape or src.ndim != 1:
        raise EdgeError(f"expected src and dst of one shape (n_edges,), found {src.shape} and {dst.shape}")
    if len(src) and (min(src.min(), dst.min()) < 0 or max(src.max(), dst.max()) >= n):
        low, high = min(src.min(), dst.min()), max(src.max(), dst.max())
        raise EdgeError(f"expected node ids in [0, {n}), found {low} to {high}; number the nodes 0 .. n-1 first")
