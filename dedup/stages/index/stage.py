"""Stage `index`: byte-identical images collapse, the coarse quantizer is trained, every vector gets its lists;
where a run adds to another, how far the new images lie from the lists of the earlier ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from dedup.contracts import JsonDict
from dedup.errors import ConfigError, StageError
from dedup.numerics.arraytypes import Ids, Rows32
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.lists import (
    BLOCK,
    Lists,
    Training,
    choose_nlist,
    choose_nprobe,
    count_lists,
    draw_sample,
    n_sampled,
    train_lists,
)
from dedup.numerics.similarity import unit_rows
from dedup.numerics.statistics.drift import Drift, cost_against, imbalance, quantization_error
from dedup.runs.directory import Run
from dedup.runs.index import clear_index, read_assignments, save_lists
from dedup.stages.index.fill import fill_index
from dedup.stages.index.views import index_views
from dedup.stages.stage import Stage, StageContext, StageResult, always
from dedup.storage.arrays import clear_files, save_array
from dedup.storage.atomic import link_or_copy, write_json
from dedup.storage.tables import FileWriter, clear, read_table
from dedup.storage.urls import join

_SAMPLED = 10_000  # vectors whose mean error is measured, of the base and of those added


def count_base(context: StageContext, ids: Ids) -> int:
    """How many of the distinct images, the first ones, are those of the base.

    Raises StageError if they do not come first, which would be a bug.
    """
    if context.base is None:
        return 0
    base_ids = read_table(context.base.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
    if not np.array_equal(ids[: len(base_ids)], base_ids):
        raise StageError(f"the first {len(base_ids):,} distinct images are not those of {context.base.url}; please report this")
    return len(base_ids)


def measure_drift(context: StageContext, ids: Ids, n_base: int, lists: Lists, fresh: tuple[int, int]) -> JsonDict:
    """Compare the images added with those of the base, and note where the lists no longer suit them.

    `ids`: shape (n,); the distinct images.
    `n_base`: how many of them, the first ones, are those of the base.
    `fresh`: number of lists, and lists per image, that a run without a base would train.
    Returns the figures of `dedup.numerics.statistics.drift.Drift`, and the reasons to train new lists.
    """
    random, store = np.random.default_rng(context.config.index.seed), context.run.vectors()
    errors = []
    for part in (ids[:n_base], ids[n_base:]):
        chosen = np.sort(random.choice(len(part), min(_SAMPLED, len(part)), replace=False))
        errors.append(quantization_error(lists, unit_rows(store.take(part[chosen]))))
    before, after = np.zeros((2, lists.nlist), dtype=np.int64)
    for block, start in enumerate(range(0, len(ids), BLOCK)):
        assigned = read_assignments(context.run.path("index"), block)
        before += count_lists([assigned[: max(0, n_base - start)]], lists.nlist)
        after += count_lists([assigned], lists.nlist)
    imbalance_before = imbalance(before)
    drift = Drift(
        errors[0],
        errors[1],
        min(_SAMPLED, len(ids) - n_base),
        imbalance_before,
        imbalance(after),
        cost_against(after, len(ids), *fresh, imbalance_before if lists.nlist > 1 else 1.0),
        max(1.0, n_sampled(n_base, context.config.index.train_vectors_per_list * lists.nlist) / lists.nlist),
    )
    if drift.reasons:
        context.reporter.note(
            f"index: the lists of {context.config.base.run_dir} no longer fit: {'; '.join(drift.reasons)}. "
            "This costs time, and pairs of images unlike the earlier ones; a run without base.run_dir trains new lists"
        )
    return {**asdict(drift), "reasons": drift.reasons}


REPRESENTATIVES_SQL = """
SELECT sample_id, weight,
       CAST(CASE WHEN quality < CAST({flat} AS FLOAT) THEN 2.0
                 WHEN quality < CAST({low} AS FLOAT) AND {low_min} > {min_similarity} THEN {low_min}
                 ELSE {min_similarity} END AS FLOAT) AS min_similarity
FROM (SELECT min(sample_id) AS sample_id, count(*) AS weight, min(quality) AS quality FROM metadata GROUP BY sha256) AS images
ORDER BY sample_id
"""

EXACT_SQL = """
SELECT metadata.sample_id AS sample_id, images.representative_id AS representative_id
FROM metadata
JOIN (SELECT sha256, min(sample_id) AS representative_id FROM metadata GROUP BY sha256 HAVING count(*) > 1) AS images
  ON metadata.sha256 = images.sha256
