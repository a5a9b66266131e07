"""Tables of duplication counts, and the attack's targets."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import BYTE_OFFSET, COMPONENT_ID, COUNT, KEY, N_BYTES, SHARD, TARGET_ID, URL, field

STATISTICS: Final = pa.schema(
    [
        COMPONENT_ID,
        COUNT,
        field("n_exact", pa.int64(), "duplication_count minus the number of distinct sha256: samples beyond the first with the same bytes"),
        field("n_urls", pa.int64(), "distinct urls"),
        field("n_captions", pa.int64(), "distinct captions"),
        field("caption", pa.string(), "most frequent caption; of several, the smallest text", nullable=True),
        field("caption_share", pa.float64(), "share of the group's samples with that caption, 0 to 1", nullable=True),
        field("min_similarity", pa.float32(), "smallest similarity to the group's anchor"),
        field("mean_similarity", pa.float32(), "mean similarity to the group's anchor, without the anchor itself"),
    ]
)
CAPTIONS: Final = pa.schema(
    [
        COMPONENT_ID,
        field("caption", pa.string(), "a caption of the group"),
        field("n_samples", pa.int64(), "samples of the group that carry it"),
        field(
            "caption_similarity",
            pa.float32(),
            "mean cosine of the caption and these samples' images; null without embed.text",
            nullable=True,
        ),
    ]
)
HISTOGRAM: Final = pa.schema(
    [
        COUNT,
        field("n_components", pa.int64(), "number of groups of that size; for 1, unique samples"),
        field("n_images", pa.int64(), "number of samples in them"),
    ]
)
TARGET_CAPTIONS: Final = pa.schema(
    [
        TARGET_ID,
        field("place", pa.int32(), "1 = the most frequent caption of the target's group"),
        field("caption", pa.string(), "a caption of the group; the prompt is one of them"),
        field("n_samples", pa.int64(), "samples of the group that carry it"),
    ]
)
CANDIDATE_COUNTS: Final = pa.schema(
    [
        field("found_by", pa.string(), "the encoders whose threshold the candidates reach, such as clip, dct or clip+dct"),
        field("n_confirmed", pa.int64(), "candidates confirmed by their pixels"),
        field("n_refused", pa.int64(), "candidates refused by their pixels"),
    ]
)
TARGETS: Final = pa.schema(
    [
        field("rank", pa.int64(), "1 = first by targets.rank_by"),
        field("target_id", pa.string(), "first 16 hex digits of the keeper's sha256: stable across runs"),
        COMPONENT_ID,
        field("caption", pa.string(), "the prompt: the group's most frequent caption that passes the filters"),
        COUNT,
        field("n_captions", pa.int64(), "distinct captions of the group"),
        field("caption_share", pa.float64(), "share of the group's samples with the prompt as caption"),
        field("n_caption_samples", pa.int64(), "samples of the whole data set with the prompt as caption"),
        field("n_neighbors", pa.int64(), "largest number of similar samples of one image of the group; null if not counted", nullable=True),
        URL,
        SHARD,
        KEY,
        BYTE_OFFSET,
        N_BYTES,
        field("n_generations", pa.int32(), "images to generate from the prompt"),
    ]
)
