"""Stage `pairs`: all near-duplicate pairs in each inverted list, as sparse candidate edges and exact counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import Table
from dedup.numerics.collapse import Ownership
from dedup.numerics.lists import pack_lists
from dedup.numerics.recall import count_neighbors
from dedup.numerics.selfjoin import self_join
from dedup.stages.context import VARIANT_NAMES, StageContext, StageResult
from dedup.stages.index import projected_rows
from dedup.stages.looks import find_look_edges
from dedup.storage.arrays import map_array, save_array
from dedup.storage.embeddings import SampleRows, open_store
from dedup.storage.lists import load_lists
from dedup.storage.tables import FileWriter, clear, join, read_table, write_table

OUTPUT_VERSION = 2
_RECALL_QUERIES = 1_000
_RECALL_PRODUCTS = 4e11  # multiply-adds that measuring recall may cost unless a number of queries is asked for


@dataclass(frozen=True)
class JoinTask:
    """Some inverted lists and where their edges go."""

    run_dir: str
    number: int
    scratch: str
    lists: npt.NDArray[np.int64]
    best: int
    is_projected: bool
    edges: Table


@dataclass(frozen=True)
class Members:
    """Who is in which list, as memory-mapped arrays that all workers share.

    Parameters
    ----------
    sample_ids, weights : int64 array, shape (n,)
    min_similarity : float32 array, shape (n,)
    lists : int32 array, shape (n, max_lists)
        Lists of each vector, padded with -1.
    rows : int32 array, shape (n_entries,)
        Positions in the arrays above, list after list, ascending within a list.
    offsets : int64 array, shape (nlist + 1,)
        Where each list's rows start.
    """

    sample_ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    min_similarity: npt.NDArray[np.float32]
    lists: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def save(self, folder: str) -> None:
        """Write the arrays into a folder."""
        for name in self.__dataclass_fields__:
            save_array(join(folder, f"{name}.npy"), getattr(self, name))

    @classmethod
    def load(cls, folder: str) -> Members:
        """Map the arrays of a folder."""
        return cls(**{name: map_array(join(folder, f"{name}.npy")) for name in cls.__dataclass_fields__})


def join_lists(task: JoinTask) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Join the lists of one task; returns edges written, and the rows with neighbours and their counts."""
    members, store = Members.load(task.scratch), open_store(task.run_dir)
    counted_rows, counts = [], []
    with FileWriter(join(task.edges.path, f"part-{task.number:05d}.parquet"), task.edges.schema) as writer:
        for number in task.lists.tolist():
            rows = members.rows[members.offsets[number] : members.offsets[number + 1]].astype(np.int64)
            ids = members.sample_ids[rows]
            joined = self_join(
                SampleRows(store, ids),
                members.min_similarity[rows],
                members.weights[rows],
                Ownership(members.lists[rows], number),
                best=task.best,
                projected=projected_rows(task.run_dir, rows) if task.is_projected else None,
            )
            near = np.flatnonzero(joined.n_neighbors)
            counted_rows.append(rows[near])
            counts.append(joined.n_neighbors[near])
            if len(joined.src):
                variant = pa.DictionaryArray.from_arrays(joined.turn, list(VARIANT_NAMES)).cast(pa.string())
                writer.write(edge_table(ids[joined.src], ids[joined.dst], joined.similarity, "near", variant))
    return writer.n_rows, np.concatenate([np.zeros(0, np.int64), *counted_rows]), np.concatenate([np.zeros(0, np.int64), *counts])


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


def run(context: StageContext) -> StageResult:
    """Join every list, count neighbours, add the exact copies' edges, measure recall."""
    layout = context.layout
    members = _members(context)
    edges = layout.table("candidates")
    clear(edges)
    n_neighbors = members.weights - 1
    with context.engine.scratch() as scratch:
        members.save(scratch)
        members = Members.load(scratch)  # mapped: only the workers' pages are in memory
        parts = pack_lists(np.diff(members.offsets), context.engine.n_workers)
        best, is_projected = context.config.search.best_edges, load_lists(layout.path("index")).n_filter > 0
        tasks = [JoinTask(layout.run_dir, k, scratch, lists, best, is_projected, edges) for k, lists in enumerate(parts)]
        n_near = 0
        for _, (written, rows, counts) in context.run_tasks("pairs", "lists", join_lists, tasks, [len(task.lists) for task in tasks]):
            n_near += written
            np.add.at(n_neighbors, rows, counts)
        n_look = _write_look_edges(context, members, scratch)
    n_exact = _write_exact_edges(context)
    recall = _measure_recall(context, members, n_neighbors)
    n_rows = _write_neighbors(context, members, n_neighbors)
    summary = {
        "n_near_edges": n_near,
        "n_look_edges": n_look,
        "n_exact_edges": n_exact,
        "largest_list": int(np.diff(members.offsets).max(initial=0)),
    } | recall
    return StageResult({"candidates": n_near + n_look + n_exact, "neighbors": n_rows}, summary)


