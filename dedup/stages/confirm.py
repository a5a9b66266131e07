"""Stage `confirm`: a second look at the pixels of every candidate pair, before components form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.contracts import Table
from dedup.stages.context import QUARTER_TURNS, ROTATED, StageContext, StageResult
from dedup.stages.judging import PLACES, Look, PairJudge, look_of
from dedup.stages.reconnect import reconnect
from dedup.stages.verdicts import VerdictWriter
from dedup.storage.tables import clear, count_rows, dataset, filesystem, join, write_table

OUTPUT_VERSION = 1
_MOST_PAIRS = 2_000  # per task
_LEAST_PAIRS = 50
_TASKS_PER_WORKER = 8

_PLACE = (
    "{side}.shard AS {name}_shard, {side}.key AS {name}_key, {side}.byte_offset AS {name}_byte_offset, {side}.n_bytes AS {name}_n_bytes"
)
WORK_SQL = f"""
SELECT candidates.src AS src, candidates.dst AS dst, candidates.similarity AS similarity, candidates.variant AS variant,
       candidates.source AS source,
       {_PLACE.format(side="a", name="src")}, {_PLACE.format(side="b", name="dst")}
FROM candidates
JOIN metadata AS a ON candidates.src = a.sample_id
JOIN metadata AS b ON candidates.dst = b.sample_id
WHERE candidates.kind = 'near'
ORDER BY candidates.src, candidates.dst
"""  # noqa: S608 (names of our own columns only)
WORK = pa.schema(
    [("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32()), ("variant", pa.string()), ("source", pa.string())]
    + [pa.field(f"{end}_{field.name}", field.type) for end in ("src", "dst") for field in list(PLACES)[1:]]
)
UNSEEN_SQL = """
SELECT src, dst, similarity, kind, variant, source, CAST(NULL AS BOOLEAN) AS confirmed, CAST(NULL AS FLOAT) AS distance
FROM candidates {where}
ORDER BY src, dst
"""


@dataclass(frozen=True)
class ConfirmTask:
    """Candidate pairs, with the places of their images, in one file."""

    look: Look
    work: str
    number: int
    edges: Table
    refused: Table


@dataclass(frozen=True)
class ConfirmCounts:
    """What a task found."""

    n_standing: int
    n_unread: int
    reasons: dict[str, int]
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
    judge = PairJudge(task.look, places)
    columns = (work[name].to_pylist() for name in ("src", "dst", "similarity", "variant", "source"))
    with VerdictWriter(task.edges, task.refused, f"part-{task.number:05d}", "confirm") as writer:
        for src, dst, similarity, variant, source in zip(*columns, strict=True):
            variants = QUARTER_TURNS if variant == ROTATED else (variant,)
            writer.add(src, dst, similarity, judge.judge(src, dst, variants), source)
    return ConfirmCounts(writer.n_standing, writer.n_unread, writer.reasons, sorted(judge.unreadable.values())[:3])


def run(context: StageContext) -> StageResult:
    """Judge all candidates, then look for what connects where some were refused."""
    layout = context.layout
    candidates, edges, refused = (layout.table(name) for name in ("candidates", "edges", "refused"))
    clear(edges)
    clear(refused)
    look = look_of(context)
    if look is None:
        n_edges = _copy_unseen(context, "WHERE source = 'whole'")  # looks are no more than hints
        write_table(refused, [], "part-none")
        return StageResult({"edges": n_edges, "refused": 0}, {"n_looked_at": 0})
    n_exact = _copy_unseen(context, "WHERE kind = 'exact'")
    n_pairs = dataset(candidates).count_rows(filter=pc.field("kind") == "near")
    size = min(_MOST_PAIRS, max(_LEAST_PAIRS, n_pairs // (_TASKS_PER_WORKER * context.engine.n_workers)))
    tasks: list[ConfirmTask] = []
    sizes: list[int] = []
    # the work lies in files, so that 10^8 pairs are never in the driver's memory; hidden, and gone with the stage's end
    work = Table(join(edges.path, "_work"), WORK)
    clear(work)
    tables = {"candidates": candidates, "metadata": layout.table("metadata")}
    for batch in context.engine.sql(WORK_SQL, tables, WORK):
        for start in range(0, len(batch), size):
            part = batch.slice(start, size)
            number = len(tasks)
            write_table(work, [part], f"part-{number:05d}")
            tasks.append(ConfirmTask(look, join(work.path, f"part-{number:05d}-00000.parquet"), number, edges, refused))
            sizes.append(len(part))
    n_standing, n_unread, reasons, unreadable = 0, 0, Counter[str](), list[str]()
    for _, counts in context.run_tasks("confirm", "pairs", confirm_pairs, tasks, sizes):
        n_standing += counts.n_standing
        n_unread += counts.n_unread
        reasons.update(counts.reasons)
        unreadable = sorted({*unreadable, *counts.unreadable})[:3]
    clear(work)
    if n_unread:
        became = "stand on their similarity" if look.keeps_unreadable else "were refused"
        context.reporter.note(f"confirm: {n_unread:,} pairs {became}, their images can't be read again: {'; '.join(unreadable)}")
    if not tasks:
        write_table(refused, [], "part-none")
    again = reconnect(context, look)
    rows = {"edges": n_exact + n_standing + again.n_standing, "refused": count_rows(refused)}
    reasons.update(again.reasons)
    summary = {
        "n_looked_at": n_pairs + again.n_looked_at,
        "n_confirmed": n_standing + again.n_standing,
        "n_unreadable": n_unread,
        "n_reconnected": again.n_standing,
        "refused_by_reason": dict(sorted(reasons.items())),
    }
    return StageResult(rows, summary)


def _copy_unseen(context: StageContext, where: str) -> int:
    """Candidates that need no look become edges."""
    edges = context.layout.table("edges")
    transform = edges.schema.field("transform")
    without = edges.schema.remove(edges.schema.get_field_index("transform"))
    batches = context.engine.sql(UNSEEN_SQL.format(where=where), {"candidates": context.layout.table("candidates")}, without)
    return write_table(edges, (batch.append_column(transform, pa.nulls(len(batch), transform.type)) for batch in batches), "part-unseen")
