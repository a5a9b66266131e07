"""The base of a run as the stage `index` sees it: how many images come first, and whether its lists still suit."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from dedup.contracts import JsonDict
from dedup.errors import StageError
from dedup.numerics.search.lists import BLOCK, Lists, count_lists, n_sampled
from dedup.numerics.similarity import unit_rows
from dedup.numerics.statistics.drift import Drift, cost_against, imbalance, quantization_error
from dedup.runs.directory import Run
from dedup.runs.index import read_assignments
from dedup.stages.stage import StageContext
from dedup.storage.tables import read_table
from dedup.storage.urls import read_json

_SAMPLED = 10_000  # vectors whose mean error is measured, of either kind
Ids = npt.NDArray[np.int64]


def count_base(context: StageContext, ids: Ids) -> int:
    """How many of the distinct images, the first ones, are those of the base.

    Raises StageError if they do not come first, which would be an error of ours.
    """
    if context.base is None:
        return 0
    theirs = read_table(context.base.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
    if not np.array_equal(ids[: len(theirs)], theirs):
        raise StageError(f"the first {len(theirs):,} distinct images are not those of {context.base.url}; please report this")
    return len(theirs)


def base_nprobe(run: Run) -> int:
    """Lists that each vector of a run goes to."""
    return max(1, int((read_json(run.path("index", "_index.json")) or {}).get("nprobe", 1)))


def measure_drift(context: StageContext, ids: Ids, n_base: int, lists: Lists, fresh: tuple[int, int]) -> JsonDict:
    """Compare the images added with those of the base, and say so where the lists no longer suit.

    `ids`: shape (n,); the distinct images.
    `n_base`: how many of them, the first ones, are those of the base.
    `fresh`: (int, int); number of lists, and lists per image, that a run without a base would train.
    Returns the figures of `dedup.numerics.statistics.drift.Drift`, and the reasons to train anew.
    """
    random, store = np.random.default_rng(context.config.index.seed), context.run.vectors()
    errors = []
    for part in (ids[:n_base], ids[n_base:]):
        chosen = np.sort(random.choice(len(part), min(_SAMPLED, len(part)), replace=False))
        errors.append(quantization_error(lists, unit_rows(store.take(part[chosen]))))
    before = np.zeros(lists.nlist, dtype=np.int64)
    after = np.zeros(lists.nlist, dtype=np.int64)
    for block, start in enumerate(range(0, len(ids), BLOCK)):
        assigned = read_assignments(context.run.path("index"), block)
        for sizes, rows in ((before, assigned[: max(0, n_base - start)]), (after, assigned)):
            counted = count_lists([rows])
            sizes[: len(counted)] += counted
    uneven = imbalance(before)
    drift = Drift(
        errors[0],
        errors[1],
        min(_SAMPLED, len(ids) - n_base),
        uneven,
        imbalance(after),
        cost_against(after, len(ids), *fresh, uneven if lists.nlist > 1 else 1.0),
        max(1.0, n_sampled(n_base, context.config.index.train_vectors_per_list * lists.nlist) / lists.nlist),
    )
    if drift.reasons:
        context.reporter.note(
            f"index: the lists of {context.config.base.run_dir} no longer fit: {'; '.join(drift.reasons)}. "
            "This costs time, and pairs of images unlike the earlier ones; a run without base.run_dir trains new lists"
        )
    return {**asdict(drift), "reasons": drift.reasons}
