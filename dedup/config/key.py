"""What a configuration key is: a field of a frozen dataclass with its meaning, the values it takes, and the stage that depends on it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

HINT: Final = "run `dedup config` for all keys"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint at the known name closest to a word, to end a message with; empty if none is close.

    >>> did_you_mean("nprobe", ["search.nlist", "search.nprobe"])
    "; did you mean 'search.nprobe'?"
    """
    tail = word.rpartition(".")[2]
    matches = [entry for entry in known if entry.rpartition(".")[2] == tail] or difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return f"; did you mean '{matches[0]}'?" if matches else ""


STAGE_NAMES: Final = ("embed", "index", "pairs", "confirm", "groups", "exclude", "manifest", "statistics", "targets")

# the stage of a key on which no record depends: it changes no result, or its effect is recorded otherwise (in fingerprints of input and
# encoder)
FREE: Final = "free"

SWITCHES: Final = ("auto", "true", "false")

Texts = list[str]  # an alias, since one section has a key called `list`

Form = Literal["plain", "switch", "commas", "address", "similarity", "similarity or 0"]


@dataclasses.dataclass(frozen=True)
class Key:
    """A configuration key, as ``section.name``."""

    name: str
    type: Any  # str, int, float, bool or list[str]
    default: Any
    meaning: str
    stage: str  # one of STAGE_NAMES, or FREE
    low: float  # smallest value allowed
    high: float  # largest value allowed
    choices: tuple[str, ...]  # the values it takes; empty = any
    form: Form

    @property
    def type_name(self) -> str:
        """Its type as documentation names it."""
        return str(self.type) if self.type == Texts else str(self.type.__name__)


def key(
    default: Any,
    meaning: str,
    *,
    stage: str,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    form: Form = "plain",
) -> Any:
    """A field of a section.

    `meaning`: one line for documentation.
    `stage`: the stage whose result depends on it, or ``free``.
    `form`: ``switch``: true, false or auto, in any of YAML's spellings. ``commas``: a list that may be written ``a,b``. ``address``: a
    path or URL, or a list of them, without a password. ``similarity``: more than 0 and at most 1; ``similarity or 0``: 0 means the
    encoder's default.
    Raises ValueError if there is no such stage.
    """
    if stage not in (*STAGE_NAMES, FREE):
        raise ValueError(f"a key of stage '{stage}' ({meaning}); expected one of {', '.join(STAGE_NAMES)}, or {FREE}")
    choices = SWITCHES if form == "switch" else choices
    facts = {"meaning": meaning, "stage": stage, "low": low, "high": high, "choices": choices, "form": form}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=facts)
    return dataclasses.field(default=default, metadata=facts)


free = functools.partial(key, stage=FREE)  # a field of a section on which no record depends


def all_keys(sections: Mapping[str, Any]) -> dict[str, Key]:
    """The keys of some sections by name, in the order of their fields.

    Raises TypeError if a field was not made by `key`, so that its stage is unknown.
    """
    keys: dict[str, Key] = {}
    for section, cls in sections.items():
        defaults, types = cls(), typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            name = f"{section}.{field.name}"
            if not field.metadata:
                raise TypeError(f"{name} is a field without facts; expected key(default, meaning, stage=…)")
            keys[name] = Key(name, types[field.name], getattr(defaults, field.name), **field.metadata)
    return keys
