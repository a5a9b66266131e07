"""Tables of distinct images, their lists and pairs, and the groups derived from them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dedup.schemas.fields import BOOL, COMPONENT_ID, FLOAT32, INT32, INT64, PIXEL_DISTANCE, SAMPLE_ID, TEXT, field, schema

REPRESENTATIVES: Final = schema(
    SAMPLE_ID,
    field("weight", INT64, "samples with the same image bytes, this one (the smallest sample_id) included"),
    field(
        "min_similarity",
        FLOAT32,
        "cosine from which a pair with this image is a candidate: the threshold, higher for low-detail images; 2 = byte-identical copies only",
    ),
)
EXACT: Final = schema(
    SAMPLE_ID,
    field("representative_id", INT64, "smallest sample_id with the same image bytes"),
)
ASSIGNMENTS: Final = schema(
    SAMPLE_ID,
    field("lists", pa.list_(pa.field("item", INT32, nullable=False)), "the nearest inverted lists, nearest first"),
)
NEIGHBORS: Final = schema(
    SAMPLE_ID,
    field(
        "n_neighbors",
        INT64,
        "number of other samples with a similarity of at least the threshold, byte-identical copies included; samples without any have no row",
    ),
)
_PAIR = [
    field("src", INT64, "sample_id of one end; src < dst"),
    field("dst", INT64, "sample_id of the other end"),
    field("similarity", FLOAT32, "cosine of what was found similar (see source), computed in float64, -1 to 1"),
    field("kind", TEXT, "exact (equal image bytes) or near"),
    field("variant", TEXT, "how src was turned to match dst: none, mirror, rotate90, …; rotated = by an angle not yet known"),
    field(
        "source",
        TEXT,
        "what was found similar: whole (the embeddings), look (views: a crop, the picture inside a frame, a turned copy), also and also_look (the same for the second source, embed.also), group (both are in one group), or embedding (exact copies, known only by equal embeddings)",
    ),
]
_FOUND_BY = field(
    "found_by",
    TEXT,
    "for a candidate, the encoders whose threshold it reaches, such as clip, dct or clip+dct; null for pairs found later",
    nullable=True,
)
_TRANSFORM = field(
    "transform",
    pa.list_(pa.field("item", FLOAT32, nullable=False)),
    "a, b, c, d, e, f: the point (x, y) of src, turned, is at (ax + by + c, dx + ey + f) of dst; coordinates run from 0 to 1 across the picture",
    nullable=True,
)
CANDIDATES: Final = pa.schema(_PAIR)
EDGES: Final = schema(
    *_PAIR,
    _FOUND_BY,
    field("confirmed", BOOL, "true if the judge confirmed it by its pixels; null if it was not judged", nullable=True),
    field("distance", FLOAT32, f"{PIXEL_DISTANCE}; null if not judged", nullable=True),
    _TRANSFORM,
)
REFUSED: Final = schema(
    *_PAIR,
    _FOUND_BY,
    field("reason", TEXT, "why they are not copies: one of the reasons below"),
    field("distance", FLOAT32, PIXEL_DISTANCE, nullable=True),
    field("moved", FLOAT32, "share of the tracked points that moved relative to the rest, 0 to 1", nullable=True),
    _TRANSFORM,
    field("stage", TEXT, "the stage that had the pair judged: confirm, groups or manifest"),
)
GROUPS: Final = schema(
    SAMPLE_ID,
    COMPONENT_ID,
    field("raw_component_id", INT64, "smallest sample_id of the connected component, before it is cut into groups"),
    field("anchor_id", INT64, "sample_id of the group's anchor, with which every member was compared"),
    field("similarity_to_anchor", FLOAT32, "cosine to the group's anchor; 1 for the anchor and its byte-identical copies"),
    field("distance_to_anchor", FLOAT32, "distance of the pixels to the anchor's; null if not judged", nullable=True),
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
