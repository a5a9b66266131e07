"""The run that a report is about: its stages, its configuration, and what can be shown of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.config.load import from_dict, resolved, to_dict
from dedup.errors import RunDirectoryError
from dedup.runs.directory import CONFIG_FILE, RunLayout, StageRecord, digest, read_record
from dedup.storage.urls import join, read_json

# stages in order, each with the folder of its `_stage.json`
HOMES = {
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

_NEEDED = ("embed", "index", "pairs", "confirm", "groups", "manifest")


@dataclass(frozen=True)
class ReportedRun:
    """What a run says of itself.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL.
    config : Config
        As the run was made, as far as it tells.
    records : dict
        Stage name to its record, of the finished ones.
    notes : list of str
        Stages that are missing, or were made from an earlier state of others.
    """

    run_dir: str
    config: Config
    records: dict[str, StageRecord]
    notes: list[str] = field(default_factory=list)

    @property
    def layout(self) -> RunLayout:
        """Where the run's tables lie."""
        return RunLayout(self.run_dir, tuple(self.config.input.carry))

    @property
    def name(self) -> str:
        """Last part of the run directory's name."""
        return self.run_dir.rstrip("/").rpartition("/")[2] or self.run_dir

    @property
    def min_similarity(self) -> float:
        """The threshold of the run's own vectors."""
        return self.config.search.min_similarity

    @property
    def has_pixels(self) -> bool:
        """Whether the run knows where its images lie: embeddings that were made elsewhere may not say."""
        return encoder_kind(self.config.encoder.name).has_images or bool(self.records["embed"].summary.get("has_pixels"))

    @property
    def confirms(self) -> bool:
        """Whether pairs were judged by their pixels."""
        return self.config.confirm.enabled and self.has_pixels

    @property
    def state(self) -> str:
        """Digest of all that the report is drawn from, so that one that is out of date is known."""
        return digest([[record.digest, record.finished] for record in self.records.values()])


def open_reported(run_dir: str) -> ReportedRun:
    """Read the records and the configuration of a run.

    Raises
    ------
    RunDirectoryError
        If there is no run, or its manifest is not written yet.
    """
    found = {name: read_record(run_dir, home) for name, home in HOMES.items()}
    records = {name: record for name, record in found.items() if record is not None}
    for name in _NEEDED:
        if name not in records:
            text = f"{run_dir} has no finished stage '{name}', which a report needs"
            raise RunDirectoryError(f"{text}; run: dedup run output.run_dir={run_dir} …")
    return ReportedRun(run_dir, _config(run_dir, records), records, [*_missing(records), *_stale(records)])


def _missing(records: dict[str, StageRecord]) -> list[str]:
    left = [name for name in HOMES if name not in records]
    if not left:
        return []
    parts = f"the stage {left[0]} is" if len(left) == 1 else f"the stages {' and '.join(left)} are"
    return [f"{parts} not finished: what is drawn from there is left out; run dedup run … and then dedup report again"]


def _stale(records: dict[str, StageRecord]) -> list[str]:
    notes = []
    for name, record in records.items():
        earlier = [
            other for other, known in record.inputs.items() if other in HOMES and other in records and records[other].digest != known
        ]
        if earlier:
            notes.append(f"the stage {name} was made from an earlier {earlier[0]}: figures may not fit each other; run dedup run … --redo")
    return notes


def _config(run_dir: str, records: dict[str, StageRecord]) -> Config:
    values = read_json(join(run_dir, CONFIG_FILE)) or to_dict(Config())
    for record in records.values():
        for key, value in record.config.items():
            section, _, name = key.partition(".")
            values.setdefault(section, {})[name] = value
    values.setdefault("output", {})["run_dir"] = run_dir
    return resolved(from_dict(values))
