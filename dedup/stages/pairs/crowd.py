"""Whether unrelated images are as similar as copies are said to be: vectors that all point one way, or too low a threshold."""

from __future__ import annotations

import numpy as np

from dedup.errors import StageError
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.similarity import unit_rows
from dedup.stages.stage import StageContext

_SAMPLED = 1_000  # images
_LEAST = 50  # images from which a share of their pairs says something
_MOST = 0.5  # share of all pairs that may reach the threshold: of images that differ in their bytes, hardly any do


def refuse_a_crowd(context: StageContext, sample_ids: Ids, min_similarity: Sims) -> float:
    """Share of the pairs of random images that reach the threshold.

    `sample_ids`, `min_similarity`: shape (n,); of all distinct images.
    Raises StageError if it is more than half, and neither pixels will be judged nor `search.all_alike` says to go on.
    """
    chosen = np.flatnonzero(min_similarity <= np.float32(context.config.search.min_similarity))
    if len(chosen) < _LEAST:
        return 0.0
    rng = np.random.default_rng(context.config.index.seed)
    rows = np.sort(rng.choice(chosen, min(_SAMPLED, len(chosen)), replace=False))
    unit = unit_rows(context.run.read_vectors(sample_ids[rows]))
    product = (unit @ unit.T)[np.triu_indices(len(rows), 1)]
    share = float((product >= np.float32(context.config.search.min_similarity)).mean())
    if share <= _MOST:
        return share
    threshold, median = context.config.search.min_similarity, float(np.median(product))
    found = f"{share:.0%} of {len(product):,} pairs of random images reach search.min_similarity={threshold:g} (the median is {median:.3f})"
    if context.run.judges_pixels:
        context.reporter.note(f"pairs: {found}: all of these are judged by their pixels, which takes long; a higher threshold finds fewer")
    elif context.config.search.all_alike == "stop":
        raise StageError(
            f"pairs: {found}: nearly all images would count as copies of each other; nothing was published. Set a higher threshold "
            "(dedup calibrate measures which, on a run that went on), subtract the mean of the vectors, or go on with "
            "search.all_alike=continue"
        )
    else:
        context.reporter.note(f"pairs: {found}, and search.all_alike=continue: most images will count as copies of each other")
    return share
