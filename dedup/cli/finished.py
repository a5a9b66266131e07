"""The commands that work on a finished run: report, show, explain, calibrate, rewrite, export, apply."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dedup.cli.options import (
    ConfigFile,
    EngineKeys,
    EngineSettings,
    Json,
    KeepList,
    Keys,
    RunDir,
    Settings,
    Workers,
    engine_keys,
    overrides_of,
    session,
)
from dedup.cli.show.terminal import print_result
from dedup.errors import ConfigError
from dedup.text import counted


def report(
    run_dir: RunDir,
    out: Annotated[str, typer.Option("--out", help="file to write; by default report.html in the run directory")] = "",
    galleries: Annotated[int, typer.Option("--galleries", metavar="N", help="draw the N largest groups, and N at random")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of the groups drawn at random")] = 0,
    as_json: Json = False,
) -> None:
    """Write one HTML file about a run: counts, galleries, charts.

    Example: dedup report out
    """
    from dedup.cli.show.finished import print_report
    from dedup.report.build import write_report

    summary = write_report(run_dir, out, n_galleries=galleries, seed=seed)
    print_result(as_json, asdict(summary), lambda: print_report(summary))


def show(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option("--out", help="PNG to write")] = Path("montage.png"),
    component: Annotated[list[int] | None, typer.Option("--component", help="component_id; may be given several times")] = None,
    largest: Annotated[
        int | None, typer.Option("--largest", min=1, metavar="N", help="the N largest groups; by default 6 if no group is chosen")
    ] = None,
    random: Annotated[int, typer.Option("--random", min=0, metavar="N", help="N groups drawn at random")] = 0,
    per_group: Annotated[int, typer.Option("--per-group", min=2, help="maximum number of images per group")] = 8,
    seed: Annotated[int, typer.Option("--seed", help="seed of --random")] = 0,
    as_json: Json = False,
) -> None:
    """Draw groups as a picture: each keeper first, then its copies.

    Example: dedup show out --largest 6 --out montage.png
    """
    from dedup.explanation.draw import montage, pages

    n_groups = montage(run_dir, out, component_ids=component or [], n_largest=largest or 0, n_random=random, per_group=per_group, seed=seed)
    drawn = pages(out, n_groups)
    beside = f" to {drawn[-1]}" if len(drawn) > 1 else ""
    facts = {"n_groups": n_groups, "out": out, "pages": drawn}
    print_result(as_json, facts, lambda: typer.echo(f"{counted(n_groups, 'group')} in {out}{beside}"))


def explain(
    run_dir: RunDir,
    key: Annotated[
        str,
        typer.Argument(
            metavar="[KEY]", help="the sample's key, SHARD/KEY (the shard's name is enough), its url, or the SHA-256 of its bytes"
        ),
    ] = "",
    shard: Annotated[str, typer.Option("--shard", help="the shard, or the end of its URL, where several have the key")] = "",
    sample_id: Annotated[int | None, typer.Option("--sample-id", help="instead of a key")] = None,
    out: Annotated[str, typer.Option("--out", help="PNG to draw: the sample, what joins it to its keeper, what was refused")] = "",
    refused: Annotated[int, typer.Option("--refused", min=0, help="maximum number of refused pairs to list")] = 20,
    as_json: Json = False,
) -> None:
    """Explain why a sample was kept or dropped.

    Shows its group and keeper, the edges that join them, and what was refused.

    Example: dedup explain out 00000.tar/000000412 --out explain.png
    """
    from dedup.cli.show.finished import print_explanation
    from dedup.explanation.explain import explain as explain_sample

    if bool(key) == (sample_id is not None):
        raise ConfigError(f"expected either KEY or --sample-id, found {'both' if key else 'neither'}; name the sample in one of these ways")
    explanation = explain_sample(run_dir, key, shard=shard, sample_id=sample_id, out=out or None, max_refused=refused)
    print_result(as_json, explanation.as_dict(), lambda: print_explanation(explanation, picture=out))


def calibrate(
    run_dir: RunDir,
    keys: Keys = None,
    settings: Settings = None,
    workers: Workers = None,
    precision: Annotated[
        float, typer.Option("--precision", help="share of copies required among the pairs that the threshold joins")
    ] = 0.99,
    n_images: Annotated[int, typer.Option("--n-images", help="images to draw, and plant changed copies of")] = 2000,
    changes: Annotated[str, typer.Option("--changes", help="strengths of the planted changes: default or all")] = "default",
    seed: Annotated[int, typer.Option("--seed", help="seed of everything drawn at random")] = 0,
    out: Annotated[str, typer.Option("--out", help="folder for tables, configuration and plot; by default RUN_DIR/calibration")] = "",
    as_json: Json = False,
) -> None:
    """Recommend a threshold, measured on the run's own images.

    For each threshold: recall of planted copies, expected false pairs, precision. Keys override the run's own.

    Example: dedup calibrate out --precision 0.99
    """
    from dedup.calibration.calibrate import calibrate as run_calibration
    from dedup.calibration.calibrate import summary_of
    from dedup.cli.show.finished import print_calibration
    from dedup.storage.urls import join

    overrides, out = overrides_of(keys, settings, workers), out or join(run_dir, "calibration")
    with session(engine_keys(overrides), run_dir=run_dir) as (_, engine, reporter):
        calibration = run_calibration(
            run_dir,
            out,
            precision=precision,
            n_images=n_images,
            changes=changes,
            seed=seed,
            overrides=overrides,
            engine=engine,
            reporter=reporter,
        )
    print_result(
        as_json, summary_of(calibration) | {"thresholds": calibration.table.to_pylist()}, lambda: print_calibration(calibration, out)
    )


def rewrite(
    run_dir: RunDir,
    out: Annotated[str, typer.Argument(help="folder for the cleaned shards")],
    keys: EngineKeys = None,
    config_file: ConfigFile = None,
    settings: EngineSettings = None,
    workers: Workers = None,
    per_shard: Annotated[int, typer.Option("--per-shard", min=0, help="samples per shard; 0 = one for each of the input")] = 10_000,
    keep_list: KeepList = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print what would be written, and its size")] = False,
    as_json: Json = False,
) -> None:
    """Write cleaned shards: the kept samples, byte for byte.

    Example: dedup rewrite out cleaned --per-shard 10000
    """
    from dedup.cli.show.finished import print_rewrite
    from dedup.release.rewrite import rewrite as rewrite_run

    with session(overrides_of(keys, settings, workers), config_file, run_dir=run_dir) as (_, engine, reporter):
        summary = rewrite_run(run_dir, out, per_shard=per_shard, keep_list=keep_list, dry_run=dry_run, engine=engine, reporter=reporter)
    print_result(as_json, asdict(summary), lambda: print_rewrite(summary))
    if summary.n_failed:
        raise typer.Exit(1)


def export(
    run_dir: RunDir,
    form: Annotated[
        str, typer.Option("--format", help="csv, jsonl, parquet or txt; keys, urls, rows, datacomp, hf, open_clip or imagefolder")
    ],
    out: Annotated[str, typer.Option("--out", help="file to write; for rows and hf a folder")],
    what: Annotated[str, typer.Option("--what", help="for csv, jsonl, parquet: kept, dropped, groups, counts or pairs")] = "kept",
    keys: EngineKeys = None,
    config_file: ConfigFile = None,
    settings: EngineSettings = None,
    workers: Workers = None,
    keep_list: KeepList = "",
    images: Annotated[bool, typer.Option("--images/--no-images", help="hf: include the image bytes in the parquet files")] = True,
    as_json: Json = False,
) -> None:
    """Write what was kept or dropped as a list, for another tool.

    csv, jsonl, parquet, txt: what --what says, as one file. keys: one key per line, or keys with their shards as .csv or .parquet; urls:
    one per line; rows: for each file of embeddings, parquet or Arrow a boolean .npy, True for each row that is kept; datacomp: the sorted
    .npy of its resharder; hf: a folder that `datasets.load_dataset` reads; of folders of images, open_clip: its CSV of paths and captions;
    imagefolder: the metadata.jsonl by which `datasets` reads the kept files alone.

    Example: dedup export out --what groups --format csv --out groups.csv
    """
    from dedup.cli.show.finished import print_export
    from dedup.release.export import FORMATS
    from dedup.release.export import export as export_run

    if form not in FORMATS:
        raise ConfigError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    with session(overrides_of(keys, settings, workers), config_file, run_dir=run_dir) as (_, engine, reporter):
        summary = export_run(run_dir, form, out, what=what, keep_list=keep_list, with_images=images, engine=engine, reporter=reporter)
    print_result(as_json, asdict(summary), lambda: print_export(summary))


class LinkKind(StrEnum):
    """Kinds of links."""

    hard = "hard"
    sym = "sym"
    reflink = "reflink"


def apply(
    run_dir: RunDir,
    move: Annotated[str, typer.Option("--move", metavar="DIR", help="move copies to this folder, with their paths below it")] = "",
    trash: Annotated[bool, typer.Option("--trash", help="move copies to the trash")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="delete copies")] = False,
    link: Annotated[
        LinkKind | None, typer.Option("--link", help="replace copies that are equal byte for byte by links to the kept file")
    ] = None,
    is_list: Annotated[bool, typer.Option("--list", help="print the paths of copies, one per line")] = False,
    is_undo: Annotated[bool, typer.Option("--undo", help="take back what was done last: names, bytes and times")] = False,
    protect: Annotated[
        list[str] | None, typer.Option("--protect", metavar="DIR", help="touch nothing in this folder; may be given several times")
    ] = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="check every file, and do nothing")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="do not ask before --delete")] = False,
    as_json: Json = False,
) -> None:
    """Move, trash, delete or link the copies in a folder.

    Both files are compared with what the run has read before one is touched, and every step is written down first; --undo takes it back.

    Example: dedup apply out --move copies
    """
    from dedup.cli.show.finished import print_applied
    from dedup.cli.show.run import ConsoleReporter
    from dedup.release.apply import apply as apply_to_files
    from dedup.release.apply import copies_to_act_on, take_back
    from dedup.release.file_actions import Action

    ways = {"--move": bool(move), "--trash": trash, "--delete": delete, "--link": link is not None, "--list": is_list, "--undo": is_undo}
    chosen = [way for way, is_chosen in ways.items() if is_chosen]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} can't be combined; leave one out")
    if is_list and not as_json:
        for path in copies_to_act_on(run_dir):
            typer.echo(os.fsencode(path))
        return
    if is_undo:
        done = take_back(run_dir)
        print_result(as_json, done.as_dict(), lambda: print_applied(done, run_dir))
        return
    if delete and not (is_sure or is_dry_run) and not (sys.stdin.isatty() and typer.confirm("Delete the copies for good?")):
        raise ConfigError(
            "--delete can't be taken back for copies that are not equal byte for byte; add --yes, or use --trash or --move DIR"
        )
    action: Action = "move" if move else "trash" if trash else "delete" if delete else link.value if link else "list"
    with ConsoleReporter() as reporter:
        done = apply_to_files(run_dir, action, target=move, protect=protect or [], is_dry_run=is_dry_run, reporter=reporter)
    print_result(as_json, done.as_dict(), lambda: print_applied(done, run_dir))
