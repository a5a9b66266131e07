"""Options that several commands take, and what the shell completes them to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from dedup.config import Config


def complete_setting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Configuration keys that begin like that, with their meanings; behind the equals sign the shell offers files."""
    given = ctx.params.get("overrides") or ()
    return [] if _is_value(given, incomplete) else settings(incomplete)


def complete_lookup_setting(incomplete: str) -> list[tuple[str, str]]:
    """The same, of the sections that a finished run leaves open."""
    return [found for found in settings(incomplete) if found[0].startswith(("encoder.", "input.", "engine."))]


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Words to offer for the beginning of a key, with their meanings.

    Of a key that is the only one, two words with a value each: the shell then writes what both begin with, and no space.

    Examples
    --------
    >>> [word for word, _ in settings("search.m")]
    ['search.min_similarity=', 'search.method=']
    >>> [word for word, _ in settings("search.views")], [word for word, _ in settings("search.nl")]
    (['search.views=true', 'search.views=false'], ['search.nlist=', 'search.nlist=0'])
    """
    from dedup.config.keys import KEYS

    if "=" in incomplete:
        return []
    found = [entry for name, entry in KEYS.items() if name.startswith(incomplete)]
    if len(found) != 1:
        return [(f"{entry.name}=", entry.meaning) for entry in found]
    key, default, meaning = found[0].name, found[0].default, found[0].meaning
    if isinstance(default, bool):
        return [(f"{key}=true", meaning), (f"{key}=false", meaning)]
    value = "VALUE" if default in ("", []) or isinstance(default, list) else default
    return [(f"{key}=", meaning), (f"{key}={value}", meaning)]


def _is_value(given: Sequence[str], incomplete: str) -> bool:
    """Whether the word stands behind an equals sign: bash hands `key=value` over as three words."""
    return bool(given) and (given[-1] == "=" or (not incomplete and given[-1].count(".") == 1 and "=" not in given[-1]))


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
