"""Similarities that decide: float64, from the float16 rows as they are stored.

Matrix products in float32 differ in the last bits between machines, so they only propose pairs; every decision
near a threshold and every similarity that is stored comes from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Sims, Vectors

Turn = tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]

# float32 products of unit rows of up to some thousand dimensions are within this of the float64 value
FLOAT32_BAND = 1e-5
_CHUNK = 16_384  # rows; bounds the float64 copies
_MIDDLE = 128  # subtracted from each value, so that products of two are at most 2^14 ...
EXACT = 1_024  # ... and a float32 sum of so many is not rounded: every partial sum is a whole number up to 2^24


class Rows(Protocol):
    """Vectors that are gathered when they are indexed: an array, or a view of a store."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Unit rows up to float16 rounding, shape (len(rows), dim)."""


def unit_rows(rows: Vectors) -> npt.NDArray[np.float32]:
    """Rows (n, dim) as float32, scaled to norm 1; rows of zeros stay zero."""
    unit = np.array(rows, dtype=np.float32, order="C")
    norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    norms[norms == 0.0] = 1.0
    unit /= norms[:, None]
    return unit


def exact_similarity(a: Vectors, b: Vectors) -> npt.NDArray[np.float32]:
    """Cosine of each row of `a` with the row of `b` beside it: the number written into tables.

    `a`, `b`: shape (n, dim); rows as stored; `b` may also be one row of shape (dim,).
    Returns shape (n,); from float64 products, clipped to [-1, 1]. 0 where a row is zero.
    Raises ShapeError if the shapes do not match.

    >>> exact_similarity(np.array([[3.0, 4.0]], np.float16), np.array([[4.0, 3.0]], np.float16))
    array([0.96], dtype=float32)
    """
    if a.ndim != 2 or (b.ndim == 2 and a.shape != b.shape) or (b.ndim == 1 and a.shape[1:] != b.shape) or b.ndim not in (1, 2):
        raise ShapeError(f"expected (n, dim) and (n, dim) or (dim,), found {a.shape} and {b.shape}")
    similarity = np.empty(len(a), dtype=np.float32)
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        x = a[part].astype(np.float64)
        y = np.broadcast_to(b, a.shape)[part].astype(np.float64)
        norm = np.sqrt(np.einsum("ij,ij->i", x, x) * np.einsum("ij,ij->i", y, y))
        dot = np.einsum("ij,ij->i", x, y)
        similarity[part] = np.clip(np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0.0), -1.0, 1.0)
    return similarity


def half_limit(threshold: float, least_norm: float, largest_norm: float, dim: int) -> float:
    """Least product of two float16 rows, as a GPU computes it, whose cosine reaches a threshold.

    `threshold`: cosine, in (0, 1].
    `least_norm`, `largest_norm`: of the rows, apart from those of zeros.
    Returns a float16 number.

    Rows are multiplied as they are stored: nothing is rounded beforehand, and with cosine c their product is
    p = c |a| |b|. The product of two float16 numbers is exact in float32. Each of the dim additions in float32 loses at
    most 2^-22 of |a| |b|, which no partial sum exceeds (Cauchy-Schwarz on the sizes of the summands). Rounding to nearest
    loses 2^-24; the rest is for tensor cores, which truncate instead and align several summands before adding them
    (Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021). The final rounding of the sum to float16, up or down,
    is covered by rounding the limit down. For unit rows of 512 dimensions the limit is below the threshold by 0.0001, for
    the additions, and by the distance to the next float16 number, at most 0.0005.

    >>> round(0.9 - half_limit(0.9, 1.0, 1.0, 512), 4)
    0.0006
    """
    # similarities are stored as float32, which may round them up to the threshold
    least = (threshold - 2.0**-24) * least_norm**2 - 1.01 * dim * 2.0**-22 * largest_norm**2
    rounded = np.float16(least)
    return float(rounded if float(rounded) <= least else np.nextafter(rounded, np.float16(-np.inf)))


def apply_turn(rows: Vectors, turn: Turn) -> Vectors:
    """Rows of the turned images: a signed permutation of the columns."""
    source, sign = turn
    turned: Vectors = rows[:, source] * sign.astype(rows.dtype)
    return turned


def best_turn_similarity(a: Vectors, b: Vectors, turns: Sequence[Turn]) -> tuple[Sims, npt.NDArray[np.int8]]:
    """Exact similarity, the best over the ways `a` may be turned.

    `turns`: ways to turn `a` besides leaving it as it is; empty for encoders that have none.
    Returns `similarity`: shape (n,).
    Returns `turn`: shape (n,); 0 = as it is, k = `turns[k - 1]`; the smallest where several are equal.
    """
    best = exact_similarity(a, b)
    which = np.zeros(len(a), dtype=np.int8)
    for number, turn in enumerate(turns, start=1):
        similarity = exact_similarity(apply_turn(a, turn), b)
        better = similarity > best
        best[better] = similarity[better]
        which[better] = number
    return best, which


def centred(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixel values less 128, which leaves their differences as they are."""
    values = pixels.astype(np.float32)
    values -= _MIDDLE
    return values


def exact_products(rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """All products of centred rows, as whole numbers.

    `rows`, `columns`: shape (m, dim) and (n, dim); as `centred` gives them; dim below 2^39.
    Returns shape (m, n); exact, whatever the order in which a library sums, and however many threads it uses.

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
    squares = np.zeros(len(rows))
    for start in range(0, rows.shape[1], EXACT):
        part = rows[:, start : start + EXACT]
        squares += np.einsum("ij,ij->i", part, part)
    return squares
