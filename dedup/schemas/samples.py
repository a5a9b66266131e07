"""Tables with a row for each sample or shard."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import BYTE_OFFSET, CAPTION, COMPONENT_ID, COUNT, KEY, N_BYTES, SAMPLE_ID, SHARD, URL, field

REJECT_REASONS: Final = {
    "no_image": "the sample has no member that is an image",
    "empty_image": "the image has zero bytes",
    "undecodable_image": "the bytes are not an image, or a broken one",
    "truncated_image": "the image ends before its last pixel",
    "unsupported_format": "an unsupported image format (supported: JPEG, PNG, WebP, GIF, BMP, TIFF)",
    "decoder_crashed": "decoding it ended the process that decodes, or took too much time or memory",
    "too_many_pixels": "more pixels than input.max_pixels",
    "too_many_bytes": "more bytes than input.max_image_bytes",
    "duplicate_key": "the key occurred before in the same shard; the first sample with it is used",
    "no_key": "a tar member whose name has no extension, so it belongs to no sample",
    "bad_embedding": "the vector is not finite, or all 0",
}

METADATA: Final = pa.schema(
    [
        SAMPLE_ID,
        SHARD,
        KEY,
        URL,
        CAPTION,
        field(
            "sha256",
            pa.string(),
            "SHA-256 of the image bytes in the tar, 64 hex digits; for precomputed embeddings without one, of the row",
        ),
        field(
            "width",
            pa.int32(),
            "width of the decoded image, EXIF orientation applied; 0 = not known (precomputed embeddings)",
            unit="pixels",
        ),
        field(
            "height",
            pa.int32(),
            "height of the decoded image, EXIF orientation applied; 0 = not known (precomputed embeddings)",
            unit="pixels",
        ),
        N_BYTES,
        BYTE_OFFSET,
        field(
            "quality",
            pa.float32(),
            "amount of detail, 0 (uniform) to 100; low-detail images follow a stricter rule; 100 for precomputed embeddings",
        ),
        field(
            "caption_similarity",
            pa.float32(),
            "cosine of image and caption; null with embed.text=false or without a caption",
            nullable=True,
        ),
    ]
)
REJECTED: Final = pa.schema(
    [
        SHARD,
        KEY,
        field("reason", pa.string(), "one of the reasons below"),
        field("detail", pa.string(), "details, for people to read"),
    ]
)
PARTITIONS: Final = pa.schema(
    [
        field("partition", pa.int32(), "number of the partition"),
        field("shard", pa.string(), "URL of the shard, expanded; a part of a folder ends with '/#NNNNN'"),
        field("status", pa.string(), "ok, truncated (samples before the break are used) or unreadable"),
        field("error", pa.string(), "why it is not ok", nullable=True),
        field("n_samples", pa.int64(), "samples embedded from this shard"),
        field("n_rejected", pa.int64(), "rejected samples of this shard"),
    ]
)
MANIFEST: Final = pa.schema([*METADATA, COMPONENT_ID, COUNT])
DUPLICATES: Final = pa.schema(
    [
        *METADATA,
        COMPONENT_ID,
        COUNT,
        field("keeper_id", pa.int64(), "sample_id of the kept sample this one is a copy of"),
        field("keeper_shard", pa.string(), "shard of the keeper"),
        field("keeper_key", pa.string(), "key of the keeper"),
        field("similarity_to_keeper", pa.float32(), "cosine to the keeper; 1 for byte-identical copies"),
        field("kind", pa.string(), "exact (same image bytes as the keeper) or near"),
        field("distance_to_keeper", pa.float32(), "distance of the pixels to the keeper's; null if not judged", nullable=True),
    ]
)
_EXCLUSION = (
    field(
        "reason",
        pa.string(),
        "reference: near an image of exclude.reference_*; listed: named by exclude.list; copy: a copy of a listed sample",
    ),
    field("excluded_by", pa.string(), "key of the reference image, or the entry of the list"),
    field("reference_shard", pa.string(), "shard or folder of the reference image; null for entries of a list", nullable=True),
    field(
        "similarity_to_reference",
        pa.float32(),
        "cosine to the reference image or listed image, of views if only these are similar; null for other entries",
        nullable=True,
    ),
    field(
        "distance_to_reference",
        pa.float32(),
        "distance of the pixels: how much the parts that agree least differ, 0 to 1; null if not judged",
        nullable=True,
    ),
)
EXCLUSIONS: Final = pa.schema([SAMPLE_ID, *_EXCLUSION])
EXCLUDED: Final = pa.schema([*METADATA, COMPONENT_ID, COUNT, *_EXCLUSION])
