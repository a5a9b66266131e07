"""The queries of a report: SQL that all engines share, with the columns of each answer.

Texts are cut in the query, since a caption may have megabytes; `n_characters` is the whole length. Only numbers of ours go into braces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa

from dedup.contracts import Engine, Table
from dedup.runs.directory import Run
from dedup.schemas.pairs import NEAR_SQL, STANDING_SQL
from dedup.text import CAPTION_CHARACTERS, URL_CHARACTERS

Row = dict[str, Any]


@dataclass(frozen=True)
class TableReader:
    """Reads rows of a run's tables; answers are small, since every query has a limit."""

    engine: Engine
    run: Run

    def rows(self, query: Query, *, chosen: Iterable[int] = (), wanted: Iterable[int] = (), **numbers: float) -> list[Row]:
        """The answer to a query.

        `chosen`: component_ids of the table `chosen`.
        `wanted`: sample_ids of the table `wanted`.
        `numbers`: values of the braces in the query.
        """
        tables: dict[str, Table | pa.Table] = {name: self.run.table(name) for name in query.tables}
        if " chosen" in query.sql:
            tables["chosen"] = pa.table({"component_id": sorted(set(chosen))}, schema=CHOSEN)
        if " wanted" in query.sql:
            tables["wanted"] = pa.table({"sample_id": sorted(set(wanted))}, schema=WANTED)
        if any(isinstance(table, pa.Table) and not table.num_rows for table in tables.values()):
            return []
        batches = self.engine.sql(query.sql.format(**numbers), tables, query.schema)
        return [row for batch in batches for row in batch.to_pylist()]


DETAIL_CHARACTERS: Final = 300
_CUT: Final = f"substr({{column}}, 1, {CAPTION_CHARACTERS})"


class Query(NamedTuple):
    """A query, the tables of the run that it reads, and the columns of its answer."""

    sql: str
    tables: tuple[str, ...]
    schema: pa.Schema


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns])


_INT, _REAL, _TEXT = pa.int64(), pa.float64(), pa.string()
CHOSEN: Final = _schema(("component_id", _INT))
WANTED: Final = _schema(("sample_id", _INT))

FACTS: Final = Query(
    f"""
SELECT metadata.sample_id AS sample_id, metadata.shard AS shard, metadata.key AS key,
       substr(metadata.url, 1, {URL_CHARACTERS + 1}) AS url, substr(metadata.caption, 1, {CAPTION_CHARACTERS}) AS caption,
       length(metadata.caption) AS n_characters, metadata.width AS width, metadata.height AS height, metadata.n_bytes AS n_bytes,
       metadata.byte_offset AS byte_offset
FROM metadata JOIN wanted ON metadata.sample_id = wanted.sample_id
ORDER BY metadata.sample_id
""",
    ("metadata",),
    _schema(
        ("sample_id", _INT), ("shard", _TEXT), ("key", _TEXT), ("url", _TEXT), ("caption", _TEXT), ("n_characters", _INT),
        ("width", _INT), ("height", _INT), ("n_bytes", _INT), ("byte_offset", _INT),
    ),
)  # fmt: skip

_GROUP_COLUMNS: Final = f"""
SELECT component_id, duplication_count, n_exact, n_urls, n_captions, substr(caption, 1, {CAPTION_CHARACTERS}) AS caption,
       length(caption) AS n_characters, caption_share, CAST(min_similarity AS DOUBLE) AS min_similarity,
       CAST(mean_similarity AS DOUBLE) AS mean_similarity
FROM statistics
"""

_GROUP_SCHEMA: Final = _schema(
    ("component_id", _INT), ("duplication_count", _INT), ("n_exact", _INT), ("n_urls", _INT), ("n_captions", _INT), ("caption", _TEXT),
    ("n_characters", _INT), ("caption_share", _REAL), ("min_similarity", _REAL), ("mean_similarity", _REAL),
)  # fmt: skip

LARGEST: Final = Query(
    f"{_GROUP_COLUMNS}ORDER BY duplication_count DESC NULLS LAST, component_id ASC NULLS LAST LIMIT {{n}}", ("statistics",), _GROUP_SCHEMA
)

LOOSEST: Final = Query(
    f"{_GROUP_COLUMNS}WHERE min_similarity < CAST({{threshold}} AS FLOAT) "
    "ORDER BY min_similarity ASC NULLS LAST, component_id ASC NULLS LAST LIMIT {n}",
    ("statistics",),
    _GROUP_SCHEMA,
)

