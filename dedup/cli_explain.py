"""The command that explains one sample."""

from __future__ import annotations

from typing import Annotated

import typer

from dedup.cli_options import Json
from dedup.terminal import print_json


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
    from dedup.advice.explain import explain as explained
    from dedup.console_explain import print_explanation
    from dedup.errors import ConfigError

    if bool(key) == (sample_id is not None):
        raise ConfigError("expected either KEY or --sample-id, which says what sample is meant")
    found = explained(run_dir, key, shard=shard, sample_id=sample_id, out=out or None, max_refused=refused)
    if as_json:
        print_json(found.as_dict())
    else:
        print_explanation(found)
        if out:
            typer.echo(f"{'picture':<12} {out}")
