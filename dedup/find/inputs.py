"""The images that are looked up: read from files, folders and shards, and encoded with their views."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.encoders import dct
from dedup.encoders.encoder import Encoder
from dedup.errors import InputError, SampleError
from dedup.numerics.image.descriptor import Crop, detail
from dedup.numerics.image.rectangles import inner_boxes
from dedup.numerics.image.views import ViewMaker, ViewRows, centre
from dedup.numerics.judge.picture import SIDE
from dedup.numerics.similarity import apply_turn
from dedup.storage.images.decode import DecodedImage
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.input.kinds import HEAD_BYTES, image_kind
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_images import holds_images
from dedup.storage.input.rows import TAR_ENDINGS
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, may_be_image, one_line
from dedup.storage.input.shards import read_shard
from dedup.storage.input.sources import expand_shards
from dedup.storage.urls import filesystem, is_local, local_path, open_binary


@dataclass(frozen=True)
class InputImage:
    """One image to look up."""

    name: str  # its path; in a shard, the path of the shard, a colon and the key
    data: bytes = b""
    error: SampleError | None = None  # why there are no bytes
    shard: str = ""  # the tar or table, or the folder with a slash
    key: str = ""  # in the shard, or the file's name


def find_inputs(paths: Sequence[str]) -> list[str]:
    """The files and shards behind paths: a folder gives the images, the tars, and the tables that hold images, in it and its subfolders.

    Raises InputError if a path does not exist, or a folder holds neither.
    """
    inputs: list[str] = []
    for path in paths:
        if _is_folder(path):
            usable = [name for name in _files_in(path) if (holds_images(name) if is_row_file(name) else is_shard(name) or _is_image(name))]
            if not usable:
                raise InputError(f"{path} holds no images; expected files such as .jpg, .png, .webp, .tar, or .parquet with images")
            inputs += usable
        elif is_shard(path):
            inputs += expand_shards([path])
        elif is_local(path) and not os.path.isfile(local_path(path)):
            raise InputError(f"{path} does not exist; expected an image, a folder of images, a tar, or parquet with images")
        else:
            inputs.append(path)
    return inputs


def read_inputs(paths: Sequence[str], *, max_image_bytes: int) -> Iterator[InputImage]:
    """The images of files and shards, one after another; one that can't be read comes with the reason."""
    for path in paths:
        if is_shard(path):
            reader = read_shard(path, max_image_bytes=max_image_bytes)
            for sample in reader:
                name = f"{path}:{sample.key}"
                if sample.image is None:
                    error = sample.error or SampleError("no_image", "the sample has no image")
                    yield InputImage(name, error=error, shard=path, key=sample.key)
                else:
                    yield InputImage(name, sample.image, shard=path, key=sample.key)
            if reader.status != "ok":
                yield InputImage(path, error=SampleError("undecodable_image", f"the shard is {reader.status}: {reader.error}"))
            continue
        try:
            with open_binary(path) as file:
                data = file.read(max_image_bytes + 1)
        except Exception as error:  # each file system raises its own
            yield InputImage(path, error=SampleError("undecodable_image", f"it can't be read ({one_line(error)})"))
            continue
        folder, slash, name = path.rpartition("/")
        yield InputImage(path, data, shard=folder + slash, key=name)


def is_shard(path: str) -> bool:
    """Whether a path is that of a tar, or of a parquet or Arrow file, by its name."""
    return path.endswith(TAR_ENDINGS) or is_row_file(path)


def _is_folder(path: str) -> bool:
    if is_local(path):
        return os.path.isdir(local_path(path))
    if is_shard(path) or _is_image(path):
        return False
    fs, root = filesystem(path)
    return bool(fs.isdir(root))


def _files_in(path: str) -> list[str]:
    """All files of a folder and its subfolders, in order."""
    if is_local(path):
        return [os.path.join(folder, name) for folder, _, names in sorted(os.walk(local_path(path))) for name in sorted(names)]
    fs, root = filesystem(path)
    return [str(fs.unstrip_protocol(name)) for name in sorted(fs.find(root))]


def _is_image(path: str) -> bool:
    """Whether a file is an image by its suffix, or, where that tells nothing, by its bytes."""
    suffix = file_suffix(os.path.basename(path))
    if suffix in IMAGE_SUFFIXES or not may_be_image(suffix):
        return suffix in IMAGE_SUFFIXES
    try:
        with open_binary(path) as file:
            return bool(image_kind(file.read(HEAD_BYTES)))
    except Exception:  # each file system has its own; an image would be reported when it is read
        return False


