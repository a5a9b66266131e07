"""Pairs by looking every image up in the FAISS index: `search.method=ivfpq`, for more vectors than memory holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache, cached

from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.graph.components import sparsify
from dedup.numerics.search.balls import Ownership, find_crowds
from dedup.numerics.search.faiss_index import IvfIndex, search_all
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.lists import BLOCK, draw_sample
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.similarity import FLOAT32_BAND, exact_similarity, unit_rows
from dedup.runs.directory import Run
from dedup.stages.index.members import Members
from dedup.stages.stage import StageContext
from dedup.storage.arrays import map_array, read_array, save_array
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join

_BLOCKS_PER_TASK = 4
_QUERIES = 512  # at a time: of each, some hundred vectors are gathered to refine
_PROBED = 2  # times the lists that an image is assigned to: the index holds each image in its nearest list only
_CODED = 2_000  # vectors that the error of the codes is measured on
_SPARE_ERROR = 0.05  # added to the largest error among these
_SAMPLE = 100_000  # vectors that are searched for crowds, at least
HITS = np.dtype([("src", np.int64), ("dst", np.int64), ("similarity", np.float32)])


@dataclass(frozen=True)
class QueryTask:
    """Images of some blocks, each looked up in the index."""

    members: Members
    number: int
    blocks: tuple[int, ...]
    code_error: float


@dataclass(frozen=True)
class MergeTask:
    """The pairs whose first image is in some blocks, from all tasks that found any."""

    members: Members
    number: int
    parts: tuple[int, ...]
    best: int


@dataclass(frozen=True)
class WrittenPairs:
    """The pairs that a task found and wrote."""

    n_edges: int  # written
    rows: Ids  # positions of images with neighbours
    counts: Ids  # how many each has
    n_left: int = 0  # strips of products that a GPU had no memory for


def query_blocks(task: QueryTask) -> list[int]:
    """Find the neighbours of each image and save the pairs by the blocks of their first images; returns the buckets written."""
    members, scratch = task.members, task.members.scratch
    ids, thresholds = (map_array(join(scratch, f"{name}.npy")) for name in ("sample_id", "min_similarity"))
    is_inside, group = map_array(join(scratch, "is_inside.npy")), map_array(join(scratch, "group.npy"))
    parts: list[npt.NDArray[Any]] = [np.zeros(0, HITS)]
    for block in task.blocks:
        n, first = int(members.block_sizes[block]), block * BLOCK
        # the crowd's join finds a member's neighbours; an image without detail has only byte-identical copies
        queries = np.flatnonzero(~is_inside[first : first + n] & (thresholds[first : first + n] <= 1.0))
        for start in range(0, len(queries), _QUERIES):
            rows = queries[start : start + _QUERIES] + first
            parts += [_hits(members, rows, ids, thresholds, group, task.code_error)]
    hits = np.concatenate(parts)
    bucket = hits["src"] // (BLOCK * _BLOCKS_PER_TASK)
    order = np.argsort(bucket, kind="stable")
    numbers, starts = np.unique(bucket[order], return_index=True)
    for number, part in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        save_array(_part(scratch, task.number, number), hits[part])
    return [int(number) for number in numbers]


def _hits(members: Members, rows: Ids, ids: Ids, thresholds: Sims, group: npt.NDArray[np.int32], code_error: float) -> npt.NDArray[Any]:
    """Pairs of some images with others, by position, without those inside one crowd's surroundings."""
    vectors = members.run.read_vectors(ids[rows])
    unit, (index, shares_lists) = unit_rows(vectors), _index(members.run)
    probed, _ = members.run.lists().place(unit, _PROBED * members.n_groups_each)

    def search(open_rows: Ids, k: int) -> tuple[Ids, Sims]:
        neighbor_ids, coded = index.search(unit[open_rows], k, probed[open_rows] if shares_lists else None)
        similarity = np.full(neighbor_ids.shape, -2.0, dtype=np.float32)
        # vectors are read only where the codes come near the threshold
        query, place = np.nonzero((neighbor_ids >= 0) & (coded >= thresholds[rows[open_rows], None] - code_error))
        if len(query):
            distinct, inverse = np.unique(neighbor_ids[query, place], return_inverse=True)
            neighbors = members.run.read_vectors(distinct)
            product = np.einsum("ij,ij->i", unit[open_rows[query]], unit_rows(neighbors)[inverse])
            # float32 proposes, float64 decides
            near = product >= thresholds[rows[open_rows[query]]] - FLOAT32_BAND
            query, place, inverse = query[near], place[near], inverse[near]
            similarity[query, place] = exact_similarity(vectors[open_rows[query]], neighbors[inverse])
        return neighbor_ids, similarity

    query, neighbor_ids, similarity = search_all(search, thresholds[rows], len(ids))
    a, b = rows[query], np.searchsorted(ids, neighbor_ids).astype(np.int64)
    keep = (a != b) & (similarity >= np.maximum(thresholds[a], thresholds[b])) & ~((group[a] >= 0) & (group[a] == group[b]))
    hits = np.empty(int(keep.sum()), dtype=HITS)
    hits["src"], hits["dst"] = np.minimum(a, b)[keep], np.maximum(a, b)[keep]
    hits["similarity"] = similarity[keep]
    return hits


