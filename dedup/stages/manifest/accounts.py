"""What must hold before a manifest is published, checked in every run by a few sums over its own tables."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.contracts import Table
from dedup.errors import AccountingError
from dedup.judge.pair import DROPPED
from dedup.stages.stage import StageContext
from dedup.storage.tables import count_rows

TOTALS_SQL: Final = """
SELECT CAST(sum(n_samples) AS BIGINT) AS n_samples, CAST(sum(n_rejected) AS BIGINT) AS n_rejected FROM partitions
"""

# Each dropped sample's keeper is kept, is in its group and is near enough. Exact copies and those whose pixels were compared need no
# cosine: a confirmed copy may be a crop, whose whole picture is far from the keeper's. So may one accepted unread.
KEEPERS_SQL: Final = """
SELECT CAST(sum(CASE WHEN manifest.sample_id IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS n_without_keeper,
       CAST(sum(CASE WHEN manifest.component_id <> duplicates.component_id AND duplicates.kind IN ('exact', 'near')
                THEN 1 ELSE 0 END) AS BIGINT) AS n_elsewhere,
       CAST(sum(CASE WHEN duplicates.similarity_to_keeper < CAST({threshold} AS FLOAT) AND duplicates.kind = 'near'
                          AND duplicates.distance_to_keeper IS NULL AND {is_strict}
                THEN 1 ELSE 0 END) AS BIGINT) AS n_below,
       CAST(sum(CASE WHEN duplicates.kind = 'near' AND duplicates.distance_to_keeper > CAST({max_distance} AS FLOAT)
                THEN 1 ELSE 0 END) AS BIGINT) AS n_far
FROM duplicates LEFT JOIN manifest ON duplicates.keeper_id = manifest.sample_id
"""

# Each group of copies has as many rows as its duplication_count, is labelled by the smallest, and keeps one unless all are excluded or
# the group goes as one of a template or scene of which others are kept.
GROUPS_SQL: Final = """
SELECT CAST(sum(CASE WHEN n <> least_count OR n <> greatest_count THEN 1 ELSE 0 END) AS BIGINT) AS n_miscounted,
       CAST(sum(CASE WHEN first_id <> component_id THEN 1 ELSE 0 END) AS BIGINT) AS n_mislabelled,
       CAST(sum(CASE WHEN n_kept = 0 AND n_dropped > 0 THEN 1 ELSE 0 END) AS BIGINT) AS n_lost
FROM (SELECT component_id, count(*) AS n, min(sample_id) AS first_id, min(duplication_count) AS least_count,
             max(duplication_count) AS greatest_count, sum(is_kept) AS n_kept, sum(is_dropped) AS n_dropped
      FROM (SELECT component_id, sample_id, duplication_count, 1 AS is_kept, 0 AS is_dropped FROM manifest WHERE duplication_count <> 1
            UNION ALL
            SELECT component_id, sample_id, duplication_count, 0 AS is_kept,
                   CASE WHEN kind IN ('exact', 'near') THEN 1 ELSE 0 END AS is_dropped
            FROM duplicates
            UNION ALL
            SELECT component_id, sample_id, duplication_count, 0 AS is_kept, 0 AS is_dropped FROM excluded WHERE duplication_count <> 1
           ) AS members
      GROUP BY component_id) AS components
"""

ALONE_SQL: Final = """
SELECT CAST(sum(CASE WHEN component_id <> sample_id THEN 1 ELSE 0 END) AS BIGINT) AS n_mislabelled_alone
FROM manifest WHERE duplication_count = 1
"""

EXCLUDED_SQL: Final = """
SELECT CAST(sum(CASE WHEN excluded_by = '' OR reason = '' THEN 1 ELSE 0 END) AS BIGINT) AS n_unexplained FROM excluded
"""

_MEANINGS: Final = {
    "n_without_keeper": "dropped samples have a keeper that is not kept",
    "n_elsewhere": "dropped samples have a keeper of another group",
    "n_below": "dropped samples are less similar to their keeper than {threshold}, and their pixels were not compared",
    "n_far": "dropped samples have pixels that differ from their keeper's by more than confirm.max_distance={max_distance}",
    "n_miscounted": "groups have a number of samples other than their duplication_count",
    "n_mislabelled": "groups are not labelled by their smallest sample_id",
    "n_mislabelled_alone": "unique samples are not labelled by their own sample_id",
    "n_lost": "groups would lose every sample",
    "n_unexplained": "excluded samples do not say what excluded them",
}


def check(context: StageContext, rows: dict[str, int], hidden: dict[str, Table]) -> None:
    """Check the tables that are about to be published.

    `rows`: rows of `manifest`, `duplicates` and `excluded`.
    `hidden`: the three tables as written, under names that readers skip.
    Raises AccountingError that says what does not hold, with numbers; the tables stay hidden.
    """
    totals = _figures(context, TOTALS_SQL, {"partitions": context.run.table("partitions")}, ("n_samples", "n_rejected"))
    seen, rejected = sum(totals.values()), count_rows(context.run.table("rejected"))
    accounted = sum(rows.values()) + rejected
    if accounted != seen:
        parts = " + ".join(f"{name} {count}" for name, count in [*rows.items(), ("rejected", rejected)])
        raise AccountingError(f"{parts} = {accounted}, but {seen} samples were seen; nothing was published: please report this")
    confirm = context.config.confirm
    # those who drop look-alikes too have no limit
    max_distance = confirm.max_distance if set(confirm.drop) <= set(DROPPED) else 1.0
    limits = {"threshold": float(context.config.search.min_similarity), "max_distance": float(max_distance)}
    is_strict = "FALSE" if context.run.judges_pixels and context.config.confirm.unreadable == "keep" else "TRUE"
    figures: dict[str, int] = {}
    if rows["duplicates"]:
        query = KEEPERS_SQL.format(is_strict=is_strict, **limits)
        figures |= _figures(context, query, hidden, ("n_without_keeper", "n_elsewhere", "n_below", "n_far"))
    if rows["duplicates"] or rows["excluded"]:
        figures |= _figures(context, GROUPS_SQL, hidden, ("n_miscounted", "n_mislabelled", "n_lost"))
    if rows["excluded"]:
        figures |= _figures(context, EXCLUDED_SQL, hidden, ("n_unexplained",))
    figures |= _figures(context, ALONE_SQL, hidden, ("n_mislabelled_alone",))
    broken = [f"{count} {_MEANINGS[name].format(**limits)}" for name, count in figures.items() if count]
    if broken:
        raise AccountingError(f"{'; '.join(broken)}. Nothing was published: please report this")


def _figures(context: StageContext, query: str, tables: dict[str, Table], names: tuple[str, ...]) -> dict[str, int]:
    """The one row of a query, nulls as 0."""
    schema = pa.schema([(name, pa.int64()) for name in names])
    row = next(iter(context.engine.sql(query, tables, schema))).to_pylist()[0]
    return {name: row[name] or 0 for name in names}
