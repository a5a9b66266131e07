"""Small JPEGs of samples, read from their shards by byte range and bounded in number and bytes."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from dedup.errors import DedupError
from dedup.numerics.resize import area_resize
from dedup.storage.pictures import PictureReader, Place
from dedup.storage.thumbnails import open_thumbnails
from dedup.storage.urls import is_local

SIDE: Final = 160  # pixels of the longer side, at most
_QUALITY: Final = 70
_MOST_PICTURES: Final = 4_000
_MOST_COMPRESSED: Final = 8  # compressed tars, each of which is read from its beginning
_TAG_BYTES: Final = 100  # that a picture takes in the page beside its own
_REMOTE_TRIES: Final = 30  # images of remote shards that can't be read one after another, that end the asking: a host may be gone
_TRIES: Final = 3  # images of a shard that can't be read, after which the rest of it is not asked for


@dataclass
class Pictures:
    """What could be read.

    Parameters
    ----------
    jpegs : dict
        sample_id to an encoded picture.
    n_wanted : int
        Samples that are shown.
    n_unread : int
        Of these, whose shard or image could not be read.
    n_left_out : int
        Of these, that were not asked for: too many, or in too many compressed tars.
    trouble : str
        Why the first could not be read.
    """

    jpegs: dict[int, bytes] = field(default_factory=dict)
    n_wanted: int = 0
    n_unread: int = 0
    n_left_out: int = 0
    trouble: str = ""

    def within(self, n_bytes: int, order: Sequence[int]) -> dict[int, str]:
        """Pictures as base64, the first in `order` for which there is room; one that is there several times takes it as often."""
        times, chosen = Counter(order), dict[int, str]()
        for sample_id in dict.fromkeys(order):
            data = self.jpegs.get(sample_id)
            if data is None:
                continue
            n_bytes -= times[sample_id] * (-(-len(data) // 3) * 4 + _TAG_BYTES)
            if n_bytes < 0:
                break
            chosen[sample_id] = base64.b64encode(data).decode()
        return chosen


def read_pictures(run_dir: str, places: Mapping[int, Place], order: Sequence[int], *, max_pixels: int) -> Pictures:
    """Read and reduce the pictures of samples, shard by shard.

    Parameters
    ----------
    run_dir : str
    places : mapping
        sample_id to where its image lies.
    order : sequence of int
        sample_ids, those that matter most first.
    max_pixels : int
        `input.max_pixels`.
    """
    wanted = [places[sample_id] for sample_id in dict.fromkeys(order) if sample_id in places]
    found = Pictures(n_wanted=len(wanted))
    asked = _affordable(run_dir, wanted[:_MOST_PICTURES])
    found.n_left_out = len(wanted) - len(asked)
    failures: Counter[str] = Counter()
    n_remote_failures = 0
    with PictureReader(run_dir, SIDE, max_pixels=max_pixels) as reader:
        reader.prefetch(asked)
        for place in sorted(asked, key=lambda place: (place.shard, place.byte_offset or 0, place.sample_id)):
            is_remote = not is_local(place.shard)
            # the files of a folder go one by one, a shard goes whole
            is_gone = failures[place.shard] >= _TRIES and not place.shard.endswith("/")
            if not is_gone and not (is_remote and n_remote_failures >= _REMOTE_TRIES):
                try:
                    found.jpegs[place.sample_id] = small_jpeg(reader.read(place))
                    failures[place.shard] = n_remote_failures = 0
                    continue
                except DedupError as error:
                    failures[place.shard] += 1
                    n_remote_failures += is_remote
                    found.trouble = found.trouble or str(error)
            found.n_unread += 1
    return found


def small_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG whose longer side has at most `SIDE` pixels.

    Parameters
    ----------
    pixels : uint8 array, shape (height, width, 3)
        RGB.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1.0:
        pixels = area_resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))


def _affordable(run_dir: str, places: Sequence[Place]) -> list[Place]:
    """Without those in compressed tars beyond the first few."""
    thumbnails, tars = open_thumbnails(run_dir), set[str]()
    chosen = []
    for place in places:
        if place.byte_offset is None and (thumbnails is None or place.sample_id not in thumbnails):
            if place.shard not in tars and len(tars) == _MOST_COMPRESSED:
                continue
            tars.add(place.shard)
        chosen.append(place)
    return chosen
