"""Verdicts of a run's base: pairs whose pixels were compared there are not compared again."""

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
from dedup.storage.tables import ask

VERDICTS_VERSION = 10  # of the judge's verdicts and of the tables that hold them
AGAIN, GROUP = "again", "group"  # who asked, besides the sources of candidates: `reconnect`; groups and keepers

VERDICTS = pa.schema(
    [
        ("src", pa.int64()),
        ("dst", pa.int64()),
        ("question", pa.string()),  # who asked, which decides what turns were tried
        ("stands", pa.bool_()),
        ("variant", pa.string()),  # '' = not recorded
        ("distance", pa.float32()),
        ("moved", pa.float32()),
        ("reason", pa.string()),
        ("transform", REFUSED.field("transform").type),
        ("relation", pa.string()),
        ("inside", pa.string()),  # src or dst
        ("agreeing_share", pa.float32()),
        ("mask", pa.binary()),
        ("drawn", pa.float32()),
        ("traces", REFUSED.field("transform").type),
    ]
)
OUTCOME_COLUMNS = tuple(VERDICTS.names[4:])  # what `dedup.judge.pair.Outcome` holds besides whether it stands, in its order

JUDGED_SQL = f"""
SELECT src, dst, CASE WHEN found_by IS NULL THEN 'again' ELSE source END AS question, TRUE AS stands, variant, distance,
       CAST(NULL AS FLOAT) AS moved, '' AS reason, transform, relation, inside, agreeing_share, CAST(NULL AS BINARY) AS mask, drawn, traces
FROM base_edges WHERE {CONFIRMED_SQL}
UNION ALL
SELECT src, dst, CASE WHEN source = 'group' THEN 'group' WHEN found_by IS NULL THEN 'again' ELSE source END AS question, FALSE AS stands,
       variant, distance, moved, reason, transform, relation, inside, agreeing_share, mask, drawn,
       CASE WHEN src < 0 THEN transform END AS traces
FROM base_refused WHERE reason <> 'unreadable'
"""  # noqa: S608 (a condition of our own)

JUDGED_TABLES = ("base_edges", "base_refused")  # that the query reads

# pairs of a member with its anchor or keeper, which stand but need not be edges: only these tables hold their distances
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

# pairs of a query with both ends among the samples of `wanted`
INSIDE_SQL = """
SELECT {columns}
FROM ({pairs}) AS judged
JOIN wanted AS a ON judged.src = a.sample_id
JOIN wanted AS b ON judged.dst = b.sample_id
ORDER BY judged.src, judged.dst
"""

_TABLES = ("edges", "refused", "groups", "exact", "duplicates")
_GROUPED = pa.schema([("src", pa.int64()), ("dst", pa.int64()), ("distance", pa.float32())])


def base_tables(base: Run | None, confirm: ConfirmConfig) -> dict[str, Table]:
    """Tables of the base that hold verdicts, by their names in queries; empty unless made by the same code with the same settings."""
    record = None if base is None else base.record("confirm")
    if base is None or record is None or record.output_version != VERDICTS_VERSION:
        return {}
    settings = {"confirm.enabled": confirm.enabled, "confirm.max_distance": confirm.max_distance, "confirm.drop": confirm.drop}
    if any(record.config.get(key) != value for key, value in settings.items()):
        return {}
    return {f"base_{name}": base.table(name) for name in _TABLES}


def find_verdicts(engine: Engine, base: Mapping[str, Table], sample_ids: npt.NDArray[np.int64]) -> pa.Table:
    """The base's verdicts on pairs with both ends among some samples, those with anchors and keepers included, ordered by (src, dst).

    `base`: see `base_tables`.
    Returns a table of `VERDICTS`.
    """
    if not base or not len(sample_ids):
        return VERDICTS.empty_table()

    def inside_of(pairs: str, schema: pa.Schema, tables: Mapping[str, Table]) -> pa.Table:
        query = INSIDE_SQL.format(pairs=pairs, columns=", ".join(f"judged.{name} AS {name}" for name in schema.names))
        return ask(engine, query, {**tables, "wanted": pa.table({"sample_id": sample_ids})}, schema)

    verdicts = inside_of(JUDGED_SQL, VERDICTS, {name: base[name] for name in JUDGED_TABLES})
    grouped = inside_of(GROUPED_SQL, _GROUPED, {name: table for name, table in base.items() if name != "base_refused"})
    return pa.concat_tables([verdicts, _of_groups(grouped)]).sort_by([("src", "ascending"), ("dst", "ascending")])


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
        "relation": pa.repeat("copy", n),
        "inside": pa.nulls(n, pa.string()),
        "agreeing_share": pa.nulls(n, pa.float32()),
        "mask": pa.nulls(n, pa.binary()),
        "drawn": pa.nulls(n, pa.float32()),
        "traces": pa.nulls(n, VERDICTS.field("traces").type),
    }
    columns |= {name: pairs[name] for name in _GROUPED.names}
    return pa.table({name: columns[name] for name in VERDICTS.names}, schema=VERDICTS)


def inside(verdicts: pa.Table, sample_ids: npt.NDArray[np.int64]) -> pa.Table:
    """The verdicts with both ends among some samples, whose ids ascend."""
    if not len(verdicts) or not len(sample_ids):
        return verdicts.slice(0, 0)
    src, dst = (verdicts[end].to_numpy() for end in ("src", "dst"))
    start, stop = np.searchsorted(src, [sample_ids[0], sample_ids[-1] + 1]).tolist()
    is_inside = np.isin(src[start:stop], sample_ids) & np.isin(dst[start:stop], sample_ids)
    return verdicts.slice(start, stop - start).filter(pa.array(is_inside))


class Remembered:
    """Verdicts of a table of `VERDICTS`, by pair and question."""

    def __init__(self, verdicts: pa.Table) -> None:
        self._rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for row in verdicts.to_pylist():
            self._rows.setdefault((row["src"], row["dst"]), []).append(row)

    def find(self, src: int, dst: int, turns: Sequence[str], question: str) -> dict[str, Any] | None:
        """The verdict that judging again would give, or None if that is not known.

        The same question was asked with the same turns. Another question gets the same verdict if the first turn to try is the one that
        stood.
        """
        for row in self._rows.get((src, dst), ()):
            is_same = row["question"] == question and (row["variant"] in turns or row["question"] == GROUP)
            if is_same or (row["stands"] and row["variant"] == turns[0]):
                return row
        return None
