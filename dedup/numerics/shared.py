"""What generations of one prompt share with a training image where the rest of the picture differs: template verbatims.

Webster (2023, arXiv 2305.08694) calls a generation a template verbatim if it equals training images but for a fixed area, such as the
carpet of a carpet shop's picture. He drew that area by hand or from retrieved copies; here it is found among the generations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dedup.numerics.arraytypes import Floats, Ids, Mask, Pixels, Sims
from dedup.numerics.graph.cliques import largest_clique
from dedup.numerics.pixels import TILES, cuts
from dedup.numerics.similarity import centred, exact_products, exact_squares

_MOST_CELLS = 32  # to a side; 16 pixels each for images of 512
_LEAST_PIXELS = 8  # to a side of a cell, where the picture allows: in less, noise correlates with anything
# a cell has detail if its values deviate so much from the mean of each channel: a sky's gradient and a JPEG's noise deviate by less
_DETAIL = 8 / 255
_CORRELATION = 0.5  # from which two cells show one detail; noise of twice its deviation leaves 0.45, unrelated cells have 0 +- 0.2
# what is left of a cell without the means of its rows and of its columns: an edge along them, such as where a table meets a wall, leaves
# nothing, for it lies alike on many pictures
_TEXTURE = 5 / 255
# an area without detail says nothing: equal white grounds agree everywhere but in the thing that is shown
_LEAST_DETAIL = 0.02  # share of the picture that is shared and has texture
_LEAST_DETAIL_OF = 0.10  # of all texture of the training image
# of it, what a copy of the whole shows: blur leaves that much within a distance of 0.15, unrelated pictures a tenth; and of the texture of
# each of the 16 tiles that has some, for a template shows most of it, and next to nothing in the rest
_LEAST_OF_WHOLE, _LEAST_OF_PART = 1 / 3, 0.15
_MEMBER = 0.85  # share of an area's cells, and of those with detail, that a generation shows that has the template
_SUPPORT = 0.8  # share of those generations that show a cell of it
_FIRST = 0.6  # the same as _MEMBER for the first look, by the cells of one generation, some of which agree by chance
_MOST_SEEDS = 32
_MOST_ROUNDS = 8
_LEAST_OF_TILE = 0.25  # share of a tile that must be shared for it to be compared by itself


class Shared(NamedTuple):
    """An area that generations share with a training image."""

    cells: Mask  # shape (side, side)
    members: Ids  # shape (m,); generations, ascending, that are one picture there and equal to the training image
    tiled: Floats  # shape (m,); of each, the distance to the training image there, the largest over 16 tiles
    l2: Floats  # shape (m,); of each, the distance over the whole area
    mean_distance: float | None  # of the pairs of members there, the largest over 16 tiles; None with fewer than two

    @property
    def area(self) -> float:
        """Share of the picture, 0 to 1."""
        return float(self.cells.mean())


class Limits(NamedTuple):
    """When pictures are one, and when an area is enough; distances from 0 to 1."""

    max_tile_distance: float = 0.1  # of two generations
    max_distance: float = 0.15  # of a generation and the training image
    min_members: int = 10  # generations that must share an area which nothing but they show
    min_area: float = 0.2  # share of the picture


class Known(NamedTuple):
    """Where the training images of a template agree, and where they differ; elsewhere they have too little to compare."""

    # of one shape (height, width), across the target's own training image
    agrees: Mask
    differs: Mask


class Comparison(NamedTuple):
    """Which cells of each generation equal the training image's; cells in rows, from the top left."""

    side: int  # cells to a side
    is_near: Mask  # shape (n, side²)
    is_detailed: Mask  # shape (side²,); of the training image
    is_textured: Mask  # shape (side²,); of the training image: detail in both directions


