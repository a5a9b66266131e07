"""The queries of a report: SQL that all engines share, with the columns of each answer.

Texts are cut in the query, since a caption may have megabytes; `n_characters` is the whole length. Only numbers of ours go into braces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        """The answer to a query on its tables, `chosen` component_ids and `wanted` sample_ids, with numbers in its braces."""
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


class Query(NamedTuple):
    """A query, the tables of the run that it reads, and the columns of its answer."""

    sql: str
    tables: tuple[str, ...]
    schema: pa.Schema


_REALS: Final = {"quality", "similarity", "distance", "min_similarity", "mean_similarity", "caption_share", "agreeing_share"}
_TEXTS: Final = {
    "edit", "shard", "key", "url", "caption", "kind", "source", "variant", "reason", "stage", "detail", "status", "error", "what",
    "excluded_by", "reference_shard",
}  # fmt: skip


_LISTS: Final = {"edits": pa.string(), "transform": pa.float32()}


def _schema(*names: str) -> pa.Schema:
    """The columns of an answer: whole numbers, but for those above."""
    return pa.schema([(name, _type_of(name)) for name in names])


def _type_of(name: str) -> pa.DataType:
    if name in _LISTS:
        return pa.list_(_LISTS[name])
    return pa.float64() if name in _REALS else pa.string() if name in _TEXTS else pa.binary() if name == "mask" else pa.int64()


def _first_of_each(by: str, within: str, table: str, columns: Sequence[str], rows: str, *, order: str = "n_all DESC NULLS LAST, ") -> Query:
    """The first {n} rows for each value of a column, in the order `within`, and how many there are; the most frequent values first."""
    sql = f"""
SELECT {", ".join(columns)}, n_all
FROM (SELECT {table}.*, count(*) OVER (PARTITION BY {by}) AS n_all, row_number() OVER (PARTITION BY {by} ORDER BY {within}) AS place
      FROM ({rows}) AS {table}) AS ranked
WHERE place <= {{n}}
ORDER BY {order}{by} ASC NULLS LAST, place ASC NULLS LAST
"""
    return Query(sql, (table,), _schema(*columns, "n_all"))


CHOSEN: Final = _schema("component_id")
WANTED: Final = _schema("sample_id")

FACTS: Final = Query(
    f"""
SELECT metadata.sample_id AS sample_id, metadata.shard AS shard, metadata.key AS key,
       substr(metadata.url, 1, {URL_CHARACTERS + 1}) AS url, substr(metadata.caption, 1, {CAPTION_CHARACTERS}) AS caption,
       length(metadata.caption) AS n_characters, metadata.width AS width, metadata.height AS height, metadata.n_bytes AS n_bytes,
       metadata.byte_offset AS byte_offset, edits.edits AS edits
FROM metadata JOIN wanted ON metadata.sample_id = wanted.sample_id
LEFT JOIN exact ON metadata.sample_id = exact.sample_id
LEFT JOIN edits ON COALESCE(exact.representative_id, metadata.sample_id) = edits.sample_id
ORDER BY metadata.sample_id
""",
    ("metadata", "exact", "edits"),
    _schema("sample_id", "shard", "key", "url", "caption", "n_characters", "width", "height", "n_bytes", "byte_offset", "edits"),
)

_GROUP_COLUMNS: Final = f"""
SELECT component_id, duplication_count, n_exact, n_urls, n_captions, substr(caption, 1, {CAPTION_CHARACTERS}) AS caption,
       length(caption) AS n_characters, caption_share, CAST(min_similarity AS DOUBLE) AS min_similarity,
       CAST(mean_similarity AS DOUBLE) AS mean_similarity
