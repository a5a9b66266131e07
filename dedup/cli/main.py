"""The command line: every command in the order of use, and what happens when one fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dedup.cli.attack import extraction
from dedup.cli.find import flag, info, query, serve
from dedup.cli.finished import apply, calibrate, explain, export, report, rewrite, show
from dedup.cli.run import config, demo_data, plant, run, status
from dedup.cli.show.terminal import HOW_TO_CONTINUE, errors_shown, is_plain, print_overview
from dedup.errors import ConfigError


class Overview(TyperGroup):
    """The commands by purpose, a line each, on one screen."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the overview."""
        by_name: dict[str, Any] = dict(self.commands)
        commands = [(command.rich_help_panel, name, command.help.partition("\n\n")[0]) for name, command in by_name.items()]
        options = [max(option.opts, key=len) for option in self.get_params(ctx)]
        print_overview(ctx.command_path, str(self.help), commands, ["--debug", *options])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named; for data instead of a command, what `run` would do with it."""
        if args and args[0] not in self.commands and os.path.exists(args[0]):
            return super().resolve_command(ctx, ["run", "--dry-run", *args])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a number that can't be one is reported with what was expected and found."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if (said := _wrong_number(error)) is None:
                raise
            raise said from error


def _wrong_number(error: Any) -> ConfigError | None:
    """The error for a value that is not a number, or not in its range, which typer's own text leaves out; None for another error."""
    causes: list[Any] = getattr(error.__cause__, "errors", list)()  # of pydantic
    if error.param is None or not causes or causes[0]["type"] not in _NUMBER_ERRORS:
        return None
    low, high = error.param.min, error.param.max
    bound = next(iter(causes[0].get("ctx", {}).values()), None)
    noun = "a whole number" if isinstance(bound, int) or causes[0]["type"].startswith("int") else "a number"
    limits = "" if low is None else f" of {low} or more" if high is None else f" from {low} to {high}"
    return ConfigError(f"{max(error.param.opts, key=len)}: expected {noun}{limits}, found '{causes[0]['input']}'")


_NUMBER_ERRORS = ("int_parsing", "int_from_float", "float_parsing", "greater_than_equal", "less_than_equal")


app = typer.Typer(
    cls=Overview,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="De-duplicate images and their captions: folders, webdataset shards, parquet.",
)

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make a run": (run, status, config, demo_data, plant),
    "Inspect a run": (report, show, explain, info, calibrate),
    "Use a run": (apply, rewrite, export, query, flag, serve),
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

app.add_typer(extraction, name="extraction", rich_help_panel="Use a run")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from dedup.machine import package_version

        typer.echo(f"webdedup {package_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")] = False,
) -> None: ...


def main() -> None:
    """Run the command line, and exit.

    0 on success, 1 on a failed run, 2 on a usage or configuration error, 3 if `flag --fail` found a copy, 130 after Ctrl-C.
    `--debug` and `--version` may appear anywhere.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    is_debug = len(arguments) < len(sys.argv) - 1
    if "--version" in arguments:
        arguments = ["--version"]
    if is_plain():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM, rich_utils.FORCE_TERMINAL = None, False
    with nullcontext() if is_debug else errors_shown(_how_to_continue(arguments)):
        app(args=arguments, prog_name="dedup")


_KEEP_FINISHED_PARTS = {("run",), ("rewrite",), ("extraction", "score"), ("extraction", "patches"), ("extraction", "generate")}


def _how_to_continue(arguments: list[str]) -> str:
    """What to do after Ctrl-C: stages, rewriting, generating and scoring keep their finished parts."""
    names = tuple(argument for argument in arguments if not argument.startswith("-"))
    keeps = names[:1] in _KEEP_FINISHED_PARTS or names[:2] in _KEEP_FINISHED_PARTS
    return HOW_TO_CONTINUE if keeps else "run the same command again; it starts over"
