"""Which patches of a generation are patches of a training image: at the same place, and anywhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Mask, Pixels, Sims
from dedup.numerics.shared import has_texture

_STEPS = 8  # coarse places to a side of a patch
_TRIED = 3  # of them, the best by means over squares, around which places ever nearer are tried
_SPARE = 4.0  # times δ², in which those must be
_BLOCK = 256  # patches compared with all coarse places at a time


class PatchCounts(NamedTuple):
    """Patches of one generation."""

    n_patches: int  # with detail
    n_same: int  # within δ of the same place of the training image
    n_any: int  # within δ of some place of it, the same included


def count_patches(image: Pixels, target: Pixels, side: int, max_distance: float, registered: Pixels | None = None) -> PatchCounts:
    """Count the patches of a generation that a training image shows.

    Parameters
    ----------
    image : uint8 array, shape (height, width, 3)
        The generation. Its patches lie half a side apart; only those with texture count, for a plain one is near any other.
    target : uint8 array, shape (height, width, 3)
        The training image.
    side : int
        Of a patch, in pixels.
    max_distance : float
        δ, of the l2 of two patches, 0 to 1.
    registered : uint8 array, shape (height, width, 3), optional
        The training image laid on the generation, for the same place; `target` by default.

    Raises
    ------
    ShapeError
        If the three are not of one size, or smaller than a patch.

    Notes
    -----
    Anywhere: means over squares of an eighth of a side are compared at every eighth of a side, then pixels around the three best, at places
    ever nearer to each other. A better place elsewhere may be missed, so `n_any` is a lower bound; no patch counts without such a place.
    """
    registered = target if registered is None else registered
    if not image.shape == target.shape == registered.shape or min(image.shape[:2]) < side or side < 1:
        found = f"found {image.shape}, {target.shape}, {registered.shape}"
        raise ShapeError(f"expected images of one size, at least {side} pixels to a side, {found}")
    stride = max(1, side // 2)
    places = [(y, x) for y in range(0, image.shape[0] - side + 1, stride) for x in range(0, image.shape[1] - side + 1, stride)]
    places = [(y, x) for y, x in places if has_texture(image[y : y + side, x : x + side])]
    if not places:
        return PatchCounts(0, 0, 0)
    own, there = (np.stack([pixels[y : y + side, x : x + side] for y, x in places]) for pixels in (image, registered))
    most = max_distance**2 * 255.0**2 * side * side * 3  # of a sum of squares
    differences = own.reshape(len(places), -1).astype(np.int32) - there.reshape(len(places), -1)
    is_same = np.asarray((differences.astype(np.int64) ** 2).sum(axis=1) <= most, dtype=bool)
    n_same = int(is_same.sum())
    n_elsewhere = int(_is_anywhere(own[~is_same], target, most).sum()) if n_same < len(places) else 0
    return PatchCounts(len(places), n_same, n_same + n_elsewhere)


def _is_anywhere(patches: Pixels, target: Pixels, most: float) -> Mask:
    """Which patches, shape (n, side, side, 3), are near some place of an image: sum of squared differences at most `most`."""
    n, side = patches.shape[:2]
    step = max(1, side // _STEPS)
    coarse, steps = _coarse_windows(target, side, step)
    squares = np.einsum("ij,ij->i", coarse, coarse)
    is_near = np.zeros(n, dtype=bool)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        own = _pooled(patches[part], step)
        errors = np.einsum("ij,ij->i", own, own)[:, None] + squares - 2.0 * (own @ coarse.T)
        candidates = np.argpartition(errors, min(_TRIED, errors.shape[1]) - 1, axis=1)[:, :_TRIED]
        # a mean over a square differs by no more than its pixels do, so places beyond δ by their means need no second look; between
        # the places of the grid means differ more than at the best place, hence the factor
        is_likely = np.take_along_axis(errors, candidates, 1) * step**2 <= _SPARE * most
        for row in np.flatnonzero(is_likely.any(axis=1)).tolist():
            for number in candidates[row, is_likely[row]].tolist():
                # a window of whole squares may begin where a patch would run over the rim
                y, x = (min(place * step, length - side) for place, length in zip(divmod(number, steps), target.shape, strict=False))
                if _least_around(patches[start + row], target, y, x, step) <= most:
                    is_near[start + row] = True
                    break
    return is_near


def _coarse_windows(target: Pixels, side: int, step: int) -> tuple[Sims, int]:
    """The means over squares of `step` pixels of every window of an image that begins on their grid, and how many begin in a row."""
    pooled = _means(target[None].astype(np.float32), step)[0]
    width = side // step
    windows = sliding_window_view(pooled, (width, width), axis=(0, 1))
    return np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2).reshape(-1, width * width * 3)), windows.shape[1]


def _pooled(patches: Pixels, step: int) -> Sims:
    return _means(patches.astype(np.float32), step).reshape(len(patches), -1)


def _means(images: Sims, step: int) -> Sims:
    """Means over squares, shape (n, height // step, width // step, 3); what does not fill a square is left out."""
    n, height, width = len(images), images.shape[1] // step, images.shape[2] // step
    squares = images[:, : height * step, : width * step].reshape(n, height, step, width, step, 3)
    return np.asarray(squares.mean(axis=(2, 4)), dtype=np.float32)


def _least_around(patch: Pixels, target: Pixels, y: int, x: int, step: int) -> int:
    """The least sum of squared differences near a place: of the nine places half a step apart the best, of nine around it, and so on."""
    side, wanted = len(patch), patch.astype(np.int32)
    least = _error(wanted, target, y, x, side)
    while step > 1:
        step = (step + 1) // 2
        places = [(y + dy, x + dx) for dy in (-step, 0, step) for dx in (-step, 0, step) if (dy or dx)]
        inside = [(a, b) for a, b in places if 0 <= a <= target.shape[0] - side and 0 <= b <= target.shape[1] - side]
        errors = [_error(wanted, target, a, b, side) for a, b in inside]
        if errors and min(errors) < least:
            least = min(errors)
            y, x = inside[errors.index(least)]
    return least


def _error(wanted: npt.NDArray[np.int32], target: Pixels, y: int, x: int, side: int) -> int:
    differences = wanted - target[y : y + side, x : x + side]
    return int(np.einsum("ijk,ijk->", differences, differences, dtype=np.int64))
