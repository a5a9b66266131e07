"""The order of the stages, what each depends on, and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from dedup.config import Config
from dedup.config_io import to_dict, validate
from dedup.contracts import Engine, JsonDict, Reporter
from dedup.encoders import load_encoder
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, RunDirectoryError
from dedup.stages import embed, groups, index, manifest, pairs, statistics, targets
from dedup.stages.context import SilentReporter, StageContext, StageResult
from dedup.stages.keep import policy_sql
from dedup.storage.provenance import StageRecord, digest, read_record, write_record
from dedup.storage.sources import expand_shards, fingerprint, folder_parts
from dedup.storage.tables import filesystem, join


@dataclass(frozen=True)
class StageSpec:
    """A stage's place in the pipeline.

    Parameters
    ----------
    name : str
    home : str
        Folder of its `_stage.json`.
    config : tuple of str
        Keys or sections its result depends on.
    upstream : tuple of str
        Stages whose results it reads.
    output_version : int
    run : callable
        None for `embed`, which is handed shards.
    tables : tuple of str
        Tables it writes.
    """

    name: str
    home: str
    config: tuple[str, ...]
    upstream: tuple[str, ...]
    output_version: int
    run: Callable[[StageContext], StageResult] | None
    tables: tuple[str, ...]


_EMBED_KEYS = (
    "input.images", "input.captions", "input.sidecar", "input.carry", "input.max_pixels", "input.max_image_bytes",
    "encoder.name", "embed.shards_per_partition", "embed.images_per_partition",
)  # fmt: skip
_THRESHOLDS = ("search.min_similarity", "search.low_detail_quality", "search.low_detail_min_similarity", "search.flat_quality")

STAGES: tuple[StageSpec, ...] = (
    StageSpec("embed", "embeddings", _EMBED_KEYS, (), embed.OUTPUT_VERSION, None, ("partitions", "metadata", "rejected")),
    StageSpec(
        "index",
        "index",
        (*_THRESHOLDS, "encoder.dihedral", "search.nlist", "search.nprobe", "search.exhaustive_below", "index"),
        ("embed",),
        index.OUTPUT_VERSION,
        index.run,
        ("representatives", "exact", "assignments"),
    ),
    StageSpec(
        "pairs",
        "edges",
        ("search.best_edges", "search.recall_queries"),
        ("index",),
        pairs.OUTPUT_VERSION,
        pairs.run,
        ("edges", "neighbors"),
    ),
    StageSpec("groups", "groups", (), ("pairs",), groups.OUTPUT_VERSION, groups.run, ("groups",)),
    StageSpec(
        "manifest", "manifest", ("keep",), ("groups",), manifest.OUTPUT_VERSION, manifest.run, ("manifest", "duplicates", "excluded")
    ),
    StageSpec(
        "statistics", "statistics", (), ("groups",), statistics.OUTPUT_VERSION, statistics.run, ("statistics", "captions", "histogram")
    ),
    StageSpec("targets", "targets", ("targets",), ("statistics", "manifest"), targets.OUTPUT_VERSION, targets.run, ("targets",)),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class RunSummary:
    """What a run did: a record per stage, in order, and which were done before.

    Parameters
    ----------
    run_dir : str
    records : dict
        Stage name to its record.
    skipped : tuple of str
        Stages whose finished result was used.
    """

    run_dir: str
    records: dict[str, StageRecord] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def figure(self, stage: str, name: str) -> JsonDict | int | float | str | None:
        """A figure of a stage's summary, or None."""
        record = self.records.get(stage)
        return None if record is None else record.summary.get(name)


