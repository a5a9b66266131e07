"""Stage `confirm`: the pixels of candidate pairs are compared, before components form.

A component of candidates is judged as a whole in one task: its central picture with the others, then, in rounds, the maximum-similarity
spanning forest of the candidates between images that nothing connects yet, then other pairs of a component that refusals have torn. A crowd
of n copies takes n - 1 comparisons, not the several n candidates it has; the components are those that all candidates would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dedup.contracts import Engine
from dedup.judge.pair import JudgeSettings
from dedup.judge.verdicts import VERDICTS_VERSION
from dedup.numerics.arraytypes import Ids, Mask
from dedup.numerics.graph.components import connected_components
from dedup.schemas import conform
from dedup.stages.confirm.component import Confirmed, ConfirmTask, confirm_components, hub_of, next_round
from dedup.stages.confirm.work import Work, label_candidates, work_of
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.tables import clear, count_rows, write_table


@dataclass(frozen=True)
class Limits:
    """How much one task gets."""

    members: int = 2_000  # of all its components, unless it has but one
    largest: int = 5_000  # members of a component that one task judges
    searched: int = 50_000  # members of a component that is searched again where it is torn: all its products take a minute


LIMITS = Limits()
_LEAST_MEMBERS = 50
_ENOUGH_STANDING = 20  # confirmed pairs from which their kind is worth a word
_TASKS_PER_WORKER = 8

UNJUDGED_SQL = """
SELECT src, dst, similarity, kind, variant, source,
       CAST(NULL AS VARCHAR(1)) AS found_by, CAST(NULL AS BOOLEAN) AS confirmed, CAST(NULL AS FLOAT) AS distance,
       CASE WHEN kind = 'exact' THEN 'copy' ELSE CAST(NULL AS VARCHAR(4)) END AS relation,
       CAST(NULL AS VARCHAR(3)) AS inside, CAST(NULL AS FLOAT) AS agreeing_share, CAST(NULL AS FLOAT) AS drawn
