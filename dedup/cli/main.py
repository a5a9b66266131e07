"""The command line: arguments to pipeline, no logic."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column
from rich.table import Table as RichTable

from dedup.cli import attack as cli_extraction
from dedup.cli import find as cli_lookup
from dedup.cli import finished as cli_calibrate
from dedup.cli import finished as cli_explain
from dedup.cli import finished as cli_release
from dedup.cli import finished as cli_report
from dedup.cli.options import ConfigFile, Json, Overrides, Redo, StageGroup, load
from dedup.cli.show.terminal import GOES_ON, console, errors_shown, is_plain, print_json
from dedup.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="De-duplicate image/text datasets kept in webdataset shards.",
)


@app.command()
def run(overrides: Overrides = None, config_file: ConfigFile = None, redo: Redo = False, as_json: Json = False) -> None:
    """Run all stages: shards in, cleaned manifest, duplication counts and attack targets out.

    Example: dedup run input.shards='shards/*.tar' output.run_dir=out
    """
    _run_stages(None, overrides, config_file, redo, as_json)


def _run_stages(stage: str | None, overrides: list[str] | None, config_file: str | None, redo: bool, as_json: bool) -> None:
    from dedup.cli.show.run import ConsoleReporter, print_summary
    from dedup.pipeline import run as pipeline

    config = load(config_file, overrides)
    with ConsoleReporter() as reporter:
        summary = pipeline.run(config, pipeline.STAGE_NAMES if stage is None else [stage], redo=redo, reporter=reporter)
    if as_json:
        print_json(summary.as_dict())
    else:
        print_summary(summary, config)


def _stage_command(name: str, text: str) -> None:
    def command(overrides: Overrides = None, config_file: ConfigFile = None, redo: Redo = False, as_json: Json = False) -> None:
        _run_stages(name, overrides, config_file, redo, as_json)

    command.__doc__ = f"{text}\n\nExample: dedup {name} output.run_dir=out" + (" input.shards='shards/*.tar'" if name == "embed" else "")
    if name == "index":
        group = typer.Typer(cls=StageGroup, help=f"{command.__doc__}\n\n`dedup index info RUN` tells what an index is like.")
        group.command("stage", help=command.__doc__)(command)
        group.command("info")(cli_lookup.index_info)
        app.add_typer(group, name=name, rich_help_panel="Single stages, in order")
    else:
        app.command(name, rich_help_panel="Single stages, in order")(command)


_STAGES = (
    ("embed", "Stage 1: stream shards through the encoder."),
    ("index", "Stage 2: collapse byte-identical images, train and fill the index."),
    ("pairs", "Stage 3: find all pairs that are similar."),
    ("confirm", "Stage 4: judge each pair by its pixels."),
    ("groups", "Stage 5: connected components, cut into groups."),
    ("exclude", "Stage 6: find samples that are near reference images or on a list."),
    ("manifest", "Stage 7: choose keepers, write manifest and duplicates."),
    ("statistics", "Stage 8: duplication counts per image and caption."),
    ("targets", "Stage 9: the extraction attack's target list."),
)

for _name, _text in _STAGES:
    _stage_command(_name, _text)

_GO_ON = {("run",), *((name,) for name, _ in _STAGES), ("extraction", "score"), ("rewrite",)}


@app.command()
def status(
    run_dir: Annotated[str, typer.Argument(help="a run directory")],
    overrides: Overrides = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show each stage of a run: rows, time, and whether the configuration has changed since.

    Example: dedup status out -c conf/mine.yaml search.min_similarity=0.8
    """
    from dedup.cli.show.run import print_status
    from dedup.pipeline import run as pipeline

    has_config = bool(config_file or overrides)
    config = load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    stages = pipeline.status(run_dir, config if has_config else None)
    if as_json:
        print_json({"run_dir": run_dir, "stages": [asdict(stage) for stage in stages]})
    else:
        print_status(stages)


