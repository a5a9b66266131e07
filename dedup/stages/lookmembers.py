"""Second looks and the inverted lists they are in, as rows that an engine brings together by list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.contracts import GroupRows, PickledByFields
from dedup.storage.arrays import array_shape, map_array, read_array, read_rows
from dedup.storage.embeddings import EmbeddingStore, open_store, read_vectors
from dedup.storage.looks import LookStore, look_part, open_looks
from dedup.storage.urls import join


@dataclass(frozen=True)
class LookMembers(PickledByFields):
    """A `GroupSource` of all looks by inverted list: what each is a look at, its vector, the vector of the whole image.

    Parameters
    ----------
    run_dir : str
    scratch : str
        Where the sample_ids of the representatives lie.
    parts : tuple of int
        Numbers of the looks' files, ascending.
    sizes : tuple of int
        Looks in each.
    n_groups_each : int
        Lists that each look is in.
    """

    run_dir: str
    scratch: str
    parts: tuple[int, ...]
    sizes: tuple[int, ...]
    n_groups_each: int

    @classmethod
    def of(cls, run_dir: str, scratch: str, parts: tuple[int, ...]) -> LookMembers:
        """The looks of some files."""
        shapes = [array_shape(look_part(run_dir, "look", part)) for part in parts]
        return cls(run_dir, scratch, parts, tuple(shape[0] for shape, _ in shapes), int(shapes[0][1]["lists"].shape[0]))

    @property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """As the stage `index` has cut them."""
        return np.array(self.sizes, dtype=np.int64)

    def groups(self, block: int) -> npt.NDArray[np.int32]:
        """The lists of each look of a file, int32 (n, n_groups_each)."""
        return np.ascontiguousarray(read_array(look_part(self.run_dir, "look", self.parts[block]))["lists"])

    def images(self, block: int) -> npt.NDArray[np.int32]:
        """What each look of a file is a look at, a position among the representatives, int32 (n,)."""
        return np.ascontiguousarray(read_array(look_part(self.run_dir, "look", self.parts[block]))["image"])

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """Look, vector and whole vector of each look of a file."""
        look, vector = (read_array(look_part(self.run_dir, name, self.parts[block])) for name in ("look", "vector"))
        images, place = np.unique(look["image"], return_inverse=True)
        ids = np.zeros(0, dtype=np.int64)
        if len(images):
            first = int(images[0])
            ids = read_rows(self._sample_id_file, first, int(images[-1]) + 1)[images - first]
        whole = read_vectors(self.run_dir, ids)[place]
        columns = {"look": look, "vector": vector, "whole": whole}
        rows = np.empty(len(look), dtype=[(name, array.dtype, array.shape[1:]) for name, array in columns.items()])
        for name, array in columns.items():
            rows[name] = array
        return rows

    def take(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column of looks anywhere."""
        order = np.argsort(positions, kind="stable")
        of = "look" if name == "whole" else name
        found = np.empty_like(sorted_ := self._looks.take(of, positions[order]))
        found[order] = sorted_
        return self._store.take(self._sample_ids[found["image"]]) if name == "whole" else found

    @cached_property
    def _sample_ids(self) -> npt.NDArray[np.int64]:
        return map_array(self._sample_id_file)

    @property
    def _sample_id_file(self) -> str:
        return join(self.scratch, "sample_id.npy")

    @cached_property
    def _looks(self) -> LookStore:
        return open_looks(self.run_dir)

    @cached_property
    def _store(self) -> EmbeddingStore:
        return open_store(self.run_dir)


class Wholes:
    """Vectors of whole images by their number, gathered from the looks of a list when they are asked for."""

    def __init__(self, rows: GroupRows, images: npt.NDArray[np.int64]) -> None:
        self._rows = rows
        self._order = np.argsort(images, kind="stable")
        self._images = images[self._order]

    def __len__(self) -> int:
        return int(self._images[-1]) + 1 if len(self._images) else 0

    def __getitem__(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        return self._rows.take("whole", self._order[np.searchsorted(self._images, images)])
