"""Reading the pixels of an embedded image again: from its thumbnail, else from its shard."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dedup.config.keys import MAX_PIXELS
from dedup.errors import InputError, RunDirectoryError, SampleError
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.images.thumbnails import ThumbnailStore, open_thumbnails
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_images import images_at
from dedup.storage.input.samples import one_line
from dedup.storage.input.shards import check_range, read_image_bytes, read_shard
from dedup.storage.urls import RangeReader, is_local

_MAX_HELD_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """Where an image is, as `metadata` records it."""

    sample_id: int
    shard: str
    key: str
    byte_offset: int | None  # None in a compressed tar; in a file of rows the number of the row
    n_bytes: int  # size of the encoded image
    member: str | None = None  # which image of the sample; None: the first of that size


_Name = tuple[str, str | None]  # key, or number of the row, and member


@dataclass
class _Wanted:
    """Images wanted from one compressed tar or file of rows, and where they are held once it has been read."""

    n_bytes: dict[_Name, int] = field(default_factory=dict)
    starts: dict[_Name, int] = field(default_factory=dict)
    is_read: bool = False
    error: str = ""


class PictureReader:
    """Reads the pixels of images, one at a time. Each worker process has its own; not thread-safe.

    Parameters
    ----------
    embeddings : str
        Folder of the run's embeddings, with their thumbnails.
    min_side : int or None
        Images from shards may be reduced while they are decoded, as long as both sides keep this many pixels; thumbnails
        keep their size.
    max_pixels : int
        `input.max_pixels`: the limit the images were embedded under.
    max_held_bytes : int
        Memory for images that `prefetch` keeps; beyond it they go to a temporary file.
    uses_thumbnails : bool
        False: all images are read from their shards.
    """

    def __init__(
        self,
        embeddings: str,
        min_side: int | None,
        *,
        max_pixels: int = MAX_PIXELS,
        max_held_bytes: int = _MAX_HELD_BYTES,
        uses_thumbnails: bool = True,
    ) -> None:
        self._min_side, self._max_pixels, self._max_held_bytes = min_side, max_pixels, max_held_bytes
        self._thumbnails = open_thumbnails(embeddings) if uses_thumbnails else None
        self._ranges = RangeReader()
        self._wanted: dict[str, _Wanted] = {}
        self._held: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._n_held = 0

    def read(self, place: Place) -> npt.NDArray[np.uint8]:
        """Pixels of an image.

        Returns shape (height, width, 3); RGB, C-contiguous.
        Raises InputError if the shard is gone, can't be reached, or no longer has the image.
        Raises SampleError if the bytes found there do not decode, though they did when they were embedded.
        Raises RunDirectoryError if the thumbnails are damaged.
        """
        if self._thumbnails is not None and place.sample_id in self._thumbnails:
            return self._thumbnail(self._thumbnails, place)
        data = self._bytes(place)
        try:
            image = decode_isolated(data, max_pixels=self._max_pixels, min_side=self._min_side)
        except SampleError as error:
            where = f"{place.shard}, key {place.key!r}: {error.detail}"
            if error.reason == "decoder_crashed":
                raise SampleError(error.reason, where) from error
            text = f"{where}; it decoded when it was embedded, so the shard has changed since"
            raise SampleError(error.reason, f"{text}: run embed again") from error
        left, top, right, bottom = image.box
        part = image.pixels[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
        return np.ascontiguousarray(part)

    def prefetch(self, places: Iterable[Place]) -> None:
        """Announce the images that will be read, in place of those announced before.

        Only compressed tars and files of rows need it: each is read once, when its first image is requested, and all its announced
        images are kept. Any other image is searched for from the start of its tar, or of its group of rows.
        """
        self._forget()
        for place in places:
            if _is_streamed(place) and (self._thumbnails is None or place.sample_id not in self._thumbnails):
                self._wanted.setdefault(place.shard, _Wanted()).n_bytes[_name(place)] = place.n_bytes

    def close(self) -> None:
        """Close files and forget what was prefetched."""
        self._ranges.close()
        self._forget()

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _thumbnail(self, store: ThumbnailStore, place: Place) -> npt.NDArray[np.uint8]:
        try:
            return decode_isolated(store.get(place.sample_id), max_pixels=self._max_pixels).pixels
        except SampleError as error:
            text = f"the thumbnail of sample {place.sample_id} is damaged ({error})"
            raise RunDirectoryError(f"{text}; run embed again with --redo") from error

    def _bytes(self, place: Place) -> bytes:
        if _is_streamed(place):
            wanted = self._wanted.get(place.shard)
            if wanted is not None and _name(place) in wanted.n_bytes:
                return self._held_bytes(place, wanted)
        elif place.byte_offset is not None and not place.shard.endswith("/") and is_local(place.shard):
            try:
                data = self._ranges.read(place.shard, place.byte_offset, place.n_bytes)
            except OSError as error:
                raise InputError(f"{place.shard} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
            return check_range(data, place.shard, place.key, place.byte_offset, place.n_bytes)
        return read_image_bytes(place.shard, place.key, place.byte_offset, place.n_bytes, place.member)

    def _held_bytes(self, place: Place, wanted: _Wanted) -> bytes:
        if not wanted.is_read:
            self._hold(place.shard, wanted)
        start = wanted.starts.get(_name(place))
        if start is None or self._held is None:
            raise InputError(f"{place.shard} gave no image of {place.n_bytes} bytes under the key {place.key!r}: {wanted.error}")
        self._held.seek(start)
        return self._held.read(place.n_bytes)

    def _hold(self, shard: str, wanted: _Wanted) -> None:
        """Read a compressed tar, or the groups of rows needed, up to the last image wanted, and hold the wanted ones."""
        if self._held is None:
            self._held = tempfile.SpooledTemporaryFile(max_size=self._max_held_bytes)  # noqa: SIM115 (closed in _forget)
        wanted.is_read = True  # even if it fails: a broken tar is not read again for each image
        for name, image in _images(shard, wanted):
            names = [name for name in (name, (name[0], None)) if wanted.n_bytes.get(name) == len(image)]
            if wanted.starts.keys() >= set(names):
                continue
            try:
                self._held.seek(self._n_held)
                self._held.write(image)
            except OSError as error:  # the disk is full
                wanted.error = f"no room in {tempfile.gettempdir()} ({one_line(error)}); name a larger folder with TMPDIR"
                return
            wanted.starts |= dict.fromkeys(names, self._n_held)
            self._n_held += len(image)
            if len(wanted.starts) == len(wanted.n_bytes):
                return
        wanted.error = f"{wanted.error or 'it has changed'}; run embed again"

    def _forget(self) -> None:
        if self._held is not None:
            self._held.close()
        self._wanted, self._held, self._n_held = {}, None, 0


def _is_streamed(place: Place) -> bool:
    """Whether an image's bytes can't be read by their range."""
    return place.byte_offset is None or is_row_file(place.shard)


def _name(place: Place) -> _Name:
    return (str(place.byte_offset) if is_row_file(place.shard) else place.key), place.member


def _images(shard: str, wanted: _Wanted) -> Iterator[tuple[_Name, bytes]]:
    """The images of a shard, of a file of rows those in the rows wanted; what ends them early is put into `wanted.error`."""
    if is_row_file(shard):
        try:
            for row, member, image in images_at(shard, sorted({int(row) for row, _ in wanted.n_bytes})):
                yield (str(row), member), image
        except Exception as error:  # each file system has its own
            wanted.error = one_line(error)
        return
    reader = read_shard(shard, max_image_bytes=max(wanted.n_bytes.values()))
    yield from (((sample.key, sample.member), sample.image) for sample in reader if sample.image is not None)
    wanted.error = reader.error or ""
