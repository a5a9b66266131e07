"""The recall of a run, measured in the run: sampled images are searched exhaustively, a stretch of all vectors a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, JsonDict, Pack, Table
from dedup.judge.pair import TURN_NAMES
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.exhaustive import count_neighbors
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.join import self_join
from dedup.numerics.search.lists import BLOCK, count_lists, pack_lists
from dedup.numerics.search.strips import JoinSettings
from dedup.runs.directory import Run
from dedup.stages.index.members import Members, save_members
from dedup.stages.pairs.by_index import query_all
from dedup.stages.pairs.known import EarlierEdges, earlier_neighbors, earlier_view_edges, earlier_weights, save_owned_edges
from dedup.stages.pairs.views import find_view_edges
from dedup.stages.stage import Stage, StageContext, StageResult, always
from dedup.storage.tables import FileWriter, clear, read_table, write_table
from dedup.storage.urls import join

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

    `known`: `sample_id`, `weight`, `min_similarity` of all distinct images.
    `n_neighbors`: shape (n,); what was found.
    """
    n, wanted = members.n, context.config.search.recall_queries
    n_new = n - members.n_earlier
    if not wanted or n < 2 or not n_new:
        return {"recall": None, "recall_pairs": 0, "recall_queries": 0}
    dim = members.run.read_vectors(known["sample_id"][:1].astype(np.int64)).shape[1]
    affordable = min(_QUERIES, max(_LEAST_QUERIES, int(_PRODUCTS / (n * dim))))
    n_queries = min(n_new, wanted if wanted > 0 else max(_LEAST_QUERIES, round(affordable * n_new / n)))
    chosen = members.n_earlier + np.sort(np.random.default_rng(context.config.index.seed).choice(n_new, n_queries, replace=False))
    ids, asked = known["sample_id"][chosen].astype(np.int64), known["min_similarity"][chosen].astype(np.float32)
    vectors = members.run.read_vectors(ids)
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


ALSO_SQL = """
SELECT also.src AS src, also.dst AS dst, also.similarity AS similarity, also.kind AS kind, also.variant AS variant,
       CASE WHEN also.source = 'look' THEN 'also_look' ELSE 'also' END AS source
FROM also LEFT JOIN candidates ON also.src = candidates.src AND also.dst = candidates.dst
WHERE candidates.src IS NULL
ORDER BY also.src, also.dst
"""


@dataclass(frozen=True)
class JoinedLists:
    """What became of a pack."""

    n_edges: int  # written
    # rows, counts: shape (n,); positions of images with neighbours, and how many they have
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    n_left: int  # strips of products that a GPU had no memory for


@dataclass(frozen=True)
class JoinLists:
    """Joins the lists of a pack and writes the edges."""

    best: int
    is_projected: bool
    device: str
    edges: Table
    earlier: EarlierEdges | None = None

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> JoinedLists:
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
                    variant = pa.repeat("none", len(joined.src))
                    writer.write(edge_table(ids[joined.src], ids[joined.dst], joined.similarity, "near", variant))
        return JoinedLists(writer.n_rows, np.concatenate(counted), np.concatenate(counts), 0 if device is None else device.n_left)


def edge_table(
    src: npt.NDArray[np.int64],
    dst: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    kind: str,
    variant: pa.Array,
    source: str = "whole",
) -> pa.Table:
    """Rows of `candidates`."""
    n = len(src)
    return pa.table(
        {
            "src": src,
            "dst": dst,
            "similarity": similarity,
            "kind": pa.repeat(kind, n),
            "variant": variant,
            "source": pa.repeat(source, n),
        }
    )


def find_pairs(context: StageContext) -> StageResult:
    """Join every list, count neighbours, add the exact copies' edges, measure recall; likewise for the second source of candidates."""
    table = read_table(context.run.table("representatives"))
    known = {name: table[name].to_numpy() for name in ("sample_id", "weight", "min_similarity")}
    n_neighbors = known["weight"] - 1
    if context.base is not None:
        # of the base's counts those of its pairs: what its images stood for then is theirs, what they stand for now was added above
        weights = earlier_weights(context, len(table))
        n_neighbors += earlier_neighbors(context, known["sample_id"]) - np.maximum(weights - 1, 0)
    figures = _join(context, known, n_neighbors, measures=True)
    n_exact = _write_exact_edges(context)
    n_also = 0 if context.also is None else _write_also_edges(context, context.also)
    n_rows = _write_neighbors(context, known["sample_id"], n_neighbors)
    summary = figures | {"n_exact_edges": n_exact} | ({"n_also_edges": n_also} if context.also else {})
    return StageResult({"candidates": figures["n_near_edges"] + figures["n_view_edges"] + n_exact + n_also, "neighbors": n_rows}, summary)