@app.command()
def config(overrides: Overrides = None, config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Print every configuration key with its value and meaning.

    Example: dedup config search.min_similarity=0.9
    """
    from dedup.config.keys import KEYS, values_of
    from dedup.config.load import to_dict

    given = load(config_file, overrides)
    if as_json:
        print_json(to_dict(given))
        return
    table = RichTable(Column("key", no_wrap=True), Column("value", max_width=30), "meaning", box=None, pad_edge=False)
    for name, value in values_of(given).items():
        table.add_row(name, repr(value).replace("[", "\\["), KEYS[name].meaning.replace("[", "\\["))
    console(width=None if sys.stdout.isatty() else 180).print(table)


@app.command()
def show(
    run_dir: Annotated[str, typer.Argument(help="a run directory")],
    out: Annotated[Path, typer.Option("--out", help="PNG to write")] = Path("montage.png"),
    component: Annotated[list[int] | None, typer.Option("--component", help="component_id; may be given several times")] = None,
    largest: Annotated[int, typer.Option("--largest", min=0, help="the N largest groups")] = 0,
    random: Annotated[int, typer.Option("--random", min=0, help="N groups drawn at random")] = 0,
    per_group: Annotated[int, typer.Option("--per-group", min=2, help="images per group at most")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="seed of --random")] = 0,
    as_json: Json = False,
) -> None:
    """Draw a montage of groups: keeper first, copies with similarity and caption.

    Example: dedup show out --largest 6 --out montage.png
    """
    from dedup.explanation.draw import montage

    n_groups = montage(run_dir, out, component_ids=component or [], n_largest=largest, n_random=random, per_group=per_group, seed=seed)
    if as_json:
        print_json({"n_groups": n_groups, "out": out})
    else:
        typer.echo(f"{n_groups} groups in {out}")


@app.command("demo-data")
def demo_data(
    out: Annotated[Path, typer.Argument(help="folder for the shards")],
    n_images: Annotated[int, typer.Option("--n-images", min=1, help="samples to write")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, help="samples per tar")] = 1000,
    jpeg_size: Annotated[str, typer.Option("--jpeg-size", help="make all images JPEGs of about this size, such as 110KB")] = "",
    workers: Annotated[int, typer.Option("--workers", min=0, help="processes; 0 = one per core")] = 0,
    as_json: Json = False,
) -> None:
    """Write demo shards with planted duplicates and truth.parquet.

    Example: dedup demo-data shards --n-images 3000
    """
    from dedup.demo.shards import make_demo_data, parse_size
    from dedup.machine import available_cores

    size = parse_size(jpeg_size) if jpeg_size else None
    summary = make_demo_data(out, n_images=n_images, seed=seed, per_shard=per_shard, jpeg_size=size, workers=workers or available_cores())
    if as_json:
        print_json(asdict(summary))
    else:
        typer.echo(f"{summary}")


app.command(rich_help_panel="A finished run")(cli_explain.explain)

app.command(rich_help_panel="A finished run")(cli_lookup.query)

app.command(rich_help_panel="A finished run")(cli_lookup.flag)

app.command(rich_help_panel="A finished run")(cli_lookup.serve)

app.command(rich_help_panel="A finished run")(cli_release.rewrite)

app.command(rich_help_panel="A finished run")(cli_release.export)

app.command(rich_help_panel="A finished run")(cli_report.report)

app.command(rich_help_panel="A finished run")(cli_calibrate.calibrate)

app.add_typer(cli_extraction.extraction, name="extraction")


def main() -> None:
    """Run the command line: exit 0 on success, 2 on a usage or configuration error, 1 on a failed run, 130 after Ctrl-C."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = len(arguments) < len(sys.argv) - 1
    if is_plain():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM, rich_utils.FORCE_TERMINAL = None, False
    with nullcontext() if is_debug else errors_shown(_how_to_go_on(arguments)):
        app(args=arguments, prog_name="dedup")


def _how_to_go_on(arguments: list[str]) -> str:
    """What to do after Ctrl-C: stages and scoring keep their finished parts."""
    names = tuple(argument for argument in arguments if not argument.startswith("-"))
    return GOES_ON if names[:1] in _GO_ON or names[:2] in _GO_ON else "run the same command again: it begins anew"


__all__ = ["ConfigError", "app", "main"]
