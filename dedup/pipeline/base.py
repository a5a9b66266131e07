"""The run that another adds to: what it must be, and which of the shards it has embedded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dedup.config import Config
from dedup.config.keys import keys_of, values_of
from dedup.contracts import JsonDict
from dedup.errors import ConfigError, RunDirectoryError
from dedup.runs.directory import Difference, StageRecord, differences_of, read_record
from dedup.stages.embed.inherit import embedded_stamps, refuse_changed
from dedup.stages.embed.partition import Source
from dedup.storage.urls import absolute, is_local

NEEDED = ("embed", "index", "pairs", "confirm", "groups", "exclude", "manifest")

# what may differ: where the samples come from, and what leaves earlier results as they are
_FREE = ("input.images", "input.embeddings", "input.captions", "index.codes", "search.recall_queries")

_COMPARED = ("embed", "index", "pairs")  # verdicts are asked for again where `confirm` differs, keepers are chosen again


class Spec(Protocol):
    """What is asked of a stage here."""

    @property
    def name(self) -> str:
        """Of the stage."""

    @property
    def home(self) -> str:
        """Folder of its `_stage.json`."""

    @property
    def upstream(self) -> tuple[str, ...]:
        """Stages whose results it reads."""


def base_records(
    config: Config, stages: Sequence[Spec], changed: Callable[[str, StageRecord], list[Difference]], encoder: Mapping[str, str]
) -> dict[str, StageRecord]:
    """The records of the run in `base.run_dir`; empty where none is given.

    Parameters
    ----------
    config : Config
    stages : sequence of Spec
        All stages, in order.
    changed : callable
        Of a stage's name and its record: what the configuration would change in it.
    encoder : mapping
        The encoder's fingerprint; empty = not compared.

    Raises
    ------
    ConfigError
        If it is this run itself.
    RunDirectoryError
        If it is not finished up to its manifest, or was made with another encoder or other settings of `embed` and `search`.
    """
    base_dir, run_dir = config.base.run_dir, config.output.run_dir
    if not base_dir:
        return {}
    if _same(base_dir) == _same(run_dir):
        raise ConfigError(f"base.run_dir={base_dir} is output.run_dir itself; expected an earlier run; choose another output.run_dir")
    records: dict[str, StageRecord] = {}
    for stage in (stage for stage in stages if stage.name in NEEDED):
        found = read_record(base_dir, stage.home)
        if found is None:
            raise RunDirectoryError(
                f"base.run_dir={base_dir}: stage {stage.name} is not finished; expected a run up to its manifest; finish it"
            )
        if any(found.inputs.get(name) != records[name].digest for name in stage.upstream):
            raise RunDirectoryError(
                f"base.run_dir={base_dir}: stage {stage.name} is older than a stage before it; run it again with --redo"
            )
        records[stage.name] = found
    n_lost = records["embed"].summary.get("n_unreachable")
    if n_lost:
        raise RunDirectoryError(
            f"base.run_dir={base_dir} lacks {n_lost} shards that could not be reached; run it again once they are there"
        )
    _refuse_to_forget(base_dir, config, records["exclude"])
    differences = [change for name in _COMPARED for change in changed(name, records[name]) if change.key not in _FREE]
    if encoder:
        differences += differences_of(records["embed"].encoder, encoder)
    if differences:
        raise RunDirectoryError(
            f"base.run_dir={base_dir} was made with another configuration: {'; '.join(map(str, differences))}; "
            "give the same, or run without base.run_dir"
        )
    return records


def _refuse_to_forget(base_dir: str, config: Config, record: StageRecord) -> None:
    """Samples that were taken out of the base must not come back because a list was not named again."""
    now = values_of(config)
    forgotten = [key for key in keys_of("exclude") if record.config.get(key) and not now[key]]
    if forgotten:
        key = forgotten[0]
        raise RunDirectoryError(
            f"base.run_dir={base_dir} left samples out by {key}={record.config[key]}, which this run does not name; give {key} again, "
            "or run without base.run_dir"
        )


def without_embedded(base_dir: str, sources: Mapping[str, tuple[Source, str]]) -> dict[str, tuple[Source, str]]:
    """Those of the shards listed that the base has not embedded.

    Raises
    ------
    InputError
        If one that it has embedded is another one now.
    """
    embedded = embedded_stamps(base_dir)
    refuse_changed(base_dir, {url: stamp for url, (_, stamp) in sources.items()}, embedded)
    return {url: source for url, source in sources.items() if url not in embedded}


def base_inputs(config: Config, records: Mapping[str, StageRecord], stage: str) -> JsonDict:
    """What a stage's record says of the base: which result of the same stage its own depends on.

    Verdicts that `confirm` and `groups` find there are those they would find themselves: nothing depends on them.
    """
    depends = stage in _COMPARED or (stage == "manifest" and config.keep.prefer_base)
    return {"base": records[stage].digest} if depends and stage in records else {}


def _same(url: str) -> str:
    url = absolute(url).rstrip("/")
    return os.path.realpath(url) if is_local(url) else url
