"""Spanning forests and connected components of graphs that fit one machine."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.sparse.csgraph import minimum_spanning_tree

from dedup.errors import EdgeError

Ids = npt.NDArray[np.int64]
_NETWORKX_UP_TO = 256  # edges; beyond, scipy's compiled code pays


def _check(src: Ids, dst: Ids, n: int) -> None:
    if src.shape != dst.shape or src.ndim != 1:
        raise EdgeError(f"expected src and dst of one shape (n_edges,), found {src.shape} and {dst.shape}")
    if len(src) and (min(src.min(), dst.min()) < 0 or max(src.max(), dst.max()) >= n):
        low, high = min(src.min(), dst.min()), max(src.max(), dst.max())
        raise EdgeError(f"expected node ids in [0, {n}), found {low} to {high}; number the nodes 0 .. n-1 first")


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
    labels = np.arange(n, dtype=np.int64)
    if len(source) <= _NETWORKX_UP_TO:
        graph = nx.Graph()
        graph.add_edges_from(zip(source.tolist(), target.tolist(), strict=True))
        for component in nx.connected_components(graph):
            labels[list(component)] = min(component)
        return labels
    # csgraph counts nodes in 32 bits
    ends = (source.astype(np.int32), target.astype(np.int32))
    graph_matrix = coo_array((np.ones(len(source), dtype=np.int8), ends), shape=(n, n)).tocsr()
    _, component_of = scipy_components(graph_matrix, directed=False)
    # nodes come in ascending order, so the first of each component is its smallest
    _, first = np.unique(component_of, return_index=True)
    return labels[first][component_of]


def maximum_spanning_forest(src: Ids, dst: Ids, similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Mark the edges of the maximum-similarity spanning forest.

    Edges are ordered by (similarity descending, src, dst), a total order: the forest is unique, and the forest
    of a union of edge sets is the forest of the union of their forests.

    Parameters
    ----------
    src, dst : int64 array, shape (n_edges,)
        Undirected edges between any ids, no edge twice.
    similarity : float32 array, shape (n_edges,)

    Returns
    -------
    bool array, shape (n_edges,)

    Notes
    -----
    The ranks of the order are the weights of scipy's Kruskal, so equal similarities cannot tie.

    Examples
    --------
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


def best_edges(src: Ids, dst: Ids, similarity: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.bool_]:
    """Mark every edge that is among the `k` best of one of its ends.

    Parameters
    ----------
    src, dst : int64 array, shape (n_edges,)
    similarity : float32 array, shape (n_edges,)
    k : int
        Edges per node; ties by (src, dst).

    Returns
    -------
    bool array, shape (n_edges,)
    """
    if not len(src) or k < 1:
        return np.zeros(len(src), dtype=bool)
    n = len(src)
    end = np.concatenate([src, dst])
    order = np.lexsort((np.tile(dst, 2), np.tile(src, 2), -np.tile(similarity, 2), end))
    sorted_end = end[order]
    starts = np.flatnonzero(np.r_[True, sorted_end[1:] != sorted_end[:-1]])
    place = np.arange(2 * n) - np.repeat(starts, np.diff(np.r_[starts, 2 * n]))
    mask = np.zeros(n, dtype=bool)
    mask[order[place < k] % n] = True
    return mask


def sparsify(src: Ids, dst: Ids, similarity: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.bool_]:
    """Mark the edges worth keeping: the maximum-similarity spanning forest and each node's `k` best.

    Both compose: sparsifying in parts and then the union of the parts gives the same edges as all at once.
    """
    return maximum_spanning_forest(src, dst, similarity) | best_edges(src, dst, similarity, k)
