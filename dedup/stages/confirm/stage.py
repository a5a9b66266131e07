"""Stage `confirm`: the pixels of candidate pairs are compared, before components form.

Candidates are judged in rounds: in each the maximum-similarity spanning forest of those between images that nothing
connects yet. A crowd of n copies takes n - 1 comparisons, not the several n candidates it has; the components are those that
all candidates would give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.contracts import Table
from dedup.judge.pair import PLACES, JudgeInputs, JudgeSettings, Space, VerdictWriter, likely_turns, turns_to_try
from dedup.judge.verdicts import JUDGED_SQL, JUDGED_TABLES, VERDICTS, VERDICTS_VERSION, base_tables
from dedup.numerics.arraytypes import Ids, Mask, Rows16, Sims
from dedup.numerics.graph.components import connected_components, maximum_spanning_forest
from dedup.numerics.similarity import exact_similarity
from dedup.stages.confirm.reconnect import reconnect
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.tables import clear, count_rows, dataset, write_table
from dedup.storage.urls import filesystem, join

_MOST_PAIRS = 2_000  # per task
_LEAST_PAIRS = 50
_TASKS_PER_WORKER = 8
_BLOCK = 512  # pairs whose turned similarities are found at a time

_PLACE = (
    "{side}.shard AS {name}_shard, {side}.key AS {name}_key, {side}.byte_offset AS {name}_byte_offset, "
    "{side}.n_bytes AS {name}_n_bytes, {side}.member AS {name}_member"
)

WORK_SQL = f"""
SELECT candidates.src AS src, candidates.dst AS dst, candidates.similarity AS similarity, candidates.variant AS variant,
       candidates.source AS source,
       {_PLACE.format(side="a", name="src")}, {_PLACE.format(side="b", name="dst")},
       {{verdict}}
FROM candidates
JOIN metadata AS a ON candidates.src = a.sample_id
JOIN metadata AS b ON candidates.dst = b.sample_id
{{judged}}
ORDER BY candidates.src, candidates.dst
"""  # noqa: S608 (names of our own columns only)

# the base's verdict on the same candidate; without a base there is none
_VERDICT = VERDICTS.names[3:]
_NO_VERDICT = "CAST(NULL AS BOOLEAN) AS stands"
_BASE_VERDICT = ", ".join(f"known.{name} AS judged_{name}" if name != "stands" else "known.stands AS stands" for name in _VERDICT)

_JUDGED = (
    f"LEFT JOIN ({JUDGED_SQL}) AS known ON candidates.src = known.src AND candidates.dst = known.dst AND candidates.source = known.question"
)

WORK = pa.schema(
    [("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32()), ("variant", pa.string()), ("source", pa.string())]
    + [pa.field(f"{end}_{field.name}", field.type) for end in ("src", "dst") for field in list(PLACES)[1:]]
    + [pa.field("stands", pa.bool_())]
)

_WORK_JUDGED = pa.schema([*WORK, *(VERDICTS.field(name).with_name(f"judged_{name}") for name in _VERDICT if name != "stands")])

UNJUDGED_SQL = """
SELECT src, dst, similarity, kind, variant, source,
       CAST(NULL AS VARCHAR(1)) AS found_by, CAST(NULL AS BOOLEAN) AS confirmed, CAST(NULL AS FLOAT) AS distance
