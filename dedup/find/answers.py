"""What a lookup says about an image, and how its matches are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from dedup.errors import DedupError, InputError, SampleError
from dedup.find.inputs import Views
from dedup.judge.pair import InMemory, JudgeSettings, Outcome, PairJudge, turns_of
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.judge.compare import turned
from dedup.numerics.pixels import TILES, l2_distances, tiled_distances
from dedup.runs.directory import Run
from dedup.runs.samples import SampleTable
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.images.reader import Place
from dedup.storage.input.samples import one_line
from dedup.storage.input.shards import read_image_bytes


@dataclass(frozen=True)
class Match:
    """A training image that matches an image."""

    sample_id: int  # the first sample with these image bytes
    key: str
    shard: str
    url: str | None
    caption: str | None
    # exact cosine: of the whole images, one turned as the view says; otherwise of the views that match, which is another scale
    similarity: float
    duplication_count: int  # samples in its group of copies
    component_id: int
    is_kept: bool  # whether the manifest keeps it or a byte-identical copy; False: it keeps another of the group
    # how they are alike: ``none`` (whole, as they are), ``mirror``, ``rotate90``, …; ``inner`` (the picture inside a frame), ``crop``
    # (a part of either), these two also turned, such as ``inner mirror``; ``rotated`` (by an unknown angle)
    view: str
    is_copy: bool | None = None  # by the pixels; None if they were not judged or the training image can't be read
    distance: float | None = None  # how much the parts that agree least differ, 0 to 1
    # l2, tiled_l2: of the image, turned as the view says, to the training image stretched to its size, 0 to 1; None unless requested
    l2: float | None = None
    tiled_l2: float | None = None
    trouble: str | None = None  # why the training image could not be read


@dataclass(frozen=True)
class Answer:
    """What was found for an image."""

    image: str  # its name
    matches: list[Match]  # copies first, then the most similar
    error: str | None = None  # why it could not be looked up
    reason: str | None = None  # the same as a key of `dedup.schemas.REJECT_REASONS`

    @property
    def is_copy(self) -> bool:
        """Whether one of the matches is a copy by its pixels."""
        return any(match.is_copy is True for match in self.matches)


_SIDE_MEASURED = 512  # longer side in pixels at which distances are measured


class ImageJudge:
    """Judges training images against one image that is looked up; not thread-safe."""

    def __init__(self, views: Views, matches: MatchJudge) -> None:
        self._views, self._matches = views, matches
        # not shared between images: a training image that can't be read now may be readable for the next one
        self._judge, self._image = PairJudge(matches.settings, self._read), InMemory(views.pixels)

    def judge(self, sample_id: int, view: str) -> Outcome:
        """Compare the image with one training image, in the turns that a view allows."""
        row = self._matches.samples.row(sample_id)
        if self._views.quality < self._matches.flat_quality:
            # without detail, only identical bytes make a copy
            is_same = row["sha256"] == self._views.sha256
            return Outcome(is_same, True, "none", 0.0 if is_same else 1.0)
        return self._judge.judge(self._image, sample_id, turns_of(view))

    def trouble(self, sample_id: int) -> str | None:
        """Why a training image could not be read; None if it could."""
        return self._judge.unreadable.get(sample_id)

    def _read(self, sample_id: int) -> Pixels:
        try:
            return self._matches.pixels(sample_id)
        except DedupError as error:  # a broken training image must not keep the others from being judged
            raise InputError(one_line(error)) from error


class MatchJudge:
    """Judges the matches of images; not thread-safe."""

    def __init__(self, run: Run, samples: SampleTable) -> None:
        self.settings, self.samples, self.flat_quality = JudgeSettings.of(run.config), samples, run.config.search.flat_quality
        self._reader = self.settings.reader()

    def pixels(self, sample_id: int) -> Pixels:
        """Pixels of a training image, shape (height, width, 3), reduced or from a thumbnail.

        Raises RunDirectoryError if there is no such sample, or its thumbnail is damaged.
        Raises InputError, SampleError if it can't be read.
        """
        row = self.samples.row(sample_id)
        if not row["n_bytes"]:
            raise InputError(f"the run does not know where the image {row['key']!r} lies")
        return self._reader.read(Place(row["sample_id"], row["shard"], row["key"], row["byte_offset"], row["n_bytes"]))

    def judged(self, data: bytes | None, views: Views, matches: Sequence[Match]) -> list[Match]:
        """Judge each match; copies come first.

        `data`: the encoded image, to measure the l2 distances of the first match; None: they are not measured.
        """
        judge, judged, turn_of = ImageJudge(views, self), [], {}
        for match in matches:
            outcome = judge.judge(match.sample_id, match.view)
            turn_of[match.sample_id] = outcome.turn
            judged.append(replace(match, is_copy=outcome.is_copy, distance=outcome.distance, trouble=judge.trouble(match.sample_id)))
        judged.sort(key=lambda match: (match.is_copy is not True, -match.similarity, match.sample_id))
        if data is not None and judged and judged[0].trouble is None:
            judged[0] = self._measured(data, turn_of[judged[0].sample_id], judged[0])
        return judged

    def _measured(self, data: bytes, turn: str, match: Match) -> Match:
        """The match with l2 and tiled l2 to the training image, read in full from its tar and stretched to the image's size."""
        row, max_pixels = self.samples.row(match.sample_id), self.settings.max_pixels
        try:
            training_data = read_image_bytes(row["shard"], row["key"], row["byte_offset"], row["n_bytes"])
            training = decode_isolated(training_data, max_pixels=max_pixels).pixels
            image = turned(decode_isolated(data, max_pixels=max_pixels).pixels, turn)
        except (InputError, SampleError) as error:
            return replace(match, trouble=one_line(error))
        factor = min(1.0, _SIDE_MEASURED / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image, training = (_resized(pixels, size) for pixels in (image, training))
        tiles = min(TILES, *size)
        l2, tiled = l2_distances(image[None], training)[0], tiled_distances(image[None], training, tiles)[0]
        return replace(match, l2=float(l2), tiled_l2=float(tiled))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The whole picture, stretched bicubically as generations are for the same distances."""
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
