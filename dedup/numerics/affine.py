"""Affine maps between two pictures, float64 (2, 3): from a point (x, y) of the first to its place in the second."""

from __future__ import annotations

import numpy as np

from dedup.numerics.pictures import Level, Matrix


def magnification(matrix: Matrix) -> float:
    """Area in the second picture of a pixel of the first."""
    return float(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))


def distortion(matrix: Matrix, a: Level, b: Level) -> tuple[float, float]:
    """What a map does to shapes beyond shift, scale and rotation, which is all that crops and screenshots do.

    Parameters
    ----------
    matrix : float64 array, shape (2, 3)
    a, b : Level

    Returns
    -------
    shear : float
        Degrees that right angles of the axes, in either picture, are bent by.
    stretch : float
        Ratio of the scales along the axes, 1 or more; relative to whole on whole, if that is closer: a copy may have
        been resized to another aspect ratio.
    """
    linear = matrix[:, :2]
    shears, ratios = [], []
    for axes in (linear.T, linear):
        first, second = np.linalg.norm(axes, axis=1)
        shears.append(float(np.degrees(np.arcsin(min(1.0, abs(float(axes[0] @ axes[1])) / (first * second))))))
        ratios.append(np.log(first / second))
    likely = [0.0] + [float(np.log((x[2] - x[0]) * (y[3] - y[1]) / ((x[3] - x[1]) * (y[2] - y[0])))) for x in b.boxes for y in a.boxes]
    stretch = min(abs(float(ratio) - other) for ratio in ratios for other in likely)
    return min(shears), float(np.exp(stretch))


def box_to_box(a: tuple[float, ...], b: tuple[float, ...]) -> Matrix:
    """The map of one box (left, top, right, bottom) onto another."""
    x, y = (b[2] - b[0]) / (a[2] - a[0]), (b[3] - b[1]) / (a[3] - a[1])
    return np.array([[x, 0.0, b[0] - x * a[0]], [0.0, y, b[1] - y * a[1]]])


def compose(after: Matrix, before: Matrix) -> Matrix:
    """One map after another."""
    product: Matrix = (np.vstack([after, [0.0, 0.0, 1.0]]) @ np.vstack([before, [0.0, 0.0, 1.0]]))[:2]
    return product
