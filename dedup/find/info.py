"""What the index of a run is like: lists, bytes, memory, and how much of what is there it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dedup.contracts import JsonDict
from dedup.find.index import RunIndex
from dedup.numerics.search.exhaustive import nearest_neighbors
from dedup.runs.directory import Run
from dedup.runs.index import INDEX, LISTS
from dedup.storage.tables import read_table

_BLOCK = 65_536
_K = 10


@dataclass(frozen=True)
class IndexInfo:
    """Figures of an index."""

    # kind, codes: as FAISS names it; what it holds of each vector
    kind: str
    codes: str
    n_vectors: int
    dim: int
    nlist: int
    nprobe: int
    code_bytes: int
    n_empty_lists: int
    largest_list: int
    imbalance: float  # nlist · sum of squared list sizes / n²: 1 = all lists of one size; what a search costs more than with even lists
    # index_bytes, lists_bytes, store_bytes: files: the quantizers, the lists, and the vectors that candidates are refined with
    index_bytes: int
    lists_bytes: int
    store_bytes: int
    memory_bytes: int  # held by a process that searches; lists and vectors are mapped, and kept by the system as far as it has room
    # n_queries, n_pairs: sampled images, and their neighbours within the run's threshold, 10 of each at most, by exhaustive search
    n_queries: int
    n_pairs: int
    # pair_recall, recall_at_1: share of these that a search finds; share of the images with such a neighbour whose nearest is found.
    # None without any.
    pair_recall: float | None
    recall_at_1: float | None

    def as_dict(self) -> JsonDict:
        """For JSON."""
        return asdict(self)


def index_info(index: RunIndex, *, n_queries: int = 200, seed: int = 0) -> IndexInfo:
    """Measure an index.

    `n_queries`: images that are searched exhaustively, of those with a neighbour; 0 = none.
    `seed`: of the sample.
    """
    faiss_index, files = index.index, index.run.index_facts["files"]
    sizes = faiss_index.list_sizes()
    lists = index.run.lists()
    run, n, dim = index.run, faiss_index.n_vectors, faiss_index.dim
    ids = read_table(run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
    asked, found, hits = _measure(index, run, ids, n_queries, seed)
    return IndexInfo(
        faiss_index.description,
        str(index.run.index_facts["codes"]),
        n,
        dim,
        faiss_index.nlist,
        faiss_index.nprobe,
        faiss_index.code_bytes,
        int((sizes == 0).sum()),
        int(sizes.max(initial=0)),
        float(faiss_index.nlist * (sizes.astype(np.float64) ** 2).sum() / max(n, 1) ** 2),
        int(files[INDEX]),
        int(files[LISTS]),
        2 * dim * n,
        # centroids twice (FAISS's, and ours along the principal axes), and what is known of the samples that have a copy
        2 * int(files[INDEX]) + lists.axes.nbytes + lists.centroids.nbytes,
        len(asked),
        sum(len(row) for row in asked),
        found / total if (total := sum(len(row) for row in asked)) else None,
        hits / n_first if (n_first := sum(bool(row) for row in asked)) else None,
    )


def _measure(index: RunIndex, run: Run, ids: npt.NDArray[np.int64], n_queries: int, seed: int) -> tuple[list[list[int]], int, int]:
    """True neighbours of sampled images; how many of them a search finds, and of how many images the nearest."""
    near = read_table(run.table("neighbors"), ["sample_id"])["sample_id"].to_numpy()
    near = np.intersect1d(near, ids)
    chosen = np.sort(np.random.default_rng(seed).choice(near, min(n_queries, len(near)), replace=False))
    if not len(chosen):
        return [], 0, 0
    store = index.run.vectors()

    def blocks() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
        for start in range(0, len(ids), _BLOCK):
            yield ids[start : start + _BLOCK], store.take(ids[start : start + _BLOCK])

    queries = store.take(chosen)
    true_ids, true_similarity = nearest_neighbors(queries, chosen, blocks(), _K)
    given, _ = index.search_vectors(queries, k=_K + 1)
    least = np.float32(index.min_similarity)
    asked = [row[values >= least].tolist() for row, values in zip(true_ids, true_similarity, strict=True)]
    got = [set(row.tolist()) - {own} for row, own in zip(given, chosen.tolist(), strict=True)]
    found = sum(len(set(row) & there) for row, there in zip(asked, got, strict=True))
    return asked, found, sum(row[0] in there for row, there in zip(asked, got, strict=True) if row)
