"""The commands that make a run: demo-data, plant, config, run, status."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dedup.cli.options import (
    ConfigFile,
    Json,
    Keys,
    Redo,
    Settings,
    Workers,
    chosen_stages,
    complete_setting,
    complete_stage,
    load,
    overrides_of,
)
from dedup.cli.show.terminal import console, print_json, print_result, print_text
from dedup.config.key import STAGE_NAMES


def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH|KEY=VALUE]...",
            help="what to read: a folder of photos, tars, parquet files, embeddings, globs; and settings, listed by `dedup config`",
            autocompletion=complete_setting,
        ),
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="the run directory, as output.run_dir=DIR; by default NAME-dedup")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="COSINE", help="how similar candidates are, as search.min_similarity=COSINE")
    ] = None,
    workers: Workers = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="STAGE[,STAGE]", help=f"run these stages alone: {', '.join(STAGE_NAMES)}", autocompletion=complete_stage
        ),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="start with this stage; earlier ones must be finished", autocompletion=complete_stage),
    ] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="end with this stage", autocompletion=complete_stage)] = None,
    redo: Redo = False,
    is_preview: Annotated[bool, typer.Option("--dry-run", help="say what would be read and written, and do nothing")] = False,
    as_json: Json = False,
) -> None:
    """De-duplicate: images in; manifest, counts and attack targets out.

    Finished stages are skipped, so the same command continues where it was stopped.

    Example: dedup run photos/ --out out
    """
    from dedup.cli.show.run import ConsoleReporter, print_preview, print_summary
    from dedup.pipeline import run as pipeline
    from dedup.pipeline.paths import config_for, paths_and_settings

    stages = chosen_stages(only, first, last)
    paths, keys = paths_and_settings(words or [])
    given = {"output.run_dir": out, "search.min_similarity": threshold}
    keys = [*overrides_of(keys, settings, workers), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    config, found = config_for(paths, config_file, keys)
    if found is not None and not as_json:
        print_preview(paths, found, config, keys, is_all=is_preview)
    if is_preview:
        if as_json or found is None:
            print_json({"overrides": [*(found.overrides if found else ()), *keys], "run_dir": config.output.run_dir})
        return
    with ConsoleReporter() as reporter:
        summary = pipeline.run(config, stages, redo=redo, reporter=reporter)
    print_result(as_json, summary.as_dict(), lambda: print_summary(summary, config))


def status(
    run_dir: Annotated[str, typer.Argument(help="a run directory")],
    keys: Keys = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Show each stage of a run: rows, seconds, what has changed since.

    Example: dedup status out -c conf/mine.yaml --set search.min_similarity=0.8
    """
    from dedup.cli.show.run import print_status
    from dedup.pipeline.plan import status as state_of_stages

    overrides = overrides_of(keys, settings)
    config = load(config_file, overrides, run_dir)
    stages = state_of_stages(run_dir, config if config_file or overrides else None)
    print_result(as_json, {"run_dir": run_dir, "stages": [asdict(stage) for stage in stages]}, lambda: print_status(stages))


def config(keys: Keys = None, config_file: ConfigFile = None, settings: Settings = None, as_json: Json = False) -> None:
    """List all configuration keys with value and meaning.

    Example: dedup config search.min_similarity=0.9
    """
    from rich.table import Column, Table

    from dedup.config.keys import KEYS, values_of
    from dedup.config.load import to_dict

    configuration = load(config_file, overrides_of(keys, settings))
    if as_json:
        print_json(to_dict(configuration))
        return
    table = Table(Column("key", no_wrap=True), Column("value", max_width=30), "meaning", box=None, pad_edge=False)
    for name, value in values_of(configuration).items():
        table.add_row(name, repr(value).replace("[", "\\["), KEYS[name].meaning.replace("[", "\\["))
    console(width=None if sys.stdout.isatty() else 180).print(table)


def demo_data(
    out: Annotated[Path, typer.Argument(help="folder for the shards")],
    n_images: Annotated[int, typer.Option("--n-images", min=1, help="samples to write")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, help="samples per tar")] = 1000,
    jpeg_size: Annotated[str, typer.Option("--jpeg-size", help="make every image a JPEG of about this size, such as 110KB")] = "",
    workers: Annotated[int, typer.Option("--workers", min=0, metavar="N", help="processes; 0 = one per core")] = 0,
    as_json: Json = False,
) -> None:
    """Write demo shards with planted copies and the ground truth.

    Example: dedup demo-data shards --n-images 3000
    """
    from dedup.demo.shards import make_demo_data, parse_size
    from dedup.machine import available_cores

    size = parse_size(jpeg_size) if jpeg_size else None
    summary = make_demo_data(out, n_images=n_images, seed=seed, per_shard=per_shard, jpeg_size=size, workers=workers or available_cores())
    print_result(as_json, asdict(summary), lambda: typer.echo(f"{summary}"))


def plant(
    shards: Annotated[
        list[str],
        typer.Argument(metavar="SHARDS...", help="your shards, as input.shards: paths, globs, brace ranges, URLs; or a folder of them"),
    ],
    counts: Annotated[str, typer.Option("--counts", metavar="N[,N]", help="how often the chosen images occur, such as 1,10,100,1000")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="new or empty folder for the shards and truth.parquet")],
    images_per_count: Annotated[int, typer.Option("--images-per-count", min=1, help="images of each kind for each count")] = 10,
    edited: Annotated[bool, typer.Option("--edited", help="also images whose further copies are changed as on the web")] = False,
    templates: Annotated[bool, typer.Option("--templates", help="also images of which a region differs in every copy")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="also images that every copy shows inside another picture")] = False,
    background: Annotated[int | None, typer.Option("--background", min=0, help="images that occur once; by default all others")] = None,
    run_dir: Annotated[str, typer.Option("--run", metavar="RUN_DIR", help="use only samples that this run keeps and has no copy of")] = "",
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    per_shard: Annotated[int, typer.Option("--per-shard", min=1, help="samples per tar")] = 1000,
    workers: Annotated[int, typer.Option("--workers", min=0, metavar="N", help="processes; 0 = one per core")] = 0,
    as_json: Json = False,
) -> None:
    """Write your shards again with chosen images repeated N times.

    Example: dedup plant 'shards/*.tar' --counts 1,10,100,1000 --out planted --run out
    """
    from dedup.cli.show.run import ConsoleReporter
    from dedup.demo.plant import parse_counts, plant_duplicates
    from dedup.machine import available_cores

    with ConsoleReporter() as reporter:
        summary = plant_duplicates(
            shards,
            out,
            counts=parse_counts(counts),
            images_per_count=images_per_count,
            edited=edited,
            templates=templates,
            partial=partial,
            background=background,
            run_dir=run_dir,
            seed=seed,
            per_shard=per_shard,
            workers=workers or available_cores(),
            reporter=reporter,
        )
    print_result(as_json, asdict(summary), lambda: print_text(f"{summary}"))
