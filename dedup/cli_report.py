"""The command that draws a finished run: report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dedup.cli_options import Json
from dedup.terminal import print_json


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
    from dedup.audit import write_report
    from dedup.text import bytes_text

    summary = write_report(run_dir, out, n_galleries=galleries, seed=seed)
    if as_json:
        print_json(asdict(summary))
        return
    for note in summary.notes:
        typer.echo(note, err=True)
    typer.echo(f"{summary.path}  {bytes_text(summary.n_bytes)}, {summary.n_pictures:,} pictures")
