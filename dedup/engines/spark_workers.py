"""What a Spark worker knows of its task, and how it writes its rows."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark import TaskContext

from dedup.storage.tables import FileWriter


def numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """The rows of `spark.range`, which number what a task is to do."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def partition() -> int:
    """Number of the partition this worker is at."""
    context = TaskContext.get()
    return 0 if context is None else int(context.partitionId())


def gpus() -> list[str]:
    """Addresses of the GPUs that Spark gave this task."""
    context = TaskContext.get()
    found = None if context is None else context.resources().get("gpu")
    return [] if found is None else list(found.addresses)


def cores() -> int:
    """Cores that Spark gave this task, ``spark.task.cpus``."""
    context = TaskContext.get()
    return 1 if context is None else int(context.cpus())


def write_rows(url: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Write a partition's rows; a partition without rows has no file."""
    writer: FileWriter | None = None
    try:
        for batch in batches:
            if batch.num_rows:
                writer = writer or FileWriter(url, schema)
                writer.write(batch)
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    if writer is None:
        return 0
    writer.close()
    return writer.n_rows
