"""What each stage's output was made from: `_stage.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import join, read_json

_SHOWN = 200  # characters of a value in a message


@dataclass(frozen=True)
class Difference:
    """Something that a result depends on, as it was and as it would be now; None = absent."""

    key: str  # of the configuration, of the encoder's fingerprint or of the inputs
    before: Any
    now: Any

    def __str__(self) -> str:
        """For messages: «key: before → now»."""
        return f"{self.key}: {_short(self.before)} → {_short(self.now)}"


def differences_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two mappings, in the order of the keys.

    Examples
    --------
    >>> [str(difference) for difference in differences_of({"search.nprobe": 8}, {"search.nprobe": 16})]
    ['search.nprobe: 8 → 16']
    """
    keys = sorted(before.keys() | now.keys())
    return [Difference(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


@dataclass(frozen=True)
class StageRecord:
    """A stage's `_stage.json`.

    Parameters
    ----------
    stage : str
    output_version : int
        Raised only when the stage's result changes, so that a patch release redoes nothing.
    config : dict
        The configuration keys the result depends on, with their values.
    inputs : dict
        Digests of the upstream stages, or of the input.
    encoder : dict
        Fingerprint of the encoder.
    rows : dict
        Rows of each table written.
    seconds : float
    finished : str
        ISO 8601, UTC.
    dedup_version : str
    summary : dict
        Figures for the closing summary.
    """

    stage: str
    output_version: int
    config: JsonDict
    inputs: JsonDict
    encoder: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""
    dedup_version: str = ""
    summary: JsonDict = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of the result: everything it depends on, nothing it does not."""
        return digest([self.stage, self.output_version, self.config, self.inputs, self.encoder])

    def differences(self, now: StageRecord) -> list[Difference]:
        """What differs between this record and the one that would be written now."""
        return [
            *differences_of({"output_version": self.output_version}, {"output_version": now.output_version}),
            *differences_of(self.config, now.config),
            *differences_of(self.encoder, now.encoder),
            *differences_of(self.inputs, now.inputs),
        ]


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def digest(value: Any) -> str:
    """Short stable digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def read_record(run_dir: str, home: str) -> StageRecord | None:
    """The record of a finished stage, or None."""
    value = read_json(join(run_dir, home, "_stage.json"))
    if value is None:
        return None
    known = StageRecord.__dataclass_fields__
    try:
        return StageRecord(**{key: item for key, item in value.items() if key in known})
    except TypeError as error:
        path = join(run_dir, home, "_stage.json")
        raise RunDirectoryError(f"{path} is no record of a stage ({error}); delete it to redo the stage") from error


def write_record(run_dir: str, home: str, record: StageRecord) -> None:
    """Write the record: the last file of a stage, so that its presence means the stage is done."""
    write_json(join(run_dir, home, "_stage.json"), asdict(record) | {"digest": record.digest})
