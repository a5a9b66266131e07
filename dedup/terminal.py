"""Text for a terminal: without escape codes where none are wanted, and without what captions may smuggle in."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console


# of an address: who may read it, and what signs it, as S3, GCS, Azure, CloudFront and others name it
_LET_IN: Final = re.compile(r"://[^\s/@'\"]*:[^\s/@'\"]*@")
_SIGNED: Final = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature|sig|(?:access_|auth_)?token|key-pair-id|"
    r"policy|api_?key|key|password|secret)=)[^\s&'\")\]]+",
    re.IGNORECASE,
)


def is_plain() -> bool:
    """Whether the environment asks for text without colour (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints what it is given: with NO_COLOR, or where nobody looks on, no escape code leaves it."""
    from rich.console import Console

    options = {"color_system": None, "force_terminal": False} if is_plain() else {}
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, **options)  # type: ignore[arg-type]


def printable(text: str, max_chars: int = 0) -> str:
    r"""Bring a text from the data to one line that can do nothing to a terminal.

    Control characters, escape sequences and marks that turn the direction of writing are left out, and what signs an address or lets
    into it: logs are passed on.

    Parameters
    ----------
    text : str
        Of any length.
    max_chars : int
        Characters at most, the last an ellipsis where there are more; 0 = all.

    Examples
    --------
    >>> printable("a\x1b[31mb\n\u202ec")
    'a[31mb c'
    >>> printable("abcdef", max_chars=4)
    'abc…'
    >>> printable("https://me:secret@host/a.tar?sig=abc&part=1")
    'https://…@host/a.tar?sig=…&part=1'
    """
    if max_chars:
        text = text[: 8 * max_chars + 64]  # a caption may have megabytes
    if "://" in text:
        text = _SIGNED.sub(r"\1…", _LET_IN.sub("://…@", text))
    line = " ".join("".join(letter if letter.isprintable() or letter.isspace() else "" for letter in text).split())
    return f"{line[: max_chars - 1]}…" if 0 < max_chars < len(line) else line


def print_json(value: object) -> None:
    """Print a value as one JSON object on standard output; what is no finite number becomes null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=1, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
