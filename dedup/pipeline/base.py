"""The base of a run: the finished run that it adds to, and the conditions it must meet."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dedup.config import Config
from dedup.config.keys import keys_of, values_of
from dedup.errors import ConfigError, RunDirectoryError
from dedup.pipeline.stages import STAGES
from dedup.runs.directory import Run
from dedup.runs.record import StageRecord, differences_of
from dedup.storage.urls import absolute, is_local

_NEEDED = ("embed", "index", "pairs", "confirm", "groups", "exclude", "manifest")

# keys that may differ: they name the input, or leave earlier results unchanged
_FREE = ("input.images", "input.embeddings", "input.captions", "index.codes", "search.recall_queries")
_COMPARED = ("embed", "index", "pairs")  # if `confirm` differs, pairs are judged again; keepers are always chosen again


def base_records(config: Config, encoder: Mapping[str, str]) -> dict[str, StageRecord]:
    """The records of the run in `base.run_dir`; empty if none is set.

    `encoder`: the encoder's fingerprint; empty = not compared.
    Raises ConfigError if it is this run itself.
    Raises RunDirectoryError if it is not finished up to its manifest, or was made with another encoder or other settings of the stages
    `embed`, `index` and `pairs`.
    """
    base_dir, run_dir = config.base.run_dir, config.output.run_dir
    if not base_dir:
        return {}
    if _canonical(base_dir) == _canonical(run_dir):
        raise ConfigError(f"base.run_dir={base_dir} is output.run_dir itself; expected an earlier run; choose another output.run_dir")
    base = Run(base_dir)
    records: dict[str, StageRecord] = {}
    for stage in STAGES:
        if stage.name not in _NEEDED:
            continue
        record = base.record(stage.name)
        if record is None:
            raise RunDirectoryError(
                f"base.run_dir={base_dir}: stage {stage.name} is not finished; expected a run up to its manifest; finish it"
            )
        if any(record.inputs.get(name) != records[name].digest for name in stage.reads):
            raise RunDirectoryError(
                f"base.run_dir={base_dir}: stage {stage.name} is older than a stage before it; run it again with --redo"
            )
        records[stage.name] = record
    n_lost = records["embed"].summary.get("n_unreachable")
    if n_lost:
        raise RunDirectoryError(
            f"base.run_dir={base_dir} lacks {n_lost} shards that could not be reached; run it again once they are there"
        )
    _refuse_to_forget(base_dir, config, records["exclude"])
    compared = [stage for stage in STAGES if stage.name in _COMPARED]
    differences = [change for stage in compared for change in stage.changes(records[stage.name], config) if change.key not in _FREE]
    if encoder:
        differences += differences_of(records["embed"].encoder, encoder)
    if differences:
        raise RunDirectoryError(
            f"base.run_dir={base_dir} was made with another configuration: {'; '.join(map(str, differences))}; "
            "give the same, or run without base.run_dir"
        )
    return records


def _refuse_to_forget(base_dir: str, config: Config, record: StageRecord) -> None:
    """Samples excluded from the base must not return because a list was not given again."""
    now = values_of(config)
    forgotten = [key for key in keys_of("exclude") if record.config.get(key) and not now[key]]
    if forgotten:
        key = forgotten[0]
        value = record.config[key]
        text = ", ".join(value) if isinstance(value, list) else value
        raise RunDirectoryError(
            f"base.run_dir={base_dir} left samples out by {key}={text}, which this run does not name; give {key} again, "
            "or run without base.run_dir"
        )


def _canonical(url: str) -> str:
    url = absolute(url).rstrip("/")
    return os.path.realpath(url) if is_local(url) else url
