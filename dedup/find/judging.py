"""The look at the pixels of an image and of the training images it may be a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.encoders import decoded_side
from dedup.errors import DedupError, InputError, SampleError
from dedup.find.answers import Match
from dedup.find.views import Views, turns_of
from dedup.numerics.judge.compare import compare, turned
from dedup.numerics.judge.picture import SIDE, Picture
from dedup.numerics.pixels import TILES, l2_distances, tiled_distances
from dedup.runs.directory import OpenedRun
from dedup.runs.samples import SampleTable
from dedup.storage.images.decode import decode_image
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.input.samples import one_line
from dedup.storage.input.shards import read_image_bytes

_SIDE_MEASURED = 512  # longer side in pixels at which distances are measured


@dataclass(frozen=True)
class Verdict:
    """What a look at the pixels found; `is_copy` and `distance` None where the training image can't be read, for the reason `trouble`."""

    is_copy: bool | None
    distance: float | None
    turn: str = "none"
    trouble: str | None = None


class Turned:
    """The pictures of one image, turned as they are asked for."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self._pictures: dict[str, Picture] = {}

    def picture(self, turn: str) -> Picture:
        """The picture, turned."""
        if turn not in self._pictures:
            self._pictures[turn] = Picture(self.views.pixels if turn == "none" else turned(self.views.pixels, turn))
        return self._pictures[turn]


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
        self._flat_quality = config.search.flat_quality
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
        look = Turned(views)
        found, turn_of_best = [], {}
        for match in matches:
            verdict = self.judge(look, match.sample_id, match.view)
            turn_of_best[match.sample_id] = verdict.turn
            found.append(replace(match, is_copy=verdict.is_copy, distance=verdict.distance, trouble=verdict.trouble))
        found.sort(key=lambda match: (match.is_copy is not True, -match.similarity, match.sample_id))
        if data is not None and found and found[0].trouble is None:
            found[0] = self._measured(data, turn_of_best[found[0].sample_id], found[0])
        return found

    def judge(self, look: Turned, sample_id: int, view: str) -> Verdict:
        """Compare an image with one training image, in the ways it may be turned in a view."""
        row = self._samples.row(sample_id)
        if look.views.quality < self._flat_quality:
            # of what has no detail, only the same bytes are a copy
            is_same = row["sha256"] == look.views.sha256
            return Verdict(is_same, 0.0 if is_same else 1.0)
        try:
            other = Picture(self.pixels(row))
        except DedupError as error:
            return Verdict(None, None, trouble=one_line(error))
        best = Verdict(False, 2.0)
        for turn in turns_of(view):
            found = compare(look.picture(turn), other, max_distance=self._max_distance)
            if found.is_copy or found.distance < (best.distance or 0.0):
                best = Verdict(found.is_copy, float(found.distance), turn)
            if found.is_copy:
                break
        return best

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
