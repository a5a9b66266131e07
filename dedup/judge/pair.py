"""Whether two pictures are copies: one is tried in each likely turn until the pixels agree."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache
from PIL import Image

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.contracts import Engine, Table
from dedup.encoders import decoded_side
from dedup.encoders.dct import turn_names, turns
from dedup.errors import InputError, SampleError
from dedup.judge.verdicts import OUTCOME_COLUMNS, VERDICTS, Remembered
from dedup.numerics.arraytypes import Pixels, Vectors
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.judge.compare import Verdict, compare, turned
from dedup.numerics.judge.match import DRAWN
from dedup.numerics.judge.picture import LEAST_SIDE, Picture, use_one_thread
from dedup.numerics.judge.relation import RELATIONS, Relation
from dedup.numerics.judge.traces import as_list, find_traces
from dedup.numerics.similarity import Turn, apply_turn, best_turn_similarity, exact_similarity
from dedup.runs.directory import Run
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.tables import FileWriter, ask
from dedup.storage.urls import join

DROPPED: Final[tuple[Relation, ...]] = ("copy", "part")  # relations in which a pair stands, unless the configuration says otherwise

ROTATED = "rotated"  # by an angle that the judge has yet to find

TURN_NAMES = ("none", *turn_names(), ROTATED)  # in the order in which searches number them

QUARTER_TURNS = ("none", "rotate90", "rotate270", "rotate180")

_AS_LIKELY = 0.15  # how much less similar than upright a turn may be and still be tried
_GAIN = 0.05  # how much more similar than upright a turn must be to be tried first


def turns_of(view: str) -> tuple[str, ...]:
    """The turns to try for an image that matched in a view.

    >>> turns_of("crop mirror"), turns_of("inner"), turns_of("rotated")
    (('mirror',), ('none',), ('none', 'rotate90', 'rotate270', 'rotate180'))
    """
    if view == ROTATED:
        return QUARTER_TURNS
    last = view.rpartition(" ")[2]
    return (last if last in VARIANTS else "none",)


def turns_to_try(view: str, likely: str | None) -> tuple[str, ...]:
    """The turns of the view in which a pair was found; for a pair found upright also the likely turn.

    A nearly symmetric picture is similar to its mirror image even upright, so a mirrored copy of it is found upright: only the pixels,
    once turned, tell.
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
    """The turns to try for a pair that no search found, the likelier first: upright and, if any is more similar, the best turn.

    `src`, `dst`: shape (1, dim).
    """
    upright = best_turn_similarity(src, dst, ())[0][0]
    best, which = best_turn_similarity(src, dst, turns)
    if not which[0]:
        return ("none",)
    turn = TURN_NAMES[which[0]]
    return (turn, "none") if best[0] >= upright + _GAIN else ("none", turn)


_HELD = 192  # pictures held, some 1.5 MB each


@dataclass(frozen=True)
class JudgeSettings:
    """How pairs are judged."""

    run: Run
    max_pixels: int  # of the decoder
    min_side: int  # of the decoder
    max_distance: float
    keeps_unreadable: bool  # whether a pair whose pixels can't be read stands
    drop: tuple[Relation, ...] = DROPPED  # relations in which a pair stands

    @classmethod
    def of(cls, config: Config) -> JudgeSettings:
        """The settings of a configuration."""
        min_side = max(LEAST_SIDE, decoded_side(config.encoder))
        confirm = config.confirm
        drop: tuple[Relation, ...] = tuple(relation for relation in RELATIONS if relation in confirm.drop)
        return cls(
            Run(config.output.run_dir, config), config.input.max_pixels, min_side, confirm.max_distance, confirm.unreadable == "keep", drop
        )

    def reader(self) -> PictureReader:
        """A reader of the run's pictures."""
        return PictureReader(self.run.path("embeddings"), min_side=self.min_side, max_pixels=self.max_pixels)


