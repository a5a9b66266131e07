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
