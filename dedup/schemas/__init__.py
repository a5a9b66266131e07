"""Every table's Arrow schema, column by column, and `conform`.

Each field's metadata holds its unit and meaning; `docs/tables.md` is generated from it.
"""

from __future__ import annotations

from typing import Final

from dedup.schemas.audits import (
    CALIBRATION,
    CALIBRATION_COPIES,
    CALIBRATION_PAIRS,
    CALIBRATION_RECALLS,
    FLAGS,
    GENERATIONS,
    IMAGES,
    MEMBERS,
    NEIGHBOR_MEANS,
    NEIGHBOR_PAIRS,
    OUTLIERS,
    SCORES,
    SWEEP,
)
from dedup.schemas.counts import CANDIDATE_COUNTS, CAPTIONS, HISTOGRAM, STATISTICS, TARGET_CAPTIONS, TARGETS
from dedup.schemas.fields import CARRIED_TYPES, conform, with_carried
from dedup.schemas.pairs import ASSIGNMENTS, CANDIDATES, EDGES, EXACT, GROUPS, NEIGHBORS, REFUSED, REPRESENTATIVES
from dedup.schemas.samples import DUPLICATES, EXCLUDED, EXCLUSIONS, MANIFEST, METADATA, PARTITIONS, REJECT_REASONS, REJECTED

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

__all__ = [
    "ASSIGNMENTS",
    "CALIBRATION",
    "CALIBRATION_COPIES",
    "CALIBRATION_PAIRS",
    "CALIBRATION_RECALLS",
    "CANDIDATES",
    "CANDIDATE_COUNTS",
    "CAPTIONS",
    "CARRIED_TYPES",
    "DUPLICATES",
    "EDGES",
    "EXACT",
    "EXCLUDED",
    "EXCLUSIONS",
    "FLAGS",
    "GENERATIONS",
    "GROUPS",
    "HISTOGRAM",
    "IMAGES",
    "MANIFEST",
    "MEMBERS",
    "METADATA",
    "NEIGHBORS",
    "NEIGHBOR_MEANS",
    "NEIGHBOR_PAIRS",
    "OUTLIERS",
    "PARTITIONS",
    "REFUSED",
    "REJECTED",
    "REJECT_REASONS",
    "REPRESENTATIVES",
    "SCORES",
    "STATISTICS",
    "SWEEP",
    "TABLES",
    "TARGETS",
    "TARGET_CAPTIONS",
    "conform",
    "with_carried",
]