@dataclass(frozen=True)
class Outcome:
    """The verdict on a pair."""

    stands: bool
    was_read: bool  # false: pixels were not compared, since one picture can't be read
    turn: str  # how the first was turned
    distance: float | None = None
    moved: float | None = None
    reason: str = ""  # why it does not stand
    transform: list[float] | None = None  # rows of the affine map in relative coordinates
    relation: Relation | None = None  # what the two are to each other; None if their pixels were not compared
    inside: str | None = None  # of a part, which one lies inside the other: src, the first, or dst
    agreeing_share: float | None = None
    mask: bytes | None = None  # PNG; where two of one template agree
    drawn: float | None = None  # 0 to 2; above `DRAWN` both are drawn, written or printed
    traces: list[float] | None = None  # what was done to each of two copies; see `dedup.numerics.judge.traces.as_list`

    @property
    def is_copy(self) -> bool | None:
        """What the pixels say; None if they were not compared."""
        return self.stands if self.was_read else None


@dataclass(frozen=True, eq=False)
class InMemory:
    """A picture that is not a sample of the run; compared by identity, since derived pictures are held for the object."""

    pixels: Pixels  # shape (height, width, 3)


def compare_turned(
    pictures: Iterable[tuple[str, Picture]], target: Picture, *, max_distance: float, drop: Sequence[Relation] = DROPPED
) -> Outcome:
    """The first outcome that stands, otherwise the one with the least distance.

    `pictures`: turns with the picture so turned; at least one.
    `drop`: relations in which a pair stands.
    """
    best: tuple[Verdict, str] | None = None
    for turn, picture in pictures:
        verdict = compare(picture, target, max_distance=max_distance)
        if verdict.relation in drop:
            matrix = verdict.matrix if verdict.fine_matrix is None else verdict.fine_matrix
            is_drawn = verdict.drawn is not None and verdict.drawn > DRAWN
            return replace(_outcome(verdict, turn, drop), traces=as_list(find_traces(picture, target, matrix, is_drawn=is_drawn)))
        if best is None or verdict.distance < best[0].distance:
            best = verdict, turn
    if best is None:
        raise ValueError("expected at least one turn")
    return _outcome(*best, drop)


def _outcome(verdict: Verdict, turn: str, drop: Sequence[Relation]) -> Outcome:
    stands = verdict.relation in drop
    return Outcome(
        stands,
        True,
        turn,
        float(verdict.distance),
        float(verdict.moved),
        # copies and parts have none; where they may not stand, the relation is the reason
        "" if stands else verdict.reason or "not_dropped",
        np.asarray(verdict.matrix, dtype=np.float32).ravel().tolist(),
        verdict.relation,
        {"": None, "first": "src", "second": "dst"}[verdict.inside],
        verdict.agreeing_share,
        None if verdict.mask is None else png(verdict.mask),
        verdict.drawn,
    )


_SAME_EXTENT = (0.75, 1.33)  # ratio of the areas of two pictures from which they show the same, all frames of an animation being alike


def without_frames(outcome: Outcome) -> Outcome:
    """The outcome for pictures of which one is an animation: refused if one lies in the other, since other frames would go with it."""
    matrix = np.array(outcome.transform, dtype=np.float64).reshape(2, 3)[:, :2]
    if _SAME_EXTENT[0] < abs(float(np.linalg.det(matrix))) < _SAME_EXTENT[1]:
        return outcome
    return replace(outcome, stands=False, reason="frames", relation="different", inside=None, traces=None)


