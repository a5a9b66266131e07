"""Duplication counts and their histogram."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError


def duplication_counts(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """How many samples share each sample's component, itself included.

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


def weights_of(mask: npt.NDArray[np.bool_], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Summed weight of the true places of each row, exact.

    Parameters
    ----------
    mask : bool array, shape (n, m)
    weights : int64 array, shape (m,)

    Returns
    -------
    int64 array, shape (n,)

    Examples
    --------
    >>> weights_of(np.array([[True, False], [True, True]]), np.array([3, 4]))
    array([3, 7])
    """
    heavy = np.flatnonzero(weights != 1)  # few images have byte-identical copies, and counting beats multiplying
    sums: npt.NDArray[np.int64] = np.count_nonzero(mask, axis=1) + mask[:, heavy] @ (weights[heavy] - 1)
    return sums


def histogram(labels: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number of components of each size.

    Parameters
    ----------
    labels : int array, shape (n,)

    Returns
    -------
    duplication_count, n_components : int64 array, shape (n_sizes,)
        Sizes ascending.

    Examples
    --------
    >>> histogram([0, 0, 2, 0, 4])
    (array([1, 3]), array([2, 1]))
    """
    _, sizes = np.unique(np.asarray(labels), return_counts=True)
    size, n_components = np.unique(sizes, return_counts=True)
    return size.astype(np.int64), n_components.astype(np.int64)
