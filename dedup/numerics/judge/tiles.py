"""Two registered pictures compared tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dedup.numerics.arraytypes import Mask
from dedup.numerics.image.descriptor import GRID, describe_grids
from dedup.numerics.judge.picture import Array, Level, Matrix, box_mean, masked, shifts, warp
from dedup.numerics.judge.register import magnification

_TILE = 13  # pixels to a side
_STEP = 6
_BAND = (1.0, 5.0)  # deviations of the blurs between which detail is compared, in pixels
_LEAST_TILES = 4
_NOISE = 0.5  # grey levels of deviation that are not detail
_FULL_DETAIL = 4.0  # grey levels of deviation from which a tile has its full weight
_COLOUR_STEP = 60.0  # grey levels of chroma that count as much as no correlation
# a tile shows something else if its correlation is below the one, and its colour this many grey levels off the fit to all tiles
_CHANGED_CORRELATION = 0.5
_CHANGED_COLOUR = 20.0


@dataclass(frozen=True)
class Overlap:
    """What two registered pictures share, in the frame of the first."""

    # left, right: the first and the second picture, shape (height, width, 3); luma and chroma; 0 outside the mask
    left: Array
    right: Array
    mask: Array  # shape (height, width); 1 where both have pixels
    # share, cover: fraction that is shared, of the picture that shows more and of the one that shows less
    share: float
    cover: float
    is_first_inside: bool = False  # whether the first is the one that shows less
    origin: tuple[int, int] = (0, 0)  # x and y of the first pixel of these arrays in the first picture


@dataclass(frozen=True)
class Tiles:
    """Tiles of two registered pictures, shape (n_tiles,) each: places (0 to 1), agreement, weight, and whether they show
    something else; of the whole overlap, its shape in pixels and the cosine of the two descriptors.
    """

    y: Array
    x: Array
    agreement: Array
    weight: Array
    is_changed: Mask
    shape: tuple[int, int]
    similarity: float


def overlap(a: Level, b: Level, matrix: Matrix) -> Overlap | None:
    """Lay `b` on `a`; None where they share next to nothing."""
    scale = magnification(matrix)
    source = b.ycc if scale < 1.3 else cv2.GaussianBlur(b.ycc, (0, 0), float(0.5 * np.sqrt(scale - 1.0)))
    size = (a.width, a.height)
    is_covered = warp(np.ones((b.height, b.width), np.float32), matrix, size) > 0.99
    # by default OpenCV erodes nothing at the picture's edge
    inside = cv2.erode(is_covered.astype(np.uint8), np.ones((3, 3), np.uint8))
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if inside.sum() < 4 * _TILE:
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    share, covered = float(inside.mean()), float(inside.sum() * scale / (b.height * b.width))
    mask = np.ascontiguousarray(inside[box], dtype=np.float32)
    left, right = (masked(side[box], mask) for side in (a.ycc, warp(source, matrix, size)))
    return Overlap(left, right, mask, min(share, covered), max(share, covered), share > covered, (int(columns[0]), int(rows[0])))


def tiles(shared: Overlap, *, least_share: float = 0.45) -> Tiles | None:
    """Compare tile by tile; None where there are too few tiles with at least `least_share` inside the mask."""
    left, right, mask = shared.left, shared.right, shared.mask
    height, width = mask.shape
    share = box_mean(mask, _TILE) + 1e-6
    is_tile = np.zeros(mask.shape, dtype=bool)
    is_tile[(height % _STEP) // 2 + _STEP // 2 :: _STEP, (width % _STEP) // 2 + _STEP // 2 :: _STEP] = True
    is_tile &= (share > least_share) & (mask > 0)
    if is_tile.sum() < _LEAST_TILES:
        return None
    lumas = np.ascontiguousarray(left[:, :, 0]), np.ascontiguousarray(right[:, :, 0])
    correlation, deviation = _correlations(*lumas, mask, share, is_tile)
    means_left, means_right = ((box_mean(side, _TILE) / share[:, :, None])[is_tile] for side in (left, right))
    colour = _colour_differences(means_left, means_right, correlation)
    y, x = np.nonzero(is_tile)
    return Tiles(
        ((y + 0.5) / height).astype(np.float32),
        ((x + 0.5) / width).astype(np.float32),
        correlation - colour / _COLOUR_STEP,
        np.clip((deviation - _NOISE) / (_FULL_DETAIL - _NOISE), 0.0, 1.0) * share[is_tile] + 1e-6,
        (correlation < _CHANGED_CORRELATION) & (_residuals(means_left, means_right, correlation, scale=8.0) > _CHANGED_COLOUR),
        (height, width),
        _global_similarity(left, right, mask),
    )


def _correlations(left: Array, right: Array, mask: Array, share: Array, is_tile: Mask) -> tuple[Array, Array]:
    """Correlation of the detail in each tile, the best within a shift of one pixel, and the larger deviation of the two."""
    bands = []
    fine, coarse = (cv2.GaussianBlur(mask, (0, 0), s, borderType=cv2.BORDER_CONSTANT) + 1e-3 for s in _BAND)
    for luma in (left, right):
        # pixels outside must not leak in: blurs are normalised by how much of them lies inside
        blurred = [cv2.GaussianBlur(luma, (0, 0), s, borderType=cv2.BORDER_CONSTANT) for s in _BAND]
        bands.append((blurred[0] / fine - blurred[1] / coarse) * mask)
    a, b = bands
    mean_a, mean_b = (box_mean(band, _TILE) / share for band in bands)
    variance_a = np.maximum(box_mean(a * a, _TILE) / share - mean_a * mean_a, 0.0)
    variance_b = np.maximum(box_mean(b * b, _TILE) / share - mean_b * mean_b, 0.0)
    spread = np.sqrt(variance_a * variance_b + 1e-3)[is_tile]
    product = (mean_a * mean_b)[is_tile]
    best = np.full(int(is_tile.sum()), -1.0, dtype=np.float32)
    for shifted in shifts(b):
        best = np.maximum(best, (box_mean(a * shifted, _TILE)[is_tile] / share[is_tile] - product) / spread)
    return np.minimum(best, 1.0), np.sqrt(np.maximum(variance_a, variance_b))[is_tile]


def _colour_differences(a: Array, b: Array, correlation: Array) -> Array:
    """How far the chroma of each tile is from a fit to the tiles that agree, in grey levels; 0 for grey pictures.

    The colour of a copy may have been changed as a whole, so the chroma of the second picture is fitted by an affine
    function of the first's colour.
    """
    if min(np.abs(a[:, 1:]).max(initial=0.0), np.abs(b[:, 1:]).max(initial=0.0)) < 6.0:
        return np.zeros(len(a), dtype=np.float32)
    difference: Array = np.maximum(_residuals(a, b[:, 1:], correlation, scale=6.0) - 10.0, 0.0).astype(np.float32)
    return difference


def _residuals(a: Array, b: Array, correlation: Array, scale: float) -> Array:
    """Residuals of the mean colours of one picture's tiles, fitted by an affine function of the other's, in grey levels.

    `a`: shape (n_tiles, 3).
    `b`: shape (n_tiles, k); fitted.
    `correlation`: shape (n_tiles,); tiles that agree weigh more.
    `scale`: residual that halves the weight of a tile in the next round.
    """
    basis = np.concatenate([a, np.ones((len(a), 1), dtype=np.float32)], axis=1)
    weight = trust = np.clip(correlation, 0.05, 1.0)
    for _ in range(3):  # reweighted, so that painted-over tiles do not bend the fit
        scaled = basis * weight[:, None]
        solution = np.linalg.solve(scaled.T @ basis + np.diag([1.0, 1.0, 1.0, 0.1]), scaled.T @ b)
        residuals: Array = np.linalg.norm(b - basis @ solution, axis=1)
        weight = trust / (1.0 + (residuals / scale) ** 2)
    return residuals


def _global_similarity(left: Array, right: Array, mask: Array) -> float:
    small = cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA)
    grids = []
    for side in (left, right):
        grid = cv2.resize(side, (GRID, GRID), interpolation=cv2.INTER_AREA if min(mask.shape) >= GRID else cv2.INTER_LINEAR)
        if small.min() < 1.0:  # pixels outside the mask are filled with the mean
            grid = grid + (1.0 - small)[:, :, None] * (grid.reshape(-1, 3).sum(axis=0) / max(float(small.sum()), 1e-6))
        grids.append(grid)
    first, second = describe_grids(np.ascontiguousarray(np.stack(grids).transpose(0, 3, 1, 2)))
    return float(first @ second)
