"""De-duplicate image/text datasets kept in webdataset shards, and count how often each image occurs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dedup.arrays import Edges, near_duplicates
    from dedup.attack.audit import find_outliers, flag_images, score_generations, write_report
    from dedup.attack.curves import by_duplication_count, precision_recall
    from dedup.calibration.calibrate import calibrate
    from dedup.config import Config
    from dedup.config.load import load_config
    from dedup.errors import DedupError
    from dedup.explanation.draw import montage
    from dedup.explanation.explain import explain
    from dedup.explanation.explanation import Explanation
    from dedup.find.index import open_index
    from dedup.numerics.graph.components import connected_components, duplication_counts, removed_by_threshold
    from dedup.numerics.pixels import AdaptiveDistances, adaptive_distances
    from dedup.pipeline.run import RunSummary, run
    from dedup.release.export import export
    from dedup.release.filter import keep
    from dedup.release.rewrite import rewrite

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
    "AdaptiveDistances": "dedup.numerics.pixels",
    "adaptive_distances": "dedup.numerics.pixels",
    "Config": "dedup.config",
    "DedupError": "dedup.errors",
    "Edges": "dedup.arrays",
    "Explanation": "dedup.explanation.explanation",
    "RunSummary": "dedup.pipeline.run",
    "by_duplication_count": "dedup.attack.curves",
    "calibrate": "dedup.calibration.calibrate",
    "connected_components": "dedup.numerics.graph.components",
    "duplication_counts": "dedup.numerics.graph.components",
    "export": "dedup.release.export",
    "explain": "dedup.explanation.explain",
    "find_outliers": "dedup.attack.audit",
    "flag_images": "dedup.attack.audit",
    "keep": "dedup.release.filter",
    "load_config": "dedup.config.load",
    "montage": "dedup.explanation.draw",
    "near_duplicates": "dedup.arrays",
    "open_index": "dedup.find.index",
    "precision_recall": "dedup.attack.curves",
    "removed_by_threshold": "dedup.numerics.graph.components",
    "rewrite": "dedup.release.rewrite",
    "run": "dedup.pipeline.run",
    "score_generations": "dedup.attack.audit",
    "write_report": "dedup.attack.audit",
}


def __getattr__(name: str) -> Any:
    # faiss, duckdb and their like load only when something that uses them is asked for
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dedup' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
