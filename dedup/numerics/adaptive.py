"""The adaptive distance of generated images to training images, as the extraction attack measures it on CIFAR-10.

After Carlini et al. (2023), "Extracting Training Data from Diffusion Models", section 5.1: plain l2 finds images of one colour
near to everything, so that it is divided by how near images lie there anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.wholeproducts import centred, exact_products, exact_squares

_BLOCK = 1_024  # generated images at a time
_COLUMNS = 2_048  # training images at a time

Pixels = npt.NDArray[np.uint8]


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

    nearest: npt.NDArray[np.int64]
    l2: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]


def adaptive_distances(
    generated: Pixels,
    training: Pixels,
    *,
    n_neighbors: int = 50,
    alpha: float = 0.5,
    around: Literal["generated", "training"] = "generated",
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

    Returns
    -------
    AdaptiveDistances

    Raises
    ------
    ShapeError
        If images are no uint8 of one size, or there are no training images.

    Notes
    -----
    With ℓ2(a, b) = sqrt(mean((a - b)²)), a generated image x̂ and a training image x, the paper's distance is

        ℓ(x̂, x; S) = ℓ2(x̂, x) / (α · mean of ℓ2(x̂, y) over y in S),   α = 0.5,

    S being the 50 training images nearest to x̂. With ``around="generated"`` it is that to the letter: x is one of S, so that
    ℓ is at most 1/α = 2, and near 2 where x̂ is as far from the first of its neighbours as from the 50th. A small ℓ says
    that x is much nearer than the others.

    The paper's words around the formula can also be read as a comparison with the neighbours of the *training image*, which is
    another number: ℓ2(x̂, x) / (α · mean of ℓ2(x, y) over the 50 training images y nearest to x). ``around="training"`` gives it,
    at the price of a second search. There ℓ has no bound; it is infinite where 50 others equal x and x̂ does not.

    Squared distances come as |x̂|² + |x|² - 2x̂x from float32 matrix products whose partial sums are whole numbers that float32 holds
    exactly, so that nothing is rounded before the root, and no order of summation or number of threads matters.

    Time m·n·height·width·channels; memory some 100 MB beside the images.

    Examples
    --------
    >>> training = np.arange(0, 240, 4, dtype=np.uint8).reshape(60, 1, 1, 1)
    >>> found = adaptive_distances(np.array([81], np.uint8).reshape(1, 1, 1, 1), training, n_neighbors=5)
    >>> found.nearest, found.distance.round(3)
    (array([20]), array([0.4]))
    """
    _check(generated, training, 1 + (around == "training"), n_neighbors, alpha)
    k = min(n_neighbors, len(training))
    nearest, least = np.empty(len(generated), dtype=np.int64), np.empty((len(generated), k))
    for part, first, errors in _search(generated, training, k):
        nearest[part], least[part] = first, errors
    l2, spread = np.sqrt(least[:, 0]), np.sqrt(least).mean(axis=1)
    if around == "training":
        distinct, place = np.unique(nearest, return_inverse=True)
        # the image itself is one of those at 0
        k = min(n_neighbors, len(training) - 1)
        spread = np.empty(len(distinct))
        for start in range(0, len(distinct), _BLOCK):
            for part, _, errors in _search(training[distinct[start : start + _BLOCK]], training, k + 1):
                spread[start + part.start : start + part.stop] = np.sqrt(errors[:, 1:]).mean(axis=1)
        spread = spread[place]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(l2 == 0.0, 0.0, l2 / (alpha * spread))
    return AdaptiveDistances(nearest, l2, distance)


def _search(images: Pixels, training: Pixels, k: int) -> Iterator[tuple[slice, npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """For blocks of images: their slice, the nearest training image, and the k least mean squared differences, ascending."""
    images, training = (array.reshape(len(array), array[0].size if len(array) else 0) for array in (images, training))
    squares = np.concatenate([exact_squares(centred(training[start : start + _COLUMNS])) for start in range(0, len(training), _COLUMNS)])
    for start in range(0, len(images), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(images)))
        rows = centred(images[part])
        own = exact_squares(rows)
        nearest = np.zeros(len(rows), dtype=np.int64)
        least = np.full((len(rows), k), np.inf)
        for first in range(0, len(training), _COLUMNS):
            errors = exact_products(rows, centred(training[first : first + _COLUMNS]))
            errors *= -2.0
            errors += own[:, None]
            errors += squares[None, first : first + _COLUMNS]
            place = errors.argmin(axis=1)
            is_nearer = errors[np.arange(len(rows)), place] < least.min(axis=1)
            nearest[is_nearer] = first + place[is_nearer]
            least = np.partition(np.concatenate([least, errors], axis=1), k - 1, axis=1)[:, :k]
        yield part, nearest, np.sort(least, axis=1) / (rows.shape[1] * 255.0**2)


def _check(generated: Pixels, training: Pixels, n_least: int, n_neighbors: int, alpha: float) -> None:
    for name, images in (("generated", generated), ("training", training)):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ShapeError(f"expected {name} uint8 (n, height, width, channels), found {images.dtype} {images.shape}")
    if generated.shape[1:] != training.shape[1:] or len(training) < n_least:
        raise ShapeError(f"expected training images of {generated.shape[1:]}, at least {n_least}, found {training.shape}")
    if n_neighbors < 1 or alpha <= 0.0:
        raise ShapeError(f"n_neighbors={n_neighbors}, alpha={alpha}: expected at least 1, and a number above 0")
