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
_RELATION = [
    field("relation", TEXT, "what the two are to each other: one of the relations below; null if not judged", nullable=True),
    field("inside", TEXT, "of a part, the end that lies inside the other: src or dst; null for other relations", nullable=True),
    field(
        "agreeing_share",
        FLOAT32,
        "share of what there is to see that both show at the same place, 0 to 1; null if they were not laid on each other",
        nullable=True,
    ),
    field(
        "drawn",
        FLOAT32,
        "share of their pixels on flat ground, plus the share of their few most frequent colours, 0 to 2, of the one that has less; above 1.15 both count as drawn, written or printed; null if not compared",
        nullable=True,
    ),
]
CANDIDATES: Final = pa.schema(_PAIR)
EDGES: Final = schema(
    *_PAIR,
    _FOUND_BY,
    field("confirmed", BOOL, "true if the judge confirmed it by its pixels; null if it was not judged", nullable=True),
    field("distance", FLOAT32, f"{PIXEL_DISTANCE}; null if not judged", nullable=True),
    _TRANSFORM,
    *_RELATION,
    field(
        "traces",
        pa.list_(pa.field("item", FLOAT32, nullable=False)),
        "what was done to src, then to dst, six numbers each: share of what the two show together that it shows; share of its area that is a "
        "frame around the picture; share covered by something laid over; chroma left, of the larger of the two; share that is black or white; "
        "bits of entropy of its brightness; null if not judged, or refused",
        nullable=True,
    ),
)
REFUSED: Final = schema(
    *_PAIR,
    _FOUND_BY,
    field("reason", TEXT, "why they are not copies: one of the reasons below"),
    field("distance", FLOAT32, PIXEL_DISTANCE, nullable=True),
    field("moved", FLOAT32, "share of the tracked points that moved relative to the rest, 0 to 1", nullable=True),
    _TRANSFORM,
    *_RELATION,
    field(
        "mask",
        pa.binary(),
        "PNG of 64 x 64 pixels across dst: 255 where the two agree, 0 where they differ, 128 where there is nothing to compare; null unless they are of one template or scene",
        nullable=True,
    ),
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


def _related(name: str, what: str) -> tuple[pa.Schema, pa.Schema]:
    """The tables of the samples and of the counts of one relation between pictures that are no copies."""
    label = field(f"{name}_id", INT64, f"smallest sample_id of the {name}'s samples")
    members = schema(SAMPLE_ID, label, COMPONENT_ID)
    counts = schema(
        label,
        field("n_components", INT64, f"groups and unique samples that are {what}; two or more"),
        field("n_samples", INT64, "samples of all of them, copies included"),
        field(
            "agreeing_share",
            FLOAT32,
            "median over its pairs: share of what there is to see that two of them show at the same place, 0 to 1",
        ),
        field("example_id", INT64, "sample_id of the one in most pairs"),
        field(
            "mask",
            pa.binary(),
            "PNG of 64 x 64 pixels across the example: 255 where the others agree with it, 0 where they differ, 128 where there is nothing to compare; "
            "null if no pair with the example lies upright",
            nullable=True,
        ),
    )
    return members, counts


TEMPLATES, TEMPLATE_COUNTS = _related("template", "of one layout or ground, with other content")
SCENES, SCENE_COUNTS = _related("scene", "of one place or thing, at other moments or with other things in it")

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
