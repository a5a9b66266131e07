"""Stage `manifest`: what to train on, what was dropped and why; the accounts are checked before it is published."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.compute as pc

from dedup.schemas import METADATA
from dedup.stages.manifest.accounts import check
from dedup.stages.manifest.edits import find_edits
from dedup.stages.manifest.keep import EDITS_SQL, keepers, policy_sql
from dedup.stages.manifest.thin import thinned
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.tables import clear, dataset, publish

_HIDDEN = "_unchecked"
_COUNTS = "(SELECT component_id, count(*) AS duplication_count FROM groups GROUP BY component_id) AS counts"

MANIFEST_SQL = f"""
SELECT {{columns}}, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
       COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count,
       edits.originality AS originality, edits.edits AS edits
FROM metadata
{EDITS_SQL}
LEFT JOIN groups ON metadata.sample_id = groups.sample_id
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


def write_manifest(context: StageContext) -> StageResult:
    """Apply the keep policy to what is not excluded, check the accounts, publish."""
    run = context.run
    columns = ", ".join(f"metadata.{name} AS {name}" for name in [*METADATA.names, *context.config.input.carry])
    policy = policy_sql(context.config.keep.order_by, context.config.input.carry)
    n_edits, compared = find_edits(context)
    decided = thinned(context, keepers(context, compared), policy)
    sources = {name: run.table(name) for name in ("metadata", "groups", "exclusions", "exact", "edits")} | {"keepers": decided}
    rows = {}
    for name, query in (("manifest", MANIFEST_SQL), ("duplicates", DUPLICATES_SQL), ("excluded", EXCLUDED_SQL)):
        table = run.table(name)
        clear(table)
        rows[name] = context.engine.sql_to(query.format(columns=columns), sources, table, _HIDDEN)
    check(context, rows, {name: replace(run.table(name), pattern=f"{_HIDDEN}-*.parquet") for name in rows})
    for name in rows:
        publish(run.table(name), _HIDDEN)
    kinds = ("exact", "near", "template", "scene")
    n_of = {kind: dataset(run.table("duplicates")).count_rows(filter=pc.field("kind") == kind) for kind in kinds}
    return StageResult(rows | {"edits": n_edits}, {f"n_{kind}": n for kind, n in n_of.items()})


STAGE = Stage(
    "manifest", reads=("groups", "exclude"), output_version=6, run=write_manifest, reads_base=lambda config: config.keep.prefer_base
)
