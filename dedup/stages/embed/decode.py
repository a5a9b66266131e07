"""Samples made ready for the encoder, by several threads where that pays, always in the order they came."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.encoders.encoder import Encoder
from dedup.errors import SampleError
from dedup.numerics.image.descriptor import GRID, Crop, ycbcr_grid
from dedup.numerics.image.frame import picture_box
from dedup.storage.images.decode import DecodedImage, decode_image
from dedup.storage.images.thumbnails import make_thumbnail
from dedup.storage.input.samples import RawSample, TextFacts

_CHUNK = 8  # samples handed to a thread at a time: enough to share the cost of handing over, too few to hold up a batch
_CHUNKS_AHEAD = 3  # for each thread, so that none waits for the slowest
Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class PreparedSample:
    """A sample on its way to the encoder."""

    source: int  # which of the partition's sources it comes from
    row: dict[str, Any]  # its row of `metadata` so far
    grid: npt.NDArray[np.float32]  # shape (3, 64, 64); the picture area-resized to YCbCr
    prepared: npt.NDArray[Any]  # what the encoder takes: for some encoders, the grid itself
    inner: npt.NDArray[np.float32] | None  # shape (3, 64, 64); the grid of the picture inside a frame, if there is one and it is wanted
    thumbnail: bytes  # empty where none is kept
    text: TextFacts  # how its captions were read


@dataclass(frozen=True)
class RejectedSample:
    """A sample that has no image to encode, and why."""

    source: int
    shard: str
    key: str
    error: SampleError
    member: str | None = None


@dataclass(frozen=True)
class Preparation:
    """Decodes samples and brings them to the encoder's shape; called by several threads at a time."""

    encoder: Encoder
    max_pixels: int  # `input.max_pixels`
    finds_inner: bool  # whether pictures inside a frame are prepared too
    keeps_thumbnails: bool

    def __call__(self, numbered: tuple[int, RawSample]) -> PreparedSample | RejectedSample:
        """Prepare one sample of the source of that number."""
        source, sample = numbered
        try:
            if sample.error is not None or sample.image is None:
                raise sample.error or SampleError("no_image")
            image = decode_image(sample.image, max_pixels=self.max_pixels, min_side=self.encoder.min_side)
            crop = Crop(image.pixels, image.box)
            grid, prepared = self._grid(crop), self.encoder.prepare(crop)
            inner = _inner_grid(image) if self.finds_inner else None
            thumbnail = make_thumbnail(image.pixels, image.box) if self.keeps_thumbnails else b""
        except SampleError as error:
            return RejectedSample(source, sample.shard, sample.key, error, sample.member)
        row = {
            "shard": sample.shard,
            "key": sample.key,
            "member": sample.member,
            "n_images": sample.n_images,
            "url": sample.url,
            "caption": sample.caption,
            "captions": sample.captions or None,
            "sha256": hashlib.sha256(sample.image).hexdigest(),
            "width": image.width,
            "height": image.height,
            "n_frames": image.n_frames,
            "n_bytes": sample.n_bytes,
            "byte_offset": sample.byte_offset,
            **sample.carried,
        }
        return PreparedSample(source, row, grid, prepared, inner, thumbnail, sample.text)

    def _grid(self, crop: Crop) -> npt.NDArray[np.float32]:
        """The picture's grid. Images for an encoder of grids are decoded no larger than it needs; others are reduced here first."""
        factor = min(crop.pixels.shape[:2]) // (2 * GRID)
        if factor < 2 or self.encoder.min_side == 2 * GRID:
            return crop.grid
        left, top, right, bottom = (edge / factor for edge in crop.box)
        return ycbcr_grid(np.asarray(Image.fromarray(crop.pixels).reduce(factor)), (left, top, right, bottom))


def _inner_grid(image: DecodedImage) -> npt.NDArray[np.float32] | None:
    """The picture inside a frame, if there is one."""
    inner = picture_box(image.pixels)
    if inner is None:
        return None
    # a reduced image ends inside its last column and row
    left, top, right, bottom = image.box
    return ycbcr_grid(image.pixels, (max(left, inner[0]), max(top, inner[1]), min(right, inner[2]), min(bottom, inner[3])))


def in_order(work: Callable[[Item], Done], items: Iterable[Item], n_threads: int) -> Iterator[Done]:
    """Apply `work` to items in several threads; results come in the order of the items.

    Items are drawn in the calling thread, a bounded number ahead of the results, so the iterable may be endless.

    `n_threads`: 0 = work in the calling thread.
    """
    if n_threads < 1:
        yield from map(work, items)
        return
    source, waiting = iter(items), deque[Future[list[Done]]]()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
    try:
        while chunk := list(islice(source, _CHUNK)):
            waiting.append(pool.submit(_apply, work, chunk))
            if len(waiting) > _CHUNKS_AHEAD * n_threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply(work: Callable[[Item], Done], chunk: list[Item]) -> list[Done]:
    return [work(item) for item in chunk]
