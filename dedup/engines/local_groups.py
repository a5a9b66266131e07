"""`map_groups` on one machine: positions are sorted by group, rows gathered from memory-mapped files when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from dedup.contracts import GroupRows, GroupSource, GroupWork, Pack, Result
from dedup.storage.arrays import map_array, save_array
from dedup.storage.urls import join


@dataclass(frozen=True)
class PackTask:
    """One pack: a call of the work."""

    folder: str
    pack: Pack


@dataclass(frozen=True)
class PackWork(Generic[Result]):
    """Does the work of a pack in a worker process."""

    source: GroupSource
    work: GroupWork[Result]

    def __call__(self, task: PackTask) -> Result:
        """Do it."""
        return self.work(task.pack, self._groups(task))

    def _groups(self, task: PackTask) -> Iterator[tuple[int, GroupRows]]:
        places, offsets, lists = _arrays(task.folder)
        for group in task.pack.groups.tolist():
            yield group, _Gathered(self.source, places[offsets[group] : offsets[group + 1]].astype(np.int64), lists)


class _Gathered:
    """Rows of a group by their positions."""

    def __init__(self, source: GroupSource, positions: npt.NDArray[np.int64], groups: npt.NDArray[np.int32]) -> None:
        self._source, self.positions, self._groups = source, positions, groups

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def groups(self) -> npt.NDArray[np.int32]:
        return self._groups[self.positions]

    def column(self, name: str) -> npt.NDArray[Any]:
        return self._source.take(name, self.positions)

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return self._source.take(name, self.positions[rows])


def sort_by_group(source: GroupSource, packs: Sequence[Pack], folder: str) -> list[PackTask]:
    """Write who is in which group as arrays that all workers map; returns the tasks."""
    blocks = [source.groups(block) for block in range(len(source.block_sizes))]
    lists = np.concatenate(blocks) if blocks else np.zeros((0, source.n_groups_each), dtype=np.int32)
    del blocks
    n_groups = max([int(lists.max(initial=-1)) + 1, *(int(pack.groups.max(initial=-1)) + 1 for pack in packs)])
    flat = lists.ravel()
    counts = np.bincount(flat, minlength=n_groups)
    order = np.argsort(flat, kind="stable")  # ascending within a group
    places = (order // max(1, lists.shape[1])).astype(np.int32 if len(lists) < 2**31 else np.int64)
    for name, array in (("places", places), ("offsets", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)), ("lists", lists)):
        save_array(join(folder, f"{name}.npy"), array)
    return [PackTask(folder, pack) for pack in packs]


@lru_cache(maxsize=1)
def _arrays(folder: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    places, offsets, lists = (map_array(join(folder, f"{name}.npy")) for name in ("places", "offsets", "lists"))
    return places, offsets, lists
