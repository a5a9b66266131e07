"""What a lookup says about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Match:
    """A training image that an image matches."""

    sample_id: int  # the first sample with these image bytes
    key: str
    shard: str
    url: str | None
    caption: str | None
    # exact cosine: of the whole images, one turned as the view says; else of the looks that are alike, which is another scale
    similarity: float
    duplication_count: int  # samples in the group of copies that it belongs to
    component_id: int
    is_kept: bool  # whether the manifest keeps it, or a byte-identical copy; False: another of its group
    # how they are alike: ``none`` (whole, as they are), ``mirror``, ``rotate90``, …; ``inner`` (the picture inside a frame), ``crop``
    # (a part of either), these two also turned, such as ``inner mirror``; ``rotated`` (by an unknown angle)
    view: str
    is_copy: bool | None = None  # by the pixels; None where they were not looked at or the training image can't be read
    distance: float | None = None  # how much the parts that agree least differ, 0 to 1
    # l2, tiled_l2: of the image to the training image, stretched to its size and turned as the view says, 0 to 1; where they were
    # asked for
    l2: float | None = None
    tiled_l2: float | None = None
    trouble: str | None = None  # why the training image could not be read


@dataclass(frozen=True)
class Answer:
    """What was found for an image."""

    image: str  # its name
    matches: list[Match]  # copies first, then the most similar
    error: str | None = None  # why it could not be looked up
    reason: str | None = None  # the same in a word of `dedup.schemas.REJECT_REASONS`

    @property
    def is_copy(self) -> bool:
        """Whether one of the matches is a copy by its pixels."""
        return any(match.is_copy is True for match in self.matches)


class Lookup(Protocol):
    """Where images are looked up."""

    @property
    def run_dir(self) -> str:
        """The run."""

    @property
    def n_images(self) -> int:
        """Distinct training images."""

    def search_bytes(
        self, images: Sequence[tuple[str, bytes]], *, k: int, min_similarity: float | None, judge_pixels: bool
    ) -> list[Answer]:
        """Look up encoded images by name; an answer each."""

    def preview(self, sample_id: int, side: int) -> bytes:
        """A small JPEG of a training image, its longer side at most `side` pixels.

        Raises InputError, SampleError if it can't be read.
        """
