"""The protocols that separate the layers, and the data that passes between them.

A stage is a plain function from inputs to tables; an engine runs its tasks and queries. Numerics never see a file, stages never see an
engine's internals, engines never see an image.
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
    """How far a stage has come."""

    stage: str
    done: int  # in units of `unit`
    total: int  # 0 while unknown
    unit: str  # shards, vectors, lists, …
    detail: str = ""  # appended to the rate


class Reporter(Protocol):
    """Receives progress and notes; the command line shows them, the library ignores them by default."""

    def progress(self, progress: Progress) -> None:
        """Take a progress message."""

    def note(self, text: str) -> None:
        """Take a line that a user should read."""


class SilentReporter:
    """Ignores progress and notes; used if no reporter is given."""

    def progress(self, progress: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def reported(
    results: Iterator[tuple[int, Result]], sizes: Sequence[int], reporter: Reporter, stage: str, unit: str, *, n_done: int = 0
) -> Iterator[tuple[int, Result]]:
    """(position, result) of tasks as they end, with progress in units of `sizes`; `n_done` were done before."""
    total = n_done + sum(sizes)
    reporter.progress(Progress(stage, n_done, total, unit))
    for number, result in results:
        n_done += sizes[number]
        reporter.progress(Progress(stage, n_done, total, unit))
        yield number, result


def in_order(results: Iterator[tuple[int, Result]]) -> Iterator[Result]:
    """Results by position, each as soon as all before it are there.

    Examples
    --------
    >>> "".join(in_order(iter([(1, "b"), (0, "a"), (2, "c")])))
    'abc'
    """
    early: dict[int, Result] = {}
    position = 0
    for number, result in results:
        early[number] = result
        while position in early:
            yield early.pop(position)
            position += 1


class GroupSource(Protocol):
    """Rows of fixed width that belong to groups, in blocks that a worker can read on its own; picklable."""

    @property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each block."""

    @property
    def n_groups_each(self) -> int:
        """Groups that each row is in."""

    def groups(self, block: int) -> npt.NDArray[np.int32]:
        """The distinct groups of each row of a block, shape (n, n_groups_each)."""

    def rows(self, block: int) -> npt.NDArray[np.void]:
        """The rows of a block as a structured array."""

    def take(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column of any rows, by their positions among all; for an engine whose workers share the files."""


@dataclass(frozen=True)
class Gathered:
    """Rows that are read when indexed."""

    take: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]  # gives the rows of some keys
    keys: npt.NDArray[np.int64]  # shape (n,); the sample_id or position of each row

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
    # shape (n,); the columns, if they were sent along; None: they are read from the source's files on demand
    columns: npt.NDArray[np.void] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column, whole."""
        return self.source.take(name, self.positions) if self.columns is None else np.ascontiguousarray(self.columns[name])

    def view(self, name: str) -> Gathered | npt.NDArray[Any]:
        """A column too wide to copy whole: index it with row numbers inside the group."""
        return Gathered(partial(self.source.take, name), self.positions) if self.columns is None else np.asarray(self.columns[name])


class PickledByFields:
    """A dataclass of which only the fields are pickled, not what it has mapped in this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pack:
    """Groups that one call of a `GroupWork` gets."""

    number: int  # of the pack, counted from 0
    groups: npt.NDArray[np.int64]  # shape (n,); ascending
    # a group too large for one call is in `n_shares` packs: each gets all rows, and does the share `share` of the work
    share: int = 0
    n_shares: int = 1


class GroupWork(Protocol[Result_co]):
    """Work on the groups of one pack; picklable, and may run twice."""

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> Result_co:
        """Take the groups of a pack as they come, ascending; write output; return the result."""


GpuUse = bool | Literal["alone"]  # whether tasks compute on a GPU shared with other tasks, or need one alone to keep a model on


class Engine(Protocol):
    """Runs the tasks and queries of stages."""

    @property
    def n_workers(self) -> int:
        """Tasks that run at once."""

    @property
    def is_local(self) -> bool:
        """Whether workers run on this machine, and share its memory and its disk."""

    @property
    def dialect(self) -> Literal["duckdb", "spark"]:
        """Whose words its SQL has, where the engines share none."""

    def map_partitions(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], *, uses_gpu: GpuUse = False
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on every task; yields (position of the task, result) as they end.

        `work` is picklable, reads its inputs and writes its outputs itself, and may run twice. A task on a GPU uses those of
        `machine.task_gpus`.
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
        """A folder for files that workers read, deleted afterwards: a path, or a URL if workers are on other machines."""

    def close(self) -> None:
        """Release workers."""


JsonDict = dict[str, Any]
