"""Two registered pictures compared tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.image.descriptor import GRID, describe_grids
from dedup.numerics.judge.picture import Array, Level, Matrix, box_mean, warp
from dedup.numerics.judge.register import magnification

_TILE = 13  # pixels to a side
_STEP = 6
_BAND = (1.0, 5.0)  # deviations of the blurs between which detail is compared, in pixels
_LEAST_TILES = 4
_NOISE = 0.5  # grey levels of deviation that are no detail
_FULL_DETAIL = 4.0  # grey levels of deviation from which a tile has its full weight
_COLOUR_STEP = 60.0  # grey levels of chroma that count as much as no correlation
_CHANGED_CORRELATION = 0.5  # below which, and
_CHANGED_COLOUR = 20.0  # so many grey levels from what the others let expect, a tile shows something else


@dataclass(frozen=True)
class Overlap:
    """What two registered pictures share, in the frame of the first."""

    # left, right: shape (height, width, 3); luma and chroma; 0 outside the mask
    left: Array
    right: Array
    mask: Array  # shape (height, width); 1 where both are there
    # share, cover: of the larger picture and of its part, that is shared
    share: float
    cover: float


@dataclass(frozen=True)
class Tiles:
    """Tiles of two registered pictures, shape (n_tiles,) each: places (0 to 1), agreement, weight, whether they show
    something else; and of the whole, its shape in pixels and the cosine of the two descriptors.
    """

    y: Array
    x: Array
    agreement: Array
    weight: Array
    is_changed: npt.NDArray[np.bool_]
    shape: tuple[int, int]
    similarity: float


def overlap(a: Level, b: Level, matrix: Matrix) -> Overlap | None:
    """Lay `b` on `a`; None where they share nothing to speak of."""
    scale = magnification(matrix)
    source = b.ycc if scale < 1.3 else cv2.GaussianBlur(b.ycc, (0, 0), float(0.5 * np.sqrt(scale - 1.0)))
    size = (a.width, a.height)
    mask = warp(np.ones((b.height, b.width), np.float32), matrix, size) > 0.99
    # OpenCV erodes nothing at the picture's own edge by default
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if inside.sum() < 4 * _TILE:
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    share, covered = float(inside.mean()), float(inside.sum() * scale / (b.height * b.width))
    mask_f = np.ascontiguousarray(inside[box], dtype=np.float32)
    left = a.ycc[box] * mask_f[:, :, None]
    right = warp(source, matrix, size)[box] * mask_f[:, :, None]
    return Overlap(left, right, mask_f, min(share, covered), max(share, covered))


def tiles(shared: Overlap, *, least_share: float = 0.45) -> Tiles | None:
    """Compare tile by tile; None where there are too few.

    Parameters
    ----------
    shared : Overlap
    least_share : float
        Of a tile that must lie inside the mask.
    """
    left, right, mask = shared.left, shared.right, shared.mask
    height, width = mask.shape
    share = box_mean(mask, _TILE) + 1e-6
    at = np.zeros(mask.shape, dtype=bool)
    at[(height % _STEP) // 2 + _STEP // 2 :: _STEP, (width % _STEP) // 2 + _STEP // 2 :: _STEP] = True
    at &= (share > least_share) & (mask > 0)
    if at.sum() < _LEAST_TILES:
        return None
    correlation, deviation = _correlations(np.ascontiguousarray(left[:, :, 0]), np.ascontiguousarray(right[:, :, 0]), mask, share, at)
    means, others = ((box_mean(side, _TILE) / share[:, :, None])[at] for side in (left, right))
    colour = _colour_differences(means, others, correlation)
    y, x = np.nonzero(at)
    return Tiles(
        ((y + 0.5) / height).astype(np.float32),
        ((x + 0.5) / width).astype(np.float32),
        correlation - colour / _COLOUR_STEP,
        np.clip((deviation - _NOISE) / (_FULL_DETAIL - _NOISE), 0.0, 1.0) * share[at] + 1e-6,
        (correlation < _CHANGED_CORRELATION) & (_left_over(means, others, correlation, scale=8.0) > _CHANGED_COLOUR),
        (height, width),
        _global_similarity(left, right, mask),
    )


def _correlations(left: Array, right: Array, mask: Array, share: Array, at: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Correlation of the detail in each tile, the best within a pixel, and the larger deviation of the two."""
    bands = []
    fine, coarse = (cv2.GaussianBlur(mask, (0, 0), s, borderType=cv2.BORDER_CONSTANT) + 1e-3 for s in _BAND)
    for luma in (left, right):
        # what lies outside must not leak in: blurs are normalised by how much of them lies inside
        blurred = [cv2.GaussianBlur(luma, (0, 0), s, borderType=cv2.BORDER_CONSTANT) for s in _BAND]
        bands.append((blurred[0] / fine - blurred[1] / coarse) * mask)
    a, b = bands
    mean_a, mean_b = (box_mean(band, _TILE) / share for band in bands)
    variance_a = np.maximum(box_mean(a * a, _TILE) / share - mean_a * mean_a, 0.0)
    variance_b = np.maximum(box_mean(b * b, _TILE) / share - mean_b * mean_b, 0.0)
    spread = np.sqrt(variance_a * variance_b + 1e-3)[at]
    product = (mean_a * mean_b)[at]
    best = np.full(int(at.sum()), -1.0, dtype=np.float32)
    padded = cv2.copyMakeBorder(b, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0.0)
    height, width = b.shape
    for down in range(3):
        for across in range(3):
            shifted = padded[down : down + height, across : across + width]
            best = np.maximum(best, (box_mean(a * shifted, _TILE)[at] / share[at] - product) / spread)
    return np.minimum(best, 1.0), np.sqrt(np.maximum(variance_a, variance_b))[at]


