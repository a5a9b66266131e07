"""How a program ends on an error: one line on standard error, and the exit code that belongs to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dedup.errors import DedupError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Print an error as one line and exit: 2 for a usage or configuration error, 1 for a failed run."""
    try:
        yield
    except DedupError as error:
        _print(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        _print(f"{type(error).__name__}: {error} (unexpected; --debug shows the traceback)")
        sys.exit(1)


def _print(text: str) -> None:
    from rich.console import Console

    escaped = text.replace("[", "\\[")
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escaped}")
