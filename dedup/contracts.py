"""The protocols that keep the layers apart.

A stage is a plain function from inputs it is handed to tables it returns; an engine carries tasks and tables
through it. Numerics never see a file, stages never see an engine's internals, engines never see an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Task = TypeVar("Task")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Table:
    """A folder of parquet files with one schema.

    Parameters
    ----------
    path : str
        Folder: a path or any fsspec URL.
    schema : pyarrow.Schema
    pattern : str
        Glob of its files inside the folder.
    """

    path: str
    schema: pa.Schema
    pattern: str = "[!_.]*.parquet"


@dataclass(frozen=True)
class Progress:
    """What a stage says about itself while it works.

    Parameters
    ----------
    stage : str
    done, total : int
        In units of `unit`; `total` may be 0 while it is unknown.
    unit : str
        shards, vectors, lists, …
    detail : str
        What else to say, appended to the rate.
    """

    stage: str
    done: int
    total: int
    unit: str
    detail: str = ""


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


class Encoder(Protocol):
    """Turns decoded images into unit vectors. `prepare` may be called by several threads at a time, and `encode` by two."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def min_side(self) -> int | None:
        """Sides down to which a decoder may reduce an image while it decodes; None = full size."""

    @property
    def batch_size(self) -> int:
        """Images per batch, unless a number is asked for."""

    @property
    def limit(self) -> int:
        """Images that memory has sufficed for since it ran out; 0 = it has not."""

    @property
    def device(self) -> str:
        """What it computes on: ``cpu``, ``cuda:1``."""

    def prepare(
        self, pixels: npt.NDArray[np.uint8], box: tuple[float, float, float, float], grid: npt.NDArray[np.float32]
    ) -> npt.NDArray[Any]:
        """Bring one image to a fixed shape: the part `box` (left, top, right, bottom) of its uint8 RGB pixels (height, width, 3).

        `grid` is the same part area-resized to YCbCr, float32 (3, 64, 64), which is there for every image.
        """

    def encode(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Encode prepared images: unit rows (n, dim)."""

    def encode_captions(self, captions: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """Unit rows (n, dim) in the space of the images; None if the encoder knows no text."""

    def notes(self) -> list[str]:
        """What the user should know of the encoding, said once: each is gone after this."""


class GroupRows(Protocol):
    """The rows of one group, ascending by their position; wide columns are gathered only where they are asked for."""

    def __len__(self) -> int:
        """Number of rows."""

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Position of each row among all rows of the source, shape (n,)."""

    @property
    def groups(self) -> npt.NDArray[np.int32]:
        """All groups of each row, shape (n, n_groups_each)."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column, whole."""

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some rows of a column, by their number inside the group."""


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


class PickledByFields:
    """A dataclass that is sent to workers without what it has mapped in this process."""

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pack:
    """Groups that one call of a work gets.

    Parameters
    ----------
    number : int
        Of the pack, counted from 0.
    groups : int64 array, shape (n,)
        Ascending.
    share, n_shares : int
        Which share of the work on its groups is done here, and how many there are: a group that is too much for one call is
        in as many packs. All rows come with each.
    """

    number: int
    groups: npt.NDArray[np.int64]
    share: int = 0
    n_shares: int = 1


class GroupWork(Protocol[Result_co]):
    """What is done with the groups of one pack; picklable, and may be done twice."""

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> Result_co:
        """Take the groups of a pack as they come, ascending; write output; return the result."""


class Engine(Protocol):
    """Carries tasks and tables through stages."""

    @property
    def n_workers(self) -> int:
        """Tasks that run at a time."""

    def map_partitions(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], *, uses_gpu: bool = False, n_gpus: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on every task; yields (position of the task, result) as they end.

        `work` is a module-level function or a picklable callable; it reads its inputs and writes its outputs
        itself and may run twice. With `uses_gpu` a task that computes on a GPU takes those of `devices.task_gpus`;
        `n_gpus` are those of the driver's machine, for an engine that has no other.
        """

    def map_groups(
        self, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Bring the rows of each group together and do the work on packs of groups.

        Parameters
        ----------
        source : GroupSource
        work : GroupWork
        packs : sequence of Pack
            By number; of about equal cost. Groups in no pack are left out.
        uses_gpu : bool
            As of `map_partitions`.

        Yields
        ------
        (pack, result), as they end
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
