"""Verdicts of the base of a run: a pair whose pixels were compared there is not compared again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import ConfirmConfig
from dedup.contracts import Engine, Table
from dedup.runs.directory import Run
from dedup.schemas import REFUSED
from dedup.schemas.pairs import CONFIRMED_SQL, NEAR_SQL

VERDICTS_VERSION = 3  # of what the judge says, and of the table that holds it
AGAIN, GROUP = "again", "group"  # questions besides those by the sources of candidates: by `reconnect`, and by groups and keepers

VERDICTS = pa.schema(
    [
        ("src", pa.int64()),
        ("dst", pa.int64()),
        ("question", pa.string()),  # who asked: the turns that were tried depend on it
        ("stands", pa.bool_()),
        ("variant", pa.string()),  # '' where it was not kept
        ("distance", pa.float32()),
        ("moved", pa.float32()),
        ("reason", pa.string()),
        ("transform", REFUSED.field("transform").type),
    ]
)

JUDGED_SQL = f"""
SELECT src, dst, CASE WHEN found_by IS NULL THEN 'again' ELSE source END AS question, TRUE AS stands, variant, distance,
       CAST(NULL AS FLOAT) AS moved, '' AS reason, transform
FROM base_edges WHERE {CONFIRMED_SQL}
UNION ALL
SELECT src, dst, CASE WHEN source = 'group' THEN 'group' WHEN found_by IS NULL THEN 'again' ELSE source END AS question, FALSE AS stands,
       variant, distance, moved, reason, transform
FROM base_refused WHERE reason <> 'unreadable'
"""  # noqa: S608 (a condition of our own)

JUDGED_TABLES = ("base_edges", "base_refused")  # that the query reads

# that a member stands with its anchor or keeper is told by their tables alone, unless an edge tells it
GROUPED_SQL = f"""
SELECT pairs.src AS src, pairs.dst AS dst, min(pairs.distance) AS distance
FROM (
    SELECT CASE WHEN a < b THEN a ELSE b END AS src, CASE WHEN a < b THEN b ELSE a END AS dst, distance
    FROM (
        SELECT base_groups.anchor_id AS a, base_groups.sample_id AS b, base_groups.distance_to_anchor AS distance
        FROM base_groups LEFT JOIN base_exact ON base_groups.sample_id = base_exact.sample_id
        WHERE base_exact.sample_id IS NULL
        UNION ALL
        SELECT COALESCE(of_keeper.representative_id, base_duplicates.keeper_id) AS a,
               COALESCE(of_sample.representative_id, base_duplicates.sample_id) AS b, base_duplicates.distance_to_keeper AS distance
        FROM base_duplicates
        LEFT JOIN base_exact AS of_keeper ON base_duplicates.keeper_id = of_keeper.sample_id
        LEFT JOIN base_exact AS of_sample ON base_duplicates.sample_id = of_sample.sample_id
    ) AS ends
    WHERE a <> b AND distance IS NOT NULL
) AS pairs
LEFT JOIN (SELECT src, dst FROM base_edges WHERE {NEAR_SQL}) AS known ON pairs.src = known.src AND pairs.dst = known.dst
WHERE known.src IS NULL
GROUP BY pairs.src, pairs.dst
"""  # noqa: S608 (a condition of our own)

INSIDE_SQL = """
SELECT judged.src AS src, judged.dst AS dst, judged.question AS question, judged.stands AS stands, judged.variant AS variant,
       judged.distance AS distance, judged.moved AS moved, judged.reason AS reason, judged.transform AS transform
