"""Commands over a finished run: report, explain, show, export, rewrite, calibrate."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from dedup.cli.options import ConfigFile, Json, Overrides, complete_setting, load
from dedup.cli.show.terminal import print_json
from dedup.errors import ConfigError


def report(
    run_dir: Annotated[str, typer.Argument(help="the run directory of a finished run")],
    out: Annotated[str, typer.Option("--out", help="file to write; by default report.html in the run directory")] = "",
    galleries: Annotated[int, typer.Option("--galleries", help="the N largest groups, and N at random")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of what is drawn at random")] = 0,
    as_json: Json = False,
) -> None:
    """Write the HTML report of a run: one file that opens anywhere.

    Example: dedup report out
    """
    from dedup.attack.audit import write_report
    from dedup.text import bytes_text

    summary = write_report(run_dir, out, n_galleries=galleries, seed=seed)
    if as_json:
        print_json(asdict(summary))
        return
    for note in summary.notes:
        typer.echo(note, err=True)
    typer.echo(f"{summary.path}  {bytes_text(summary.n_bytes)}, {summary.n_pictures:,} pictures")


def explain(
    run_dir: Annotated[str, typer.Argument(help="the run directory of a finished run")],
    key: Annotated[
        str,
        typer.Argument(
            metavar="[KEY]", help="the sample's key, SHARD/KEY (the shard's name will do), its url, or the SHA-256 of its bytes"
        ),
    ] = "",
    shard: Annotated[str, typer.Option("--shard", help="the shard, or the end of its URL, where several have the key")] = "",
    sample_id: Annotated[int | None, typer.Option("--sample-id", help="instead of a key")] = None,
    out: Annotated[str, typer.Option("--out", help="PNG to draw: the sample, what joins it to its keeper, what was refused")] = "",
    refused: Annotated[int, typer.Option("--refused", min=0, help="refused pairs to list at most")] = 20,
    as_json: Json = False,
) -> None:
    """Tell why a sample was kept or dropped: its group, its keeper, the edges that join them, what was refused.

    Example: dedup explain out 00000.tar/000000412 --out explain.png
    """
    from dedup.cli.show.explain import print_explanation
    from dedup.errors import ConfigError
    from dedup.explanation.explain import explain as explained

    if bool(key) == (sample_id is not None):
        raise ConfigError("expected either KEY or --sample-id, to say which sample")
    found = explained(run_dir, key, shard=shard, sample_id=sample_id, out=out or None, max_refused=refused)
    if as_json:
        print_json(found.as_dict())
    else:
        print_explanation(found)
        if out:
            typer.echo(f"{'picture':<12} {out}")


RunDir = Annotated[str, typer.Argument(help="the run directory of a finished run")]

KeepList = Annotated[
    str, typer.Option("--keep-list", help="keep what this list names instead: .txt, .csv or .parquet of keys, urls or sha256, .npy of uids")
]


def rewrite(
    run_dir: RunDir,
    out: Annotated[str, typer.Argument(help="folder for the cleaned shards")],
    overrides: Overrides = None,
    config_file: ConfigFile = None,
    per_shard: Annotated[int, typer.Option("--per-shard", min=0, help="samples per tar; 0 = a tar for each tar of the input")] = 10_000,
    keep_list: KeepList = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be written, and how large it is")] = False,
    as_json: Json = False,
) -> None:
    """Write cleaned shards: new tars of the kept samples, members byte for byte.

    Example: dedup rewrite out cleaned --per-shard 10000
    """
    from dedup.cli.show.release import print_rewrite
    from dedup.cli.show.run import ConsoleReporter
    from dedup.config.rules import validate
    from dedup.pipeline.run import make_engine
    from dedup.release.rewrite import rewrite as rewrite_run

    config = load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    validate(config, require_input=False)
    with closing(make_engine(config)) as engine, ConsoleReporter() as reporter:
        summary = rewrite_run(run_dir, out, per_shard=per_shard, keep_list=keep_list, dry_run=dry_run, engine=engine, reporter=reporter)
    if as_json:
        print_json(asdict(summary))
    else:
        print_rewrite(summary)
    if summary.n_failed:
        raise typer.Exit(1)


def export(
    run_dir: RunDir,
    form: Annotated[str, typer.Option("--format", help="keys, urls, datacomp or hf")],
    out: Annotated[str, typer.Option("--out", help="file to write; for hf a folder")],
    overrides: Overrides = None,
    config_file: ConfigFile = None,
    keep_list: KeepList = "",
    images: Annotated[bool, typer.Option("--images/--no-images", help="hf: whether the images' bytes go into the parquet files")] = True,
    as_json: Json = False,
) -> None:
    """Write what is kept in the form another tool reads.

    keys: a key a line, or with shards as .csv or .parquet; urls: a url a line; datacomp: the sorted .npy of its resharder;
    hf: a folder that `datasets.load_dataset` reads.

    Example: dedup export out --format keys --out kept.csv
    """
    from dedup.cli.show.release import print_export
    from dedup.cli.show.run import ConsoleReporter
    from dedup.config.rules import validate
    from dedup.pipeline.run import make_engine
    from dedup.release.export import FORMATS
    from dedup.release.export import export as export_run

    if form not in FORMATS:
        raise ConfigError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    config = load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    validate(config, require_input=False)
    with closing(make_engine(config)) as engine, ConsoleReporter() as reporter:
        summary = export_run(run_dir, form, out, keep_list=keep_list, with_images=images, engine=engine, reporter=reporter)
    if as_json:
        print_json(asdict(summary))
    else:
        print_export(summary)


CalibrationOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="over the run's configuration, such as engine.workers=2 or engine.device=cpu",
        autocompletion=complete_setting,
    ),
]


def calibrate(
    run_dir: RunDir,
    overrides: CalibrationOverrides = None,
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
    from dedup.calibration.calibrate import calibrate as run_calibration
    from dedup.calibration.calibrate import summary_of
    from dedup.cli.show.calibrate import print_calibration
    from dedup.cli.show.run import ConsoleReporter
    from dedup.config.load import load_config
    from dedup.pipeline.run import make_engine
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
