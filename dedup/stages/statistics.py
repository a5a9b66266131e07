"""Stage `statistics`: how often, and under which captions, each duplicated image occurs."""

from __future__ import annotations

from dedup.schemas.pairs import NEAR_SQL
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.atomic import write_json
from dedup.storage.tables import count_rows, read_table

# Groups of one are unique samples: they have no row here and are counted in the histogram.
_DUPLICATED = "(SELECT component_id, count(*) AS duplication_count FROM groups GROUP BY component_id HAVING count(*) > 1) AS counts"
CAPTIONS_SQL = f"""
SELECT groups.component_id AS component_id, metadata.caption AS caption, count(*) AS n_samples,
       -- whole numbers, so that the order of the sum does not matter
       CAST(CAST(sum(CAST(round(CAST(metadata.caption_similarity AS DOUBLE) * 1e8) AS BIGINT)) AS DOUBLE) / 1e8
            / NULLIF(count(metadata.caption_similarity), 0) AS FLOAT) AS caption_similarity
FROM groups
JOIN {_DUPLICATED} ON groups.component_id = counts.component_id
JOIN metadata ON groups.sample_id = metadata.sample_id
WHERE metadata.caption IS NOT NULL
GROUP BY groups.component_id, metadata.caption
ORDER BY groups.component_id ASC NULLS LAST, count(*) DESC NULLS LAST, metadata.caption ASC NULLS LAST
"""  # noqa: S608 (names of our own columns only)
STATISTICS_SQL = """
SELECT sizes.component_id AS component_id, sizes.duplication_count AS duplication_count,
       COALESCE(template_counts.n_samples, sizes.duplication_count) AS template_count,
       COALESCE(scene_counts.n_samples, sizes.duplication_count) AS scene_count,
       sizes.duplication_count - sizes.n_images AS n_exact, sizes.n_urls AS n_urls,
       COALESCE(multiplicity.n_captions, CAST(0 AS BIGINT)) AS n_captions, prompts.caption AS caption,
       CAST(prompts.n_samples AS DOUBLE) / sizes.duplication_count AS caption_share,
       sizes.min_similarity AS min_similarity,
       CAST((CAST(sizes.sum_similarity AS DOUBLE) / 1e8 - 1.0) / (sizes.duplication_count - 1) AS FLOAT) AS mean_similarity
FROM (
  SELECT groups.component_id AS component_id, count(*) AS duplication_count, count(DISTINCT metadata.sha256) AS n_images,
         count(DISTINCT metadata.url) AS n_urls, min(groups.similarity_to_anchor) AS min_similarity,
         -- whole numbers, so that the order of the sum does not matter
         CAST(sum(CAST(round(CAST(groups.similarity_to_anchor AS DOUBLE) * 1e8) AS BIGINT)) AS BIGINT) AS sum_similarity
  FROM groups JOIN metadata ON groups.sample_id = metadata.sample_id
  GROUP BY groups.component_id HAVING count(*) > 1
) AS sizes
LEFT JOIN (SELECT component_id, count(*) AS n_captions FROM captions GROUP BY component_id) AS multiplicity
  ON sizes.component_id = multiplicity.component_id
LEFT JOIN (
  SELECT component_id, caption, n_samples,
         row_number() OVER (PARTITION BY component_id ORDER BY n_samples DESC NULLS LAST, caption ASC NULLS LAST) AS place
  FROM captions
) AS prompts ON sizes.component_id = prompts.component_id AND prompts.place = 1
-- the group's label is the smallest of its samples, so it is among the members
LEFT JOIN templates ON sizes.component_id = templates.sample_id
LEFT JOIN template_counts ON templates.template_id = template_counts.template_id
LEFT JOIN scenes ON sizes.component_id = scenes.sample_id
LEFT JOIN scene_counts ON scenes.scene_id = scene_counts.scene_id
ORDER BY component_id
"""
HISTOGRAM_SQL = """
SELECT duplication_count, count(*) AS n_components, duplication_count * count(*) AS n_images
FROM (
  SELECT COALESCE(groups.component_id, metadata.sample_id) AS component_id, count(*) AS duplication_count
  FROM metadata LEFT JOIN groups ON metadata.sample_id = groups.sample_id
  GROUP BY COALESCE(groups.component_id, metadata.sample_id)
) AS sizes
GROUP BY duplication_count
ORDER BY duplication_count
"""

# pairs judged later, for groups and keepers, come from no encoder
CANDIDATES_SQL = f"""
SELECT found_by, CAST(sum(n_confirmed) AS BIGINT) AS n_confirmed, CAST(sum(n_refused) AS BIGINT) AS n_refused
FROM (
  SELECT found_by, 1 AS n_confirmed, 0 AS n_refused FROM edges WHERE {NEAR_SQL} AND found_by IS NOT NULL
  UNION ALL
  SELECT found_by, 0 AS n_confirmed, 1 AS n_refused FROM refused WHERE found_by IS NOT NULL
) AS judged
GROUP BY found_by
ORDER BY found_by
"""  # noqa: S608 (a condition of our own)


def count_duplicates(context: StageContext) -> StageResult:
    """Count captions, urls and copies of each group; write the histogram and a summary."""
    queries = {
        "captions": (CAPTIONS_SQL, ["groups", "metadata"]),
        "statistics": (STATISTICS_SQL, ["groups", "metadata", "captions", "templates", "template_counts", "scenes", "scene_counts"]),
        "histogram": (HISTOGRAM_SQL, ["groups", "metadata"]),
        "candidate_counts": (CANDIDATES_SQL, ["edges", "refused"]),
    }
    rows = context.write_all("statistics", queries)
    histogram = read_table(context.run.table("histogram")).to_pylist()
    summary = {
        "n_images": sum(row["n_images"] for row in histogram),
        "n_unique": sum(row["n_components"] for row in histogram if row["duplication_count"] == 1),
        "n_components": rows["statistics"],
        "largest_component": max((row["duplication_count"] for row in histogram), default=0),
    }
    counts = read_table(context.run.table("candidate_counts")).to_pylist()
    run = context.run
    summary |= {f"n_{name}": count_rows(run.table(f"{name[:-1]}_counts")) for name in ("templates", "scenes")}
    summary |= {f"n_in_{name}": count_rows(run.table(name)) for name in ("templates", "scenes")}
    summary["candidates"] = {row["found_by"]: [row["n_confirmed"], row["n_refused"]] for row in counts}
    write_json(context.run.path("_summary.json"), summary)
    return StageResult(rows, summary)


STAGE = Stage("statistics", reads=("groups",), output_version=3, run=count_duplicates)
