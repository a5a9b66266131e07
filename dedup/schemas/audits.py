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
    field(
        "clique_size",
        INT32,
        "generations that are all one picture: largest clique of pairs within max_tile_distance; if it reaches min_clique, without those that do not show the same detail",
    ),
    field("clique_is_exact", BOOL, "false: the search for the clique stopped at its limit; a larger one may exist"),
    field("mean_distance", FLOAT32, "mean tiled l2 of the pairs in the clique; null with fewer than two members", nullable=True),
    field("is_memorized", BOOL, "clique_size >= min_clique"),
    field(
        "generation", TEXT, "the generation nearest to the training image: of the clique if is_memorized, otherwise of all", nullable=True
    ),
    field("l2", FLOAT32, "its distance to the training image, 0 to 1; null if that can't be read", nullable=True),
    field("tiled_l2", FLOAT32, "the same, the largest over 16 tiles", nullable=True),
    field(
        "is_extracted",
        BOOL,
        "tiled_l2 <= max_distance, and the generation shows detail of the training image, not only its ground",
        nullable=True,
    ),
    field("eidetic_k", INT64, "samples of the group whose image is within max_distance of that generation, by tiled l2", nullable=True),
    field(
        "similarity",
        FLOAT32,
        "cosine of that generation and the training image in the space of the run's encoder; null without one",
        nullable=True,
    ),
    field(
        "label",
        TEXT,
        "what the generations reproduce: verbatim (the training image: is_extracted), template (a clique of them an area of it, the rest differs), retrieved (is_memorized, and the clique is a copy, as the judge sees it, of an image of the run: another one, or this one mirrored or cropped) or none; null if there was nothing to compare",
        nullable=True,
    ),
    field(
        "area",
        FLOAT32,
        "share of the picture in which generations equal the training image: 1 for verbatim; null for retrieved and none",
        nullable=True,
    ),
    field("clique_size_masked", INT32, "generations that are all one picture in that area; clique_size for verbatim", nullable=True),
    field("mean_distance_masked", FLOAT32, "mean tiled l2 of their pairs inside the area", nullable=True),
    field("generation_masked", TEXT, "of them, the one nearest to the training image inside the area", nullable=True),
    field("l2_masked", FLOAT32, "its distance to the training image inside the area, 0 to 1", nullable=True),
    field("tiled_l2_masked", FLOAT32, "the same, the largest over 16 tiles, as far as they are in the area", nullable=True),
    field(
        "mask",
        pa.binary(),
        "PNG of 64 x 64 pixels across the picture: 255 inside the area; null unless the label is template",
        nullable=True,
    ),
    field(
        "retrieved_shard",
        SHARD.type,
        "shard of the training image that the clique reproduces; null unless the label is retrieved",
        nullable=True,
    ),
    field("retrieved_key", TEXT, "its key", nullable=True),
    field(
        "status", TEXT, "ok, no_generations, few_generations (fewer than 2), too_small (fewer than 4 pixels to a side) or no_training_image"
    ),
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

NAMED_FOLDERS: Final = schema(
    field("number", INT64, "place of the target in the list"),
    field("folder", TEXT, "name of a folder with its generated images"),
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

CONTROLS: Final = schema(
    field("rank", INT64, "rank of its target in the list, from 1"),
    TARGET_ID,
    COMPONENT_ID,
    field("caption", TEXT, "the prompt: the sample's caption"),
    COUNT,
    URL,
    SHARD,
    KEY,
    BYTE_OFFSET,
    N_BYTES,
    field("n_generations", INT32, "images to generate from the prompt"),
    field("matched_to", TEXT, "target_id of the target it is the control of"),
    field(
        "level",
        INT32,
        "how closely it matches: 0 by quarters of a doubling, 1 by halves, 2 by doublings, 3 without size, 4 without frequency",
    ),
    field("language", TEXT, "language of both, as carried; empty if it is not"),
    field("caption_length", INT64, "characters of the prompt"),
    field("n_caption_samples", INT64, "samples of the whole data set with the prompt as caption"),
    field("n_pixels", INT64, "width times height", unit="pixels"),
    field("target_caption_length", INT64, "the same of the target"),
    field("target_n_caption_samples", INT64, "the same of the target"),
    field("target_n_pixels", INT64, "the same of the target", unit="pixels"),
)

DETECTORS: Final = schema(
    field("detector", TEXT, "name of the detector"),
    field("label", TEXT, "what is to be detected: verbatim, template, or all that is reproduced; always against what is not"),
    field("least", INT64, "smallest duplication count of these targets; null = any", nullable=True),
    field("most", INT64, "largest; null = any", nullable=True),
    field("n_positive", INT64, "reproduced targets with a score"),
    field("n_negative", INT64, "targets with a score of which nothing is reproduced"),
    field("auc", FLOAT64, "area under the ROC curve, 0 to 1"),
    *_interval("auc"),
    field("tpr", FLOAT64, "share of the reproduced targets above the threshold that at most 1% of the others exceed"),
    *_interval("tpr"),
)

PATCHES: Final = schema(
    TARGET_ID,
    field("label", TEXT, "of the target's score: verbatim, template, retrieved or none; null if it has none", nullable=True),
    field("duplication_count", INT64, "samples in the target's group; null if the list does not say", nullable=True),
    field("n_generations", INT32, "generated images that were compared"),
    field("side", INT32, "side of the patches, of a generation of 512; of others in proportion", unit="pixels"),
    field("n_patches", INT64, "patches with detail of all generations"),
    field("n_same", INT64, "of these, patches within max_distance of the same place of the training image, laid on the generation"),
    field("n_any", INT64, "within max_distance of some place of it, the same included"),
    field("n_same_by_chance", INT64, "the same with the training image of the next target; null if that can't be read", nullable=True),
    field("n_any_by_chance", INT64, "the same with the training image of the next target; null if that can't be read", nullable=True),
)

PATCH_CURVE: Final = schema(
    field("label", TEXT, "targets of this label; null = all", nullable=True),
    field("least", INT64, "smallest duplication count of these targets; null = any", nullable=True),
    field("most", INT64, "largest; null = any", nullable=True),
    field("side", INT32, "side of the patches, of a generation of 512", unit="pixels"),
    field("n_targets", INT64, "targets whose generations have patches with detail"),
    field(
        "share_same", FLOAT64, "mean over targets of the share of patches that are at the same place of the training image", nullable=True
    ),
    field("share_any", FLOAT64, "the same at any place of it", nullable=True),
    field("share_same_by_chance", FLOAT64, "the same place of an unrelated training image", nullable=True),
    field("share_any_by_chance", FLOAT64, "any place of an unrelated training image", nullable=True),
)

PROMPTS: Final = schema(
    field("index", INT64, "place in the files of prompts, from 0"),
    TARGET_ID,
    field("caption", TEXT, "the prompt"),
    URL,
    field("duplication_count", INT64, "samples in the target's group; null if the list does not say", nullable=True),
    field("folder", TEXT, "folder that onestep-extraction keeps its generations in: the first 200 characters, / as _"),
)

TEMPLATE_PAIRS: Final = schema(
    field("number", INT64, "place of the target in the list"),
    field("transform", pa.list_(pa.field("item", FLOAT32, nullable=False)), "as in refused"),
    field("mask", pa.binary(), "as in refused"),
    field("is_dst", BOOL, "whether the target's training image is dst of that pair: the mask lies across it"),
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
