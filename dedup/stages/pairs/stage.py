"""Stage `pairs`: every list is joined into edges and neighbour counts, and recall is measured by searching sampled images exhaustively."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, JsonDict, Pack, Table
from dedup.judge.pair import TURN_NAMES
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.exhaustive import count_neighbors
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.lists import BLOCK, count_lists, pack_lists
from dedup.numerics.search.strips import JoinSettings
from dedup.stages.index.members import Members, save_members
from dedup.stages.pairs.by_index import WrittenPairs, edge_table, query_all
from dedup.stages.pairs.crowd import refuse_a_crowd
from dedup.stages.pairs.known import EarlierEdges, earlier_view_edges, earlier_weights, read_neighbors, save_owned_edges
from dedup.stages.pairs.views import find_view_edges
from dedup.stages.stage import Stage, StageContext, StageResult, always
from dedup.storage.tables import FileWriter, clear, read_table, write_table
from dedup.storage.urls import join

_QUERIES = 1_000
_LEAST_QUERIES = 50
_PRODUCTS = 4e11  # multiply-adds that measuring recall may cost unless `search.recall_queries` gives a number
_TASKS_PER_WORKER = 4


@dataclass(frozen=True)
class RecallTask:
    """Sampled images and the blocks they are compared with."""

    members: Members
    queries: npt.NDArray[np.float16]
    query_ids: Ids
    query_min_similarity: Sims
    blocks: Ids


def count_in_blocks(task: RecallTask) -> int:
    """Weight of all neighbours of the queries in the blocks of one task."""
    rows = (task.members.rows(int(block)) for block in task.blocks)
    columns = ((part["sample_id"], part["vector"], part["min_similarity"], part["weight"]) for part in rows)
    return int(count_neighbors(task.queries, task.query_ids, task.query_min_similarity, columns).sum())


def measure_recall(
    context: StageContext, members: Members, columns: dict[str, npt.NDArray[np.generic]], n_neighbors: Ids
) -> dict[str, float | int | None]:
    """Compare the counts of sampled images with exhaustive search over all of them.

    In a run that adds to another, new images are sampled, in proportion: the pairs of the others were measured before.

    `columns`: `sample_id`, `weight`, `min_similarity` of all distinct images.
    `n_neighbors`: shape (n,); as the joins counted them.
    """
    n, n_wanted = members.n, context.config.search.recall_queries
    n_new = n - members.n_earlier
    if not n_wanted or n < 2 or not n_new:
        return {"recall": None, "recall_pairs": 0, "recall_queries": 0}
    dim = members.run.read_vectors(columns["sample_id"][:1].astype(np.int64)).shape[1]
    affordable = min(_QUERIES, max(_LEAST_QUERIES, int(_PRODUCTS / (n * dim))))
    n_queries = min(n_new, n_wanted if n_wanted > 0 else max(_LEAST_QUERIES, round(affordable * n_new / n)))
    chosen = members.n_earlier + np.sort(np.random.default_rng(context.config.index.seed).choice(n_new, n_queries, replace=False))
    ids, thresholds = columns["sample_id"][chosen].astype(np.int64), columns["min_similarity"][chosen].astype(np.float32)
    vectors = members.run.read_vectors(ids)
    n_blocks = len(members.block_sizes)
    stretches = np.array_split(np.arange(n_blocks), min(n_blocks, _TASKS_PER_WORKER * context.engine.n_workers))
    tasks = [
        RecallTask(members, vectors[part], ids[part], thresholds[part], blocks)
        for part in (slice(start, start + _QUERIES) for start in range(0, n_queries, _QUERIES))
        for blocks in stretches
    ]
    exhaustive = sum(count for _, count in context.engine.map_partitions(count_in_blocks, tasks))
    joined = int((n_neighbors[chosen] - (columns["weight"][chosen].astype(np.int64) - 1)).sum())
    return {"recall": joined / exhaustive if exhaustive else None, "recall_pairs": exhaustive, "recall_queries": n_queries}


ALSO_SQL = """
SELECT also.src AS src, also.dst AS dst, also.similarity AS similarity, also.kind AS kind, also.variant AS variant,
       CASE WHEN also.source = 'look' THEN 'also_look' ELSE 'also' END AS source
