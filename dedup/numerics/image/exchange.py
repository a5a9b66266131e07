"""Make a look-alike of a picture: one part of it shows something else, and no edge tells where."""

from __future__ import annotations

import numpy as np

from dedup.numerics.arraytypes import Floats, Mask, Pixels
from dedup.numerics.image.descriptor import check_rgb

SMALL_PART, LARGE_PART = (0.14, 0.3), (0.35, 0.6)  # of the picture's sides, that the part has: a number, some words; a face, a thing
_TRIES = 40
_LEAST_SPREAD = 12.0  # grey levels of deviation that both parts must have: something is shown there
_ALIKE = 0.4  # correlation of the two parts up to which they show something else
_LEAST_CHANGE = 14.0  # grey levels, mean over the part once it is exchanged
_SOFT = 0.25  # of half the part's sides, over which it fades
_STEP = 16  # grey levels that count as one colour of a ground


def exchange_part(picture: Pixels, other: Pixels, rng: np.random.Generator, sides: tuple[float, float] = SMALL_PART) -> Pixels | None:
    """A picture with a part of another, or another part of it, in place of one of its own.

    `picture`, `other`: shape (height, width, 3) each, RGB; may be the same.
    `sides`: smallest and largest share of the picture's sides that the part has.
    Returns shape (height, width, 3); None where no part of the two was found that shows something, and not the same.
    Raises ShapeError if one is no RGB picture.

    The ground of the part is brought to the colour of the ground that it replaces, and the part fades at its edge, so that it is no box
    laid over the picture.
    """
    check_rgb(picture)
    check_rgb(other)
    for number in range(_TRIES):
        shares = rng.uniform(*sides, 2)
        height, width = (max(4, round(share * side)) for share, side in zip(shares, picture.shape[:2], strict=True))
        if height > min(picture.shape[0], other.shape[0]) or width > min(picture.shape[1], other.shape[1]):
            continue
        place, source = (_box(side.shape, height, width, rng) for side in (picture, other))
        if number < _TRIES // 2:  # what two of one template have at the same place, first
            source = _same_place(place, picture.shape, other.shape)
        own, part = picture[place].astype(np.float64), other[source].astype(np.float64)
        if not _shows_something_else(own.mean(axis=2), part.mean(axis=2)):
            continue
        part = part + (_ground(own) - _ground(part))
        weight = _fading(height, width)[:, :, None]
        mixed = np.clip(weight * part + (1.0 - weight) * own, 0.0, 255.0)
        if np.abs(mixed - own).mean() >= _LEAST_CHANGE:
            changed = picture.copy()
            changed[place] = mixed.round().astype(np.uint8)
            return changed
    return None


def _box(shape: tuple[int, ...], height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _same_place(box: tuple[slice, slice], shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[slice, slice]:
    """A box of the same size at the same place, relative to the sides."""
    starts = []
    for part, side, other_side in zip(box, shape, other, strict=False):
        length = part.stop - part.start
        starts.append(min(round(part.start * other_side / side), other_side - length))
    return slice(starts[0], starts[0] + box[0].stop - box[0].start), slice(starts[1], starts[1] + box[1].stop - box[1].start)


def _shows_something_else(own: Floats, part: Floats) -> bool:
    a, b = own - own.mean(), part - part.mean()
    if min(a.std(), b.std()) < _LEAST_SPREAD:
        return False
    return float((a * b).mean()) < _ALIKE * float(a.std() * b.std())


def _ground(pixels: Floats) -> Floats:
    """Median colour of the pixels that have the most frequent grey level."""
    levels = (pixels.mean(axis=2) // _STEP).astype(np.intp)
    is_ground: Mask = levels == np.bincount(levels.ravel()).argmax()
    ground: Floats = np.median(pixels[is_ground], axis=0)
    return ground


def _fading(height: int, width: int) -> Floats:
    """1 in the middle of a part, 0 at its edge."""
    down, across = (np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (n / 2) for n in (height, width))
    ramps = [np.clip(side / _SOFT, 0.0, 1.0) for side in (down, across)]
    fading: Floats = np.minimum.outer(*ramps)
    return fading
