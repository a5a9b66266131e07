"""The local engine: spawned processes and DuckDB on one machine, no Java."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import Engine, GpuUse, GroupRows, GroupSource, GroupWork, Pack, Result, Table, Task
from dedup.engines.workers import completed, start_pool, stop_pool, why_broken
from dedup.errors import DedupError, StageError, no_room
from dedup.machine import available_cores
from dedup.schemas import conform
from dedup.storage.arrays import map_array, save_array
from dedup.storage.atomic import scratch_folder
from dedup.storage.tables import dataset, files, write_table
from dedup.storage.urls import is_local, join

_BATCH_ROWS = 100_000


@contextmanager
def engine_or_own(engine: Engine | None) -> Iterator[Engine]:
    """The given engine, or else a local one that is closed at the end."""
    if engine is not None:
        yield engine
        return
    with closing(LocalEngine()) as local:
        yield local


class LocalEngine:
    """One process per core and an embedded SQL engine.

    `n_workers`: processes; 0 = one per core this process may use.
    `memory_limit`: memory of the SQL engine before it spills to disk, in DuckDB's notation: ``4GB``.
    `count_gpus`: number of GPUs for tasks that use one exclusively. Called when such tasks come: torch takes seconds to load.
    """

    def __init__(self, n_workers: int = 0, memory_limit: str = "4GB", count_gpus: Callable[[], int] = lambda: 0) -> None:
        self._requested_workers, self._n_workers = n_workers, n_workers or available_cores()
        self._memory_limit, self._count_gpus = memory_limit, count_gpus
        self._pool: ProcessPoolExecutor | None = None
        self._gpu_pool: ProcessPoolExecutor | None = None
        self._database: duckdb.DuckDBPyConnection | None = None
        self._held = ExitStack()  # the database and its folder

    @property
    def n_workers(self) -> int:
        """Tasks that run at a time."""
        return self._n_workers

    @property
    def is_local(self) -> bool:
        """Workers are processes of this machine."""
        return True

    @property
    def dialect(self) -> Literal["duckdb", "spark"]:
        """DuckDB's."""
        return "duckdb"

    def map_partitions(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], *, uses_gpu: GpuUse = False
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on every task in spawned processes of one thread each.

        A single task goes to a process too: with more threads matrix products round differently, and results must not
        depend on the number of tasks. Tasks that use a GPU exclusively get one process per GPU, with its share of the cores,
        or `n_workers` processes dealt out to the GPUs.

        Raises StageError if a worker process dies or a task fails with an unexpected error.
        """
        if not tasks:
            return
        n_gpus = self._count_gpus() if uses_gpu == "alone" else 0
        if not n_gpus:
            self._pool = self._pool or start_pool(self._n_workers)
            yield from self._map(self._pool, self._n_workers, work, tasks)
            return
        n_processes = min(self._requested_workers or n_gpus, len(tasks))
        gpus = [str(number % n_gpus) for number in range(n_processes)]
        self._gpu_pool = start_pool(n_processes, gpus, max(1, available_cores() // n_processes))
        try:
            yield from self._map(self._gpu_pool, n_processes, work, tasks)
        finally:
            stop_pool(self._gpu_pool)  # frees their memory on the GPUs
            self._gpu_pool = None

    def _map(
        self, pool: ProcessPoolExecutor, n_processes: int, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        n_done = 0
        try:
            for number, future in completed(pool, work, tasks, 3 * n_processes):
                yield number, _result(work, number, future)
                n_done += 1
        except BrokenProcessPool as error:
            self._pool = None
            raise StageError(why_broken(n_done)) from error
        except (GeneratorExit, KeyboardInterrupt):
            self.close()
            raise

    def map_groups(
        self, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on packs of groups, whose rows are gathered from memory-mapped files."""
        with self.scratch() as folder:
            sort_by_group(source, packs, folder)
            yield from self.map_partitions(PackWork(source, work, folder), packs, uses_gpu=uses_gpu)

    def sql(self, query: str, tables: Mapping[str, Table | pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
        """Run a query, in the SQL that all engines share, in DuckDB; the result comes in batches conformed to `schema`."""
        with self._connection() as connection:
            for name, table in tables.items():
                if isinstance(table, pa.Table):
                    connection.register(name, table)
                elif is_local(table.path):
                    # temporary: other queries, which may run at the same time, have views of the same names
                    connection.execute(f"CREATE TEMP VIEW {name} AS FROM read_parquet([{_literals(files(table))}], union_by_name = true)")
                else:
                    connection.register(name, dataset(table))
            try:
                reader = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
                for batch in reader:
                    yield conform(batch, schema)
            except RuntimeError as error:
                if "interrupted" in str(error):  # what DuckDB makes of Ctrl-C
                    raise KeyboardInterrupt from error
                raise

    def _connection(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the database, which all queries share: starting one takes longer than most of them."""
        if self._database is None:
            spill = self._held.enter_context(scratch_folder())
            config: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": self._memory_limit, "threads": self._n_workers, "temp_directory": spill,
                "enable_external_file_cache": False,  # tables are written again and again under the same names
            }  # fmt: skip
            self._database = self._held.enter_context(duckdb.connect(config=config))
        return self._database.cursor()

    def sql_to(self, query: str, tables: Mapping[str, Table | pa.Table], output: Table, prefix: str = "part") -> int:
        """Write the result of a query as files of a table; returns its rows."""
        return write_table(output, self.sql(query, tables, output.schema), prefix)

    def scratch(self) -> AbstractContextManager[str]:
        """A temporary folder."""
        return scratch_folder()

    def close(self) -> None:
        """Stop the workers, in the middle of a task if need be."""
        for pool in (self._pool, self._gpu_pool):
            if pool is not None:
                stop_pool(pool)
        self._pool = self._database = None
        self._held.close()


def _literals(names: Sequence[str]) -> str:
    """Texts of SQL, separated by commas."""
    return ", ".join("'" + name.replace("'", "''") + "'" for name in names)


def _result(work: Callable[[Task], Result], number: int, future: Future[Result]) -> Result:
    try:
        return future.result()
    except (DedupError, BrokenProcessPool):
        raise
    except Exception as error:
        if message := no_room(error):
            raise StageError(message) from error
        name = getattr(work, "__name__", type(work).__name__)
        raise StageError(f"{name}, task {number}: {type(error).__name__}: {error}; finished parts are kept") from error


@dataclass(frozen=True)
class PackWork(Generic[Result]):
    """Runs the work on one pack in a worker process."""

    source: GroupSource
    work: GroupWork[Result]
    folder: str  # with the arrays of `sort_by_group`

    def __call__(self, pack: Pack) -> Result:
        """Run the work on the pack's groups."""
        return self.work(pack, self._groups(pack))

    def _groups(self, pack: Pack) -> Iterator[tuple[int, GroupRows]]:
        places, offsets, lists = _arrays(self.folder)
        for group in pack.groups.tolist():
            positions = places[offsets[group] : offsets[group + 1]].astype(np.int64)
            yield group, GroupRows(self.source, positions, lists[positions])


def sort_by_group(source: GroupSource, packs: Sequence[Pack], folder: str) -> None:
    """Write the rows of each group as arrays that all workers map."""
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


@lru_cache(maxsize=1)
def _arrays(folder: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    places, offsets, lists = (map_array(join(folder, f"{name}.npy")) for name in ("places", "offsets", "lists"))
    return places, offsets, lists
