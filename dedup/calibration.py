"""Threshold advice for a finished run, from its path to the files: what the command line and notebooks call."""

from __future__ import annotations

from collections.abc import Sequence

from dedup.advice.calibrate import Calibration, calibrate_run
from dedup.advice.calibration_files import write_calibration
from dedup.advice.calibration_planting import CalibrationOptions
from dedup.contracts import Engine, Reporter
from dedup.engines.local import engine_or_own
from dedup.stages.context import SilentReporter
from dedup.storage.urls import join


def calibrate(
    run_dir: str,
    out: str = "",
    *,
    precision: float = 0.99,
    n_images: int = 2_000,
    changes: str = "default",
    seed: int = 0,
    overrides: Sequence[str] = (),
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> Calibration:
    """Tell what each threshold would find among a run's images and what it would join wrongly, and recommend one.

    Parameters
    ----------
    run_dir : str
        A finished run.
    out : str
        Folder for tables, figures, configuration and plot; by default `calibration/` of the run.
    precision : float
        Wanted: the recommended threshold is the least whose precision is that high by the lower end of its interval.
    n_images : int
        Images drawn at random, of which changed copies are planted. Unrelated pairs are those of as many images, or more, with all others.
    changes : {"default", "all"}
        Strengths of the changes of `dedup.numerics.planting`.
    seed : int
        Of everything that is drawn. Equal seeds give equal tables, however many workers there are.
    overrides : sequence of str
        ``section.key=value`` of `encoder`, `input` or `engine` over what the run was made with; a run over precomputed embeddings names
        no encoder, and copies are planted only with one.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Returns
    -------
    Calibration

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or was embedded with another encoder.
    ConfigError, InputError
        If an option can't be, or there are too few images.
    """
    with engine_or_own(engine) as engine:
        options = CalibrationOptions(precision, n_images, changes, seed)
        found = calibrate_run(run_dir, options, overrides, engine, reporter or SilentReporter())
    write_calibration(found, out or join(run_dir, "calibration"))
    return found
