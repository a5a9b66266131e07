"""Thin out templates and scenes, for those who ask for it: at most so many groups of each are kept."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dedup.contracts import Table
from dedup.numerics.arraytypes import Ids
from dedup.numerics.similarity import exact_similarity
from dedup.stages.groups.related import RELATED
from dedup.stages.manifest.keep import EDITS_SQL
from dedup.stages.stage import StageContext
from dedup.storage.tables import ask

# what is kept so far of each template, the first of the keep policy first; samples of several images go or stay as a whole
KEPT_SQL: Final = """
SELECT related.{relation}_id AS label, related.component_id AS component_id, related.sample_id AS sample_id
FROM {members} AS related
JOIN metadata ON related.sample_id = metadata.sample_id
LEFT JOIN keepers ON related.sample_id = keepers.sample_id
LEFT JOIN exclusions ON related.sample_id = exclusions.sample_id
{edits}
WHERE exclusions.sample_id IS NULL AND metadata.n_images = 1
      AND (keepers.sample_id IS NULL OR keepers.keeper_id = keepers.sample_id)
ORDER BY related.{relation}_id, {policy}, metadata.sample_id
"""

# the samples of groups that go, with the first sample that is kept of their template
GOING_SQL: Final = """
SELECT related.sample_id AS sample_id, going.keeper_id AS keeper_id
FROM {members} AS related
JOIN going ON related.component_id = going.component_id
LEFT JOIN exclusions ON related.sample_id = exclusions.sample_id
WHERE exclusions.sample_id IS NULL
ORDER BY related.sample_id
"""

_KEPT = pa.schema([(name, pa.int64()) for name in ("label", "component_id", "sample_id")])
_GOING = pa.schema([(name, pa.int64()) for name in ("sample_id", "keeper_id")])
_BLOCK = 4_096  # pairs of vectors at a time


def thinned(context: StageContext, keepers: pa.Table, policy: str) -> pa.Table:
    """The keepers after `keep.templates` and `keep.scenes`.

    `keepers`: see `dedup.stages.manifest.keep.keepers`.
    `policy`: the ORDER BY terms of the keep policy.
    Returns the same columns and `relation`: template or scene where that is why a sample goes, otherwise null.
    """
    keepers = keepers.append_column("relation", pa.nulls(len(keepers), pa.string()))
    for relation, most in (("template", context.config.keep.templates), ("scene", context.config.keep.scenes)):
        if most:
            keepers = _without(keepers, _going(context, keepers, relation, most, policy), relation)
    return _with_similarity(context, keepers) if keepers["relation"].null_count < len(keepers) else keepers


def _going(context: StageContext, keepers: pa.Table, relation: str, most: int, policy: str) -> pa.Table:
    """The samples that go, each with its keeper."""
    members, run = RELATED[relation][0], context.run
    tables: dict[str, Table | pa.Table] = {name: run.table(name) for name in (members, "metadata", "exclusions", "exact", "edits")}
    kept = ask(
        context.engine,
        KEPT_SQL.format(relation=relation, members=members, policy=policy, edits=EDITS_SQL),
        tables | {"keepers": keepers},
        _KEPT,
    )
    label, component, sample = (kept[name].to_numpy() for name in _KEPT.names)
    goes, first = beyond(label, component, most)
    component, first_of = np.unique(component[goes], return_index=True)
    going = pa.table({"component_id": component, "keeper_id": sample[first[goes]][first_of]})
    tables = {name: run.table(name) for name in (members, "exclusions")} | {"going": going}
    return ask(context.engine, GOING_SQL.format(members=members), tables, _GOING)


def beyond(label: Ids, component: Ids, most: int) -> tuple[Ids, Ids]:
    """Which rows lie beyond the first components of each label.

    `label`, `component`: shape (n,); label after label, each in the order of preference.
    `most`: components kept of each label.
    Returns the rows that go, ascending, and for every row the first one of its label.

    >>> beyond(np.array([1, 1, 1, 1, 5]), np.array([7, 8, 7, 9, 5]), 2)[0]
    array([3])
    """
    starts = np.flatnonzero(np.diff(label, prepend=label[:1] - 1))
    first = np.repeat(starts, np.diff(np.append(starts, len(label))))
    goes, kept = list[int](), set[int]()
    for row, (start, group) in enumerate(zip(first.tolist(), component.tolist(), strict=True)):
        if row == start:
            kept.clear()
        if group not in kept and len(kept) >= most:
            goes.append(row)
        else:
            kept.add(group)
    return np.array(goes, dtype=np.int64), first


def _without(keepers: pa.Table, going: pa.Table, relation: str) -> pa.Table:
    """The keepers with some samples gone for another reason."""
    gone, n = going["sample_id"].to_numpy(), len(going)
    stays = keepers.filter(pa.array(~np.isin(keepers["sample_id"].to_numpy(), gone)))
    # what went before in favour of one that goes now
    keeper_of = dict(zip(gone.tolist(), going["keeper_id"].to_pylist(), strict=True))
    moved = pa.array([keeper_of.get(keeper, keeper) for keeper in stays["keeper_id"].to_pylist()], pa.int64())
    stays = stays.set_column(stays.column_names.index("keeper_id"), "keeper_id", moved)
    columns = {name: going[name] for name in _GOING.names}
    columns |= {"similarity_to_keeper": pa.repeat(pa.scalar(0.0, pa.float32()), n), "distance_to_keeper": pa.nulls(n, pa.float32())}
    columns["relation"] = pa.repeat(relation, n)
    return pa.concat_tables([stays, pa.table(columns).select(stays.column_names).cast(stays.schema)])


def _with_similarity(context: StageContext, keepers: pa.Table) -> pa.Table:
    """The keepers with the cosine of those that go as one of a template or scene and what is kept of it."""
    similarity, rows = keepers["similarity_to_keeper"].to_numpy().copy(), np.flatnonzero(keepers["relation"].is_valid().to_numpy())
    store, ends = context.run.vectors(), [keepers[name].to_numpy()[rows] for name in _GOING.names]
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        similarity[rows[part]] = exact_similarity(*(store.take(end[part]) for end in ends))
    return keepers.set_column(keepers.column_names.index("similarity_to_keeper"), "similarity_to_keeper", pa.array(similarity))