FROM also LEFT JOIN candidates ON also.src = candidates.src AND also.dst = candidates.dst
WHERE candidates.src IS NULL
ORDER BY also.src, also.dst
"""


@dataclass(frozen=True)
class JoinLists:
    """Joins the lists of a pack and writes the edges."""

    best: int
    is_projected: bool
    device: str
    edges: Table
    earlier: EarlierEdges | None = None

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> WrittenPairs:
        """Join each list and write the edges."""
        device = choose_device(self.device)
        counted, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        with FileWriter(join(self.edges.path, f"part-{pack.number:05d}.parquet"), self.edges.schema) as writer:
            for number, rows in groups:
                ids = rows.column("sample_id")
                earlier = None if self.earlier is None else self.earlier.of_list(number, rows.positions, rows.column("added"))
                joined = self_join(
                    rows.view("vector"),
                    rows.column("min_similarity"),
                    rows.column("weight"),
                    Ownership(rows.groups, number),
                    JoinSettings(self.best, (pack.share, pack.n_shares), device),
                    projected=rows.column("projected") if self.is_projected else None,
                    earlier=earlier,
                )
                near = np.flatnonzero(joined.n_neighbors)
                counted.append(rows.positions[near])
                counts.append(joined.n_neighbors[near])
                if len(joined.src):
                    writer.write(edge_table(ids[joined.src], ids[joined.dst], joined.similarity))
        return WrittenPairs(writer.n_rows, np.concatenate(counted), np.concatenate(counts), 0 if device is None else device.n_left)


def find_pairs(context: StageContext) -> StageResult:
    """Join every list, count neighbours, add the exact copies' edges, measure recall; likewise for the second source of candidates."""
    columns = _distinct_images(context)
    refuse_a_crowd(context, columns["sample_id"], columns["min_similarity"])
    n_neighbors = columns["weight"] - 1
    if context.base is not None:
        # the base counted the byte-identical copies that each image had then; those it has now are counted above
        weights = earlier_weights(context, len(n_neighbors))
        n_neighbors += read_neighbors(context.base, columns["sample_id"]) - np.maximum(weights - 1, 0)
    figures = _join(context, columns, n_neighbors, measures=True)
    n_exact = _write_exact_edges(context)
    n_also = 0 if context.also is None else _write_also_edges(context, context.also)
    n_rows = _write_neighbors(context, columns["sample_id"], n_neighbors)
    summary = figures | {"n_exact_edges": n_exact} | ({"n_also_edges": n_also} if context.also else {})
    return StageResult({"candidates": figures["n_near_edges"] + figures["n_view_edges"] + n_exact + n_also, "neighbors": n_rows}, summary)


def _distinct_images(context: StageContext) -> dict[str, npt.NDArray[Any]]:
    table = read_table(context.run.table("representatives"))
    return {name: table[name].to_numpy() for name in ("sample_id", "weight", "min_similarity")}


