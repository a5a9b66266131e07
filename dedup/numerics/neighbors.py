"""The k nearest neighbours of some vectors among all that stream past, by cosine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dedup.numerics.distances import FLOAT32_BAND, exact_similarity, unit_rows

_PRODUCTS = 2**23  # float32 products at a time
_MANY = 8  # times k: near vectors of a query in one block that are judged exactly; of a crowd's, those with the largest products

Ids = npt.NDArray[np.int64]


def nearest_neighbors(
    queries: npt.NDArray[np.float16], query_ids: Ids, blocks: Iterable[tuple[Ids, npt.NDArray[np.float16]]], k: int
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """The k most similar others of each query.

    Parameters
    ----------
    queries : float16 array, shape (m, dim)
    query_ids : int64 array, shape (m,)
        A vector of the same id is not its own neighbour.
    blocks : iterable of (ids int64 (b,), rows float16 (b, dim))
        All vectors, no id twice.
    k : int

    Returns
    -------
    ids : int64 array, shape (m, k)
        Nearest first, ties by the smaller id; -1 where there are fewer.
    similarity : float32 array, shape (m, k)
        Exact cosines; -2 where there are fewer.

    Notes
    -----
    float32 products propose and exact similarities decide. Only where more than 8·k vectors of a block are as near as the k-th to
    within the rounding of float32 (a crowd of copies) do products decide which are looked at: similarities are then right to 0.00001.
    """
    m = len(queries)
    best, ids = np.full((m, k), -2.0, dtype=np.float32), np.full((m, k), -1, dtype=np.int64)
    unit = unit_rows(queries)
    width = max(k, 1_024, _PRODUCTS // max(m, 1))
    for all_ids, all_rows in blocks:
        for start in range(0, len(all_ids), width):
            block_ids, rows = all_ids[start : start + width], all_rows[start : start + width]
            query, column = _proposed(unit @ unit_rows(rows).T, query_ids, block_ids, best[:, -1], k)
            if len(query):
                best, ids = _merged(best, ids, query, block_ids[column], exact_similarity(queries[query], rows[column]))
    return ids, best


def _proposed(
    product: npt.NDArray[np.float32], query_ids: Ids, block_ids: Ids, worst: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs (query, column) that may be among the k best."""
    width = product.shape[1]
    _, own, column = np.intersect1d(query_ids, block_ids, return_indices=True)
    product[own, column] = -np.inf
    worst = worst - np.float32(FLOAT32_BAND)
    is_short = worst < -1.5
    if is_short.any() and width > k:
        # nothing to compare with yet: no worse than the k-th of this block
        worst[is_short] = np.partition(product[is_short], width - k, axis=1)[:, width - k] - np.float32(2 * FLOAT32_BAND)
    np.maximum(worst, np.float32(-1.5), out=worst)
    is_near = product >= worst[:, None]
    counts = np.count_nonzero(is_near, axis=1)
    for row in np.flatnonzero(counts > _MANY * k).tolist():
        is_near[row] = False
        is_near[row, np.argpartition(product[row], width - _MANY * k)[width - _MANY * k :]] = True
    query, near = np.nonzero(is_near)
    return query, near


def _merged(
    best: npt.NDArray[np.float32], ids: Ids, query: npt.NDArray[np.intp], found: Ids, similarity: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], Ids]:
    """The k best of those there were and those that were found."""
    m, k = best.shape
    rows = np.concatenate([np.repeat(np.arange(m), k), query])
    values, names = np.concatenate([best.ravel(), similarity]), np.concatenate([ids.ravel(), found])
    order = np.lexsort((names, -values, rows))
    starts = np.searchsorted(rows[order], np.arange(m))
    kept = order[starts[:, None] + np.arange(k)]
    return values[kept], names[kept]


def mean_distances(similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean of 1 - cosine over the neighbours of each query; one that was not found counts as opposite, at distance 2.

    So that the mean is an upper bound of what more neighbours would give.

    Examples
    --------
    >>> mean_distances(np.array([[1.0, 0.5], [0.5, -2.0]], np.float32))
    array([0.25, 1.25])
    """
    means: npt.NDArray[np.float64] = (1.0 - np.maximum(similarity, -1.0).astype(np.float64)).mean(axis=1)
    return means
