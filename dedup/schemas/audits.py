"""Tables that commands write beside a run: scores, outliers, flags, sweeps, threshold advice."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import (
    BOOL,
    BYTE_OFFSET,
    COMPONENT_ID,
    COUNT,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    KEY,
    N_BYTES,
    PIXEL_DISTANCE,
    SAMPLE_ID,
    SHARD,
    TARGET_ID,
    TEXT,
    URL,
    field,
    schema,
)


def _interval(name: str, *, how: str = "", nullable: bool = False) -> tuple[pa.Field, pa.Field]:
    """Columns of both ends of the interval of a column."""
    end = "end of its interval (95%)"
    return (
        field(f"{name}_low", FLOAT64, f"lower {end}{how}", nullable=nullable),
        field(f"{name}_high", FLOAT64, f"upper {end}", nullable=nullable),
    )


SCORES: Final = schema(
    TARGET_ID,
    field("component_id", INT64, "the target's group", nullable=True),
    field("duplication_count", INT64, "samples in the group", nullable=True),
    field("n_generations", INT32, "generated images that were compared"),
    field("n_rejected", INT32, "generated images that did not decode, or have one colour, as a safety filter returns"),
    field("n_resized", INT32, "generated images of another size than most, stretched to that size"),
    field("clique_size", INT32, "generations that are all one picture: largest clique of pairs within max_tile_distance"),
    field("clique_is_exact", BOOL, "false: the search for the clique stopped at its limit; a larger one may exist"),
    field("mean_distance", FLOAT32, "mean tiled l2 of the pairs in the clique; null with fewer than two members", nullable=True),
    field("is_memorized", BOOL, "clique_size >= min_clique"),
    field(
        "generation", TEXT, "the generation nearest to the training image: of the clique if is_memorized, otherwise of all", nullable=True
    ),
    field("l2", FLOAT32, "its distance to the training image, 0 to 1; null if that can't be read", nullable=True),
    field("tiled_l2", FLOAT32, "the same, the largest over 16 tiles", nullable=True),
    field("is_extracted", BOOL, "tiled_l2 <= max_distance", nullable=True),
    field("eidetic_k", INT64, "samples of the group whose image is within max_distance of that generation, by tiled l2", nullable=True),
    field("status", TEXT, "ok, no_generations, few_generations (fewer than 2) or no_training_image"),
    field("detail", TEXT, "what was missing, for people to read", nullable=True),
)

GENERATIONS: Final = schema(
    field("number", INT64, "place of the target in the list"),
    TARGET_ID,
    field("name", TEXT, "of the generated image: file name, or key in its tar"),
    field("url", TEXT, "the file, or the tar that holds it"),
    field("byte_offset", INT64, "where it starts", unit="bytes", nullable=True),
    field("n_bytes", INT64, "its size", unit="bytes"),
)

GENERATED: Final = schema(
    TARGET_ID,
    field("first_seed", INT64, "seed of the first image of the list's row; the k-th has first_seed + k, its file is TARGET_ID/SEED.png"),
    field("n_generated", INT32, "images made"),
    field("n_present", INT32, "images that were there before"),
    field("n_blank", INT32, "images of one colour, as a safety filter returns, of both kinds"),
    field("is_cut", BOOL, "whether the prompt is longer than the model's text encoder reads, so that its end has no effect"),
    field(
        "edge_score",
        FLOAT32,
        "edge consistency score: share of the pixels, 256 to a side, at which more than half of the images have an edge, blank ones left out; null "
        "with more than one step, or fewer than two such images",
        nullable=True,
    ),
    field(
        "noise_magnitude",
        FLOAT32,
        "mean over images and steps of the norm, over the latent, of the predicted noise with the text minus that without; null without --noise, or "
        "if it overflowed",
        nullable=True,
    ),
)

MEMBERS: Final = schema(
    field("number", INT64, "place of the target in the list"),
    SHARD,
    KEY,
    BYTE_OFFSET,
    N_BYTES,
    field("n_samples", INT64, "samples of the group with these image bytes"),
)

OUTLIERS: Final = schema(
    field("rank", INT64, "1 = farthest from all others, by outlierness or density_ratio; those with is_exact come first"),
    field("target_id", TEXT, "first 16 hex digits of the image's sha256, as in the table targets"),
    SAMPLE_ID,
    COMPONENT_ID,
    COUNT,
    field("caption", TEXT, "the sample's caption: the prompt", nullable=True),
    URL,
    SHARD,
    KEY,
    BYTE_OFFSET,
    N_BYTES,
    field("quality", FLOAT32, "amount of detail, 0 (uniform) to 100: images without any may be outliers too"),
    field("outlierness", FLOAT32, "mean of 1 - cosine over its nearest neighbours, 0 to 2"),
    field(
        "density_ratio",
        FLOAT32,
        "outlierness divided by the mean outlierness of those neighbours; above 1 = in a sparser place than they are; null if that mean is 0",
        nullable=True,
    ),
    field("nearest_id", INT64, "sample_id of the nearest image; null if none was found", nullable=True),
    field("nearest_similarity", FLOAT32, "cosine to it", nullable=True),
    field(
        "is_exact", BOOL, "whether it was compared with every image; false: only within inverted lists, so outlierness is an upper bound"
    ),
)

IMAGES: Final = schema(
    field("image_id", INT64, "sample_id whose vector represents the image: the smallest with these bytes"),
    field("sample_id", INT64, "the sample that is reported"),
)

NEIGHBOR_PAIRS: Final = schema(
    field("image_id", INT64, "an image"),
    field("neighbor_id", INT64, "image_id of one of its nearest neighbours"),
)

NEIGHBOR_MEANS: Final = schema(
    field("image_id", INT64, "an image"),
    field("mean_distance", FLOAT64, "mean of 1 - cosine over its nearest neighbours; missing ones count as 2"),
    field("nearest_id", INT64, "image_id of the nearest", nullable=True),
    field("nearest_similarity", FLOAT32, "cosine to it", nullable=True),
    field("is_exact", BOOL, "compared with every image"),
)

FLAGS: Final = schema(
    field("image", TEXT, "the image: its path; in a tar, the tar, a colon and the key"),
    field("is_copy", BOOL, "whether it is a copy of a training image, by `rule`; null if not known", nullable=True),
    field(
        "rule",
        TEXT,
        "pixels: the judge compared it with the training image; similarity: the run does not judge pixels; unreadable: the training image "
        "can't be read; none: no training image reaches min_similarity, or it is not an image",
    ),
    field("sample_id", INT64, "the training image it is a copy of, otherwise the most similar one", nullable=True),
    field("key", TEXT, "its key", nullable=True),
    field("shard", TEXT, "its shard", nullable=True),
    URL,
    field("caption", TEXT, "its caption", nullable=True),
    field("similarity", FLOAT32, "cosine, the largest over the views", nullable=True),
    field("view", TEXT, "the view that matched: none, mirror, rotate90, …, inner, crop, or two of them", nullable=True),
    field("distance", FLOAT32, f"{PIXEL_DISTANCE}; at most max_distance for a copy", nullable=True),
    field("l2", FLOAT32, "root mean square difference to the training image, stretched to its size, 0 to 1", nullable=True),
    field("tiled_l2", FLOAT32, "the largest such difference over 16 tiles", nullable=True),
    field("duplication_count", INT64, "training samples in the group of copies", nullable=True),
    field("component_id", INT64, "that group", nullable=True),
    field("is_kept", BOOL, "whether that training image is kept", nullable=True),
    field("min_similarity", FLOAT32, "cosine from which training images count as matches"),
    field("max_distance", FLOAT32, "largest distance of a copy"),
    field("error", TEXT, "why the image could not be looked up", nullable=True),
)

SWEEP: Final = schema(
    field("threshold", FLOAT64, "cosine from which a pair of images is a candidate"),
    field("n_samples", INT64, "samples of the run"),
    field("n_removed", INT64, "samples removed by similarity alone if one of each component is kept; null = not known", nullable=True),
    field("share_removed", FLOAT64, "n_removed / n_samples", nullable=True),
    field("n_confirmed", INT64, "the same with only the pairs that the run's judge confirmed", nullable=True),
    field("share_confirmed", FLOAT64, "n_confirmed / n_samples", nullable=True),
)

CALIBRATION: Final = schema(
    field("threshold", FLOAT64, "cosine from which whole images are candidates: search.min_similarity"),
    field("n_counted", INT64, "pairs of unrelated images at or above it in the sample; a pair of two sampled images counts twice"),
    field("expected_false", FLOAT64, "pairs of unrelated images at or above it among all images of the run"),
    *_interval("expected_false"),
    field("is_fitted", BOOL, "true: from the fitted tail; false: from the pairs counted"),
    field(
        "n_links",
        INT64,
        "links of near copies that the run found at or above it: images dropped because of them; below the run's own threshold, the number at that threshold",
        nullable=True,
    ),
    field("precision_similarity", FLOAT64, "share of copies among what similarity alone joins; null if it joins nothing", nullable=True),
    *_interval("precision_similarity", nullable=True),
    field("precision_confirmed", FLOAT64, "the same after the judge; null if the run does not judge pixels", nullable=True),
    *_interval("precision_confirmed", nullable=True),
    field("recall", FLOAT64, "share of the planted copies whose vector reaches it; null if none could be planted", nullable=True),
    *_interval("recall", nullable=True),
    field("recall_looks", FLOAT64, "the same including views, which have a threshold of their own", nullable=True),
    field("recall_confirmed", FLOAT64, "of these, found and confirmed by their pixels", nullable=True),
    field("least_change", TEXT, "the planted change with the lowest recall, views included", nullable=True),
    field("least_recall", FLOAT64, "that recall", nullable=True),
    field(
        "share_removed",
        FLOAT64,
        "share of samples removed by similarity alone if one of each component is kept; null below the run's own threshold",
        nullable=True,
    ),
    field("share_confirmed", FLOAT64, "the same with only the pairs that the run's judge confirmed", nullable=True),
)

CALIBRATION_RECALLS: Final = schema(
    field("change", TEXT, "the change: a name in dedup.numerics.image.planting"),
    field("family", TEXT, "the kind of change, whatever its strength"),
    field("threshold", FLOAT64, "cosine from which whole images are candidates"),
    field("n_copies", INT64, "copies planted"),
    field("recall", FLOAT64, "share of them whose vector reaches the threshold"),
    *_interval("recall", how=", after Wilson"),
    field("recall_looks", FLOAT64, "share found by their vector or by views"),
    *_interval("recall_looks"),
    field("n_judged", INT64, "copies that were judged, or would have been if they had been found"),
    field("recall_confirmed", FLOAT64, "share of these that is found and confirmed; null if none is judged", nullable=True),
    *_interval("recall_confirmed", nullable=True),
)

CALIBRATION_COPIES: Final = schema(
    field("sample_id", INT64, "the image that was copied"),
    field("change", TEXT, "what was done to the copy"),
    field("similarity", FLOAT32, "cosine of the copy to the image"),
    field(
        "min_similarity",
        FLOAT32,
        "similarity that the copy needs besides the threshold: 0; more for little detail; 2 = byte-identical copies only",
    ),
    field("look_similarity", FLOAT32, "similarity of the views that find it; null if none does", nullable=True),
    field("is_judged", BOOL, "whether it was chosen to be judged"),
    field("is_copy", BOOL, "the verdict; null if not judged, or if nothing would have found the copy", nullable=True),
    field("distance", FLOAT32, "how much the parts that agree least differ, 0 to 1", nullable=True),
    field("is_drawn", BOOL, "whether both are drawn, written or printed; null if not judged by their content", nullable=True),
)

CALIBRATION_PAIRS: Final = schema(
    field("src", INT64, "sample_id of one end"),
    field("dst", INT64, "sample_id of the other end"),
    field(
        "similarity",
        FLOAT32,
        "cosine; of a mirrored pair that of the mirrored src, if the encoder can turn its vectors; null for exchanged",
        nullable=True,
    ),
    field(
        "kind",
        TEXT,
        "pair: of the sample, sharing no group of copies; mirrored: src was mirrored; exchanged: src, and src with a part of dst in place of one of its own",
    ),
    field("is_decoy", BOOL, "true: made (mirrored, exchanged), so that the two are no copies"),
    field("is_drawn", BOOL, "whether both are drawn, written or printed; null unless exchanged", nullable=True),
    field("is_copy", BOOL, "the verdict; null if a picture can't be read", nullable=True),
    field("distance", FLOAT32, "how much the parts that agree least differ, 0 to 1", nullable=True),
    field("reason", TEXT, "why they are not copies, as in the table refused"),
)
