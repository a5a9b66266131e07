"""The machine that a figure was measured on, and processor time."""

from __future__ import annotations

import os
import platform
import resource


def describe_machine() -> str:
    """Architecture and the cores that this process may use."""
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def processor_seconds() -> float:
    """Processor seconds of this process and of those it has waited for: on a shared machine they say more than the clock."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