_PARTS = (0.87, 0.75)  # sides of the centre crops, as shares of the image's

_LEAST_INNER_QUALITY = 10.0  # amount of detail from which the picture inside a frame is worth a vector

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Views:
    """Vectors of the views of one image."""

    pixels: npt.NDArray[np.uint8]  # shape (height, width, 3); perhaps decoded at a reduced size
    quality: float  # amount of detail, as in `metadata`
    sha256: str  # of the encoded image
    names: list[str]  # ``none`` first; see `dedup.find.answers.Match`
    vectors: npt.NDArray[np.float32]  # shape (n, dim); unit rows
    view_rows: ViewRows | None = None  # for an encoder whose views the run indexes


def views_of(data: bytes, encoder: Encoder, maker: ViewMaker | None, *, max_pixels: int, only_whole: bool = False) -> Views:
    """Decode an image and encode its views.

    `maker`: for an encoder that derives views from its vectors; None: mirrored and cropped pixels are encoded instead.
    `only_whole`: encode only the image as it is.
    Raises SampleError if it is not an image, or too large.
    """
    # decoded as the run decodes its images, so that an image of the run gets the same vector
    min_side = None if encoder.min_side is None else max(SIDE, encoder.min_side)
    image = decode_isolated(data, max_pixels=max_pixels, min_side=min_side)
    left, top, right, bottom = image.box
    pixels = np.ascontiguousarray(image.pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))])
    crop = Crop(image.pixels, image.box)
    prepared, quality, sha256 = encoder.prepare(crop), float(detail(crop.grid[None])[0]), hashlib.sha256(data).hexdigest()
    if only_whole:
        return Views(pixels, quality, sha256, ["none"], encoder.encode(prepared[None]))
    if maker is None:
        names, variants = _prepared_variants(image, crop.grid, encoder)
        return Views(pixels, quality, sha256, ["none", *names], encoder.encode(np.stack([prepared, *variants])))
    whole = encoder.encode(prepared[None])
    turned = [apply_turn(whole, turn).astype(np.float32) for turn in dct.turns()]
    parts = [Crop(image.pixels, box) for box in inner_boxes(image.pixels, image.box, crop.grid)]
    parts = [part for part in parts if float(detail(part.grid[None])[0]) >= _LEAST_INNER_QUALITY]
    inner = np.zeros((0, encoder.dim), dtype=np.float32)
    if parts:
        inner = encoder.encode(np.stack([encoder.prepare(part) for part in parts]))
    aspect = np.array([image.width / max(image.height, 1)], dtype=np.float32)
    view_rows = maker(whole, inner, np.zeros(len(inner), np.int64), aspect)
    return Views(pixels, quality, sha256, ["none", *dct.turn_names()], np.concatenate([whole, *turned]), view_rows)


def _prepared_variants(image: DecodedImage, grid: npt.NDArray[np.float32], encoder: Encoder) -> tuple[list[str], list[npt.NDArray[Any]]]:
    """Variants to encode besides the image, with their names: pictures inside it, centre crops, and all of them mirrored."""
    boxes: list[tuple[str, Box]] = [("", image.box)]
    boxes += [("inner", box) for box in inner_boxes(image.pixels, image.box, grid)]
    boxes += [("crop", _centre_box(box, share)) for _, box in boxes[:2] for share in _PARTS]
    mirrored, width = np.ascontiguousarray(image.pixels[:, ::-1]), image.pixels.shape[1]
    names = [name for name, _ in boxes[1:]]
    prepared = [encoder.prepare(Crop(image.pixels, box)) for _, box in boxes[1:]]
    for name, (left, top, right, bottom) in boxes:
        names.append(f"{name} mirror".strip())
        prepared.append(encoder.prepare(Crop(mirrored, (width - right, top, width - left, bottom))))
    return names, prepared


def _centre_box(box: Box, share: float) -> Box:
    left, top, right, bottom = box
    x0, y0, x1, y1 = centre(share)
    return left + x0 * (right - left), top + y0 * (bottom - top), left + x1 * (right - left), top + y1 * (bottom - top)
