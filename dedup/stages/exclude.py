"""Stage `exclude`: samples that must not be trained on: near evaluation images, or on a list, with their copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.contracts import JsonDict, Table
from dedup.errors import ConfigError, InputError, SampleError
from dedup.find.index import RunIndex, open_index
from dedup.find.inputs import find_inputs, is_shard, read_inputs
from dedup.runs.directory import Run
from dedup.runs.record import digest
from dedup.schemas import EXCLUSIONS
from dedup.schemas.pairs import STANDING_SQL
from dedup.stages.stage import Stage, StageContext, StageInputs, StageResult
from dedup.storage.input.names import Entry, read_takedown_list
from dedup.storage.input.sources import expand_shards, fingerprint
from dedup.storage.tables import ask, clear
from dedup.storage.urls import join

_JUDGED = 2_000  # training images judged for one reference image
_MOSTLY = 0.9  # share of copies among those from which the rest of a larger crowd count as copies too


@dataclass(frozen=True)
class ReferenceTask:
    """Reference images that one worker looks for."""

    run: Run
    identity: str  # of the index, so that a rebuilt one is opened again
    paths: tuple[str, ...]  # images and tars
    reason: str  # ``reference`` or ``listed``
    keeps_unreadable: bool  # whether a training image that can't be read counts as near: `confirm.unreadable=keep`
    device: str  # `engine.device`: where the encoder computes


@dataclass
class Near:
    """A row for each pair of a training image and a reference image, and what could not be read."""

    rows: list[tuple[int, str, str, str | None, float, float | None]]  # sample_id, reason, key, shard, similarity, distance or None
    n_images: int  # reference images that were looked up
    errors: list[str]  # reference images that could not be read
    n_unreadable: int  # training images that could not be read


def find_near(task: ReferenceTask) -> Near:
    """Look up the reference images of a task among the training images."""
    index, outcome = _open_index(task.run, task.identity, task.device), Near([], 0, [], 0)
    for image in read_inputs(task.paths, max_image_bytes=index.run.config.input.max_image_bytes):
        # the list names an image by its path
        name, shard = (image.name, "") if task.reason == "listed" else (image.key, image.shard)
        try:
            if image.error is not None:
                raise image.error
            near, n_unreadable = near_images(index, image.data, keeps_unreadable=task.keeps_unreadable)
        except SampleError as error:
            outcome.errors.append(f"{image.name}: {error}")
            continue
        outcome.n_images += 1
        outcome.n_unreadable += n_unreadable
        outcome.rows += [(sample_id, task.reason, name, shard or None, similarity, distance) for sample_id, similarity, distance in near]
    return outcome


def near_images(index: RunIndex, data: bytes, *, keeps_unreadable: bool) -> tuple[list[tuple[int, float, float | None]], int]:
    """All distinct training images that an image (encoded, as bytes) is a copy of.

    Returns a list of (sample_id, similarity, distance or None), and how many training images could not be read.
    Raises SampleError if it is not an image.
    """
    views = index.views(data)
    candidates = index.candidates(views)
    order = sorted(candidates, key=lambda sample_id: (-candidates[sample_id][0], sample_id))
    if not index.run.judges_pixels:
        return [(sample_id, candidates[sample_id][0], None) for sample_id in order], 0
    judge, near, n_unreadable, n_judged = index.judge_of(views), [], 0, 0
    for sample_id in order[:_JUDGED]:
        similarity, view = candidates[sample_id]
        outcome = judge.judge(sample_id, view)
        n_judged += outcome.was_read
        n_unreadable += not outcome.was_read
        if outcome.stands if outcome.was_read else keeps_unreadable:
            near.append((sample_id, similarity, outcome.distance))
    if len(order) > _JUDGED and len(near) >= _MOSTLY * max(n_judged, 1):
        near += [(sample_id, candidates[sample_id][0], None) for sample_id in order[_JUDGED:]]
    return near, n_unreadable


@lru_cache(maxsize=1)
def _open_index(run: Run, identity: str, device: str) -> RunIndex:
    # BLAS and FAISS of several workers share the cores
    return open_index(run.url, overrides=(f"engine.device={device}",), device="cpu", stages=("embed", "index"))


def batches_of(paths: list[str], n_workers: int) -> list[tuple[str, ...]]:
    """Paths for each task: a tar is a task, images are batched."""
    tars = [(path,) for path in paths if is_shard(path)]
    images = [path for path in paths if (path,) not in set(tars)]
    size = int(np.clip(-(-len(images) // (4 * n_workers)), 1, 256))
    return [*tars, *(tuple(images[start : start + size]) for start in range(0, len(images), size))]


_ERRORS_SHOWN = 3
_HITS = pa.schema([*EXCLUSIONS, ("priority", pa.int32())])
_PRIORITY = {"listed": 0, "copy": 1, "reference": 2}
_WANTED = pa.schema([("kind", pa.string()), ("name", pa.string()), ("entry", pa.string())])

NAMED_SQL = " UNION ALL ".join(
    f"""
