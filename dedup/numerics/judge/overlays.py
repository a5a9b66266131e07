"""Whether what differs in a part of two registered pictures was laid over one of them: writing, a mark, a box, another picture."""

from __future__ import annotations

import cv2
import numpy as np

from dedup.numerics.arraytypes import Floats, Mask
from dedup.numerics.judge.picture import Array, largest_channel

_RADIUS = 26.0  # grey levels within which pixels have one colour
_CORE = 0.7  # of the radius, within which pixels tell the colour's mean
_MOST_COLOURS = 3
_LEAST_IN_COLOUR = 0.04  # of the changed pixels
_MOST_BENEATH = 0.45  # of its frequency on the picture that has the overlay, that a colour may have in the same part of the other
_MOST_BLENDED_NOISE = 9.0  # grey levels of noise that are allowed for besides
_BLENDED = 22.0  # grey levels from a mixture of the ink and what lies beneath, as at soft edges
_EXACT = 9.0  # grey levels within which pixels have exactly one colour, but for JPEG
_OF_NOISE, _MOST_EXACT = 2.0, 18.0  # instead, in noise, of its deviation; and at most, in grey levels
_LEAST_SOLID = 0.7  # of the changed pixels that must have exactly one of the ink's colours, unless they are strokes
_STROKE, _MOST_INNER = 7, 0.42  # pixels: width of the widest stroke; share of changed pixels that may be left without their edges
_LEAST_INK = 0.15  # of that mixture
_SAMPLE = 400  # pixels looked at
_LEAST_CHANGED = 4  # pixels
_EDGE = 8.0  # grey levels per pixel of a box's edge
_REACH = 12  # pixels about a side of the region in which the box's edge is looked for
_MARGIN = 4  # pixels from the picture's own edge
_LEAST_BOX = 8  # pixels of a box's side
_LEAST_FILLED = 0.6  # of a box that has changed


def ink_shares(left: Array, right: Array, region: Mask, changed: Mask, noise: float = 0.0) -> tuple[float, float]:
    """Share of the changed pixels that one overlay of at most three colours explains, on the first picture and on the second; 0 to 1.

    `left`, `right`: shape (height, width, 3); luma and chroma.
    `region`: shape (height, width); the part that is asked about.
    `changed`: shape (height, width); its pixels that differ.
    `noise`: deviation of their difference where they do not, in grey levels.

    Ink lies on one picture, and the other shows what is beneath: its colours are not there. Where both have writing, half of the changed
    pixels are ink of the other picture, which no ink on this one explains. A thing that came into a scene has more shades than ink, and is
    no stroke.
    """
    if changed.sum() < _LEAST_CHANGED:
        return 0.0, 0.0
    over, under = _spread(left[changed]), _spread(right[changed])
    whole = _spread(left[region]), _spread(right[region])
    is_writing = _are_strokes(changed)
    exact = min(_MOST_EXACT, max(_EXACT, _OF_NOISE * noise))
    is_ink = [is_writing or _solid_share(pixels, exact) >= _LEAST_SOLID for pixels in (over, under)]
    blended = _BLENDED + min(noise, _MOST_BLENDED_NOISE)
    return (
        _explained(over, under, *whole, blended) if is_ink[0] else 0.0,
        _explained(under, over, *whole[::-1], blended) if is_ink[1] else 0.0,
    )


def _spread(pixels: Array) -> Floats:
    """At most `_SAMPLE` of some pixels, evenly."""
    return np.asarray(pixels[np.linspace(0, len(pixels) - 1, min(_SAMPLE, len(pixels))).astype(np.intp)], dtype=np.float64)


def _explained(over: Floats, under: Floats, region_over: Floats, region_under: Floats, blended: float) -> float:
    """Share of the changed pixels that ink on one picture explains.

    `blended`: grey levels from a mixture of the ink and what lies beneath, as at soft edges.
    """
    best = 0.0
    is_ink, is_ink_beneath = np.zeros(len(over), dtype=bool), np.zeros(len(over), dtype=bool)
    for colour in _main_colours(over):
        if _share_near(region_under, colour) > _MOST_BENEATH * _share_near(region_over, colour):
            continue
        way = colour - under
        opacity = ((over - under) * way).sum(axis=1) / np.maximum((way * way).sum(axis=1), 1e-6)
        mixed = under + np.clip(opacity, _LEAST_INK, 1.0)[:, None] * way
        is_ink |= np.linalg.norm(over - mixed, axis=1) < blended
        is_ink_beneath |= np.linalg.norm(under - colour, axis=1) < _RADIUS
        best = max(best, float((is_ink & ~is_ink_beneath).mean()))
    return best