def png(mask: Pixels) -> bytes:
    """The PNG file of a picture of grey levels."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", optimize=True)
    return file.getvalue()


def _no_samples(sample_id: int) -> Pixels:
    raise ValueError(f"a judge of pictures in memory was asked about sample {sample_id}; expected one that reads samples")


class PairJudge:
    """Judges pairs of pictures; not thread-safe.

    `read`: gives the pixels of a sample; raises InputError or SampleError if they can't be read. Not needed if all pictures are in memory.
    `verdicts`: of `VERDICTS`: pairs judged in the base of the run.
    `n_frames`: of samples: frames of an animation or pages of a file, which are one picture side by side where they differ.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        read: Callable[[int], Pixels] = _no_samples,
        verdicts: pa.Table | None = None,
        n_frames: Mapping[int, int | None] | None = None,
    ) -> None:
        self._settings, self._read, self._n_frames = settings, read, n_frames or {}
        self._pictures: LRUCache[tuple[int | InMemory, str], Picture | None] = LRUCache(_HELD)
        self.unreadable: dict[int, str] = {}
        self._remembered = Remembered(VERDICTS.empty_table() if verdicts is None else verdicts)

    def judge(self, first: int | InMemory, second: int | InMemory, turns: Sequence[str], question: str = "") -> Outcome:
        """Judge two samples or pictures.

        `first`, `second`: a sample_id, or a picture.
        `turns`: how the first may be turned, the likeliest first.
        `question`: who asks; the base's verdict on another question is used only where this one would get the same.
        """
        if not isinstance(first, InMemory) and not isinstance(second, InMemory):
            row = self._remembered.find(first, second, turns, question)
            if row is not None:
                return Outcome(row["stands"], True, *(row[name] for name in OUTCOME_COLUMNS))
        a, b = self.picture(first), self.picture(second)
        if a is None or b is None:
            keeps = self._settings.keeps_unreadable
            return Outcome(keeps, False, turns[0], reason="" if keeps else "unreadable")
        outcome = compare_turned(self._turned(first, turns), b, max_distance=self._settings.max_distance, drop=self._settings.drop)
        return without_frames(outcome) if outcome.stands and self._has_frames(first, second) else outcome

    def _has_frames(self, first: int | InMemory, second: int | InMemory) -> bool:
        """Whether one of two samples is an animation or a file of several pages."""
        return not isinstance(first, InMemory) and not isinstance(second, InMemory) and self._frames(first, second) > 1

    def _frames(self, *sample_ids: int) -> int:
        return max(self._n_frames.get(sample_id) or 1 for sample_id in sample_ids)

    def picture(self, which: int | InMemory, turn: str = "none") -> Picture | None:
        """A picture, from the cache if it is there; None if it can't be read."""
        key = (which, turn)
        if key not in self._pictures:
            self._pictures[key] = self._make(which, turn)
        return self._pictures[key]

    def _turned(self, which: int | InMemory, turns: Sequence[str]) -> Iterator[tuple[str, Picture]]:
        for turn in turns:
            picture = self.picture(which, turn)
            if picture is not None:
                yield turn, picture

    def _make(self, which: int | InMemory, turn: str) -> Picture | None:
        if isinstance(which, InMemory):
            return Picture(which.pixels if turn == "none" else turned(which.pixels, turn))
        if turn != "none":  # turned from the pixels held, which are those compared
            upright = self.picture(which)
            return None if upright is None else Picture(turned(upright.pixels, turn))
        try:
            return Picture(self._read(which))
        except (InputError, SampleError) as error:
            self.unreadable[which] = str(error)
            return None


PLACES = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("byte_offset", pa.int64()),
        ("n_bytes", pa.int64()),
        ("member", pa.string()),
        ("n_frames", pa.int32()),
    ]
)

PLACES_SQL = """
SELECT {columns}
FROM metadata JOIN wanted ON metadata.sample_id = wanted.sample_id
ORDER BY metadata.sample_id
"""


