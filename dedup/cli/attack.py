"""The commands of the extraction attack: what to generate, what came back, and what it shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dedup.cli.options import (
    SCORING,
    ConfigFile,
    EngineKeys,
    EngineSettings,
    Json,
    ScoringKeys,
    ScoringSettings,
    Workers,
    overrides_of,
    session,
)
from dedup.cli.show.terminal import print_result
from dedup.errors import ConfigError
from dedup.text import counted

Targets = Annotated[str, typer.Argument(help="a run's targets/ folder, or parquet with its columns")]
Made = Annotated[str, typer.Argument(help="folder with TARGET_ID/*.png, or with tars whose json has a target_id")]
Prompts = Annotated[
    str,
    typer.Option("--prompts", help="folder of `dedup extraction prompts`, for generations or scores that are named or ordered by prompt"),
]

extraction = typer.Typer(no_args_is_help=True, help="Measure which training images a model reproduces.")


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
        typer.Option(
            "--refine",
            min=-1,
            help="images to compare with every other, not only within lists; -1 = twice --top, or as many as time allows",
        ),
    ] = -1,
    keys: EngineKeys = None,
    config_file: ConfigFile = None,
    settings: EngineSettings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Rank images by how far they lie from all others.

    These are the second kind of attack targets.

    Example: dedup extraction outliers out --top 10000 --out outliers
    """
    from dedup.attack.outliers import find_outliers
    from dedup.cli.show.attack import print_outliers

    if by not in ("mean", "ratio"):
        raise ConfigError(f"--by {by}: expected mean or ratio")
    with session(overrides_of(keys, settings, workers), config_file, run_dir=run_dir) as (_, engine, reporter):
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
    print_result(as_json, asdict(summary), lambda: print_outliers(summary))


