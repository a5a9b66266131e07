"""Every table's Arrow schema, column by column, and `conform`.

The field metadata holds unit and meaning; `docs/tables.md` is generated from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from dedup.errors import SchemaError

REJECT_REASONS: Final = {
    "no_image": "the sample has no member that is an image",
    "empty_image": "the image has zero bytes",
    "undecodable_image": "the bytes are no image, or a broken one",
    "truncated_image": "the image ends before its last pixel",
    "unsupported_format": "an image format that is not read (only JPEG, PNG, WebP, GIF, BMP, TIFF are)",
    "too_many_pixels": "more pixels than input.max_pixels",
    "too_many_bytes": "more bytes than input.max_image_bytes",
    "duplicate_key": "the key occurred before in the same shard; the first one stays",
    "no_key": "a tar member whose name has no extension, so that it belongs to no sample",
    "bad_embedding": "the vector is not finite, or all 0",
}


def _field(name: str, kind: pa.DataType, meaning: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning, "unit": unit})


_SAMPLE_ID = _field("sample_id", pa.int64(), "identity inside the run: partition << 32 | row of the partition")
_COMPONENT_ID = _field("component_id", pa.int64(), "smallest sample_id of the group of copies; a unique sample's own sample_id")
_SHARD = _field(
    "shard",
    pa.string(),
    "URL of the tar the sample lies in, or of the file its precomputed embedding came from; a folder's URL ends with '/'",
)
_KEY = _field("key", pa.string(), "the sample's key: member name up to the first dot of its base name; relative path in a folder")
_CAPTION = _field("caption", pa.string(), "the caption, invalid UTF-8 replaced; null where there is none", nullable=True)
_URL = _field("url", pa.string(), "the image's address on the web as the shard has it", nullable=True)
_BYTE_OFFSET = _field(
    "byte_offset",
    pa.int64(),
    "where the image's bytes start in the tar; null in a compressed tar, or if not known",
    unit="bytes",
    nullable=True,
)
_N_BYTES = _field("n_bytes", pa.int64(), "size of the encoded image; 0 = not known", unit="bytes")
_COUNT = _field("duplication_count", pa.int64(), "samples in the group of copies, the keeper included; 1 = unique")

METADATA: Final = pa.schema(
    [
        _SAMPLE_ID,
        _SHARD,
        _KEY,
        _URL,
        _CAPTION,
        _field(
            "sha256", pa.string(), "SHA-256 of the image bytes in the tar, 64 hex digits; of the row for precomputed embeddings without one"
        ),
        _field(
            "width",
            pa.int32(),
            "width of the decoded image, EXIF orientation applied; 0 = not known (precomputed embeddings)",
            unit="pixels",
        ),
        _field(
            "height",
            pa.int32(),
            "height of the decoded image, EXIF orientation applied; 0 = not known (precomputed embeddings)",
            unit="pixels",
        ),
        _N_BYTES,
        _BYTE_OFFSET,
        _field(
            "quality",
            pa.float32(),
            "amount of detail, 0 (uniform) to 100; low-detail images follow a stricter rule; 100 for precomputed embeddings",
        ),
        _field("caption_similarity", pa.float32(), "cosine of image and caption; null where embed.text=false or no caption", nullable=True),
    ]
)
REJECTED: Final = pa.schema(
    [
        _SHARD,
        _KEY,
        _field("reason", pa.string(), "one word of the list of reasons below"),
        _field("detail", pa.string(), "what was found, for a person"),
    ]
)
PARTITIONS: Final = pa.schema(
    [
        _field("partition", pa.int32(), "number of the partition, given once"),
        _field("shard", pa.string(), "URL of the shard as expanded; a part of a folder ends with '/#NNNNN'"),
        _field("status", pa.string(), "ok, truncated (what stood before the break is kept) or unreadable"),
        _field("error", pa.string(), "why it is not ok", nullable=True),
        _field("n_samples", pa.int64(), "samples embedded from this shard"),
        _field("n_rejected", pa.int64(), "samples of this shard in rejected"),
    ]
)
REPRESENTATIVES: Final = pa.schema(
    [
        _SAMPLE_ID,
        _field("weight", pa.int64(), "samples with the same image bytes, this one (the smallest sample_id) included"),
        _field(
            "min_similarity",
            pa.float32(),
            "similarity this image asks of a copy: the threshold, higher for low-detail images, 2 = byte-identical copies only",
        ),
    ]
)
EXACT: Final = pa.schema(
    [
        _SAMPLE_ID,
        _field("representative_id", pa.int64(), "smallest sample_id with the same image bytes"),
    ]
)
ASSIGNMENTS: Final = pa.schema(
    [
        _SAMPLE_ID,
        _field("lists", pa.list_(pa.field("item", pa.int32(), nullable=False)), "the nearest inverted lists, nearest first"),
    ]
)
NEIGHBORS: Final = pa.schema(
    [
        _SAMPLE_ID,
        _field(
            "n_neighbors",
            pa.int64(),
            "other samples at similarity >= the threshold, byte-identical copies included; samples without any have no row",
        ),
    ]
)
_PAIR = [
    _field("src", pa.int64(), "sample_id of one end; src < dst"),
    _field("dst", pa.int64(), "sample_id of the other end"),
    _field("similarity", pa.float32(), "cosine of what was found alike (see source), from float64, -1 to 1"),
    _field("kind", pa.string(), "exact (equal image bytes) or near"),
    _field("variant", pa.string(), "how src was turned to meet dst: none, mirror, rotate90, …; rotated = by an angle not known yet"),
    _field(
        "source",
        pa.string(),
        "what was found alike: whole (the embeddings), look (a crop, the picture inside a frame, a turned copy), also and also_look (the same of the second source, embed.also), group (two of one group), or embedding (exact copies known by nothing else)",
    ),
]
_FOUND_BY = _field(
    "found_by",
    pa.string(),
    "of a candidate: the encoders whose threshold it reaches, such as clip, dct or clip+dct; null for pairs found later",
    nullable=True,
)
_TRANSFORM = _field(
    "transform",
    pa.list_(pa.field("item", pa.float32(), nullable=False)),
    "a, b, c, d, e, f: the point (x, y) of src, turned, lies at (ax + by + c, dx + ey + f) of dst, both 0 to 1 across the picture",
    nullable=True,
)
CANDIDATES: Final = pa.schema(_PAIR)
EDGES: Final = pa.schema(
    [
        *_PAIR,
        _FOUND_BY,
        _field("confirmed", pa.bool_(), "true where a second look at the pixels confirmed it; null where none was taken", nullable=True),
        _field("distance", pa.float32(), "how much the pictures' least agreeing parts differ, 0 to 1; null without a look", nullable=True),
        _TRANSFORM,
    ]
)
REFUSED: Final = pa.schema(
    [
        *_PAIR,
        _FOUND_BY,
        _field("reason", pa.string(), "why it is no copy: one word of the list of reasons below"),
        _field("distance", pa.float32(), "how much the pictures' least agreeing parts differ, 0 to 1", nullable=True),
        _field("moved", pa.float32(), "share of the tracked points that moved against the rest, 0 to 1", nullable=True),
        _TRANSFORM,
        _field("stage", pa.string(), "the stage that asked: confirm, groups or manifest"),
    ]
)
GROUPS: Final = pa.schema(
    [
        _SAMPLE_ID,
        _COMPONENT_ID,
        _field("raw_component_id", pa.int64(), "smallest sample_id of the connected component, before it is cut into groups"),
        _field("anchor_id", pa.int64(), "sample_id of the group's anchor, which every member was compared with"),
        _field("similarity_to_anchor", pa.float32(), "cosine to the group's anchor; 1 for the anchor and its byte-identical copies"),
        _field("distance_to_anchor", pa.float32(), "distance of the pixels to the anchor's; null where no look was taken", nullable=True),
    ]
)
MANIFEST: Final = pa.schema([*METADATA, _COMPONENT_ID, _COUNT])
DUPLICATES: Final = pa.schema(
    [
        *METADATA,
        _COMPONENT_ID,
        _COUNT,
        _field("keeper_id", pa.int64(), "sample_id of the kept sample this one is a copy of"),
        _field("keeper_shard", pa.string(), "shard of the keeper"),
        _field("keeper_key", pa.string(), "key of the keeper"),
        _field("similarity_to_keeper", pa.float32(), "cosine to the keeper; 1 for byte-identical copies"),
        _field("kind", pa.string(), "exact (same image bytes as the keeper) or near"),
        _field("distance_to_keeper", pa.float32(), "distance of the pixels to the keeper's; null where no look was taken", nullable=True),
    ]
)
_EXCLUSION = (
    _field("reason", pa.string(), "reference: near an image of reference.*; listed: named by exclude.list; copy: of a listed sample"),
    _field("excluded_by", pa.string(), "key of the reference image, or the entry of the list"),
    _field("reference_shard", pa.string(), "shard or folder of the reference image; null for entries of a list", nullable=True),
    _field(
        "similarity_to_reference",
        pa.float32(),
        "cosine to the reference image, or to the listed image; of looks where only these are alike; null for other entries",
        nullable=True,
    ),
    _field("distance_to_reference", pa.float32(), "how much the parts that agree least differ, 0 to 1; null without a look", nullable=True),
)
EXCLUSIONS: Final = pa.schema([_SAMPLE_ID, *_EXCLUSION])
EXCLUDED: Final = pa.schema([*METADATA, _COMPONENT_ID, _COUNT, *_EXCLUSION])
STATISTICS: Final = pa.schema(
    [
        _COMPONENT_ID,
        _COUNT,
        _field("n_exact", pa.int64(), "samples that are byte-identical to another of the group: duplication_count - distinct sha256"),
        _field("n_urls", pa.int64(), "distinct urls"),
        _field("n_captions", pa.int64(), "distinct captions"),
        _field("caption", pa.string(), "most frequent caption, ties by the smallest", nullable=True),
        _field("caption_share", pa.float64(), "share of the group's samples with that caption, 0 to 1", nullable=True),
        _field("min_similarity", pa.float32(), "smallest similarity to the group's anchor"),
        _field("mean_similarity", pa.float32(), "mean similarity to the group's anchor, the anchor left out"),
    ]
)
CAPTIONS: Final = pa.schema(
    [
        _COMPONENT_ID,
        _field("caption", pa.string(), "a caption of the group"),
        _field("n_samples", pa.int64(), "samples of the group that carry it"),
        _field(
            "caption_similarity",
            pa.float32(),
            "mean cosine of these samples' images and the caption; null without embed.text",
            nullable=True,
        ),
    ]
)
HISTOGRAM: Final = pa.schema(
    [
        _COUNT,
        _field("n_components", pa.int64(), "groups of that size; at 1, unique samples"),
        _field("n_images", pa.int64(), "samples in them"),
    ]
)
_TARGET_ID = _field("target_id", pa.string(), "of the table targets")
TARGET_CAPTIONS: Final = pa.schema(
    [
        _TARGET_ID,
        _field("place", pa.int32(), "1 = the most frequent caption of the target's group"),
        _field("caption", pa.string(), "a caption of the group; the prompt is one of them"),
        _field("n_samples", pa.int64(), "samples of the group that carry it"),
    ]
)
CANDIDATE_COUNTS: Final = pa.schema(
    [
        _field("found_by", pa.string(), "the encoders whose threshold the candidates reach, such as clip, dct or clip+dct"),
        _field("n_confirmed", pa.int64(), "candidates whose pixels confirmed them"),
        _field("n_refused", pa.int64(), "candidates whose pixels refused them"),
    ]
)
TARGETS: Final = pa.schema(
    [
        _field("rank", pa.int64(), "1 = first by targets.rank_by"),
        _field("target_id", pa.string(), "first 16 hex digits of the keeper's sha256: stable across runs"),
        _COMPONENT_ID,
        _field("caption", pa.string(), "the prompt: the group's most frequent caption that passes the filters"),
        _COUNT,
        _field("n_captions", pa.int64(), "distinct captions of the group"),
        _field("caption_share", pa.float64(), "share of the group's samples with the prompt as caption"),
        _field("n_caption_samples", pa.int64(), "samples of the whole data set with the prompt as caption"),
        _field(
            "n_neighbors", pa.int64(), "most similar samples that one image of the group has; null where none was counted", nullable=True
        ),
        _URL,
        _SHARD,
        _KEY,
        _BYTE_OFFSET,
        _N_BYTES,
        _field("n_generations", pa.int32(), "images to generate from the prompt"),
    ]
)

TABLES: Final = {
    "partitions": PARTITIONS,
    "metadata": METADATA,
    "rejected": REJECTED,
    "representatives": REPRESENTATIVES,
    "exact": EXACT,
    "assignments": ASSIGNMENTS,
    "neighbors": NEIGHBORS,
    "candidates": CANDIDATES,
    "edges": EDGES,
    "refused": REFUSED,
    "groups": GROUPS,
    "manifest": MANIFEST,
    "duplicates": DUPLICATES,
    "excluded": EXCLUDED,
    "exclusions": EXCLUSIONS,
    "statistics": STATISTICS,
    "captions": CAPTIONS,
    "histogram": HISTOGRAM,
    "candidate_counts": CANDIDATE_COUNTS,
    "targets": TARGETS,
    "target_captions": TARGET_CAPTIONS,
}

SCORES: Final = pa.schema(
    [
        _TARGET_ID,
        _field("component_id", pa.int64(), "the target's group", nullable=True),
        _field("duplication_count", pa.int64(), "samples in the group", nullable=True),
        _field("n_generations", pa.int32(), "generated images that were compared"),
        _field("n_rejected", pa.int32(), "generated images that did not decode, or are of one colour, as a safety filter returns them"),
        _field("n_resized", pa.int32(), "generated images of another size than most, stretched to that"),
        _field("clique_size", pa.int32(), "generations that are all one picture: largest clique of pairs within max_tile_distance"),
        _field("clique_is_exact", pa.bool_(), "false: the search for the clique ended at its bound, a larger one may exist"),
        _field("mean_distance", pa.float32(), "mean tiled l2 of the pairs inside the clique; null below two members", nullable=True),
        _field("is_memorized", pa.bool_(), "clique_size >= min_clique"),
        _field(
            "generation",
            pa.string(),
            "the generation nearest to the training image, of the clique if is_memorized, else of all",
            nullable=True,
        ),
        _field("l2", pa.float32(), "its distance to the training image, 0 to 1; null where that can't be read", nullable=True),
        _field("tiled_l2", pa.float32(), "the same, the largest over 16 tiles", nullable=True),
        _field("is_extracted", pa.bool_(), "tiled_l2 <= max_distance", nullable=True),
        _field(
            "eidetic_k",
            pa.int64(),
            "samples of the group whose image is within max_distance of that generation, by tiled l2",
            nullable=True,
        ),
        _field("status", pa.string(), "ok, no_generations, few_generations (fewer than 2) or no_training_image"),
        _field("detail", pa.string(), "what was missing, for a person", nullable=True),
    ]
)
GENERATIONS: Final = pa.schema(
    [
        _field("number", pa.int64(), "place of the target in the list"),
        _TARGET_ID,
        _field("name", pa.string(), "of the generated image: file name, or key in its tar"),
        _field("url", pa.string(), "the file, or the tar it lies in"),
        _field("byte_offset", pa.int64(), "where it starts", unit="bytes", nullable=True),
        _field("n_bytes", pa.int64(), "its size", unit="bytes"),
    ]
)
MEMBERS: Final = pa.schema(
    [
        _field("number", pa.int64(), "place of the target in the list"),
        _SHARD,
        _KEY,
        _BYTE_OFFSET,
        _N_BYTES,
        _field("n_samples", pa.int64(), "samples of the group with these image bytes"),
    ]
)
OUTLIERS: Final = pa.schema(
    [
        _field("rank", pa.int64(), "1 = farthest from all else: by outlierness or density_ratio, those with is_exact first"),
        _field("target_id", pa.string(), "first 16 hex digits of the image's sha256: as of the table targets"),
        _SAMPLE_ID,
        _COMPONENT_ID,
        _COUNT,
        _field("caption", pa.string(), "the sample's caption: the prompt", nullable=True),
        _URL,
        _SHARD,
        _KEY,
        _BYTE_OFFSET,
        _N_BYTES,
        _field("quality", pa.float32(), "amount of detail, 0 (uniform) to 100: images without any may lie apart too"),
        _field("outlierness", pa.float32(), "mean of 1 - cosine over its nearest neighbours, 0 to 2"),
        _field(
            "density_ratio",
            pa.float32(),
            "outlierness divided by the mean outlierness of those neighbours: above 1 = in a sparser place than they; null where that is 0",
            nullable=True,
        ),
        _field("nearest_id", pa.int64(), "sample_id of the nearest of the images compared; null where none was found", nullable=True),
        _field("nearest_similarity", pa.float32(), "cosine to it", nullable=True),
        _field("is_exact", pa.bool_(), "compared with every image; false: only within an inverted list, outlierness is an upper bound"),
    ]
)
IMAGES: Final = pa.schema(
    [
        _field("image_id", pa.int64(), "sample_id whose vector stands for the image: the smallest with these bytes"),
        _field("sample_id", pa.int64(), "the sample that is reported"),
    ]
)
NEIGHBOR_PAIRS: Final = pa.schema(
    [
        _field("image_id", pa.int64(), "an image"),
        _field("neighbor_id", pa.int64(), "image_id of one of its nearest neighbours"),
    ]
)
NEIGHBOR_MEANS: Final = pa.schema(
    [
        _field("image_id", pa.int64(), "an image"),
        _field("mean_distance", pa.float64(), "mean of 1 - cosine over its nearest neighbours; those not found count 2"),
        _field("nearest_id", pa.int64(), "image_id of the nearest", nullable=True),
        _field("nearest_similarity", pa.float32(), "cosine to it", nullable=True),
        _field("is_exact", pa.bool_(), "compared with every image"),
    ]
)
FLAGS: Final = pa.schema(
    [
        _field("image", pa.string(), "the image that was looked up: its path; of a tar's member the tar, a colon and the key"),
        _field("is_copy", pa.bool_(), "whether it is a copy of a training image, by `rule`; null where that is not known", nullable=True),
        _field(
            "rule",
            pa.string(),
            "pixels: it was compared with the training image; similarity: the run looks at no pixels; unreadable: the training image can't "
            "be read; none: no training image is within min_similarity, or it is no image",
        ),
        _field("sample_id", pa.int64(), "the training image: the copy, else the most similar", nullable=True),
        _field("key", pa.string(), "its key", nullable=True),
        _field("shard", pa.string(), "its shard", nullable=True),
        _URL,
        _field("caption", pa.string(), "its caption", nullable=True),
        _field("similarity", pa.float32(), "cosine, the largest over the views", nullable=True),
        _field("view", pa.string(), "how the image was looked at: none, mirror, rotate90, …, inner, crop, or two of them", nullable=True),
        _field(
            "distance", pa.float32(), "how much the parts that agree least differ, 0 to 1; a copy's is at most max_distance", nullable=True
        ),
        _field("l2", pa.float32(), "root mean square difference to the training image, stretched to its size, 0 to 1", nullable=True),
        _field("tiled_l2", pa.float32(), "the largest such difference over 16 tiles", nullable=True),
        _field("duplication_count", pa.int64(), "training samples in the group of copies", nullable=True),
        _field("component_id", pa.int64(), "that group", nullable=True),
        _field("is_kept", pa.bool_(), "whether the manifest keeps that training image", nullable=True),
        _field("min_similarity", pa.float32(), "cosine from which training images were looked at"),
        _field("max_distance", pa.float32(), "distance up to which they are copies"),
        _field("error", pa.string(), "why the image could not be looked up", nullable=True),
    ]
)
SWEEP: Final = pa.schema(
    [
        _field("threshold", pa.float64(), "cosine from which two images count as copies"),
        _field("n_samples", pa.int64(), "samples of the run"),
        _field(
            "n_removed", pa.int64(), "samples removed by similarity alone, one of each component staying; null: not known", nullable=True
        ),
        _field("share_removed", pa.float64(), "n_removed / n_samples", nullable=True),
        _field("n_confirmed", pa.int64(), "the same of the pairs that the run's look at the pixels let stand", nullable=True),
        _field("share_confirmed", pa.float64(), "n_confirmed / n_samples", nullable=True),
    ]
)
_INTERVAL = "end of its interval (95%)"
CALIBRATION: Final = pa.schema(
    [
        _field("threshold", pa.float64(), "cosine from which whole images are candidates: search.min_similarity"),
        _field(
            "n_counted",
            pa.int64(),
            "pairs of unrelated images at or above it that the sample holds; a pair of two sampled images counts twice",
        ),
        _field("expected_false", pa.float64(), "pairs of unrelated images at or above it among all images of the run"),
        _field("expected_false_low", pa.float64(), f"lower {_INTERVAL}"),
        _field("expected_false_high", pa.float64(), f"upper {_INTERVAL}"),
        _field("is_fitted", pa.bool_(), "true: from the fitted tail; false: from the pairs counted"),
        _field(
            "n_links",
            pa.int64(),
            "links of near copies the run has found at or above it: images they let go; of a threshold below the run's own as of that",
            nullable=True,
        ),
        _field(
            "precision_similarity", pa.float64(), "share of copies among what similarity alone joins; null where nothing is", nullable=True
        ),
        _field("precision_similarity_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        _field("precision_similarity_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        _field("precision_confirmed", pa.float64(), "the same after the look at the pixels; null where none is taken", nullable=True),
        _field("precision_confirmed_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        _field("precision_confirmed_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        _field(
            "recall", pa.float64(), "share of the planted copies whose vector reaches it; null where none could be planted", nullable=True
        ),
        _field("recall_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        _field("recall_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        _field("recall_looks", pa.float64(), "the same with second looks, which have a threshold of their own", nullable=True),
        _field("recall_confirmed", pa.float64(), "of these, found and confirmed by their pixels", nullable=True),
        _field("least_change", pa.string(), "the planted change with the least recall with second looks", nullable=True),
        _field("least_recall", pa.float64(), "that recall", nullable=True),
        _field(
            "share_removed",
            pa.float64(),
            "samples removed by similarity alone, one of each component staying; null below the run's own threshold",
            nullable=True,
        ),
        _field("share_confirmed", pa.float64(), "the same of the pairs that the run's look at the pixels let stand", nullable=True),
    ]
)
CALIBRATION_RECALLS: Final = pa.schema(
    [
        _field("change", pa.string(), "what was done to the copies: a name of dedup.numerics.planting"),
        _field("family", pa.string(), "what is done, whatever the strength"),
        _field("threshold", pa.float64(), "cosine from which whole images are candidates"),
        _field("n_copies", pa.int64(), "copies planted"),
        _field("recall", pa.float64(), "share of them whose vector reaches the threshold"),
        _field("recall_low", pa.float64(), f"lower {_INTERVAL}, after Wilson"),
        _field("recall_high", pa.float64(), f"upper {_INTERVAL}"),
        _field("recall_looks", pa.float64(), "share found by their vector or by second looks"),
        _field("recall_looks_low", pa.float64(), f"lower {_INTERVAL}"),
        _field("recall_looks_high", pa.float64(), f"upper {_INTERVAL}"),
        _field("n_judged", pa.int64(), "of the copies, those that were compared by their pixels, or would have been had they been found"),
        _field("recall_confirmed", pa.float64(), "share of these that is found and confirmed; null where none is judged", nullable=True),
        _field("recall_confirmed_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        _field("recall_confirmed_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
    ]
)
CALIBRATION_COPIES: Final = pa.schema(
    [
        _field("sample_id", pa.int64(), "the image that was copied"),
        _field("change", pa.string(), "what was done to the copy"),
        _field("similarity", pa.float32(), "cosine of the copy to the image"),
        _field(
            "min_similarity",
            pa.float32(),
            "what the copy asks for besides the threshold: 0; more for little detail; 2 = byte-identical copies only",
        ),
        _field("look_similarity", pa.float32(), "of the second looks that find it; null where none does", nullable=True),
        _field("is_judged", pa.bool_(), "whether it was chosen for the look at the pixels"),
        _field("is_copy", pa.bool_(), "what that said; null where it was not taken, or nothing would have found the copy", nullable=True),
        _field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
    ]
)
CALIBRATION_PAIRS: Final = pa.schema(
    [
        _field("src", pa.int64(), "sample_id of one end"),
        _field("dst", pa.int64(), "sample_id of the other end"),
        _field("similarity", pa.float32(), "cosine; of decoys that of the mirrored src, where the encoder tells it without another look"),
        _field(
            "is_decoy",
            pa.bool_(),
            "true: src was mirrored, so that the pair is none of copies; false: a pair of the sample in no group of copies together",
        ),
        _field("is_copy", pa.bool_(), "what the look at the pixels said; null where a picture can't be read", nullable=True),
        _field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
        _field("reason", pa.string(), "why it is no copy: as of `refused`"),
    ]
)

CARRIED_TYPES: Final = {
    "similarity": pa.float64(),
    "punsafe": pa.float64(),
    "pwatermark": pa.float64(),
    "aesthetic": pa.float64(),
    "original_width": pa.int64(),
    "original_height": pa.int64(),
}


def with_carried(schema: pa.Schema, carry: Sequence[str]) -> pa.Schema:
    """Append the carried columns to a schema that holds a sample per row.

    Parameters
    ----------
    schema : pyarrow.Schema
    carry : sequence of str
        Column names of `input.carry`; numbers where `CARRIED_TYPES` says so, strings otherwise. All nullable.

    Raises
    ------
    SchemaError
        If a carried column has the name of a column that is there already.
    """
    for name in carry:
        if name in schema.names:
            raise SchemaError(f"input.carry names '{name}', which every table has already; leave it out")
        meaning = {"meaning": "carried from the input", "unit": ""}
        schema = schema.append(pa.field(name, CARRIED_TYPES.get(name, pa.string()), metadata=meaning))
    return schema


def conform(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a batch to a schema: columns picked by name, cast by type, nulls checked.

    Parameters
    ----------
    batch : pyarrow.RecordBatch or pyarrow.Table
        Columns in any order; columns that the schema does not name are dropped.
    schema : pyarrow.Schema

    Returns
    -------
    pyarrow.Table
        Exactly the schema's columns, in its order.

    Raises
    ------
    SchemaError
        If a column is missing, can't be cast, or holds nulls where the schema allows none.
    """
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            raise SchemaError(f"column '{field.name}' is missing; expected {schema.names}, found {batch.schema.names}")
        column = batch.column(field.name)
        try:
            column = column if column.type.equals(field.type) else column.cast(field.type)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"column '{field.name}': expected {field.type}, found {column.type}: {error}") from error
        if column.null_count and not field.nullable:
            raise SchemaError(f"column '{field.name}' holds {column.null_count} nulls where none are allowed")
        columns.append(column)
    return pa.table(columns, schema=schema)