FROM statistics
"""

_GROUP_SCHEMA: Final = _schema(
    "component_id",
    "duplication_count",
    "n_exact",
    "n_urls",
    "n_captions",
    "caption",
    "n_characters",
    "caption_share",
    "min_similarity",
    "mean_similarity",
)

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
    """The first samples of chosen groups that a table holds."""
    rows = f"SELECT {table}.component_id, {table}.sample_id FROM {table} JOIN chosen ON {table}.component_id = chosen.component_id"
    return _first_of_each("component_id", "sample_id ASC NULLS LAST", table, ("component_id", "sample_id"), rows, order="")


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
    _schema("component_id", "sample_id", "keeper_id", "kind", "similarity", "distance", "n_all"),
)

CHAINS: Final = Query(
    """
SELECT raw_component_id, count(*) AS n_samples, count(DISTINCT component_id) AS n_groups
FROM groups GROUP BY raw_component_id HAVING count(DISTINCT component_id) > 1
ORDER BY count(DISTINCT component_id) DESC NULLS LAST, count(*) DESC NULLS LAST, raw_component_id ASC NULLS LAST LIMIT {n}
""",
    ("groups",),
    _schema("raw_component_id", "n_samples", "n_groups"),
)

PIECES: Final = _first_of_each(
    "raw_component_id",
    "n_samples DESC NULLS LAST, component_id ASC NULLS LAST",
    "groups",
    ("raw_component_id", "component_id", "anchor_id", "n_samples"),
    """SELECT groups.raw_component_id, groups.component_id, min(groups.anchor_id) AS anchor_id, count(*) AS n_samples
            FROM groups JOIN chosen ON groups.raw_component_id = chosen.component_id
            GROUP BY groups.raw_component_id, groups.component_id""",
    order="",
)

COMPONENTS: Final = Query(
    "SELECT groups.sample_id AS sample_id, groups.component_id AS component_id "
    "FROM groups JOIN wanted ON groups.sample_id = wanted.sample_id",
    ("groups",),
    _schema("sample_id", "component_id"),
)

_PAIR_COLUMNS: Final = (
    "src, dst, CAST(similarity AS DOUBLE) AS similarity, source, variant, CAST(distance AS DOUBLE) AS distance, transform"
)

_PAIR_NAMES: Final = ("src", "dst", "similarity", "source", "variant", "distance", "transform")

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
    _schema("component_id", "src", "dst", "similarity", "distance"),
)

FARTHEST: Final = Query(
    f"SELECT {_PAIR_COLUMNS} FROM edges WHERE {NEAR_SQL} AND edges.distance IS NOT NULL "
    "ORDER BY edges.distance DESC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST LIMIT {n}",
    ("edges",),
    _schema(*_PAIR_NAMES),
)

NEARLY: Final = Query(
    f"SELECT {_PAIR_COLUMNS} FROM refused WHERE reason = 'different' AND refused.distance > CAST({{max_distance}} AS FLOAT) "
    "ORDER BY refused.distance ASC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST LIMIT {n}",
    ("refused",),
    _schema(*_PAIR_NAMES),
)

REFUSED: Final = _first_of_each(
    "reason",
    "similarity DESC NULLS LAST, src ASC NULLS LAST, dst ASC NULLS LAST",
    "refused",
    (*_PAIR_NAMES, "reason", "stage"),
    f"SELECT {_PAIR_COLUMNS}, reason, stage FROM refused",
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
    _schema("what", "bin", "n_pairs"),
)

KINDS: Final = Query(
    "SELECT kind, source, variant, count(*) AS n_pairs FROM edges GROUP BY kind, source, variant "
    "ORDER BY count(*) DESC NULLS LAST, kind ASC NULLS LAST, source ASC NULLS LAST, variant ASC NULLS LAST",
    ("edges",),
    _schema("kind", "source", "variant", "n_pairs"),
)

EDIT_COUNTS: Final = Query(
    "SELECT edit, n_samples, n_kept, n_dropped FROM edit_counts ORDER BY n_samples DESC, edit",
    ("edit_counts",),
    _schema("edit", "n_samples", "n_kept", "n_dropped"),
)

POOREST: Final = {
    "detail": Query(
        "SELECT sample_id, CAST(quality AS DOUBLE) AS quality FROM manifest WHERE n_bytes > 0 AND quality < 20 "
        "ORDER BY quality ASC NULLS LAST, sample_id LIMIT {n}",
        ("manifest",),
        _schema("sample_id", "quality"),
    ),
    "pixels": Query(
        "SELECT sample_id, n_pixels FROM (SELECT sample_id, CAST(width AS BIGINT) * height AS n_pixels FROM manifest) AS sized "
        "WHERE n_pixels > 0 AND n_pixels < 65536 ORDER BY n_pixels ASC NULLS LAST, sample_id LIMIT {n}",
        ("manifest",),
        _schema("sample_id", "n_pixels"),
    ),
}


def edited(edits: Sequence[str]) -> Query:
    """The first {n} dropped samples that each edit was done to, beside their keepers."""
    parts = [
        f"SELECT * FROM (SELECT '{edit}' AS edit, sample_id AS src, keeper_id AS dst, "
        "CAST(similarity_to_keeper AS DOUBLE) AS similarity, CAST(distance_to_keeper AS DOUBLE) AS distance "
        f"FROM duplicates WHERE kind = 'near' AND array_contains(edits, '{edit}') ORDER BY sample_id LIMIT {{n}}) AS {edit}_part"
        for edit in edits
    ]
    return Query(" UNION ALL ".join(parts), ("duplicates",), _schema("edit", "src", "dst", "similarity", "distance"))


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
    _schema("place", "caption", "n_characters", "n_samples", "n_in_groups", "n_groups"),
)

_RELATED_COLUMNS: Final = ("n_components", "n_samples", "agreeing_share", "example_id", "mask")


def _largest_related(name: str) -> tuple[Query, Query]:
    """The templates or scenes of most samples, and the first {n} groups of chosen ones."""
    largest = Query(
        f"SELECT {name}_id AS label, {', '.join(_RELATED_COLUMNS)} FROM {name}_counts "
        f"ORDER BY n_samples DESC NULLS LAST, {name}_id ASC NULLS LAST LIMIT {{n}}",
        (f"{name}_counts",),
        _schema("label", *_RELATED_COLUMNS),
    )
    members = Query(
        f"""
