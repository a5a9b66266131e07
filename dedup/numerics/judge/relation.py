"""What two registered pictures are to each other: copies, part and whole, two of one template, two shots of a scene, or neither."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np

from dedup.numerics.arraytypes import Pixels
from dedup.numerics.judge.content import CELL, Content
from dedup.numerics.judge.picture import Matrix
from dedup.numerics.judge.register import compose

Relation = Literal["copy", "part", "template", "scene", "different"]

RELATIONS: Final[dict[Relation, str]] = {
    "copy": "one picture, however reproduced",
    "part": "one lies inside the other, which shows more: a crop, a screenshot, a picture on a page",
    "template": "one layout or ground, on which something else is written, drawn or shown",
    "scene": "one place or thing, at another moment or with something else in it",
    "different": "neither",
}

_PART = 0.6  # of the picture that shows more: what shares less is a part of it
_LEAST_DETAIL = 40  # cells in which there is something to compare
_LEAST_AGREEING = 0.3  # share of them that show the same in pictures of one template or scene
_RATHER_DRAWN = 0.95  # from which no camera made them; copies are held to the stricter rule only from `DRAWN` on
_EXACT = 0.0065  # of the contrast: what differs by less is one file's ground; a camera never sees a place twice so alike
MASK_SIDE: Final = 64  # pixels to a side of a mask
AGREES, NEITHER, DIFFERS = 255, 128, 0  # its values


def relation_of_copies(share: float) -> Relation:
    """`share`: fraction of the picture that shows more which both show."""
    return "part" if share < _PART else "copy"


def relation_of_others(content: Content | None, *, has_moved: bool) -> Relation:
    """What two pictures are that are no copies, but lie on each other.

    `content`: what they show, part by part; None where they share next to nothing.
    `has_moved`: whether parts moved against each other.
    """
    if content is None:
        return "different"
    if int(content.has_detail.sum()) < _LEAST_DETAIL or content.agreeing_share < _LEAST_AGREEING:
        return "scene" if has_moved and content.drawn < _RATHER_DRAWN else "different"
    return "template" if content.drawn >= _RATHER_DRAWN or content.difference < _EXACT else "scene"


def agreement_mask(content: Content, to_cells: Matrix) -> Pixels:
    """Where two pictures agree, across the whole of one of them: `AGREES`, `DIFFERS`, or `NEITHER` where there is nothing to compare.

    `to_cells`: shape (2, 3); maps relative coordinates of that picture (0 to 1) to cells of `content`.
    Returns shape (`MASK_SIDE`, `MASK_SIDE`).
    """
    cells = np.full(content.has_detail.shape, NEITHER, dtype=np.uint8)
    cells[content.has_detail] = AGREES
    cells[content.differs] = DIFFERS
    # pixel k of the mask lies at (k + 0.5) / MASK_SIDE, cell k about k + 0.5
    to_relative = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]) / MASK_SIDE
    matrix = compose(to_cells, to_relative) - np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    size = (MASK_SIDE, MASK_SIDE)
    mask = cv2.warpAffine(cells, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=NEITHER)
    return np.asarray(mask, dtype=np.uint8)


def cells_of(frame_to_picture: Matrix, size: tuple[int, int], origin: tuple[int, int]) -> Matrix:
    """The map from relative coordinates of a picture to cells, for `agreement_mask`.

    `frame_to_picture`: shape (2, 3); maps pixels of the frame in which contents were compared to pixels of the picture.
    `size`: width and height of the picture in pixels.
    `origin`: x and y of the first pixel that was compared, in the frame.
    """
    to_pixels = np.array([[size[0], 0.0, 0.0], [0.0, size[1], 0.0]])
    to_frame = compose(cv2.invertAffineTransform(frame_to_picture), to_pixels)
    return np.asarray((to_frame - np.array([[0.0, 0.0, origin[0]], [0.0, 0.0, origin[1]]])) / CELL)
