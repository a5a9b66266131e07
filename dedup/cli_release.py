"""The commands that hand on what a run keeps: rewrite, export."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from dedup.cli_options import ConfigFile, Json, Overrides, load
from dedup.errors import ConfigError
from dedup.terminal import print_json

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
    from dedup.config.rules import validate
    from dedup.console import ConsoleReporter
    from dedup.console_release import print_rewrite
    from dedup.pipeline import make_engine
    from dedup.release import rewrite as rewrite_run

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
    from dedup.config.rules import validate
    from dedup.console import ConsoleReporter
    from dedup.console_release import print_export
    from dedup.exports import FORMATS
    from dedup.exports import export as export_run
    from dedup.pipeline import make_engine

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
