"""What any command prints: results for a person or as JSON, errors in one line; no escape codes where none are wanted."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from dedup.errors import DedupError, no_room
from dedup.text import printable

if TYPE_CHECKING:
    from rich.console import Console


def is_plain() -> bool:
    """Whether the environment asks for text without colour (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints what it is given: with NO_COLOR, or where nobody looks on, no escape code leaves it."""
    from rich.console import Console

    options = {"color_system": None, "force_terminal": False} if is_plain() else {}
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, **options)  # type: ignore[arg-type]


def print_overview(program: str, text: str, commands: Sequence[tuple[str, str, str]], options: Sequence[str]) -> None:
    """Print the help of a program that has commands.

    `program`, `text`: how it is called, and what it does.
    `commands`: sequence of (str, str, str); what each is for, its name, and what it does; in order.
    `options`: of the program itself.
    """
    from rich.markup import escape

    out = console()
    width = max(len(name) for _, name, _ in commands)
    out.print(f"[bold]Usage: {program} COMMAND …[/]   ({program} COMMAND --help shows its arguments and options)\n{text}\n")
    before = ""
    for panel, name, meaning in commands:
        if panel != before:
            out.print(f"[bold]{panel}[/]")
        out.print(f"  [cyan]{name:<{width}}[/]  {escape(meaning)}", soft_wrap=True)
        before = panel
    out.print(f"\nOptions: {'  '.join(options)}", soft_wrap=True)


def print_result(as_json: bool, value: object, as_text: Callable[[], object]) -> None:
    """Print what a command found: a value as JSON, or the same as a person reads it."""
    if as_json:
        print_json(value)
    else:
        as_text()


def print_json(value: object) -> None:
    """Print a value as one JSON object on standard output; what is no finite number becomes null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=1, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


INTERRUPTED = 130  # 128 + SIGINT, as shells have it
GOES_ON = "run the same command again to go on from the finished parts"
_ABORTED = 1


@contextmanager
def errors_shown(how_to_go_on: str = GOES_ON) -> Iterator[None]:
    """Print an error as one line and exit: 2 for a usage or configuration error, 1 for a failed run, 130 after Ctrl-C.

    `how_to_go_on`: what to do after Ctrl-C.
    """
    with _interruptions() as is_interrupted:
        try:
            yield
        except KeyboardInterrupt:
            _end(how_to_go_on)
        except SystemExit as error:
            # typer exits for Ctrl-C with the one or, in earlier versions, the other; pyspark notes it in our place
            if error.code == INTERRUPTED or (error.code == _ABORTED and is_interrupted()):
                _end(how_to_go_on)
            raise
        except Exception as error:
            if is_interrupted():  # DuckDB and others make an error of their own of it
                _end(how_to_go_on)
            if isinstance(error, DedupError):
                _print(str(error))
                sys.exit(error.exit_code)
            _print(no_room(error) or f"{type(error).__name__}: {error} (unexpected; --debug shows the traceback)")
            sys.exit(1)


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Note every Ctrl-C; gives a function that tells whether there was one."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        logging.disable(logging.CRITICAL)  # py4j would tell of it with a traceback
        signal.default_int_handler(number, frame)

    # a shell's background jobs ignore it, and so it stays
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(how_to_go_on: str) -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the line short
    console(stderr=True).print(f"interrupted; {how_to_go_on}", soft_wrap=True, markup=False)
    if is_main:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # but may end what the interpreter still waits for
    sys.exit(INTERRUPTED)


def _print(text: str) -> None:
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("error:", "bold red"), " ", printable(text)), soft_wrap=True)
