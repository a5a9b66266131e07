"""What every command prints: results as text or JSON, errors on one line; no escape codes where they are not wanted."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    """A console that prints text as it is given, without escape codes if NO_COLOR is set or the output is no terminal."""
    from rich.console import Console

    options = {"color_system": None, "force_terminal": False} if is_plain() else {}
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, **options)  # type: ignore[arg-type]


def print_overview(program: str, text: str, commands: Sequence[tuple[str, str, str]], options: Sequence[str]) -> None:
    """Print the help of a program: what it does, its commands (panel, name, meaning) in order, and its own options."""
    from rich.markup import escape

    out = console()
    width = max(len(name) for _, name, _ in commands)
    out.print(f"[bold]Usage: {program} COMMAND …[/]   ({program} COMMAND --help shows its arguments and options)\n{text}")
    last_panel = ""
    for panel, name, meaning in commands:
        if panel != last_panel:
            out.print(f"[bold]{panel}[/]")
        out.print(f"  [cyan]{name:<{width}}[/]  {escape(meaning)}", soft_wrap=True)
        last_panel = panel
    out.print(f"Options: {'  '.join(options)}", soft_wrap=True)


def print_result(as_json: bool, value: object, as_text: Callable[[], object]) -> None:
    """Print the result of a command, as JSON or as text."""
    if as_json:
        print_json(value)
    else:
        as_text()


def print_text(text: str, *, stderr: bool = False) -> None:
    """Print a line as it is, however long."""
    console(stderr=stderr).print(text, soft_wrap=True, markup=False)


def print_lines(lines: Sequence[tuple[str, str]], width: int = 0) -> None:
    """Print (name, text) rows in two columns, without control characters; `width` of the first, 0 = as its names need."""
    width = width or max(len(name) for name, _ in lines)
    for name, text in lines:
        print_text(f"{name:<{width}}  {printable(text)}")


def print_json(value: object) -> None:
    """Print a value as one JSON object on standard output; numbers that are not finite become null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=1, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


INTERRUPTED = 130  # 128 + SIGINT, as in shells
HOW_TO_CONTINUE = "run the same command again to continue from the finished parts"
_ABORTED = 1


@contextmanager
def errors_shown(how_to_continue: str = HOW_TO_CONTINUE) -> Iterator[None]:
    """Print an error as one line and exit: 2 for a usage or configuration error, 1 for a failed run, 130 after Ctrl-C."""
    with _interruptions(how_to_continue) as is_interrupted:
        try:
            yield
        except KeyboardInterrupt:
            _end(how_to_continue)
        except SystemExit as error:
            # typer exits with one code on Ctrl-C, earlier versions with the other; pyspark installs a handler of its own
            if error.code == INTERRUPTED or (error.code == _ABORTED and is_interrupted()):
                _end(how_to_continue)
            raise
        except Exception as error:
            if is_interrupted():  # DuckDB and others turn it into an error of their own
                _end(how_to_continue)
            if isinstance(error, DedupError):
                _print(str(error))
                sys.exit(error.exit_code)
            _print(no_room(error) or f"{type(error).__name__}: {error} (unexpected; --debug shows the traceback)")
            sys.exit(1)


_STOPPING_S = 10.0
_REPEATED_S = 1.0


@contextmanager
def _interruptions(how_to_continue: str) -> Iterator[Callable[[], bool]]:
    """Watch for Ctrl-C; yields a function that says whether it was pressed.

    The first one is raised. A later one would cut short what stops the workers: it does nothing, or, if they have not stopped after
    `_STOPPING_S` seconds, ends the program there; the workers follow.
    """
    pressed_s: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed_s.append(time.monotonic())
        if len(pressed_s) == 1:
            logging.disable(logging.CRITICAL)  # py4j would log a traceback
            _repeat_until_noticed()
            signal.default_int_handler(number, frame)
        elif pressed_s[-1] - pressed_s[0] > _STOPPING_S:
            sys.stderr.write(f"interrupted; {how_to_continue}\n")
            sys.stderr.flush()
            os._exit(INTERRUPTED)

    # background jobs of a shell ignore SIGINT; leave it so
    installs_handler = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if installs_handler:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed_s)
    finally:
        if pressed_s:
            _stop_repeating()
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _repeat_until_noticed() -> None:
    """Raise `KeyboardInterrupt` again every `_REPEATED_S` seconds while no exception is on its way.

    Libraries have places where whatever is raised is swallowed (finalisers, calls from C, imports that may fail): the work would go on
    as if nothing had been pressed.
    """

    def raise_again(number: int, frame: FrameType | None) -> None:
        if sys.exc_info()[1] is None:  # neither it nor an error that was made of it is being handled, here or in a caller
            signal.default_int_handler(signal.SIGINT, frame)

    def report(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = report
    signal.signal(signal.SIGALRM, raise_again)
    signal.setitimer(signal.ITIMER_REAL, _REPEATED_S, _REPEATED_S)


def _stop_repeating() -> None:
    with suppress(KeyboardInterrupt):  # of a last one
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.unraisablehook = sys.__unraisablehook__


def _end(how_to_continue: str) -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the line short
    print_text(f"interrupted; {how_to_continue}", stderr=True)
    if is_main:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # but it may end what the interpreter still waits for
    sys.exit(INTERRUPTED)


def _print(text: str) -> None:
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("error:", "bold red"), " ", printable(text)), soft_wrap=True)
