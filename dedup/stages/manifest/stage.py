"""Stage `manifest`: what to train on, what was dropped and why; the accounts are checked before it is published."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dedup.contracts import JsonDict
from dedup.schemas import METADATA
from dedup.stages.manifest.accounts import check
from dedup.stages.manifest.captions import caption_sql, of_group_sql
from dedup.stages.manifest.edits import find_edits
from dedup.stages.manifest.keep import EDITS_SQL, keepers, policy_sql
from dedup.stages.manifest.thin import thinned
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.tables import ask, clear, dataset, publish, read_table

_HIDDEN = "_unchecked"
_COUNTS = "(SELECT component_id, count(*) AS duplication_count FROM groups GROUP BY component_id) AS counts"

MANIFEST_SQL = f"""
SELECT {{columns}}, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
       COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count,
       edits.originality AS originality, edits.edits AS edits, of_group.group_captions AS group_captions
FROM metadata
{EDITS_SQL}
LEFT JOIN groups ON metadata.sample_id = groups.sample_id
{{of_group}}
LEFT JOIN {_COUNTS} ON groups.component_id = counts.component_id
LEFT JOIN keepers ON metadata.sample_id = keepers.sample_id
LEFT JOIN exclusions ON metadata.sample_id = exclusions.sample_id
WHERE exclusions.sample_id IS NULL AND (keepers.sample_id IS NULL OR keepers.keeper_id = keepers.sample_id)
ORDER BY metadata.sample_id
"""  # noqa: S608 (names of our own columns only)

DUPLICATES_SQL = f"""
SELECT {{columns}}, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
       COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count,
       edits.originality AS originality, edits.edits AS edits,
       keepers.keeper_id AS keeper_id, kept.shard AS keeper_shard, kept.key AS keeper_key,
       keepers.similarity_to_keeper AS similarity_to_keeper,
       COALESCE(keepers.relation, CASE WHEN metadata.sha256 = kept.sha256 THEN 'exact' ELSE 'near' END) AS kind,
       keepers.distance_to_keeper AS distance_to_keeper
FROM keepers
JOIN metadata ON keepers.sample_id = metadata.sample_id
JOIN metadata AS kept ON keepers.keeper_id = kept.sample_id
{EDITS_SQL}
LEFT JOIN groups ON keepers.sample_id = groups.sample_id
LEFT JOIN {_COUNTS} ON groups.component_id = counts.component_id
WHERE keepers.keeper_id <> keepers.sample_id
ORDER BY metadata.sample_id
"""  # noqa: S608

EXCLUDED_SQL = f"""
SELECT {{columns}}, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
       COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count,
       edits.originality AS originality, edits.edits AS edits, exclusions.reason AS reason,
       exclusions.excluded_by AS excluded_by, exclusions.reference_shard AS reference_shard,
       exclusions.similarity_to_reference AS similarity_to_reference, exclusions.distance_to_reference AS distance_to_reference
FROM exclusions
JOIN metadata ON exclusions.sample_id = metadata.sample_id
{EDITS_SQL}
LEFT JOIN groups ON metadata.sample_id = groups.sample_id
LEFT JOIN {_COUNTS} ON groups.component_id = counts.component_id
ORDER BY metadata.sample_id
"""  # noqa: S608


EDIT_COUNTS_SQL = """
SELECT edit, count(*) AS n_samples, CAST(sum(is_kept) AS BIGINT) AS n_kept, CAST(sum(is_dropped) AS BIGINT) AS n_dropped
FROM (
  SELECT {each} AS edit, 1 AS is_kept, 0 AS is_dropped FROM manifest
  UNION ALL SELECT {each} AS edit, 0 AS is_kept, 1 AS is_dropped FROM duplicates
  UNION ALL SELECT {each} AS edit, 0 AS is_kept, 0 AS is_dropped FROM excluded
) AS edited
GROUP BY edit
ORDER BY count(*) DESC, edit
"""

# images, of which each has a row, and samples, counted at their first image: they are kept or dropped as a whole
FIGURES_SQL = """
SELECT CAST(sum(n_edits) AS BIGINT) AS n_edited, CAST(sum(n_bytes) AS BIGINT) AS bytes_dropped,
       CAST(sum(is_kept) AS BIGINT) AS n_kept_keys, CAST(sum(is_dropped) AS BIGINT) AS n_dropped_keys
