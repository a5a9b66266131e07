"""Exhaustive search: every query against every vector, where results must not be approximate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Ids, Rows16, Rows32, Sims, Vectors
from dedup.numerics.graph.components import weights_of
from dedup.numerics.similarity import FLOAT32_BAND, exact_similarity, unit_rows

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ClosePairs:
    """The pairs of a row and a column that float32 products propose, for float64 to decide."""

    products: Sims  # (n_rows, n_columns)
    places: Ids  # of the products that reach the limit, row by row

    @property
    def pairs(self) -> tuple[Ids, Ids]:
        """Row and column of each pair."""
        row, column = np.divmod(self.places, self.products.shape[1])
        return row, column

    @property
    def values(self) -> Sims:
        """Product of each pair."""
        return self.products.ravel()[self.places]

    def is_dense(self, share: float) -> bool:
        """Whether more than this share of all pairs is close."""
        return len(self.places) > share * self.products.size


def themselves(row_ids: Ids, column_ids: Ids) -> tuple[Places, Places]:
    """Rows and columns of the vectors that are in both."""
    _, rows, columns = np.intersect1d(row_ids, column_ids, return_indices=True)
    return rows, columns


def close_pairs(rows: Rows32, columns: Rows32, limit: float, *, but: tuple[Places, Places] | None = None) -> ClosePairs:
    """Propose the pairs whose product in float32 is at least a limit.

    `rows`, `columns`: shape (n_rows, dim) and (n_columns, dim).
    `limit`: the threshold, less what rounding may have taken from a product.
    `but`: rows and columns of pairs that are left out, such as vectors with themselves; their products become -2.
    """
    products = rows @ columns.T
    if but is not None:
        products[but] = -2.0
    return ClosePairs(products, np.flatnonzero(products >= limit))


_PRODUCTS = 2**23  # float32 products at a time
_MANY = 8  # times k: near vectors of a query in one block judged exactly; where there are more, those with the largest products


def nearest_neighbors(
    queries: Rows16, query_ids: Ids, blocks: Iterable[tuple[Ids, Rows16]], k: int, *, max_products: int = _PRODUCTS
) -> tuple[Ids, Sims]:
    """The k most similar others of each query.

    `queries`: shape (m, dim).
    `query_ids`: shape (m,); a vector of the same id is not its own neighbour.
    `blocks`: (ids (b,), rows (b, dim)) of all vectors, no id twice.
    `max_products`: float32 products at a time.
    Returns `ids`: shape (m, k); nearest first, ties by the smaller id; -1 where there are fewer.
    Returns `similarity`: shape (m, k); exact cosines; -2 where there are fewer.

    float32 products propose and exact similarities decide. Only where more than 8·k vectors of a block are as near as the k-th to
    within the rounding of float32 (a crowd of copies) do products choose which are judged: similarities are then right to 0.00001.
    """
    m = len(queries)
    best, ids = np.full((m, k), -2.0, dtype=np.float32), np.full((m, k), -1, dtype=np.int64)
    unit = unit_rows(queries)
    width = max(k, 1_024, max_products // max(m, 1))
    for all_ids, all_rows in blocks:
        for start in range(0, len(all_ids), width):
            block_ids, rows = all_ids[start : start + width], all_rows[start : start + width]
            query, column = _proposed(unit @ unit_rows(rows).T, query_ids, block_ids, best[:, -1], k)
            if len(query):
                best, ids = _merged(best, ids, query, block_ids[column], exact_similarity(queries[query], rows[column]))
    return ids, best


def _proposed(product: Sims, query_ids: Ids, block_ids: Ids, worst: Sims, k: int) -> tuple[Places, Places]:
    """Pairs (query, column) that may be among the k best."""
    width = product.shape[1]
    product[themselves(query_ids, block_ids)] = -np.inf
    worst = worst - np.float32(FLOAT32_BAND)
    is_short = worst < -1.5
    if is_short.any() and width > k:
        # fewer than k neighbours so far: none that is worse than the k-th of this block
        worst[is_short] = np.partition(product[is_short], width - k, axis=1)[:, width - k] - np.float32(2 * FLOAT32_BAND)
    np.maximum(worst, np.float32(-1.5), out=worst)
    is_near = product >= worst[:, None]
    counts = np.count_nonzero(is_near, axis=1)
    for row in np.flatnonzero(counts > _MANY * k).tolist():
        is_near[row] = False
        is_near[row, np.argpartition(product[row], width - _MANY * k)[width - _MANY * k :]] = True
    query, column = np.nonzero(is_near)
    return query, column


def _merged(best: Sims, ids: Ids, query: Places, neighbor_ids: Ids, similarity: Sims) -> tuple[Sims, Ids]:
    m, k = best.shape
    rows = np.concatenate([np.repeat(np.arange(m), k), query])
    values, all_ids = np.concatenate([best.ravel(), similarity]), np.concatenate([ids.ravel(), neighbor_ids])
    order = np.lexsort((all_ids, -values, rows))
    starts = np.searchsorted(rows[order], np.arange(m))
    kept = order[starts[:, None] + np.arange(k)]
    return values[kept], all_ids[kept]


def mean_distances(similarity: Sims) -> Floats:
    """Mean of 1 - cosine over the neighbours of each query.

    A missing neighbour counts as opposite, at distance 2, so that the mean is an upper bound.

    >>> mean_distances(np.array([[1.0, 0.5], [0.5, -2.0]], np.float32))
    array([0.25, 1.25])
    """
    means: Floats = (1.0 - np.maximum(similarity, -1.0).astype(np.float64)).mean(axis=1)
    return means


_DENSE = 0.02  # share of close pairs above which sums over all pairs beat lists of some


def count_neighbors(queries: Rows16, query_ids: Ids, query_thresholds: Sims, blocks: Iterable[tuple[Ids, Rows16, Sims, Ids]]) -> Ids:
    """Weight of all other vectors within the threshold of each query, by comparing it with every one.

    `queries`: shape (n, dim).
    `query_ids`, `query_thresholds`: shape (n,); the similarity that each requires of a neighbour; a pair needs the larger of its two.
    `blocks`: (ids (m,), rows (m, dim), thresholds (m,), weights (m,)) of all vectors, the queries among them.
    """
    unit = unit_rows(queries)
    counts = np.zeros(len(queries), dtype=np.int64)
    limit = (float(query_thresholds.min()) if len(queries) else 2.0) - FLOAT32_BAND
    for ids, rows, thresholds, weights in blocks:
        close = close_pairs(unit, unit_rows(rows), limit, but=themselves(query_ids, ids))
        sure, q, r = _count_sure(close, query_thresholds, thresholds, weights)
        # in the order of edges, src < dst, so that the value is theirs to the last bit
        swap = query_ids[q] > ids[r]
        a, b = queries[q], rows[r]
        a[swap], b[swap] = b[swap], a[swap].copy()
        near = exact_similarity(a, b) >= np.maximum(query_thresholds[q], thresholds[r])
        counts += sure + np.bincount(q[near], weights=weights[r[near]], minlength=len(queries)).astype(np.int64)
    return counts


def _count_sure(close: ClosePairs, row_thresholds: Sims, column_thresholds: Sims, weights: Ids) -> tuple[Ids, Ids, Ids]:
    """Weight of the columns that are surely near each row; and the pairs nearer to their threshold than float32 can tell."""
    if close.is_dense(_DENSE):
        above = close.products
        above -= np.maximum.outer(row_thresholds, column_thresholds)
        row, column = np.nonzero(np.abs(above) < FLOAT32_BAND)
        return weights_of(above >= FLOAT32_BAND, weights), row, column
    row, column = close.pairs
    above = close.values - np.maximum(row_thresholds[row], column_thresholds[column])
    sure, unsure = above >= FLOAT32_BAND, np.abs(above) < FLOAT32_BAND
    counts = np.bincount(row[sure], weights=weights[column[sure]], minlength=len(row_thresholds)).astype(np.int64)
    return counts, row[unsure], column[unsure]


_STRIP = 256  # rows whose products are held at a time


@dataclass(frozen=True)
class Alike:
    """Counts and similar pairs of a comparison of rows with columns."""

    counts: Ids  # (n_rows, n_thresholds): columns of another label at or above each threshold
    # row, column: the pairs at or above the floor, by row, then column
    row: Ids
    column: Ids
    similarity: Sims  # exact


def count_alike(rows: Vectors, row_labels: Ids, columns: Vectors, column_labels: Ids, thresholds: Floats, floor: float) -> Alike:
    """Compare every row with every column of another label.

    `rows`, `columns`: shape (n_rows, dim) and (n_columns, dim).
    `row_labels`, `column_labels`: shape (n_rows,) and (n_columns,); images of one label are copies or the same image; their pairs are left
    out.
    `thresholds`: shape (n_thresholds,); ascending.
    `floor`: similarity from which pairs are given one by one.
    Returns counts that are right to within 1e-5 of similarity; from the floor up they are exact.
    Raises ShapeError if shapes do not match, or there is no threshold.
    """
    if rows.shape[1:] != columns.shape[1:] or len(rows) != len(row_labels) or len(columns) != len(column_labels):
        raise ShapeError(f"expected rows and columns of one width with labels, found {rows.shape} and {columns.shape}")
    if not len(thresholds):
        raise ShapeError("expected at least one threshold, found none")
    unit, unit_columns = unit_rows(rows), unit_rows(columns)
    bins = thresholds.astype(np.float32)
    n_bins, limit = len(bins), min(float(bins[0]), floor) - FLOAT32_BAND
    binned = np.zeros((len(rows), n_bins), dtype=np.int64)
    parts: list[tuple[Ids, Ids, Sims]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for top in range(0, len(rows), _STRIP):
        close = close_pairs(unit[top : top + _STRIP], unit_columns, limit)
        i, j = close.pairs
        is_other = row_labels[i + top] != column_labels[j]
        i, j, value = i[is_other], j[is_other], close.values[is_other]
        high = np.flatnonzero(value >= floor - FLOAT32_BAND)
        value[high] = exact_similarity(rows[i[high] + top], columns[j[high]])
        number = np.searchsorted(bins, value, side="right") - 1
        is_counted = number >= 0
        n_strip = len(close.products)
        counted = np.bincount(i[is_counted] * n_bins + number[is_counted], minlength=n_strip * n_bins)
        binned[top : top + n_strip] += counted.reshape(n_strip, n_bins)
        high = high[value[high] >= np.float32(floor)]
        parts.append((i[high] + top, j[high], value[high]))
    row, column, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Alike(np.ascontiguousarray(binned[:, ::-1].cumsum(axis=1)[:, ::-1]), row, column, similarity)