WHERE metadata.sample_id <> images.representative_id
ORDER BY sample_id
"""


@dataclass(frozen=True)
class AssignTask:
    """Vectors of one block."""

    run: Run
    number: int
    sample_ids: Ids
    nprobe: int
    device: str


def assign_block(task: AssignTask) -> int:
    """Write the lists, and the projections, of one block of vectors; returns its rows."""
    lists, n, output = task.run.lists(), len(task.sample_ids), task.run.table("assignments")
    chosen = np.zeros((n, 1), dtype=np.int32)
    if not lists.is_idle:
        rows = unit_rows(task.run.vectors().take(task.sample_ids))
        chosen, projected = lists.place(rows, task.nprobe, choose_device(task.device))
        if projected is not None:
            save_array(task.run.path("index", "projected", f"part-{task.number:05d}.npy"), projected)
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(chosen.shape[1])
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(chosen.ravel()), type=output.schema.field("lists").type)
    with FileWriter(join(output.path, f"part-{task.number:05d}.parquet"), output.schema) as writer:
        writer.write(pa.table({"sample_id": task.sample_ids, "lists": column}))
    return n


def build_index(context: StageContext) -> StageResult:
    """Collapse byte-identical images, train lists, assign images to them, and fill the index."""
    run, search = context.run, context.config.search
    clear_files(run.path("index", "projected"), "*.npy")
    clear_index(run.path("index"))
    query = REPRESENTATIVES_SQL.format(
        flat=search.flat_quality,
        low=search.low_detail_quality,
        low_min=search.low_detail_min_similarity,
        min_similarity=search.min_similarity,
    )
    rows = {
        "representatives": context.write_sql("representatives", query, ["metadata"]),
        "exact": context.write_sql("exact", EXACT_SQL, ["metadata"]),
    }
    ids = read_table(run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
    n_base = count_base(context, ids)
    if context.base is not None and n_base:
        lists, nprobe = context.base.lists(), context.base.nprobe
        sample = _sample(context, ids, lists.nlist)
    else:
        nlist, nprobe = _lists(context, len(ids))
        lists, sample = _train(context, ids, nlist, nprobe)
    nlist, nprobe = lists.nlist, min(nprobe, lists.nlist)
    save_lists(run.path("index"), lists)
    clear(run.table("assignments"))
    starts = range(0, max(len(ids), 1), BLOCK)
    device = context.device(len(ids))
    n_linked = _link_assigned(context, n_base // BLOCK, lists)
    tasks = [AssignTask(run, block, ids[start : start + BLOCK], nprobe, device) for block, start in enumerate(starts) if block >= n_linked]
    sizes = [len(task.sample_ids) for task in tasks]
    assigned = context.run_tasks("index", "vectors", assign_block, tasks, sizes, uses_gpu=device != "cpu")
    rows["assignments"] = n_linked * BLOCK + sum(n for _, n in assigned)
    filled = fill_index(context, ids, lists, sample, nprobe, n_base)
    summary = {"n_images": len(ids), "nlist": nlist, "nprobe": nprobe, "n_filter": lists.n_filter, "dim": sample.shape[1]} | filled
    summary |= index_views(context)
    if n_base:
        fresh = _lists(context, len(ids))
        summary |= {"n_base_images": n_base, "drift": measure_drift(context, ids, n_base, lists, fresh)}
    write_json(run.path("index", "_index.json"), summary)
    if context.also is not None:
        summary |= {"also": build_index(context.also).summary}
    return StageResult(rows, summary)


def _link_assigned(context: StageContext, n_blocks: int, lists: Lists) -> int:
    """Take over the lists and projections of the first blocks, whose images are the base's; returns the number of blocks."""
    if context.base is None:
        return 0
    for block in range(n_blocks):
        names = [f"assignments/part-{block:05d}.parquet"] + ([f"projected/part-{block:05d}.npy"] if lists.n_filter else [])
        for name in names:
            link_or_copy(context.base.path("index", name), context.run.path("index", name))
    return n_blocks


def _lists(context: StageContext, n: int) -> tuple[int, int]:
    search = context.config.search
    if n < max(search.exhaustive_below, 2):
        return 1, 1
    nprobe = search.nprobe or choose_nprobe(search.min_similarity, n)
    nlist = search.nlist or choose_nlist(n, nprobe)
    if nlist > n:
        raise ConfigError(f"search.nlist={nlist} exceeds the {n} distinct images; lower it, or leave it 0 for {choose_nlist(n, nprobe)}")
    return nlist, min(nprobe, nlist)


def _train(context: StageContext, ids: Ids, nlist: int, nprobe: int) -> tuple[Lists, Rows32]:
    """The quantizer and the sample it was trained on, float32 (n, dim)."""
    if not len(ids):
        return Lists(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32), 0), np.zeros((0, 1), np.float32)
    config, sample = context.config, _sample(context, ids, nlist)
    if nlist > 1:
        context.reporter.note(f"index: training {nlist:,} lists on {len(sample):,} of {len(ids):,} vectors")
    training = Training(nlist, nprobe, config.index.train_iterations, config.index.seed)
    return train_lists(sample, training, config.search.min_similarity, device=context.driver_device(len(ids))), sample


def _sample(context: StageContext, ids: Ids, nlist: int) -> Rows32:
    """Unit rows to train on, float32 (n, dim)."""
    index = context.config.index
    return unit_rows(context.run.vectors().take(ids[draw_sample(len(ids), index.train_vectors_per_list * nlist, index.seed)]))


STAGE = Stage("index", reads=("embed",), output_version=6, run=build_index, reads_base=always)
