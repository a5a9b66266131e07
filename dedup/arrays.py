"""The array interface: embeddings in, edges out, nothing on disk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Ids, ListIds, Rows16, Sims
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.lists import BLOCK, Training, choose_nlist, choose_nprobe, draw_sample, train_lists
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.similarity import unit_rows

_TRAIN_PER_LIST = 32
_ITERATIONS = 6


class Edges(NamedTuple):
    """Near-duplicate pairs."""

    # src, dst: int64, shape (n_edges,); row numbers, src < dst, sorted
    src: Ids
    dst: Ids
    similarity: Sims  # float32, shape (n_edges,); cosine, exact
    # n_neighbors: int64, shape (n,); other rows within the threshold of each row, whether or not their edge is among those returned
    n_neighbors: Ids


def near_duplicates(
    embeddings: npt.ArrayLike,
    min_similarity: float,
    *,
    nlist: int = 0,
    nprobe: int = 0,
    exhaustive_below: int = 20_000,
    best_edges: int = 8,
    seed: int = 1234,
) -> Edges:
    """Find near-duplicate rows of an array.

    Parameters
    ----------
    embeddings : float array, shape (n, dim)
        Rows of any norm, compared by cosine after rounding to float16.
    min_similarity : float
        In (0, 1].
    nlist, nprobe : int
        Inverted lists in total, and per row; 0 = chosen from n and the threshold.
    exhaustive_below : int
        With fewer rows every pair is compared.
    best_edges : int
        Best edges to keep per row besides the maximum-similarity spanning forest, so that n copies of one image
        have O(n) edges; `n_neighbors` counts all.
    seed : int

    Returns
    -------
    Edges

    Raises
    ------
    ShapeError
        If the array is not two-dimensional, not finite, or the threshold is out of range.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.99, 0.1]])
    >>> edges = near_duplicates(rows, 0.9)
    >>> edges.src, edges.dst, edges.n_neighbors
    (array([0]), array([2]), array([1, 0, 1]))
    """
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ShapeError(f"expected numbers of shape (n, dim), found {rows.dtype} {rows.shape}")
    if not np.isfinite(rows).all():
        raise ShapeError("expected finite numbers, found NaN or infinity; leave those rows out")
    if not 0.0 < min_similarity <= 1.0:
        raise ShapeError(f"min_similarity={min_similarity}: expected a cosine in (0, 1]")
    n = len(rows)
    vectors = unit_rows(rows).astype(np.float16)
    lists, projected = _lists(vectors, min_similarity, nlist, nprobe, n < max(exhaustive_below, 2), seed)
    order = np.argsort(lists.ravel(), kind="stable")
    rows_by_list = np.repeat(np.arange(n), lists.shape[1])[order]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(lists.ravel(), minlength=1))])
    n_neighbors = np.zeros(n, dtype=np.int64)
    thresholds, weights = np.full(n, min_similarity, dtype=np.float32), np.ones(n, dtype=np.int64)
    src, dst, similarity = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for number in range(len(offsets) - 1):
        members = rows_by_list[offsets[number] : offsets[number + 1]]
        joined = self_join(
            vectors[members],
            thresholds[members],
            weights[members],
            Ownership(lists[members], number),
            JoinSettings(best=best_edges),
            projected=None if projected is None else projected[members],
        )
        n_neighbors[members] += joined.n_neighbors
        src.append(members[joined.src])
        dst.append(members[joined.dst])
        similarity.append(joined.similarity)
    all_src, all_dst, all_similarity = np.concatenate(src), np.concatenate(dst), np.concatenate(similarity)
    order = np.lexsort((all_dst, all_src))
    return Edges(all_src[order], all_dst[order], all_similarity[order], n_neighbors)


def _lists(
    vectors: Rows16, min_similarity: float, nlist: int, nprobe: int, is_exhaustive: bool, seed: int
) -> tuple[ListIds, Rows16 | None]:
    """Lists of each row, and the projections that propose pairs, if any."""
    n = len(vectors)
    if is_exhaustive:
        return np.zeros((n, 1), dtype=np.int32), None
    nprobe = nprobe or choose_nprobe(min_similarity, n)
    nlist = nlist or choose_nlist(n, nprobe)
    sample = unit_rows(vectors[draw_sample(n, _TRAIN_PER_LIST * nlist, seed)])
    trained = train_lists(sample, Training(nlist, nprobe, _ITERATIONS, seed), min_similarity)
    placed = [trained.place(unit_rows(vectors[start : start + BLOCK]), nprobe) for start in range(0, n, BLOCK)]
    projected = [part for _, part in placed if part is not None]
    return np.concatenate([part for part, _ in placed]), np.concatenate(projected) if projected else None
