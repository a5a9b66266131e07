"""Pairs below the threshold, which no table holds: sampled vectors are compared with all others, or with stretches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dedup.errors import RunDirectoryError
from dedup.numerics.arraytypes import Ids, Rows16, Sims
from dedup.numerics.search.exhaustive import close_pairs, themselves
from dedup.numerics.similarity import exact_similarity, unit_rows
from dedup.runs.directory import Run
from dedup.runs.vectors import embedding_path
from dedup.storage.arrays import array_shape, read_rows
from dedup.storage.urls import is_local

_LEAST_QUERIES = 16
_PRODUCTS = 1.5e11  # multiply-adds: some five seconds of two cores
_PER_IMAGE = 2  # pairs shown of one image: else one crowd would fill the page
_MAX_HELD = 4_096  # pairs


@dataclass(frozen=True)
class BelowLimits:
    """How much is compared."""

    n_queries: int = 512
    n_vectors: int = 2_000_000  # with which each query is compared
    n_remote: int = 100_000  # the same for a remote run, whose vectors must be fetched
    n_block: int = 8_192  # vectors of a stretch


LIMITS = BelowLimits()


@dataclass(frozen=True)
class BelowSample:
    """What the comparison of a sample found."""

    # src, dst: shape (n,); the most similar pairs below the threshold, src < dst, most similar first
    src: Ids
    dst: Ids
    similarity: Sims  # shape (n,); exact
    # shape (n_bins + 1,); pairs (query, vector) by similarity from `low` on: bin k holds [k / n_bins, (k + 1) / n_bins), the last one 1
    bins: Ids
    low: float
    n_queries: int  # sampled images
    n_vectors: int  # with which each was compared
    n_all: int  # of the run


def sample_below(
    run: Run, n_of_partition: dict[int, int], threshold: float, *, low: float, n_bins: int, seed: int, limits: BelowLimits = LIMITS
) -> BelowSample:
    """Compare sampled vectors with all, or with evenly spread stretches of them.

    `n_of_partition`: partition to its number of vectors.
    `low`: similarity down to which pairs are counted.

    At most 1.5e11 multiply-adds and some 50 MB, whatever the size of the run; of more than two million vectors a part is compared. The
    sample, the stretches and their order depend on the seed and the run alone.
    """
    partitions = {number: n for number, n in sorted(n_of_partition.items()) if n}
    n_all = sum(partitions.values())
    empty = np.zeros(0, dtype=np.int64)
    if n_all < 2:
        return BelowSample(empty, empty, empty.astype(np.float32), np.zeros(n_bins + 1, np.int64), low, 0, 0, n_all)
    first = next(iter(partitions))
    shape, _ = array_shape(embedding_path(run.path("embeddings"), first))
    stretches = _stretches(partitions, limits.n_vectors if is_local(run.url) else limits.n_remote, limits.n_block)
    n_vectors = sum(stop - start for _, start, stop in stretches)
    n_queries = min(n_all, max(_LEAST_QUERIES, min(limits.n_queries, int(_PRODUCTS / (n_vectors * shape[1])))))
    query_ids = _draw(partitions, n_queries, seed)
    nearest = _Nearest(run.read_vectors(query_ids), query_ids, threshold, low, n_bins)
    for ids, rows in _blocks(run, stretches):
        if rows.shape != (len(ids), shape[1]):
            expected = f"expected {len(ids)} vectors of {shape[1]} dimensions from sample {ids[0]} on"
            raise RunDirectoryError(f"{run.url}: embeddings have changed: {expected}, found {rows.shape}; run embed again")
        nearest.take(ids, rows)
    src, dst, similarity = nearest.best()
    return BelowSample(src, dst, similarity, nearest.bins, low, n_queries, n_vectors, n_all)


class _Nearest:
    """Counts similarities of the queries, and keeps the pairs nearest below the threshold."""

    def __init__(self, queries: Rows16, ids: Ids, threshold: float, low: float, n_bins: int) -> None:
        self._queries, self._ids, self._unit = queries, ids, unit_rows(queries)
        self._threshold, self._low, self._n_bins = np.float32(threshold), low, n_bins
        self.bins = np.zeros(n_bins + 1, dtype=np.int64)
        self._pairs = np.zeros((0, 2), dtype=np.int64)
        self._similarity = np.zeros(0, dtype=np.float32)

    def take(self, ids: Ids, rows: Rows16) -> None:
        close = close_pairs(self._unit, unit_rows(rows), self._low, but=themselves(self._ids, ids))
        places, values = close.places, close.values
        self.bins += np.bincount(np.clip((values * self._n_bins + 1e-4).astype(np.int64), 0, self._n_bins), minlength=self._n_bins + 1)
        # the best of the block: the rest can't be among the best of all
        near = values < self._threshold
        places, values = places[near], values[near]
        if len(places) > _MAX_HELD:
            places = places[np.argpartition(-values, _MAX_HELD)[:_MAX_HELD]]
        query, row = np.divmod(places, len(ids))
        similarity = exact_similarity(self._queries[query], rows[row])
        is_below = similarity < self._threshold
        pairs = np.sort(np.column_stack([self._ids[query], ids[row]])[is_below], axis=1)
        self._pairs = np.concatenate([self._pairs, pairs])
        self._similarity = np.concatenate([self._similarity, similarity[is_below]])
        order = np.lexsort((self._pairs[:, 1], self._pairs[:, 0], -self._similarity))
        pairs, similarity = self._pairs[order], self._similarity[order]
        is_new = np.ones(len(pairs), dtype=bool)  # two queries may find the same pair
        is_new[1:] = (np.diff(pairs, axis=0) != 0).any(axis=1)
        self._pairs, self._similarity = pairs[is_new][:_MAX_HELD], similarity[is_new][:_MAX_HELD]

    def best(self) -> tuple[Ids, Ids, Sims]:
        """The pairs, most similar first, at most two of each image."""
        seen: dict[int, int] = {}
        chosen = []
        for place, (src, dst) in enumerate(self._pairs.tolist()):
            if max(seen.get(src, 0), seen.get(dst, 0)) < _PER_IMAGE:
                chosen.append(place)
                seen[src], seen[dst] = seen.get(src, 0) + 1, seen.get(dst, 0) + 1
        return self._pairs[chosen, 0], self._pairs[chosen, 1], self._similarity[chosen]


def _stretches(partitions: dict[int, int], max_vectors: int, n_block: int) -> list[tuple[int, int, int]]:
    """(partition, first row, last row + 1) of what is compared: all blocks, or evenly spread ones."""
    blocks = [(number, start, min(start + n_block, n)) for number, n in partitions.items() for start in range(0, n, n_block)]
    n_stretches = max(1, max_vectors // n_block)
    if sum(partitions.values()) <= max_vectors or len(blocks) <= n_stretches:
        return blocks
    return [blocks[place] for place in np.linspace(0, len(blocks) - 1, n_stretches).astype(np.int64).tolist()]


def _draw(partitions: dict[int, int], n: int, seed: int) -> Ids:
    """Ascending sample_ids of n vectors drawn at random."""
    ends = np.cumsum(list(partitions.values()))
    places = np.sort(np.random.default_rng(seed).choice(int(ends[-1]), n, replace=False))
    part = np.searchsorted(ends, places, side="right")
    row = places - np.concatenate([[0], ends[:-1]])[part]
    ids: Ids = (np.array(list(partitions), dtype=np.int64)[part] << 32) | row
    return ids


def _blocks(run: Run, stretches: list[tuple[int, int, int]]) -> Iterator[tuple[Ids, Rows16]]:
    for partition, start, stop in stretches:
        rows = read_rows(embedding_path(run.path("embeddings"), partition), start, stop)
        yield (np.int64(partition) << 32) + np.arange(start, stop, dtype=np.int64), rows
