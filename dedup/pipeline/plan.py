"""The stages, what each depends on, and which of them are to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from dedup.config import Config
from dedup.config.keys import STAGE_NAMES, keys_of, values_of
from dedup.config.load import resolved
from dedup.contracts import JsonDict
from dedup.encoders import encoder_fingerprint
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.pipeline.base import base_inputs, base_records, without_embedded
from dedup.runs.directory import Difference, StageRecord, differences_of, digest, read_record
from dedup.stages import exclude, statistics, targets
from dedup.stages.confirm import stage as confirm
from dedup.stages.embed import stage as embed
from dedup.stages.embed.inherit import GONE
from dedup.stages.embed.partition import Source, source_url
from dedup.stages.groups import stage as groups
from dedup.stages.index import stage as index
from dedup.stages.manifest import stage as manifest
from dedup.stages.pairs import stage as pairs
from dedup.stages.stage import StageContext, StageResult
from dedup.storage.input.published import find_embeddings
from dedup.storage.input.sources import expand_shards, fingerprint, folder_parts

Sources = dict[str, tuple[Source, str]]  # URL to the source and its fingerprint


@dataclass(frozen=True)
class StageSpec:
    """A stage's place in the pipeline.

    Parameters
    ----------
    name : str
    home : str
        Folder of its `_stage.json`.
    upstream : tuple of str
        Stages whose results it reads.
    output_version : int
    run : callable
        None for `embed`, which is handed sources.
    """

    name: str
    home: str
    upstream: tuple[str, ...]
    output_version: int
    run: Callable[[StageContext], StageResult] | None

    @property
    def keys(self) -> tuple[str, ...]:
        """Configuration keys its result depends on, besides those of the stages before it."""
        return keys_of(self.name)


STAGES: tuple[StageSpec, ...] = (
    StageSpec("embed", "embeddings", (), embed.OUTPUT_VERSION, None),
    StageSpec("index", "index", ("embed",), index.OUTPUT_VERSION, index.run),
    StageSpec("pairs", "candidates", ("index",), pairs.OUTPUT_VERSION, pairs.run),
    StageSpec("confirm", "edges", ("pairs",), confirm.OUTPUT_VERSION, confirm.run),
    StageSpec("groups", "groups", ("confirm",), groups.OUTPUT_VERSION, groups.run),
    StageSpec("exclude", "exclusions", ("groups",), exclude.OUTPUT_VERSION, exclude.run),
    StageSpec("manifest", "manifest", ("groups", "exclude"), manifest.OUTPUT_VERSION, manifest.run),
    StageSpec("statistics", "statistics", ("groups",), statistics.OUTPUT_VERSION, statistics.run),
    StageSpec("targets", "targets", ("statistics", "manifest"), targets.OUTPUT_VERSION, targets.run),
)

# of the keys of `embed`, those that later stages need to be told again
_ASKED_AGAIN: Final = ("input.carry", "encoder.name", "embed.also")


def find_sources(config: Config) -> Sources:
    """The input, expanded, with the fingerprint of each shard; without those that the run in `base.run_dir` has embedded.

    Raises
    ------
    InputError
        If nothing matches, or if a shard that was embedded there has changed.
    """
    if config.input.images:
        parts = folder_parts(config.input.images, config.input.captions, config.embed.images_per_partition)
        sources: list[Source] = list(parts)
    elif config.input.embeddings:
        sources = list(find_embeddings(config.input.embeddings))
    else:
        sources = list(expand_shards(config.input.shards))
    with ThreadPoolExecutor(32) as pool:  # a remote file system answers slowly, and many at a time
        stamps = list(pool.map(lambda source: fingerprint(source, sidecar=config.input.sidecar), sources))
    found: Sources = {source_url(source): (source, stamp) for source, stamp in zip(sources, stamps, strict=True)}
    return without_embedded(config.base.run_dir, found) if config.base.run_dir else found


def picked(stage: StageSpec, config: Config) -> JsonDict:
    """The configuration keys a stage depends on, with their values."""
    values = values_of(config)
    return {key: values[key] for key in stage.keys}


def expected_records(config: Config, sources: Sources, wanted: Sequence[StageSpec]) -> dict[str, StageRecord]:
    """The records that the wanted stages must match, rows and times empty, and those of the stages before them.

    Raises
    ------
    RunDirectoryError
        If a stage that is needed but not wanted is missing, stale, or was made with another configuration.
    """
    run_dir, names = config.output.run_dir, {stage.name for stage in wanted}
    needed = set().union(*(_before(name) for name in names)) - names
    records: dict[str, StageRecord] = {}
    own_encoder = encoder_fingerprint(config.encoder) if "embed" in names else {}
    base = base_records(config, STAGES, lambda name, record: changed_since(record, _spec(name), config), own_encoder)
    for stage in STAGES:
        if stage.name in needed:
            records[stage.name] = _standing(config, stage, records)
            # a finished run needs its base no longer
            if base and records[stage.name].inputs.get("base") != base_inputs(config, base, stage.name).get("base"):
                raise RunDirectoryError(
                    f"{run_dir}: stage '{stage.name}' was made with another base.run_dir, or from an earlier state of it; "
                    "give the same, or run: dedup run … --redo"
                )
        elif stage.name in names:
            inputs: JsonDict = {name: records[name].digest for name in stage.upstream}
            if stage.name == "embed":
                listed = digest([[url, stamp] for url, (_, stamp) in sources.items()])
                inputs = {"input": f"{len(sources)} shards, {listed}"}
            if stage.name == "exclude":
                inputs |= exclude.fingerprints(config)
            inputs |= base_inputs(config, base, stage.name)
            encoder = own_encoder if stage.name == "embed" else {}
            records[stage.name] = StageRecord(stage.name, stage.output_version, picked(stage, config), inputs, encoder)
    missing = {name for name in names if name not in records}
    if missing:
        raise ConfigError(f"{run_dir}: unknown stages {sorted(missing)}; expected some of {', '.join(STAGE_NAMES)}")
    return records


def _standing(config: Config, stage: StageSpec, records: Mapping[str, StageRecord]) -> StageRecord:
    """The record of a stage that is used as it stands."""
    run_dir = config.output.run_dir
    found = read_record(run_dir, stage.home)
    if found is None:
        raise RunDirectoryError(f"{run_dir} has no finished stage '{stage.name}'; run: dedup {stage.name} output.run_dir={run_dir} …")
    for name in stage.upstream:
        if found.inputs.get(name) != records[name].digest:
            raise RunDirectoryError(f"{run_dir}: stage '{stage.name}' was made from an earlier '{name}'; run: dedup run … --redo")
    changes = changed_since(found, stage, config)
    if stage.name == "embed":
        changes = [change for change in changes if change.key in _ASKED_AGAIN]
    if changes:
        raise RunDirectoryError(
            f"{run_dir}: stage '{stage.name}' was made with another configuration: {_listed(changes)}; "
            "give the same, or run: dedup run … --redo"
        )
    return found


def _spec(name: str) -> StageSpec:
    return next(stage for stage in STAGES if stage.name == name)


def _before(name: str) -> set[str]:
    """All stages a stage depends on."""
    stage = _spec(name)
    return set(stage.upstream).union(*(_before(other) for other in stage.upstream))


def _listed(differences: Sequence[Difference]) -> str:
    return "; ".join(map(str, differences))


def changed_since(record: StageRecord, stage: StageSpec, config: Config) -> list[Difference]:
    """What a configuration would change in a stage."""
    return record.differences(replace(record, config=picked(stage, config), output_version=stage.output_version))


def stages_to_run(
    config: Config, sources: Sources, wanted: Sequence[StageSpec], expected: Mapping[str, StageRecord], redo: bool
) -> set[str]:
    """Names of the wanted stages that are not done.

    Raises
    ------
    InputError
        If a finished run's shard is gone for now: what was made from it stands.
    RunDirectoryError
        If a finished stage differs from what is wanted, unless `redo`.
    """
    run_dir = config.output.run_dir
    todo: set[str] = set()
    for stage in wanted:
        found = read_record(run_dir, stage.home)
        if stage.name == "embed" and found is None and not redo:
            _refuse_another_encoder(run_dir, expected["embed"].encoder)
        if stage.name == "embed" and found is not None and not config.input.allow_missing:
            gone = [url for url, (_, stamp) in sources.items() if stamp in GONE]
            if gone:
                raise InputError(
                    f"{len(gone)} of {len(sources)} shards can't be reached, the first {gone[0]}; nothing was changed: "
                    "fix the input and run the same command again, or set input.allow_missing=true to continue without"
                )
        if found is None or any(name in todo for name in stage.upstream):
            todo.add(stage.name)
            continue
        differences = found.differences(expected[stage.name])
        if found.summary.get("n_unreachable"):
            # shards that were missing may be there now: that is no other run, another encoder or setting is
            todo.add(stage.name)
            differences = [difference for difference in differences if difference.key != "input"]
        if differences and not redo:
            own = [difference for difference in differences if difference.key not in STAGE_NAMES]
            what = f"made with another configuration: {_listed(own)}" if own else f"made from an earlier {differences[0].key}"
            raise RunDirectoryError(
                f"{run_dir}: stage {stage.name} was {what}. Choose another output.run_dir, or add --redo to redo from there"
            )
        if differences:
            todo.add(stage.name)
    return todo


def _refuse_another_encoder(run_dir: str, wanted: dict[str, str]) -> None:
    """Stop before the finished partitions of a run that was stopped are embedded anew by another encoder."""
    begun = embed.begun_with(run_dir)
    differences = differences_of(begun, wanted)
    if begun and differences:
        raise RunDirectoryError(
            f"{run_dir}: embedding was begun with another encoder: {_listed(differences)}. Choose another output.run_dir, or add --redo "
            "to embed all again"
        )


@dataclass(frozen=True)
class StageStatus:
    """A line of `dedup status`.

    Parameters
    ----------
    name, state : str
        state is done, missing, or stale (a stage before it was redone since, or is missing).
    rows : dict
    seconds : float
    finished : str
    changes : list of str
        What differs from the configuration given.
    """

    name: str
    state: str
    rows: dict[str, int]
    seconds: float
    finished: str
    changes: list[str]


def status(run_dir: str, config: Config | None = None) -> list[StageStatus]:
    """The state of every stage of a run.

    Parameters
    ----------
    run_dir : str
    config : Config
        Configuration to compare with; None = compare nothing.

    Raises
    ------
    RunDirectoryError
        If no stage of a run is there.
    """
    found = {stage.name: read_record(run_dir, stage.home) for stage in STAGES}
    if not any(found.values()):
        raise RunDirectoryError(f"{run_dir} holds no run: expected embeddings/_stage.json; give the output.run_dir of an earlier run")
    config = None if config is None else resolved(config)
    lines: dict[str, StageStatus] = {}
    for stage in STAGES:
        record = found[stage.name]
        if record is None:
            lines[stage.name] = StageStatus(stage.name, "missing", {}, 0.0, "", [])
            continue
        before = [(found[name], lines[name].state) for name in stage.upstream]
        is_fresh = all(other is not None and state == "done" and record.inputs.get(other.stage) == other.digest for other, state in before)
        changes = [] if config is None else [str(change) for change in changed_since(record, stage, config)]
        lines[stage.name] = StageStatus(stage.name, "done" if is_fresh else "stale", record.rows, record.seconds, record.finished, changes)
    return list(lines.values())
