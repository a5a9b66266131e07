"""Stage `targets`: the most duplicated captions, ranked, for the extraction attack of Carlini et al. (2023)."""

from __future__ import annotations

import io
import json

from dedup.stages.context import StageContext, StageResult
from dedup.storage.tables import dataset, write_bytes

OUTPUT_VERSION = 1

# One row per group: a list with a row per sample would spend the budget on one image again and again.
TARGETS_SQL = """
SELECT ranked.place AS rank, substr(ranked.sha256, 1, 16) AS target_id, ranked.component_id AS component_id,
       ranked.caption AS caption, ranked.duplication_count AS duplication_count, ranked.n_captions AS n_captions,
       ranked.caption_share AS caption_share, ranked.url AS url, ranked.shard AS shard, ranked.key AS key,
       ranked.byte_offset AS byte_offset, ranked.n_bytes AS n_bytes, CAST({n_generations} AS INTEGER) AS n_generations
FROM (
  SELECT statistics.component_id, statistics.caption, statistics.duplication_count, statistics.n_captions, statistics.caption_share,
         kept.sha256, kept.url, kept.shard, kept.key, kept.byte_offset, kept.n_bytes,
         row_number() OVER (ORDER BY statistics.duplication_count DESC NULLS LAST, statistics.component_id ASC NULLS LAST) AS place
  FROM statistics
  JOIN (
    SELECT manifest.*, row_number() OVER (PARTITION BY component_id ORDER BY {policy}, sample_id ASC NULLS LAST) AS keeper_place
    FROM manifest
  ) AS kept ON statistics.component_id = kept.component_id AND kept.keeper_place = 1
  WHERE statistics.caption IS NOT NULL AND statistics.caption <> ''
) AS ranked
WHERE ranked.place <= {top}
ORDER BY ranked.place
"""


def run(context: StageContext) -> StageResult:
    """Rank the groups by duplication count and write them as parquet and as JSON lines."""
    from dedup.stages.keep import policy_sql

    config = context.config
    policy = policy_sql(config.keep.order_by, config.input.carry).replace("metadata.", "manifest.")
    query = TARGETS_SQL.format(n_generations=config.targets.n_generations, top=config.targets.top, policy=policy)
    n_rows = context.write_all("targets", {"targets": (query, ["statistics", "manifest"])})["targets"]
    table = context.layout.table("targets")
    lines = io.BytesIO()
    for batch in dataset(table).to_batches(batch_size=4_096):
        lines.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch.to_pylist())
    write_bytes(context.layout.path("targets", "_targets.jsonl"), lines.getvalue())
    return StageResult({"targets": n_rows}, {"n_targets": n_rows, "n_generations": n_rows * config.targets.n_generations})