# pseudo-random numbers, the same on every engine: nothing overflows, since the factors are below 2^31 and 2^17
RANDOM: Final = Query(
    f"""
SELECT component_id, duplication_count, n_exact, n_urls, n_captions, caption, n_characters, caption_share, min_similarity, mean_similarity
FROM (SELECT *, (drawn * (drawn % 40009) + {{shift}}) % 2147483647 AS place
      FROM (SELECT *, ((component_id % 2147483647) * 48271 + {{shift}}) % 2147483647 AS drawn
            FROM ({_GROUP_COLUMNS}) AS every) AS once) AS twice
ORDER BY place ASC NULLS LAST, component_id ASC NULLS LAST LIMIT {{n}}
""",
    ("statistics",),
    _GROUP_SCHEMA,
)

NAMED: Final = Query(f"{_GROUP_COLUMNS}WHERE component_id IN (SELECT component_id FROM chosen)", ("statistics",), _GROUP_SCHEMA)


def _members_in(table: str) -> Query:
    """A query for the first samples of chosen groups that a table holds."""
    return Query(
        f"""
SELECT component_id, sample_id, n_all
FROM (SELECT {table}.component_id AS component_id, {table}.sample_id AS sample_id,
             count(*) OVER (PARTITION BY {table}.component_id) AS n_all,
             row_number() OVER (PARTITION BY {table}.component_id ORDER BY {table}.sample_id ASC NULLS LAST) AS place
      FROM {table} JOIN chosen ON {table}.component_id = chosen.component_id) AS ranked
WHERE place <= {{n}}
ORDER BY component_id, sample_id
""",
        (table,),
        _schema(("component_id", _INT), ("sample_id", _INT), ("n_all", _INT)),
    )


KEPT: Final = _members_in("manifest")
LEFT_OUT: Final = _members_in("excluded")

COPIES: Final = Query(
    """
SELECT component_id, sample_id, keeper_id, kind, CAST(similarity_to_keeper AS DOUBLE) AS similarity,
       CAST(distance_to_keeper AS DOUBLE) AS distance, n_all
FROM (SELECT duplicates.*, count(*) OVER (PARTITION BY duplicates.component_id) AS n_all,
             row_number() OVER (PARTITION BY duplicates.component_id, kind
                                ORDER BY similarity_to_keeper DESC NULLS LAST, duplicates.sample_id ASC NULLS LAST) AS from_top,
             row_number() OVER (PARTITION BY duplicates.component_id
                                ORDER BY similarity_to_keeper ASC NULLS LAST, duplicates.sample_id DESC NULLS LAST) AS from_bottom
      FROM (SELECT component_id, sample_id, keeper_id, kind, similarity_to_keeper, distance_to_keeper FROM duplicates) AS duplicates
      JOIN chosen ON duplicates.component_id = chosen.component_id) AS ranked
WHERE from_top <= {n} OR from_bottom <= {n}
ORDER BY component_id, similarity DESC NULLS LAST, sample_id
""",
    ("duplicates",),
    _schema(
        ("component_id", _INT), ("sample_id", _INT), ("keeper_id", _INT), ("kind", _TEXT), ("similarity", _REAL), ("distance", _REAL),
        ("n_all", _INT),
    ),
)  # fmt: skip

CHAINS: Final = Query(
    """
SELECT raw_component_id, count(*) AS n_samples, count(DISTINCT component_id) AS n_groups
FROM groups GROUP BY raw_component_id HAVING count(DISTINCT component_id) > 1
ORDER BY count(DISTINCT component_id) DESC NULLS LAST, count(*) DESC NULLS LAST, raw_component_id ASC NULLS LAST LIMIT {n}
""",
    ("groups",),
    _schema(("raw_component_id", _INT), ("n_samples", _INT), ("n_groups", _INT)),
)

PIECES: Final = Query(
    """
SELECT raw_component_id, component_id, anchor_id, n_samples, n_all
FROM (SELECT pieces.*, count(*) OVER (PARTITION BY raw_component_id) AS n_all,
             row_number() OVER (PARTITION BY raw_component_id ORDER BY n_samples DESC NULLS LAST, component_id ASC NULLS LAST) AS place
      FROM (SELECT groups.raw_component_id AS raw_component_id, groups.component_id AS component_id, min(groups.anchor_id) AS anchor_id,
                   count(*) AS n_samples
            FROM groups JOIN chosen ON groups.raw_component_id = chosen.component_id
            GROUP BY groups.raw_component_id, groups.component_id) AS pieces) AS ranked
WHERE place <= {n}
ORDER BY raw_component_id, place
""",
    ("groups",),
    _schema(("raw_component_id", _INT), ("component_id", _INT), ("anchor_id", _INT), ("n_samples", _INT), ("n_all", _INT)),
)

