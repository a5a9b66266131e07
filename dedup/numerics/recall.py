"""Pair recall against exhaustive search, measured on a sample of queries."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dedup.numerics.counts import weights_of
from dedup.numerics.distances import FLOAT32_BAND, exact_similarity, unit_rows

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
