"""Distances between images by their pixels, as Carlini et al. (2023) measure memorisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Ids, Pixels
from dedup.numerics.search.gpu import Device, gram, unless_full
from dedup.numerics.similarity import centred, exact_products, exact_squares

Distances = npt.NDArray[np.float32]
TILES = 4  # to a side: 16 tiles of 128 pixels for images of 512


class Blocks(NamedTuple):
    """Images whose products are held at a time."""

    images: int = 1_024
    training: int = 2_048


BLOCKS = Blocks()
_AT_A_TIME = 32  # images compared with one other


class AdaptiveDistances(NamedTuple):
    """Generated images and the training images nearest to them.

    Parameters
    ----------
    nearest : int64 array, shape (n,)
        Row of the nearest training image by l2; of equal ones the first.
    l2 : float64 array, shape (n,)
        Distance to it, pixels in [0, 1].
    distance : float64 array, shape (n,)
        The adaptive distance. 0 for a copy.
    """

    nearest: Ids
    l2: Floats
    distance: Floats


def l2_distances(images: Pixels, other: Pixels) -> Floats:
    """Distance of each image to one other.

    `images`: shape (n, height, width, channels).
    `other`: shape (height, width, channels).
    Returns shape (n,); exact, from whole numbers; 0 to 1.
    """
    distances: Floats = np.sqrt(_tile_errors(images, other, 1)[:, 0])
    return distances


def tiled_distances(images: Pixels, other: Pixels, tiles: int = TILES) -> Floats:
    """Largest distance over tiles of each image to one other; as `l2_distances`, never less."""
    distances: Floats = np.sqrt(_tile_errors(images, other, tiles).max(axis=1))
    return distances


def pairwise_tiled_distances(images: Pixels, tiles: int = TILES, *, device: Device | None = None) -> Distances:
    """Largest distance over tiles of all pairs, by matrix products per tile.

    `images`: shape (n, height, width, channels).
    `tiles`: to a side; an edge tile takes what does not divide.
    `device`: where products are computed, just as exactly; the CPU takes those that do not fit into its memory.
    Returns shape (n, n); symmetric, 0 on the diagonal, 0 to 1; exact up to float32, the same as `tiled_distances` rounded to it.
    Raises ShapeError if images are not uint8 of one size, or have fewer pixels to a side than tiles.

    The squared distance is |a|² + |b|² - 2ab, of whole numbers that float32 products sum without rounding (`exact_products`). Beside
    the images, one tile of all of them is in memory as float32, n·height·width·channels / tiles² numbers.
    """
    _check_tiles(images, tiles)
    n = len(images)
    largest = np.zeros((n, n))
    rows, columns = cuts(images.shape[1], tiles), cuts(images.shape[2], tiles)
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


def adaptive_distances(
    generated: Pixels,
    training: Pixels,
    *,
    n_neighbors: int = 50,
    alpha: float = 0.5,
    around: Literal["generated", "training"] = "generated",
    blocks: Blocks = BLOCKS,
) -> AdaptiveDistances:
    """Adaptive distance of each generated image to the training image nearest to it.

    Parameters
    ----------
    generated : uint8 array, shape (m, height, width, channels)
    training : uint8 array, shape (n, height, width, channels)
    n_neighbors : int
        Training images whose mean distance is the measure: 50 in the paper; all where there are fewer.
    alpha : float
        0.5 in the paper.
    around : {"generated", "training"}
        Whose nearest training images those are: the generated image's, or the nearest training image's, itself left out.
    blocks : Blocks
        Images compared at a time, which changes nothing but memory and time.

    Returns
    -------
    AdaptiveDistances

    Raises
    ------
    ShapeError
        If images are not uint8 of one size, or there are too few training images.

    Notes
    -----
    With ℓ2(a, b) = sqrt(mean((a - b)²)), a generated image x̂ and a training image x, the paper's distance is

        ℓ(x̂, x; S) = ℓ2(x̂, x) / (α · mean of ℓ2(x̂, y) over y in S),   α = 0.5,

    S being the 50 training images nearest to x̂. ``around="generated"`` is exactly that: x is one of S, so that ℓ is at most
    1/α = 2, and near 2 where x̂ is as far from the first of its neighbours as from the 50th. A small ℓ means that x is much
    nearer than the others.

    The paper's text around the formula can also be read as a comparison with the neighbours of the *training image*, which is
    a different number: ℓ2(x̂, x) / (α · mean of ℓ2(x, y) over the 50 training images y nearest to x). ``around="training"`` gives
    it, at the cost of a second search. There ℓ has no bound; it is infinite where 50 others equal x and x̂ does not.

    Squared distances are computed as |x̂|² + |x|² - 2x̂x by float32 matrix products whose partial sums are whole numbers that float32
    holds exactly, so nothing is rounded before the root, whatever the order of summation and the number of threads.

    Time m·n·height·width·channels; memory some 100 MB beside the images.

    Examples
    --------
    >>> training = np.arange(0, 240, 4, dtype=np.uint8).reshape(60, 1, 1, 1)
    >>> distances = adaptive_distances(np.array([81], np.uint8).reshape(1, 1, 1, 1), training, n_neighbors=5)
    >>> distances.nearest, distances.distance.round(3)
    (array([20]), array([0.4]))
    """
    _check_sets(generated, training, 1 + (around == "training"), n_neighbors, alpha)
    k = min(n_neighbors, len(training))
    nearest, least = np.empty(len(generated), dtype=np.int64), np.empty((len(generated), k))
    for part, rows, errors in _search(generated, training, k, blocks):
        nearest[part], least[part] = rows, errors
    l2, spread = np.sqrt(least[:, 0]), np.sqrt(least).mean(axis=1)
    if around == "training":
        distinct, place = np.unique(nearest, return_inverse=True)
        # the image itself is one of its neighbours, at distance 0
        k = min(n_neighbors, len(training) - 1)
        spread = np.empty(len(distinct))
        for start in range(0, len(distinct), blocks.images):
            for part, _, errors in _search(training[distinct[start : start + blocks.images]], training, k + 1, blocks):
                spread[start + part.start : start + part.stop] = np.sqrt(errors[:, 1:]).mean(axis=1)
        spread = spread[place]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(l2 == 0.0, 0.0, l2 / (alpha * spread))
    return AdaptiveDistances(nearest, l2, distance)


def _tile_errors(images: Pixels, other: Pixels, tiles: int) -> Floats:
    """Mean squared difference in each tile, float64 (n, tiles²): whole numbers, so nothing is rounded before the division."""
    _check_tiles(images, tiles)
    if images.shape[1:] != other.shape:
        raise ShapeError(f"expected images of one size, found {images.shape[1:]} and {other.shape}")
    errors = np.empty((len(images), tiles * tiles), dtype=np.float64)
    rows, columns = cuts(images.shape[1], tiles), cuts(images.shape[2], tiles)
    for number in range(tiles * tiles):
        row, column = divmod(number, tiles)
        part = slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1])
        wanted = centred(other[None, *part].reshape(1, -1))
        square = exact_squares(wanted)
        for start in range(0, len(images), _AT_A_TIME):  # as float32 a tile of all would be many times the images
            block = slice(start, start + _AT_A_TIME)
            values = centred(images[block, *part].reshape(len(images[block]), -1))
            squares = exact_squares(values) + square - 2.0 * exact_products(values, wanted)[:, 0]
            errors[block, number] = squares / (values.shape[1] * 255.0**2)
    return errors


def _products(tile: npt.NDArray[np.float32], device: Device | None) -> Floats:
    if device is not None:
        products = unless_full(lambda: gram(device.name, tile))
        if products is not None:
            return products
        device.n_left += 1
    return exact_products(tile, tile)


def cuts(length: int, tiles: int) -> Ids:
    """Where a side is cut into so many tiles: shape (tiles + 1,)."""
    return np.linspace(0, length, tiles + 1).astype(np.int64)


def _check_tiles(images: Pixels, tiles: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ShapeError(f"expected uint8 (n, height, width, channels), found {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < tiles:
        raise ShapeError(f"expected at least {tiles} pixels to a side, one for each tile, found {images.shape[1]} x {images.shape[2]}")


def _search(images: Pixels, training: Pixels, k: int, blocks: Blocks) -> Iterator[tuple[slice, Ids, Floats]]:
    """For each block of images: its slice, the nearest training images, and the k least mean squared differences, ascending."""
    images, training = (array.reshape(len(array), array[0].size if len(array) else 0) for array in (images, training))
    starts = range(0, len(training), blocks.training)
    squares = np.concatenate([exact_squares(centred(training[start : start + blocks.training])) for start in starts])
    for start in range(0, len(images), blocks.images):
        part = slice(start, min(start + blocks.images, len(images)))
        rows = centred(images[part])
        row_squares = exact_squares(rows)
        nearest = np.zeros(len(rows), dtype=np.int64)
        least = np.full((len(rows), k), np.inf)
        for first in starts:
            errors = exact_products(rows, centred(training[first : first + blocks.training]))
            errors *= -2.0
            errors += row_squares[:, None]
            errors += squares[None, first : first + blocks.training]
            column = errors.argmin(axis=1)
            is_nearer = errors[np.arange(len(rows)), column] < least.min(axis=1)
            nearest[is_nearer] = first + column[is_nearer]
            least = np.partition(np.concatenate([least, errors], axis=1), k - 1, axis=1)[:, :k]
        yield part, nearest, np.sort(least, axis=1) / (rows.shape[1] * 255.0**2)


def _check_sets(generated: Pixels, training: Pixels, n_least: int, n_neighbors: int, alpha: float) -> None:
    for name, images in (("generated", generated), ("training", training)):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ShapeError(f"expected {name} uint8 (n, height, width, channels), found {images.dtype} {images.shape}")
    if generated.shape[1:] != training.shape[1:] or len(training) < n_least:
        raise ShapeError(f"expected training images of {generated.shape[1:]}, at least {n_least}, found {training.shape}")
    if n_neighbors < 1 or alpha <= 0.0:
        raise ShapeError(f"n_neighbors={n_neighbors}, alpha={alpha}: expected at least 1, and a number above 0")
