"""Where judged pairs go: `edges` if they stand, else `refused`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache

from dedup.contracts import Table
from dedup.encoders import decoded_side
from dedup.errors import InputError, SampleError
from dedup.numerics.judge.compare import compare, turned
from dedup.numerics.judge.picture import SIDE, Picture, use_one_thread
from dedup.stages.confirm.known import VERDICTS, Remembered
from dedup.stages.stage import StageContext
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.tables import FileWriter, ask
from dedup.storage.urls import join

_ROWS_HELD = 5_000


class VerdictWriter:
    """Writes pairs that stand to `edges` and the others to `refused`, one file each.

    Parameters
    ----------
    edges, refused : Table or None
        None: pairs that stand are not written.
    name : str
        Of the files, without the suffix.
    stage : str
        Who asked.
    """

    def __init__(self, edges: Table | None, refused: Table, name: str, stage: str) -> None:
        self._edges = FileWriter(join(edges.path, f"{name}.parquet"), edges.schema) if edges else None
        self._refused = FileWriter(join(refused.path, f"{name}.parquet"), refused.schema)
        self._stage = stage
        self._standing: list[dict[str, object]] = []
        self._others: list[dict[str, object]] = []
        self.reasons: dict[str, int] = {}
        self.n_standing = self.n_unread = 0

    def add(self, src: int, dst: int, similarity: float, outcome: Outcome, source: str, found_by: str | None = None) -> None:
        """Take one judged pair."""
        self.n_unread += not outcome.was_read
        row: dict[str, object] = {
            "src": src, "dst": dst, "similarity": similarity, "kind": "near", "source": source, "variant": outcome.variant,
            "found_by": found_by, "distance": outcome.distance, "transform": outcome.transform,
        }  # fmt: skip
        if outcome.stands:
            self.n_standing += 1
            self._standing.append(row | {"confirmed": True if outcome.was_read else None})
        else:
            self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
            self._others.append(row | {"reason": outcome.reason, "moved": outcome.moved, "stage": self._stage})
        if len(self._standing) + len(self._others) >= _ROWS_HELD:
            self._flush()

    def _flush(self) -> None:
        if self._edges is not None and self._standing:
            self._edges.write(pa.Table.from_pylist(self._standing, schema=self._edges.schema))
        if self._others:
            self._refused.write(pa.Table.from_pylist(self._others, schema=self._refused.schema))
        self._standing.clear()
        self._others.clear()

    def __enter__(self) -> VerdictWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        writers = [writer for writer in (self._edges, self._refused) if writer is not None]
        if kind is None:
            self._flush()
        for writer in writers:
            if kind is None:
                writer.close()
            else:
                writer.abort()


AS_LIKELY = 0.15  # of similarity that a turn may lack to be tried too

_HELD = 192  # pictures held, some 0.5 MB each

PLACES = pa.schema(
    [("sample_id", pa.int64()), ("shard", pa.string()), ("key", pa.string()), ("byte_offset", pa.int64()), ("n_bytes", pa.int64())]
)

PLACES_SQL = """
SELECT {columns}
FROM metadata JOIN wanted ON metadata.sample_id = wanted.sample_id
ORDER BY metadata.sample_id
"""


@dataclass(frozen=True)
class JudgeSettings:
    """How pairs are judged.

    Parameters
    ----------
    run_dir : str
    max_pixels, min_side : int
        Of the decoder.
    max_distance : float
    keeps_unreadable : bool
        Whether a pair whose pixels can't be read stands.
    """

    run_dir: str
    max_pixels: int
    min_side: int
    max_distance: float
    keeps_unreadable: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a pair.

    Parameters
    ----------
    stands : bool
    was_read : bool
        False: no look could be taken.
    variant : str
        How the first was turned.
    distance, moved : float or None
    reason : str
        Why it does not stand.
    transform : list of float or None
        Rows of the affine map in relative coordinates.
    """

    stands: bool
    was_read: bool
    variant: str
    distance: float | None = None
    moved: float | None = None
    reason: str = ""
    transform: list[float] | None = None


def judge_settings(context: StageContext) -> JudgeSettings | None:
    """The look a configuration asks for; None where confirmation is off."""
    config = context.config
    if not context.confirms:
        return None
    min_side = max(SIDE, decoded_side(config.encoder))
    return JudgeSettings(
        config.output.run_dir, config.input.max_pixels, min_side, config.confirm.max_distance, config.confirm.unreadable == "keep"
    )


def find_places(context: StageContext, sample_ids: npt.NDArray[np.int64], schema: pa.Schema = PLACES) -> pa.Table:
    """Where the images of samples lie, and whatever else of `metadata` a schema names, ordered by sample_id."""
    wanted = pa.table({"sample_id": sample_ids})
    tables = {"metadata": context.layout.table("metadata"), "wanted": wanted}
    columns = ", ".join(f"metadata.{name} AS {name}" for name in schema.names)
    return ask(context.engine, PLACES_SQL.format(columns=columns), tables, schema)


class PairJudge:
    """Judges pairs of samples.

    Parameters
    ----------
    look : Look
    places : pyarrow.Table
        Of `PLACES`, for every sample that may be asked for.
    verdicts : pyarrow.Table, optional
        Of `VERDICTS`: pairs that the base of the run has judged.
    """

    def __init__(self, look: JudgeSettings, places: pa.Table, verdicts: pa.Table | None = None) -> None:
        # one thread per worker, as for all else that workers do
        use_one_thread()
        self._look = look
        self._reader = PictureReader(look.run_dir, min_side=look.min_side, max_pixels=look.max_pixels)
        self._places = {row["sample_id"]: Place(**row) for row in places.to_pylist()}
        self._reader.prefetch(list(self._places.values()))
        self._pictures: LRUCache[int, Picture | None] = LRUCache(_HELD)
        self.unreadable: dict[int, str] = {}
        self._remembered = Remembered(VERDICTS.empty_table() if verdicts is None else verdicts)

    def judge(self, src: int, dst: int, variants: Sequence[str], question: str) -> Outcome:
        """Judge two samples, the first turned in each way given until one stands; `question` says who asks."""
        known = self._remembered.find(src, dst, variants, question)
        if known is not None:
            return Outcome(known["stands"], True, *(known[name] for name in ("variant", "distance", "moved", "reason", "transform")))
        a, b = self.picture(src), self.picture(dst)
        if a is None or b is None:
            keeps = self._look.keeps_unreadable
            return Outcome(keeps, False, variants[0], reason="" if keeps else "unreadable")
        best: Outcome | None = None
        for variant in variants:
            verdict = compare(a if variant == "none" else Picture(turned(a.pixels, variant)), b, max_distance=self._look.max_distance)
            transform = np.asarray(verdict.matrix, dtype=np.float32).ravel().tolist()
            outcome = Outcome(verdict.is_copy, True, variant, verdict.distance, verdict.moved, verdict.reason, transform)
            if outcome.stands:
                return outcome
            if best is None or verdict.distance < (best.distance or 0.0):
                best = outcome
        if best is None:
            raise ValueError("expected at least one variant")
        return best

    def picture(self, sample_id: int) -> Picture | None:
        """The picture of a sample, read unless it is held; None if it can't be read."""
        if sample_id in self._pictures:
            return self._pictures[sample_id]
        picture: Picture | None = None
        try:
            picture = Picture(self._reader.read(self._places[sample_id]))
        except (InputError, SampleError) as error:
            self.unreadable[sample_id] = str(error)
        self._pictures[sample_id] = picture
        return picture