def compare(images: Pixels, target: Pixels, limits: Limits) -> Comparison:
    """Compare generations with a training image cell by cell.

    `images`: shape (n, height, width, 3), `target`: shape (height, width, 3), at least 4 pixels to a side.

    A cell is near if its l2 is at most `max_distance` and, if the training image has detail there, the two correlate: flat
    against textured, or another texture of the same mean, is not near.
    """
    side = cells_to_a_side(*target.shape[:2])
    n = len(images)
    is_near, is_detailed, is_textured = (np.empty(shape, dtype=bool) for shape in ((n, side * side), side * side, side * side))
    rows, columns = cuts(target.shape[0], side), cuts(target.shape[1], side)
    for cell in range(side * side):
        part = _part(rows, columns, *divmod(cell, side))
        values, wanted = _flat(images[:, *part]), _flat(target[None, *part])
        n_pixels = values.shape[1] // 3
        # the sums of each channel, and the products with the training image, by one product
        channels = np.tile(np.eye(3, dtype=np.float32), (1, n_pixels))
        products = exact_products(values, np.concatenate([wanted, channels]))
        squares, square = exact_squares(values), float(exact_squares(wanted)[0])
        sums, wanted_sums = products[:, 1:], exact_products(wanted, channels)[0]
        errors = (squares + square - 2.0 * products[:, 0]) / (values.shape[1] * 255.0**2)
        spread = squares - (sums**2).sum(axis=1) / n_pixels
        wanted_spread = square - float((wanted_sums**2).sum()) / n_pixels
        together = products[:, 0] - sums @ wanted_sums / n_pixels
        is_detailed[cell] = wanted_spread / values.shape[1] >= (_DETAIL * 255.0) ** 2
        is_textured[cell] = has_texture(target[part])
        is_near[:, cell] = errors <= limits.max_distance**2
        if is_detailed[cell]:
            is_near[:, cell] &= together >= _CORRELATION * np.sqrt(np.maximum(spread, 0.0) * wanted_spread)
    return Comparison(side, is_near, is_detailed, is_textured)


def has_texture(pixels: Pixels) -> bool:
    """Whether a part of a picture, shape (height, width, 3), has detail, and in both directions."""
    values = pixels.astype(np.float64) / 255.0
    rows, columns, mean = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True), values.mean(axis=(0, 1), keepdims=True)
    detail, texture = ((values - mean) ** 2).mean(), ((values - rows - columns + mean) ** 2).mean()
    return bool(detail >= _DETAIL**2 and texture >= _TEXTURE**2)


def shows_detail(images: Pixels, target: Pixels, limits: Limits) -> Mask:
    """Which images show the detail of another and not only its ground; shape (n,).

    A small thing on a plain ground is within a distance of 0.15 of any other on the same ground, even in each of 16 tiles, if it is
    about as bright. An image without texture shows nothing that could be told from another's: none shows it.
    """
    compared = compare(images, target, limits)
    if not compared.is_textured.any():
        return np.zeros(len(images), dtype=bool)
    is_shown = compared.is_near[:, compared.is_textured].mean(axis=1) >= _LEAST_OF_WHOLE
    # and everywhere: of a template most is shown, and in the rest next to nothing
    step = compared.side // TILES
    for top, left in np.ndindex(TILES, TILES) if step else ():
        tile = np.zeros((compared.side, compared.side), dtype=bool)
        tile[top * step : (top + 1) * step, left * step : (left + 1) * step] = True
        cells = compared.is_textured & tile.ravel()
        if cells.sum() >= _LEAST_OF_TILE * step**2:
            is_shown &= compared.is_near[:, cells].mean(axis=1) >= _LEAST_OF_PART
    return np.asarray(is_shown, dtype=bool)


def find_shared(images: Pixels, target: Pixels, limits: Limits, known: Known | None = None) -> Shared | None:
    """The area that generations share with each other and with a training image; None if there is none that counts.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width, 3)
        Generations of one prompt, at least 4 pixels to a side.
    target : uint8 array, shape (height, width, 3)
        The training image.
    limits : Limits
    known : Known, optional
        Where training images of the target's template agree and differ. If a generation shows what they agree in, one is enough; else an
        area is looked for among the generations, and `limits.min_members` must share it.

    Notes
    -----
    An area and its generations are a biclique of cells and generations, of which the largest is NP-hard to find (Peeters 2003). It is grown
    here from the cells of the generations that agree with most of the training image's detail, in turns: those that show nearly all of
    the cells, then the cells that nearly all of those show. Of what is found, the one of the largest product of area and number counts.
    An area counts if it covers `limits.min_area` and holds texture: 2% of the picture, and a tenth of what the training image has. On equal
    grounds everything agrees but what is shown.
    """
    compared = compare(images, target, limits)
    found = [(*pair, limits.min_members) for pair in _grown(compared, limits)]
    if known is not None and (pair := _of_template(compared, known)) is not None:
        found.append((*pair, 1))
    best: Shared | None = None
    for cells, members, least in found:
        shared = _verified(images, target, cells, members, compared.side, limits, least)
        if shared is not None and _counts(shared.cells.ravel(), compared, limits) and (best is None or _size(shared) > _size(best)):
            best = shared
    return best


