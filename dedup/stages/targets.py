"""Stage `targets`: captions ranked for the extraction attack of Carlini et al. (2023)."""

from __future__ import annotations

import json

from dedup.config import TargetsConfig
from dedup.stages.manifest.keep import policy_sql
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.atomic import AtomicFile
from dedup.storage.tables import dataset

_ALTERNATIVES = 10  # captions of a target that are listed
_RANKINGS = {
    "duplicates": "counts.duplication_count",
    "templates": "counts.template_count",
    "neighbors": "near.n_neighbors",
    "caption": "common.n_caption_samples",
}

# One row per group, or per template: a row per sample would spend the budget on the same image again and again.
TARGETS_SQL = """
SELECT ranked.place AS rank, substr(ranked.sha256, 1, 16) AS target_id, ranked.component_id AS component_id,
       ranked.caption AS caption, ranked.duplication_count AS duplication_count, ranked.template_count AS template_count,
       ranked.n_captions AS n_captions, CAST(ranked.n_samples AS DOUBLE) / ranked.duplication_count AS caption_share,
       ranked.n_caption_samples AS n_caption_samples, ranked.n_neighbors AS n_neighbors, ranked.url AS url, ranked.shard AS shard,
       ranked.key AS key, ranked.byte_offset AS byte_offset, ranked.n_bytes AS n_bytes,
       CAST({n_generations} AS INTEGER) AS n_generations
FROM (
  SELECT firsts.*, row_number() OVER (ORDER BY firsts.ranking DESC NULLS LAST, firsts.component_id ASC NULLS LAST) AS place
  FROM (
    SELECT counts.component_id, counts.duplication_count, counts.template_count, counts.n_captions, prompts.caption, prompts.n_samples,
           common.n_caption_samples, near.n_neighbors, kept.sha256, kept.url, kept.shard, kept.key, kept.byte_offset, kept.n_bytes,
           {ranking} AS ranking,
           row_number() OVER (
             PARTITION BY counts.unit ORDER BY counts.duplication_count DESC NULLS LAST, counts.component_id ASC NULLS LAST
           ) AS place_in_unit
    FROM ({counts}) AS counts
    JOIN (
      SELECT component_id, caption, n_samples,
             row_number() OVER (PARTITION BY component_id ORDER BY n_samples DESC NULLS LAST, caption ASC NULLS LAST) AS caption_place
      FROM ({captions}) AS all_captions
      WHERE {is_prompt}
    ) AS prompts ON counts.component_id = prompts.component_id AND prompts.caption_place = 1
    JOIN (
      SELECT manifest.*, row_number() OVER (PARTITION BY component_id ORDER BY {policy}, sample_id ASC NULLS LAST) AS keeper_place
      FROM manifest
    ) AS kept ON counts.component_id = kept.component_id AND kept.keeper_place = 1
    JOIN (
      SELECT caption, count(*) AS n_caption_samples FROM metadata WHERE caption IS NOT NULL GROUP BY caption
    ) AS common ON prompts.caption = common.caption
    LEFT JOIN (
      SELECT groups.component_id AS component_id, max(neighbors.n_neighbors) AS n_neighbors
      FROM groups JOIN neighbors ON groups.sample_id = neighbors.sample_id
      GROUP BY groups.component_id
    ) AS near ON counts.component_id = near.component_id
    WHERE {keepers}
  ) AS firsts
  WHERE firsts.place_in_unit = 1
) AS ranked
WHERE ranked.place <= {top}
ORDER BY ranked.place
"""
# what may be a target, and of which one row is written: a group of copies, or of a template the group or unique sample with most copies
_GROUPS_SQL = "SELECT component_id AS unit, component_id, duplication_count, template_count, n_captions FROM statistics"
_OF_TEMPLATES_SQL = """
SELECT sizes.unit, sizes.component_id, sizes.duplication_count, template_counts.n_samples AS template_count, sizes.n_captions
FROM (
  SELECT templates.template_id AS unit, templates.component_id AS component_id, count(*) AS duplication_count,
         count(DISTINCT metadata.caption) AS n_captions
  FROM templates JOIN metadata ON templates.sample_id = metadata.sample_id
  GROUP BY templates.template_id, templates.component_id
) AS sizes
JOIN template_counts ON sizes.unit = template_counts.template_id
"""
_CAPTIONS_SQL = "SELECT component_id, caption, n_samples FROM captions"
_CAPTIONS_OF_TEMPLATES_SQL = """
SELECT templates.component_id AS component_id, metadata.caption AS caption, count(*) AS n_samples
FROM templates JOIN metadata ON templates.sample_id = metadata.sample_id
WHERE metadata.caption IS NOT NULL
GROUP BY templates.component_id, metadata.caption
"""
ALTERNATIVES_SQL = """
SELECT listed.target_id AS target_id, CAST(listed.place AS INTEGER) AS place, listed.caption AS caption, listed.n_samples AS n_samples
FROM (
  SELECT targets.rank AS target_rank, targets.target_id AS target_id, captions.caption AS caption, captions.n_samples AS n_samples,
         row_number() OVER (
           PARTITION BY captions.component_id ORDER BY captions.n_samples DESC NULLS LAST, captions.caption ASC NULLS LAST
         ) AS place
  FROM ({captions}) AS captions JOIN targets ON captions.component_id = targets.component_id
) AS listed
WHERE listed.place <= {n}
ORDER BY listed.target_rank, listed.place
"""


