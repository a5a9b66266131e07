"""SQL over neighbours and their mean distances: bounds, density ratios, ranks."""

from __future__ import annotations

_COUNTS = "(SELECT component_id, count(*) AS duplication_count FROM groups GROUP BY component_id) AS counts"
ROWS_SQL = {
    # image_id: the sample whose vector is in the lists
    False: """
    SELECT manifest.*, COALESCE(exact.representative_id, manifest.sample_id) AS image_id
    FROM manifest LEFT JOIN exact ON manifest.sample_id = exact.sample_id
    """,
    True: f"""
    SELECT metadata.*, metadata.sample_id AS image_id, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
           COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count
    FROM representatives
    JOIN metadata ON representatives.sample_id = metadata.sample_id
    LEFT JOIN groups ON metadata.sample_id = groups.sample_id
    LEFT JOIN {_COUNTS} ON groups.component_id = counts.component_id
    """,  # noqa: S608 (names of our own columns only)
}
IMAGES_SQL = "SELECT image_id, min(sample_id) AS sample_id FROM ({rows}) AS kept GROUP BY image_id ORDER BY image_id"
BOUNDS_SQL = """
SELECT images.image_id AS image_id, COALESCE(means.mean_distance, CAST({opposite} AS DOUBLE)) AS mean_distance,
       means.nearest_id AS nearest_id, means.nearest_similarity AS nearest_similarity, COALESCE(means.is_exact, FALSE) AS is_exact
FROM images LEFT JOIN means ON images.image_id = means.image_id
ORDER BY image_id
"""
RATIOS_SQL = """
SELECT pairs.image_id AS image_id, own.mean_distance / NULLIF(avg(other.mean_distance), 0) AS density_ratio
FROM pairs
JOIN bounds AS own ON pairs.image_id = own.image_id
JOIN bounds AS other ON pairs.neighbor_id = other.image_id
GROUP BY pairs.image_id, own.mean_distance
"""
LARGEST_SQL = {
    "mean": "SELECT image_id, mean_distance AS value FROM bounds ORDER BY value DESC NULLS LAST, image_id LIMIT {n}",
    "ratio": "SELECT image_id, density_ratio AS value FROM ({ratios}) AS found ORDER BY value DESC NULLS LAST, image_id LIMIT {n}",
}
BEST_KNOWN_SQL = {
    "means": """
    SELECT * FROM exact_means
    UNION ALL
    SELECT bounds.* FROM bounds LEFT JOIN exact_means ON bounds.image_id = exact_means.image_id WHERE exact_means.image_id IS NULL
    """,
    "pairs": """
    SELECT * FROM exact_pairs
    UNION ALL
    SELECT pairs.* FROM pairs LEFT JOIN exact_means ON pairs.image_id = exact_means.image_id WHERE exact_means.image_id IS NULL
    """,
}
OUTLIERS_SQL = """
SELECT ranked.place AS rank, substr(kept.sha256, 1, 16) AS target_id, ranked.sample_id AS sample_id, kept.component_id AS component_id,
       kept.duplication_count AS duplication_count, kept.caption AS caption, kept.url AS url, kept.shard AS shard, kept.key AS key,
       kept.byte_offset AS byte_offset, kept.n_bytes AS n_bytes, kept.quality AS quality, ranked.outlierness AS outlierness,
       ranked.density_ratio AS density_ratio, nearest.sample_id AS nearest_id, ranked.nearest_similarity AS nearest_similarity,
       ranked.is_exact AS is_exact
FROM (
  SELECT found.*, row_number() OVER (ORDER BY CAST(is_exact AS INTEGER) DESC NULLS LAST, {by} DESC NULLS LAST,
                                     sample_id ASC NULLS LAST) AS place
  FROM (
    SELECT images.sample_id AS sample_id, CAST(bounds.mean_distance AS FLOAT) AS outlierness,
           CAST(ratios.density_ratio AS FLOAT) AS density_ratio, bounds.nearest_id AS nearest_image,
           bounds.nearest_similarity AS nearest_similarity, bounds.is_exact AS is_exact
    FROM bounds
    JOIN images ON bounds.image_id = images.image_id
    LEFT JOIN ({ratios}) AS ratios ON bounds.image_id = ratios.image_id
  ) AS found
) AS ranked
JOIN ({rows}) AS kept ON ranked.sample_id = kept.sample_id
LEFT JOIN images AS nearest ON ranked.nearest_image = nearest.image_id
WHERE ranked.place <= {top}
ORDER BY ranked.place
"""
