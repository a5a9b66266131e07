"""The adaptive distance of the extraction attack on CIFAR-10, and how many images a threshold removes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.components import connected_components

_BLOCK = 1_024  # generated images compared at a time
_COLUMNS = 8_192  # training images
_SPARE = 8  # neighbours beyond those asked for that float32 may have put in the wrong order

Pixels = npt.NDArray[np.uint8]


class AdaptiveDistances(NamedTuple):
    """Generated images and the training images nearest to them.

    Parameters
    ----------
    nearest : int64 array, shape (n,)
        Row of the nearest training image; of equal ones the first.
    l2 : float64 array, shape (n,)
        Distance to it, pixels in [0, 1].
    distance : float64 array, shape (n,)
        The adaptive distance. 0 for a copy; infinite never, since a mean of 0 means that l2 is 0 too.
    """

    nearest: npt.NDArray[np.int64]
    l2: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


def adaptive_distances(generated: Pixels, training: Pixels, *, n_neighbors: int = 50, alpha: float = 0.5) -> AdaptiveDistances:
    """Distance of generated images to their nearest training image, relative to that of other near ones.

    Carlini et al. (2023), section 5.1: with S the `n_neighbors` training images nearest to x̂,

        d(x̂, x) = l2(x̂, x) / (α · mean of l2(x̂, y) over y in S),   l2(a, b) = sqrt(mean((a - b)²))

    A plain picture is near to many by l2; a copy is much nearer to one than to the rest.

    Parameters
    ----------
    generated : uint8 array, shape (m, height, width, channels)
    training : uint8 array, shape (n, height, width, channels)
    n_neighbors : int
        50 in the paper; all training images where there are fewer.
    alpha : float
        0.5 in the paper.

    Returns
    -------
    AdaptiveDistances

    Raises
    ------
    ShapeError
        If images are no uint8 of one size, or there are no training images.

    Notes
    -----
    Matrix products in float32 of pixels less their mean choose the nearest and some more; distances of those are exact, from whole
    numbers, so that only an image beyond the last few neighbours could have been taken for another. Holds the training images
    as float32, and `_BLOCK` × n distances.
    """
    for name, images in (("generated", generated), ("training", training)):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ShapeError(f"expected {name} uint8 (n, height, width, channels), found {images.dtype} {images.shape}")
    if generated.shape[1:] != training.shape[1:] or not len(training):
        raise ShapeError(f"expected training images of {generated.shape[1:]}, found {training.shape}")
    n, n_values = len(training), int(np.prod(training.shape[1:]))
    mean = training.reshape(n, -1).mean(axis=0, dtype=np.float64).astype(np.float32)
    squares = np.empty(n, dtype=np.float32)
    for start in range(0, n, _COLUMNS):
        part = _centred(training[start : start + _COLUMNS], mean)
        squares[start : start + _COLUMNS] = np.einsum("ij,ij->i", part, part)
    k, wide = min(n_neighbors, n), min(n_neighbors + _SPARE, n)
    nearest, l2 = np.empty(len(generated), dtype=np.int64), np.empty(len(generated))
    distance = np.empty(len(generated))
    for top in range(0, len(generated), _BLOCK):
        rows = _centred(generated[top : top + _BLOCK], mean)
        errors = np.empty((len(rows), n), dtype=np.float32)  # less the rows' own squares, which change no order
        for start in range(0, n, _COLUMNS):
            columns = _centred(training[start : start + _COLUMNS], mean)
            errors[:, start : start + _COLUMNS] = squares[start : start + _COLUMNS] - 2.0 * (rows @ columns.T)
        found = np.sort(np.argpartition(errors, wide - 1, axis=1)[:, :wide], axis=1)
        for row, others in enumerate(found):
            difference = training[others].reshape(wide, -1).astype(np.int32) - generated[top + row].reshape(1, -1)
            exact = np.sqrt((difference * difference).sum(axis=1, dtype=np.int64) / (n_values * 255.0**2))
            order = np.argsort(exact, kind="stable")[:k]
            nearest[top + row], l2[top + row] = others[order[0]], exact[order[0]]
            spread = alpha * exact[order].mean()
            distance[top + row] = exact[order[0]] / spread if spread else 0.0
    return AdaptiveDistances(nearest, l2, distance)


def _centred(images: Pixels, mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32)
    rows -= mean
    return rows


def removed_by_threshold(
    src: npt.NDArray[np.int64], dst: npt.NDArray[np.int64], similarity: npt.NDArray[np.floating], n: int, thresholds: Sequence[float]
) -> npt.NDArray[np.int64]:
    """How many of n images are removed where one of each connected component stays, at each of several thresholds.

    Parameters
    ----------
    src, dst : int64 array, shape (n_edges,)
        0 to n - 1. A maximum-similarity spanning forest gives what all pairs would.
    similarity : float array, shape (n_edges,)
    n : int
    thresholds : sequence of float
        Below the threshold that the edges were found with, what is not among them is missing.

    Returns
    -------
    int64 array, shape (n_thresholds,)

    Examples
    --------
    >>> removed_by_threshold(np.array([0, 1]), np.array([1, 2]), np.array([0.9, 0.8]), 4, [0.95, 0.85, 0.7]).tolist()
    [0, 1, 2]
    """
    removed = []
    for threshold in thresholds:
        near = similarity >= threshold
        labels = connected_components(src[near], dst[near], n)
        removed.append(n - len(np.unique(labels)))
    return np.array(removed, dtype=np.int64)
