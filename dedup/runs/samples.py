"""Metadata and groups of single samples, read on demand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cachetools import LRUCache

from dedup.errors import RunDirectoryError
from dedup.runs.directory import Run
from dedup.schemas.fields import ROW_MASK
from dedup.storage.tables import dataset, read_table
from dedup.storage.urls import filesystem, join

_COLUMNS = ["sample_id", "shard", "key", "url", "caption", "sha256", "byte_offset", "n_bytes", "quality"]
_GROUPS_HELD = 32  # row groups of metadata, 65,536 rows each


@dataclass(frozen=True)
class Membership:
    """The group of copies of a sample, and whether the manifest keeps the sample."""

    component_id: int
    duplication_count: int
    is_kept: bool


class SampleTable:
    """Metadata and groups of single samples of a finished run; safe to share between threads.

    Metadata is read by row group, of which some are cached. Groups take some 40 bytes for each sample that has a copy.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._held: LRUCache[tuple[int, int], pa.Table] = LRUCache(_GROUPS_HELD)
        self._starts: dict[int, npt.NDArray[np.int64]] = {}
        self._lock = Lock()

    def row(self, sample_id: int) -> dict[str, Any]:
        """The row of `metadata` of a sample, without carried columns.

        Raises RunDirectoryError if there is no such sample, or the partition's file is missing.
        """
        partition, place = sample_id >> 32, sample_id & ROW_MASK
        url = join(self._run.table("metadata").path, f"metadata_{partition:05d}.parquet")
        with self._lock:
            if partition not in self._starts:
                self._starts[partition] = self._row_groups(url)
            starts = self._starts[partition]
            number = int(np.searchsorted(starts, place, side="right")) - 1
            if not 0 <= number < len(starts) - 1:
                raise RunDirectoryError(f"{url} has {starts[-1]:,} rows, expected sample {sample_id} in row {place:,}; run embed again")
            table = self._held.get((partition, number))
            if table is None:
                fs, path = filesystem(url)
                with fs.open(path, "rb") as file:
                    table = pq.ParquetFile(file).read_row_group(number, columns=_COLUMNS)
                self._held[partition, number] = table
        row: dict[str, Any] = table.slice(place - int(starts[number]), 1).to_pylist()[0]
        if row["sample_id"] != sample_id:
            raise RunDirectoryError(f"{url} holds sample {row['sample_id']} in the place of {sample_id}; run embed again")
        return row

    def membership(self, sample_id: int) -> Membership:
        """The group of a sample."""
        component = _value_at(*self._groups, sample_id, default=sample_id)
        count = _value_at(*self._counts, component, default=1)
        place = int(np.searchsorted(self._dropped, sample_id))
        is_dropped = place < len(self._dropped) and self._dropped[place] == sample_id
        return Membership(component, count, not is_dropped)

    @staticmethod
    def _row_groups(url: str) -> npt.NDArray[np.int64]:
        fs, path = filesystem(url)
        try:
            with fs.open(path, "rb") as file:
                metadata = pq.ParquetFile(file).metadata
        except FileNotFoundError as error:
            raise RunDirectoryError(f"{url} is missing; run embed again, or query the run where it lies whole") from error
        return np.cumsum([0, *(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))]).astype(np.int64)

    @cached_property
    def _groups(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._sorted("groups", "sample_id", "component_id")

    @cached_property
    def _counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self._sorted("statistics", "component_id", "duplication_count")

    @cached_property
    def _dropped(self) -> npt.NDArray[np.int64]:
        dropped: npt.NDArray[np.int64] = np.sort(read_table(self._run.table("duplicates"), ["sample_id"])["sample_id"].to_numpy())
        return dropped

    def _sorted(self, name: str, key: str, value: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        table = read_table(self._run.table(name), [key, value])
        keys, values = table[key].to_numpy(), table[value].to_numpy()
        order = np.argsort(keys, kind="stable")
        return keys[order], values[order]


def _value_at(keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64], key: int, *, default: int) -> int:
    place = int(np.searchsorted(keys, key))
    return int(values[place]) if place < len(keys) and keys[place] == key else default


def read_samples(run: Run, sample_ids: Iterable[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Rows of `metadata` by sample_id, with at least these columns; unknown ids are left out.

    Opens only the files of the partitions needed.
    """
    by_partition: dict[int, list[int]] = {}
    for sample_id in set(sample_ids):
        by_partition.setdefault(sample_id >> 32, []).append(sample_id)
    columns = list(dict.fromkeys(["sample_id", *columns]))
    samples: dict[int, dict[str, Any]] = {}
    for partition, ids in sorted(by_partition.items()):
        table = replace(run.table("metadata"), pattern=f"metadata_{partition:05d}.parquet")
        try:
            rows = dataset(table).to_table(columns=columns, filter=pc.field("sample_id").isin(ids))
        except RunDirectoryError:  # no such partition
            continue
        samples |= {row["sample_id"]: row for row in rows.to_pylist()}
    return samples