FROM candidates {where}
ORDER BY src, dst
"""


def judge_candidates(context: StageContext, limits: Limits = LIMITS) -> StageResult:
    """Judge all candidates, and what else connects components that refusals have torn."""
    run = context.run
    edges, refused = run.table("edges"), run.table("refused")
    clear(edges)
    clear(refused)
    settings = context.judge_settings
    if settings is None:
        if context.config.confirm.enabled:
            context.reporter.note(
                "confirm: off: these embeddings don't say where their images lie (columns shard, byte_offset, n_bytes of the metadata); "
                "similarity alone decides"
            )
        n_edges = _copy_unjudged(context, "WHERE source <> 'look'")  # pairs of views are only hints
        write_table(refused, [], "part-none")
        return StageResult({"edges": n_edges, "refused": 0}, {"n_judged": 0})
    n_exact = _copy_unjudged(context, "WHERE kind = 'exact'")
    judged = _judge(context, settings, limits)
    if judged.n_unread:
        fate = "stand on their similarity" if settings.keeps_unreadable else "were refused"
        text = f"confirm: {judged.n_unread:,} pairs {fate}, since their images can't be read again"
        context.reporter.note(f"{text}: {'; '.join(judged.unreadable)}")
    if judged.n_standing >= _ENOUGH_STANDING and judged.n_drawn > judged.n_standing / 2:
        text = f"confirm: {judged.n_drawn:,} of {judged.n_standing:,} confirmed pairs are drawn, written or printed pictures"
        context.reporter.note(
            f"{text}, which differ in little: look at some (dedup show), and see what dedup calibrate expects to be wrong"
        )
    if not judged.n_judged:
        write_table(refused, [], "part-none")
    rows = {"edges": n_exact + judged.n_standing, "refused": count_rows(refused)}
    summary = {
        "n_judged": judged.n_judged,
        "n_confirmed": judged.n_standing,
        "n_unreadable": judged.n_unread,
        "n_reconnected": judged.n_again,
        "n_drawn": judged.n_drawn,
        "refused_by_reason": dict(sorted(judged.reasons.items())),
    }
    return StageResult(rows, summary)


def _judge(context: StageContext, settings: JudgeSettings, limits: Limits) -> Confirmed:
    """Judge the components of all candidates."""
    labels, total = label_candidates(context), Confirmed()
    per_task = len(labels) // (_TASKS_PER_WORKER * context.engine.n_workers)
    with context.engine.scratch() as folder:
        tasks = _Tasks(context, settings, folder)
        giants: list[Work] = []
        due: list[ConfirmTask] = []
        sizes: list[int] = []
        for work in work_of(context, labels, min(limits.members, max(_LEAST_MEMBERS, per_task)), limits.largest):
            if work.is_one_component and len(work.members) > limits.largest:
                giants.append(work)
                continue
            due.append(tasks.make(work, starts_from_hub=True, limit=context.config.confirm.reconnect))
            sizes.append(len(work.members))
        for _, outcome in context.run_tasks("confirm", "images", confirm_components, due, sizes):
            total.add(outcome)
        for work in giants:
            total.add(_Giant(context, tasks, work, limits).judge())
    return total


@dataclass
class _Tasks:
    """Makes tasks, with their files in a folder that workers read."""

    context: StageContext
    settings: JudgeSettings
    folder: str
    n_made: int = 0

    def make(self, work: Work, *, starts_from_hub: bool = False, limit: int = 0, **more: Ids | bool) -> ConfirmTask:
        """A task for some work; `more`: further fields of `ConfirmTask`."""
        number, self.n_made = self.n_made, self.n_made + 1
        work.write(self.folder, number)
        return ConfirmTask(
            self.settings, self.context.spaces, self.folder, number, starts_from_hub, limit, **more  # type: ignore[arg-type]
        )  # fmt: skip


class _Giant:
    """A component too large for one task: judged in parts, then what joins these, in rounds, then searched again as a whole."""

    def __init__(self, context: StageContext, tasks: _Tasks, work: Work, limits: Limits) -> None:
        self._context, self._tasks, self._work, self._limits = context, tasks, work, limits
        self._ids = work.members["sample_id"].to_numpy()
        self._src, self._dst = (np.searchsorted(self._ids, work.pairs[end].to_numpy()).astype(np.int64) for end in ("src", "dst"))
        self._judged = np.zeros((0, 3), dtype=np.int64)  # positions of both, and whether the pair stands
        self._total = Confirmed()

    def judge(self) -> Confirmed:
        """Judge the component."""
        n, limits, limit = len(self._ids), self._limits, self._context.config.confirm.reconnect
        self._run([self._tasks.make(part, starts_from_hub=True, tells_pairs=True) for part in self._parts_with_hub()])
        similarity = self._work.pairs["similarity"].to_numpy()
        while len(picked := next_round(np.flatnonzero(~self._is_judged()), self._src, self._dst, similarity, self._parts())):
            pieces = np.array_split(picked, -(-len(picked) // limits.members))
            self._run([self._tasks.make(self._of_pairs(piece), tells_pairs=True) for piece in pieces])
        parts = self._parts()
        if limit and len(np.unique(parts)) > 1:
            if n > limits.searched:
                text = f"confirm: {n:,} images are in a component too large to search again where pairs were refused"
                self._context.reporter.note(text)
            else:
                known = self._ids[self._judged[:, :2]]
                self._run([self._tasks.make(Work(self._work.members, self._work.pairs.slice(0, 0), self._work.judged),
                                            limit=limit, parts=parts, judged=known, tells_pairs=True)])  # fmt: skip
        return self._total

    def _run(self, tasks: list[ConfirmTask]) -> None:
        for _, outcome in self._context.run_tasks("confirm", "parts of a large component", confirm_components, tasks, [1] * len(tasks)):
            self._total.add(outcome)
            pairs = np.array(outcome.pairs, dtype=np.int64).reshape(-1, 3)
            pairs[:, :2] = np.searchsorted(self._ids, pairs[:, :2])
            self._judged = np.concatenate([self._judged, pairs])

    def _parts(self) -> Ids:
        """The part of each member, as far as pairs stand."""
        standing = self._judged[self._judged[:, 2] == 1]
        return connected_components(standing[:, 0], standing[:, 1], len(self._ids))

    def _is_judged(self) -> Mask:
        keys = self._judged[:, 0] * len(self._ids) + self._judged[:, 1]
        return np.isin(self._src * len(self._ids) + self._dst, keys)

    def _parts_with_hub(self) -> Iterator[Work]:
        """The members in parts, the central picture in each."""
        hub = hub_of(self._work.members)
        others = np.delete(np.arange(len(self._ids)), hub)
        for part in np.array_split(others, -(-len(others) // (self._limits.largest - 1))):
            yield self._of_members(np.sort(np.append(part, hub)))

    def _of_members(self, rows: Ids) -> Work:
        inside = np.isin(self._src, rows) & np.isin(self._dst, rows)
        return Work(self._work.members.take(rows), self._work.pairs.filter(pa.array(inside)), self._judged_among(rows))

    def _of_pairs(self, pairs: Ids) -> Work:
        rows = np.unique(np.concatenate([self._src[pairs], self._dst[pairs]]))
        return Work(self._work.members.take(rows), self._work.pairs.take(pairs), self._judged_among(rows))

    def _judged_among(self, rows: Ids) -> pa.Table:
        table, ids = self._work.judged, self._ids[rows]
        return table.filter(pa.array(np.isin(table["src"].to_numpy(), ids) & np.isin(table["dst"].to_numpy(), ids)))


def _copy_unjudged(context: StageContext, where: str) -> int:
    """Candidates that need not be judged become edges."""
    edges = context.run.table("edges")
    lists = [field for field in edges.schema if field.name in ("transform", "traces")]
    others = pa.schema([field for field in edges.schema if field not in lists])
    engine: Engine = context.engine
    batches = engine.sql(UNJUDGED_SQL.format(where=where), {"candidates": context.run.table("candidates")}, others)

    def whole(batch: pa.Table) -> pa.Table:
        for field in lists:
            batch = batch.append_column(field, pa.nulls(len(batch), field.type))
        return conform(batch, edges.schema)

    return write_table(edges, map(whole, batches), "part-unseen")


STAGE = Stage("confirm", reads=("pairs",), output_version=VERDICTS_VERSION, run=judge_candidates)
