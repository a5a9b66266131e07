"""Tables with a row for each sample or shard."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import (
    BYTE_OFFSET,
    CAPTION,
    CAPTIONS,
    COMPONENT_ID,
    COUNT,
    FILE,
    FIRST_IMAGE_ID,
    FLOAT32,
    INT32,
    INT64,
    KEY,
    MEMBER,
    N_BYTES,
    N_IMAGES,
    PIXEL_DISTANCE,
    ROW,
    SAMPLE_ID,
    SHARD,
    TEXT,
    TEXTS,
    URL,
    field,
    schema,
)

REJECT_REASONS: Final = {
    "no_image": "the sample has no member that is an image",
    "empty_image": "the image has zero bytes",
    "undecodable_image": "the bytes are not an image, or a broken one",
    "truncated_image": "the image ends before its last pixel",
    "unsupported_format": "a format, or a kind of it, that is not read; the detail says which, and what would read it",
    "decoder_crashed": "decoding it ended the process that decodes, or took too much time or memory",
    "too_many_pixels": "more pixels than input.max_pixels",
    "too_many_bytes": "more bytes than input.max_image_bytes",
    "duplicate_key": "the key occurred before in the same shard; the first sample with it is used",
    "no_key": "a tar member whose name has no extension, so it belongs to no sample, and whose bytes are no image's",
    "bad_embedding": "the vector is not finite, or all 0",
}

WITHOUT_IMAGE: Final = ("no_image", "duplicate_key", "no_key")  # reasons for which a sample counts, but no image of it

METADATA: Final = schema(
    SAMPLE_ID,
    SHARD,
    KEY,
    MEMBER,
    N_IMAGES,
    FIRST_IMAGE_ID,
    URL,
    CAPTION,
    CAPTIONS,
    field("sha256", TEXT, "SHA-256 of the image bytes in the tar, 64 hex digits; for precomputed embeddings without one, of the row"),
    field(
        "width",
        INT32,
        "width of the decoded image, of one frame if it has several; EXIF orientation applied; 0 = not known (precomputed embeddings)",
        unit="pixels",
    ),
    field(
        "height",
        INT32,
        "height of the decoded image, of one frame if it has several; EXIF orientation applied; 0 = not known (precomputed embeddings)",
        unit="pixels",
    ),
    field(
        "n_frames",
        INT32,
        "frames of an animation or pages of the file, up to 65,536; 1 = a still; null = not known (precomputed embeddings)",
        nullable=True,
    ),
    field("format", TEXT, "format of the file, such as JPEG or PNG; null = not known (precomputed embeddings)", nullable=True),
    field("jpeg_quality", INT32, "quality of a JPEG, 1 to 100, from its quantisation table; null for other formats", nullable=True),
    field(
        "exif_date", TEXT, "when the photograph was taken, as a JPEG's EXIF says: YYYY-MM-DD HH:MM:SS; null if it does not", nullable=True
    ),
    field(
        "mtime",
        INT64,
        "when the file was last changed, as the disk or the tar says; null if it does not, in object stores and for rows of tables",
        unit="seconds since 1970",
        nullable=True,
    ),
    N_BYTES,
    BYTE_OFFSET,
    FILE,
    ROW,
    field(
        "quality", FLOAT32, "amount of detail, 0 (uniform) to 100; low-detail images follow a stricter rule; 100 for precomputed embeddings"
    ),
    field("caption_similarity", FLOAT32, "cosine of image and caption; null with embed.text=false or without a caption", nullable=True),
)
REJECTED: Final = schema(
    SHARD,
    KEY,
    MEMBER,
    field("reason", TEXT, "one of the reasons below"),
    field("detail", TEXT, "details, for people to read"),
)
PARTITIONS: Final = schema(
    field("partition", INT32, "number of the partition"),
    field("shard", TEXT, "URL of the shard, expanded; a part of a folder ends with '/#' and what tells it from others"),
    field("status", TEXT, "ok, truncated (samples before the break are used) or unreadable"),
    field("error", TEXT, "why it is not ok", nullable=True),
    field("n_samples", INT64, "samples embedded from this shard"),
    field("n_rejected", INT64, "rejected samples of this shard"),
    field("n_late", INT64, "samples some of whose members stand apart from the others: the tar is not sorted by name"),
)
_ORIGINALITY = field(
    "originality", FLOAT32, "what is left of the picture, 1 = as much as any copy of the group has; null if not compared", nullable=True
)
_EDITS = field(
    "edits",
    TEXTS,
    "what was done to it, as the other copies of its group show: names of docs/originality.md; null if not compared",
    nullable=True,
)
_GROUP_CAPTIONS = field(
    "group_captions",
    pa.list_(pa.struct([pa.field("caption", TEXT), pa.field("n_samples", INT64)])),
    "all captions of its group, dropped copies' too and excluded ones' not, the most frequent first; null for a unique sample",
    nullable=True,
)
MANIFEST: Final = schema(*METADATA, COMPONENT_ID, COUNT, _ORIGINALITY, _EDITS, _GROUP_CAPTIONS)
DUPLICATES: Final = schema(
    *METADATA,
    COMPONENT_ID,
    COUNT,
    _ORIGINALITY,
    _EDITS,
    field("keeper_id", INT64, "sample_id of the kept sample this one is a copy of"),
    field("keeper_shard", TEXT, "shard of the keeper"),
    field("keeper_key", TEXT, "key of the keeper"),
    field("similarity_to_keeper", FLOAT32, "cosine to the keeper; 1 for byte-identical copies"),
    field("kind", TEXT, "exact (same image bytes as the keeper) or near; with keep.templates or keep.scenes also template or scene"),
    field("distance_to_keeper", FLOAT32, "distance of the pixels to the keeper's; null if not judged", nullable=True),
)
_EXCLUSION = (
    field(
        "reason",
        TEXT,
        "reference: near an image of exclude.reference_*; listed: named by exclude.list; copy: a copy of a listed sample; "
        "sample: another image of its sample is excluded",
    ),
    field("excluded_by", TEXT, "key of the reference image, or the entry of the list"),
    field("reference_shard", TEXT, "shard or folder of the reference image; null for entries of a list", nullable=True),
    field(
        "similarity_to_reference",
        FLOAT32,
        "cosine to the reference image or listed image, of views if only these are similar; null for other entries",
        nullable=True,
    ),
    field("distance_to_reference", FLOAT32, f"{PIXEL_DISTANCE}; null if not judged", nullable=True),
)
EDITS: Final = schema(
    SAMPLE_ID,
    COMPONENT_ID,
    _EDITS,
    _ORIGINALITY,
    field("shown", FLOAT32, "share of the picture that it shows, beside the copy that shows most; null as above", nullable=True),
    field("framed", FLOAT32, "share of its area that is a frame, more than the least framed copy has; null as above", nullable=True),
    field("overlaid", FLOAT32, "share of the picture that is covered, more than of the least covered copy; null as above", nullable=True),
    field("colour", FLOAT32, "chroma left, beside the copy with most; null as above", nullable=True),
    field("resolution", FLOAT32, "pixels to a side with detail, beside the copy with most; null as above", nullable=True),
)
EXCLUSIONS: Final = schema(SAMPLE_ID, *_EXCLUSION)
EXCLUDED: Final = schema(*METADATA, COMPONENT_ID, COUNT, _ORIGINALITY, _EDITS, *_EXCLUSION)
