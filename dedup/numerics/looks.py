"""Second looks: vectors of the picture inside its frame, of crops, and of turned copies, from descriptors alone.

A crop keeps the low frequencies of a picture, so the low DCT coefficients of a crop follow from the 256 that a
descriptor holds: one matrix for each crop, and no pixel is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dedup.numerics.descriptor import CHROMA_SIDE, DIM, GRID, LUMA_SIDE, VARIANTS, dct_matrix, grid_matrix
from dedup.numerics.orientation import DIM as LOOK_DIM
from dedup.numerics.orientation import SIDES, look_turn, orient
from dedup.numerics.rotation import DISC_DIM, disc_looks

Box = tuple[float, float, float, float]
WHOLE, INNER, CROP, DISC = 0, 1, 2, 3
_FULL: Box = (0.0, 0.0, 1.0, 1.0)
# One look meets copies that keep 93 to 107% of its sides at similarity 0.82, so these reach from 71% to the whole.
_CENTRED = (0.87, 0.75)
# Of the whole picture only, and in one orientation each, or there would be too many: crops against two edges, what a
# caption over the top or the bottom leaves, and colourful pictures without their colour.
_CORNERS = (0.92, 0.82)
_LEFT_BY_CAPTION = 0.81
_ONE_ORIENTATION = 0.0  # factor on the orientation's margins
_COLOURFUL = 0.2  # share of chroma in a vector's squared norm: a grey copy is at 0.89, less what else was done to it
_LEAST_ENERGY = 0.05  # of a picture that a crop must hold: what is left else is ground


@dataclass(frozen=True)
class LookRows:
    """Looks of some images.

    Parameters
    ----------
    image : int64 array, shape (n,)
        Position of the image, ascending.
    kind : int8 array, shape (n,)
        `WHOLE`, `INNER` (the picture inside a frame), `CROP` (of either, or the whole without colour) or `DISC` (about the
        middle, at no angle).
    orientation : int8 array, shape (n,)
        How the image was turned, in the order of `VARIANTS`.
    is_base : bool array, shape (n,)
        Whether others are searched for it: whole and inner pictures in canonical orientation, and discs. The other rows are only
        compared with these.
    vectors : float32 array, shape (n, dim)
        Unit rows.
    """

    image: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    orientation: npt.NDArray[np.int8]
    is_base: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float32]


# Whole pictures' vectors, those of pictures inside frames, which image each of the latter is of, and width / height.
LookMaker = Callable[[npt.NDArray[np.floating], npt.NDArray[np.floating], npt.NDArray[np.int64], npt.NDArray[np.floating]], LookRows]


def centre(share: float) -> Box:
    """The middle of a picture: left, top, right, bottom as shares of its sides."""
    return (1 - share) / 2, (1 - share) / 2, (1 + share) / 2, (1 + share) / 2


@lru_cache(maxsize=64)
def _crop_matrices(box: Box) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Coefficients of a crop from those of the picture: luma (256, 100) and chroma (64, 25)."""
    left, top, right, bottom = box
    dct = dct_matrix().astype(np.float64)
    down = dct[: SIDES[0]] @ grid_matrix(GRID, top * GRID, bottom * GRID) @ dct.T
    across = dct[: SIDES[0]] @ grid_matrix(GRID, left * GRID, right * GRID) @ dct.T
    luma = np.einsum("ai,bj->ijab", down, across).reshape(LUMA_SIDE**2, SIDES[0] ** 2)
    small = SIDES[1]
    chroma = np.einsum("ai,bj->ijab", down[:small, :CHROMA_SIDE], across[:small, :CHROMA_SIDE]).reshape(CHROMA_SIDE**2, small**2)
    return luma.astype(np.float32), chroma.astype(np.float32)


