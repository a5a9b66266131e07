"""What each stage's output was made from: `_stage.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import join, read_json


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

    def differences(self, other: StageRecord) -> list[str]:
        """What differs between this record's and another's, a line each: «key: here → there»."""
        lines = []
        for name in ("output_version", "config", "encoder", "inputs"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if not isinstance(mine, dict):
                mine, theirs = {name: mine}, {name: theirs}
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    lines.append(f"{key}: {_short(mine.get(key))} → {_short(theirs.get(key))}")
        return lines


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "…"


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
