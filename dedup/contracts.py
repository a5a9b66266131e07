"""The protocols that keep the layers apart, and what passes between them.

A stage is a plain function from inputs it is handed to tables it returns; an engine carries tasks and tables
through it. Numerics never see a file, stages never see an engine's internals, engines never see an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Task = TypeVar("Task")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Table:
    """A folder of parquet files with one schema."""

    path: str  # folder: a path or any fsspec URL
    schema: pa.Schema
    pattern: str = "[!_.]*.parquet"  # glob of its files inside the folder


@dataclass(frozen=True)
class Progress:
    """What a stage says about itself while it works."""

    stage: str
    # done, total: in units of `unit`; `total` may be 0 while it is unknown
    done: int
    total: int
    unit: str  # shards, vectors, lists, …
    detail: str = ""  # what else to say, appended to the rate


class Reporter(Protocol):
    """Receives progress and notes; the command line draws them, the library default ignores them."""

    def progress(self, progress: Progress) -> None:
        """Take a progress message."""

    def note(self, text: str) -> None:
        """Take a line that a user should read."""


class SilentReporter:
    """Takes progress and notes and does nothing with them: what is used where nobody gives a reporter."""

    def progress(self, progress: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


class GroupSource(Protocol):
    """Rows of fixed width that belong to groups, in blocks that a worker reads by itself; picklable."""

    @property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each block."""

    @property
    def n_groups_each(self) -> int:
        """Groups that a row is in."""

    def groups(self, block: int) -> npt.NDArray[np.int32]:
        """The groups of each row of a block, none twice for one row, shape (n, n_groups_each)."""

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """The rows of a block as a structured array."""

    def take(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column of rows anywhere, by their position among all; for an engine whose workers share the files."""


@dataclass(frozen=True)
class Gathered:
    """Rows that lie elsewhere, gathered when they are indexed."""

    take: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]  # gives the rows of some keys
    keys: npt.NDArray[np.int64]  # shape (n,); of each row: its sample_id, or its position

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return self.take(self.keys[rows])


@dataclass(frozen=True)
class GroupRows:
    """The rows of one group, ascending by their position."""

    source: GroupSource
    positions: npt.NDArray[np.int64]  # shape (n,); of each row among all rows of the source
    groups: npt.NDArray[np.int32]  # shape (n, n_groups_each); all groups of each row
    # shape (n,); the columns, where they were sent along; else they are gathered from the source's files when they are asked for
    columns: npt.NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column, whole."""
        return self.source.take(name, self.positions) if self.columns is None else np.ascontiguousarray(self.columns[name])

    def view(self, name: str) -> Gathered | npt.NDArray[Any]:
        """A column that is too wide to be copied whole: the rows that it is indexed with, by their number inside the group."""
        return Gathered(partial(self.source.take, name), self.positions) if self.columns is None else np.asarray(self.columns[name])


class PickledByFields:
    """A dataclass that is sent to workers without what it has mapped in this process."""

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pack:
    """Groups that one call of a work gets."""

    number: int  # of the pack, counted from 0
    groups: npt.NDArray[np.int64]  # shape (n,); ascending
    # share, n_shares: which share of the work on its groups is done here, and how many there are: a group that is too much for one
    # call is in as many packs. All rows come with each.
    share: int = 0
    n_shares: int = 1


class GroupWork(Protocol[Result_co]):
    """What is done with the groups of one pack; picklable, and may be done twice."""

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> Result_co:
        """Take the groups of a pack as they come, ascending; write output; return the result."""


GpuUse = bool | Literal["alone"]  # of tasks: whether they compute on a GPU beside other tasks, or keep a model on one of their own


class Engine(Protocol):
    """Carries tasks and tables through stages."""

    @property
    def n_workers(self) -> int:
        """Tasks that run at a time."""

    @property
    def is_local(self) -> bool:
        """Whether workers run on this machine, and share its memory and its disk."""

    def map_partitions(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], *, uses_gpu: GpuUse = False
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on every task; yields (position of the task, result) as they end.

        `work` is a module-level function or a picklable callable; it reads its inputs and writes its outputs
        itself and may run twice. A task that computes on a GPU takes those of `machine.task_gpus`.
        """

    def map_groups(
        self, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Bring the rows of each group together and do the work on packs of groups.

        `packs`: by number; of about equal cost. Groups in no pack are left out.
        `uses_gpu`: as of `map_partitions`.
        Yields (pack, result), as they end.
        """

    def sql(self, query: str, tables: Mapping[str, Table | pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
        """Run a query of the SQL that all engines share; batches come conformed to `schema`."""

    def sql_to(self, query: str, tables: Mapping[str, Table | pa.Table], output: Table, prefix: str = "part") -> int:
        """Write the result of a query as files of a table, named and ordered by its ORDER BY; returns its rows."""

    def scratch(self) -> AbstractContextManager[str]:
        """A folder for files that workers read, gone afterwards: a path, or a URL where workers are elsewhere."""

    def close(self) -> None:
        """Release workers."""


JsonDict = dict[str, Any]