def _colour_differences(a: Array, b: Array, correlation: Array) -> Array:
    """How far the chroma of each tile is from what the tiles that agree let expect, in grey levels; 0 for grey pictures.

    The colour of a copy may have been changed as a whole: the chroma of the second picture is fitted by an affine
    function of the first's colour.
    """
    if min(np.abs(a[:, 1:]).max(initial=0.0), np.abs(b[:, 1:]).max(initial=0.0)) < 6.0:
        return np.zeros(len(a), dtype=np.float32)
    difference: Array = np.maximum(_left_over(a, b[:, 1:], correlation, scale=6.0) - 10.0, 0.0).astype(np.float32)
    return difference


def _left_over(a: Array, b: Array, correlation: Array, scale: float) -> Array:
    """What an affine function of the mean colours of one picture's tiles leaves of the other's, in grey levels.

    `a`: shape (n_tiles, 3).
    `b`: shape (n_tiles, k).
    `correlation`: shape (n_tiles,); tiles that agree weigh more.
    `scale`: grey levels left over that halve the weight of a tile in the next round.
    """
    basis = np.concatenate([a, np.ones((len(a), 1), dtype=np.float32)], axis=1)
    weight = trust = np.clip(correlation, 0.05, 1.0)
    for _ in range(3):  # reweighted: what was painted over must not bend the fit
        scaled = basis * weight[:, None]
        solution = np.linalg.solve(scaled.T @ basis + np.diag([1.0, 1.0, 1.0, 0.1]), scaled.T @ b)
        left_over: Array = np.linalg.norm(b - basis @ solution, axis=1)
        weight = trust / (1.0 + (left_over / scale) ** 2)
    return left_over


def _global_similarity(left: Array, right: Array, mask: Array) -> float:
    """Cosine of the descriptors of the two overlaps."""
    small = cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA)
    grids = []
    for side in (left, right):
        grid = cv2.resize(side, (GRID, GRID), interpolation=cv2.INTER_AREA if min(mask.shape) >= GRID else cv2.INTER_LINEAR)
        if small.min() < 1.0:  # what was not compared is filled with the mean
            grid = grid + (1.0 - small)[:, :, None] * (grid.reshape(-1, 3).sum(axis=0) / max(float(small.sum()), 1e-6))
        grids.append(grid)
    first, second = describe_grids(np.ascontiguousarray(np.stack(grids).transpose(0, 3, 1, 2)))
    return float(first @ second)
