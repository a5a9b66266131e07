"""What `confirm` has to do, in files: components of candidates, several to a task.

Members, pairs and the base's verdicts come from three queries, each ordered by component, and go to the files of tasks as they come:
the driver holds the rows of one task at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.judge.pair import PLACES
from dedup.judge.verdicts import JUDGED_SQL, JUDGED_TABLES, VERDICTS, base_tables
from dedup.stages.components import components_of
from dedup.stages.stage import StageContext
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join

NEAR = pc.field("kind") == "near"
_COMPONENT = pa.field("component", pa.int64())
PAIRS = pa.schema(
    [_COMPONENT, ("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32()), ("variant", pa.string()), ("source", pa.string())]
)
JUDGED = pa.schema([_COMPONENT, *VERDICTS])
_LABELS = pa.schema([("sample_id", pa.int64()), _COMPONENT])

_PLACE = ", ".join(f"metadata.{name} AS {name}" for name in PLACES.names)
MEMBERS_SQL = f"""
SELECT labels.component AS component, {_PLACE},
       COALESCE(neighbors.n_neighbors, CAST(0 AS BIGINT)) AS n_neighbors, {{thresholds}}
FROM labels
JOIN metadata ON labels.sample_id = metadata.sample_id
LEFT JOIN neighbors ON labels.sample_id = neighbors.sample_id
{{spaces}}
ORDER BY labels.component, labels.sample_id
"""  # noqa: S608 (names of our own columns only)

PAIRS_SQL = """
SELECT labels.component AS component, candidates.src AS src, candidates.dst AS dst, candidates.similarity AS similarity,
       candidates.variant AS variant, candidates.source AS source
FROM candidates JOIN labels ON candidates.src = labels.sample_id
WHERE candidates.kind = 'near'
ORDER BY labels.component, candidates.src, candidates.dst
"""

_VERDICT = ", ".join(f"judged.{name} AS {name}" for name in VERDICTS.names)
JUDGED_INSIDE_SQL = f"""
SELECT a.component AS component, {_VERDICT}
FROM ({JUDGED_SQL}) AS judged
JOIN labels AS a ON judged.src = a.sample_id
JOIN labels AS b ON judged.dst = b.sample_id
WHERE a.component = b.component
ORDER BY a.component, judged.src, judged.dst
"""  # noqa: S608 (names of our own columns only)


def members_schema(n_spaces: int) -> pa.Schema:
    """Members of components; `min_similarity_K`: what each needs to a copy in space K."""
    thresholds = [pa.field(f"min_similarity_{k}", pa.float32()) for k in range(n_spaces)]
    return pa.schema([_COMPONENT, *PLACES, ("n_neighbors", pa.int64()), *thresholds])


@dataclass(frozen=True)
class Work:
    """Whole components: their members, the candidate pairs among these, and what the base has judged of them."""

    members: pa.Table  # of `members_schema`; by component, then sample_id
    pairs: pa.Table  # of `PAIRS`; by component, then src, dst
    judged: pa.Table  # of `JUDGED`

    @property
    def is_one_component(self) -> bool:
        """Whether all members belong together."""
        component = self.members["component"]
        return bool(len(component)) and component[0].as_py() == component[-1].as_py()

    def write(self, folder: str, number: int) -> None:
        """Write the files of a task."""
        for name, table in (("members", self.members), ("pairs", self.pairs), ("judged", self.judged)):
            with FileWriter(join(folder, work_file(name, number)), table.schema) as writer:
                writer.write(table)


def work_file(name: str, number: int) -> str:
    """Name of a file of a task."""
    return f"{name}-{number:05d}.parquet"


def label_candidates(context: StageContext) -> pa.Table:
    """Each end of a candidate pair, `sample_id`, with its `component`: the smallest sample_id that pairs lead to."""
    found = components_of(
        context.engine,
        context.run.table("candidates"),
        NEAR,
        max_driver_edges=context.config.groups.max_driver_edges,
        stage="confirm",
        note=context.reporter.note,
    )
    return pa.table({"sample_id": found.nodes, "component": found.component}, schema=_LABELS)


def work_of(context: StageContext, labels: pa.Table, size: int, largest: int) -> Iterator[Work]:
    """Components in order, some `size` members at a time; one of more than `largest` members comes alone."""
    members = _batches(context, labels)
    pairs = _Ascending(context.engine.sql(PAIRS_SQL, {"candidates": context.run.table("candidates"), "labels": labels}, PAIRS), PAIRS)
    base = base_tables(context.base, context.config.confirm)
    known = {name: base[name] for name in JUDGED_TABLES} if base else {}
    judged = _Ascending(context.engine.sql(JUDGED_INSIDE_SQL, {**known, "labels": labels}, JUDGED) if known else iter(()), JUDGED)
    for part in _cut(members, size, largest):
        last = part["component"][-1].as_py()
        yield Work(part, pairs.up_to(last), judged.up_to(last))


def _batches(context: StageContext, labels: pa.Table) -> Iterator[pa.Table]:
    """Members, ordered by component."""
    spaces = context.spaces
    query = MEMBERS_SQL.format(
        thresholds=", ".join(f"space_{k}.min_similarity AS min_similarity_{k}" for k in range(len(spaces))),
        spaces="\n".join(f"JOIN space_{k} ON labels.sample_id = space_{k}.sample_id" for k in range(len(spaces))),
    )
    tables = {"labels": labels} | {name: context.run.table(name) for name in ("metadata", "neighbors")}
    tables |= {f"space_{k}": space.run.table("representatives") for k, space in enumerate(spaces)}
    return context.engine.sql(query, tables, members_schema(len(spaces)))


def _cut(batches: Iterator[pa.Table], size: int, largest: int) -> Iterator[pa.Table]:
    """Rows cut between components, once there are `size` of them, and before and after a component of more than `largest` rows."""
    held: list[pa.Table] = []  # whole components
    n_held = 0
    for component in _components(batches):
        is_giant = len(component) > largest
        if held and (is_giant or n_held + len(component) > size):
            yield pa.concat_tables(held).combine_chunks()
            held, n_held = [], 0
        if is_giant:
            yield component.combine_chunks()
            continue
        held.append(component)
        n_held += len(component)
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _components(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Each component's rows."""
    begun: list[pa.Table] = []
    for batch in batches:
        if not len(batch):
            continue
        component = batch["component"].to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(component)) + 1).tolist(), len(component)]
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            if begun and begun[-1]["component"][-1].as_py() != component[start]:
                yield pa.concat_tables(begun)
                begun = []
            begun.append(batch.slice(start, stop - start))
    if begun:
        yield pa.concat_tables(begun)


class _Ascending:
    """Rows that come ordered by component, handed out up to a component at a time."""

    def __init__(self, batches: Iterator[pa.Table], schema: pa.Schema) -> None:
        self._batches, self._schema = batches, schema
        self._held: pa.Table | None = None

    def up_to(self, last: int) -> pa.Table:
        """The rows not handed out yet of components up to `last`."""
        taken = [self._schema.empty_table()]
        while (held := self._held if self._held is not None else next(self._batches, None)) is not None:
            n = int(np.searchsorted(held["component"].to_numpy(), last, side="right"))
            taken.append(held.slice(0, n))
            self._held = held.slice(n) if n < len(held) else None
            if self._held is not None:
                break
        return pa.concat_tables(taken).combine_chunks()
