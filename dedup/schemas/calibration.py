"""Tables of threshold advice."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dedup.schemas.fields import field

_INTERVAL = "end of its interval (95%)"
CALIBRATION: Final = pa.schema(
    [
        field("threshold", pa.float64(), "cosine from which whole images are candidates: search.min_similarity"),
        field(
            "n_counted",
            pa.int64(),
            "pairs of unrelated images at or above it that the sample holds; a pair of two sampled images counts twice",
        ),
        field("expected_false", pa.float64(), "pairs of unrelated images at or above it among all images of the run"),
        field("expected_false_low", pa.float64(), f"lower {_INTERVAL}"),
        field("expected_false_high", pa.float64(), f"upper {_INTERVAL}"),
        field("is_fitted", pa.bool_(), "true: from the fitted tail; false: from the pairs counted"),
        field(
            "n_links",
            pa.int64(),
            "links of near copies the run has found at or above it: images they let go; of a threshold below the run's own as of that",
            nullable=True,
        ),
        field(
            "precision_similarity", pa.float64(), "share of copies among what similarity alone joins; null where nothing is", nullable=True
        ),
        field("precision_similarity_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("precision_similarity_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field("precision_confirmed", pa.float64(), "the same after the look at the pixels; null where none is taken", nullable=True),
        field("precision_confirmed_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("precision_confirmed_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field(
            "recall", pa.float64(), "share of the planted copies whose vector reaches it; null where none could be planted", nullable=True
        ),
        field("recall_low", pa.float64(), f"lower {_INTERVAL}", nullable=True),
        field("recall_high", pa.float64(), f"upper {_INTERVAL}", nullable=True),
        field("recall_looks", pa.float64(), "the same with second looks, which have a threshold of their own", nullable=True),
        field("recall_confirmed", pa.float64(), "of these, found and confirmed by their pixels", nullable=True),
        field("least_change", pa.string(), "the planted change with the least recall with second looks", nullable=True),
        field("least_recall", pa.float64(), "that recall", nullable=True),
        field(
            "share_removed",
            pa.float64(),
            "samples removed by similarity alone, one of each component staying; null below the run's own threshold",
            nullable=True,
        ),
        field("share_confirmed", pa.float64(), "the same of the pairs that the run's look at the pixels let stand", nullable=True),
    ]
)
CALIBRATION_RECALLS: Final = pa.schema(
    [
        field("change", pa.string(), "what was done to the copies: a name of dedup.numerics.image.planting"),
        field("family", pa.string(), "what is done, whatever the strength"),
        field("threshold", pa.float64(), "cosine from which whole images are candidates"),
        field("n_copies", pa.int64(), "copies planted"),
        field("recall", pa.float64(), "share of them whose vector reaches the threshold"),
        field("recall_low", pa.float64(), f"lower {_INTERVAL}, after Wilson"),
        field("recall_high", pa.float64(), f"upper {_INTERVAL}"),
        field("recall_looks", pa.float64(), "share found by their vector or by second looks"),
        field("recall_looks_low", pa.float64(), f"lower {_INTERVAL}"),
        field("recall_looks_high", pa.float64(), f"upper {_INTERVAL}"),
        field("n_judged", pa.int64(), "of the copies, those that were compared by their pixels, or would have been had they been found"),
        field("recall_confirmed", pa.float64(), "share of these that is found and confirmed; null where none is judged", nullable=True),
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
            "what the copy asks for besides the threshold: 0; more for little detail; 2 = byte-identical copies only",
        ),
        field("look_similarity", pa.float32(), "of the second looks that find it; null where none does", nullable=True),
        field("is_judged", pa.bool_(), "whether it was chosen for the look at the pixels"),
        field("is_copy", pa.bool_(), "what that said; null where it was not taken, or nothing would have found the copy", nullable=True),
        field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
    ]
)
CALIBRATION_PAIRS: Final = pa.schema(
    [
        field("src", pa.int64(), "sample_id of one end"),
        field("dst", pa.int64(), "sample_id of the other end"),
        field("similarity", pa.float32(), "cosine; of decoys that of the mirrored src, where the encoder tells it without another look"),
        field(
            "is_decoy",
            pa.bool_(),
            "true: src was mirrored, so that the pair is none of copies; false: a pair of the sample in no group of copies together",
        ),
        field("is_copy", pa.bool_(), "what the look at the pixels said; null where a picture can't be read", nullable=True),
        field("distance", pa.float32(), "how much the parts that agree least differ, 0 to 1", nullable=True),
        field("reason", pa.string(), "why it is no copy: as of `refused`"),
    ]
)