def run(
    config: Config,
    stages: Sequence[str] = STAGE_NAMES,
    *,
    redo: bool = False,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> RunSummary:
    """Run stages in order; finished ones are skipped.

    Parameters
    ----------
    config : Config
    stages : sequence of str
        Names of `STAGE_NAMES`; the stages before them must be finished.
    redo : bool
        Redo from the first stage whose configuration or input changed, instead of refusing.
    engine : Engine
        By default the local one of `config.engine`.
    reporter : Reporter

    Raises
    ------
    ConfigError, RunDirectoryError
        Before any work.
    InputError
        If a shard can't be reached.
    """
    reporter = reporter or SilentReporter()
    wanted = [stage for stage in STAGES if stage.name in stages]
    unknown = sorted(set(stages) - set(STAGE_NAMES))
    if unknown:
        raise ConfigError(f"unknown stage '{unknown[0]}'; expected one of {', '.join(STAGE_NAMES)}")
    validate(config)
    if not config.output.run_dir:
        raise ConfigError("output.run_dir is not set; add output.run_dir=FOLDER")
    policy_sql(config.keep.order_by, config.input.carry)
    shards = _shards(config) if any(stage.name == "embed" for stage in wanted) else []
    expected = _expected(config, shards, wanted)
    todo = _check(config.output.run_dir, wanted, expected, redo)
    own = engine is None
    engine = engine or LocalEngine(config.engine.workers, config.engine.memory_limit)
    context = StageContext(config, engine, reporter)
    records: dict[str, StageRecord] = {}
    try:
        for stage in wanted:
            if stage.name not in todo:
                record = read_record(config.output.run_dir, stage.home)
                if record is None:
                    raise RunDirectoryError(f"{config.output.run_dir}: the record of stage {stage.name} vanished while the run went on")
                records[stage.name] = record
                continue
            records[stage.name] = _run_stage(context, stage, expected[stage.name], shards)
    finally:
        if own:
            engine.close()
    return RunSummary(config.output.run_dir, records, tuple(stage.name for stage in wanted if stage.name not in todo))


def _run_stage(context: StageContext, stage: StageSpec, expected: StageRecord, shards: list[embed.Source]) -> StageRecord:
    run_dir = context.config.output.run_dir
    fs, path = filesystem(join(run_dir, stage.home, "_stage.json"))
    if fs.exists(path):
        fs.rm_file(path)  # from here on the stage is not done
    started = time.perf_counter()
    if stage.run is None:
        result = embed.run(context, shards, digest([expected.config, expected.encoder, expected.output_version]))
    else:
        result = stage.run(context)
    record = StageRecord(
        stage.name,
        stage.output_version,
        expected.config,
        expected.inputs,
        expected.encoder,
        result.rows,
        round(time.perf_counter() - started, 3),
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        package_version(),
        result.summary,
    )
    write_record(run_dir, stage.home, record)
    return record


def _shards(config: Config) -> list[embed.Source]:
    if config.input.images:
        return list(folder_parts(config.input.images, config.input.captions, config.embed.images_per_partition))
    if not config.input.shards:
        raise ConfigError("no input; add input.shards='DIR/*.tar' or input.images=FOLDER")
    return list(expand_shards(config.input.shards))


@dataclass(frozen=True)
class StageStatus:
    """A line of `dedup status`.

    Parameters
    ----------
    name, state : str
        state is done, missing, or stale (a stage before it was redone since).
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
    lines = []
    for stage in STAGES:
        record = found[stage.name]
        if record is None:
            lines.append(StageStatus(stage.name, "missing", {}, 0.0, "", []))
            continue
        upstream = [found[name] for name in stage.upstream]
        is_fresh = all(other is not None and record.inputs.get(other.stage) == other.digest for other in upstream)
        changes = [] if config is None else _changes(record, stage, config)
        lines.append(StageStatus(stage.name, "done" if is_fresh else "stale", record.rows, record.seconds, record.finished, changes))
    return lines


def _changes(record: StageRecord, stage: StageSpec, config: Config) -> list[str]:
    wanted = replace(record, config=_picked(stage, config), output_version=stage.output_version)
    return record.differences(wanted)


def _picked(stage: StageSpec, config: Config) -> JsonDict:
    """The configuration keys a stage depends on, with their values."""
    values = to_dict(config)
    picked: JsonDict = {}
    for key in stage.config:
        section, _, name = key.partition(".")
        picked |= {key: values[section][name]} if name else {f"{section}.{item}": value for item, value in values[section].items()}
    return picked


def _expected(config: Config, shards: list[embed.Source] | None, wanted: Sequence[StageSpec]) -> dict[str, StageRecord]:
    """The records that finished stages must match; rows and times empty."""
    records: dict[str, StageRecord] = {}
    names = {stage.name for stage in wanted}
    for stage in STAGES:
        found = read_record(config.output.run_dir, stage.home)
        if stage.name not in names or (stage.name == "embed" and shards is None):
            # not run now: it stands as it is
            if found is None:
                if names & set(_downstream(stage.name)):
                    run_dir = config.output.run_dir
                    raise RunDirectoryError(
                        f"{run_dir} has no finished stage '{stage.name}'; run: dedup {stage.name} output.run_dir={run_dir} …"
                    )
                continue
            records[stage.name] = found
            continue
        if stage.name == "embed":
            listed = digest([[embed.source_url(source), fingerprint(source)] for source in shards or []])
            inputs: JsonDict = {"input": f"{len(shards or [])} shards, {listed}"}
            encoder = load_encoder(config.encoder).fingerprint()
        else:
            inputs = {name: records[name].digest for name in stage.upstream if name in records}
            encoder = {}
        records[stage.name] = StageRecord(stage.name, stage.output_version, _picked(stage, config), inputs, encoder)
    return records


def _downstream(name: str) -> list[str]:
    return [stage.name for stage in STAGES if name in stage.upstream]


def _check(run_dir: str, wanted: Sequence[StageSpec], expected: dict[str, StageRecord], redo: bool) -> set[str]:
    """Names of the stages to run; refuses where a finished one differs, unless `redo`."""
    todo: set[str] = set()
    for stage in wanted:
        found = read_record(run_dir, stage.home)
        if found is None or any(name in todo for name in stage.upstream):
            todo.add(stage.name)
            continue
        differences = found.differences(expected[stage.name])
        own = [line for line in differences if line.split(":")[0] not in STAGE_NAMES]
        if differences and not redo:
            raise RunDirectoryError(
                f"{run_dir} was made with another configuration: stage {stage.name}: {'; '.join(own or differences)}. "
                "Choose another output.run_dir, or add --redo to redo from there"
            )
        if differences:
            todo.add(stage.name)
    return todo


def package_version() -> str:
    """Version of this distribution, '0' in a tree that is not installed."""
    try:
        return version("webdedup")
    except PackageNotFoundError:
        return "0"


__all__ = ["STAGES", "STAGE_NAMES", "RunSummary", "StageSpec", "StageStatus", "package_version", "run", "status"]
