"""Opening a finished run to come back to: its configuration, encoder, vectors and index, checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.config.load import from_dict, load_config, to_dict
from dedup.encoders import encoder_fingerprint
from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.lists import Lists
from dedup.storage.arrays import array_shape
from dedup.storage.embeddings import embedding_path
from dedup.storage.layout import CONFIG_FILE, RunLayout
from dedup.storage.lists import load_lists
from dedup.storage.provenance import StageRecord, read_record
from dedup.storage.tables import read_table
from dedup.storage.urls import filesystem, join, read_json

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
            raise RunDirectoryError(f"{url} is no array that can be read ({error}); {again}") from error
        if shape != (n, index.get("dim", shape[1])):
            wanted = f"{n:,} vectors of {index.get('dim', shape[1])} dimensions"
            raise RunDirectoryError(f"{url} has changed since the index was built: expected {wanted}, found {shape}; {again}")