FROM (
  SELECT CASE WHEN {length} > 0 THEN 1 ELSE 0 END AS n_edits, 0 AS n_bytes,
         CASE WHEN sample_id = first_image_id THEN 1 ELSE 0 END AS is_kept, 0 AS is_dropped FROM manifest
  UNION ALL SELECT CASE WHEN {length} > 0 THEN 1 ELSE 0 END AS n_edits, n_bytes,
         0 AS is_kept, CASE WHEN sample_id = first_image_id THEN 1 ELSE 0 END AS is_dropped FROM duplicates
  UNION ALL SELECT CASE WHEN {length} > 0 THEN 1 ELSE 0 END AS n_edits, 0 AS n_bytes, 0 AS is_kept, 0 AS is_dropped FROM excluded
) AS samples
"""
# words of the engines for a row for each edit, and for their number
_EACH = {"duckdb": "unnest(edits)", "spark": "explode(edits)"}
_LENGTH = {"duckdb": "len(edits)", "spark": "size(edits)"}


def write_manifest(context: StageContext) -> StageResult:
    """Apply the keep policy to what is not excluded, check the accounts, publish."""
    run = context.run
    config = context.config
    names = [*METADATA.names, *config.input.carry]
    columns = ", ".join(f"metadata.{name} AS {name}" for name in names)
    trained = ", ".join(f"{caption_sql(config) if name == 'caption' else f'metadata.{name}'} AS {name}" for name in names)
    policy = policy_sql(context.config)
    n_edits, compared = find_edits(context)
    decided = thinned(context, keepers(context, compared), policy)
    sources = {name: run.table(name) for name in ("metadata", "groups", "exclusions", "exact", "edits")} | {"keepers": decided}
    rows = {}
    queries = {
        "manifest": MANIFEST_SQL.format(columns=trained, of_group=of_group_sql(config, context.engine.dialect)),
        "duplicates": DUPLICATES_SQL.format(columns=columns),
        "excluded": EXCLUDED_SQL.format(columns=columns),
    }
    for name, query in queries.items():
        table = run.table(name)
        clear(table)
        rows[name] = context.engine.sql_to(query, sources, table, _HIDDEN)
    check(context, rows, {name: replace(run.table(name), pattern=f"{_HIDDEN}-*.parquet") for name in rows})
    for name in rows:
        publish(run.table(name), _HIDDEN)
    kinds = ("exact", "near", "template", "scene")
    n_of = {kind: dataset(run.table("duplicates")).count_rows(filter=pc.field("kind") == kind) for kind in kinds}
    rows |= {"edits": n_edits, "edit_counts": _count_edits(context)}
    edits = {row["edit"]: row["n_samples"] for row in read_table(run.table("edit_counts")).to_pylist()}
    return StageResult(rows, {f"n_{kind}": n for kind, n in n_of.items()} | _figures(context) | {"edits": edits})


def _count_edits(context: StageContext) -> int:
    run, table = context.run, context.run.table("edit_counts")
    clear(table)
    query = EDIT_COUNTS_SQL.format(each=_EACH[context.engine.dialect])
    return context.engine.sql_to(query, {name: run.table(name) for name in ("manifest", "duplicates", "excluded")}, table)


def _figures(context: StageContext) -> JsonDict:
    """How many images have been edited, what the dropped ones weigh, and how many samples were kept and dropped."""
    run = context.run
    query = FIGURES_SQL.format(length=_LENGTH[context.engine.dialect])
    names = ("n_edited", "bytes_dropped", "n_kept_keys", "n_dropped_keys")
    tables = {name: run.table(name) for name in ("manifest", "duplicates", "excluded")}
    (row,) = ask(context.engine, query, tables, pa.schema([(name, pa.int64()) for name in names])).to_pylist()
    return {name: row[name] or 0 for name in names}


STAGE = Stage(
    "manifest", reads=("groups", "exclude"), output_version=7, run=write_manifest, reads_base=lambda config: config.keep.prefer_base
)
