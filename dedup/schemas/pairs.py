"""Tables of distinct images, their lists and pairs, and the groups derived from them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dedup.schemas.fields import COMPONENT_ID, SAMPLE_ID, field

REPRESENTATIVES: Final = pa.schema(
    [
        SAMPLE_ID,
        field("weight", pa.int64(), "samples with the same image bytes, this one (the smallest sample_id) included"),
        field(
            "min_similarity",
            pa.float32(),
            "cosine from which a pair with this image is a candidate: the threshold, higher for low-detail images; 2 = byte-identical copies only",
        ),
    ]
)
EXACT: Final = pa.schema(
    [
        SAMPLE_ID,
        field("representative_id", pa.int64(), "smallest sample_id with the same image bytes"),
    ]
)
ASSIGNMENTS: Final = pa.schema(
    [
        SAMPLE_ID,
        field("lists", pa.list_(pa.field("item", pa.int32(), nullable=False)), "the nearest inverted lists, nearest first"),
    ]
)
NEIGHBORS: Final = pa.schema(
    [
        SAMPLE_ID,
        field(
            "n_neighbors",
            pa.int64(),
            "number of other samples with a similarity of at least the threshold, byte-identical copies included; samples without any have no row",
        ),
    ]
)
_PAIR = [
    field("src", pa.int64(), "sample_id of one end; src < dst"),
    field("dst", pa.int64(), "sample_id of the other end"),
    field("similarity", pa.float32(), "cosine of what was found similar (see source), computed in float64, -1 to 1"),
    field("kind", pa.string(), "exact (equal image bytes) or near"),
    field("variant", pa.string(), "how src was turned to match dst: none, mirror, rotate90, …; rotated = by an angle not yet known"),
    field(
        "source",
        pa.string(),
        "what was found similar: whole (the embeddings), look (views: a crop, the picture inside a frame, a turned copy), also and also_look (the same for the second source, embed.also), group (both are in one group), or embedding (exact copies, known only by equal embeddings)",
    ),
]
_FOUND_BY = field(
    "found_by",
    pa.string(),
    "for a candidate, the encoders whose threshold it reaches, such as clip, dct or clip+dct; null for pairs found later",
    nullable=True,
)
_TRANSFORM = field(
    "transform",
    pa.list_(pa.field("item", pa.float32(), nullable=False)),
    "a, b, c, d, e, f: the point (x, y) of src, turned, is at (ax + by + c, dx + ey + f) of dst; coordinates run from 0 to 1 across the picture",
    nullable=True,
)
CANDIDATES: Final = pa.schema(_PAIR)
EDGES: Final = pa.schema(
    [
        *_PAIR,
        _FOUND_BY,
        field("confirmed", pa.bool_(), "true if the judge confirmed it by its pixels; null if it was not judged", nullable=True),
        field(
            "distance",
            pa.float32(),
            "distance of the pixels: how much the parts that agree least differ, 0 to 1; null if not judged",
            nullable=True,
        ),
        _TRANSFORM,
    ]
)
REFUSED: Final = pa.schema(
    [
        *_PAIR,
        _FOUND_BY,
        field("reason", pa.string(), "why they are not copies: one of the reasons below"),
        field("distance", pa.float32(), "distance of the pixels: how much the parts that agree least differ, 0 to 1", nullable=True),
        field("moved", pa.float32(), "share of the tracked points that moved relative to the rest, 0 to 1", nullable=True),
        _TRANSFORM,
        field("stage", pa.string(), "the stage that had the pair judged: confirm, groups or manifest"),
    ]
)
GROUPS: Final = pa.schema(
    [
        SAMPLE_ID,
        COMPONENT_ID,
        field("raw_component_id", pa.int64(), "smallest sample_id of the connected component, before it is cut into groups"),
        field("anchor_id", pa.int64(), "sample_id of the group's anchor, with which every member was compared"),
        field("similarity_to_anchor", pa.float32(), "cosine to the group's anchor; 1 for the anchor and its byte-identical copies"),
        field("distance_to_anchor", pa.float32(), "distance of the pixels to the anchor's; null if not judged", nullable=True),
    ]
)

# Kinds of rows of `edges`, as Arrow expressions and as SQL on its columns:
#   near       different bytes, and not refused by the stage confirm
#   standing   joins its images: near, and confirmed by the pixels or, if these were not compared, similar as whole pictures. A pair found
#              only by a part or a turned copy remains a candidate until its pixels confirm it.
#   confirmed  near, and confirmed by the pixels
NEAR: Final = pc.field("kind") == "near"
NEAR_SQL: Final = "kind = 'near'"
STANDING: Final = NEAR & pc.coalesce(pc.field("confirmed"), pc.field("source") == "whole")
STANDING_SQL: Final = f"{NEAR_SQL} AND COALESCE(confirmed, source = 'whole')"
CONFIRMED_SQL: Final = f"{NEAR_SQL} AND confirmed"
