"""Exhaustive search: every query against every vector, for what must not be approximate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.graph.components import weights_of
from dedup.numerics.similarity import FLOAT32_BAND, exact_similarity, unit_rows

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


_DENSE = 0.02  # share of near pairs from which sums over all beat lists of some


def count_neighbors(
    queries: npt.NDArray[np.float16],
    query_ids: npt.NDArray[np.int64],
    query_min_similarity: npt.NDArray[np.float32],
    blocks: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16], npt.NDArray[np.float32], npt.NDArray[np.int64]]],
) -> npt.NDArray[np.int64]:
    """Weight of all other vectors within the threshold of each query, by comparing with every one.

    Parameters
    ----------
    queries : float16 array, shape (n, dim)
    query_ids : int64 array, shape (n,)
    query_min_similarity : float32 array, shape (n,)
    blocks : iterable of (ids (m,), rows float16 (m, dim), min_similarity (m,), weights (m,))
        All vectors, the queries among them.

    Returns
    -------
    int64 array, shape (n,)
    """
    unit = unit_rows(queries)
    counts = np.zeros(len(queries), dtype=np.int64)
    threshold = float(query_min_similarity.min()) if len(queries) else 2.0
    for ids, rows, min_similarity, weights in blocks:
        product = unit @ unit_rows(rows).T
        _, own_query, own_row = np.intersect1d(query_ids, ids, assume_unique=True, return_indices=True)
        product[own_query, own_row] = -2.0
        hits = np.flatnonzero(product >= threshold - FLOAT32_BAND)
        # only what lies within the rounding of a float32 product needs a closer look
        if len(hits) > _DENSE * product.size:
            above = product
            above -= np.maximum.outer(query_min_similarity, min_similarity)
            counts += weights_of(above >= FLOAT32_BAND, weights)
            q, r = np.nonzero(np.abs(above) < FLOAT32_BAND)
        else:
            q, r = np.divmod(hits, len(rows))
            above = product[q, r] - np.maximum(query_min_similarity[q], min_similarity[r])
            sure, unsure = above >= FLOAT32_BAND, np.abs(above) < FLOAT32_BAND
            counts += np.bincount(q[sure], weights=weights[r[sure]], minlength=len(queries)).astype(np.int64)
            q, r = q[unsure], r[unsure]
        # an edge is src < dst: the exact value is taken that way round
        swap = query_ids[q] > ids[r]
        a, b = queries[q], rows[r]
        a[swap], b[swap] = b[swap], a[swap].copy()
        similarity = exact_similarity(a, b)
        near = similarity >= np.maximum(query_min_similarity[q], min_similarity[r])
        counts += np.bincount(q[near], weights=weights[r[near]], minlength=len(queries)).astype(np.int64)
    return counts


_STRIP = 256  # rows whose products are held at a time


@dataclass(frozen=True)
class Alike:
    """What a comparison of rows with columns found.

    Parameters
    ----------
    counts : int64 array, shape (n_rows, n_thresholds)
        Columns of another label at or above each threshold.
    row, column : int64 array, shape (n,)
        Those pairs at or above the floor, by row, then column.
    similarity : float32 array, shape (n,)
        Exact.
    """

    counts: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


def count_alike(
    rows: npt.NDArray[np.floating],
    row_labels: npt.NDArray[np.int64],
    columns: npt.NDArray[np.floating],
    column_labels: npt.NDArray[np.int64],
    thresholds: npt.NDArray[np.float64],
    floor: float,
) -> Alike:
    """Compare every row with every column of another label.

    Parameters
    ----------
    rows, columns : float array, shape (n_rows, dim) and (n_columns, dim)
    row_labels, column_labels : int64 array, shape (n_rows,) and (n_columns,)
        Images of one label are copies, or the same; they are left out.
    thresholds : float64 array, shape (n_thresholds,)
        Ascending.
    floor : float
        Similarity from which pairs are given one by one.

    Returns
    -------
    Alike
        Counts within 1e-5 of similarity; from the floor up exact.

    Raises
    ------
    ShapeError
        If shapes do not match, or there is no threshold.
    """
    if rows.shape[1:] != columns.shape[1:] or len(rows) != len(row_labels) or len(columns) != len(column_labels):
        raise ShapeError(f"expected rows and columns of one width with labels, found {rows.shape} and {columns.shape}")
    if not len(thresholds):
        raise ShapeError("expected at least one threshold, found none")
    left, right = unit_rows(rows), unit_rows(columns)
    asked = thresholds.astype(np.float32)
    n_bins, least = len(asked), min(float(asked[0]), floor)
    binned = np.zeros((len(rows), n_bins), dtype=np.int64)
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    for top in range(0, len(rows), _STRIP):
        product = left[top : top + _STRIP] @ right.T
        i, j = np.nonzero(product >= least - FLOAT32_BAND)
        is_other = row_labels[i + top] != column_labels[j]
        i, j = i[is_other], j[is_other]
        value = product[i, j]
        high = np.flatnonzero(value >= floor - FLOAT32_BAND)
        value[high] = exact_similarity(rows[i[high] + top], columns[j[high]])
        place = np.searchsorted(asked, value, side="right") - 1
        known = place >= 0
        part = np.bincount(i[known] * n_bins + place[known], minlength=len(product) * n_bins).reshape(len(product), n_bins)
        binned[top : top + len(product)] += part
        high = high[value[high] >= np.float32(floor)]
        found.append((i[high] + top, j[high], value[high]))
    row, column, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (np.zeros(0),) * 3
    counts = np.ascontiguousarray(binned[:, ::-1].cumsum(axis=1)[:, ::-1])
    return Alike(counts, row.astype(np.int64), column.astype(np.int64), similarity.astype(np.float32))