def _members(context: StageContext) -> Members:
    """Read representatives and assignments and sort the entries by list."""
    representatives = read_table(context.layout.table("representatives"))
    lists = read_table(context.layout.table("assignments"), ["lists"])["lists"].combine_chunks()
    flat, lengths = lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy())
    n = len(representatives)
    owner = np.repeat(np.arange(n, dtype=np.int32), lengths)
    order = np.argsort(flat, kind="stable")
    nlist = int(flat.max(initial=-1)) + 1
    padded = np.full((n, int(lengths.max(initial=1))), -1, dtype=np.int32)
    starts = np.cumsum(lengths) - lengths
    padded[owner, np.arange(len(flat)) - np.repeat(starts, lengths)] = flat
    return Members(
        representatives["sample_id"].to_numpy(),
        representatives["weight"].to_numpy(),
        representatives["min_similarity"].to_numpy(),
        padded,
        owner[order],
        np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=nlist))]).astype(np.int64),
    )


def _write_look_edges(context: StageContext, members: Members, scratch: str) -> int:
    """Edges of images that only second looks find alike."""
    found = find_look_edges(context, scratch)
    variant = pa.DictionaryArray.from_arrays(found.turn, list(VARIANT_NAMES)).cast(pa.string())
    rows = edge_table(members.sample_ids[found.src], members.sample_ids[found.dst], found.similarity, "near", variant, "look")
    return write_table(context.layout.table("candidates"), [rows], "part-look")


def _write_exact_edges(context: StageContext) -> int:
    """Edges from each representative to its byte-identical copies."""
    exact = read_table(context.layout.table("exact"))
    n = len(exact)
    rows = edge_table(
        exact["representative_id"].to_numpy(),
        exact["sample_id"].to_numpy(),
        np.ones(n, dtype=np.float32),
        "exact",
        pa.repeat("none", n),
    )
    return write_table(context.layout.table("candidates"), [rows], "part-exact")


def _write_neighbors(context: StageContext, members: Members, n_neighbors: npt.NDArray[np.int64]) -> int:
    """A row for each sample with neighbours; byte-identical copies have their representative's count."""
    table = context.layout.table("neighbors")
    clear(table)
    have = np.flatnonzero(n_neighbors)
    counted = pa.table({"sample_id": members.sample_ids[have], "n_neighbors": n_neighbors[have]})
    query = """
    SELECT sample_id, n_neighbors FROM counted
    UNION ALL
    SELECT exact.sample_id, counted.n_neighbors FROM exact JOIN counted ON exact.representative_id = counted.sample_id
    ORDER BY sample_id
    """
    tables = {"counted": counted, "exact": context.layout.table("exact")}
    return context.engine.sql_to(query, tables, table)


def _measure_recall(context: StageContext, members: Members, n_neighbors: npt.NDArray[np.int64]) -> dict[str, float | int | None]:
    """Compare the counts of sampled images with exhaustive search over all of them."""
    n = len(members.sample_ids)
    wanted = context.config.search.recall_queries
    if not wanted or n < 2:
        return {"recall": None, "recall_pairs": 0, "recall_queries": 0}
    store = open_store(context.layout.run_dir)
    n_queries = min(n, wanted if wanted > 0 else min(_RECALL_QUERIES, max(50, int(_RECALL_PRODUCTS / (n * store.dim)))))
    chosen = np.sort(np.random.default_rng(context.config.index.seed).choice(n, n_queries, replace=False))
    exhaustive = 0
    for start in range(0, n_queries, _RECALL_QUERIES):
        part = chosen[start : start + _RECALL_QUERIES]
        blocks = (
            (members.sample_ids[block], rows, members.min_similarity[block], members.weights[block])
            for block, rows in store.blocks(members.sample_ids)
        )
        ids, asked = members.sample_ids[part], members.min_similarity[part]
        exhaustive += int(count_neighbors(store.take(ids), ids, asked, blocks).sum())
    found = int((n_neighbors[chosen] - (members.weights[chosen] - 1)).sum())
    return {"recall": found / exhaustive if exhaustive else None, "recall_pairs": exhaustive, "recall_queries": n_queries}
