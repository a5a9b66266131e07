"""Rows in groups, made from their positions, and work that says what it was given."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROW = np.dtype([("value", np.int64), ("vector", np.float16, (5,)), ("flag", np.uint8)])


@dataclass(frozen=True)
class Numbers:
    """Row p has the value 3 p and is in the groups of `lists[p]`."""

    lists: np.ndarray
    block_size: int

    @property
    def block_sizes(self):
        return np.diff(np.append(np.arange(0, len(self.lists), self.block_size), len(self.lists)))

    @property
    def n_groups_each(self):
        return self.lists.shape[1]

    def groups(self, block):
        return self.lists[block * self.block_size : (block + 1) * self.block_size]

    def rows(self, block):
        positions = np.arange(len(self.lists))[block * self.block_size : (block + 1) * self.block_size]
        rows = np.zeros(len(positions), dtype=ROW)
        for name in ROW.names:
            rows[name] = self.take(name, positions)
        return rows

    def take(self, name, positions):
        if name == "vector":
            return np.repeat(positions[:, None] % 7, 5, axis=1).astype(np.float16)
        return 3 * positions if name == "value" else (positions % 2).astype(np.uint8)


@dataclass(frozen=True)
class Report:
    """Every group with its rows as Python values, and the share asked for."""

    folder: str = ""

    def __call__(self, pack, groups):
        if self.folder and pack.number == 1:
            mark = Path(self.folder) / "tried"
            if not mark.exists():
                mark.touch()
                os._exit(9)
        return [
            (
                number,
                rows.positions.tolist(),
                rows.groups.tolist(),
                rows.column("value").tolist(),
                rows.view("vector")[np.arange(len(rows))[::-1]].tolist(),
                rows.column("flag").dtype.kind,
                (pack.share, pack.n_shares),
            )
            for number, rows in groups
        ]
