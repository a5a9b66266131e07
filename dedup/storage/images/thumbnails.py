"""Thumbnails of a run's images, kept while embedding so that nothing later needs the shards."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from cachetools import LRUCache

from dedup.errors import RunDirectoryError
from dedup.numerics.image.descriptor import area_resize
from dedup.schemas.fields import ROW_MASK
from dedup.storage.arrays import folder_state, save_array
from dedup.storage.atomic import AtomicFile
from dedup.storage.input.samples import one_line
from dedup.storage.urls import RangeReader, filesystem, is_local, join, matching, read_bytes

THUMBNAIL_SIDE: Final = 160  # longer side in pixels, at most
_QUALITY: Final = 88
_SUBSAMPLING: Final = "420"  # 16 to 18 % fewer bytes than 444, and 0.5 to 0.7 of 256 levels more error
_MAX_PARTITIONS: Final = 32  # whose offsets are held: each takes 80 KB for 10,000 images, 8 MB for a million


def thumbnail_paths(partition: int) -> tuple[str, str]:
    """Paths of a partition's thumbnails and their offsets under `embeddings/`."""
    return f"thumbnails/thumbnails_{partition:05d}.bin", f"thumbnails/offsets_{partition:05d}.npy"


def make_thumbnail(pixels: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> bytes:
    """A JPEG of the picture in `box`, its longer side at most `THUMBNAIL_SIDE` pixels, never enlarged.

    `pixels`: shape (height, width, 3); RGB.
    `box`: left, top, right, bottom of the picture in pixels.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    scale = min(1.0, THUMBNAIL_SIDE / max(width, height))
    if scale < 1.0:
        pixels = area_resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)), box)
    else:  # half a pixel at an edge is not worth a resize, which takes three times as long as the encoding
        pixels = pixels[round(top) : max(round(top) + 1, round(bottom)), round(left) : max(round(left) + 1, round(right))]
    pixels = np.ascontiguousarray(pixels)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling=_SUBSAMPLING))


class ThumbnailWriter:
    """The thumbnails of one partition, in the row order of its vectors.

    Parameters
    ----------
    folder : str
        Of the run's embeddings.
    partition : int
    """

    def __init__(self, folder: str, partition: int) -> None:
        images, self._offsets_url = (join(folder, name) for name in thumbnail_paths(partition))
        self._offsets = [0]
        self._scratch = AtomicFile(images)

    def write(self, thumbnails: Sequence[bytes]) -> None:
        """Append encoded thumbnails, one a row."""
        for thumbnail in thumbnails:
            self._scratch.file.write(thumbnail)
            self._offsets.append(self._offsets[-1] + len(thumbnail))

    def close(self) -> None:
        """Give the files their names."""
        self._scratch.close()
        save_array(self._offsets_url, np.array(self._offsets, dtype=np.int64))

    def abort(self) -> None:
        """Leave nothing behind."""
        self._scratch.abort()


def remove_thumbnails(folder: str, partition: int) -> None:
    """Delete the thumbnails that an earlier run with other settings kept: its rows may differ."""
    for name in thumbnail_paths(partition):
        fs, path = filesystem(join(folder, name))
        with suppress(FileNotFoundError):
            fs.rm_file(path)


class ThumbnailStore:
    """Random access to the thumbnails of a run by sample_id; from a remote run, one request for a byte range each.

    The offsets of the last `max_partitions` partitions are kept: ascending sample_ids are fastest.

    Parameters
    ----------
    folder : str
        Of the run's embeddings.
    partitions : iterable of int
        Those that have thumbnails.
    max_partitions : int
        Partitions whose offsets are held, at most.
    """

    def __init__(self, folder: str, partitions: Sequence[int], max_partitions: int = _MAX_PARTITIONS) -> None:
        self._folder, self._partitions = folder, frozenset(partitions)
        self._is_local, self._ranges = is_local(folder), RangeReader()
        self._offsets: LRUCache[int, npt.NDArray[np.int64]] = LRUCache(max_partitions)

    def __contains__(self, sample_id: int) -> bool:
        """Whether the sample's partition has thumbnails."""
        return sample_id >> 32 in self._partitions

    def get(self, sample_id: int) -> bytes:
        """The JPEG of a sample.

        Raises RunDirectoryError if there is none, or the files are damaged.
        """
        partition, row = sample_id >> 32, sample_id & ROW_MASK
        images, _ = thumbnail_paths(partition)
        url = join(self._folder, images)
        if partition not in self._partitions:
            raise RunDirectoryError(f"{self._folder} holds no thumbnails of partition {partition}; read the image from its shard")
        try:
            offsets = self._offsets_of(partition)
            if row + 1 >= len(offsets):
                raise ValueError(f"{len(offsets) - 1} rows")
            start, stop = int(offsets[row]), int(offsets[row + 1])
            data = self._ranges.read(filesystem(url)[1] if self._is_local else url, start, stop - start)
            if len(data) != stop - start:
                raise ValueError(f"it ends after {len(data)} of {stop - start} bytes at {start}")
        except Exception as error:  # each file system has its own
            text = f"{url}: the thumbnail of row {row} can't be read ({one_line(error)})"
            raise RunDirectoryError(f"{text}; run embed again with --redo") from error
        return data

    def _offsets_of(self, partition: int) -> npt.NDArray[np.int64]:
        offsets = self._offsets.get(partition)
        if offsets is not None:
            return offsets
        url = join(self._folder, thumbnail_paths(partition)[1])
        if self._is_local:
            # a plain array over the map: memmap's own indexing is slow
            offsets = np.asarray(np.load(filesystem(url)[1], mmap_mode="r"))
        else:
            data = read_bytes(url)
            if data is None:
                raise FileNotFoundError(url)
            offsets = np.load(io.BytesIO(data))
        self._offsets[partition] = offsets
        return offsets


def open_thumbnails(folder: str) -> ThumbnailStore | None:
    """The thumbnails beside a run's embeddings, None if it kept none; opened once per process, and again after they were replaced."""
    if is_local(folder):
        state = str(folder_state(join(folder, "thumbnails")))
    else:  # remote folders have no modification time, but the stage's record is rewritten with its files
        state = sha256(read_bytes(join(folder.rpartition("/")[0], "_stages", "embed.json")) or b"").hexdigest()
    return _open_thumbnails(folder, state)


@lru_cache(maxsize=1)
def _open_thumbnails(folder: str, state: str) -> ThumbnailStore | None:
    numbers = [int(re.findall(r"(\d+)\.npy$", name)[0]) for name in matching(join(folder, "thumbnails"), "offsets_*.npy")]
    return ThumbnailStore(folder, numbers) if numbers else None