def _join(
    context: StageContext, known: dict[str, npt.NDArray[np.generic]], n_neighbors: npt.NDArray[np.int64], *, measures: bool
) -> JsonDict:
    """Write the near edges of a source, add to the neighbours of each image; returns figures.

    Where the run adds to another, lists that hold nothing new are left out, and the counts are those of pairs it has not counted.
    """
    run, edges = context.run, context.run.table("candidates")
    clear(edges)
    n, index = len(known["sample_id"]), run.index_facts
    is_projected = run.lists().n_filter > 0
    before = earlier_weights(context, n)
    n_earlier, added = int(np.count_nonzero(before)), known["weight"].astype(np.int64) - before
    if n_earlier:
        known = known | {"added": added}
    with context.engine.scratch() as scratch:
        save_members(scratch, known)
        members = Members(context.run, scratch, n, max(1, int(index.get("nprobe", 1))), is_projected, n_earlier)
        n_blocks = len(members.block_sizes)
        sizes, fresh, earlier, n_near = count_lists(members.groups(block) for block in range(n_blocks)), None, None, 0
        if n_earlier:
            fresh = np.zeros(len(sizes), dtype=np.int64)
            counted = count_lists(members.groups(k)[added[k * BLOCK : (k + 1) * BLOCK] > 0] for k in range(n_blocks))
            fresh[: len(counted)] = counted
            earlier, n_near = save_owned_edges(context, members, fresh > 0, edges)
        by_index = context.config.search.method == "ivfpq" and n > 0
        packs = pack_lists(sizes, context.engine.n_workers, fresh)
        for found in query_all(context, members, edges) if by_index else _join_lists(context, members, packs, earlier, edges):
            n_near += found.n_edges
            np.add.at(n_neighbors, found.rows, found.counts)
        n_view = _write_view_edges(context, known["sample_id"].astype(np.int64), scratch, n_earlier)
        recall = measure_recall(context, members, known, n_neighbors) if measures else {}
    return {"n_near_edges": n_near, "n_view_edges": n_view, "largest_list": int(sizes.max(initial=0))} | recall


def _join_lists(
    context: StageContext, members: Members, packs: Sequence[Pack], earlier: EarlierEdges | None, edges: Table
) -> Iterator[JoinedLists]:
    """Join lists; what was found, and written, in parts."""
    device, n_left = context.device(members.n), 0
    work = JoinLists(context.config.search.best_edges, members.is_projected, device, edges, earlier)
    for _, joined in context.run_groups("pairs", "lists", members, work, packs, uses_gpu=device != "cpu"):
        n_left += joined.n_left
        yield joined
    context.note_left("vectors", n_left)


def _write_also_edges(context: StageContext, also: StageContext) -> int:
    """Edges that the second source of candidates alone has found."""
    table = read_table(also.run.table("representatives"))
    known = {name: table[name].to_numpy() for name in ("sample_id", "weight", "min_similarity")}
    _join(also, known, np.zeros(len(table), dtype=np.int64), measures=False)
    tables = {"candidates": context.run.table("candidates"), "also": also.run.table("candidates")}
    return context.engine.sql_to(ALSO_SQL, tables, context.run.table("candidates"), "part-also")


def _write_view_edges(context: StageContext, ids: npt.NDArray[np.int64], scratch: str, n_earlier: int) -> int:
    """Edges of images that only second looks find alike."""
    found = find_view_edges(context, scratch, n_earlier, earlier_view_edges(context, ids))
    variant = pa.DictionaryArray.from_arrays(found.turn, list(TURN_NAMES)).cast(pa.string())
    rows = edge_table(ids[found.src], ids[found.dst], found.similarity, "near", variant, "look")
    return write_table(context.run.table("candidates"), [rows], "part-look")


def exact_source(run: Run) -> str:
    """What makes samples exact copies, as `source` of their edges: equal image bytes, or no more than equal embeddings."""
    record = run.record("embed")
    return "embedding" if record is not None and record.summary.get("exact_by") == "embedding" else "whole"


def _write_exact_edges(context: StageContext) -> int:
    """Edges from each representative to its byte-identical copies."""
    exact = read_table(context.run.table("exact"))
    n = len(exact)
    rows = edge_table(
        exact["representative_id"].to_numpy(),
        exact["sample_id"].to_numpy(),
        np.ones(n, dtype=np.float32),
        "exact",
        pa.repeat("none", n),
        exact_source(context.run),
    )
    return write_table(context.run.table("candidates"), [rows], "part-exact")


def _write_neighbors(context: StageContext, ids: npt.NDArray[np.int64], n_neighbors: npt.NDArray[np.int64]) -> int:
    """A row for each sample with neighbours; byte-identical copies have their representative's count."""
    table = context.run.table("neighbors")
    clear(table)
    have = np.flatnonzero(n_neighbors)
    counted = pa.table({"sample_id": ids[have], "n_neighbors": n_neighbors[have]})
    query = """
    SELECT sample_id, n_neighbors FROM counted
    UNION ALL
    SELECT exact.sample_id, counted.n_neighbors FROM exact JOIN counted ON exact.representative_id = counted.sample_id
    ORDER BY sample_id
    """
    tables = {"counted": counted, "exact": context.run.table("exact")}
    return context.engine.sql_to(query, tables, table)


STAGE = Stage("pairs", reads=("index",), output_version=2, run=find_pairs, reads_base=always)