COMPONENTS: Final = Query(
    "SELECT groups.sample_id AS sample_id, groups.component_id AS component_id "
    "FROM groups JOIN wanted ON groups.sample_id = wanted.sample_id",
    ("groups",),
    _schema(("sample_id", _INT), ("component_id", _INT)),
)

_PAIR_COLUMNS: Final = "src, dst, CAST(similarity AS DOUBLE) AS similarity, source, variant, CAST(distance AS DOUBLE) AS distance"

_PAIR_SCHEMA: Final = [
    ("src", _INT), ("dst", _INT), ("similarity", _REAL), ("source", _TEXT), ("variant", _TEXT), ("distance", _REAL),
]  # fmt: skip

# standing edges found by whole pictures: their similarities are on one scale
_WHOLE: Final = f"{STANDING_SQL} AND source = 'whole'"

WEAKEST: Final = Query(
    f"""
SELECT component_id, src, dst, CAST(similarity AS DOUBLE) AS similarity, CAST(distance AS DOUBLE) AS distance
FROM (SELECT one.component_id AS component_id, src, dst, similarity, distance,
             row_number() OVER (PARTITION BY one.component_id
                                ORDER BY similarity ASC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST) AS place
      FROM edges JOIN groups AS one ON edges.src = one.sample_id JOIN groups AS other ON edges.dst = other.sample_id
      WHERE {_WHOLE} AND one.component_id = other.component_id) AS ranked
WHERE place = 1
ORDER BY similarity ASC NULLS LAST, component_id ASC NULLS LAST LIMIT {{n}}
""",
    ("edges", "groups"),
    _schema(("component_id", _INT), ("src", _INT), ("dst", _INT), ("similarity", _REAL), ("distance", _REAL)),
)

FARTHEST: Final = Query(
    f"SELECT {_PAIR_COLUMNS} FROM edges WHERE {NEAR_SQL} AND edges.distance IS NOT NULL "
    "ORDER BY edges.distance DESC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST LIMIT {n}",
    ("edges",),
    _schema(*_PAIR_SCHEMA),
)

NEARLY: Final = Query(
    f"SELECT {_PAIR_COLUMNS} FROM refused WHERE reason = 'different' AND refused.distance > CAST({{max_distance}} AS FLOAT) "
    "ORDER BY refused.distance ASC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST LIMIT {n}",
    ("refused",),
    _schema(*_PAIR_SCHEMA),
)

REFUSED: Final = Query(
    """
SELECT src, dst, CAST(similarity AS DOUBLE) AS similarity, source, variant, CAST(distance AS DOUBLE) AS distance, reason, stage, n_all
FROM (SELECT refused.*, count(*) OVER (PARTITION BY reason) AS n_all,
             row_number() OVER (PARTITION BY reason ORDER BY similarity DESC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST) AS place
      FROM (SELECT src, dst, similarity, source, variant, distance, reason, stage FROM refused) AS refused) AS ranked
WHERE place <= {n}
ORDER BY n_all DESC NULLS LAST, reason ASC NULLS LAST, place ASC NULLS LAST
""",
    ("refused",),
    _schema(*_PAIR_SCHEMA, ("reason", _TEXT), ("stage", _TEXT), ("n_all", _INT)),
)

# float32 values are a little less or more than the number meant: 0.7 must not fall into the bin below
_SIMILARITY_BIN: Final = "CAST(floor(CAST(similarity AS DOUBLE) * {similarity_bins} + 1e-4) AS BIGINT) AS bin"
_DISTANCE_BIN: Final = "CAST(floor(CAST(distance AS DOUBLE) * {distance_bins} + 1e-4) AS BIGINT) AS bin"

BINS: Final = Query(
    f"""
SELECT what, bin, count(*) AS n_pairs
FROM (SELECT 'joined' AS what, {_SIMILARITY_BIN} FROM edges WHERE {_WHOLE}
      UNION ALL SELECT 'refused' AS what, {_SIMILARITY_BIN} FROM refused WHERE source = 'whole'
      UNION ALL SELECT 'joined distance' AS what, {_DISTANCE_BIN} FROM edges WHERE {NEAR_SQL} AND edges.distance IS NOT NULL
      UNION ALL SELECT 'refused distance' AS what, {_DISTANCE_BIN} FROM refused WHERE refused.distance IS NOT NULL) AS binned
GROUP BY what, bin
ORDER BY what, bin
""",
    ("edges", "refused"),
    _schema(("what", _TEXT), ("bin", _INT), ("n_pairs", _INT)),
)

