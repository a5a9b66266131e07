"""Where each table lies under a run directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from dedup import schemas
from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.config.load import from_dict, load_config, to_dict
from dedup.contracts import JsonDict, Table
from dedup.encoders import encoder_fingerprint
from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.search.lists import Lists
from dedup.runs.index import load_lists
from dedup.runs.vectors import embedding_path
from dedup.storage.arrays import array_shape
from dedup.storage.atomic import write_json
from dedup.storage.tables import read_table
from dedup.storage.urls import filesystem, join, read_json

CONFIG_FILE = "_config.json"  # what the run was made with

_SAMPLE_TABLES = {"metadata", "manifest", "duplicates", "excluded"}

_FOLDERS = {
    "metadata": ("embeddings/metadata", "metadata_*.parquet"),
    "rejected": ("embeddings/rejected", "rejected_*.parquet"),
    "representatives": ("index/representatives", ""),
    "exact": ("index/exact", ""),
    "assignments": ("index/assignments", ""),
}


@dataclass(frozen=True)
class RunLayout:
    """Tables and artefacts of one run directory.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL.
    carry : sequence of str
        `input.carry`: further columns of every table that holds a sample per row.
    samples_dir : str
        The run directory whose samples these are, if it is another: that of a second source of candidates has vectors alone.
    """

    run_dir: str
    carry: Sequence[str] = ()
    samples_dir: str = ""

    def table(self, name: str) -> Table:
        """A table by the name it has in `dedup.schemas.TABLES`."""
        schema = schemas.TABLES[name]
        if name in _SAMPLE_TABLES:
            schema = schemas.with_carried(schema, self.carry)
        folder, pattern = _FOLDERS.get(name, (name, ""))
        home = self.samples_dir or self.run_dir if name in ("metadata", "rejected") else self.run_dir
        return Table(join(home, folder), schema, pattern or Table.pattern)

    def path(self, *parts: str) -> str:
        """A path under the run directory."""
        return join(self.run_dir, *parts)


def also_dir(run_dir: str, name: str) -> str:
    """Where the vectors and lists of a second source of candidates lie, as a run directory has them."""
    return join(run_dir, "also", name)


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
        raise RunDirectoryError(f"{path} can't be read as the record of a stage ({error}); delete it to redo the stage") from error


def write_record(run_dir: str, home: str, record: StageRecord) -> None:
    """Write the record: the last file of a stage, so that its presence means the stage is done."""
    write_json(join(run_dir, home, "_stage.json"), asdict(record) | {"digest": record.digest})


_HOMES = {
    "embed": "embeddings",
    "index": "index",
    "groups": "groups",
    "manifest": "manifest",
    "confirm": "edges",
    "statistics": "statistics",
}


@dataclass(frozen=True)
class OpenedRun:
    """A run whose parts fit each other.

    Parameters
    ----------
    config : Config
        As the run was made, `output.run_dir` being where it lies now.
    lists : Lists
    index : dict
        `_index.json`.
    records : dict
        Stage name to its record.
    """

    config: Config
    lists: Lists
    index: dict[str, Any]
    records: dict[str, StageRecord]

    @property
    def confirms(self) -> bool:
        """Whether the run judged pairs by their pixels: embeddings that were made elsewhere may not say where those are."""
        has_pixels = has_images(self.records["embed"]) or bool(self.records["embed"].summary.get("has_pixels"))
        return self.config.confirm.enabled and has_pixels


def has_images(embedded: StageRecord) -> bool:
    """Whether a run encoded images itself; an encoder named now for a run over precomputed embeddings does not count."""
    return encoder_kind(embedded.config["encoder.name"]).has_images


def open_run(run_dir: str, overrides: list[str] | None = None, stages: Sequence[str] = tuple(_HOMES)) -> OpenedRun:
    """Read what a run was made with and check that it is whole.

    Parameters
    ----------
    run_dir : str
    overrides : list of str
        ``section.key=value`` over the run's configuration: `engine.device`, or the encoder of a run over precomputed embeddings.
    stages : sequence of str
        That must be finished.

    Raises
    ------
    RunDirectoryError
        If a stage is missing or stale, the run holds no image, or embeddings are missing or have changed.
    """
    records: dict[str, StageRecord] = {}
    for name, home in _HOMES.items():
        record = read_record(run_dir, home)
        if record is None and name in stages:
            raise RunDirectoryError(f"{run_dir} has no finished stage '{name}'; run: dedup run output.run_dir={run_dir} …")
        if record is not None:
            records[name] = record
    if records["index"].inputs.get("embed") != records["embed"].digest:
        raise RunDirectoryError(f"{run_dir}: the index was made from earlier embeddings; run: dedup run output.run_dir={run_dir} … --redo")
    config = _config_of(run_dir, records, overrides or [])
    index = read_json(join(run_dir, "index", "_index.json")) or {}
    _check_store(run_dir, index)
    return OpenedRun(config, load_lists(join(run_dir, "index")), index, records)


def _config_of(run_dir: str, records: dict[str, StageRecord], overrides: list[str]) -> Config:
    values = read_json(join(run_dir, CONFIG_FILE)) or to_dict(Config())
    for record in records.values():
        for key, value in record.config.items():
            section, _, name = key.partition(".")
            values.setdefault(section, {})[name] = value
    config = from_dict(values)
    if overrides:
        given = load_config(None, overrides)
        asked = {key.partition("=")[0] for key in overrides}
        for key in asked:
            section, _, name = key.partition(".")
            if section not in ("encoder", "input", "engine"):
                raise ConfigError(f"{key} is fixed by the run; expected a key of encoder or input")
            values = to_dict(config)
            values[section][name] = to_dict(given)[section][name]
            config = from_dict(values)
    return replace(config, output=replace(config.output, run_dir=run_dir))


def check_encoder(opened: OpenedRun) -> None:
    """Stop where this machine's encoder is not the run's; another decoder is no other encoder.

    Raises
    ------
    RunDirectoryError
        With what differs.
    """
    config, record, run_dir = opened.config, opened.records["embed"], opened.config.output.run_dir
    if not has_images(record):
        return
    own = encoder_fingerprint(config.encoder)
    differences = [
        f"{key}: {record.encoder.get(key)} there, {own.get(key)} here"
        for key in sorted({*own, *record.encoder} - {"decoder"})
        if own.get(key) != record.encoder.get(key)
    ]
    if differences:
        raise RunDirectoryError(
            f"{run_dir} was embedded with another encoder: {'; '.join(differences)}; give the run's own, such as encoder.pretrained=PATH"
        )


def _check_store(run_dir: str, index: dict[str, Any]) -> None:
    """Every partition's vectors are there, as many as its samples, as wide as the index."""
    layout = RunLayout(run_dir)
    table = read_table(layout.table("partitions"), ["partition", "n_samples"])
    partitions, place = np.unique(table["partition"].to_numpy(), return_inverse=True)
    expected = np.bincount(place, weights=table["n_samples"].to_numpy()).astype(np.int64)
    if not expected.sum():
        raise RunDirectoryError(
            f"{run_dir} has no image: its samples were all rejected, or there were none (partitions/ says which shards broke)"
        )
    again = f"run: dedup run output.run_dir={run_dir} … --redo"
    for partition, n in zip(partitions.tolist(), expected.tolist(), strict=True):
        url = embedding_path(run_dir, partition)
        fs, path = filesystem(url)
        if not fs.exists(path):
            raise RunDirectoryError(f"{url} is missing; the index was built over it; {again}")
        try:
            shape, _ = array_shape(url)
        except ValueError as error:
            raise RunDirectoryError(f"{url} can't be read as an array ({error}); {again}") from error
        if shape != (n, index.get("dim", shape[1])):
            wanted = f"{n:,} vectors of {index.get('dim', shape[1])} dimensions"
            raise RunDirectoryError(f"{url} has changed since the index was built: expected {wanted}, found {shape}; {again}")
