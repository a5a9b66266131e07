"""Turns of a picture that are worth comparing, and which of them are tried first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dedup.encoders.dct import turn_names
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.similarity import Turn, apply_turn, best_turn_similarity, exact_similarity

ROTATED = "rotated"  # by an angle that the judge has yet to find
TURN_NAMES = ("none", *turn_names(), ROTATED)  # in the order in which searches number them
QUARTER_TURNS = ("none", "rotate90", "rotate270", "rotate180")
_AS_LIKELY = 0.15  # of similarity that a turn may lack to be tried too
_GAIN = 0.05  # of similarity that a turn must bring to be tried first
Vectors = npt.NDArray[np.floating]


def turns_of(view: str) -> tuple[str, ...]:
    """The ways an image may be turned that was found alike in a view.

    Examples
    --------
    >>> turns_of("crop mirror"), turns_of("inner"), turns_of("rotated")
    (('mirror',), ('none',), ('none', 'rotate90', 'rotate270', 'rotate180'))
    """
    if view == ROTATED:
        return QUARTER_TURNS
    last = view.rpartition(" ")[2]
    return (last if last in VARIANTS else "none",)


def turns_to_try(view: str, likely: str | None) -> tuple[str, ...]:
    """The turns of the view in which a pair was found; of one found upright also the turn that is about as likely.

    A picture that is nearly symmetric is like its mirror image as it stands, and so it came as a candidate: what tells
    a mirrored copy is only that, turned, it agrees in every tile.
    """
    turns = turns_of(view)
    return (*turns, likely) if likely and turns == ("none",) else turns


def likely_turns(src: Vectors, dst: Vectors, turns: Sequence[Turn]) -> list[str | None]:
    """The turn in which each pair of vectors is most alike, None where it is much less so than upright.

    `src`, `dst`: shape (n, dim).
    `turns`: those of `turn_names`; empty where vectors can't be turned.
    """
    if not turns:
        return [None] * len(src)
    turned = np.stack([exact_similarity(apply_turn(src, turn), dst) for turn in turns])
    best = turned.argmax(axis=0)
    is_likely = turned.max(axis=0) >= exact_similarity(src, dst) - _AS_LIKELY
    return [TURN_NAMES[1 + turn] if likely else None for turn, likely in zip(best.tolist(), is_likely.tolist(), strict=True)]


def likelier_first(src: Vectors, dst: Vectors, turns: Sequence[Turn]) -> tuple[str, ...]:
    """For a pair that no search has found, two rows: upright and, if more alike so, turned; the likelier of both first."""
    upright = best_turn_similarity(src, dst, ())[0][0]
    best, which = best_turn_similarity(src, dst, turns)
    if not which[0]:
        return ("none",)
    turn = TURN_NAMES[which[0]]
    return (turn, "none") if best[0] >= upright + _GAIN else ("none", turn)