def _join(context: StageContext, columns: dict[str, npt.NDArray[np.generic]], n_neighbors: Ids, *, measures: bool) -> JsonDict:
    """Write the near edges of a source of candidates and add to the neighbours of each image; returns figures.

    Where the run adds to another, lists that hold nothing new are left out, and only pairs that the other has not counted are added.
    """
    run, edges = context.run, context.run.table("candidates")
    clear(edges)
    n = len(columns["sample_id"])
    is_projected = run.lists().n_filter > 0
    before = earlier_weights(context, n)
    n_earlier, added = int(np.count_nonzero(before)), columns["weight"].astype(np.int64) - before
    if n_earlier:
        columns = columns | {"added": added}
    with context.engine.scratch() as scratch:
        save_members(scratch, columns)
        members = Members(run, scratch, n, run.nprobe, is_projected, n_earlier)
        n_blocks = len(members.block_sizes)
        sizes, fresh, earlier, n_near = count_lists(members.groups(block) for block in range(n_blocks)), None, None, 0
        if n_earlier:
            fresh = count_lists((members.groups(k)[added[k * BLOCK : (k + 1) * BLOCK] > 0] for k in range(n_blocks)), len(sizes))
            earlier, n_near = save_owned_edges(context, members, fresh > 0, edges)
        by_index = context.config.search.method == "ivfpq" and n > 0
        packs = pack_lists(sizes, context.engine.n_workers, fresh)
        for part in query_all(context, members) if by_index else _join_lists(context, members, packs, earlier, edges):
            n_near += part.n_edges
            np.add.at(n_neighbors, part.rows, part.counts)
        n_view = _write_view_edges(context, columns["sample_id"].astype(np.int64), scratch, n_earlier)
        recall = measure_recall(context, members, columns, n_neighbors) if measures else {}
    return {"n_near_edges": n_near, "n_view_edges": n_view, "largest_list": int(sizes.max(initial=0))} | recall


def _join_lists(
    context: StageContext, members: Members, packs: Sequence[Pack], earlier: EarlierEdges | None, edges: Table
) -> Iterator[WrittenPairs]:
    device, n_left = context.device(members.n), 0
    work = JoinLists(context.config.search.best_edges, members.is_projected, device, edges, earlier)
    for _, joined in context.run_groups("pairs", "lists", members, work, packs, uses_gpu=device != "cpu"):
        n_left += joined.n_left
        yield joined
    context.note_left("vectors", n_left)


def _write_also_edges(context: StageContext, also: StageContext) -> int:
    """Write the edges that only the second source of candidates found; returns their number."""
    columns = _distinct_images(also)
    _join(also, columns, np.zeros(len(columns["sample_id"]), dtype=np.int64), measures=False)
    tables = {"candidates": context.run.table("candidates"), "also": also.run.table("candidates")}
    return context.engine.sql_to(ALSO_SQL, tables, context.run.table("candidates"), "part-also")


def _write_view_edges(context: StageContext, ids: Ids, scratch: str, n_earlier: int) -> int:
    """Write the edges of images that only views find alike; returns their number."""
    edges = find_view_edges(context, scratch, n_earlier, earlier_view_edges(context, ids))
    variant = pa.DictionaryArray.from_arrays(edges.turn, list(TURN_NAMES)).cast(pa.string())
    rows = edge_table(ids[edges.src], ids[edges.dst], edges.similarity, "near", "look", variant)
    return write_table(context.run.table("candidates"), [rows], "part-look")


def _write_exact_edges(context: StageContext) -> int:
    """Write the edges from each representative to its byte-identical copies; returns their number."""
    exact, record = read_table(context.run.table("exact")), context.run.record("embed")
    # exact copies have equal image bytes, or, where only embeddings are known, equal embeddings
    source = "embedding" if record is not None and record.summary.get("exact_by") == "embedding" else "whole"
    src, dst = (exact[name].to_numpy() for name in ("representative_id", "sample_id"))
    rows = edge_table(src, dst, np.ones(len(exact), dtype=np.float32), "exact", source)
    return write_table(context.run.table("candidates"), [rows], "part-exact")


def _write_neighbors(context: StageContext, ids: Ids, n_neighbors: Ids) -> int:
    """Write a row for each sample with neighbours, byte-identical copies with their representative's count; returns their number."""
    table = context.run.table("neighbors")
    clear(table)
    rows = np.flatnonzero(n_neighbors)
    counted = pa.table({"sample_id": ids[rows], "n_neighbors": n_neighbors[rows]})
    query = """
    SELECT sample_id, n_neighbors FROM counted
    UNION ALL
    SELECT exact.sample_id, counted.n_neighbors FROM exact JOIN counted ON exact.representative_id = counted.sample_id
    ORDER BY sample_id
    """
    tables = {"counted": counted, "exact": context.run.table("exact")}
    return context.engine.sql_to(query, tables, table)


STAGE = Stage("pairs", reads=("index",), output_version=2, run=find_pairs, reads_base=always)