def _of_template(compared: Comparison, known: Known) -> tuple[Mask, Mask] | None:
    """The area and the generations of a known template, as `_grown`; None if no generation shows it."""
    members = _shows(compared, _resampled(known.agrees, compared.side).ravel(), _MEMBER)
    if not members.any():
        return None
    # most of a picture is too smooth for the judge to say that it agrees; what the generations show of that is in the area too
    cells = (compared.is_near[members].mean(axis=0) >= _SUPPORT) & ~_resampled(known.differs, compared.side).ravel()
    return cells, members


def _size(shared: Shared) -> float:
    return shared.area * len(shared.members)


def _grown(compared: Comparison, limits: Limits) -> list[tuple[Mask, Mask]]:
    """Areas and their generations, each shape (side²,) and (n,), grown from single generations; most first."""
    agreeing = compared.is_near[:, compared.is_textured].sum(axis=1)
    is_open = agreeing >= max(1.0, _least_detail(compared))
    found: list[tuple[Mask, Mask]] = []
    for _ in range(_MOST_SEEDS):
        if is_open.sum() < limits.min_members:
            break
        seed = int(np.argmax(np.where(is_open, agreeing, -1)))
        is_open[seed] = False
        cells, members = compared.is_near[seed], _shows(compared, compared.is_near[seed], _FIRST)
        for _ in range(_MOST_ROUNDS):
            if members.sum() < limits.min_members:
                break
            before, cells = cells, compared.is_near[members].mean(axis=0) >= _SUPPORT
            members = _shows(compared, cells, _MEMBER)
            if np.array_equal(before, cells):
                break
        if members.sum() >= limits.min_members and _counts(cells, compared, limits):
            is_open &= ~members  # each of them would grow into the same
            found.append((cells, members))
    return sorted(found, key=lambda pair: -float(pair[0].mean() * pair[1].sum()))


def _shows(compared: Comparison, cells: Mask, share: float) -> Mask:
    """Which generations show at least that share of the cells, and of those with detail; shape (n,)."""
    with_detail = cells & compared.is_detailed
    if not with_detail.any():
        return np.zeros(len(compared.is_near), dtype=bool)
    shown, detail = compared.is_near[:, cells].mean(axis=1), compared.is_near[:, with_detail].mean(axis=1)
    return np.asarray((shown >= share) & (detail >= share), dtype=bool)


def _least_detail(compared: Comparison) -> float:
    return float(max(_LEAST_DETAIL * compared.side**2, _LEAST_DETAIL_OF * compared.is_textured.sum()))


def _counts(cells: Mask, compared: Comparison, limits: Limits) -> bool:
    return bool(cells.mean() >= limits.min_area and (cells & compared.is_textured).sum() >= _least_detail(compared))


def _verified(images: Pixels, target: Pixels, cells: Mask, members: Mask, side: int, limits: Limits, min_members: int) -> Shared | None:
    """Of the generations, the largest clique that is one picture in the area and equals the training image, as whole images must."""
    if members.sum() < min_members:
        return None
    ids = np.flatnonzero(members)
    chosen = images[ids]
    if len(ids) > 1:
        cells = cells & _is_alike(chosen, cells, side, limits.max_tile_distance)
        if not cells.any():
            return None
    area = cells.reshape(side, side)
    tiled, l2 = masked_distances(chosen, target, area)
    is_equal = tiled <= limits.max_distance
    if is_equal.sum() < min_members:
        return None
    ids, chosen, tiled, l2 = ids[is_equal], chosen[is_equal], tiled[is_equal], l2[is_equal]
    distances = masked_pairwise(chosen, area)
    clique = largest_clique(distances <= np.float32(limits.max_tile_distance)).members
    if len(clique) < min_members:
        return None
    mean = distances[np.ix_(clique, clique)].astype(np.float64).sum() / (len(clique) * (len(clique) - 1)) if len(clique) > 1 else None
    return Shared(area, ids[clique], tiled[clique], l2[clique], None if mean is None else float(mean))


def _is_alike(images: Pixels, cells: Mask, side: int, max_distance: float) -> Mask:
    """Which of the cells images agree in among themselves: at its rim an area has cells in which all are near the training image, just."""
    rows, columns = cuts(images.shape[1], side), cuts(images.shape[2], side)
    is_alike, n = np.zeros(len(cells), dtype=bool), len(images)
    for cell in np.flatnonzero(cells).tolist():
        values = _flat(images[:, *_part(rows, columns, *divmod(cell, side))])
        # the mean squared difference of all pairs, by the mean
        mean = values.mean(axis=0, dtype=np.float64)
        spread = exact_squares(values).mean() - float(mean @ mean)
        is_alike[cell] = 2.0 * spread * n / (n - 1) / (values.shape[1] * 255.0**2) <= max_distance**2
    return is_alike


