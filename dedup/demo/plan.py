"""The plan of a demo corpus: which scene each sample shows and whether it is an original, a copy or broken.

Five bytes a sample, drawn from the seed alone; a shard's workers get their slice of it and nothing else, so that a copy is
made in any process from its source's own seed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

ORIGINAL, COPY, EXACT, BROKEN = range(4)
BREAKS = ("zero_bytes", "truncated", "not_an_image", "no_caption", "duplicate_key")
_COPY_SHARE = 0.2
_BROKEN_SHARE = 0.005
_EXACT_SHARE = 0.3
_LARGEST_GROUP = 150
_MAX_GROUP = 12


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every sample of a corpus is.

    Attributes
    ----------
    sources : int32 array, shape (n_images,)
        Samples with equal numbers show one scene. Numbers below `n_photos` are photos.
    roles : int8 array, shape (n_images,)
        `ORIGINAL`, `COPY` (changed), `EXACT` (the original's bytes) or `BROKEN`.
    n_photos : int
        Photos used; they are the first samples.
    first_broken : int
        Sources from here on belong to broken samples, one each; how it is broken is
        ``BREAKS[(source - first_broken) % len(BREAKS)]``.
    """

    sources: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    n_photos: int
    first_broken: int


def make_plan(n_images: int, seed: int, *, n_photos: int, is_broken_wanted: bool = True) -> Plan:
    """Draw the plan of a corpus.

    Parameters
    ----------
    n_images : int
        At least 20.
    seed : int
    n_photos : int
        Photos that are there; at most a quarter of the originals are photos.
    is_broken_wanted : bool
        Whether some 0.5% of the samples are broken.

    Returns
    -------
    Plan
        A fifth of the samples are copies: one set of 150 samples of photo 0 (a tenth of a corpus of fewer than 1,500), the
        rest in groups of 2 to 12, the photos' groups first.

    Examples
    --------
    >>> plan = make_plan(1000, seed=0, n_photos=42)
    >>> int((plan.sources == 0).sum()), int((plan.roles == BROKEN).sum())
    (100, 5)
    """
    rng = np.random.default_rng([seed, 0])
    n_broken = max(min(len(BREAKS), n_images // 20), round(n_images * _BROKEN_SHARE)) if is_broken_wanted else 0
    n_copies = round(n_images * _COPY_SHARE)
    n_sources = n_images - n_copies - n_broken
    n_photos = min(n_photos, n_sources // 4)
    n_of_largest = max(1, min(_LARGEST_GROUP, n_images // 10) - 1)

    copies = np.concatenate([np.zeros(n_of_largest, dtype=np.int64), _groups(rng, n_copies - n_of_largest, n_photos, n_sources)])
    copy_roles = np.where(rng.random(n_copies) < _EXACT_SHARE, EXACT, COPY)
    copy_roles[0] = EXACT  # the largest group has byte-identical copies at any size

    sources = np.concatenate([np.arange(n_sources), copies, np.arange(n_sources, n_sources + n_broken)])
    roles = np.concatenate([np.full(n_sources, ORIGINAL), copy_roles, np.full(n_broken, BROKEN)])
    order = np.concatenate([np.arange(n_photos), n_photos + rng.permutation(n_images - n_photos)])
    return Plan(sources[order].astype(np.int32), roles[order].astype(np.int8), n_photos, n_sources)


def _groups(rng: np.random.Generator, n_copies: int, n_photos: int, n_sources: int) -> npt.NDArray[np.int64]:
    """Sources of the copies in small groups: most have 2 or 3 samples, as on the web; the photos have the largest."""
    sizes = np.minimum(rng.geometric(0.4, n_copies), _MAX_GROUP - 1)
    n_groups = int(np.searchsorted(np.cumsum(sizes), n_copies)) + 1
    sizes[:n_groups] = np.sort(sizes[:n_groups])[::-1]
    heads = np.concatenate([np.arange(1, n_photos), n_photos + rng.permutation(n_sources - n_photos)])[:n_groups]
    return np.repeat(heads, sizes[:n_groups])[:n_copies]
