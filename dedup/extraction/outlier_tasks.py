"""Looking for the neighbours of images: among all, or within inverted lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, Pack, Table
from dedup.numerics.neighbors import mean_distances, nearest_neighbors
from dedup.schemas import NEIGHBOR_MEANS, NEIGHBOR_PAIRS
from dedup.storage.arrays import read_rows
from dedup.storage.embeddings import read_vectors
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join

_Neighbors = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]  # images, their neighbours, similarities

BLOCK = 16_384  # vectors read at a time
QUERIES = 2_048  # of a task at most


@dataclass(frozen=True)
class Found:
    """Tables of neighbours and their means."""

    pairs: Table
    means: Table

    @classmethod
    def at(cls, folder: str, prefix: str) -> Found:
        """Empty ones."""
        return cls(Table(join(folder, f"{prefix}-pairs"), NEIGHBOR_PAIRS), Table(join(folder, f"{prefix}-means"), NEIGHBOR_MEANS))

    def write(self, number: int, rows: Iterable[_Neighbors], *, is_exact: bool) -> int:
        """Write one file of each; returns the images."""
        name, n_rows = f"part-{number:05d}.parquet", 0
        with (
            FileWriter(join(self.pairs.path, name), NEIGHBOR_PAIRS) as pairs,
            FileWriter(join(self.means.path, name), NEIGHBOR_MEANS) as means,
        ):
            for ids, neighbors, similarity in rows:
                is_found = neighbors >= 0
                pairs.write(pa.table({"image_id": np.repeat(ids, is_found.sum(axis=1)), "neighbor_id": neighbors[is_found]}))
                nearest = {"nearest_id": pa.array(neighbors[:, 0], mask=~is_found[:, 0])}
                nearest["nearest_similarity"] = pa.array(similarity[:, 0], mask=~is_found[:, 0])
                mean = {"image_id": ids, "mean_distance": mean_distances(similarity)} | nearest
                means.write(pa.table(mean | {"is_exact": pa.repeat(is_exact, len(ids))}))
                n_rows += len(ids)
        return n_rows


@dataclass(frozen=True)
class ExhaustiveTask:
    """Images to be compared with every other; `ids` is the array of all."""

    number: int
    run_dir: str
    ids: str
    n: int
    queries: npt.NDArray[np.int64]
    k: int
    found: Found


def compare_with_all(task: ExhaustiveTask) -> int:
    """Find the nearest neighbours of some images among all; returns how many images they are."""

    def blocks() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
        for start in range(0, task.n, BLOCK):
            ids = read_rows(task.ids, start, min(start + BLOCK, task.n))
            yield ids, read_vectors(task.run_dir, ids)

    neighbors, similarity = nearest_neighbors(read_vectors(task.run_dir, task.queries), task.queries, blocks(), task.k)
    return task.found.write(task.number, [(task.queries, neighbors, similarity)], is_exact=True)


@dataclass(frozen=True)
class CompareInLists:
    """Compares each image with those of its nearest list."""

    k: int
    found: Found

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> int:
        """Find neighbours within each list; returns the images that have it as their nearest."""
        rows = (found for number, group in groups for found in self._of_list(pack, number, group))
        return self.found.write(pack.number, rows, is_exact=False)

    def _of_list(self, pack: Pack, number: int, group: GroupRows) -> Iterator[_Neighbors]:
        wanted = np.flatnonzero(group.column("weight") > 0)
        home = wanted[group.groups[wanted, 0] == number][pack.share :: pack.n_shares]
        ids = group.column("sample_id")
        for start in range(0, len(home), QUERIES):
            queries = home[start : start + QUERIES]
            parts = (wanted[first : first + BLOCK] for first in range(0, len(wanted), BLOCK))
            blocks = ((ids[part], group.take("vector", part)) for part in parts)
            yield ids[queries], *nearest_neighbors(group.take("vector", queries), ids[queries], blocks, self.k)
