"""The look at the pixels of an image and of the training images it may be a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.encoders import decoded_side
from dedup.errors import DedupError, InputError, SampleError
from dedup.lookup.answers import Match
from dedup.lookup.opening import OpenedRun
from dedup.lookup.samples import SampleTable
from dedup.lookup.views import Views, turns_of
from dedup.numerics.confirmation import compare, turned
from dedup.numerics.pictures import SIDE, Picture
from dedup.numerics.tiled import TILES, l2_distances, tiled_distances
from dedup.storage.images import decode_image
from dedup.storage.pictures import PictureReader, Place
from dedup.storage.samples import one_line
from dedup.storage.shards import read_image_bytes

_SIDE_MEASURED = 512  # longer side in pixels at which distances are measured


class PixelJudge:
    """Judges matches by their pixels; for one thread at a time.

    Parameters
    ----------
    opened : OpenedRun
    samples : SampleTable
    """

    def __init__(self, opened: OpenedRun, samples: SampleTable) -> None:
        config = opened.config
        self._samples, self._max_pixels, self._max_distance = samples, config.input.max_pixels, config.confirm.max_distance
        min_side = max(SIDE, decoded_side(config.encoder))
        self._reader = PictureReader(config.output.run_dir, min_side=min_side, max_pixels=config.input.max_pixels)

    def pixels(self, row: dict[str, Any]) -> npt.NDArray[np.uint8]:
        """Pixels of a training image, uint8 (height, width, 3), reduced or from a thumbnail.

        Raises
        ------
        InputError, SampleError
            If it can't be read.
        """
        if not row["n_bytes"]:
            raise InputError(f"the run does not know where the image {row['key']!r} lies")
        return self._reader.read(Place(row["sample_id"], row["shard"], row["key"], row["byte_offset"], row["n_bytes"]))

    def judged(self, data: bytes | None, views: Views, matches: Sequence[Match]) -> list[Match]:
        """Judge each match, copies first.

        Parameters
        ----------
        data : bytes or None
            The encoded image, if l2 distances of the first match are wanted.
        views : Views
        matches : sequence of Match
        """
        pictures: dict[str, Picture] = {}
        found, turn_of_best = [], {}
        for match in matches:
            try:
                other = Picture(self.pixels(self._samples.row(match.sample_id)))
            except DedupError as error:
                found.append(replace(match, trouble=one_line(error)))
                continue
            best: tuple[bool, float, str] | None = None
            for turn in turns_of(match.view):
                if turn not in pictures:
                    pictures[turn] = Picture(views.pixels if turn == "none" else turned(views.pixels, turn))
                verdict = compare(pictures[turn], other, max_distance=self._max_distance)
                if best is None or (verdict.is_copy, -verdict.distance) > (best[0], -best[1]):
                    best = (verdict.is_copy, float(verdict.distance), turn)
                if verdict.is_copy:
                    break
            if best is None:
                raise AssertionError("a view without a turn")
            turn_of_best[match.sample_id] = best[2]
            found.append(replace(match, is_copy=best[0], distance=best[1]))
        found.sort(key=lambda match: (match.is_copy is not True, -match.similarity, match.sample_id))
        if data is not None and found and found[0].trouble is None:
            found[0] = self._measured(data, turn_of_best[found[0].sample_id], found[0])
        return found

    def _measured(self, data: bytes, turn: str, match: Match) -> Match:
        """The l2 and tiled l2 to the training image as it lies in its tar, stretched to the size of the image."""
        row = self._samples.row(match.sample_id)
        try:
            training = decode_image(
                read_image_bytes(row["shard"], row["key"], row["byte_offset"], row["n_bytes"]), max_pixels=self._max_pixels
            ).pixels
        except (InputError, SampleError) as error:
            return replace(match, trouble=one_line(error))
        own = turned(decode_image(data, max_pixels=self._max_pixels).pixels, turn)
        factor = min(1.0, _SIDE_MEASURED / max(own.shape[:2]))
        size = (max(1, round(own.shape[1] * factor)), max(1, round(own.shape[0] * factor)))
        own, training = (_resized(pixels, size) for pixels in (own, training))
        tiles = min(TILES, *size)
        l2, tiled = l2_distances(own[None], training)[0], tiled_distances(own[None], training, tiles)[0]
        return replace(match, l2=float(l2), tiled_l2=float(tiled))


def _resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """As generations are stretched for the same distances: the whole picture, bicubic."""
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
