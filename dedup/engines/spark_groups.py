"""What workers do for `map_groups` on Spark: rows are sent to their groups as bytes, and arrive sorted by group."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, GroupSource

SENT = "pack int, grp int, place long, content binary"
_SENT = pa.schema([("pack", pa.int32()), ("grp", pa.int32()), ("place", pa.int64()), ("content", pa.binary())])
_BATCH_BYTES = 8 << 20
_HELD_BYTES = 256 << 20  # of a group's rows in memory; more go through a file


def row_type(source: GroupSource, columns: np.dtype[np.void]) -> np.dtype[np.void]:
    """A row as it is sent: its columns, its position, all its groups."""
    return np.dtype([("_position", np.int64), ("_groups", np.int32, (source.n_groups_each,)), ("_columns", columns)])


def send(source: GroupSource, pack_of: npt.NDArray[np.int32], block: int) -> Iterator[pa.RecordBatch]:
    """The rows of a block, once for each of their groups that is in a pack."""
    rows, groups = source.rows(block), source.groups(block)
    sent = np.empty(len(rows), dtype=row_type(source, rows.dtype))
    sent["_position"] = int(source.block_sizes[:block].sum()) + np.arange(len(rows))
    sent["_groups"], sent["_columns"] = groups, rows
    wanted = (groups >= 0) & (groups < len(pack_of))
    place, column = np.nonzero(wanted & (pack_of[np.where(wanted, groups, 0)] >= 0))
    group = groups[place, column]
    size = sent.dtype.itemsize
    step = max(1, _BATCH_BYTES // size)
    for start in range(0, len(place), step):
        part = slice(start, start + step)
        n = len(place[part])
        content = np.take(sent, place[part])
        offsets = pa.py_buffer(np.arange(0, (n + 1) * size, size, dtype=np.int32))
        binary = pa.Array.from_buffers(pa.binary(), n, [None, offsets, pa.py_buffer(content.view(np.uint8))])
        columns = [pa.array(pack_of[group[part]]), pa.array(group[part]), pa.array(sent["_position"][place[part]]), binary]
        yield pa.RecordBatch.from_arrays(columns, schema=_SENT)


def received(batches: Iterator[pa.RecordBatch], dtype: np.dtype[np.void]) -> Iterator[tuple[int, GroupRows]]:
    """The groups of a pack, from its rows sorted by (group, position)."""
    current, held = -1, _Held(dtype)
    for batch in batches:
        if not batch.num_rows:
            continue
        keys = batch["grp"].to_numpy()
        content = batch["content"]
        offsets = np.frombuffer(content.buffers()[1], np.int32)
        first, last = int(offsets[content.offset]), int(offsets[content.offset + len(content)])
        rows = np.frombuffer(content.buffers()[2], np.uint8)[first:last].view(dtype)
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(keys)) + 1, [len(keys)]])
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if int(keys[start]) != current:
                if len(held):
                    yield current, held.rows()
                current, held = int(keys[start]), _Held(dtype)
            held.add(rows[start:stop])
    if len(held):
        yield current, held.rows()


class _Held:
    """The rows of a group while they come: in memory, and beyond some size in a file that is mapped in the end."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype, self._n, self._n_bytes = dtype, 0, 0
        self._parts: list[npt.NDArray[np.void]] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._n

    def add(self, rows: npt.NDArray[np.void]) -> None:
        self._n += len(rows)
        self._n_bytes += rows.nbytes
        self._parts.append(rows.copy())  # the batch's memory is Arrow's
        if self._n_bytes > _HELD_BYTES:
            self._file = self._file or tempfile.TemporaryFile(prefix="dedup-group-")  # noqa: SIM115 (closed in rows)
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts.clear()

    def rows(self) -> GroupRows:
        if self._file is None:
            return _Received(np.concatenate(self._parts))
        for part in self._parts:
            self._file.write(part.tobytes())
        self._file.flush()
        rows = np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._n,))
        self._file.close()  # nameless already: the map alone keeps it
        return _Received(rows)


class _Received:
    """Rows of a group that were sent here."""

    def __init__(self, rows: npt.NDArray[np.void]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        return np.ascontiguousarray(self._rows["_position"])

    @property
    def groups(self) -> npt.NDArray[np.int32]:
        return np.ascontiguousarray(self._rows["_groups"])

    def column(self, name: str) -> npt.NDArray[Any]:
        return np.ascontiguousarray(self._rows["_columns"][name])

    def take(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return np.asarray(self._rows["_columns"][name][rows])
