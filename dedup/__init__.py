"""De-duplicate image/text datasets kept in webdataset shards, and count how often each image occurs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see of the table below; tests/test_api.py holds the two together
    from dedup.arrays import Edges as Edges
    from dedup.arrays import near_duplicates as near_duplicates
    from dedup.attack.controls import find_controls as find_controls
    from dedup.attack.curves import by_duplication_count as by_duplication_count
    from dedup.attack.curves import precision_recall as precision_recall
    from dedup.attack.detector_files import DetectorFile as DetectorFile
    from dedup.attack.generate import generate_targets as generate_targets
    from dedup.attack.join import join_detectors as join_detectors
    from dedup.attack.outliers import find_outliers as find_outliers
    from dedup.attack.patches import measure_patches as measure_patches
    from dedup.attack.prompts import write_prompts as write_prompts
    from dedup.attack.score import score_generations as score_generations
    from dedup.calibration.calibrate import calibrate as calibrate
    from dedup.config import Config as Config
    from dedup.config.load import load_config as load_config
    from dedup.demo.plant import plant_duplicates as plant_duplicates
    from dedup.duplicates import Duplicates as Duplicates
    from dedup.duplicates import find_duplicates as find_duplicates
    from dedup.errors import DedupError as DedupError
    from dedup.explanation.draw import montage as montage
    from dedup.explanation.explain import explain as explain
    from dedup.explanation.explanation import Explanation as Explanation
    from dedup.find.flag import flag_images as flag_images
    from dedup.find.index import open_index as open_index
    from dedup.numerics.graph.components import connected_components as connected_components
    from dedup.numerics.graph.components import duplication_counts as duplication_counts
    from dedup.numerics.graph.components import removed_by_threshold as removed_by_threshold
    from dedup.numerics.pixels import AdaptiveDistances as AdaptiveDistances
    from dedup.numerics.pixels import adaptive_distances as adaptive_distances
    from dedup.pipeline.run import RunSummary as RunSummary
    from dedup.pipeline.run import run as run
    from dedup.release.export import export as export
    from dedup.release.filter import keep as keep
    from dedup.release.rewrite import rewrite as rewrite
    from dedup.report.build import write_report as write_report

_PUBLIC = {
    "dedup.arrays": ("Edges", "near_duplicates"),
    "dedup.attack.controls": ("find_controls",),
    "dedup.attack.curves": ("by_duplication_count", "precision_recall"),
    "dedup.attack.join": ("join_detectors",),
    "dedup.attack.detector_files": ("DetectorFile",),
    "dedup.attack.generate": ("generate_targets",),
    "dedup.attack.outliers": ("find_outliers",),
    "dedup.attack.patches": ("measure_patches",),
    "dedup.attack.prompts": ("write_prompts",),
    "dedup.attack.score": ("score_generations",),
    "dedup.calibration.calibrate": ("calibrate",),
    "dedup.config": ("Config",),
    "dedup.config.load": ("load_config",),
    "dedup.demo.plant": ("plant_duplicates",),
    "dedup.duplicates": ("Duplicates", "find_duplicates"),
    "dedup.errors": ("DedupError",),
    "dedup.explanation.draw": ("montage",),
    "dedup.explanation.explain": ("explain",),
    "dedup.explanation.explanation": ("Explanation",),
    "dedup.find.flag": ("flag_images",),
    "dedup.find.index": ("open_index",),
    "dedup.numerics.graph.components": ("connected_components", "duplication_counts", "removed_by_threshold"),
    "dedup.numerics.pixels": ("AdaptiveDistances", "adaptive_distances"),
    "dedup.pipeline.run": ("RunSummary", "run"),
    "dedup.release.export": ("export",),
    "dedup.release.filter": ("keep",),
    "dedup.release.rewrite": ("rewrite",),
    "dedup.report.build": ("write_report",),
}

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # faiss, duckdb and their like load only when something that uses them is asked for
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return import_module("dedup.machine").package_version()
    raise AttributeError(f"module 'dedup' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
