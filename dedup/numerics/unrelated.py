"""Sampled images against others: how many unrelated ones are how much alike, and which are the most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.distances import FLOAT32_BAND, exact_similarity, unit_rows

_STRIP = 256  # rows whose products are held at a time


@dataclass(frozen=True)
class Alike:
    """What a comparison of rows with columns found.

    Parameters
    ----------
    counts : int64 array, shape (n_rows, n_thresholds)
        Columns of another label at or above each threshold.
    row, column : int64 array, shape (n,)
        Those pairs at or above the floor, by row, then column.
    similarity : float32 array, shape (n,)
        Exact.
    """

    counts: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


def count_alike(
    rows: npt.NDArray[np.floating],
    row_labels: npt.NDArray[np.int64],
    columns: npt.NDArray[np.floating],
    column_labels: npt.NDArray[np.int64],
    thresholds: npt.NDArray[np.float64],
    floor: float,
) -> Alike:
    """Compare every row with every column of another label.

    Parameters
    ----------
    rows, columns : float array, shape (n_rows, dim) and (n_columns, dim)
    row_labels, column_labels : int64 array, shape (n_rows,) and (n_columns,)
        Images of one label are copies, or the same; they are left out.
    thresholds : float64 array, shape (n_thresholds,)
        Ascending.
    floor : float
        Similarity from which pairs are given one by one.

    Returns
    -------
    Alike
        Counts within 1e-5 of similarity; from the floor up exact.

    Raises
    ------
    ShapeError
        If shapes do not match, or there is no threshold.
    """
    if rows.shape[1:] != columns.shape[1:] or len(rows) != len(row_labels) or len(columns) != len(column_labels):
        raise ShapeError(f"expected rows and columns of one width with labels, found {rows.shape} and {columns.shape}")
    if not len(thresholds):
        raise ShapeError("expected at least one threshold, found none")
    left, right = unit_rows(rows), unit_rows(columns)
    asked = thresholds.astype(np.float32)
    n_bins, least = len(asked), min(float(asked[0]), floor)
    binned = np.zeros((len(rows), n_bins), dtype=np.int64)
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    for top in range(0, len(rows), _STRIP):
        product = left[top : top + _STRIP] @ right.T
        i, j = np.nonzero(product >= least - FLOAT32_BAND)
        is_other = row_labels[i + top] != column_labels[j]
        i, j = i[is_other], j[is_other]
        value = product[i, j]
        high = np.flatnonzero(value >= floor - FLOAT32_BAND)
        value[high] = exact_similarity(rows[i[high] + top], columns[j[high]])
        place = np.searchsorted(asked, value, side="right") - 1
        known = place >= 0
        part = np.bincount(i[known] * n_bins + place[known], minlength=len(product) * n_bins).reshape(len(product), n_bins)
        binned[top : top + len(product)] += part
        high = high[value[high] >= np.float32(floor)]
        found.append((i[high] + top, j[high], value[high]))
    row, column, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (np.zeros(0),) * 3
    counts = np.ascontiguousarray(binned[:, ::-1].cumsum(axis=1)[:, ::-1])
    return Alike(counts, row.astype(np.int64), column.astype(np.int64), similarity.astype(np.float32))
