"""The commands of the extraction attack's side: score, work, curves, sweep, outliers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from dedup.cli.options import ConfigFile, Json, Overrides, load
from dedup.cli.show.terminal import print_json
from dedup.errors import ConfigError

extraction = typer.Typer(no_args_is_help=True, help="The extraction attack: score generated images against what they were aimed at.")


@extraction.command("score")
def extraction_score(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder, or parquet with its columns")],
    generations: Annotated[str, typer.Argument(help="folder with TARGET_ID/*.png, or with tars whose json has a target_id")],
    out: Annotated[str, typer.Option("--out", help="folder for the table of scores")],
    overrides: Overrides = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Tell which targets a model has memorised: cliques of generations, distances to the training image, eidetic labels.

    Example: dedup extraction score out/targets generations --out scores
    """
    from dedup.attack.score import score_generations
    from dedup.cli.show.run import ConsoleReporter, print_scores
    from dedup.config.rules import validate
    from dedup.pipeline.run import make_engine

    config = load(config_file, overrides)
    validate(config)
    with closing(make_engine(config)) as engine, ConsoleReporter() as reporter:
        summary = score_generations(
            targets, generations, out, options=config.extraction, device=config.engine.device, engine=engine, reporter=reporter
        )
    if as_json:
        print_json(asdict(summary))
    else:
        print_scores(summary)


@extraction.command("work")
def extraction_work(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder")],
    out: Annotated[str, typer.Option("--out", help="folder for part-00000.jsonl, …")],
    n_parts: Annotated[int, typer.Option("--n-parts", help="files, each for one generator")] = 1,
    generations: Annotated[
        str, typer.Option("--generations", help="folder with TARGET_ID/*.png: what is there is not asked for again")
    ] = "",
    as_json: Json = False,
) -> None:
    """List what is still to be generated: prompt, seeds and number for each target, in parts of equal cost.

    Example: dedup extraction work out/targets --out work --n-parts 8 --generations generations
    """
    from dedup.attack.work import write_work

    parts = write_work(targets, out, n_parts=n_parts, generations=generations)
    if as_json:
        print_json({"parts": [{"path": path, "n_targets": n_targets, "n_images": n_images} for path, n_targets, n_images in parts]})
        return
    for path, n_targets, n_images in parts:
        typer.echo(f"{path}  {n_targets:,} targets, {n_images:,} images")


@extraction.command("curves")
def extraction_curves(
    scores: Annotated[str, typer.Argument(help="what `dedup extraction score` has written")],
    out: Annotated[str, typer.Option("--out", help="folder for tables and pictures")],
    labels: Annotated[str, typer.Option("--labels", help="CSV or parquet with target_id and is_memorized, as a person says")] = "",
    as_json: Json = False,
) -> None:
    """Draw extraction against duplication count, and with labels precision against recall.

    Example: dedup extraction curves scores --out curves --labels labels.csv
    """
    from dedup.attack.curves import write_curves

    files = write_curves(scores, out, labels)
    if as_json:
        print_json({"files": files})
        return
    for path in files:
        typer.echo(path)


@extraction.command("sweep")
def extraction_sweep(
    run_dir: Annotated[str, typer.Argument(help="a run directory with finished pairs")],
    thresholds: Annotated[str, typer.Option("--thresholds", help="cosines, such as 0.7,0.75,0.8; by default from the run's own up")] = "",
    out: Annotated[str, typer.Option("--out", help="file to write, .parquet or .csv")] = "",
    as_json: Json = False,
) -> None:
    """Tell how many images would be removed at each threshold, without another run.

    Example: dedup extraction sweep out --thresholds 0.8,0.85,0.9 --out sweep.csv
    """
    from dedup.attack.sweep import parse_thresholds, sweep, write_sweep
    from dedup.cli.show.run import print_sweep

    found = sweep(run_dir, parse_thresholds(thresholds))
    if out:
        write_sweep(found, out)
    if as_json:
        rows = found.table.to_pylist()
        print_json({"thresholds": rows, "min_similarity": found.min_similarity, "n_dropped": found.n_dropped, "notes": found.notes})
    else:
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
    as_json: Json = False,
) -> None:
    """Rank images by how far they lie from all others: targets of the attack's second kind.

    Example: dedup extraction outliers out --top 10000 --out outliers
    """
    from dedup.attack.outliers import find_outliers
    from dedup.cli.show.run import ConsoleReporter, print_outliers
    from dedup.config.rules import validate
    from dedup.pipeline.run import make_engine

    if by not in ("mean", "ratio"):
        raise ConfigError(f"--by {by}: expected mean or ratio")
    config = load(config_file, [*(overrides or []), f"output.run_dir={run_dir}"])
    validate(config, require_input=False)
    with closing(make_engine(config)) as engine, ConsoleReporter() as reporter:
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
    if as_json:
        print_json(asdict(summary))
    else:
        print_outliers(summary)
