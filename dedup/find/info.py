"""Figures of a run's index: its lists, bytes and memory, and how many of the true neighbours it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dedup.find.index import RunIndex
from dedup.numerics.arraytypes import Ids, Rows16
from dedup.numerics.search.exhaustive import nearest_neighbors
from dedup.runs.directory import Run
from dedup.runs.index import INDEX, LISTS
from dedup.storage.images.isolated import where_decoded
from dedup.storage.tables import read_table

_BLOCK = 65_536
_K = 10


@dataclass(frozen=True)
class IndexInfo:
    """Figures of an index."""

    kind: str  # as FAISS names it
    codes: str  # what it holds of each vector
    n_vectors: int
    dim: int
    nlist: int
    nprobe: int
    code_bytes: int
    n_empty_lists: int
    largest_list: int
    imbalance: float  # nlist · sum of squared list sizes / n²: the cost of a search, relative to lists of equal size
    index_bytes: int  # of the file of the quantizers
    lists_bytes: int  # of the file of the lists
    store_bytes: int  # of the vectors that candidates are refined with
    memory_bytes: int  # of a process that searches; lists and vectors are mapped, and cached by the system as far as it has room
    n_queries: int  # sampled images
    n_pairs: int  # their neighbours within the run's threshold, by exhaustive search; at most 10 of each
    pair_recall: float | None  # share of these pairs that a search finds; None without any
    recall_at_1: float | None  # of the images with such a neighbour, the share whose nearest is found; None without any
    decoding: str  # how this machine shields itself from the images that are looked up


def index_info(index: RunIndex, *, n_queries: int = 200, seed: int = 0) -> IndexInfo:
    """Measure an index; its recall on `n_queries` images that are searched exhaustively, drawn from those with a neighbour."""
    run, faiss_index = index.run, index.index
    facts, lists, sizes = run.index_facts, run.lists(), faiss_index.list_sizes()
    n, dim = faiss_index.n_vectors, faiss_index.dim
    ids = read_table(run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
    neighbors, n_found, n_first_found = _measure(index, run, ids, n_queries, seed)
    n_pairs, n_with_neighbor = sum(map(len, neighbors)), sum(map(bool, neighbors))
    return IndexInfo(
        faiss_index.description,
        str(facts["codes"]),
        n,
        dim,
        faiss_index.nlist,
        faiss_index.nprobe,
        faiss_index.code_bytes,
        int((sizes == 0).sum()),
        int(sizes.max(initial=0)),
        float(faiss_index.nlist * (sizes.astype(np.float64) ** 2).sum() / max(n, 1) ** 2),
        int(facts["files"][INDEX]),
        int(facts["files"][LISTS]),
        2 * dim * n,
        # the centroids are held twice: by FAISS, and along the principal axes
        2 * int(facts["files"][INDEX]) + lists.axes.nbytes + lists.centroids.nbytes,
        len(neighbors),
        n_pairs,
        n_found / n_pairs if n_pairs else None,
        n_first_found / n_with_neighbor if n_with_neighbor else None,
        where_decoded(run.config.input.max_pixels),
    )


def _measure(index: RunIndex, run: Run, ids: Ids, n_queries: int, seed: int) -> tuple[list[list[int]], int, int]:
    """True neighbours of sampled images, nearest first; how many of them a search finds; for how many images it finds the nearest."""
    with_neighbor = np.intersect1d(read_table(run.table("neighbors"), ["sample_id"])["sample_id"].to_numpy(), ids)
    sampled = np.sort(np.random.default_rng(seed).choice(with_neighbor, min(n_queries, len(with_neighbor)), replace=False))
    if not len(sampled):
        return [], 0, 0
    store = run.vectors()

    def blocks() -> Iterator[tuple[Ids, Rows16]]:
        for start in range(0, len(ids), _BLOCK):
            yield ids[start : start + _BLOCK], store.take(ids[start : start + _BLOCK])

    queries = store.take(sampled)
    true_ids, true_similarity = nearest_neighbors(queries, sampled, blocks(), _K)
    searched_ids, _ = index.search_vectors(queries, k=_K + 1)
    threshold = np.float32(index.min_similarity)
    neighbors = [ids[values >= threshold].tolist() for ids, values in zip(true_ids, true_similarity, strict=True)]
    hits = [set(ids.tolist()) - {query} for ids, query in zip(searched_ids, sampled.tolist(), strict=True)]
    pairs = list(zip(neighbors, hits, strict=True))
    return neighbors, sum(len(hit & set(true)) for true, hit in pairs), sum(true[0] in hit for true, hit in pairs if true)
