"""Pixel distances of the extraction attack: l2, and its maximum over tiles, among generations and against training images.

After Carlini et al. (2023), "Extracting Training Data from Diffusion Models": the distance of two images is the root of the
mean squared difference of their pixels, in [0, 1]. Two images that share a plain background are near by it whatever they
show, so that images generated from one prompt are compared by the largest such distance over 16 tiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.torch_ops import Device, gram, unless_full
from dedup.numerics.wholeproducts import centred, exact_products

TILES = 4  # to a side: 16 tiles of 128 pixels for images of 512

Pixels = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.float32]


def l2_distances(images: Pixels, other: Pixels) -> npt.NDArray[np.float64]:
    """Distance of each image to one other.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width, channels)
    other : uint8 array, shape (height, width, channels)

    Returns
    -------
    float64 array, shape (n,)
        Exact, from whole numbers; 0 to 1.
    """
    distances: npt.NDArray[np.float64] = np.sqrt(_tile_errors(images, other, 1)[:, 0])
    return distances


def tiled_distances(images: Pixels, other: Pixels, tiles: int = TILES) -> npt.NDArray[np.float64]:
    """Largest distance over tiles of each image to one other; as `l2_distances`, never less."""
    distances: npt.NDArray[np.float64] = np.sqrt(_tile_errors(images, other, tiles).max(axis=1))
    return distances


def _tile_errors(images: Pixels, other: Pixels, tiles: int) -> npt.NDArray[np.float64]:
    """Mean squared difference in each tile, float64 (n, tiles²)."""
    _check(images, tiles)
    if images.shape[1:] != other.shape:
        raise ShapeError(f"expected images of one size, found {images.shape[1:]} and {other.shape}")
    errors = np.empty((len(images), tiles * tiles), dtype=np.float64)
    rows, columns = _cuts(images.shape[1], tiles), _cuts(images.shape[2], tiles)
    for number, image in enumerate(images):
        difference = image.astype(np.int32) - other
        # whole numbers: sums of squares stay below 2^63
        square = (difference * difference).sum(axis=2, dtype=np.int64)
        sums = np.add.reduceat(np.add.reduceat(square, rows[:-1], axis=0), columns[:-1], axis=1)
        sizes = np.outer(np.diff(rows), np.diff(columns)) * images.shape[3]
        errors[number] = (sums / (sizes * 255.0**2)).ravel()
    return errors


def pairwise_tiled_distances(images: Pixels, tiles: int = TILES, *, device: Device | None = None) -> Distances:
    """Largest distance over tiles of all pairs, as matrix products per tile.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width, channels)
    tiles : int
        To a side; an edge tile takes what does not divide.
    device : Device, optional
        Where products are computed, as exactly; the CPU takes those that its memory does not suffice for.

    Returns
    -------
    float32 array, shape (n, n)
        Symmetric, 0 on the diagonal, 0 to 1; exact up to float32, the same as `tiled_distances` rounded to it.

    Raises
    ------
    ShapeError
        If images are no uint8 of one size, or smaller than the tiles.

    Notes
    -----
    The squared distance is |a|² + |b|² - 2ab, of whole numbers that float32 products sum without rounding (`exact_products`). Besides
    the images it holds one tile of all of them in float32, n·height·width·channels / tiles² numbers.
    """
    _check(images, tiles)
    n = len(images)
    largest = np.zeros((n, n))
    rows, columns = _cuts(images.shape[1], tiles), _cuts(images.shape[2], tiles)
    for top, bottom in zip(rows[:-1], rows[1:], strict=True):
        for left, right in zip(columns[:-1], columns[1:], strict=True):
            tile = centred(images[:, top:bottom, left:right].reshape(n, (bottom - top) * (right - left) * images.shape[3]))
            errors = _products(tile, device)
            squares = errors.diagonal().copy()
            errors *= -2.0
            errors += squares[:, None]
            errors += squares
            errors /= tile.shape[1] * 255.0**2
            np.maximum(largest, errors, out=largest)
    return np.sqrt(largest, out=largest).astype(np.float32)


def _products(tile: npt.NDArray[np.float32], device: Device | None) -> npt.NDArray[np.float64]:
    if device is not None:
        found = unless_full(lambda: gram(device.name, tile))
        if found is not None:
            return found
        device.n_left += 1
    return exact_products(tile, tile)


def _cuts(length: int, tiles: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, length, tiles + 1).astype(np.int64)


def _check(images: Pixels, tiles: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ShapeError(f"expected uint8 (n, height, width, channels), found {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < tiles:
        raise ShapeError(f"expected at least {tiles} pixels to a side, one for each tile, found {images.shape[1]} x {images.shape[2]}")
