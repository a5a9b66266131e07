"""Tables that commands write beside a run: scores, outliers, flags, sweeps, threshold advice."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import BYTE_OFFSET, COMPONENT_ID, COUNT, KEY, N_BYTES, SAMPLE_ID, SHARD, TARGET_ID, URL, field

_INTERVAL = "end of its interval (95%)"

SCORES: Final = pa.schema(
    [
        TARGET_ID,
        field("component_id", pa.int64(), "the target's group", nullable=True),
        field("duplication_count", pa.int64(), "samples in the group", nullable=True),
        field("n_generations", pa.int32(), "generated images that were compared"),
        field("n_rejected", pa.int32(), "generated images that did not decode, or have one colour, as a safety filter returns"),
        field("n_resized", pa.int32(), "generated images of another size than most, stretched to that size"),
        field("clique_size", pa.int32(), "generations that are all one picture: largest clique of pairs within max_tile_distance"),
        field("clique_is_exact", pa.bool_(), "false: the search for the clique stopped at its limit; a larger one may exist"),
        field("mean_distance", pa.float32(), "mean tiled l2 of the pairs in the clique; null with fewer than two members", nullable=True),
        field("is_memorized", pa.bool_(), "clique_size >= min_clique"),
        field(
            "generation",
            pa.string(),
            "the generation nearest to the training image: of the clique if is_memorized, otherwise of all",
            nullable=True,
        ),
        field("l2", pa.float32(), "its distance to the training image, 0 to 1; null if that can't be read", nullable=True),
        field("tiled_l2", pa.float32(), "the same, the largest over 16 tiles", nullable=True),
        field("is_extracted", pa.bool_(), "tiled_l2 <= max_distance", nullable=True),
        field(
            "eidetic_k",
            pa.int64(),
            "samples of the group whose image is within max_distance of that generation, by tiled l2",
            nullable=True,
        ),
        field("status", pa.string(), "ok, no_generations, few_generations (fewer than 2) or no_training_image"),
        field("detail", pa.string(), "what was missing, for people to read", nullable=True),
    ]
)

GENERATIONS: Final = pa.schema(
    [
        field("number", pa.int64(), "place of the target in the list"),
        TARGET_ID,
        field("name", pa.string(), "of the generated image: file name, or key in its tar"),
        field("url", pa.string(), "the file, or the tar that holds it"),
        field("byte_offset", pa.int64(), "where it starts", unit="bytes", nullable=True),
        field("n_bytes", pa.int64(), "its size", unit="bytes"),
    ]
)

MEMBERS: Final = pa.schema(
    [
        field("number", pa.int64(), "place of the target in the list"),
        SHARD,
        KEY,
        BYTE_OFFSET,
        N_BYTES,
        field("n_samples", pa.int64(), "samples of the group with these image bytes"),
    ]
)

OUTLIERS: Final = pa.schema(
    [
        field("rank", pa.int64(), "1 = farthest from all others, by outlierness or density_ratio; those with is_exact come first"),
        field("target_id", pa.string(), "first 16 hex digits of the image's sha256, as in the table targets"),
        SAMPLE_ID,
        COMPONENT_ID,
        COUNT,
        field("caption", pa.string(), "the sample's caption: the prompt", nullable=True),
        URL,
        SHARD,
        KEY,
        BYTE_OFFSET,
        N_BYTES,
        field("quality", pa.float32(), "amount of detail, 0 (uniform) to 100: images without any may be outliers too"),
        field("outlierness", pa.float32(), "mean of 1 - cosine over its nearest neighbours, 0 to 2"),
        field(
            "density_ratio",
            pa.float32(),
            "outlierness divided by the mean outlierness of those neighbours; above 1 = in a sparser place than they are; null if that mean is 0",
            nullable=True,
        ),
        field("nearest_id", pa.int64(), "sample_id of the nearest image; null if none was found", nullable=True),
        field("nearest_similarity", pa.float32(), "cosine to it", nullable=True),
        field(
            "is_exact",
            pa.bool_(),
            "whether it was compared with every image; false: only within inverted lists, so outlierness is an upper bound",
        ),
    ]
)

IMAGES: Final = pa.schema(
    [
        field("image_id", pa.int64(), "sample_id whose vector represents the image: the smallest with these bytes"),
        field("sample_id", pa.int64(), "the sample that is reported"),
    ]
)

NEIGHBOR_PAIRS: Final = pa.schema(
    [
        field("image_id", pa.int64(), "an image"),
        field("neighbor_id", pa.int64(), "image_id of one of its nearest neighbours"),
    ]
)

NEIGHBOR_MEANS: Final = pa.schema(
    [
        field("image_id", pa.int64(), "an image"),
        field("mean_distance", pa.float64(), "mean of 1 - cosine over its nearest neighbours; missing ones count as 2"),
        field("nearest_id", pa.int64(), "image_id of the nearest", nullable=True),
        field("nearest_similarity", pa.float32(), "cosine to it", nullable=True),
        field("is_exact", pa.bool_(), "compared with every image"),
    ]
)

FLAGS: Final = pa.schema(
    [
        field("image", pa.string(), "the image: its path; in a tar, the tar, a colon and the key"),
        field("is_copy", pa.bool_(), "whether it is a copy of a training image, by `rule`; null if not known", nullable=True),
        field(
            "rule",
            pa.string(),
            "pixels: the judge compared it with the training image; similarity: the run does not judge pixels; unreadable: the training image "
            "can't be read; none: no training image reaches min_similarity, or it is not an image",
        ),
        field("sample_id", pa.int64(), "the training image it is a copy of, otherwise the most similar one", nullable=True),
        field("key", pa.string(), "its key", nullable=True),
        field("shard", pa.string(), "its shard", nullable=True),
        URL,
        field("caption", pa.string(), "its caption", nullable=True),
        field("similarity", pa.float32(), "cosine, the largest over the views", nullable=True),
        field("view", pa.string(), "the view that matched: none, mirror, rotate90, …, inner, crop, or two of them", nullable=True),
        field(
            "distance",
            pa.float32(),
            "distance of the pixels: how much the parts that agree least differ, 0 to 1; at most max_distance for a copy",
            nullable=True,
        ),
        field("l2", pa.float32(), "root mean square difference to the training image, stretched to its size, 0 to 1", nullable=True),
        field("tiled_l2", pa.float32(), "the largest such difference over 16 tiles", nullable=True),
        field("duplication_count", pa.int64(), "training samples in the group of copies", nullable=True),
        field("component_id", pa.int64(), "that group", nullable=True),
        field("is_kept", pa.bool_(), "whether that training image is kept", nullable=True),
        field("min_similarity", pa.float32(), "cosine from which training images count as matches"),
        field("max_distance", pa.float32(), "largest distance of a copy"),
        field("error", pa.string(), "why the image could not be looked up", nullable=True),
    ]
)

SWEEP: Final = pa.schema(
    [
        field("threshold", pa.float64(), "cosine from which a pair of images is a candidate"),
        field("n_samples", pa.int64(), "samples of the run"),
        field(
            "n_removed", pa.int64(), "samples removed by similarity alone if one of each component is kept; null = not known", nullable=True
        ),
        field("share_removed", pa.float64(), "n_removed / n_samples", nullable=True),
        field("n_confirmed", pa.int64(), "the same with only the pairs that the run's judge confirmed", nullable=True),
        field("share_confirmed", pa.float64(), "n_confirmed / n_samples", nullable=True),
    ]
)

CALIBRATION: Final = pa.schema(
    [
        field("threshold", pa.float64(), "cosine from which whole images are candidates: search.min_similarity"),
        field(
            "n_counted",
            pa.int64(),
            "pairs of unrelated images at or above it in the sample; a pair of two sampled images counts twice",
        ),
        field("expected_false", pa.float64(), "pairs of unrelated images at or above it among all images of the run"),
        field("expected_false_low", pa.float64(), f"lower {_INTERVAL}"),
        field("expected_false_high", pa.float64(), f"upper {_INTERVAL}"),
        field("is_fitted", pa.bool_(), "true: from the fitted tail; false: from the pairs counted"),
        field(
            "n_links",
            pa.int64(),
            "links of near copies that the run found at or above it: images dropped because of them; below the run's own threshold, the number at that threshold",
            nullable=True,
        ),
        field(
            "precision_similarity",
            pa.float64(),
            "share of copies among what similarity alone joins; null if it joins nothing",
            nullable=True,
        ),
        field("precision_similarity_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("precision_similarity_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field("precision_confirmed", pa.float64(), "the same after the judge; null if the run does not judge pixels", nullable=True),
        field("precision_confirmed_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("precision_confirmed_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field("recall", pa.float64(), "share of the planted copies whose vector reaches it; null if none could be planted", nullable=True),
        field("recall_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("recall_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field("recall_looks", pa.float64(), "the same including views, which have a threshold of their own", nullable=True),
        field("recall_confirmed", pa.float64(), "of these, found and confirmed by their pixels", nullable=True),
        field("least_change", pa.string(), "the planted change with the lowest recall, views included", nullable=True),
        field("least_recall", pa.float64(), "that recall", nullable=True),
        field(
            "share_removed",
            pa.float64(),
            "share of samples removed by similarity alone if one of each component is kept; null below the run's own threshold",
            nullable=True,
        ),
        field("share_confirmed", pa.float64(), "the same with only the pairs that the run's judge confirmed", nullable=True),
    ]
)

CALIBRATION_RECALLS: Final = pa.schema(
    [
        field("change", pa.string(), "the change: a name in dedup.numerics.image.planting"),
        field("family", pa.string(), "the kind of change, whatever its strength"),
        field("threshold", pa.float64(), "cosine from which whole images are candidates"),
        field("n_copies", pa.int64(), "copies planted"),
        field("recall", pa.float64(), "share of them whose vector reaches the threshold"),
        field("recall_low", pa.float64(), f"lower {_INTERVAL}, after Wilson"),
        field("recall_high", pa.float64(), f"upper {_INTERVAL}"),
        field("recall_looks", pa.float64(), "share found by their vector or by views"),
        field("recall_looks_low", pa.float64(), f"lower {_INTERVAL}"),
        field("recall_looks_high", pa.float64(), f"upper {_INTERVAL}"),
        field("n_judged", pa.int64(), "copies that were judged, or would have been if they had been found"),
        field("recall_confirmed", pa.float64(), "share of these that is found and confirmed; null if none is judged", nullable=True),
        field("recall_confirmed_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("recall_confirmed_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
    ]
)

CALIBRATION_COPIES: Final = pa.schema(
    [
        field("sample_id", pa.int64(), "the image that was copied"),
        field("change", pa.string(), "what was done to the copy"),
        field("similarity", pa.float32(), "cosine of the copy to the image"),
        field(
            "min_similarity",
            pa.float32(),
            "similarity that the copy needs besides the threshold: 0; more for little detail; 2 = byte-identical copies only",
        ),
        field("look_similarity", pa.float32(), "similarity of the views that find it; null if none does", nullable=True),
        field("is_judged", pa.bool_(), "whether it was chosen to be judged"),
        field("is_copy", pa.bool_(), "the verdict; null if not judged, or if nothing would have found the copy", nullable=True),
        field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
    ]
)

CALIBRATION_PAIRS: Final = pa.schema(
    [
        field("src", pa.int64(), "sample_id of one end"),
        field("dst", pa.int64(), "sample_id of the other end"),
        field("similarity", pa.float32(), "cosine; for decoys, that of the mirrored src, if the encoder can turn its vectors"),
        field(
            "is_decoy",
            pa.bool_(),
            "true: src was mirrored, so the two are not copies; false: a pair of the sample that shares no group of copies",
        ),
        field("is_copy", pa.bool_(), "the verdict; null if a picture can't be read", nullable=True),
        field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
        field("reason", pa.string(), "why they are not copies, as in the table refused"),
    ]
)
