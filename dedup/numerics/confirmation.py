"""Judge a pair of pictures: copies of one, or only look-alikes.

Two pictures brought to one frame (`registration`) are compared in three ways. Each alone has its blind spot:
local correlation of detail is upset by heavy compression and watermarks, the global descriptor by a caption over a part,
and both call two shots of one scene nearly equal, where only the movement between them tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dedup.numerics.descriptor import GRID, VARIANTS, describe_grids
from dedup.numerics.pictures import SIDE, SMALL_PICTURE_SIDE, Array, Level, Picture, box_mean, warp
from dedup.numerics.registration import UNALIGNED, Alignment, align, distortion, invert, magnification

MAX_DISTANCE = 0.15  # up to which a pair is one picture
_MOVED_UP_TO = ((0.003, 0.02), (0.045, 0.012))  # share of tracked points that may have moved, by distance
_MOST_SHEAR = (2.0, 4.0)  # degrees, at full size and of small pictures
_MOST_STRETCH = (1.15, 1.25)
_LEAST_OVERLAP = 0.1  # of the picture that the other is a part of
_LEAST_COVER = 0.5  # of the part, that lies on the other
_TILE = 13  # pixels to a side
_STEP = 6
_BAND = (1.0, 5.0)  # deviations of the blurs between which detail is compared, in pixels
_LEAST_TILES = 4
_NOISE = 0.5  # grey levels of deviation that are no detail
_FULL_DETAIL = 4.0  # grey levels of deviation from which a tile has its full weight
_TAIL = 0.1  # of the weight that may agree less than what decides
_BARS = (0.1, 0.16, 0.22, 0.28)  # of a side that a caption bar may cover
_CORNERS = (0.2, 0.3, 0.4)  # of the shorter side that a logo in a corner may cover
_LEAST_UNCOVERED = 0.4  # of the weight that must be left beside bar or logo
_GLOBAL = (0.80, 0.92)  # global similarity that leaves the tiles all to say, and as little as they can have
_GLOBAL_WEIGHT = 0.2  # of a tile's disagreement where the pictures agree globally
_MUCH_DETAIL = 0.35  # mean weight of the tiles from which they are evidence enough
_LEAST_TRUST = 0.12  # a bird on a plain sky: what little there is to see must agree eight times as well
_COLOUR_STEP = 60.0  # grey levels of chroma that count as much as no correlation

Reason = Literal["", "unaligned", "distorted", "overlap", "moved", "different"]
REASONS: dict[str, str] = {
    "unaligned": "no shift, scale or rotation brings one onto the other",
    "distorted": "only a skewed or stretched one fits the other: things of one kind, not one picture",
    "overlap": "what they share is too small a part of them",
    "moved": "parts have moved against each other: two shots of one scene",
    "different": "registered on each other, parts of them differ",
    "unreadable": "a picture could not be read again, and confirm.unreadable=refuse",
}


@dataclass(frozen=True)
class Verdict:
    """What was found about a pair.

    Parameters
    ----------
    is_copy : bool
    distance : float
        How much the parts that agree least disagree, 0 (equal) to 1; copies have at most the `max_distance` asked for.
    reason : str
        Why it is no copy: a key of `REASONS`; empty for a copy.
    matrix : float64 array, shape (2, 3)
        Takes relative coordinates (0 to 1 across width and height) of the first picture, turned, to the second's.
    moved, agreement, similarity, overlap : float
        Share of points that moved, local agreement of the tiles, global similarity, share of the larger picture
        that was compared; for whoever wants to know how the verdict came about.
    """

    is_copy: bool
    distance: float
    reason: Reason
    matrix: npt.NDArray[np.float64]
    moved: float = 0.0
    agreement: float = 0.0
    similarity: float = 0.0
    overlap: float = 0.0


def turned(pixels: npt.NDArray[np.uint8], variant: str) -> npt.NDArray[np.uint8]:
    """Turn a picture as `dedup.numerics.descriptor.VARIANTS` names it.

    Examples
    --------
    >>> turned(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "mirror").tolist()
    [[[3, 4, 5], [0, 1, 2]]]
    """
    transpose, reverse_rows, reverse_columns = VARIANTS[variant]
    view = pixels.transpose(1, 0, 2) if transpose else pixels
    view = view[::-1] if reverse_rows else view
    return np.ascontiguousarray(view[:, ::-1] if reverse_columns else view)


def compare(a: Picture, b: Picture, *, max_distance: float = MAX_DISTANCE) -> Verdict:
    """Judge two pictures.

    Parameters
    ----------
    a, b : Picture
        `a` turned already the way the candidate came.
    max_distance : float
        Up to which they are copies.
    """
    side = SIDE if min(a.native_side, b.native_side) >= 0.75 * SIDE else SMALL_PICTURE_SIDE
    left, right = a.level(side), b.level(side)
    found = align(left, right)
    relative = _relative(found, left, right)
    if found.agreement < UNALIGNED:
        return Verdict(False, 1.0, "unaligned", relative)
    shear, stretch = distortion(found.matrix, left, right)
    is_small = int(side < SIDE)
    if shear > _MOST_SHEAR[is_small] or stretch > _MOST_STRETCH[is_small]:
        return Verdict(False, 1.0, "distorted", relative, found.moved)
    # in the picture whose pixels are the coarser: the other is brought down to it
    is_reverse = magnification(found.matrix) < 1.0
    tiles = _tiles(right, left, invert(found.matrix)) if is_reverse else _tiles(left, right, found.matrix)
    if tiles is None or tiles.overlap < _LEAST_OVERLAP or tiles.cover < _LEAST_COVER:
        return Verdict(False, 1.0, "overlap", relative, found.moved)
    agreement = _least_agreement(tiles)
    share = np.interp(tiles.similarity, _GLOBAL, (1.0, _GLOBAL_WEIGHT)) / np.clip(tiles.weight.mean() / _MUCH_DETAIL, _LEAST_TRUST, 1.0)
    distance = float(np.clip((1.0 - agreement) * share, 0.0, 1.0))
    # where all tiles agree a few tracks went astray on a repeated pattern; nothing moved
    is_moved = found.moved > np.interp(distance, *_MOVED_UP_TO)
    reason: Reason = "different" if distance > max_distance else "moved" if is_moved else ""
    return Verdict(not reason, distance, reason, relative, found.moved, agreement, tiles.similarity, tiles.overlap)


@dataclass(frozen=True)
class _Tiles:
    """Tiles of two registered pictures: places (0 to 1), agreement, weight; and of the whole overlap."""

    y: Array
    x: Array
    agreement: Array
    weight: Array
    shape: tuple[int, int]
    similarity: float
    overlap: float
    cover: float


def _tiles(a: Level, b: Level, matrix: npt.NDArray[np.float64]) -> _Tiles | None:
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
    inside_share, covered = float(inside.mean()), float(inside.sum() * scale / (b.height * b.width))
    mask_f = np.ascontiguousarray(inside[box], dtype=np.float32)
    left = a.ycc[box] * mask_f[:, :, None]
    right = warp(source, matrix, size)[box] * mask_f[:, :, None]
    height, width = mask_f.shape

    share = box_mean(mask_f, _TILE) + 1e-6
    at = np.zeros(mask_f.shape, dtype=bool)
    at[(height % _STEP) // 2 + _STEP // 2 :: _STEP, (width % _STEP) // 2 + _STEP // 2 :: _STEP] = True
    at &= (share > 0.45) & (mask_f > 0)
    if at.sum() < _LEAST_TILES:
        return None
    correlation, deviation = _correlations(np.ascontiguousarray(left[:, :, 0]), np.ascontiguousarray(right[:, :, 0]), mask_f, share, at)
    colour = _colour_differences(left, right, share, at, correlation)
    y, x = np.nonzero(at)
    return _Tiles(
        ((y + 0.5) / height).astype(np.float32),
        ((x + 0.5) / width).astype(np.float32),
        correlation - colour / _COLOUR_STEP,
        np.clip((deviation - _NOISE) / (_FULL_DETAIL - _NOISE), 0.0, 1.0) * share[at] + 1e-6,
        (height, width),
        _global_similarity(left, right, mask_f),
        min(inside_share, covered),
        max(inside_share, covered),
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


def _colour_differences(left: Array, right: Array, share: Array, at: npt.NDArray[np.bool_], correlation: Array) -> Array:
    """How far the chroma of each tile is from what the tiles that agree let expect, in grey levels; 0 for grey pictures.

    The colour of a copy may have been changed as a whole: the chroma of the second picture is fitted by an affine
    function of the first's colour.
    """
    a, b = ((box_mean(side, _TILE) / share[:, :, None])[at] for side in (left, right))
    if min(np.abs(a[:, 1:]).max(initial=0.0), np.abs(b[:, 1:]).max(initial=0.0)) < 6.0:
        return np.zeros(len(a), dtype=np.float32)
    basis = np.concatenate([a, np.ones((len(a), 1), dtype=np.float32)], axis=1)
    weight = np.clip(correlation, 0.05, 1.0)
    for _ in range(3):  # reweighted: what was painted over must not bend the fit
        scaled = basis * weight[:, None]
        solution = np.linalg.solve(scaled.T @ basis + np.diag([1.0, 1.0, 1.0, 0.1]), scaled.T @ b[:, 1:])
        left_over = np.linalg.norm(b[:, 1:] - basis @ solution, axis=1)
        weight = np.clip(correlation, 0.05, 1.0) / (1.0 + (left_over / 6.0) ** 2)
    difference: Array = np.maximum(left_over - 10.0, 0.0).astype(np.float32)
    return difference


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


def _least_agreement(tiles: _Tiles) -> float:
    """Agreement of the tiles that agree least, after what one caption bar or one logo in a corner may cover."""
    order = np.argsort(tiles.agreement, kind="stable")
    agreement, weight, y, x = tiles.agreement[order], tiles.weight[order], tiles.y[order], tiles.x[order]
    height, width = tiles.shape
    outside = [np.ones(len(order), dtype=bool)]
    outside += [side for bar in _BARS for side in (y > bar, y < 1 - bar, x > bar, x < 1 - bar)]
    for corner in _CORNERS:
        down, across = corner * min(height, width) / height, corner * min(height, width) / width
        outside += [~(row & column) for row in (y < down, y > 1 - down) for column in (x < across, x > 1 - across)]
    # a row for each choice; in it the weights summed up from the least agreement
    summed = np.cumsum(np.stack(outside) * weight, axis=1, dtype=np.float64)
    total = summed[:, -1]
    at = (summed < _TAIL * total[:, None]).sum(axis=1).clip(0, len(order) - 1)
    return float(agreement[at[total >= _LEAST_UNCOVERED * total[0]]].max())


def _relative(found: Alignment, a: Level, b: Level) -> npt.NDArray[np.float64]:
    matrix = found.matrix.copy()
    matrix[:, :2] *= [a.width, a.height]
    relative: npt.NDArray[np.float64] = matrix / np.array([[b.width], [b.height]])
    return relative
