"""Arguments and options that several commands have, and their help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dedup.completion import complete_setting

if TYPE_CHECKING:
    from dedup.config import Config

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="configuration, such as input.shards='DIR/*.tar'; see `dedup config`",
        autocompletion=complete_setting,
    ),
]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="YAML file of configuration keys")]
Redo = Annotated[bool, typer.Option("--redo", help="redo from the first stage whose configuration or input changed")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else on standard output")]


class StageGroup(TyperGroup):
    """A command of configuration overrides that has commands of its own: whatever names none of these goes to `stage`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the stage's command before its arguments."""
        is_asked_for_words = ctx.resilient_parsing and not args  # the tab key, right behind the group's name
        if not is_asked_for_words and args[:1] != ["--help"] and (not args or args[0] not in self.commands):
            args = ["stage", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The group's commands, and what its stage takes."""
        stage = self.commands["stage"]
        found = [*super().shell_complete(ctx, incomplete), *stage.shell_complete(ctx, incomplete)]
        for parameter in stage.params if not incomplete.startswith("-") else []:
            if parameter.name == "overrides":
                found += parameter.shell_complete(ctx, incomplete)
        return list({item.value: item for item in found}.values())


def load(config_file: str | None, overrides: list[str] | None) -> Config:
    """The configuration that a command line gives."""
    from dedup.config.load import load_config

    return load_config(config_file, overrides or [])
