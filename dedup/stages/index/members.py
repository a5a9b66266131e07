"""Distinct images and the inverted lists they are in, as rows that an engine groups by list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache, cached

from dedup.contracts import PickledByFields
from dedup.numerics.arraytypes import Ids, ListIds, Rows16
from dedup.numerics.search.lists import BLOCK
from dedup.runs.directory import Run
from dedup.runs.index import read_assignments
from dedup.runs.vectors import EmbeddingStore, ViewStore, view_part
from dedup.storage.arrays import array_shape, folder_state, map_array, map_arrays, read_array, read_rows, save_array
from dedup.storage.urls import join


def projected_rows(run: Run, rows: Ids) -> Rows16:
    """Projections of representatives by their position, float16 (n, n_filter + 1)."""
    parts = _projected(run.path("index", "projected"))
    block = rows // BLOCK
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [len(rows)]])
    pieces = [
        parts[int(block[start])][rows[start:stop] % BLOCK] for start, stop in zip(bounds[:-1], bounds[1:], strict=True) if stop > start
    ]
    return np.concatenate(pieces)


@cached(LRUCache(1), key=lambda folder: (folder, folder_state(folder)))
def _projected(folder: str) -> dict[int, Rows16]:
    return map_arrays(folder, "part-")


_ARRAYS = ("sample_id", "weight", "min_similarity")
_ADDED = "added"


def _structured(n: int, columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.void]:
    """One array of n rows with the columns as fields."""
    rows = np.empty(n, dtype=[(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
    for name, array in columns.items():
        rows[name] = array
    return rows


@dataclass(frozen=True)
class Members(PickledByFields):
    """A `GroupSource` of all distinct images by inverted list."""

    run: Run
    scratch: str  # folder of `save_members`
    n: int  # distinct images
    n_groups_each: int  # lists that an image is in
    is_projected: bool  # whether rows carry projections
    n_earlier: int = 0  # how many of the images, the first ones, an earlier run has compared; if any, rows carry the weight added since

    @property
    def block_sizes(self) -> Ids:
        """As the stage `index` cut them."""
        return np.diff(np.append(np.arange(0, self.n, BLOCK), self.n)).astype(np.int64)

    def groups(self, block: int) -> ListIds:
        """The lists of a block's images, int32 (n, n_groups_each)."""
        return read_assignments(self.run.path("index"), block)

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """Sample_id, weight, min_similarity, vector and projection of a block's images."""
        part = slice(block * BLOCK, min((block + 1) * BLOCK, self.n))
        columns = {name: read_rows(join(self.scratch, f"{name}.npy"), part.start, part.stop) for name in self._arrays}
        columns["vector"] = self.run.read_vectors(columns["sample_id"])
        if self.is_projected:
            columns["projected"] = read_rows(self.run.path("index", "projected", f"part-{block:05d}.npy"), 0, BLOCK)
        return _structured(part.stop - part.start, columns)

    def take(self, name: str, positions: Ids) -> npt.NDArray[Any]:
        """A column of images anywhere."""
        if name == "vector":
            return self._store.take(self._mapped["sample_id"][positions])
        if name == "projected":
            return projected_rows(self.run, positions)
        column: npt.NDArray[Any] = self._mapped[name][positions]
        return column

    @cached_property
    def _mapped(self) -> dict[str, npt.NDArray[Any]]:
        return {name: map_array(join(self.scratch, f"{name}.npy")) for name in self._arrays}

    @property
    def _arrays(self) -> tuple[str, ...]:
        return (*_ARRAYS, _ADDED) if self.n_earlier else _ARRAYS

    @cached_property
    def _store(self) -> EmbeddingStore:
        return self.run.vectors()


def save_members(scratch: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Write the columns of each image: `sample_id`, `weight`, `min_similarity`, and `added` if given, shape (n,)."""
    for name in (*_ARRAYS, *(name for name in columns if name == _ADDED)):
        save_array(join(scratch, f"{name}.npy"), columns[name])


@dataclass(frozen=True)
class ViewMembers(PickledByFields):
    """A `GroupSource` of all views by inverted list: the image each is a view of, its vector, the vector of the whole image."""

    run: Run
    scratch: str  # where the sample_ids of the representatives lie
    parts: tuple[int, ...]  # numbers of the views' files, ascending
    sizes: tuple[int, ...]  # views in each
    n_groups_each: int  # lists that each view is in

    @classmethod
    def of(cls, run: Run, scratch: str, parts: tuple[int, ...]) -> ViewMembers:
        """The views of some files."""
        shapes = [array_shape(view_part(run.views_folder, "view", part)) for part in parts]
        return cls(run, scratch, parts, tuple(shape[0] for shape, _ in shapes), int(shapes[0][1]["lists"].shape[0]))

    @property
    def block_sizes(self) -> Ids:
        """As the stage `index` cut them."""
        return np.array(self.sizes, dtype=np.int64)

    def groups(self, block: int) -> ListIds:
        """The lists of each view of a file, int32 (n, n_groups_each)."""
        return np.ascontiguousarray(read_array(view_part(self.run.views_folder, "view", self.parts[block]))["lists"])

    def images(self, block: int) -> npt.NDArray[np.int32]:
        """The image that each view of a file shows, as a position among the representatives, int32 (n,)."""
        return np.ascontiguousarray(read_array(view_part(self.run.views_folder, "view", self.parts[block]))["image"])

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """View, vector and whole vector of each view of a file."""
        view, vector = (read_array(view_part(self.run.views_folder, name, self.parts[block])) for name in ("view", "vector"))
        images, place = np.unique(view["image"], return_inverse=True)
        ids = np.zeros(0, dtype=np.int64)
        if len(images):
            first = int(images[0])
            ids = read_rows(self._sample_id_file, first, int(images[-1]) + 1)[images - first]
        return _structured(len(view), {"view": view, "vector": vector, "whole": self.run.read_vectors(ids)[place]})

    def take(self, name: str, positions: Ids) -> npt.NDArray[Any]:
        """A column of views anywhere."""
        order = np.argsort(positions, kind="stable")
        ordered = self._views.take("view" if name == "whole" else name, positions[order])
        column = np.empty_like(ordered)
        column[order] = ordered
        return self._store.take(self._sample_ids[column["image"]]) if name == "whole" else column

    @cached_property
    def _sample_ids(self) -> Ids:
        return map_array(self._sample_id_file)

    @property
    def _sample_id_file(self) -> str:
        return join(self.scratch, "sample_id.npy")

    @cached_property
    def _views(self) -> ViewStore:
        return self.run.views()

    @cached_property
    def _store(self) -> EmbeddingStore:
        return self.run.vectors()
