"""What is removed at which threshold, from one set of edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.errors import EdgeError
from dedup.numerics.components import maximum_spanning_forest


def removed_by_threshold(
    src: npt.ArrayLike, dst: npt.ArrayLike, similarity: npt.ArrayLike, n: int, thresholds: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """How many of n images are removed when one of each connected component stays, at each of several thresholds.

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
        If shapes differ, an id lies outside [0, n), or a similarity is no number.

    Notes
    -----
    One maximum-similarity spanning forest answers for all thresholds: above each, it connects what all edges connect (Kruskal 1956),
    so that the images removed are its edges above the threshold. The same holds for edges that are such a forest already.

    Examples
    --------
    >>> removed_by_threshold([0, 1, 0], [1, 2, 2], [0.9, 0.7, 0.8], 4, [0.7, 0.85, 0.95]).tolist()
    [2, 1, 0]
    """
    source, target = np.asarray(src, dtype=np.int64), np.asarray(dst, dtype=np.int64)
    value, wanted = np.asarray(similarity, dtype=np.float32), np.asarray(thresholds, dtype=np.float32)
    if not source.shape == target.shape == value.shape or source.ndim != 1 or wanted.ndim != 1:
        shapes = f"{source.shape}, {target.shape}, {value.shape} and {wanted.shape}"
        raise EdgeError(f"expected src, dst and similarity of one shape (n_edges,) and thresholds (n_thresholds,), found {shapes}")
    if len(source) and (min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= n):
        low, high = min(source.min(), target.min()), max(source.max(), target.max())
        raise EdgeError(f"expected node ids in [0, {n}), found {low} to {high}; number the nodes 0 .. n-1 first")
    if np.isnan(value).any() or np.isnan(wanted).any():
        raise EdgeError("expected numbers as similarities and thresholds, found NaN")
    low_end, high_end = np.minimum(source, target), np.maximum(source, target)
    # the forest asks for each edge once: the best of each pair
    order = np.lexsort((-value, high_end, low_end))
    low_end, high_end, value = low_end[order], high_end[order], value[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (np.diff(low_end) != 0) | (np.diff(high_end) != 0)
    is_first &= low_end != high_end
    low_end, high_end, value = low_end[is_first], high_end[is_first], value[is_first]
    inside = np.sort(value[maximum_spanning_forest(low_end, high_end, value)])
    removed: npt.NDArray[np.int64] = len(inside) - np.searchsorted(inside, wanted, side="left").astype(np.int64)
    return removed
