"""The command line: arguments to pipeline, no logic."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from dedup import cli_calibrate, cli_lookup
from dedup.config import Config
from dedup.errors import ConfigError
from dedup.failures import errors_shown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="De-duplicate image/text datasets kept in webdataset shards.",
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="configuration, such as input.shards='DIR/*.tar'; see `dedup config`")
]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of configuration keys")]
Redo = Annotated[bool, typer.Option("--redo", help="redo from the first stage whose configuration or input changed")]


def _load(config_file: str | None, overrides: list[str] | None) -> Config:
    from dedup.config_io import load_config

    return load_config(config_file, overrides or [])


@app.command()
def run(overrides: Overrides = None, config_file: ConfigFile = None, redo: Redo = False) -> None:
    """Run all stages: shards in, cleaned manifest, duplication counts and attack targets out.

    Example: dedup run input.shards='shards/*.tar' output.run_dir=out
    """
    _run_stages(None, overrides, config_file, redo)


def _run_stages(stage: str | None, overrides: list[str] | None, config_file: str | None, redo: bool) -> None:
    from dedup import pipeline
    from dedup.console import ConsoleReporter, print_summary

    config = _load(config_file, overrides)
    try:
        with ConsoleReporter() as reporter:
            summary = pipeline.run(config, pipeline.STAGE_NAMES if stage is None else [stage], redo=redo, reporter=reporter)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; run the same command again to go on from the finished parts")
        raise typer.Exit(130) from None
    print_summary(summary, config)


def _stage_command(name: str, text: str) -> None:
    def command(overrides: Overrides = None, config_file: ConfigFile = None, redo: Redo = False) -> None:
        _run_stages(name, overrides, config_file, redo)

    command.__doc__ = f"{text}\n\nExample: dedup {name} output.run_dir=out" + (" input.shards='shards/*.tar'" if name == "embed" else "")
    if name == "index":
        group = typer.Typer(cls=cli_lookup.StageGroup, help=f"{command.__doc__}\n\n`dedup index info RUN` tells what an index is like.")
        group.command("stage", help=command.__doc__)(command)
        group.command("info")(cli_lookup.index_info)
        app.add_typer(group, name=name, rich_help_panel="Single stages, in order")
    else:
        app.command(name, rich_help_panel="Single stages, in order")(command)


for _name, _text in (
    ("embed", "Stage 1: stream shards through the encoder."),
    ("index", "Stage 2: collapse byte-identical images, train and fill the index."),
    ("pairs", "Stage 3: find all pairs that are similar."),
    ("confirm", "Stage 4: judge each pair by its pixels."),
    ("groups", "Stage 5: connected components, cut into groups."),
    ("exclude", "Stage 6: find samples that are near reference images or on a list."),
    ("manifest", "Stage 7: choose keepers, write manifest and duplicates."),
    ("statistics", "Stage 8: duplication counts per image and caption."),
    ("targets", "Stage 9: the extraction attack's target list."),
):
    _stage_command(_name, _text)


@app.command()
def status(
    run_dir: Annotated[str, typer.Argument(help="a run directory")], overrides: Overrides = None, config_file: ConfigFile = None
) -> None:
    """Show each stage of a run: rows, time, and whether the configuration has changed since.

    Example: dedup status out -c conf/mine.yaml search.min_similarity=0.8
    """
    from dedup import pipeline
    from dedup.console import print_status

    has_config = bool(config_file or overrides)
    config = _load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    print_status(pipeline.status(run_dir, config if has_config else None))


@app.command()
def config(overrides: Overrides = None, config_file: ConfigFile = None) -> None:
    """Print every configuration key with its value and meaning.

    Example: dedup config search.min_similarity=0.9
    """
    from dedup import config_io

    values = config_io.to_dict(_load(config_file, overrides))
    table = RichTable(Column("key", no_wrap=True), Column("value", max_width=30), "meaning", box=None, pad_edge=False)
    for key, _kind, _default, meaning in config_io.describe():
        section, _, name = key.partition(".")
        table.add_row(key, repr(values[section][name]).replace("[", "\\["), meaning.replace("[", "\\["))
    Console(width=None if sys.stdout.isatty() else 180).print(table)


@app.command()
def show(
    run_dir: Annotated[str, typer.Argument(help="a run directory")],
    out: Annotated[Path, typer.Option("--out", help="PNG to write")] = Path("montage.png"),
    component: Annotated[list[int] | None, typer.Option("--component", help="component_id; may be given several times")] = None,
    largest: Annotated[int, typer.Option("--largest", min=0, help="the N largest groups")] = 0,
    random: Annotated[int, typer.Option("--random", min=0, help="N groups drawn at random")] = 0,
    per_group: Annotated[int, typer.Option("--per-group", min=2, help="images per group at most")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="seed of --random")] = 0,
) -> None:
    """Draw a montage of groups: keeper first, copies with similarity and caption.

    Example: dedup show out --largest 6 --out montage.png
    """
    from dedup.advice.show import montage

    n_groups = montage(run_dir, out, component_ids=component or [], n_largest=largest, n_random=random, per_group=per_group, seed=seed)
    typer.echo(f"{n_groups} groups in {out}")


@app.command("demo-data")
def demo_data(
    out: Annotated[Path, typer.Argument(help="folder for the shards")],
    n_images: Annotated[int, typer.Option("--n-images", min=1, help="samples to write")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, help="samples per tar")] = 1000,
    jpeg_size: Annotated[str, typer.Option("--jpeg-size", help="make all images JPEGs of about this size, such as 110KB")] = "",
    workers: Annotated[int, typer.Option("--workers", min=0, help="processes; 0 = one per core")] = 0,
) -> None:
    """Write demo shards with planted duplicates and truth.parquet.

    Example: dedup demo-data shards --n-images 3000
    """
    from dedup.demo.shards import make_demo_data, parse_size
    from dedup.engines.local import available_cores

    size = parse_size(jpeg_size) if jpeg_size else None
    summary = make_demo_data(out, n_images=n_images, seed=seed, per_shard=per_shard, jpeg_size=size, workers=workers or available_cores())
    typer.echo(f"{summary}")


app.command(rich_help_panel="A finished run")(cli_lookup.query)
app.command(rich_help_panel="A finished run")(cli_lookup.flag)
app.command(rich_help_panel="A finished run")(cli_lookup.serve)
app.command(rich_help_panel="A finished run")(cli_calibrate.calibrate)

extraction = typer.Typer(no_args_is_help=True, help="The extraction attack: score generated images against what they were aimed at.")
app.add_typer(extraction, name="extraction")


@extraction.command("score")
def extraction_score(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder, or parquet with its columns")],
    generations: Annotated[str, typer.Argument(help="folder with TARGET_ID/*.png, or with tars whose json has a target_id")],
    out: Annotated[str, typer.Option("--out", help="folder for the table of scores")],
    overrides: Overrides = None,
    config_file: ConfigFile = None,
) -> None:
    """Tell which targets a model has memorised: cliques of generations, distances to the training image, eidetic labels.

    Example: dedup extraction score out/targets generations --out scores
    """
    from dedup.audit import score_generations
    from dedup.config_io import validate
    from dedup.console import ConsoleReporter, print_scores
    from dedup.pipeline import make_engine

    config = _load(config_file, overrides)
    validate(config)
    engine = make_engine(config)
    try:
        with ConsoleReporter() as reporter:
            summary = score_generations(targets, generations, out, options=config.extraction, engine=engine, reporter=reporter)
    finally:
        engine.close()
    print_scores(summary)


@extraction.command("work")
def extraction_work(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder")],
    out: Annotated[str, typer.Option("--out", help="folder for part-00000.jsonl, …")],
    n_parts: Annotated[int, typer.Option("--n-parts", help="files, each for one generator")] = 1,
    generations: Annotated[
        str, typer.Option("--generations", help="folder with TARGET_ID/*.png: what is there is not asked for again")
    ] = "",
) -> None:
    """List what is still to be generated: prompt, seeds and number for each target, in parts of equal cost.

    Example: dedup extraction work out/targets --out work --n-parts 8 --generations generations
    """
    from dedup.extraction.work import write_work

    for path, n_targets, n_images in write_work(targets, out, n_parts=n_parts, generations=generations):
        typer.echo(f"{path}  {n_targets:,} targets, {n_images:,} images")


@extraction.command("curves")
def extraction_curves(
    scores: Annotated[str, typer.Argument(help="what `dedup extraction score` has written")],
    out: Annotated[str, typer.Option("--out", help="folder for tables and pictures")],
    labels: Annotated[str, typer.Option("--labels", help="CSV or parquet with target_id and is_memorized, as a person says")] = "",
) -> None:
    """Draw extraction against duplication count, and with labels precision against recall.

    Example: dedup extraction curves scores --out curves --labels labels.csv
    """
    from dedup.extraction.plots import write_curves

    for path in write_curves(scores, out, labels):
        typer.echo(path)


@extraction.command("sweep")
def extraction_sweep(
    run_dir: Annotated[str, typer.Argument(help="a run directory with finished pairs")],
    thresholds: Annotated[str, typer.Option("--thresholds", help="cosines, such as 0.7,0.75,0.8; by default from the run's own up")] = "",
    out: Annotated[str, typer.Option("--out", help="file to write, .parquet or .csv")] = "",
) -> None:
    """Tell how many images would be removed at each threshold, without another run.

    Example: dedup extraction sweep out --thresholds 0.8,0.85,0.9 --out sweep.csv
    """
    from dedup.console import print_sweep
    from dedup.extraction.sweep import parse_thresholds, sweep, write_sweep

    found = sweep(run_dir, parse_thresholds(thresholds))
    if out:
        write_sweep(found, out)
    print_sweep(found)


@extraction.command("outliers")
def extraction_outliers(
    run_dir: Annotated[str, typer.Argument(help="a run directory with a finished manifest")],
    out: Annotated[str, typer.Option("--out", help="folder for the table; by default RUN_DIR/outliers")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="images to write")] = 10_000,
    by: Annotated[str, typer.Option("--by", help="mean: distance to the neighbours; ratio: that divided by the neighbours' own")] = "mean",
    n_neighbors: Annotated[int, typer.Option("--neighbors", min=1, help="nearest neighbours that count")] = 10,
    with_duplicates: Annotated[bool, typer.Option("--with-duplicates", help="compare all distinct images, not only those kept")] = False,
    refine: Annotated[
        int,
        typer.Option("--refine", min=-1, help="images compared with every other beyond the lists; -1 = twice --top, or what time allows"),
    ] = -1,
    overrides: Overrides = None,
    config_file: ConfigFile = None,
) -> None:
    """Rank images by how far they lie from all others: targets of the attack's second kind.

    Example: dedup extraction outliers out --top 10000 --out outliers
    """
    from dedup.audit import find_outliers
    from dedup.config_io import validate
    from dedup.console import ConsoleReporter, print_outliers
    from dedup.pipeline import make_engine

    if by not in ("mean", "ratio"):
        raise ConfigError(f"--by {by}: expected mean or ratio")
    config = _load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    validate(config, require_input=False)
    engine = make_engine(config)
    try:
        with ConsoleReporter() as reporter:
            summary = find_outliers(
                run_dir,
                out,
                top=top,
                by="ratio" if by == "ratio" else "mean",
                n_neighbors=n_neighbors,
                with_duplicates=with_duplicates,
                refine=refine,
                engine=engine,
                reporter=reporter,
            )
    finally:
        engine.close()
    print_outliers(summary)


def main() -> None:
    """Run the command line: exit 0 on success, 2 on a usage or configuration error, 1 on a failed run."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = len(arguments) < len(sys.argv) - 1
    with nullcontext() if is_debug else errors_shown():
        app(args=arguments, prog_name="dedup")


__all__ = ["ConfigError", "app", "main"]
