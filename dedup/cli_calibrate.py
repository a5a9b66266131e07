"""The command that advises on the threshold: calibrate."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from dedup.cli_options import Json
from dedup.completion import complete_setting
from dedup.terminal import print_json

RunDir = Annotated[str, typer.Argument(help="the run directory of a finished run")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="over the run's configuration, such as engine.workers=2 or engine.device=cpu",
        autocompletion=complete_setting,
    ),
]


def calibrate(
    run_dir: RunDir,
    overrides: Overrides = None,
    precision: Annotated[float, typer.Option("--precision", help="share of copies wanted among what the threshold joins")] = 0.99,
    n_images: Annotated[int, typer.Option("--n-images", help="images drawn, of which changed copies are planted")] = 2000,
    changes: Annotated[str, typer.Option("--changes", help="strengths of the planted changes: default or all")] = "default",
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    out: Annotated[str, typer.Option("--out", help="folder for tables, configuration and plot; by default RUN_DIR/calibration")] = "",
    as_json: Json = False,
) -> None:
    """Recommend a threshold: recall of planted copies, expected false pairs and precision for each, on the run's own images.

    Example: dedup calibrate out --precision 0.99
    """
    from dedup.advice.calibration_files import summary_of
    from dedup.calibration import calibrate as run_calibration
    from dedup.config.load import load_config
    from dedup.console import ConsoleReporter
    from dedup.console_calibrate import print_calibration
    from dedup.pipeline import make_engine
    from dedup.storage.urls import join

    engine_keys = [text for text in overrides or [] if text.startswith("engine.")]
    out = out or join(run_dir, "calibration")
    with closing(make_engine(load_config(None, [*engine_keys, f"output.run_dir={run_dir}"]))) as engine, ConsoleReporter() as reporter:
        found = run_calibration(
            run_dir,
            out,
            precision=precision,
            n_images=n_images,
            changes=changes,
            seed=seed,
            overrides=overrides or [],
            engine=engine,
            reporter=reporter,
        )
    if as_json:
        print_json(summary_of(found) | {"thresholds": found.table.to_pylist()})
    else:
        print_calibration(found, out)
