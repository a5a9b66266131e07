"""What is printed: on a terminal without escape codes where none are wanted, or as JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING

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


def print_json(value: object) -> None:
    """Print a value as one JSON object on standard output; what is no finite number becomes null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=1, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
