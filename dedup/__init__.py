"""De-duplicate image/text datasets kept in webdataset shards, and count how often each image occurs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dedup.advice.explain import explain
    from dedup.advice.explanation import Explanation
    from dedup.advice.show import montage
    from dedup.api import Edges, near_duplicates
    from dedup.audit import find_outliers, flag_images, score_generations, write_report
    from dedup.calibration import calibrate
    from dedup.config import Config
    from dedup.config.load import load_config
    from dedup.errors import DedupError
    from dedup.exports import export
    from dedup.extraction.curves import by_duplication_count, precision_recall
    from dedup.lookup.index import open_index
    from dedup.numerics.adaptive import AdaptiveDistances, adaptive_distances
    from dedup.numerics.components import connected_components
    from dedup.numerics.counts import duplication_counts
    from dedup.numerics.thresholds import removed_by_threshold
    from dedup.pipeline import RunSummary, run
    from dedup.release import rewrite
    from dedup.storage.keepfilter import keep

__all__ = [
    "AdaptiveDistances",
    "Config",
    "DedupError",
    "Edges",
    "Explanation",
    "RunSummary",
    "adaptive_distances",
    "by_duplication_count",
    "calibrate",
    "connected_components",
    "duplication_counts",
    "explain",
    "export",
    "find_outliers",
    "flag_images",
    "keep",
    "load_config",
    "montage",
    "near_duplicates",
    "open_index",
    "precision_recall",
    "removed_by_threshold",
    "rewrite",
    "run",
    "score_generations",
    "write_report",
]

_HOMES = {
    "AdaptiveDistances": "dedup.numerics.adaptive",
    "adaptive_distances": "dedup.numerics.adaptive",
    "Config": "dedup.config",
    "DedupError": "dedup.errors",
    "Edges": "dedup.api",
    "Explanation": "dedup.advice.explanation",
    "RunSummary": "dedup.pipeline",
    "by_duplication_count": "dedup.extraction.curves",
    "calibrate": "dedup.calibration",
    "connected_components": "dedup.numerics.components",
    "duplication_counts": "dedup.numerics.counts",
    "export": "dedup.exports",
    "explain": "dedup.advice.explain",
    "find_outliers": "dedup.audit",
    "flag_images": "dedup.audit",
    "keep": "dedup.storage.keepfilter",
    "load_config": "dedup.config.load",
    "montage": "dedup.advice.show",
    "near_duplicates": "dedup.api",
    "open_index": "dedup.lookup.index",
    "precision_recall": "dedup.extraction.curves",
    "removed_by_threshold": "dedup.numerics.thresholds",
    "rewrite": "dedup.release",
    "run": "dedup.pipeline",
    "score_generations": "dedup.audit",
    "write_report": "dedup.audit",
}


def __getattr__(name: str) -> Any:
    # faiss, duckdb and their like load only when something that uses them is asked for
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dedup' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
