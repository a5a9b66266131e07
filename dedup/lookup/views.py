"""The ways an image is looked at: as it is, turned, without its frame, and in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.contracts import Encoder
from dedup.encoders import dct
from dedup.numerics.descriptor import detail, ycbcr_grid
from dedup.numerics.distances import apply_turn
from dedup.numerics.looks import centre
from dedup.numerics.pictures import SIDE
from dedup.numerics.trimming import picture_box
from dedup.storage.images import DecodedImage, decode_image

_PARTS = (0.87, 0.75)  # shares of the sides of the crops about the middle
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Views:
    """Vectors of the views of one image.

    Parameters
    ----------
    pixels : uint8 array, shape (height, width, 3)
        The image, as far as it was decoded.
    quality : float
        Amount of detail, as of `metadata`.
    names : list of str
        ``none`` first; see `dedup.lookup.answers.Match`.
    turns : list of str
        How the image is turned in each view.
    vectors : float32 array, shape (n, dim)
        Unit rows.
    """

    pixels: npt.NDArray[np.uint8]
    quality: float
    names: list[str]
    turns: list[str]
    vectors: npt.NDArray[np.float32]


def views_of(data: bytes, encoder: Encoder, encoder_name: str, *, max_pixels: int, only_whole: bool = False) -> Views:
    """Decode an image and encode its views.

    Parameters
    ----------
    data : bytes
    encoder : Encoder
    encoder_name : str
        With ``dct`` turned views follow from the vectors; any other model is shown the mirrored pixels.
    max_pixels : int
    only_whole : bool
        The image as it is, and no more.

    Raises
    ------
    SampleError
        If it is no image, or too large a one.
    """
    # as the run decoded its images, so that an image of the run has its very vector
    min_side = None if encoder.min_side is None else max(SIDE, encoder.min_side)
    image = decode_image(data, max_pixels=max_pixels, min_side=min_side)
    boxes: list[tuple[str, Box]] = [("", image.box)]
    if not only_whole:
        inner = _inner(image)
        if inner is not None:
            boxes.append(("inner", inner))
        boxes += [("crop", _part(box, share)) for _, box in list(boxes) for share in _PARTS]
    shown = [(name, "none", *_prepared(image.pixels, box, encoder)) for name, box in boxes]
    if encoder_name != "dct" and not only_whole:
        mirrored = np.ascontiguousarray(image.pixels[:, ::-1])
        width = image.pixels.shape[1]
        for name, (left, top, right, bottom) in boxes:
            shown.append((name, "mirror", *_prepared(mirrored, (width - right, top, width - left, bottom), encoder)))
    quality = float(detail(shown[0][3][None])[0])
    vectors = encoder.encode(np.stack([prepared for _, _, prepared, _ in shown]))
    names, turns = [name for name, _, _, _ in shown], [turn for _, turn, _, _ in shown]
    if encoder_name == "dct" and not only_whole:
        whole = [row for row, name in enumerate(names) if name != "crop"]
        crops = [row for row, name in enumerate(names) if name == "crop"]
        for turn, change in zip(dct.turn_names(), dct.turns(), strict=True):
            rows = [*whole, *crops] if turn == "mirror" else whole
            vectors = np.concatenate([vectors, apply_turn(vectors[rows], change).astype(np.float32)])
            names += [names[row] for row in rows]
            turns += [turn] * len(rows)
    full = [" ".join([name, *([turn] if turn != "none" else [])]).strip() or "none" for name, turn in zip(names, turns, strict=True)]
    left, top, right, bottom = image.box
    pixels = image.pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
    good = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    return Views(np.ascontiguousarray(pixels), quality, [full[row] for row in good], [turns[row] for row in good], vectors[good])


def _prepared(pixels: npt.NDArray[np.uint8], box: Box, encoder: Encoder) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    grid = ycbcr_grid(pixels, box)
    return encoder.prepare(pixels, box, grid), grid


def _inner(image: DecodedImage) -> Box | None:
    found = picture_box(image.pixels)
    if found is None:
        return None
    left, top, right, bottom = image.box
    return max(left, found[0]), max(top, found[1]), min(right, found[2]), min(bottom, found[3])


def _part(box: Box, share: float) -> Box:
    left, top, right, bottom = box
    x0, y0, x1, y1 = centre(share)
    return left + x0 * (right - left), top + y0 * (bottom - top), left + x1 * (right - left), top + y1 * (bottom - top)
