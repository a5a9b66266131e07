"""What an error about a configuration adds: the nearest name, and where all keys stand."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

HINT: Final = "run `dedup config` for all keys"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The known name nearest to a word, as the end of a message; empty where none is near.

    Examples
    --------
    >>> did_you_mean("nprobe", ["search.nlist", "search.nprobe"])
    "; did you mean 'search.nprobe'?"
    """
    tail = word.rpartition(".")[2]
    near = [entry for entry in known if entry.rpartition(".")[2] == tail] or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