def rank_targets(context: StageContext) -> StageResult:
    """Rank the groups and write them as parquet and as JSON lines, with their captions."""
    config = context.config
    of_templates = config.targets.rank_by == "templates"
    captions = _CAPTIONS_OF_TEMPLATES_SQL if of_templates else _CAPTIONS_SQL
    query = TARGETS_SQL.format(
        n_generations=config.targets.n_generations,
        top=config.targets.top,
        ranking=_RANKINGS[config.targets.rank_by],
        counts=_OF_TEMPLATES_SQL if of_templates else _GROUPS_SQL,
        captions=captions,
        is_prompt=captions_sql(config.targets),
        keepers=keepers_sql(config.targets),
        policy=policy_sql(config, "manifest"),
    )
    read = ["templates", "template_counts", "metadata"] if of_templates else ["captions"]
    others = ALTERNATIVES_SQL.format(captions=captions, n=_ALTERNATIVES)
    read_by_targets = sorted({*read, "statistics", "manifest", "metadata", "groups", "neighbors"})
    rows = context.write_all("targets", {"targets": (query, read_by_targets), "target_captions": (others, [*read, "targets"])})
    with AtomicFile(context.run.path("targets.jsonl")) as lines:
        for batch in dataset(context.run.table("targets")).to_batches(batch_size=4_096):
            lines.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch.to_pylist())
    n_targets = rows["targets"]
    return StageResult(rows, {"n_targets": n_targets, "n_generations": n_targets * config.targets.n_generations})


def captions_sql(targets: TargetsConfig) -> str:
    """Which captions may be prompts.

    >>> captions_sql(TargetsConfig(min_caption_length=5))
    "caption <> '' AND length(caption) >= 5"
    """
    terms = ["caption <> ''", f"length(caption) >= {targets.min_caption_length}"]
    return " AND ".join(terms + ([f"length(caption) <= {targets.max_caption_length}"] if targets.max_caption_length else []))


def keepers_sql(targets: TargetsConfig, table: str = "kept") -> str:
    """Which groups may be targets, by carried columns of the sample that is kept; names and values are validated.

    >>> keepers_sql(TargetsConfig(language=["en", "de"], max_punsafe=0.5))
    "kept.LANGUAGE IN ('en', 'de') AND kept.punsafe <= 0.5"
    """
    terms = []
    if targets.language:
        terms.append(f"{table}.{targets.language_column} IN ({', '.join(repr(language) for language in targets.language)})")
    if targets.max_punsafe < 1:
        terms.append(f"{table}.punsafe <= {targets.max_punsafe}")
    return " AND ".join(terms) or "1 = 1"


STAGE = Stage("targets", reads=("statistics", "manifest"), output_version=3, run=rank_targets)