@dataclass(frozen=True)
class Space:
    """Vectors that images are compared by."""

    run: Run  # that holds the vectors
    encoder: str
    min_similarity: float

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Turns that can be applied to a vector instead of its image."""
        return turns() if encoder_kind(self.encoder).can_turn else ()


@dataclass(frozen=True)
class JudgeInputs:
    """What all tasks that judge pairs share."""

    settings: JudgeSettings
    places: pa.Table  # of `PLACES`, for every sample that may be judged
    verdicts: pa.Table = field(default_factory=VERDICTS.empty_table)  # of `VERDICTS`: pairs judged in the base of the run
    spaces: tuple[Space, ...] = ()  # the run's own first

    @contextmanager
    def judge(self) -> Iterator[PairJudge]:
        """The judge of a worker's task, with files open until its end."""
        use_one_thread()  # per worker
        rows = self.places.to_pylist()
        n_frames = {row["sample_id"]: row.pop("n_frames", None) for row in rows}
        places = {row["sample_id"]: Place(**row) for row in rows}
        with self.settings.reader() as reader:
            reader.prefetch(list(places.values()))

            def read(sample_id: int) -> Pixels:
                return reader.read(places[sample_id])

            yield PairJudge(self.settings, read, self.verdicts, n_frames)


def find_places(engine: Engine, metadata: Table, sample_ids: npt.NDArray[np.int64], schema: pa.Schema = PLACES) -> pa.Table:
    """Where the images of samples lie, or the columns of `metadata` that another schema names; ordered by sample_id."""
    columns = ", ".join(f"metadata.{name} AS {name}" for name in schema.names)
    wanted = pa.table({"sample_id": sample_ids})
    return ask(engine, PLACES_SQL.format(columns=columns), {"metadata": metadata, "wanted": wanted}, schema)


_ROWS_HELD = 5_000


class VerdictWriter:
    """Writes pairs that stand to `edges` and the others to `refused`, in one file each.

    `name`: of the files, without the suffix.
    `stage`: for the column of that name.
    `writes_edges`: whether pairs that stand are written.
    """

    def __init__(self, run: Run, name: str, stage: str, *, writes_edges: bool = True) -> None:
        self._files = ExitStack()
        edges, refused = (run.table(table) for table in ("edges", "refused"))
        open_file = self._files.enter_context
        self._edges = open_file(FileWriter(join(edges.path, f"{name}.parquet"), edges.schema)) if writes_edges else None
        self._refused = open_file(FileWriter(join(refused.path, f"{name}.parquet"), refused.schema))
        self._stage = stage
        self._standing: list[dict[str, object]] = []
        self._refusals: list[dict[str, object]] = []
        self.reasons: Counter[str] = Counter()
        self.n_standing = self.n_unread = self.n_drawn = 0

    def add(self, src: int, dst: int, similarity: float, outcome: Outcome, source: str, found_by: str | None = None) -> None:
        """Add a judged pair."""
        self.n_unread += not outcome.was_read
        row: dict[str, object] = {
            "src": src, "dst": dst, "similarity": similarity, "kind": "near", "source": source, "variant": outcome.turn,
            "found_by": found_by, "distance": outcome.distance, "transform": outcome.transform, "relation": outcome.relation,
            "inside": outcome.inside, "agreeing_share": outcome.agreeing_share, "drawn": outcome.drawn,
            "traces": outcome.traces,
        }  # fmt: skip
        if outcome.stands:
            self.n_standing += 1
            self.n_drawn += outcome.drawn is not None and outcome.drawn > DRAWN
            self._standing.append(row | {"confirmed": True if outcome.was_read else None})
        else:
            self.reasons[outcome.reason] += 1
            self._refusals.append(row | {"reason": outcome.reason, "moved": outcome.moved, "mask": outcome.mask, "stage": self._stage})
        if len(self._standing) + len(self._refusals) >= _ROWS_HELD:
            self._flush()

    def _flush(self) -> None:
        if self._edges is not None and self._standing:
            self._edges.write(pa.Table.from_pylist(self._standing, schema=self._edges.schema))
        if self._refusals:
            self._refused.write(pa.Table.from_pylist(self._refusals, schema=self._refused.schema))
        self._standing.clear()
        self._refusals.clear()

    def __enter__(self) -> VerdictWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._files.__exit__(kind, value, trace)
