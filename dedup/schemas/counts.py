"""Tables of duplication counts, and the attack's targets."""

from __future__ import annotations

from typing import Final

from dedup.schemas.fields import (
    BYTE_OFFSET,
    COMPONENT_ID,
    COUNT,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    KEY,
    N_BYTES,
    SHARD,
    TARGET_ID,
    TEXT,
    URL,
    field,
    schema,
)

STATISTICS: Final = schema(
    COMPONENT_ID,
    COUNT,
    field(
        "template_count",
        INT64,
        "samples of the same template, this group's included (templates/): duplication_count where none has other content",
    ),
    field(
        "scene_count",
        INT64,
        "samples of the same scene, this group's included (scenes/): duplication_count where none shows another moment",
    ),
    field("n_exact", INT64, "duplication_count minus the number of distinct sha256: samples beyond the first with the same bytes"),
    field("n_urls", INT64, "distinct urls"),
    field("n_captions", INT64, "distinct captions"),
    field("caption", TEXT, "most frequent caption; of several, the smallest text", nullable=True),
    field("caption_share", FLOAT64, "share of the group's samples with that caption, 0 to 1", nullable=True),
    field("min_similarity", FLOAT32, "smallest similarity to the group's anchor"),
    field("mean_similarity", FLOAT32, "mean similarity to the group's anchor, without the anchor itself"),
)
CAPTIONS: Final = schema(
    COMPONENT_ID,
    field("caption", TEXT, "a caption of the group"),
    field("n_samples", INT64, "samples of the group that carry it"),
    field("caption_similarity", FLOAT32, "mean cosine of the caption and these samples' images; null without embed.text", nullable=True),
)
HISTOGRAM: Final = schema(
    COUNT,
    field("n_components", INT64, "number of groups of that size; for 1, unique samples"),
    field("n_images", INT64, "number of samples in them"),
)
TARGET_CAPTIONS: Final = schema(
    TARGET_ID,
    field("place", INT32, "1 = the most frequent caption of the target's group"),
    field("caption", TEXT, "a caption of the group; the prompt is one of them"),
    field("n_samples", INT64, "samples of the group that carry it"),
)
EDIT_COUNTS: Final = schema(
    field("edit", TEXT, "what was done to copies: a name of docs/originality.md"),
    field("n_samples", INT64, "samples to which it was done; one may have several"),
    field("n_kept", INT64, "of these, samples that are kept: no copy of theirs has lost less"),
    field("n_dropped", INT64, "of these, dropped samples"),
)
CANDIDATE_COUNTS: Final = schema(
    field("found_by", TEXT, "the encoders whose threshold the candidates reach, such as clip, dct or clip+dct"),
    field("n_confirmed", INT64, "candidates confirmed by their pixels"),
    field("n_refused", INT64, "candidates refused by their pixels"),
)
TARGETS: Final = schema(
    field("rank", INT64, "1 = first by targets.rank_by"),
    field("target_id", TEXT, "first 16 hex digits of the keeper's sha256: stable across runs"),
    COMPONENT_ID,
    field("caption", TEXT, "the prompt: the group's most frequent caption that passes the filters"),
    COUNT,
    field("template_count", INT64, "samples of the same template, the group's included; duplication_count where none has other content"),
    field("n_captions", INT64, "distinct captions of the group"),
    field("caption_share", FLOAT64, "share of the group's samples with the prompt as caption"),
    field("n_caption_samples", INT64, "samples of the whole data set with the prompt as caption"),
    field("n_neighbors", INT64, "largest number of similar samples of one image of the group; null if not counted", nullable=True),
    URL,
    SHARD,
    KEY,
    BYTE_OFFSET,
    N_BYTES,
    field("n_generations", INT32, "images to generate from the prompt"),
)