def crop_looks(descriptors: npt.NDArray[np.floating], box: Box = _FULL) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The look of a part of each picture.

    Parameters
    ----------
    descriptors : float array, shape (n, DIM)
        Of the pictures, as `describe_grids` gives them.
    box : tuple of float
        Left, top, right, bottom as shares of the sides.

    Returns
    -------
    looks : float32 array, shape (n, dim)
        Unit rows: signed square roots of 100 luma coefficients (the constant one left out), 25 Cb, 25 Cr.
    is_usable : bool array, shape (n,)
        Whether the part holds anything of the picture.

    Notes
    -----
    Within 0.98 (its 1% quantile on photos) of the look of the cropped pixels down to 76% of each side.
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
    # square roots make the norm of a descriptor the sum of its coefficients' sizes, which is 1
    is_usable: npt.NDArray[np.bool_] = energy > _LEAST_ENERGY
    looks = np.sign(flat) * np.sqrt(np.abs(flat) / np.maximum(energy, 1e-12)[:, None])
    return looks.astype(np.float32, copy=False), is_usable


def look_rows(
    whole: npt.NDArray[np.floating],
    inner: npt.NDArray[np.floating],
    inner_of: npt.NDArray[np.int64],
    aspect: npt.NDArray[np.floating],
) -> LookRows:
    """All looks of some images.

    Parameters
    ----------
    whole : float array, shape (n, DIM)
        Descriptors of the images.
    inner : float array, shape (m, DIM)
        Descriptors of the pictures inside a frame.
    inner_of : int64 array, shape (m,)
        Which image each of them is of.
    aspect : float array, shape (n,)
        Width / height of each image.

    Returns
    -------
    LookRows
        By image, then in a fixed order.
    """
    images = np.arange(len(whole), dtype=np.int64)
    views: list[tuple[npt.NDArray[np.floating], npt.NDArray[np.int64], int, Box, float]] = []
    for pictures, of, kind in ((whole, images, WHOLE), (inner, inner_of, INNER)):
        views.append((pictures, of, kind, _FULL, 1.0))
        views += [(pictures, of, CROP, centre(share), 1.0) for share in _CENTRED]
    boxes = [(x, y, x + share, y + share) for share in _CORNERS for x in (0.0, 1 - share) for y in (0.0, 1 - share)]
    boxes += [(0.0, y, 1.0, y + _LEFT_BY_CAPTION) for y in (0.0, 1 - _LEFT_BY_CAPTION)]
    views += [(whole, images, CROP, box, _ONE_ORIENTATION) for box in boxes]
    chroma = whole[:, LUMA_SIDE**2 :]
    colourful = np.flatnonzero(np.einsum("ij,ij->i", chroma, chroma) > _COLOURFUL)
    grey = whole[colourful]
    grey[:, LUMA_SIDE**2 :] = 0.0
    views.append((grey, colourful, CROP, _FULL, _ONE_ORIENTATION))
    columns: list[tuple[npt.NDArray[np.generic], ...]] = []
    for pictures, of, kind, box, margin in views:
        looks, is_usable = crop_looks(pictures, box)
        asked = orient(looks, margin)
        for number, name in enumerate(VARIANTS):
            rows = np.flatnonzero((asked[:, number] > 0) & is_usable)
            source, sign = look_turn(name)
            n = len(rows)
            is_base = (asked[rows, number] == 2) & (kind != CROP)
            columns.append((of[rows], np.full(n, kind, np.int8), np.full(n, number, np.int8), is_base, looks[rows][:, source] * sign))
    discs, is_usable = disc_looks(whole, aspect)
    rows = np.flatnonzero(is_usable)
    padded = np.pad(discs[rows], ((0, 0), (0, LOOK_DIM - DISC_DIM)))
    none = np.zeros(len(rows), np.int8)
    columns.append((rows, none + np.int8(DISC), none, np.ones(len(rows), bool), padded))
    image, kinds, orientation, is_base, vectors = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(image, kind="stable")
    return LookRows(image[order], kinds[order], orientation[order], is_base[order], vectors[order])
