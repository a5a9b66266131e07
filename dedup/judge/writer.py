"""Where judged pairs go: `edges` if they stand, else `refused`."""

from __future__ import annotations

from types import TracebackType

import pyarrow as pa

from dedup.contracts import Table
from dedup.judge.pair import Outcome
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join

_ROWS_HELD = 5_000


class VerdictWriter:
    """Writes pairs that stand to `edges` and the others to `refused`, one file each.

    Parameters
    ----------
    edges, refused : Table or None
        None: pairs that stand are not written.
    name : str
        Of the files, without the suffix.
    stage : str
        Who asked.
    """

    def __init__(self, edges: Table | None, refused: Table, name: str, stage: str) -> None:
        self._edges = FileWriter(join(edges.path, f"{name}.parquet"), edges.schema) if edges else None
        self._refused = FileWriter(join(refused.path, f"{name}.parquet"), refused.schema)
        self._stage = stage
        self._standing: list[dict[str, object]] = []
        self._others: list[dict[str, object]] = []
        self.reasons: dict[str, int] = {}
        self.n_standing = self.n_unread = 0

    def add(self, src: int, dst: int, similarity: float, outcome: Outcome, source: str, found_by: str | None = None) -> None:
        """Take one judged pair."""
        self.n_unread += not outcome.was_read
        row: dict[str, object] = {
            "src": src, "dst": dst, "similarity": similarity, "kind": "near", "source": source, "variant": outcome.turn,
            "found_by": found_by, "distance": outcome.distance, "transform": outcome.transform,
        }  # fmt: skip
        if outcome.stands:
            self.n_standing += 1
            self._standing.append(row | {"confirmed": True if outcome.was_read else None})
        else:
            self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
            self._others.append(row | {"reason": outcome.reason, "moved": outcome.moved, "stage": self._stage})
        if len(self._standing) + len(self._others) >= _ROWS_HELD:
            self._flush()

    def _flush(self) -> None:
        if self._edges is not None and self._standing:
            self._edges.write(pa.Table.from_pylist(self._standing, schema=self._edges.schema))
        if self._others:
            self._refused.write(pa.Table.from_pylist(self._others, schema=self._refused.schema))
        self._standing.clear()
        self._others.clear()

    def __enter__(self) -> VerdictWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        writers = [writer for writer in (self._edges, self._refused) if writer is not None]
        if kind is None:
            self._flush()
        for writer in writers:
            if kind is None:
                writer.close()
            else:
                writer.abort()