@extraction.command("controls")
def extraction_controls(
    run_dir: Annotated[str, typer.Argument(help="a run directory with a finished manifest")],
    targets: Annotated[str, typer.Option("--targets", help="the targets to match; by default RUN_DIR/targets")] = "",
    out: Annotated[str, typer.Option("--out", help="folder for the table; by default RUN_DIR/controls")] = "",
    keys: EngineKeys = None,
    config_file: ConfigFile = None,
    settings: EngineSettings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Match each target with a unique image.

    Alike in caption length, language, caption frequency and size, so that detectors can't tell the two by these.

    Example: dedup extraction controls out
    """
    from dedup.attack.controls import find_controls
    from dedup.cli.show.attack import print_controls

    with session(overrides_of(keys, settings, workers), config_file, run_dir=run_dir) as (_, engine, _reporter):
        summary = find_controls(run_dir, targets, out, engine=engine)
    print_result(as_json, asdict(summary), lambda: print_controls(summary))


@extraction.command("prompts")
def extraction_prompts(
    targets: Annotated[list[str], typer.Argument(help="targets, outliers, controls: folders or parquet with target_id and caption")],
    out: Annotated[str, typer.Option("--out", help="folder for the files")],
    scores: Annotated[str, typer.Option("--scores", help="folder of `dedup extraction score`: its labels go into prompts.csv")] = "",
    as_json: Json = False,
) -> None:
    """Write prompts as published detectors read them.

    As parquet, JSON lines, a prompt a line, ;-separated and MemBench's CSV, and the table that maps what comes back.

    Example: dedup extraction prompts out/targets --out prompts
    """
    from dedup.attack.prompts import write_prompts
    from dedup.cli.show.attack import print_prompts

    summary = write_prompts(targets, out, scores)
    print_result(as_json, asdict(summary), lambda: print_prompts(summary))


@extraction.command("work")
def extraction_work(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder")],
    out: Annotated[str, typer.Option("--out", help="folder for part-00000.jsonl, …")],
    n_parts: Annotated[int, typer.Option("--n-parts", help="number of parts, one for each generator")] = 1,
    generations: Annotated[
        str, typer.Option("--generations", help="folder with TARGET_ID/*.png: images already there are not listed again")
    ] = "",
    as_json: Json = False,
) -> None:
    """List what is still to be generated, in parts of equal cost.

    For each target its prompt, seeds and number of images.

    Example: dedup extraction work out/targets --out work --n-parts 8 --generations generations
    """
    from dedup.attack.generations import write_work
    from dedup.attack.target_list import left_out

    parts, notes = write_work(targets, out, n_parts=n_parts, generations=generations), left_out(targets)
    rows = [{"path": path, "n_targets": n_targets, "n_images": n_images} for path, n_targets, n_images in parts]
    lines = [f"{path}  {counted(n_targets, 'target')}, {counted(n_images, 'image')}" for path, n_targets, n_images in parts]
    print_result(as_json, {"parts": rows, "notes": notes}, lambda: typer.echo("\n".join([*lines, *notes])))


@extraction.command("generate")
def extraction_generate(
    targets: Annotated[str, typer.Argument(help="a run's targets/ folder, or a list part-*.jsonl of `dedup extraction work`")],
    model: Annotated[str, typer.Option("--model", help="folder that a pipeline of diffusers was saved in, or its name on the hub")],
    out: Annotated[str, typer.Option("--out", help="folder for TARGET_ID/SEED.png and the table _generated/")],
    steps: Annotated[int, typer.Option("--steps", min=1, help="denoising steps; 1 = the table has the edge consistency score")] = 50,
    guidance: Annotated[float, typer.Option("--guidance", help="scale of classifier-free guidance; up to 1 there is none")] = 7.5,
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time; halved where a GPU runs out of memory")] = 8,
    height: Annotated[int, typer.Option("--height", min=0, help="pixels, a multiple of 8; 0 = the model's own")] = 0,
    width: Annotated[int, typer.Option("--width", min=0, help="pixels, a multiple of 8; 0 = the model's own")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="fp16 or fp32; auto = fp16 on a GPU, fp32 on a CPU")] = "auto",
    noise: Annotated[bool, typer.Option("--noise", help="measure the text-conditional noise, a score without training images")] = False,
    targets_per_part: Annotated[int, typer.Option("--targets-per-part", min=1, help="targets of a task, one process each")] = 100,
    limit: Annotated[int, typer.Option("--limit", min=0, help="most targets, the first of the list; 0 = all")] = 0,
    keys: EngineKeys = None,
    config_file: ConfigFile = None,
    settings: EngineSettings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Generate the images of targets.

    With a text-to-image model of diffusers. Images that are there are not made again.

    Example: dedup extraction generate out/targets --model stable-diffusion --out generations
    """
    from dedup.attack.generate import generate_targets
    from dedup.attack.generate_part import TABLE
    from dedup.attack.models import n_processes
    from dedup.cli.show.attack import print_generated
    from dedup.storage.urls import join

    # Spark keeps its tasks in the run directory
    with session(overrides_of(keys, settings, workers), config_file, run_dir=join(out, TABLE), count_gpus=n_processes) as given:
        summary = generate_targets(
            targets,
            out,
            model=model,
            steps=steps,
            guidance=guidance,
            batch=batch,
            height=height,
            width=width,
            dtype=dtype,
            noise=noise,
            targets_per_part=targets_per_part,
            limit=limit,
            device=given.config.engine.device,
            engine=given.engine,
            reporter=given.reporter,
        )
    print_result(as_json, asdict(summary), lambda: print_generated(summary))


@extraction.command("score")
def extraction_score(
    targets: Targets,
    generations: Made,
    out: Annotated[str, typer.Option("--out", help="folder for the table of scores")],
    prompts: Prompts = "",
    keys: ScoringKeys = None,
    config_file: ConfigFile = None,
    settings: ScoringSettings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Find which targets a model has memorised.

    Measured by cliques of generations and distances to the training image, of the whole and of the area that they share.

    Example: dedup extraction score out/targets generations --out scores
    """
    from dedup.attack.score import score_generations
    from dedup.cli.show.attack import print_scores

    with session(overrides_of(keys, settings, workers), config_file, reads=SCORING) as (config, engine, reporter):
        summary = score_generations(
            targets,
            generations,
            out,
            prompts=prompts,
            options=config.extraction,
            device=config.engine.device,
            engine=engine,
            reporter=reporter,
        )
    print_result(as_json, asdict(summary), lambda: print_scores(summary))


@extraction.command("patches")
def extraction_patches(
    targets: Targets,
    generations: Made,
    out: Annotated[str, typer.Option("--out", help="folder for the tables and the plot")],
    scores: Annotated[str, typer.Option("--scores", help="folder of `dedup extraction score`, for the labels")] = "",
    n_generations: Annotated[int, typer.Option("--generations", min=1, help="generations of each target that are compared")] = 20,
    prompts: Prompts = "",
    keys: ScoringKeys = None,
    config_file: ConfigFile = None,
    settings: ScoringSettings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Measure which patches of generations are training images'.

    The share within reach of the same place, and of any place, by the size of a patch, beside chance.

    Example: dedup extraction patches out/targets generations --scores scores --out patches
    """
    from dedup.attack.patches import measure_patches
    from dedup.cli.show.attack import print_patches

    with session(overrides_of(keys, settings, workers), config_file, reads=SCORING) as (config, engine, reporter):
        summary = measure_patches(
            targets,
            generations,
            out,
            scores=scores,
            prompts=prompts,
            n_generations=n_generations,
            options=config.extraction,
            engine=engine,
            reporter=reporter,
        )
    print_result(as_json, asdict(summary), lambda: print_patches(summary))


@extraction.command("curves")
def extraction_curves(
    scores: Annotated[str, typer.Argument(help="folder written by `dedup extraction score`")],
    out: Annotated[str, typer.Option("--out", help="folder for tables and plots")],
    labels: Annotated[str, typer.Option("--labels", help="CSV or parquet with target_id and is_memorized, as judged by a person")] = "",
    as_json: Json = False,
) -> None:
    """Plot extraction against duplication count.

    With labels also precision against recall.

    Example: dedup extraction curves scores --out curves --labels labels.csv
    """
    from dedup.attack.curves import write_curves

    files = write_curves(scores, out, labels)
    print_result(as_json, {"files": files}, lambda: typer.echo("\n".join(files)))


@extraction.command("join")
def extraction_join(
    scores: Annotated[list[str], typer.Argument(help="folders of `dedup extraction score`: targets, controls")],
    detectors: Annotated[
        list[str],
        typer.Option("--detector", metavar="NAME=FILE[@PROMPTS]", help="scores of a detector: .jsonl, .csv, .npy, .parquet, .txt"),
    ],
    out: Annotated[str, typer.Option("--out", help="folder for tables and plot")],
    prompts: Prompts = "",
    lower: Annotated[
        list[str] | None, typer.Option("--lower", metavar="NAME", help="a detector whose scores are lower if memorised")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure detectors against what is reproduced.

    Area under the ROC curve and true positives at 1% false ones, with intervals, by duplication count and label.

    Example: dedup extraction join scores control-scores --detector wen=det.jsonl --prompts prompts --out joined
    """
    from dedup.attack.detector_files import DetectorFile
    from dedup.attack.join import join_detectors
    from dedup.cli.show.attack import print_detectors

    summary = join_detectors(scores, [DetectorFile.parse(text) for text in detectors], out, prompts=prompts, lower=lower or [])
    print_result(as_json, asdict(summary), lambda: print_detectors(summary))


@extraction.command("sweep")
def extraction_sweep(
    run_dir: Annotated[str, typer.Argument(help="a run directory with finished pairs")],
    thresholds: Annotated[
        str, typer.Option("--thresholds", help="cosines, such as 0.7,0.75,0.8; by default from the run's own threshold up")
    ] = "",
    out: Annotated[str, typer.Option("--out", help="file to write, .parquet or .csv")] = "",
    as_json: Json = False,
) -> None:
    """Count the images that each threshold would remove.

    Example: dedup extraction sweep out --thresholds 0.8,0.85,0.9 --out sweep.csv
    """
    from dedup.attack.sweep import parse_thresholds, sweep, write_sweep
    from dedup.cli.show.attack import print_sweep

    result = sweep(run_dir, parse_thresholds(thresholds))
    if out:
        write_sweep(result, out)
    facts = {"min_similarity": result.min_similarity, "n_dropped": result.n_dropped, "notes": result.notes}
    print_result(as_json, {"thresholds": result.table.to_pylist()} | facts, lambda: print_sweep(result))