SELECT label, component_id
FROM (SELECT label, component_id, row_number() OVER (PARTITION BY label ORDER BY component_id) AS place
      FROM (SELECT DISTINCT {name}_id AS label, component_id FROM {name}s WHERE {name}_id IN (SELECT component_id FROM chosen)) AS groups_of
     ) AS ranked
WHERE place <= {{n}}
ORDER BY label, place
""",
        (f"{name}s",),
        _schema("label", "component_id"),
    )
    return largest, members


TEMPLATES, TEMPLATE_MEMBERS = _largest_related("template")
SCENES, SCENE_MEMBERS = _largest_related("scene")

REJECTED: Final = _first_of_each(
    "reason",
    "shard ASC NULLS LAST, key ASC NULLS LAST, detail ASC NULLS LAST",
    "rejected",
    ("shard", "key", "reason", "detail"),
    f"SELECT shard, key, reason, substr(detail, 1, {DETAIL_CHARACTERS}) AS detail FROM rejected",
)

EXCLUDED: Final = _first_of_each(
    "reason",
    "similarity DESC NULLS LAST, sample_id ASC NULLS LAST",
    "excluded",
    ("sample_id", "reason", "excluded_by", "reference_shard", "similarity", "distance"),
    """SELECT sample_id, reason, excluded_by, reference_shard, CAST(similarity_to_reference AS DOUBLE) AS similarity,
                   CAST(distance_to_reference AS DOUBLE) AS distance
            FROM excluded""",
)

SHARDS: Final = _first_of_each(
    "status",
    "shard ASC NULLS LAST",
    "partitions",
    ("shard", "status", "error", "n_samples", "n_rejected"),
    f"SELECT shard, status, substr(error, 1, {DETAIL_CHARACTERS}) AS error, n_samples, n_rejected FROM partitions WHERE status <> 'ok'",
    order="",
)
