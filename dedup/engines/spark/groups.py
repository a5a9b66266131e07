"""The workers' side of `map_groups` on Spark: rows are sent to their groups as bytes, and arrive sorted by group."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, GroupSource, Pack

SENT = pa.schema([("pack", pa.int32()), ("grp", pa.int32()), ("place", pa.int64()), ("content", pa.binary())])


@dataclass(frozen=True)
class Limits:
    """Limits on what is held in memory."""

    batch_bytes: int = 8 << 20  # of records that are sent together
    record_bytes: int = 1 << 20  # of one group's rows in one record
    held_bytes: int = 256 << 20  # of a group's rows in memory; more go through a file


LIMITS = Limits()


def row_type(source: GroupSource, columns: np.dtype[np.void] | None) -> np.dtype[np.void]:
    """A row as sent: its position, its groups, and its columns unless workers gather those from files."""
    fields: list[Any] = [("_position", np.int64), ("_groups", np.int32, (source.n_groups_each,))]
    return np.dtype(fields if columns is None else [*fields, ("_columns", columns)])


@dataclass(frozen=True)
class Routes:
    """The packs that each group's rows go to."""

    offsets: npt.NDArray[np.int64]  # shape (n_groups + 1,)
    packs: npt.NDArray[np.int32]  # shape (n,); numbers of the packs, group by group

    @classmethod
    def of(cls, packs: Sequence[Pack]) -> Routes:
        """The routes to all packs; a group may be in several."""
        groups = np.concatenate([np.zeros(0, np.int64), *(pack.groups for pack in packs)])
        numbers = np.repeat(np.array([pack.number for pack in packs], dtype=np.int32), [len(pack.groups) for pack in packs])
        counts = np.bincount(groups)
        return cls(np.concatenate([[0], np.cumsum(counts)]), numbers[np.argsort(groups, kind="stable")])

    def counts(self, groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Number of packs of each group; 0 for a group in none."""
        is_routed = groups < len(self.offsets) - 1
        routed = np.where(is_routed, groups, 0)
        return np.where(is_routed, self.offsets[routed + is_routed] - self.offsets[routed], 0)


def send(source: GroupSource, routes: Routes, block: int, *, has_columns: bool, limits: Limits = LIMITS) -> Iterator[pa.RecordBatch]:
    """The rows of a block, once for each pack of each of their groups; the rows of one group form a record."""
    groups = source.groups(block)
    columns = source.rows(block) if has_columns else None
    rows = np.empty(len(groups), dtype=row_type(source, None if columns is None else columns.dtype))
    rows["_position"] = int(source.block_sizes[:block].sum()) + np.arange(len(groups))
    rows["_groups"] = groups
    if columns is not None:
        rows["_columns"] = columns
    n_packs = routes.counts(groups)
    for copy in range(int(n_packs.max(initial=0))):
        place, column = np.nonzero(n_packs > copy)
        group = groups[place, column]
        order = np.argsort(group, kind="stable")
        yield from _records(rows, group[order], place[order], routes.packs[routes.offsets[group[order]] + copy], limits)


def _records(
    rows: npt.NDArray[np.void],
    group: npt.NDArray[np.int32],
    place: npt.NDArray[np.int64],
    pack: npt.NDArray[np.int32],
    limits: Limits,
) -> Iterator[pa.RecordBatch]:
    """The rows at some places, sorted by group, as records that end with the group or at the limit of their size."""
    size = rows.dtype.itemsize
    max_rows = max(1, limits.record_bytes // size)
    starts = np.flatnonzero(np.append(True, np.diff(group) != 0))
    starts = np.concatenate(
        [np.arange(start, stop, max_rows) for start, stop in zip(starts, np.append(starts[1:], len(group)), strict=True)]
    )
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + max(1, limits.batch_bytes // size))))
        bounds = np.append(starts[first:last], starts[last] if last < len(starts) else len(group))
        content = np.take(rows, place[bounds[0] : bounds[-1]])
        offsets = pa.py_buffer(((bounds - bounds[0]) * size).astype(np.int32))
        binary = pa.Array.from_buffers(pa.binary(), last - first, [None, offsets, pa.py_buffer(content.view(np.uint8))])
        heads = bounds[:-1]
        arrays = [pa.array(pack[heads]), pa.array(group[heads]), pa.array(rows["_position"][place[heads]]), binary]
        yield pa.RecordBatch.from_arrays(arrays, schema=SENT)
        first = last


def received(
    batches: Iterator[pa.RecordBatch], source: GroupSource, dtype: np.dtype[np.void], limits: Limits = LIMITS
) -> Iterator[tuple[int, GroupRows]]:
    """The groups of a pack, from its records sorted by (group, position)."""
    current, held = -1, _Held(source, dtype, limits)
    for batch in batches:
        if not batch.num_rows:
            continue
        keys, content = batch["grp"].to_numpy(), batch["content"]
        offsets = np.frombuffer(content.buffers()[1], np.int32)[content.offset : content.offset + len(content) + 1]
        data = np.frombuffer(content.buffers()[2], np.uint8)
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(keys)) + 1, [len(keys)]])
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if int(keys[start]) != current:
                if len(held):
                    yield current, held.rows()
                current, held = int(keys[start]), _Held(source, dtype, limits)
            held.add(data[offsets[start] : offsets[stop]].view(dtype))
    if len(held):
        yield current, held.rows()


class _Held:
    """The rows of a group as they arrive: in memory, and beyond a limit in a file that is mapped at the end."""

    def __init__(self, source: GroupSource, dtype: np.dtype[np.void], limits: Limits) -> None:
        self._source, self._dtype, self._limits, self._n, self._n_bytes = source, dtype, limits, 0, 0
        self._parts: list[npt.NDArray[np.void]] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._n

    def add(self, rows: npt.NDArray[np.void]) -> None:
        self._n += len(rows)
        self._n_bytes += rows.nbytes
        self._parts.append(rows.copy())  # the batch's memory is Arrow's
        if self._n_bytes > self._limits.held_bytes:
            self._file = self._file or tempfile.TemporaryFile(prefix="dedup-group-")  # noqa: SIM115 (closed in rows)
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts.clear()

    def rows(self) -> GroupRows:
        if self._file is None:
            return self._group(np.concatenate(self._parts))
        for part in self._parts:
            self._file.write(part.tobytes())
        self._file.flush()
        rows = np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._n,))
        self._file.close()  # it has no name: only the map keeps it
        return self._group(rows)

    def _group(self, rows: npt.NDArray[np.void]) -> GroupRows:
        columns = rows["_columns"] if "_columns" in (rows.dtype.names or ()) else None
        return GroupRows(self._source, np.ascontiguousarray(rows["_position"]), np.ascontiguousarray(rows["_groups"]), columns)
