"""Samples made ready for the encoder, by several threads where that pays, always in the order they came."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.encoders.encoder import Encoder
from dedup.errors import SampleError
from dedup.numerics.image.descriptor import GRID, Crop, ycbcr_grid
from dedup.numerics.image.rectangles import inner_boxes
from dedup.storage.images.decode import DecodedImage
from dedup.storage.images.isolated import BATCH, BATCH_BYTES, decode_each_isolated
from dedup.storage.images.thumbnails import make_thumbnail
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.samples import RawSample, TextFacts

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
    # shape (3, 64, 64) each; the grids of pictures inside it, where they are wanted: the one inside a frame first
    inner: tuple[npt.NDArray[np.float32], ...]
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
        (prepared,) = self.each([numbered])
        return prepared

    def each(self, numbered: Sequence[tuple[int, RawSample]]) -> Iterator[PreparedSample | RejectedSample]:
        """Prepare samples of `in_chunks`, each with the number of its source, in order."""
        images = [sample.image for _, sample in numbered if sample.error is None and sample.image is not None]
        decoded = decode_each_isolated(images, max_pixels=self.max_pixels, min_side=self.encoder.min_side)
        with closing(decoded):
            for source, sample in numbered:
                outcome: DecodedImage | SampleError
                if sample.error is not None or sample.image is None:
                    outcome = sample.error or SampleError("no_image")
                else:
                    outcome = next(decoded)
                if isinstance(outcome, SampleError):
                    yield RejectedSample(source, sample.shard, sample.key, outcome, sample.member)
                else:
                    yield self._prepared(source, sample, sample.image or b"", outcome)

    def _prepared(self, source: int, sample: RawSample, data: bytes, image: DecodedImage) -> PreparedSample:
        crop = Crop(image.pixels, image.box)
        grid, prepared = self._grid(crop), self.encoder.prepare(crop)
        inner = tuple(_inner_grids(image, grid)) if self.finds_inner else ()
        thumbnail = make_thumbnail(image.pixels, image.box) if self.keeps_thumbnails else b""
        row = {
            "shard": sample.shard,
            "key": sample.key,
            "member": sample.member,
            "n_images": sample.n_images,
            "url": sample.url,
            "caption": sample.caption,
            "captions": sample.captions or None,
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": image.width,
            "height": image.height,
            "n_frames": image.n_frames,
            "n_bytes": sample.n_bytes,
            "byte_offset": sample.byte_offset,
            "format": image.format or None,
            "jpeg_quality": image.jpeg_quality or None,
            "exif_date": image.exif_date or None,
            "mtime": sample.mtime,
            "file": sample.shard if is_row_file(sample.shard) else None,
            "row": sample.byte_offset if is_row_file(sample.shard) else None,
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


def _inner_grids(image: DecodedImage, grid: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """The pictures inside an image.

    `grid`: its own.
    """
    for left, top, right, bottom in inner_boxes(image.pixels, image.box, grid):
        x, y = int(left), int(top)
        # the fewer pixels, the sooner it is done
        yield ycbcr_grid(image.pixels[y : math.ceil(bottom), x : math.ceil(right)], (left - x, top - y, right - x, bottom - y))


def in_chunks(samples: Iterable[tuple[int, RawSample]]) -> Iterator[list[tuple[int, RawSample]]]:
    """Samples in chunks that share the cost of handing over: to a thread, and to the process that decodes."""
    chunk: list[tuple[int, RawSample]] = []
    n_bytes = 0
    for source, sample in samples:
        chunk.append((source, sample))
        n_bytes += len(sample.image or b"")
        if len(chunk) >= BATCH or n_bytes >= BATCH_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def in_order(work: Callable[[list[Item]], Iterable[Done]], chunks: Iterable[list[Item]], n_threads: int) -> Iterator[Done]:
    """Apply `work` to chunks of items in several threads; it gives a result for each item, and these come in the order of the items.

    Chunks are drawn in the calling thread, a bounded number ahead of the results, so the iterable may be endless.

    `n_threads`: 0 = work in the calling thread.
    """
    if n_threads < 1:
        for chunk in chunks:
            yield from work(chunk)
        return
    waiting = deque[Future[list[Done]]]()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_apply, work, chunk))
            if len(waiting) > _CHUNKS_AHEAD * n_threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply(work: Callable[[list[Item]], Iterable[Done]], chunk: list[Item]) -> list[Done]:
    return list(work(chunk))
