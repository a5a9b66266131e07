"""The captions of a group: all of them stay with the sample that is kept, and one of them is what it trains with."""

from __future__ import annotations

from typing import Final, Literal

from dedup.config import Config

# what the engines have no common words for: a row for each caption of a sample, and the captions of a group as a list
_EACH: Final = {"duckdb": "unnest(metadata.captions)", "spark": "explode(metadata.captions)"}
_LISTED: Final = {
    "duckdb": "list(struct_pack(caption := caption, n_samples := n_samples) ORDER BY n_samples DESC, caption)",
    "spark": "transform(array_sort(collect_list(struct(-n_samples AS n, caption))), x -> struct(x.caption AS caption, -x.n AS n_samples))",
}
_CHOSEN: Final = {
    "own": "metadata.caption",
    "most_frequent": "COALESCE(of_group.most_frequent, metadata.caption)",
    "best": "COALESCE(of_group.best, metadata.caption)",
}

# groups of several samples; of excluded samples nothing stays. A similarity is that of a sample's first caption.
_OF_GROUP_SQL: Final = """
LEFT JOIN (
  SELECT component_id, {listed} AS group_captions,
         min(CASE WHEN place = 1 THEN caption END) AS most_frequent, min(CASE WHEN best_place = 1 THEN caption END) AS best
  FROM (
    SELECT component_id, caption, n_samples,
           row_number() OVER (PARTITION BY component_id ORDER BY n_samples DESC NULLS LAST, caption ASC NULLS LAST) AS place,
           row_number() OVER (
             PARTITION BY component_id
             ORDER BY similarity DESC NULLS LAST, n_samples DESC NULLS LAST, caption ASC NULLS LAST
           ) AS best_place
    FROM (
      SELECT component_id, caption, count(*) AS n_samples, max(CASE WHEN caption = first_caption THEN similarity END) AS similarity
      FROM (
        SELECT groups.component_id AS component_id, {each} AS caption, metadata.caption AS first_caption, {similarity} AS similarity
        FROM groups
        JOIN metadata ON groups.sample_id = metadata.sample_id
        JOIN (SELECT component_id FROM groups GROUP BY component_id HAVING count(*) > 1) AS several
          ON groups.component_id = several.component_id
        LEFT JOIN exclusions AS gone ON groups.sample_id = gone.sample_id
        WHERE gone.sample_id IS NULL AND metadata.captions IS NOT NULL
      ) AS written
      GROUP BY component_id, caption
    ) AS counted
  ) AS placed
  GROUP BY component_id
) AS of_group ON groups.component_id = of_group.component_id
"""


def of_group_sql(config: Config, dialect: Literal["duckdb", "spark"]) -> str:
    """The join that gives `of_group.group_captions`, `of_group.most_frequent` and `of_group.best` to samples of `groups`."""
    carried = "metadata.similarity" if "similarity" in config.input.carry else "NULL"
    similarity = f"COALESCE(CAST(metadata.caption_similarity AS DOUBLE), CAST({carried} AS DOUBLE))"
    return _OF_GROUP_SQL.format(listed=_LISTED[dialect], each=_EACH[dialect], similarity=similarity)


def caption_sql(config: Config) -> str:
    """What a kept sample trains with, as `keep.caption` says."""
    return _CHOSEN[config.keep.caption]
