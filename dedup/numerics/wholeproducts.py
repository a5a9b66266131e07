"""Products of pixels without rounding, at the speed of float32 matrix products."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MIDDLE = 128  # taken off each value, so that products of two are at most 2^14 ...
EXACT = 1_024  # ... and a float32 sum of so many has no rounding: every partial sum is a whole number up to 2^24


def centred(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixel values less 128, which no difference of two notices."""
    values = pixels.astype(np.float32)
    values -= _MIDDLE
    return values


def exact_products(rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """All products of centred rows, as whole numbers.

    Parameters
    ----------
    rows : float32 array, shape (m, dim)
    columns : float32 array, shape (n, dim)
        As `centred` gives them; dim below 2^39.

    Returns
    -------
    float64 array, shape (m, n)
        Exact, whatever the order in which a library sums, and however many threads it uses.

    Examples
    --------
    >>> pixels = np.array([[0, 255], [128, 129]], np.uint8)
    >>> exact_products(centred(pixels), centred(pixels)).tolist()
    [[32513.0, 127.0], [127.0, 1.0]]
    """
    sums = np.zeros((len(rows), len(columns)))
    product = np.empty((len(rows), len(columns)), dtype=np.float32)
    for start in range(0, rows.shape[1], EXACT):
        np.matmul(rows[:, start : start + EXACT], columns[:, start : start + EXACT].T, out=product)
        sums += product
    return sums


def exact_squares(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Squared norms of centred rows, float64 (n,), exact."""
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return squares