def _are_strokes(changed: Mask) -> bool:
    """Whether little is left of the changed pixels once their edges are taken off: letters and lines, not things."""
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    inner = cv2.erode(closed, np.ones((_STROKE, _STROKE), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return float(inner.sum()) <= _MOST_INNER * float(closed.sum())


def _solid_share(pixels: Floats, exact: float) -> float:
    """Share of the pixels that have exactly one of three colours, as print has and things in light do not.

    `exact`: grey levels within which that is so.
    """
    distance = np.sqrt(np.maximum(_squares(pixels), 0.0))
    left, n_solid = np.ones(len(pixels), dtype=bool), 0
    for _ in range(_MOST_COLOURS):
        near = (distance < exact) & left
        sizes = near.sum(axis=1) * left
        n_solid += int(sizes.max())
        left &= distance[int(sizes.argmax())] >= 2.0 * exact
    return n_solid / len(pixels)


def _squares(pixels: Floats) -> Floats:
    """Squared distances of all pairs."""
    lengths = (pixels * pixels).sum(axis=1)
    squares: Floats = lengths[:, None] + lengths - 2.0 * (pixels @ pixels.T)
    return squares


def _share_near(pixels: Floats, colour: Floats) -> float:
    return float((np.linalg.norm(pixels - colour, axis=1) < _RADIUS).mean())


def _main_colours(pixels: Floats) -> list[Floats]:
    """The most frequent colours, the most frequent first."""
    near = _squares(pixels) < (_CORE * _RADIUS) ** 2
    left, colours = np.ones(len(pixels), dtype=bool), list[Floats]()
    while len(colours) < _MOST_COLOURS and left.sum() >= _LEAST_IN_COLOUR * len(pixels):
        middle = int(((near & left).sum(axis=1) * left).argmax())
        colours.append(pixels[near[middle] & left].mean(axis=0))
        left &= np.linalg.norm(pixels - colours[-1], axis=1) >= _RADIUS
    return colours


def box_share(first: Array, second: Array, region: Mask) -> float:
    """How much of the straight edges of a box around a region only one of two pictures has: 1 = all, 0 = none, or the other has them too.

    `first`, `second`: shape (height, width, 3); luma and chroma.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    if min(box[1] - box[0], box[3] - box[2]) < _LEAST_BOX or region[box[0] : box[1], box[2] : box[3]].mean() < _LEAST_FILLED:
        return 0.0
    sides = [_sides(picture, box) for picture in (first, second)]
    return float(abs(np.mean(sides[0]) - np.mean(sides[1]))) if sides[0] else 0.0


def _sides(picture: Array, box: tuple[int, int, int, int]) -> list[float]:
    """Share of each side of the box, where it lies inside the picture, along which there is one straight edge."""
    top, bottom, left, right = box
    across, down = (_steps(picture, box, way) for way in ((1, 0), (0, 1)))
    shares = []
    for steps, places, start, stop in ((across, (left, right), top, bottom), (down.T, (top, bottom), left, right)):
        inset = (stop - start) // 8  # corners may be round
        for place in places:
            if _MARGIN < place < steps.shape[1] - _MARGIN:
                strip = steps[start + inset : stop - inset, max(_MARGIN, place - _REACH) : place + _REACH + 1]
                shares.append(float((strip > _EDGE).mean(axis=0).max()))
    return shares


def _steps(picture: Array, box: tuple[int, int, int, int], way: tuple[int, int]) -> Array:
    """Largest step of a channel at each pixel near a box, in grey levels per pixel along `way` (x, y); 0 elsewhere."""
    top, bottom, left, right = box
    height, width = picture.shape[:2]
    near = slice(max(0, top - _REACH), bottom + _REACH + 1), slice(max(0, left - _REACH), right + _REACH + 1)
    # a pixel more all around, beside which the steps of the outermost are found
    wide = slice(max(0, near[0].start - 1), near[0].stop + 1), slice(max(0, near[1].start - 1), near[1].stop + 1)
    inner = tuple(slice(part.start - around.start, part.stop - around.start) for part, around in zip(near, wide, strict=True))
    steps = np.zeros((height, width), dtype=np.float32)
    steps[near] = largest_channel(np.abs(cv2.Sobel(picture[wide], cv2.CV_32F, *way, ksize=3)))[inner] / 4.0
    return steps