FROM candidates {where}
ORDER BY src, dst
"""


@dataclass(frozen=True)
class ConfirmTask:
    """Candidate pairs, with the places of their images, in one file."""

    settings: JudgeSettings
    work: str
    name: str
    spaces: tuple[Space, ...]


@dataclass(frozen=True)
class ConfirmCounts:
    """The outcome of a task: which pairs stand, how many could not be read, why others were refused."""

    stands: Mask
    n_unread: int
    reasons: Counter[str]
    unreadable: list[str]


def confirm_pairs(task: ConfirmTask) -> ConfirmCounts:
    """Judge the pairs of one file."""
    fs, path = filesystem(task.work)
    with fs.open(path, "rb") as file:
        work = pq.read_table(file)
    places = pa.concat_tables(
        [
            pa.table({"sample_id": work[end], **{field.name: work[f"{end}_{field.name}"] for field in list(PLACES)[1:]}})
            for end in ("src", "dst")
        ]
    )
    judge = JudgeInputs(task.settings, places, _judged(work)).judge()
    columns = [work[name].to_pylist() for name in ("src", "dst", "similarity", "source")] + [_found_by(task, work), _turns(task, work)]
    stands = []
    with VerdictWriter(task.settings.run, task.name, "confirm") as writer:
        for src, dst, similarity, source, found_by, turns in zip(*columns, strict=True):
            outcome = judge.judge(src, dst, turns, source)
            writer.add(src, dst, similarity, outcome, source, found_by)
            stands.append(outcome.stands)
    return ConfirmCounts(np.array(stands, dtype=bool), writer.n_unread, writer.reasons, sorted(judge.unreadable.values())[:3])


def _judged(work: pa.Table) -> pa.Table:
    """The base's verdicts, as they came with the pairs."""
    if "judged_variant" not in work.column_names:
        return VERDICTS.empty_table()
    judged = work.filter(pc.is_valid(work["stands"]))
    columns = {"src": judged["src"], "dst": judged["dst"], "question": judged["source"], "stands": judged["stands"]}
    columns |= {name: judged[f"judged_{name}"] for name in _VERDICT if name != "stands"}
    return pa.table(columns, schema=VERDICTS)


def _found_by(task: ConfirmTask, work: pa.Table) -> list[str]:
    """The encoders that each pair is a candidate of."""
    source = np.array(work["source"].to_pylist(), dtype=object)
    names = np.full(len(work), "", dtype=object)
    for number, space in enumerate(task.spaces):
        is_found = np.isin(source, ("also", "also_look") if number else ("whole", "look"))
        if len(task.spaces) > 1:
            for part, src, dst in _vectors(space, work):
                is_found[part] |= exact_similarity(src, dst) >= np.float32(space.min_similarity)
        names[is_found] = [f"{name}+{space.encoder}" if name else space.encoder for name in names[is_found]]
    return list(names)


def _turns(task: ConfirmTask, work: pa.Table) -> list[tuple[str, ...]]:
    space = task.spaces[-1]  # the one that can be turned, if any can
    likely: list[str | None] = [None] * len(work)
    if space.turns:
        for part, src, dst in _vectors(space, work):
            likely[part] = likely_turns(src, dst, space.turns)
    return [turns_to_try(variant, turn) for variant, turn in zip(work["variant"].to_pylist(), likely, strict=True)]


