"""Scoring generated images, from paths to tables: what the command line and notebooks call."""

from __future__ import annotations

from dedup.config import ExtractionConfig
from dedup.contracts import Engine, Reporter
from dedup.engines.local import LocalEngine
from dedup.extraction.score import ScoreSummary, score
from dedup.extraction.targets import read_targets
from dedup.stages.context import SilentReporter


def score_generations(
    targets: str,
    generations: str,
    out: str,
    *,
    options: ExtractionConfig | None = None,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> ScoreSummary:
    """Tell which targets a model has memorised, and which training images came out of it.

    Parameters
    ----------
    targets : str
        A run's `targets/` folder, through which its tars and groups are found, or parquet with the same columns.
    generations : str
        Folder with `TARGET_ID/*.png`, or with webdataset tars whose json has a `target_id`.
    out : str
        Folder for the table `dedup.schemas.SCORES`, a row per target in the order of the list. A run that was stopped goes on
        with the parts that are missing.
    options : ExtractionConfig
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    InputError
        If targets or generations can't be read.
    RunDirectoryError
        If `out` holds scores of other targets, generations or options.

    Notes
    -----
    After Carlini et al. (2023), "Extracting Training Data from Diffusion Models", sections 4 and 5.
    """
    own = engine is None
    engine = engine or LocalEngine()
    try:
        return score(read_targets(targets), generations, out, options or ExtractionConfig(), engine, reporter or SilentReporter())
    finally:
        if own:
            engine.close()