def merge_hits(task: MergeTask) -> WrittenPairs:
    """Each pair once, however often it was found: count all of them, write the edges worth keeping."""
    scratch = task.members.scratch
    ids, weights = (map_array(join(scratch, f"{name}.npy")) for name in ("sample_id", "weight"))
    hits = np.concatenate([read_array(_part(scratch, part, task.number)) for part in task.parts])
    order = np.lexsort((hits["dst"], hits["src"]))
    src, dst, similarity = (hits[name][order] for name in HITS.names or ())
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (np.diff(src) != 0) | (np.diff(dst) != 0)
    src, dst, similarity = src[is_first], dst[is_first], similarity[is_first]
    rows, place = np.unique(np.concatenate([src, dst]), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate([weights[dst], weights[src]]), minlength=len(rows)).astype(np.int64)
    keep = sparsify(src, dst, similarity, task.best)
    n_edges = write_edges(task.members.run, f"part-{task.number:05d}", ids[src[keep]], ids[dst[keep]], similarity[keep])
    return WrittenPairs(n_edges, rows, counts)


def edge_table(
    src: Ids, dst: Ids, similarity: Sims, kind: str = "near", source: str = "whole", variant: pa.Array | None = None
) -> pa.Table:
    """Rows of `candidates`; `variant` is ``none`` unless given."""
    n = len(src)
    columns = {"src": src, "dst": dst, "similarity": similarity, "kind": pa.repeat(kind, n)}
    return pa.table(columns | {"variant": pa.repeat("none", n) if variant is None else variant, "source": pa.repeat(source, n)})


def write_edges(run: Run, name: str, src: Ids, dst: Ids, similarity: Sims) -> int:
    """Write near edges of whole images as one file of `candidates`; returns their number."""
    edges = run.table("candidates")
    with FileWriter(join(edges.path, f"{name}.parquet"), edges.schema) as writer:
        writer.write(edge_table(src, dst, similarity))
    return len(src)


def query_all(context: StageContext, members: Members) -> Iterator[WrittenPairs]:
    """Look every image up; yields what was written, part by part."""
    scratch, best = members.scratch, context.config.search.best_edges
    code_error = _code_error(context, members)
    ids, thresholds, weights = (map_array(join(scratch, f"{name}.npy")) for name in ("sample_id", "min_similarity", "weight"))
    store, sample = context.run.vectors(), draw_sample(len(ids), _SAMPLE, context.config.index.seed)
    crowds = find_crowds(store.take(ids[sample]), len(ids), store.blocks(ids, BLOCK), context.config.search.min_similarity)
    save_array(join(scratch, "group.npy"), crowds.group)
    save_array(join(scratch, "is_inside.npy"), crowds.is_inside)
    for number in range(crowds.n_groups):
        yield _join_crowd(context, number, np.flatnonzero(crowds.group == number), (ids, thresholds, weights))
    n_blocks = len(members.block_sizes)
    tasks = [
        QueryTask(members, number, tuple(range(first, min(first + _BLOCKS_PER_TASK, n_blocks))), code_error)
        for number, first in enumerate(range(0, n_blocks, _BLOCKS_PER_TASK))
    ]
    sizes = [int(members.block_sizes[list(task.blocks)].sum()) for task in tasks]
    parts: dict[int, list[int]] = {}
    for number, buckets in context.run_tasks("pairs", "vectors", query_blocks, tasks, sizes):
        for bucket in buckets:
            parts.setdefault(bucket, []).append(number)
    merges = [MergeTask(members, bucket, tuple(sorted(numbers)), best) for bucket, numbers in sorted(parts.items())]
    for _, merged in context.engine.map_partitions(merge_hits, merges):
        yield merged


def _code_error(context: StageContext, members: Members) -> float:
    """How far a code's similarity may lie below the exact one, measured between vectors and their own codes, where the error is largest."""
    ids = map_array(join(members.scratch, "sample_id.npy"))
    chosen = np.sort(np.random.default_rng(context.config.index.seed).choice(len(ids), min(_CODED, len(ids)), replace=False))
    rows = unit_rows(members.run.read_vectors(ids[chosen]))
    index, shares_lists = _index(members.run)
    lists, _ = members.run.lists().place(rows, members.n_groups_each)
    neighbor_ids, coded = index.search(rows, min(64, len(ids)), lists if shares_lists else None)
    is_itself = neighbor_ids == ids[chosen][:, None]
    error = float(1.0 - coded[is_itself].min(initial=1.0)) + _SPARE_ERROR
    # where 64 others are nearer to a vector than its own code, the codes tell nothing
    return error if is_itself.any(axis=1).mean() > 0.99 else 2.0


def _join_crowd(context: StageContext, number: int, rows: Ids, columns: tuple[Ids, Sims, Ids]) -> WrittenPairs:
    """All pairs of a crowd and its surroundings."""
    ids, thresholds, weights = columns
    context.reporter.note(f"pairs: {len(rows):,} images in and around a crowd of near-copies are compared with each other")
    vectors = context.run.vectors().view(ids[rows])
    ownership = Ownership(np.zeros((len(rows), 1), dtype=np.int32), 0)
    joined = self_join(vectors, thresholds[rows], weights[rows], ownership, JoinSettings(context.config.search.best_edges))
    near = np.flatnonzero(joined.n_neighbors)
    n_edges = write_edges(context.run, f"part-crowd-{number:05d}", ids[rows[joined.src]], ids[rows[joined.dst]], joined.similarity)
    return WrittenPairs(n_edges, rows[near], joined.n_neighbors[near])


def _part(scratch: str, number: int, bucket: int) -> str:
    return join(scratch, f"hits-{number:05d}-{bucket:05d}.npy")


def _index(run: Run) -> tuple[IvfIndex, bool]:
    """The index, and whether its lists are the run's: one made from a factory string has lists of its own."""
    return _open_index(run.index_path()), run.index_facts.get("codes") in ("pq", "fp16")


@cached(LRUCache(1), key=lambda path: (path, os.stat(path).st_mtime_ns))
def _open_index(path: str) -> IvfIndex:
    return IvfIndex(path)