def _vectors(space: Space, work: pa.Table) -> Iterator[tuple[slice, Rows16, Rows16]]:
    """The vectors of both ends of the pairs, in blocks."""
    store, ends = space.run.vectors(), [work[end].to_numpy() for end in ("src", "dst")]
    for start in range(0, len(work), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield part, store.take(ends[0][part]), store.take(ends[1][part])


def judge_candidates(context: StageContext) -> StageResult:
    """Judge all candidates, then search the components that refusals have torn."""
    run = context.run
    candidates, edges, refused = (run.table(name) for name in ("candidates", "edges", "refused"))
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
    judged = _Judged()
    pairs = dataset(candidates).to_table(filter=pc.field("kind") == "near").sort_by([("src", "ascending"), ("dst", "ascending")])
    ids, ends = np.unique(np.concatenate([pairs["src"].to_numpy(), pairs["dst"].to_numpy()]), return_inverse=True)
    src, dst = ends[: len(pairs)], ends[len(pairs) :]
    similarity = pairs["similarity"].to_numpy()
    is_open, parts = np.ones(len(pairs), dtype=bool), np.arange(len(ids))
    stood = np.zeros(len(pairs), dtype=bool)
    while len(picked := next_round(np.flatnonzero(is_open), src, dst, similarity, parts)):
        stood[picked] = _judge_pairs(context, settings, pairs.take(picked), judged)
        is_open[picked] = False
        parts = connected_components(src[stood], dst[stood], len(ids))
    if judged.n_unread:
        fate = "stand on their similarity" if settings.keeps_unreadable else "were refused"
        text = f"confirm: {judged.n_unread:,} pairs {fate}, since their images can't be read again"
        context.reporter.note(f"{text}: {'; '.join(judged.unreadable)}")
    if not judged.n_tasks:
        write_table(refused, [], "part-none")
    again = reconnect(context, settings)
    rows = {"edges": n_exact + int(stood.sum()) + again.n_standing, "refused": count_rows(refused)}
    judged.reasons.update(again.reasons)
    summary = {
        "n_judged": int((~is_open).sum()) + again.n_judged,
        "n_confirmed": int(stood.sum()) + again.n_standing,
        "n_unreadable": judged.n_unread,
        "n_reconnected": again.n_standing,
        "refused_by_reason": dict(sorted(judged.reasons.items())),
    }
    return StageResult(rows, summary)


def next_round(candidates: Ids, src: Ids, dst: Ids, similarity: Sims, parts: Ids) -> Ids:
    """The candidates to judge next: a spanning forest of the components that are not connected yet.

    `candidates`: shape (n_open,); those not judged, as positions in the arrays below.
    `src`, `dst`: shape (n,); ends of all candidates, as nodes.
    `similarity`: shape (n,).
    `parts`: shape (n_nodes,); component of each node so far.
    Returns ascending; empty when all remaining candidates lie within components.
    """
    a, b = parts[src[candidates]], parts[dst[candidates]]
    low, high = np.minimum(a, b), np.maximum(a, b)
    crossing = np.flatnonzero(low != high)
    # one candidate, the most similar, for each pair of components
    order = crossing[np.lexsort((candidates[crossing], -similarity[candidates[crossing]], high[crossing], low[crossing]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    order = order[first]
    return np.sort(candidates[order[maximum_spanning_forest(low[order], high[order], similarity[candidates[order]])]])


@dataclass
class _Judged:
    """Counts of all rounds together."""

    n_tasks: int = 0
    n_unread: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def _judge_pairs(context: StageContext, settings: JudgeSettings, pairs: pa.Table, judged: _Judged) -> Mask:
    """Judge the pairs of one round; returns which stand, in the order of the table, which is by (src, dst)."""
    run = context.run
    size = min(_MOST_PAIRS, max(_LEAST_PAIRS, len(pairs) // (_TASKS_PER_WORKER * context.engine.n_workers)))
    # with the places of their images the pairs lie in files, not in the driver's memory; hidden, and deleted after the round
    of_base = base_tables(context.base, context.config.confirm)
    base = {name: of_base[name] for name in JUDGED_TABLES} if of_base else {}
    work = Table(join(run.table("edges").path, "_work"), _WORK_JUDGED if base else WORK)
    clear(work)
    query = WORK_SQL.format(verdict=_BASE_VERDICT if base else _NO_VERDICT, judged=_JUDGED if base else "")
    tasks: list[ConfirmTask] = []
    sizes: list[int] = []
    for batch in context.engine.sql(query, {"candidates": pairs, "metadata": run.table("metadata")} | base, work.schema):
        for start in range(0, len(batch), size):
            part = batch.slice(start, size)
            write_table(work, [part], f"part-{len(tasks):05d}")
            name = f"part-{judged.n_tasks + len(tasks):05d}"
            tasks.append(ConfirmTask(settings, join(work.path, f"part-{len(tasks):05d}-00000.parquet"), name, context.spaces))
            sizes.append(len(part))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    stands = np.zeros(len(pairs), dtype=bool)
    for number, counts in context.run_tasks("confirm", "pairs", confirm_pairs, tasks, sizes):
        stands[offsets[number] : offsets[number + 1]] = counts.stands
        judged.n_unread += counts.n_unread
        judged.reasons.update(counts.reasons)
        judged.unreadable = sorted({*judged.unreadable, *counts.unreadable})[:3]
    clear(work)
    judged.n_tasks += len(tasks)
    return stands


def _copy_unjudged(context: StageContext, where: str) -> int:
    """Candidates that need not be judged become edges."""
    edges = context.run.table("edges")
    transform = edges.schema.field("transform")
    without = edges.schema.remove(edges.schema.get_field_index("transform"))
    batches = context.engine.sql(UNJUDGED_SQL.format(where=where), {"candidates": context.run.table("candidates")}, without)
    return write_table(edges, (batch.append_column(transform, pa.nulls(len(batch), transform.type)) for batch in batches), "part-unseen")


STAGE = Stage("confirm", reads=("pairs",), output_version=VERDICTS_VERSION, run=judge_candidates)
