"""What each stage's output was made from: `_stage.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import join, read_json

LAYOUT: Final = 2  # of a run directory's folders and records; raised when earlier ones can no longer be read

# stages in order, each with the folder of its `_stage.json`
HOMES: Final = {
    "embed": "embeddings",
    "index": "index",
    "pairs": "candidates",
    "confirm": "edges",
    "groups": "groups",
    "exclude": "exclusions",
    "manifest": "manifest",
    "statistics": "statistics",
    "targets": "targets",
}

_SHOWN = 200  # characters of a value in a message


@dataclass(frozen=True)
class Difference:
    """Something that a result depends on, as it was and as it is now; None = absent."""

    key: str  # of the configuration, of the encoder's fingerprint or of the inputs
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.before)} → {_short(self.now)}"


def differences_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two mappings, in the order of the keys.

    >>> [str(difference) for difference in differences_of({"search.nprobe": 8}, {"search.nprobe": 16})]
    ['search.nprobe: 8 → 16']
    """
    keys = sorted(before.keys() | now.keys())
    return [Difference(key, before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)]


@dataclass(frozen=True)
class StageRecord:
    """A stage's `_stage.json`."""

    stage: str
    output_version: int  # raised only when the stage's result changes, so that a patch release does not redo it
    config: JsonDict  # the keys that the result depends on, with their values
    inputs: JsonDict  # digests of the stages before it, or of the input
    encoder: dict[str, str] = field(default_factory=dict)  # the encoder's fingerprint
    rows: dict[str, int] = field(default_factory=dict)  # of each table written
    seconds: float = 0.0
    finished: str = ""  # ISO 8601, UTC
    dedup_version: str = ""
    summary: JsonDict = field(default_factory=dict)  # figures for readers
    layout: int = LAYOUT

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


def digest(value: Any) -> str:
    """Short stable digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def read_record(url: str, stage: str) -> StageRecord | None:
    """The record of a stage of the run directory at `url`; None where the stage is not finished.

    Raises RunDirectoryError if it is not a record, or is of another layout.
    """
    path = join(url, HOMES[stage], "_stage.json")
    value = read_json(path)
    if value is None:
        return None
    if (layout := value.get("layout", 1)) != LAYOUT:
        raise RunDirectoryError(
            f"{url} is a run directory of layout {layout}, written by another version; expected layout {LAYOUT}; "
            "make the run again in another output.run_dir"
        )
    fields = StageRecord.__dataclass_fields__
    try:
        return StageRecord(**{key: item for key, item in value.items() if key in fields})
    except TypeError as error:
        raise RunDirectoryError(f"{path} is no record of a stage ({error}); delete it to redo the stage") from error


def write_record(url: str, record: StageRecord) -> None:
    """Write the record: the last file of a stage, so that its presence means the stage is done."""
    write_json(join(url, HOMES[record.stage], "_stage.json"), asdict(record) | {"digest": record.digest})


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
