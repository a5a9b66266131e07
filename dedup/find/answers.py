"""What a lookup says about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Match:
    """A training image that an image matches.

    Parameters
    ----------
    sample_id : int
        The first sample with these image bytes.
    key, shard : str
    url, caption : str or None
    similarity : float
        Exact cosine: of the whole images, one turned as the view says; else of the looks that are alike, which is another scale.
    duplication_count : int
        Samples in the group of copies that it belongs to.
    component_id : int
    is_kept : bool
        Whether the manifest keeps it, or a byte-identical copy; False: another of its group.
    view : str
        How they are alike: ``none`` (whole, as they are), ``mirror``, ``rotate90``, …; ``inner`` (the picture inside a frame),
        ``crop`` (a part of either), these two also turned, such as ``inner mirror``; ``rotated`` (by an unknown angle).
    is_copy : bool or None
        By the pixels; None where they were not looked at or the training image can't be read.
    distance : float or None
        How much the parts that agree least differ, 0 to 1.
    l2, tiled_l2 : float or None
        Of the image to the training image, stretched to its size and turned as the view says, 0 to 1; where they were asked for.
    trouble : str or None
        Why the training image could not be read.
    """

    sample_id: int
    key: str
    shard: str
    url: str | None
    caption: str | None
    similarity: float
    duplication_count: int
    component_id: int
    is_kept: bool
    view: str
    is_copy: bool | None = None
    distance: float | None = None
    l2: float | None = None
    tiled_l2: float | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Answer:
    """What was found for an image.

    Parameters
    ----------
    image : str
        Its name.
    matches : list of Match
        Copies first, then the most similar.
    error : str or None
        Why it could not be looked up.
    reason : str or None
        The same in a word of `dedup.schemas.REJECT_REASONS`.
    """

    image: str
    matches: list[Match]
    error: str | None = None
    reason: str | None = None

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

        Raises
        ------
        InputError, SampleError
            If it can't be read.
        """
