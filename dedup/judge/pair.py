"""Whether two pictures are copies: one turned in each likely way until the pixels agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache

from dedup.config import Config
from dedup.encoders import decoded_side
from dedup.errors import InputError, SampleError
from dedup.judge.verdicts import VERDICTS, Remembered
from dedup.numerics.judge.compare import compare, turned
from dedup.numerics.judge.picture import SIDE, Picture
from dedup.runs.directory import Run
from dedup.storage.images.reader import PictureReader

_HELD = 192  # pictures held, some 0.5 MB each
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class JudgeSettings:
    """How pairs are judged."""

    run: Run
    # max_pixels, min_side: of the decoder
    max_pixels: int
    min_side: int
    max_distance: float
    keeps_unreadable: bool  # whether a pair whose pixels can't be read stands

    @classmethod
    def of(cls, config: Config) -> JudgeSettings:
        """What a configuration asks for."""
        min_side = max(SIDE, decoded_side(config.encoder))
        keeps_unreadable = config.confirm.unreadable == "keep"
        return cls(Run(config.output.run_dir, config), config.input.max_pixels, min_side, config.confirm.max_distance, keeps_unreadable)

    def reader(self) -> PictureReader:
        """A reader of the run's pictures."""
        return PictureReader(self.run.path("embeddings"), min_side=self.min_side, max_pixels=self.max_pixels)


@dataclass(frozen=True)
class Outcome:
    """What became of a pair."""

    stands: bool
    was_read: bool  # false: pixels were not compared, since those of one can't be read
    turn: str  # how the first was turned
    distance: float | None = None
    moved: float | None = None
    reason: str = ""  # why it does not stand
    transform: list[float] | None = None  # rows of the affine map in relative coordinates

    @property
    def is_copy(self) -> bool | None:
        """What the pixels say, None where they were not compared."""
        return self.stands if self.was_read else None


@dataclass(frozen=True, eq=False)
class InMemory:
    """A picture that is no sample of the run. Two are the same only as one object: what is derived of it is held for that."""

    pixels: Pixels  # shape (height, width, 3)


def compare_turned(pictures: Iterable[tuple[str, Picture]], other: Picture, *, max_distance: float) -> Outcome:
    """The first comparison that stands, else the one of least distance.

    `pictures`: iterable of (str, Picture); a turn and the picture turned so; at least one.
    `max_distance`: `confirm.max_distance`.
    """
    best: Outcome | None = None
    for turn, picture in pictures:
        verdict = compare(picture, other, max_distance=max_distance)
        transform = np.asarray(verdict.matrix, dtype=np.float32).ravel().tolist()
        outcome = Outcome(verdict.is_copy, True, turn, float(verdict.distance), float(verdict.moved), verdict.reason, transform)
        if outcome.stands:
            return outcome
        if best is None or verdict.distance < (best.distance or 0.0):
            best = outcome
    if best is None:
        raise ValueError("expected at least one turn")
    return best


def _no_samples(sample_id: int) -> Pixels:
    raise ValueError(f"a judge of pictures in memory was asked about sample {sample_id}; expected one that reads samples")


class PairJudge:
    """Judges pairs of pictures; for one thread at a time.

    Parameters
    ----------
    settings : JudgeSettings
    read : callable, optional
        Pixels of a sample; raises InputError or SampleError where they can't be read. Not needed where all pictures are in memory.
    verdicts : pyarrow.Table, optional
        Of `VERDICTS`: pairs that the base of the run has judged.
    """

    def __init__(self, settings: JudgeSettings, read: Callable[[int], Pixels] = _no_samples, verdicts: pa.Table | None = None) -> None:
        self._settings, self._read = settings, read
        self._pictures: LRUCache[tuple[int | InMemory, str], Picture | None] = LRUCache(_HELD)
        self.unreadable: dict[int, str] = {}
        self._remembered = Remembered(VERDICTS.empty_table() if verdicts is None else verdicts)

    def judge(self, first: int | InMemory, second: int | InMemory, turns: Sequence[str], question: str = "") -> Outcome:
        """Judge two samples or pictures.

        `first`, `second`: a sample_id, or a picture.
        `turns`: how the first may be turned, the likeliest first.
        `question`: who asks: what the base answered to another question is only used where it says the same.
        """
        if not isinstance(first, InMemory) and not isinstance(second, InMemory):
            known = self._remembered.find(first, second, turns, question)
            if known is not None:
                return Outcome(known["stands"], True, *(known[name] for name in ("variant", "distance", "moved", "reason", "transform")))
        a, b = self.picture(first), self.picture(second)
        if a is None or b is None:
            keeps = self._settings.keeps_unreadable
            return Outcome(keeps, False, turns[0], reason="" if keeps else "unreadable")
        return compare_turned(self._turned(first, turns), b, max_distance=self._settings.max_distance)

    def picture(self, which: int | InMemory, turn: str = "none") -> Picture | None:
        """A picture, made unless it is held; None if it can't be read."""
        key = (which, turn)
        if key not in self._pictures:
            self._pictures[key] = self._made(which, turn)
        return self._pictures[key]

    def _turned(self, which: int | InMemory, turns: Sequence[str]) -> Iterator[tuple[str, Picture]]:
        for turn in turns:
            picture = self.picture(which, turn)
            if picture is not None:
                yield turn, picture

    def _made(self, which: int | InMemory, turn: str) -> Picture | None:
        if isinstance(which, InMemory):
            return Picture(which.pixels if turn == "none" else turned(which.pixels, turn))
        if turn != "none":  # of a sample only the pixels that are compared are held
            upright = self.picture(which)
            return None if upright is None else Picture(turned(upright.pixels, turn))
        try:
            return Picture(self._read(which))
        except (InputError, SampleError) as error:
            self.unreadable[which] = str(error)
            return None
