"""What a run knows about a target beyond its training image: its template, other images that were reproduced instead, similarity."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dedup.contracts import JsonDict
from dedup.errors import DedupError, SampleError
from dedup.find.answers import Match
from dedup.find.index import RunIndex, opened_index
from dedup.numerics.shared import Known
from dedup.numerics.similarity import exact_similarity
from dedup.stages.groups.related import across_src, shared_mask
from dedup.storage.input.samples import one_line

_MOST_MASKS = 16  # pairs of one training image whose masks are read
# of 255: the share of a template's pairs that agree where it counts as one picture and as many; 128 is nothing to compare
_AGREES, _DIFFERS = 160, 96

# of several images in a sample the one that is meant: they differ in where their bytes begin
SAME_IMAGE_SQL = """targets.shard = metadata.shard AND targets.key = metadata.key
      AND (targets.byte_offset IS NULL OR targets.byte_offset = metadata.byte_offset)"""

# pairs of the target's own training image with others of its template
MASKS_SQL = f"""
SELECT number, transform, mask, is_dst
FROM (
  SELECT number, transform, mask, is_dst, row_number() OVER (PARTITION BY number ORDER BY other, is_dst) AS place
  FROM (
    SELECT targets.number AS number, refused.transform AS transform, refused.mask AS mask, refused.src AS other, true AS is_dst
    FROM targets JOIN metadata ON {SAME_IMAGE_SQL}
    JOIN refused ON refused.dst = metadata.sample_id
    WHERE refused.relation = 'template' AND refused.variant = 'none' AND refused.mask IS NOT NULL
    UNION ALL
    SELECT targets.number AS number, refused.transform AS transform, refused.mask AS mask, refused.dst AS other, false AS is_dst
    FROM targets JOIN metadata ON {SAME_IMAGE_SQL}
    JOIN refused ON refused.src = metadata.sample_id
    WHERE refused.relation = 'template' AND refused.variant = 'none' AND refused.mask IS NOT NULL
  ) AS pairs
) AS ranked
WHERE place <= {_MOST_MASKS}
ORDER BY number, place
"""  # noqa: S608 (a number and conditions of our own)


def known_template(pairs: list[JsonDict]) -> Known | None:
    """Where the training images of a target's template agree and differ, across the target's own; None if no pair says."""
    if not pairs:
        return None
    masks = [np.asarray(Image.open(io.BytesIO(pair["mask"]))) for pair in pairs]
    laid = [mask if pair["is_dst"] else across_src(mask, pair["transform"]) for mask, pair in zip(masks, pairs, strict=True)]
    shared = shared_mask(laid)
    return Known(shared > _AGREES, shared < _DIFFERS)


class TrainingRun:
    """The run over the training images, opened when it is first needed."""

    def __init__(self, run_dir: str, device: str) -> None:
        self.run_dir, self.device = run_dir, device

    @property
    def _index(self) -> RunIndex:
        overrides = () if self.device == "auto" else (f"engine.device={self.device}",)
        return opened_index(self.run_dir, overrides, "cpu" if self.device == "cpu" else "auto")

    def why_not(self) -> str:
        """Why generations can't be embedded and looked up; empty if they can."""
        try:
            _ = self._index.encoder
        except DedupError as error:
            return one_line(error)
        return ""

    def similarity(self, generation: bytes, training: bytes) -> float | None:
        """Cosine of two encoded images in the space of the run's encoder; None if one does not decode."""
        try:
            a, b = (self._index.views(data, all_views=False).vectors[:1] for data in (generation, training))
        except SampleError:
            return None
        return float(exact_similarity(a, b)[0])

    def retrieve(self, generation: bytes) -> Match | None:
        """The training image that a generation is a copy of, by its pixels; None if none is."""
        answer = self._index.search_bytes([("generation", generation)])[0]
        return next((match for match in answer.matches if match.is_copy), None)