SELECT metadata.sample_id AS sample_id, min(wanted.entry) AS excluded_by
FROM metadata JOIN wanted ON (wanted.kind = '{kind}' AND metadata.{kind} = wanted.name)
GROUP BY metadata.sample_id
"""  # noqa: S608 (names of our own columns only)
    for kind in ("sha256", "url", "key")
)

# the index holds representatives only: their byte-identical copies are added
_HIT = ", ".join(f"hits.{name} AS {name}" for name in _HITS.names[1:])
TWINS_SQL = f"""
SELECT hits.sample_id AS sample_id, {_HIT} FROM hits
UNION ALL
SELECT exact.sample_id AS sample_id, {_HIT} FROM hits JOIN exact ON hits.sample_id = exact.representative_id
"""  # noqa: S608 (names of our own columns only)

# copies of a listed sample: the others of its group, and those that an edge joins to it directly
COPIES_SQL = f"""
SELECT other.sample_id AS sample_id, listed.excluded_by AS excluded_by
FROM listed
JOIN groups AS own ON listed.sample_id = own.sample_id
JOIN groups AS other ON own.component_id = other.component_id
UNION ALL
SELECT edges.dst AS sample_id, images.excluded_by AS excluded_by
FROM edges JOIN images ON edges.src = images.sample_id WHERE {STANDING_SQL}
UNION ALL
SELECT edges.src AS sample_id, images.excluded_by AS excluded_by
FROM edges JOIN images ON edges.dst = images.sample_id WHERE {STANDING_SQL}
"""  # noqa: S608 (a condition of our own)

IMAGES_SQL = """
SELECT COALESCE(exact.representative_id, listed.sample_id) AS sample_id, listed.excluded_by AS excluded_by
FROM listed LEFT JOIN exact ON listed.sample_id = exact.sample_id
"""

ONE_EACH_SQL = """
SELECT sample_id, reason, excluded_by, reference_shard, similarity_to_reference, distance_to_reference
FROM (
  SELECT all_hits.*, row_number() OVER (
    PARTITION BY sample_id ORDER BY priority ASC NULLS LAST, similarity_to_reference DESC NULLS LAST, excluded_by ASC NULLS LAST,
                                    reference_shard ASC NULLS LAST) AS place
  FROM (SELECT * FROM near UNION ALL SELECT * FROM listed UNION ALL SELECT * FROM twins) AS all_hits
) AS ranked
WHERE place = 1
ORDER BY sample_id
"""


# a sample goes as a whole: an image of it that nothing names goes with those that something does
WHOLE_SQL = """
SELECT sample_id, reason, excluded_by, reference_shard, similarity_to_reference, distance_to_reference FROM excluded_images
UNION ALL
SELECT metadata.sample_id AS sample_id, 'sample' AS reason, min(excluded_images.excluded_by) AS excluded_by,
       CAST(NULL AS STRING) AS reference_shard, CAST(NULL AS FLOAT) AS similarity_to_reference,
       CAST(NULL AS FLOAT) AS distance_to_reference
