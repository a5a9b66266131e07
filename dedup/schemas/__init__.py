"""Every table's Arrow schema, column by column, and `conform`.

Each field's metadata holds its unit and meaning; `docs/tables.md` is generated from it.
"""

from __future__ import annotations

from typing import Final

from dedup.schemas.audits import CALIBRATION as CALIBRATION
from dedup.schemas.audits import CALIBRATION_COPIES as CALIBRATION_COPIES
from dedup.schemas.audits import CALIBRATION_PAIRS as CALIBRATION_PAIRS
from dedup.schemas.audits import CALIBRATION_RECALLS as CALIBRATION_RECALLS
from dedup.schemas.audits import CONTROLS as CONTROLS
from dedup.schemas.audits import DETECTORS as DETECTORS
from dedup.schemas.audits import FLAGS as FLAGS
from dedup.schemas.audits import GENERATED as GENERATED
from dedup.schemas.audits import GENERATIONS as GENERATIONS
from dedup.schemas.audits import IMAGES as IMAGES
from dedup.schemas.audits import MEMBERS as MEMBERS
from dedup.schemas.audits import NAMED_FOLDERS as NAMED_FOLDERS
from dedup.schemas.audits import NEIGHBOR_MEANS as NEIGHBOR_MEANS
from dedup.schemas.audits import NEIGHBOR_PAIRS as NEIGHBOR_PAIRS
from dedup.schemas.audits import OUTLIERS as OUTLIERS
from dedup.schemas.audits import PATCH_CURVE as PATCH_CURVE
from dedup.schemas.audits import PATCHES as PATCHES
from dedup.schemas.audits import PROMPTS as PROMPTS
from dedup.schemas.audits import SCORES as SCORES
from dedup.schemas.audits import SWEEP as SWEEP
from dedup.schemas.audits import TEMPLATE_PAIRS as TEMPLATE_PAIRS
from dedup.schemas.counts import CANDIDATE_COUNTS as CANDIDATE_COUNTS
from dedup.schemas.counts import CAPTIONS as CAPTIONS
from dedup.schemas.counts import EDIT_COUNTS as EDIT_COUNTS
from dedup.schemas.counts import HISTOGRAM as HISTOGRAM
from dedup.schemas.counts import STATISTICS as STATISTICS
from dedup.schemas.counts import TARGET_CAPTIONS as TARGET_CAPTIONS
from dedup.schemas.counts import TARGETS as TARGETS
from dedup.schemas.fields import CARRIED_TYPES as CARRIED_TYPES
from dedup.schemas.fields import conform as conform
from dedup.schemas.fields import with_carried as with_carried
from dedup.schemas.pairs import ASSIGNMENTS as ASSIGNMENTS
from dedup.schemas.pairs import CANDIDATES as CANDIDATES
from dedup.schemas.pairs import EDGES as EDGES
from dedup.schemas.pairs import EXACT as EXACT
from dedup.schemas.pairs import GROUPS as GROUPS
from dedup.schemas.pairs import NEIGHBORS as NEIGHBORS
from dedup.schemas.pairs import REFUSED as REFUSED
from dedup.schemas.pairs import REPRESENTATIVES as REPRESENTATIVES
from dedup.schemas.pairs import SCENE_COUNTS as SCENE_COUNTS
from dedup.schemas.pairs import SCENES as SCENES
from dedup.schemas.pairs import TEMPLATE_COUNTS as TEMPLATE_COUNTS
from dedup.schemas.pairs import TEMPLATES as TEMPLATES
from dedup.schemas.samples import DUPLICATES as DUPLICATES
from dedup.schemas.samples import EDITS as EDITS
from dedup.schemas.samples import EXCLUDED as EXCLUDED
from dedup.schemas.samples import EXCLUSIONS as EXCLUSIONS
from dedup.schemas.samples import MANIFEST as MANIFEST
from dedup.schemas.samples import METADATA as METADATA
from dedup.schemas.samples import PARTITIONS as PARTITIONS
from dedup.schemas.samples import REJECT_REASONS as REJECT_REASONS
from dedup.schemas.samples import REJECTED as REJECTED
from dedup.schemas.samples import WITHOUT_IMAGE as WITHOUT_IMAGE

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
    "templates": TEMPLATES,
    "template_counts": TEMPLATE_COUNTS,
    "scenes": SCENES,
    "scene_counts": SCENE_COUNTS,
    "manifest": MANIFEST,
    "duplicates": DUPLICATES,
    "excluded": EXCLUDED,
    "edits": EDITS,
    "edit_counts": EDIT_COUNTS,
    "exclusions": EXCLUSIONS,
    "statistics": STATISTICS,
    "captions": CAPTIONS,
    "histogram": HISTOGRAM,
    "candidate_counts": CANDIDATE_COUNTS,
    "targets": TARGETS,
    "target_captions": TARGET_CAPTIONS,
}
