"""The stages of a run, in order; each is defined at the end of its own module."""

from __future__ import annotations

from typing import Final

from dedup.stages.confirm.stage import STAGE as CONFIRM
from dedup.stages.embed.stage import STAGE as EMBED
from dedup.stages.exclude import STAGE as EXCLUDE
from dedup.stages.groups.stage import STAGE as GROUPS
from dedup.stages.index.stage import STAGE as INDEX
from dedup.stages.manifest.stage import STAGE as MANIFEST
from dedup.stages.pairs.stage import STAGE as PAIRS
from dedup.stages.stage import Stage
from dedup.stages.statistics import STAGE as STATISTICS
from dedup.stages.targets import STAGE as TARGETS

STAGES: Final[tuple[Stage, ...]] = (EMBED, INDEX, PAIRS, CONFIRM, GROUPS, EXCLUDE, MANIFEST, STATISTICS, TARGETS)


def with_those_before(names: set[str]) -> set[str]:
    """These stages, and all whose results they read, directly or through others.

    >>> sorted(with_those_before({"confirm"}))
    ['confirm', 'embed', 'index', 'pairs']
    """
    needed = set(names)
    for stage in reversed(STAGES):
        if stage.name in needed:
            needed |= set(stage.reads)
    return needed
