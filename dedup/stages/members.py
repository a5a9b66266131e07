"""Distinct images and the inverted lists they are in, as rows that an engine brings together by list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.contracts import PickledByFields
from dedup.numerics.lists import BLOCK
from dedup.stages.index import projected_part, projected_rows
from dedup.storage.arrays import map_array, read_rows, save_array
from dedup.storage.embeddings import EmbeddingStore, open_store, read_vectors
from dedup.storage.lists import read_assignments
from dedup.storage.urls import join

_ARRAYS = ("sample_id", "weight", "min_similarity")
_ADDED = "added"


@dataclass(frozen=True)
class Members(PickledByFields):
    """A `GroupSource` of all distinct images by inverted list.

    Parameters
    ----------
    run_dir : str
    scratch : str
        Where `save` has put what is known of each image.
    n : int
        Distinct images.
    n_groups_each : int
        Lists that an image is in.
    is_projected : bool
        Whether rows carry projections.
    n_earlier : int
        How many of the images, the first ones, an earlier run has compared; with any, rows carry the weight added since.
    """

    run_dir: str
    scratch: str
    n: int
    n_groups_each: int
    is_projected: bool
    n_earlier: int = 0

    @property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """As the stage `index` has cut them."""
        return np.diff(np.append(np.arange(0, self.n, BLOCK), self.n)).astype(np.int64)

    def groups(self, block: int) -> npt.NDArray[np.int32]:
        """The lists of a block's images, int32 (n, n_groups_each)."""
        return read_assignments(self.run_dir, block)

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """Sample_id, weight, min_similarity, vector and projection of a block's images."""
        part = slice(block * BLOCK, min((block + 1) * BLOCK, self.n))
        known = {name: read_rows(join(self.scratch, f"{name}.npy"), part.start, part.stop) for name in self._arrays}
        wide = {"vector": read_vectors(self.run_dir, known["sample_id"])}
        if self.is_projected:
            wide["projected"] = projected_part(self.run_dir, block)
        columns = known | wide
        rows = np.empty(part.stop - part.start, dtype=[(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
        for name, array in columns.items():
            rows[name] = array
        return rows

    def take(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column of images anywhere."""
        if name == "vector":
            return self._store.take(self._mapped["sample_id"][positions])
        if name == "projected":
            return projected_rows(self.run_dir, positions)
        found: npt.NDArray[Any] = self._mapped[name][positions]
        return found

    @cached_property
    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        return {name: map_array(join(self.scratch, f"{name}.npy")) for name in self._arrays}

    @property
    def _arrays(self) -> tuple[str, ...]:
        return (*_ARRAYS, _ADDED) if self.n_earlier else _ARRAYS

    @cached_property
    def _store(self) -> EmbeddingStore:
        return open_store(self.run_dir)


def save_members(scratch: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Write what is known of each image: `sample_id`, `weight`, `min_similarity`, and `added` if there is one, shape (n,)."""
    for name in (*_ARRAYS, *(name for name in columns if name == _ADDED)):
        save_array(join(scratch, f"{name}.npy"), columns[name])