FROM metadata
JOIN metadata AS named ON metadata.first_image_id = named.first_image_id
JOIN excluded_images ON named.sample_id = excluded_images.sample_id
LEFT JOIN excluded_images AS own ON metadata.sample_id = own.sample_id
WHERE metadata.n_images > 1 AND named.n_images > 1 AND own.sample_id IS NULL
GROUP BY metadata.sample_id
ORDER BY sample_id
"""


def reference_inputs(config: Config) -> StageInputs:
    """What identifies the reference images and the list.

    Raises InputError if there are none where they should be.
    """
    identity: JsonDict = {}
    if config.exclude.reference_shards or config.exclude.reference_images:
        identity["reference"] = digest([[path, fingerprint(path)] for path in reference_paths(config)])
    if config.exclude.list:
        identity["list"] = digest([list(entry) for entry in read_takedown_list(config.exclude.list)])
    return StageInputs(identity)


def reference_paths(config: Config) -> list[str]:
    """Tars and images of `exclude.reference_*`, in order."""
    paths = expand_shards(config.exclude.reference_shards) if config.exclude.reference_shards else []
    return paths + (find_inputs([config.exclude.reference_images]) if config.exclude.reference_images else [])


def find_excluded(context: StageContext) -> StageResult:
    """Find what is near reference images and what is listed; write a row for each sample to exclude."""
    config, table = context.config, context.run.table("exclusions")
    entries = read_takedown_list(config.exclude.list) if config.exclude.list else []
    paths = reference_paths(config)
    images = [entry.value for entry in entries if entry.kind == "image"]
    clear(table)
    hits, figures = _near(context, [(paths, "reference"), (images, "listed")])
    with context.engine.scratch() as scratch:
        near, listed, twins = (Table(join(scratch, name), _HITS) for name in ("near", "listed", "twins"))
        each = Table(join(scratch, "excluded_images"), EXCLUSIONS)
        context.engine.sql_to(TWINS_SQL, {"hits": hits, "exact": context.run.table("exact")}, near)
        context.engine.sql_to(
            f"SELECT {', '.join(_HITS.names)} FROM near WHERE reason = 'listed' UNION ALL {_as_hits(NAMED_SQL, 'listed')}",  # noqa: S608
            {"near": near, "metadata": context.run.table("metadata"), "wanted": _wanted(entries)},
            listed,
        )
        _copies(context, listed, twins, scratch)
        context.engine.sql_to(ONE_EACH_SQL, {"near": near, "listed": listed, "twins": twins}, each)
        n_rows = context.engine.sql_to(WHOLE_SQL, {"excluded_images": each, "metadata": context.run.table("metadata")}, table)
    counts = _counts(context, table)
    if entries and not (counts.get("listed", 0) + counts.get("copy", 0)):
        context.reporter.note(f"exclude: none of the {len(entries):,} entries of {config.exclude.list} names a sample of this run")
    return StageResult({"exclusions": n_rows}, figures | {"n_entries": len(entries), "excluded": counts})


def _near(context: StageContext, references: Sequence[tuple[list[str], str]]) -> tuple[pa.Table, JsonDict]:
    """Training images near the images of some paths, given with their reason; and figures."""
    config, run = context.config, context.run
    record = run.record("index")
    if not any(paths for paths, _ in references) or (record is not None and record.summary.get("n_images") == 0):
        return _HITS.empty_table(), {}
    if not encoder_kind(config.encoder.name).has_images:
        raise ConfigError(
            "exclude.reference_* and images of exclude.list need an encoder; encoder.name=precomputed has none: list sha256, urls or keys"
        )
    if config.index.codes == "none" and not config.index.factory:
        raise ConfigError("exclude.reference_* and images of exclude.list are looked up in the index; expected index.codes other than none")

    identity = "" if record is None else f"{record.digest} {record.finished}"
    tasks = [
        ReferenceTask(run, identity, batch, reason, config.confirm.unreadable == "keep", config.engine.device)
        for paths, reason in references
        for batch in batches_of(paths, context.engine.n_workers)
    ]
    rows: list[tuple[int, str, str, str | None, float, float | None]] = []
    errors: list[str] = []
    n_images = n_unreadable = 0
    sizes = [len(task.paths) for task in tasks]
    for _, outcome in context.run_tasks("exclude", "files", find_near, tasks, sizes, uses_gpu=True):
        rows += outcome.rows
        errors += outcome.errors
        n_images, n_unreadable = n_images + outcome.n_images, n_unreadable + outcome.n_unreadable
    if not n_images:
        raise InputError(f"none of the reference images can be read, the first: {errors[0] if errors else 'there is none'}")
    for error in sorted(errors)[:_ERRORS_SHOWN]:
        context.reporter.note(f"exclude: skipped: {error}")
    hits = [dict(zip(_HITS.names, (*row, _PRIORITY[row[1]]), strict=True)) for row in rows]
    figures: JsonDict = {"n_references": n_images, "n_reference_errors": len(errors), "n_unreadable": n_unreadable}
    return pa.Table.from_pylist(hits, schema=_HITS), figures


def _copies(context: StageContext, listed: Table, output: Table, scratch: str) -> None:
    """Near copies of the listed samples, byte-identical ones included."""
    run, engine = context.run, context.engine
    images = Table(join(scratch, "images"), pa.schema([("sample_id", pa.int64()), ("excluded_by", pa.string())]))
    engine.sql_to(IMAGES_SQL, {"listed": listed, "exact": run.table("exact")}, images)
    near = Table(join(scratch, "copies"), _HITS)
    tables = {"listed": listed, "images": images, "groups": run.table("groups"), "edges": run.table("edges")}
    engine.sql_to(_as_hits(COPIES_SQL, "copy"), tables, near)
    engine.sql_to(TWINS_SQL, {"hits": near, "exact": run.table("exact")}, output)


def _as_hits(query: str, reason: str) -> str:
    return f"""
    SELECT found.sample_id AS sample_id, '{reason}' AS reason, found.excluded_by AS excluded_by,
           CAST(NULL AS STRING) AS reference_shard,
           CAST(NULL AS FLOAT) AS similarity_to_reference, CAST(NULL AS FLOAT) AS distance_to_reference,
           CAST({_PRIORITY[reason]} AS INTEGER) AS priority
    FROM ({query}) AS found
    """  # noqa: S608 (our own queries and words)


def _wanted(entries: Sequence[Entry]) -> pa.Table:
    rows = [{"kind": entry.kind, "name": entry.value, "entry": entry.text} for entry in entries if entry.kind != "image"]
    return pa.Table.from_pylist(rows, schema=_WANTED)


def _counts(context: StageContext, table: Table) -> dict[str, int]:
    schema = pa.schema([("reason", pa.string()), ("n", pa.int64())])
    query = "SELECT reason, count(*) AS n FROM exclusions GROUP BY reason ORDER BY reason"
    return {row["reason"]: row["n"] for row in ask(context.engine, query, {"exclusions": table}, schema).to_pylist()}


STAGE = Stage("exclude", reads=("groups",), output_version=1, run=find_excluded, inputs=reference_inputs)
