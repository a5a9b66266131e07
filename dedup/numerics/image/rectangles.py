"""Find pictures inside another one: on a page, in a screenshot, side by side in a collage, over a blurred ground.

Two signs of a picture that lies inside another are looked for on the small grid that every image has anyway: an area that is
filled, in a ground of one colour; and straight lines from edge to edge, along which all colours change at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dedup.numerics.arraytypes import Mask, Pixels
from dedup.numerics.image.descriptor import GRID
from dedup.numerics.image.frame import picture_box

Share = tuple[float, float, float, float]  # left, top, right, bottom as shares of the sides, 0 to 1

MOST = 4  # rectangles of an image, the largest
_LEAST_SIDE = 14  # cells of the grid: smaller pictures are known by too few coefficients
_MOST_AREA = 0.9  # of the image: more is the image itself
_SAME = 0.94  # of their common area that a rectangle and the picture inside a frame share and are one
_ALIKE = 0.8  # of their common area that two rectangles share and are one

# Areas in a ground of one colour.
_BIN = 16.0  # grey levels of a bin of luma or chroma
_LEAST_IN_BIN, _LEAST_GROUND = 0.05, 0.08  # of the cells: of one bin, and within the tolerance of its colour
_MOST_GROUNDS = 3
_EVEN, _LEAST_EVEN = 2.0, 0.6  # grey levels, and share of its cells that are no farther from its colour
_MIDDLE = np.array([[0.0], [8.0], [8.0]], dtype=np.float32)  # bins: luma begins at 0, chroma at -128
_TOLERANCE = 14.0  # grey levels within which a cell has the ground's colour
_LEAST_FILLED = 0.8  # of a rectangle that is not ground
_LEAST_SIDE_FILLED = 0.5  # of each of its outermost lines: things have no straight sides
_LEAST_IN_LINE = 0.5  # of a line of cells: what sticks out is cut off

# Lines from edge to edge.
_STEP = 16.0  # grey levels, of luma and chroma together, across two cells
_SHARPER = 1.3  # times as large as the steps three cells on either side
_LEAST_STEPPED = 0.7  # of the line
_MOST_LINES = 4
_OFF = 0.8  # cells that a line may be off its place


def inner_boxes(
    pixels: Pixels, box: tuple[float, float, float, float], grid: npt.NDArray[np.float32]
) -> list[tuple[float, float, float, float]]:
    """Where pictures lie inside an image: the one inside a frame first, if there is a frame.

    `pixels`: shape (height, width, 3); RGB.
    `box`: left, top, right, bottom of what the image is of the pixels: a reduced image ends inside its last column and row.
    `grid`: shape (3, GRID, GRID); that of the image.
    Returns boxes in pixels.
    """
    height, width = pixels.shape[:2]
    framed = picture_box(pixels)
    found = [] if framed is None else [framed]
    for share in rectangles(grid):
        rectangle = refined(pixels, share)
        as_share = (rectangle[0] / width, rectangle[1] / height, rectangle[2] / width, rectangle[3] / height)
        if framed is None or _common_area(as_share, (framed[0] / width, framed[1] / height, framed[2] / width, framed[3] / height)) < _SAME:
            found.append(rectangle)
    left, top, right, bottom = box
    return [(max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)) for x0, y0, x1, y1 in found if x0 < right and y0 < bottom]


def rectangles(grid: npt.NDArray[np.float32]) -> list[Share]:
    """Where other pictures lie in an image: those in a ground of one colour, then those between lines, the largest first.

    `grid`: shape (3, GRID, GRID); luma and chroma, as `ycbcr_grid` gives it.
    """
    kept: list[Share] = []
    for box in [*_largest_first(_in_ground(grid)), *_between_lines(grid)]:
        if len(kept) < MOST and all(_common_area(box, other) < _ALIKE for other in kept):
            kept.append(box)
    return kept


def _largest_first(boxes: list[Share]) -> list[Share]:
    return sorted(boxes, key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box))


def refined(pixels: Pixels, box: Share) -> tuple[int, int, int, int]:
    """The rectangle with its sides where pixels change most, within a cell: left, top, right, bottom in pixels.

    `pixels`: shape (height, width, 3); RGB.
    """
    height, width = pixels.shape[:2]
    left, right = (_strongest(pixels, place * width, width / GRID, (box[1], box[3])) for place in (box[0], box[2]))
    turned = pixels.transpose(1, 0, 2)
    top, bottom = (_strongest(turned, place * height, height / GRID, (box[0], box[2])) for place in (box[1], box[3]))
    return (left, top, right, bottom) if left < right and top < bottom else _rounded(box, width, height)


def _rounded(box: Share, width: int, height: int) -> tuple[int, int, int, int]:
    left, top = int(box[0] * width), int(box[1] * height)
    return left, top, max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))


def _strongest(pixels: Pixels, place: float, cell: float, along: tuple[float, float]) -> int:
    """The column about a place before which the pixels change most, between two shares of the height."""
    height, width = pixels.shape[:2]
    if place <= cell or place >= width - cell:
        return round(min(max(place, 0.0), float(width)))
    first, last = max(0, int(place - 1.5 * cell) - 1), min(width, int(place + 1.5 * cell) + 2)
    rows = slice(int(along[0] * height), max(int(along[0] * height) + 1, int(along[1] * height)))
    steps = np.abs(np.diff(pixels[rows, first:last].astype(np.int16), axis=1)).sum(axis=(0, 2))
    return first + 1 + int(steps.argmax())


def _in_ground(grid: npt.NDArray[np.float32]) -> list[Share]:
    """Filled areas in a ground of one colour."""
    cells = grid[:, ::2, ::2].reshape(3, -1)  # a quarter of them tells the colours
    luma, blue, red = np.clip(cells / _BIN + _MIDDLE, 0, 15).astype(np.intp)
    bins = (luma * 16 + blue) * 16 + red
    sizes = np.bincount(bins)
    boxes = []
    for _ in range(_MOST_GROUNDS):
        number = int(sizes.argmax())
        if sizes[number] < _LEAST_IN_BIN * len(bins):
            break
        sizes[number] = 0
        colour = np.median(cells[:, bins == number], axis=1)[:, None].astype(np.float32)
        is_ground = (np.abs(cells - colour) < _TOLERANCE).all(axis=0)
        # a wall or a cloth is never so even
        is_even = np.abs(cells[0][is_ground] - colour[0]) < _EVEN
        if is_ground.mean() >= _LEAST_GROUND and is_even.mean() >= _LEAST_EVEN:
            boxes += _filled((np.abs(grid - colour[:, :, None]) >= _TOLERANCE).any(axis=0))
    return boxes


def _filled(is_picture: Mask) -> list[Share]:
    labels, _ = ndimage.label(is_picture)
    boxes = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        if min(rows.stop - rows.start, columns.stop - columns.start) < _LEAST_SIDE:
            continue
        part = labels[rows, columns] == number
        down, across = (np.flatnonzero(part.mean(axis=axis) > _LEAST_IN_LINE) for axis in (1, 0))
        if min(len(down), len(across)) < _LEAST_SIDE:
            continue
        top, bottom, left, right = down[0], down[-1] + 1, across[0], across[-1] + 1
        inside = part[top:bottom, left:right]
        sides = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        if inside.mean() >= _LEAST_FILLED and min(side.mean() for side in sides) >= _LEAST_SIDE_FILLED:
            boxes += _box(columns.start + left, rows.start + top, columns.start + right, rows.start + bottom)
    return boxes


def _between_lines(grid: npt.NDArray[np.float32]) -> list[Share]:
    """What lies between lines from edge to edge, both ways."""
    columns, rows = _lines(grid), _lines(grid.transpose(0, 2, 1))
    cells = [
        box
        for left, right in zip([0.0, *columns], [*columns, float(GRID)], strict=True)
        for top, bottom in zip([0.0, *rows], [*rows, float(GRID)], strict=True)
        for box in _box(left, top, right, bottom)
    ]
    # a picture in the middle of a ground; the lines across it may be its own
    middle = [box for left, right in _pairs(columns) for box in _box(left, 0.0, right, float(GRID))]
    middle += [box for top, bottom in _pairs(rows) for box in _box(0.0, top, float(GRID), bottom)]
    return [*middle, *_largest_first(cells)]


def _lines(grid: npt.NDArray[np.float32]) -> list[float]:
    """Columns at which all rows change at once, in cells from the left edge, ascending."""
    steps = np.abs(grid[:, :, 2:] - grid[:, :, :-2]).sum(axis=0)
    beside = np.pad(steps, ((0, 0), (3, 3)), mode="edge")
    stepped = ((steps > _STEP) & (steps > _SHARPER * np.minimum(beside[:, :-6], beside[:, 6:]))).mean(axis=0)
    lines: list[float] = []
    for place in np.argsort(-stepped, kind="stable").tolist():
        if stepped[place] < _LEAST_STEPPED or len(lines) == _MOST_LINES:
            break
        if all(abs(place + 1.5 - other) > 2 for other in lines):
            lines.append(place + 1.5)
    return sorted(line for line in lines if _is_planned(line, lines))


def _is_planned(line: float, lines: list[float]) -> bool:
    """Whether it lies where people put pictures: they share a side evenly, or one lies in the middle. Nature does not care."""
    is_even = any(abs(line - GRID * part / n) <= _OFF for n in (2, 3, 4) for part in range(1, n))
    return is_even or any(line in pair for pair in _pairs(lines))


def _pairs(lines: list[float]) -> list[tuple[float, float]]:
    """Lines as far from one edge as from the other."""
    return [(line, other) for line in lines for other in lines if line < other and abs(line + other - GRID) <= 2 * _OFF]


def _box(left: float, top: float, right: float, bottom: float) -> list[Share]:
    """The rectangle as shares of the sides, if it is neither too small nor nearly everything."""
    is_large = min(right - left, bottom - top) >= _LEAST_SIDE
    if not is_large or (right - left) * (bottom - top) > _MOST_AREA * GRID * GRID:
        return []
    return [(float(left) / GRID, float(top) / GRID, float(right) / GRID, float(bottom) / GRID)]


def _common_area(a: Share, b: Share) -> float:
    """Area that two rectangles share, as a share of what either covers."""
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common
    return common / both
