"""The recall of a run, measured in the run: sampled images are searched exhaustively, a stretch of all vectors a task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.recall import count_neighbors
from dedup.stages.context import StageContext
from dedup.stages.members import Members
from dedup.storage.embeddings import read_vectors

_QUERIES = 1_000
_LEAST_QUERIES = 50
_PRODUCTS = 4e11  # multiply-adds that measuring recall may cost unless a number of queries is asked for
_TASKS_PER_WORKER = 4


@dataclass(frozen=True)
class RecallTask:
    """Sampled images and the blocks they are compared with."""

    members: Members
    queries: npt.NDArray[np.float16]
    query_ids: npt.NDArray[np.int64]
    query_min_similarity: npt.NDArray[np.float32]
    blocks: npt.NDArray[np.int64]


def count_in_blocks(task: RecallTask) -> int:
    """Weight of all neighbours of the queries in the blocks of one task."""
    rows = (task.members.rows(int(block)) for block in task.blocks)
    columns = ((part["sample_id"], part["vector"], part["min_similarity"], part["weight"]) for part in rows)
    return int(count_neighbors(task.queries, task.query_ids, task.query_min_similarity, columns).sum())


def measure_recall(
    context: StageContext,
    members: Members,
    known: dict[str, npt.NDArray[np.generic]],
    n_neighbors: npt.NDArray[np.int64],
) -> dict[str, float | int | None]:
    """Compare the counts of sampled images with exhaustive search over all of them.

    Of a run that adds to another, new images are sampled, in proportion: the pairs of others were measured before.

    Parameters
    ----------
    context : StageContext
    members : Members
    known : dict
        `sample_id`, `weight`, `min_similarity` of all distinct images.
    n_neighbors : int64 array, shape (n,)
        What was found.
    """
    n, wanted = members.n, context.config.search.recall_queries
    n_new = n - members.n_earlier
    if not wanted or n < 2 or not n_new:
        return {"recall": None, "recall_pairs": 0, "recall_queries": 0}
    dim = read_vectors(members.run_dir, known["sample_id"][:1].astype(np.int64)).shape[1]
    affordable = min(_QUERIES, max(_LEAST_QUERIES, int(_PRODUCTS / (n * dim))))
    n_queries = min(n_new, wanted if wanted > 0 else max(_LEAST_QUERIES, round(affordable * n_new / n)))
    chosen = members.n_earlier + np.sort(np.random.default_rng(context.config.index.seed).choice(n_new, n_queries, replace=False))
    ids, asked = known["sample_id"][chosen].astype(np.int64), known["min_similarity"][chosen].astype(np.float32)
    vectors = read_vectors(members.run_dir, ids)
    n_blocks = len(members.block_sizes)
    stretches = np.array_split(np.arange(n_blocks), min(n_blocks, _TASKS_PER_WORKER * context.engine.n_workers))
    tasks = [
        RecallTask(members, vectors[start : start + _QUERIES], ids[start : start + _QUERIES], asked[start : start + _QUERIES], blocks)
        for start in range(0, n_queries, _QUERIES)
        for blocks in stretches
    ]
    exhaustive = sum(count for _, count in context.engine.map_partitions(count_in_blocks, tasks))
    found = int((n_neighbors[chosen] - (known["weight"][chosen].astype(np.int64) - 1)).sum())
    return {"recall": found / exhaustive if exhaustive else None, "recall_pairs": exhaustive, "recall_queries": n_queries}
