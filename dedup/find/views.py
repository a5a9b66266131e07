"""The ways an image is looked at: as it is, turned, without its frame, and in parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.encoders import dct
from dedup.encoders.encoder import Encoder
from dedup.numerics.image.descriptor import Crop, detail
from dedup.numerics.image.frame import picture_box
from dedup.numerics.image.views import ViewMaker, ViewRows, centre
from dedup.numerics.judge.picture import SIDE
from dedup.numerics.similarity import apply_turn
from dedup.storage.images.decode import DecodedImage, decode_image

_PARTS = (0.87, 0.75)  # shares of the sides of the crops about the middle
_LEAST_INNER_QUALITY = 10.0  # amount of detail of a picture inside a frame that says something
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Views:
    """Vectors of the views of one image."""

    pixels: npt.NDArray[np.uint8]  # shape (height, width, 3); the image, as far as it was decoded
    quality: float  # amount of detail, as of `metadata`
    sha256: str  # of the encoded image
    names: list[str]  # ``none`` first; see `dedup.find.answers.Match`
    vectors: npt.NDArray[np.float32]  # shape (n, dim); unit rows
    looks: ViewRows | None = None  # second looks, for an encoder that has them


def views_of(data: bytes, encoder: Encoder, maker: ViewMaker | None, *, max_pixels: int, only_whole: bool = False) -> Views:
    """Decode an image and encode its views.

    `data`: bytes.
    `maker`: of an encoder whose turned views and second looks follow from its vectors; any other is shown mirrored and cropped pixels.
    `only_whole`: the image as it is, and no more.
    Raises SampleError if it is no image, or too large a one.
    """
    # as the run decoded its images, so that an image of the run has its very vector
    min_side = None if encoder.min_side is None else max(SIDE, encoder.min_side)
    image = decode_image(data, max_pixels=max_pixels, min_side=min_side)
    left, top, right, bottom = image.box
    pixels = np.ascontiguousarray(image.pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))])
    crop = Crop(image.pixels, image.box)
    prepared, quality, sha256 = encoder.prepare(crop), float(detail(crop.grid[None])[0]), hashlib.sha256(data).hexdigest()
    if only_whole:
        return Views(pixels, quality, sha256, ["none"], encoder.encode(prepared[None]))
    if maker is None:
        names, shown = _shown(image, encoder)
        return Views(pixels, quality, sha256, ["none", *names], encoder.encode(np.stack([prepared, *shown])))
    whole = encoder.encode(prepared[None])
    turned = [apply_turn(whole, turn).astype(np.float32) for turn in dct.turns()]
    inner = np.zeros((0, encoder.dim), dtype=np.float32)
    box = _inner(image)
    if box is not None:
        framed = Crop(image.pixels, box)
        if float(detail(framed.grid[None])[0]) >= _LEAST_INNER_QUALITY:
            inner = encoder.encode(encoder.prepare(framed)[None])
    aspect = np.array([image.width / max(image.height, 1)], dtype=np.float32)
    looks = maker(whole, inner, np.zeros(len(inner), np.int64), aspect)
    return Views(pixels, quality, sha256, ["none", *dct.turn_names()], np.concatenate([whole, *turned]), looks)


def _shown(image: DecodedImage, encoder: Encoder) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """What an encoder without looks is shown besides the image: its frame's picture, crops, and all of them mirrored."""
    boxes: list[tuple[str, Box]] = [("", image.box)]
    inner = _inner(image)
    if inner is not None:
        boxes.append(("inner", inner))
    boxes += [("crop", _part(box, share)) for _, box in list(boxes) for share in _PARTS]
    mirrored, width = np.ascontiguousarray(image.pixels[:, ::-1]), image.pixels.shape[1]
    names, shown = [name for name, _ in boxes[1:]], [encoder.prepare(Crop(image.pixels, box)) for _, box in boxes[1:]]
    for name, (left, top, right, bottom) in boxes:
        names.append(f"{name} mirror".strip())
        shown.append(encoder.prepare(Crop(mirrored, (width - right, top, width - left, bottom))))
    return names, shown


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
