"""Search a component that refused candidates have torn for other pairs that connect it.

The candidates of a crowd of look-alikes are a spanning forest and each image's best few. A true copy may hide behind
them: its edge was not among the best, and the path that stood for it was refused. So torn components are searched again,
the most similar pairs first, until every image has been compared with its nearest neighbours in all other parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.similarity import FLOAT32_BAND, Rows, exact_similarity, unit_rows

_STRIP = 256


def join_parts(
    vectors: Rows, min_similarity: Sims, parts: Ids, judged: Ids, limit: int, are_copies: Callable[[int, int, float], bool]
) -> Ids:
    """Judge pairs between different parts, the most similar first, until no pair remains that could join two.

    `min_similarity`: shape (n,); a pair needs the larger of its two.
    `parts`: shape (n,); the part of each row so far.
    `judged`: shape (n_judged, 2); pairs that are not judged again.
    `limit`: nearest neighbours in other parts that are judged for each image.
    `are_copies`: judges two positions (the smaller first) of a given similarity.
    Returns shape (n,); the part of each row now.

    After Kruskal (1956): with a limit that no image reaches, and an `are_copies` that never errs, the parts joined are
    the components of the complete graph of true copies within the threshold.
    """
    n = len(parts)
    pairs = _nearest_outside(vectors, min_similarity, parts, {(int(min(a, b)), int(max(a, b))) for a, b in judged.tolist()}, limit)
    if not len(pairs):
        return parts
    similarity = exact_similarity(vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    near = similarity >= np.maximum(min_similarity[pairs[:, 0]], min_similarity[pairs[:, 1]])
    pairs, similarity = pairs[near], similarity[near]
    sets, first = DisjointSet(range(n)), dict[int, int]()
    for position, part in enumerate(parts.tolist()):
        sets.merge(first.setdefault(part, position), position)
    for place in np.lexsort((pairs[:, 1], pairs[:, 0], -similarity)).tolist():
        a, b = int(pairs[place, 0]), int(pairs[place, 1])
        if not sets.connected(a, b) and are_copies(a, b, float(similarity[place])):
            sets.merge(a, b)
    return np.array([sets[position] for position in range(n)], dtype=np.int64)


def _nearest_outside(vectors: Rows, min_similarity: Sims, parts: Ids, judged: set[tuple[int, int]], limit: int) -> Ids:
    """Pairs (a < b) of each row with its nearest rows of other parts that were not judged."""
    n = len(parts)
    columns = unit_rows(vectors[np.arange(n)])
    judged_with: dict[int, list[int]] = {}
    for a, b in judged:
        judged_with.setdefault(a, []).append(b)
        judged_with.setdefault(b, []).append(a)
    pairs: set[tuple[int, int]] = set()
    for top in range(0, n, _STRIP):
        rows = np.arange(top, min(top + _STRIP, n))
        product = columns[rows] @ columns.T
        product[parts[rows][:, None] == parts[None, :]] = -2.0
        for place, row in enumerate(rows.tolist()):
            product[place, judged_with.get(row, [])] = -2.0
        product[product < np.maximum.outer(min_similarity[rows], min_similarity) - FLOAT32_BAND] = -2.0
        k = min(limit, n)
        best = np.argpartition(-product, k - 1, axis=1)[:, :k]
        i, j = np.repeat(rows, k), best.ravel()
        near = product[i - top, j] > -2.0
        pairs.update(zip(np.minimum(i, j)[near].tolist(), np.maximum(i, j)[near].tolist(), strict=True))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
