"""What each stage's output was made from: its record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dedup.config.key import STAGE_NAMES
from dedup.config.keys import KEYS
from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import absolute, is_local, join, read_json

LAYOUT: Final = 3  # of a run directory's folders and records; raised when earlier ones can no longer be read

# of the records; beside the tables, whose folders hold nothing but parquet, so that every reader of tables opens them
RECORDS: Final = "_stages"

_SHOWN = 200  # characters of a value in a message


@dataclass(frozen=True)
class Difference:
    """Something that a result depends on, as it was and as it is now; None = absent."""

    key: str  # of the configuration, of the encoder's fingerprint or of the inputs
    before: Any
    now: Any

    @property
    def is_spelling(self) -> bool:
        """Whether it is an address of the configuration, of the same place: ``a``, ``a/``, ``./a``, its absolute path, or a link to it."""
        entry = KEYS.get(self.key)
        return entry is not None and entry.form == "address" and _places(self.before) == _places(self.now)

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
    """A stage's record."""

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
            *(difference for difference in differences_of(self.config, now.config) if not difference.is_spelling),
            *differences_of(self.encoder, now.encoder),
            *differences_of(self.inputs, now.inputs),
        ]


def digest(value: Any) -> str:
    """Short stable digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def record_path(url: str, stage: str) -> str:
    """Where the record of a stage lies."""
    return join(url, RECORDS, f"{stage}.json")


def read_record(url: str, stage: str) -> StageRecord | None:
    """The record of a stage of the run directory at `url`; None where the stage is not finished.

    Raises RunDirectoryError if it is not a record, or is of another layout.
    """
    path = record_path(url, stage)
    value = read_json(path)
    if value is None and stage == STAGE_NAMES[0]:
        value = read_json(join(url, "embeddings", "_stage.json"))  # where it was in layouts 1 and 2
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
    write_json(record_path(url, record.stage), asdict(record) | {"digest": record.digest})


def _places(value: Any) -> Any:
    """The places that an address, or a list of them, names, as far as this machine can tell."""
    if isinstance(value, list):
        return [_places(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    mark = "@" if value.startswith("@") else ""
    address = value.removeprefix("@")
    return mark + (os.path.realpath(absolute(address)) if is_local(address) else address.rstrip("/"))


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