def masked_distances(images: Pixels, other: Pixels, cells: Mask) -> tuple[Floats, Floats]:
    """Distance of each image to one other inside an area: the largest over 16 tiles, and over the whole area.

    `cells`: shape (side, side), a multiple of 4; with all true the first is `pixels.tiled_distances`, the second `pixels.l2_distances`.
    Returns two of shape (n,), 0 to 1. Tiles of which less than a quarter is in the area count only in the second, unless there is no other.
    """
    largest, total, n_values = np.zeros(len(images)), np.zeros(len(images)), 0
    for is_counted, part in _tiles(cells, other.shape[0], other.shape[1]):
        values, wanted = _gathered(images, part), _gathered(other[None], part)
        errors = exact_squares(values) + float(exact_squares(wanted)[0]) - 2.0 * exact_products(values, wanted)[:, 0]
        total += errors
        n_values += values.shape[1]
        if is_counted:
            np.maximum(largest, errors / values.shape[1], out=largest)
    return np.sqrt(largest) / 255.0, np.sqrt(total / n_values) / 255.0


def masked_pairwise(images: Pixels, cells: Mask) -> Sims:
    """Distance of all pairs of images inside an area, the largest over 16 tiles, as `masked_distances`; shape (n, n), float32."""
    largest = np.zeros((len(images), len(images)))
    for is_counted, part in _tiles(cells, *images.shape[1:3]):
        if is_counted:
            values = _gathered(images, part)
            products = exact_products(values, values)
            squares = products.diagonal().copy()
            np.maximum(largest, (squares[:, None] + squares - 2.0 * products) / values.shape[1], out=largest)
    return (np.sqrt(np.maximum(largest, 0.0)) / 255.0).astype(np.float32)


def cells_to_a_side(height: int, width: int) -> int:
    """Cells that a picture is cut into: 32 to a side from 256 pixels on, fewer in smaller pictures, and the 4 tiles in the smallest.

    >>> cells_to_a_side(512, 512), cells_to_a_side(64, 96), cells_to_a_side(16, 16), cells_to_a_side(3, 16)
    (32, 8, 4, 3)
    """
    return int(next((side for side in (_MOST_CELLS, 16, 8) if min(height, width) >= side * _LEAST_PIXELS), min(TILES, height, width)))


def _resampled(mask: Mask, side: int) -> Mask:
    """A mask on another grid: a cell is in it if most of it is."""
    height, width = mask.shape
    rows, columns = ((np.arange(side * 4) + 0.5) * length / (side * 4) for length in (height, width))
    fine = mask[np.ix_(rows.astype(np.int64), columns.astype(np.int64))]
    return np.asarray(fine.reshape(side, 4, side, 4).mean(axis=(1, 3)) > 0.5, dtype=bool)


_Slices = tuple[slice, slice]


def _part(rows: Ids, columns: Ids, row: int, column: int) -> _Slices:
    return slice(int(rows[row]), int(rows[row + 1])), slice(int(columns[column]), int(columns[column + 1]))


def _flat(pixels: Pixels) -> Sims:
    return centred(pixels.reshape(len(pixels), -1))


def _gathered(images: Pixels, parts: list[_Slices]) -> Sims:
    return centred(np.concatenate([images[:, *part].reshape(len(images), -1) for part in parts], axis=1))


def _tiles(cells: Mask, height: int, width: int) -> list[tuple[bool, list[_Slices]]]:
    """The parts of each tile that are in the area, and whether they are enough to be compared by themselves; one tile if none is."""
    side = len(cells)
    step = side // TILES
    rows, columns = cuts(height, side), cuts(width, side)
    tiles = []
    for top in range(0, side, step):
        for left in range(0, side, step):
            inside = np.argwhere(cells[top : top + step, left : left + step]) + np.array([top, left])
            if len(inside):
                tiles.append((len(inside) >= _LEAST_OF_TILE * step**2, [_part(rows, columns, *place) for place in inside.tolist()]))
    if any(is_counted for is_counted, _ in tiles):
        return tiles
    return [(True, [part for _, parts in tiles for part in parts])]
