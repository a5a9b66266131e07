"""Views of an image: vectors of its parts and turns, by which crops, framed, mirrored and turned copies are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Ids, Mask, Rows32, Vectors
from dedup.numerics.image.descriptor import CHROMA_SIDE, DIM, GRID, LUMA_SIDE, VARIANTS, dct_matrix, grid_matrix, square_map

Box = tuple[float, float, float, float]
WHOLE, INNER, CROP, DISC = 0, 1, 2, 3
_FULL: Box = (0.0, 0.0, 1.0, 1.0)

# At similarity 0.82 a view matches copies with 93 to 107% of its sides, so these reach from 71% to the whole.
_CENTRED = (0.87, 0.75)

# Of the whole picture only, and in one orientation each, or there would be too many: crops against two edges, what a
# caption over the top or the bottom leaves, and colourful pictures without their colour.
_CORNERS = (0.92, 0.82)
_LEFT_BY_CAPTION = 0.81
_ONE_ORIENTATION = 0.0  # factor on the orientation's margins
_COLOURFUL = 0.2  # share of chroma in a vector's squared norm: its grey copy has similarity 0.89, less for further changes
_LEAST_ENERGY = 0.05  # of a picture that a crop must hold; crops with less are mere ground
SIDES = (10, 5, 5)  # squares of luma, Cb and Cr coefficients that a view holds
VIEW_DIM = sum(side * side for side in SIDES)

# Beyond these margins, copies whose views have similarity 0.82 or more are oriented otherwise than their picture in one of 200 cases.
SIGN_MARGIN = 0.007
ENERGY_MARGIN = 0.055
_NAMES = tuple(VARIANTS)

# Discs: values on circles about the middle, as harmonics.
DISC_DIM = 147
_RADII = 7
_ANGLES = 32
_HARMONICS = 6  # of luma
_CHROMA_HARMONICS = 3  # at every other radius
_SHARE = (np.arange(_RADII) + 0.7) / _RADII * 0.97  # of the largest radius that fits
_ASPECT_STEP = 0.05  # of the logarithm of width / height, within which matrices are shared
_LEAST_STEPS, _MOST_SQUARED = 3, 14  # from square: less is found as it is, of more (1 : 2) too little is left
_MOST_STEPS = 30  # more extreme aspect ratios than 1 : 4.5 are treated as that
_LEAST_DIRECTION = 1e-3  # of the mean size of the values: what the first harmonic needs to tell a direction


@dataclass(frozen=True)
class ViewRows:
    """Views of some images."""

    image: Ids  # shape (n,); position of the image, ascending
    # shape (n,); `WHOLE`, `INNER` (the picture inside a frame), `CROP` (of either, or the whole without colour) or `DISC` (about the
    # middle, independent of the angle)
    kind: npt.NDArray[np.int8]
    orientation: npt.NDArray[np.int8]  # shape (n,); how the image was turned, in the order of `VARIANTS`
    # shape (n,); whether the row is compared with all others: whole and inner pictures in canonical orientation, and discs. The other
    # rows are only compared with these.
    is_base: Mask
    vectors: Rows32  # shape (n, dim); unit rows


# Takes the vectors of whole pictures and of pictures inside frames, the image that each of the latter is of, and width / height.
ViewMaker = Callable[[Vectors, Vectors, Ids, Vectors], ViewRows]


def view_rows(whole: Vectors, inner: Vectors, inner_of: Ids, aspect: Vectors) -> ViewRows:
    """All views of some images.

    `whole`: shape (n, DIM); descriptors of the images.
    `inner`: shape (m, DIM); descriptors of the pictures inside a frame.
    `inner_of`: shape (m,); the image that each of these is of.
    `aspect`: shape (n,); width / height of each image.
    Returns them by image, then in a fixed order.
    """
    images = np.arange(len(whole), dtype=np.int64)
    parts: list[tuple[Vectors, Ids, int, Box, float]] = []
    parts += [(whole, images, WHOLE, _FULL, 1.0), (inner, inner_of, INNER, _FULL, 1.0)]
    first = np.flatnonzero(np.diff(inner_of, prepend=-1))  # of an image, most often what lies inside its frame
    for pictures, image_of in ((whole, images), (inner[first], inner_of[first])):
        parts += [(pictures, image_of, CROP, centre(share), 1.0) for share in _CENTRED]
    boxes = [(x, y, x + share, y + share) for share in _CORNERS for x in (0.0, 1 - share) for y in (0.0, 1 - share)]
    boxes += [(0.0, y, 1.0, y + _LEFT_BY_CAPTION) for y in (0.0, 1 - _LEFT_BY_CAPTION)]
    parts += [(whole, images, CROP, box, _ONE_ORIENTATION) for box in boxes]
    parts += [(whole[rows], rows, CROP, box, _ONE_ORIENTATION) for rows, box in _squares(aspect)]
    chroma = whole[:, LUMA_SIDE**2 :]
    colourful = np.flatnonzero(np.einsum("ij,ij->i", chroma, chroma) > _COLOURFUL)
    grey = whole[colourful]
    grey[:, LUMA_SIDE**2 :] = 0.0
    parts.append((grey, colourful, CROP, _FULL, _ONE_ORIENTATION))
    columns: list[tuple[npt.NDArray[np.generic], ...]] = []
    for pictures, image_of, kind, box, margin in parts:
        views, is_usable = crop_views(pictures, box)
        orientations = orient(views, margin)
        for number, name in enumerate(VARIANTS):
            rows = np.flatnonzero((orientations[:, number] > 0) & is_usable)
            source, sign = view_turn(name)
            n = len(rows)
            is_base = (orientations[rows, number] == 2) & (kind != CROP)
            columns.append((image_of[rows], np.full(n, kind, np.int8), np.full(n, number, np.int8), is_base, views[rows][:, source] * sign))
    discs, is_usable = disc_views(whole, aspect)
    rows = np.flatnonzero(is_usable)
    padded = np.pad(discs[rows], ((0, 0), (0, VIEW_DIM - DISC_DIM)))
    unturned = np.zeros(len(rows), np.int8)
    columns.append((rows, np.full(len(rows), DISC, np.int8), unturned, np.ones(len(rows), bool), padded))
    image, kinds, orientation, is_base, vectors = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(image, kind="stable")
    return ViewRows(image[order], kinds[order], orientation[order], is_base[order], vectors[order])


def _squares(aspect: Vectors) -> Iterator[tuple[Ids, Box]]:
    """The square in the middle of each image that is none itself, which collages and profiles show; images of one shape together."""
    steps = np.round(np.log(np.maximum(aspect, 1e-6)) / _ASPECT_STEP).astype(np.int64)
    for step in np.unique(steps[(np.abs(steps) >= _LEAST_STEPS) & (np.abs(steps) <= _MOST_SQUARED)]).tolist():
        width, height = max(1.0, np.exp(step * _ASPECT_STEP)), max(1.0, np.exp(-step * _ASPECT_STEP))
        x, y = (1.0 - 1.0 / width) / 2, (1.0 - 1.0 / height) / 2
        yield np.flatnonzero(steps == step), (x, y, 1.0 - x, 1.0 - y)


def centre(share: float) -> Box:
    """The middle of a picture: left, top, right, bottom as shares of its sides."""
    return (1 - share) / 2, (1 - share) / 2, (1 + share) / 2, (1 + share) / 2


def crop_views(descriptors: Vectors, box: Box = _FULL) -> tuple[Rows32, Mask]:
    """The view of a part of each picture.

    `descriptors`: shape (n, DIM); of the pictures, as `describe_grids` gives them.
    `box`: left, top, right, bottom as shares of the sides.
    Returns `views`: shape (n, dim); unit rows: signed square roots of 100 luma coefficients (the constant one left out), 25 Cb, 25 Cr.
    Returns `is_usable`: shape (n,); whether the part holds anything of the picture.

    Down to 76% of each side its similarity with the view of the cropped pixels is 0.98 or more (1% quantile on photos).
    """
    signed = np.asarray(descriptors, dtype=np.float32)
    coefficients = signed * np.abs(signed)
    luma, chroma = _crop_matrices(box)
    edge = LUMA_SIDE**2
    parts = [coefficients[:, :edge] @ luma]
    parts += [coefficients[:, start : start + CHROMA_SIDE**2] @ chroma for start in range(edge, DIM, CHROMA_SIDE**2)]
    flat = np.concatenate(parts, axis=1)
    flat[:, 0] = 0.0
    energy = np.abs(flat).sum(axis=1)
    # the squared norm of a descriptor, 1, is the sum of its coefficients' sizes
    is_usable: Mask = energy > _LEAST_ENERGY
    views = np.sign(flat) * np.sqrt(np.abs(flat) / np.maximum(energy, 1e-12)[:, None])
    return views.astype(np.float32, copy=False), is_usable


@lru_cache(maxsize=64)
def _crop_matrices(box: Box) -> tuple[Rows32, Rows32]:
    """Coefficients of a crop from those of the picture: luma (256, 100) and chroma (64, 25)."""
    left, top, right, bottom = box
    dct = dct_matrix().astype(np.float64)
    down = dct[: SIDES[0]] @ grid_matrix(GRID, top * GRID, bottom * GRID) @ dct.T
    across = dct[: SIDES[0]] @ grid_matrix(GRID, left * GRID, right * GRID) @ dct.T
    luma = np.einsum("ai,bj->ijab", down, across).reshape(LUMA_SIDE**2, SIDES[0] ** 2)
    small = SIDES[1]
    chroma = np.einsum("ai,bj->ijab", down[:small, :CHROMA_SIDE], across[:small, :CHROMA_SIDE]).reshape(CHROMA_SIDE**2, small**2)
    return luma.astype(np.float32), chroma.astype(np.float32)


def orient(views: Rows32, margin: float = 1.0) -> npt.NDArray[np.int8]:
    """Decide which turn brings each view to its canonical orientation, and which would for a near copy.

    `views`: shape (n, VIEW_DIM); unit rows.
    `margin`: factor on the margins within which a near copy may be decided otherwise; 0 = never.
    Returns shape (n, 8); for each way to turn a view, in the order of `VARIANTS`: 2 if that makes it canonical (exactly one does), 1 if
    it may do so for a near copy, otherwise 0.

    Turning a view turns the result with it: `views` turned by g are canonical after h if and only if `views` are canonical
    after g followed by h, unless a number is exactly zero.
    """
    to_columns, to_rows, to_energy = _weights()
    signed = views * np.abs(views)
    columns, rows = signed @ to_columns, signed @ to_rows
    energy = np.square(views) @ to_energy
    decisions = np.zeros((len(views), len(_NAMES)), dtype=np.int8)
    for place, name in enumerate(_NAMES):
        is_transposed, rows_reversed, columns_reversed = VARIANTS[name]
        # transposing comes first and swaps the two sums
        along_columns, along_rows = (rows, columns) if is_transposed else (columns, rows)
        canonical, possible = np.ones(len(views), dtype=bool), np.ones(len(views), dtype=bool)
        for sums, is_turned, width in (
            (energy, is_transposed, ENERGY_MARGIN),
            (along_columns, columns_reversed, SIGN_MARGIN),
            (along_rows, rows_reversed, SIGN_MARGIN),
        ):
            agrees = (sums < 0.0) == is_turned
            canonical &= agrees
            possible &= agrees | (np.abs(sums) < margin * width)
        decisions[:, place] = possible
        decisions[canonical, place] = 2
    return decisions


@lru_cache(maxsize=1)
def _weights() -> Rows32:
    """Weights of the signed squares in the sums that reversing columns or rows negates, and of the squares in the energy."""
    columns, rows, energy = [], [], []
    for side in SIDES:
        i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        frequency = np.maximum(i + j, 1).astype(np.float64)
        # low frequencies survive a crop, so they weigh more; only even ones along the other axis, whose reversal changes nothing
        column = ((j % 2 == 1) & (i % 2 == 0)) / frequency**2
        columns.append(column.ravel())
        rows.append(column.T.ravel())
        energy.append(((i - j) / frequency).ravel())
    return np.stack([np.concatenate(part) for part in (columns, rows, energy)]).astype(np.float32)


@lru_cache(maxsize=8)
def view_turn(name: str) -> tuple[npt.NDArray[np.intp], Rows32]:
    """How the view of a turned picture follows from that of the picture; see `dedup.numerics.image.descriptor.square_map`."""
    return square_map(name, SIDES)


@lru_cache(maxsize=1)
def relative_turns() -> npt.NDArray[np.int8]:
    """How one picture is turned to match another, from how each is turned to match the same view.

    Returns shape (8, 8); entry [a, b], all in the order of `VARIANTS`: turned by it, a picture that a makes canonical has the
    orientation of one that b makes canonical.
    """
    probe = np.arange(1, VIEW_DIM + 1, dtype=np.float32)
    turned = np.stack([probe[source] * sign for source, sign in map(view_turn, _NAMES)])
    table = np.empty((len(_NAMES), len(_NAMES)), dtype=np.int8)
    for b, name in enumerate(_NAMES):
        source, sign = view_turn(name)
        # turning a picture by g and then by b is the same as turning it by a
        for a in range(len(_NAMES)):
            table[a, b] = int(np.argmax((turned[:, source] * sign == turned[a]).all(axis=1)))
    return table


def disc_views(descriptors: Vectors, aspect: Vectors) -> tuple[Rows32, Mask]:
    """The view of each picture's disc.

    `descriptors`: shape (n, DIM); of whole pictures.
    `aspect`: shape (n,); width / height of each, which the descriptor's square grid does not keep.
    Returns `views`: shape (n, DISC_DIM); unit rows.
    Returns `is_usable`: shape (n,); whether the disc has a direction.
    Raises ShapeError if the shapes do not match.

    >>> from dedup.numerics.image.descriptor import describe
    >>> noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    >>> picture = np.kron(noise, np.ones((16, 16, 1), dtype=np.uint8))
    >>> rows = np.stack([describe(picture)[0], describe(np.rot90(picture))[0]])
    >>> views, _ = disc_views(rows, np.ones(2))
    >>> bool(views[0] @ views[1] > 0.999)
    True
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != DIM or aspect.shape != (len(descriptors),):
        raise ShapeError(f"expected (n, {DIM}) and (n,), found {descriptors.shape} and {aspect.shape}")
    signed = np.asarray(descriptors, dtype=np.float32)
    coefficients = signed * np.abs(signed)
    steps = np.round(np.log(np.maximum(aspect, 1e-6)) / _ASPECT_STEP).clip(-_MOST_STEPS, _MOST_STEPS).astype(np.int64)
    edges = (0, LUMA_SIDE**2, LUMA_SIDE**2 + CHROMA_SIDE**2, DIM)
    circles = np.empty((len(signed), 3, _RADII, _ANGLES), dtype=np.float32)
    for step in np.unique(steps).tolist():
        rows = np.flatnonzero(steps == step)
        luma, chroma = _sampling(step)
        for plane, matrix in enumerate((luma, chroma, chroma)):
            circles[rows, plane] = (coefficients[rows, edges[plane] : edges[plane + 1]] @ matrix.T).reshape(-1, _RADII, _ANGLES)
    spectrum = np.fft.rfft(circles, axis=3)[..., : _HARMONICS + 1] / _ANGLES
    direction = (spectrum[:, 0, :, 1] * _SHARE**2).sum(axis=1)
    is_usable = np.abs(direction) > _LEAST_DIRECTION * np.abs(circles[:, 0]).mean(axis=(1, 2))
    rotation = np.exp(-1j * np.angle(direction)[:, None] * np.arange(_HARMONICS + 1))
    spectrum = spectrum * rotation[:, None, None, :] * np.sqrt(_SHARE)[:, None]
    luma_part, chroma_part = spectrum[:, 0], spectrum[:, 1:, ::2, : _CHROMA_HARMONICS + 1]
    level = (luma_part[:, :, 0].real * np.sqrt(_SHARE)).sum(axis=1) / _SHARE.sum()
    parts = [luma_part[:, :, 0].real - level[:, None] * np.sqrt(_SHARE), chroma_part[..., 0].real]
    parts += [part for block in (luma_part[:, :, 1:], chroma_part[..., 1:]) for part in (block.real, block.imag)]
    flat = np.concatenate([part.reshape(len(signed), -1) for part in parts], axis=1)
    views = np.sign(flat) * np.sqrt(np.abs(flat))
    norms = np.linalg.norm(views, axis=1)
    is_usable &= norms > 0.0
    return (views / np.where(norms > 0.0, norms, 1.0)[:, None]).astype(np.float32), is_usable


@lru_cache(maxsize=2 * _MOST_STEPS + 1)
def _sampling(step: int) -> tuple[Rows32, Rows32]:
    """Values on the circles from the DCT coefficients: (radii * angles, 256) of luma and (…, 64) of chroma."""
    width, height = np.exp(step * _ASPECT_STEP), 1.0
    radius = _SHARE[:, None] * min(width, height) / 2
    angle = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    across, down = 0.5 + radius * np.cos(angle) / width, 0.5 + radius * np.sin(angle) / height

    def waves(place: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = np.cos(np.pi * np.arange(side) * place[..., None]) * np.sqrt(2.0 / GRID)
        values[..., 0] /= np.sqrt(2.0)
        return values

    matrices = [
        np.einsum("rti,rtj->rtij", waves(down, side), waves(across, side)).reshape(_RADII * _ANGLES, side * side)
        for side in (LUMA_SIDE, CHROMA_SIDE)
    ]
    return matrices[0].astype(np.float32), matrices[1].astype(np.float32)