KINDS: Final = Query(
    "SELECT kind, source, variant, count(*) AS n_pairs FROM edges GROUP BY kind, source, variant "
    "ORDER BY count(*) DESC NULLS LAST, kind ASC NULLS LAST, source ASC NULLS LAST, variant ASC NULLS LAST",
    ("edges",),
    _schema(("kind", _TEXT), ("source", _TEXT), ("variant", _TEXT), ("n_pairs", _INT)),
)

CAPTIONS: Final = Query(
    f"""
SELECT top.place AS place, substr(top.caption, 1, {CAPTION_CHARACTERS}) AS caption, length(top.caption) AS n_characters,
       top.n_samples AS n_samples, COALESCE(copies.n_samples, CAST(0 AS BIGINT)) AS n_in_groups,
       COALESCE(copies.n_groups, CAST(0 AS BIGINT)) AS n_groups
FROM (SELECT caption, n_samples, row_number() OVER (ORDER BY n_samples DESC NULLS LAST, caption ASC NULLS LAST) AS place
      FROM (SELECT caption, count(*) AS n_samples FROM metadata WHERE caption IS NOT NULL GROUP BY caption HAVING count(*) > 1
            ORDER BY count(*) DESC NULLS LAST, caption ASC NULLS LAST LIMIT {{n}}) AS often) AS top
LEFT JOIN (SELECT caption, CAST(sum(n_samples) AS BIGINT) AS n_samples, count(*) AS n_groups FROM captions GROUP BY caption) AS copies
  ON top.caption = copies.caption
ORDER BY place
""",
    ("metadata", "captions"),
    _schema(
        ("place", _INT), ("caption", _TEXT), ("n_characters", _INT), ("n_samples", _INT), ("n_in_groups", _INT), ("n_groups", _INT),
    ),
)  # fmt: skip

REJECTED: Final = Query(
    f"""
SELECT shard, key, reason, detail, n_all
FROM (SELECT shard, key, reason, substr(detail, 1, {DETAIL_CHARACTERS}) AS detail, count(*) OVER (PARTITION BY reason) AS n_all,
             row_number() OVER (PARTITION BY reason ORDER BY shard ASC NULLS LAST, key ASC NULLS LAST, detail ASC NULLS LAST) AS place
      FROM rejected) AS ranked
WHERE place <= {{n}}
ORDER BY n_all DESC NULLS LAST, reason ASC NULLS LAST, place ASC NULLS LAST
""",
    ("rejected",),
    _schema(("shard", _TEXT), ("key", _TEXT), ("reason", _TEXT), ("detail", _TEXT), ("n_all", _INT)),
)

EXCLUDED: Final = Query(
    """
SELECT sample_id, reason, excluded_by, reference_shard, CAST(similarity_to_reference AS DOUBLE) AS similarity,
       CAST(distance_to_reference AS DOUBLE) AS distance, n_all
FROM (SELECT excluded.*, count(*) OVER (PARTITION BY reason) AS n_all,
             row_number() OVER (PARTITION BY reason ORDER BY similarity_to_reference DESC NULLS LAST, sample_id ASC NULLS LAST) AS place
      FROM (SELECT sample_id, reason, excluded_by, reference_shard, similarity_to_reference, distance_to_reference
            FROM excluded) AS excluded) AS ranked
WHERE place <= {n}
ORDER BY n_all DESC NULLS LAST, reason ASC NULLS LAST, place ASC NULLS LAST
""",
    ("excluded",),
    _schema(
        ("sample_id", _INT), ("reason", _TEXT), ("excluded_by", _TEXT), ("reference_shard", _TEXT), ("similarity", _REAL),
        ("distance", _REAL), ("n_all", _INT),
    ),
)  # fmt: skip

SHARDS: Final = Query(
    """
SELECT shard, status, error, n_samples, n_rejected, n_all
FROM (SELECT shard, status, substr(error, 1, 300) AS error, n_samples, n_rejected, count(*) OVER (PARTITION BY status) AS n_all,
             row_number() OVER (PARTITION BY status ORDER BY shard ASC NULLS LAST) AS place
      FROM partitions WHERE status <> 'ok') AS ranked
WHERE place <= {n}
ORDER BY status, place
""",
    ("partitions",),
    _schema(("shard", _TEXT), ("status", _TEXT), ("error", _TEXT), ("n_samples", _INT), ("n_rejected", _INT), ("n_all", _INT)),
)