FROM ({judged}) AS judged
JOIN wanted AS a ON judged.src = a.sample_id
JOIN wanted AS b ON judged.dst = b.sample_id
ORDER BY judged.src, judged.dst
"""

GROUPED_INSIDE_SQL = """
SELECT grouped.src AS src, grouped.dst AS dst, grouped.distance AS distance
FROM ({grouped}) AS grouped
JOIN wanted AS a ON grouped.src = a.sample_id
JOIN wanted AS b ON grouped.dst = b.sample_id
ORDER BY grouped.src, grouped.dst
"""

_TABLES = ("edges", "refused", "groups", "exact", "duplicates")
_GROUPED = pa.schema([("src", pa.int64()), ("dst", pa.int64()), ("distance", pa.float32())])


def base_tables(base: Run | None, confirm: ConfirmConfig) -> dict[str, Table]:
    """Tables of the base that hold verdicts, by the names queries know them by; none where these can't be used.

    They can where pictures were compared then as they are now: by the same code, up to the same distance.
    """
    if base is None:
        return {}
    record = base.record("confirm")
    then = {} if record is None else record.config
    asked = {"confirm.enabled": confirm.enabled, "confirm.max_distance": confirm.max_distance}
    is_same = record is not None and record.output_version == VERDICTS_VERSION and all(then.get(key) == asked[key] for key in asked)
    return {f"base_{name}": base.table(name) for name in _TABLES} if is_same else {}


def find_verdicts(engine: Engine, base: Mapping[str, Table], sample_ids: npt.NDArray[np.int64], *, of_groups: bool = False) -> pa.Table:
    """What the base says of pairs of some samples, as `VERDICTS`, ordered by (src, dst).

    `base`: as `base_tables` gives it.
    `sample_ids`: shape (n,); both ends are among them.
    `of_groups`: with what its groups and keepers say.
    """
    if not base or not len(sample_ids):
        return VERDICTS.empty_table()
    wanted = {"wanted": pa.table({"sample_id": sample_ids})}
    judged = {name: base[name] for name in JUDGED_TABLES}
    found = list(engine.sql(INSIDE_SQL.format(judged=JUDGED_SQL), judged | wanted, VERDICTS))
    if of_groups:
        grouped = {name: table for name, table in base.items() if name != "base_refused"}
        found += map(_of_groups, engine.sql(GROUPED_INSIDE_SQL.format(grouped=GROUPED_SQL), grouped | wanted, _GROUPED))
    together = pa.concat_tables(found) if found else VERDICTS.empty_table()
    return together.sort_by([("src", "ascending"), ("dst", "ascending")])


def _of_groups(pairs: pa.Table) -> pa.Table:
    """Pairs of members with their anchor or keeper, as `VERDICTS`."""
    n = len(pairs)
    columns = {
        "question": pa.repeat(GROUP, n),
        "stands": pa.repeat(True, n),
        "variant": pa.repeat("", n),
        "moved": pa.nulls(n, pa.float32()),
        "reason": pa.repeat("", n),
        "transform": pa.nulls(n, VERDICTS.field("transform").type),
    }
    given = {name: pairs[name] for name in _GROUPED.names} | columns
    return pa.table({name: given[name] for name in VERDICTS.names}, schema=VERDICTS)


def inside(verdicts: pa.Table, sample_ids: npt.NDArray[np.int64]) -> pa.Table:
    """Those of the verdicts whose both ends are among some samples, which ascend."""
    if not len(verdicts) or not len(sample_ids):
        return verdicts.slice(0, 0)
    src, dst = (verdicts[end].to_numpy() for end in ("src", "dst"))
    near = slice(*np.searchsorted(src, [sample_ids[0], sample_ids[-1] + 1]).tolist())
    both = np.isin(src[near], sample_ids) & np.isin(dst[near], sample_ids)
    return verdicts.slice(near.start, near.stop - near.start).filter(pa.array(both))


class Remembered:
    """Verdicts by pair and question.

    Parameters
    ----------
    verdicts : pyarrow.Table
        Of `VERDICTS`.
    """

    def __init__(self, verdicts: pa.Table) -> None:
        self._known: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for row in verdicts.to_pylist():
            self._known.setdefault((row["src"], row["dst"]), []).append(row)

    def find(self, src: int, dst: int, turns: Sequence[str], question: str) -> dict[str, Any] | None:
        """The verdict that asking again would give, or None if that is not known.

        The same question was asked with the same turns. Another question has the same answer where the first turn to be tried stood.
        """
        for row in self._known.get((src, dst), ()):
            same = row["question"] == question and (row["variant"] in turns or row["question"] == GROUP)
            if same or (row["stands"] and row["variant"] == turns[0]):
                return row
        return None
