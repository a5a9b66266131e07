"""The engine for clusters: Spark runs the tasks, Spark SQL the queries. The DataFrame API only.

Python workers read and write tables through fsspec, so that any URL that the local engine reads works without a JAR;
files on a file system that all machines mount are read by Spark itself.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from dedup.contracts import GpuUse, GroupSource, GroupWork, Pack, Result, Table, Task
from dedup.engines.spark.groups import SENT, Routes, received, row_type, send
from dedup.engines.spark.jobs import PATIENCE_S, IdleWatch, SparkJob, results_as_written
from dedup.engines.spark.session import (
    cores,
    executor_settings,
    explained,
    gpu_profile,
    gpus,
    numbers,
    partition,
    start_session,
    write_rows,
)
from dedup.engines.spark.shipment import Shipment, remove_folder, ship
from dedup.errors import ConfigError, DedupError, StageError
from dedup.machine import given_gpus
from dedup.storage.tables import dataset, files, write_table
from dedup.storage.urls import filesystem, is_local, join

_READ_ROWS = 65_536
_NOTHING = pa.RecordBatch.from_pydict({"n": pa.array([], pa.int64())})


class SparkEngine:
    """Tasks and queries on a Spark session.

    `scratch`: folder that driver and workers can reach, for tasks and intermediate tables: a path or fsspec URL.
    `master`: ``local[*]``, ``spark://host:7077``, …; empty = that of the session or of spark-submit.
    `options`: Spark settings ``key=value`` for a session that is created here; those of spark-submit take precedence.
    `sends_rows`: whether `map_groups` sends whole rows through the shuffle. Else workers gather them from the run's files, which is cheaper
    where random access is: on one machine. Default: unless the master is ``local``.
    `gpus_per_task`: GPUs of a task that uses one, by stage-level scheduling; 0 = those of any task, ``spark.task.resource.gpu.amount``.
    `note`: takes a line for the user: that tasks wait for executors that no worker offers.
    `patience_s`: seconds without a task that starts or ends before `note` is called.
    `session`: an existing session to use; `close` does not stop it.
    Raises ConfigError if Java is missing or too old, or the executors can't give a task that many GPUs.
    Raises StageError if the master can't be reached.
    """

    def __init__(
        self,
        scratch: str,
        *,
        master: str = "",
        options: Sequence[str] = (),
        sends_rows: bool | None = None,
        gpus_per_task: float = 0,
        note: Callable[[str], None] = lambda text: None,
        patience_s: float = PATIENCE_S,
        session: SparkSession | None = None,
    ) -> None:
        self._scratch, self._owns_session = scratch, session is None
        session = session or start_session(master, options)
        self._spark = session
        try:
            self._gpu_profile = gpu_profile(session, gpus_per_task)
        except ConfigError:
            if self._owns_session:
                session.stop()
            raise
        self._n_sharers = round(1 / gpus_per_task) if 0 < gpus_per_task < 1 else 1
        self._watch = IdleWatch(session.sparkContext.statusTracker(), executor_settings(session), note, patience_s=patience_s)
        self._sends_rows = not str(session.sparkContext.master).startswith("local") if sends_rows is None else sends_rows
        remove_folder(scratch)  # left by a driver that was killed

    @property
    def n_workers(self) -> int:
        """Tasks that run at a time."""
        return max(1, int(self._spark.sparkContext.defaultParallelism))

    @property
    def is_local(self) -> bool:
        """Executors have machines of their own."""
        return False

    @property
    def dialect(self) -> Literal["duckdb", "spark"]:
        """Spark's."""
        return "spark"

    def map_partitions(
        self, work: Callable[[Task], Result], tasks: Sequence[Task], *, uses_gpu: GpuUse = False
    ) -> Iterator[tuple[int, Result]]:
        """Run `work` on every task, each in a Spark partition; Spark retries failed ones.

        Raises StageError if a task has failed as often as ``spark.task.maxFailures`` allows.
        """
        if not tasks:
            return
        shipment = ship(self._scratch, work, tasks)
        n, n_sharers = len(tasks), self._n_sharers

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            with given_gpus(gpus(), cores(), n_sharers):
                for number in numbers(batches):
                    shipment.perform(number)
            yield _NOTHING

        name = getattr(work, "__name__", type(work).__name__)
        profile = self._gpu_profile if uses_gpu else None
        yield from self._results(shipment, n, name, lambda spark: spark.range(0, n, 1, n).mapInArrow(run, "n long", profile=profile))

    def map_groups(
        self, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Shuffle the rows to their groups, one pack per Spark partition, sorted by group, and run `work` as they stream by.

        Raises StageError if a pack has failed as often as ``spark.task.maxFailures`` allows.
        """
        if not packs:
            return
        n_blocks, n_packs = len(source.block_sizes), len(packs)
        routes = Routes.of(packs)
        shipment = ship(self._scratch, work, packs)
        has_columns = self._sends_rows and n_blocks > 0
        dtype = row_type(source, source.rows(0).dtype if has_columns else None)

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for block in numbers(batches):
                yield from send(source, routes, block, has_columns=has_columns)

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            with given_gpus(gpus()):
                shipment.perform(partition(), received(batches, source, dtype))
            yield _NOTHING

        profile = self._gpu_profile if uses_gpu else None

        def plan(spark: SparkSession) -> DataFrame:
            rows = spark.range(0, n_blocks, 1, max(1, n_blocks)).mapInArrow(read, from_arrow_schema(SENT))
            return rows.repartitionById(n_packs, "pack").sortWithinPartitions("grp", "place").mapInArrow(run, "n long", profile=profile)

        yield from self._results(shipment, n_packs, type(work).__name__, plan)

    def _results(self, shipment: Shipment, n: int, name: str, plan: Callable[[SparkSession], DataFrame]) -> Iterator[tuple[int, Any]]:
        """Run a job whose tasks write results into a shipment's folder; yields them as they arrive."""
        job = SparkJob(self._spark, lambda spark: plan(spark).collect(), self._watch)
        try:
            yield from results_as_written(job, shipment, n)
        finally:
            job.cancel()
            shipment.remove()
        if shipment.n_received < n:
            raise StageError(explained(job.error, f"{name}: {n - shipment.n_received} of {n} tasks failed")) from job.error

    def sql(self, query: str, tables: Mapping[str, Table | pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
        """Run a query; the result comes in batches conformed to `schema`, through files of the scratch folder."""
        with self.scratch() as folder:
            result = Table(folder, schema)
            self.sql_to(query, tables, result)
            for batch in dataset(result).to_batches(batch_size=_READ_ROWS):
                yield pa.Table.from_batches([batch], schema=schema)

    def sql_to(self, query: str, tables: Mapping[str, Table | pa.Table], output: Table, prefix: str = "part") -> int:
        """Run a query and let the workers write its result, in the order of its ORDER BY, as files of a table; returns its rows."""
        inputs = join(self._scratch, uuid.uuid4().hex)
        views = []
        try:
            for name, table in tables.items():
                if isinstance(table, pa.Table):
                    rows, table = table, Table(join(inputs, name), table.schema)
                    write_table(table, [rows])
                self._frame(table, query).createOrReplaceTempView(name)
                views.append(name)
            frame = self._spark.sql(query)
            path, schema = output.path, output.schema

            def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                n_written = write_rows(join(path, f"{prefix}-{partition():05d}.parquet"), schema, batches)
                yield pa.RecordBatch.from_pydict({"n": pa.array([n_written], pa.int64())})

            job = SparkJob(self._spark, lambda _: frame.mapInArrow(write, "n long").collect(), self._watch)
            n_rows = sum(int(row["n"]) for row in job.result())
        except DedupError:
            raise
        except Exception as error:
            raise StageError(explained(error, "a query failed")) from error
        finally:
            for name in views:
                self._spark.catalog.dropTempView(name)
            remove_folder(inputs)
        if not n_rows:
            write_table(output, [], prefix)
        return n_rows

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder below the scratch folder of the run."""
        folder = join(self._scratch, uuid.uuid4().hex)
        try:
            yield folder
        finally:
            remove_folder(folder)

    def close(self) -> None:
        """Stop the session, if it was created here."""
        remove_folder(self._scratch)
        if self._owns_session:
            self._spark.stop()

    def _frame(self, table: Table, query: str) -> DataFrame:
        """A table as a DataFrame; where Python reads it, only the columns whose names occur in the query."""
        names = files(table)
        # Spark skips names that start with '_', which tables have until they are published
        if is_local(table.path) and not any(name.rpartition("/")[2].startswith("_") for name in names):
            return self._spark.read.schema(from_arrow_schema(table.schema)).parquet(*(f"file://{os.path.abspath(name)}" for name in names))
        words = set(re.findall(r"\w+", query))
        columns = [name for name in table.schema.names if name in words or ".*" in query]
        path, whole = table.path, table.schema
        schema = pa.schema([whole.field(name) for name in columns])

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            fs, _ = filesystem(path)
            for number in numbers(batches):
                source = ds.dataset([names[number]], schema=whole, format="parquet", filesystem=fs)
                yield from source.to_batches(columns=columns, batch_size=_READ_ROWS)

        return self._spark.range(0, len(names), 1, len(names)).mapInArrow(read, from_arrow_schema(schema))
