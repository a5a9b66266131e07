"""Running the stages in order."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from dedup.config import Config
from dedup.config.keys import STAGE_NAMES
from dedup.config.load import resolved, to_dict
from dedup.config.rules import validate
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter
from dedup.engines.local import LocalEngine
from dedup.engines.spark.shipping import SCRATCH, remove_folder
from dedup.errors import ConfigError, MissingExtra, RunDirectoryError
from dedup.pipeline.plan import STAGES, Sources, StageSpec, StageStatus, expected_records, find_sources, stages_to_run, status
from dedup.pipeline.preflight import bounded_workers, check
from dedup.report import build as reports
from dedup.runs.directory import CONFIG_FILE, StageRecord, digest, read_record, write_record
from dedup.runs.lock import locked
from dedup.stages.embed import stage as embed
from dedup.stages.stage import StageContext
from dedup.storage.atomic import remove_half_written, write_json
from dedup.storage.input.samples import one_line
from dedup.storage.urls import absolute, filesystem, join

_REPORTED_HERE = 5_000_000  # samples up to which the driver alone gathers a report


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
    report : str
        Where its report lies; empty where none was written.
    """

    run_dir: str
    records: dict[str, StageRecord] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    report: str = ""

    def figure(self, stage: str, name: str) -> JsonDict | int | float | str | None:
        """A figure of a stage's summary, or None."""
        record = self.records.get(stage)
        return None if record is None else record.summary.get(name)

    def as_dict(self) -> JsonDict:
        """For JSON: a record per stage with what it wrote and figured out, and whether it was done before."""
        names = ("rows", "seconds", "finished", "output_version", "dedup_version", "summary")
        stages = {
            stage: {"is_done_before": stage in self.skipped} | {name: getattr(record, name) for name in names}
            for stage, record in self.records.items()
        }
        return {"run_dir": self.run_dir, "stages": stages}


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
        By default the one of `config.engine`.
    reporter : Reporter

    Raises
    ------
    ConfigError, RunDirectoryError
        Before any work.
    InputError
        If a shard can't be reached.
    """
    reporter = reporter or SilentReporter()
    unknown = sorted(set(stages) - set(STAGE_NAMES))
    if unknown:
        raise ConfigError(f"unknown stage '{unknown[0]}'; expected one of {', '.join(STAGE_NAMES)}")
    wanted = [stage for stage in STAGES if stage.name in stages]
    validate(config, require_input="embed" in stages)
    config = resolved(config)
    if not config.output.run_dir:
        raise ConfigError("output.run_dir is not set; add output.run_dir=FOLDER")
    if config.engine.name != "local":  # workers have folders of their own
        config = replace(config, output=replace(config.output, run_dir=absolute(config.output.run_dir)))
        if config.base.run_dir:
            config = replace(config, base=replace(config.base, run_dir=absolute(config.base.run_dir)))
    run_dir = config.output.run_dir
    sources = find_sources(config) if "embed" in stages else {}
    expected = expected_records(config, sources, wanted)
    todo = stages_to_run(config, sources, wanted, expected, redo)
    if "index" in todo and config.index.codes != "none" and importlib.util.find_spec("faiss") is None:
        raise MissingExtra("faiss", "cpu")  # rather now than after the embedding
    own = engine is None
    engine = engine or make_engine(config, reporter)
    try:
        needs = check(config, sources, todo, engine, reporter)
        with locked(run_dir) if todo else nullcontext():
            # another run may have worked on it until the lock was free
            expected = expected_records(config, sources, wanted)
            todo = stages_to_run(config, sources, wanted, expected, redo)
            if todo:
                remove_half_written(run_dir)  # what an attempt that was killed left behind
                if isinstance(engine, LocalEngine):
                    remove_folder(join(run_dir, SCRATCH))  # one of Spark's, which clears it at its own end
            records = _carry_out(
                StageContext(config, engine, reporter), wanted, todo, expected, sources, is_counted=needs is None or needs.is_exact
            )
        report = _report(config, engine, reporter) if len(wanted) == len(STAGES) else ""
    finally:
        if own:
            engine.close()
    return RunSummary(run_dir, records, tuple(stage.name for stage in wanted if stage.name not in todo), report)


def _report(config: Config, engine: Engine, reporter: Reporter) -> str:
    """Write the report of a whole run, unless it has one that is up to date; returns where it lies, '' where there is none."""
    run_dir = config.output.run_dir
    if not config.report.enabled or not reports.can_write():
        return ""
    try:
        path = reports.path_of(run_dir)
        return path if reports.is_current(run_dir) else reports.write_report(run_dir, engine=_asked(run_dir, engine)).path
    except Exception as error:  # whatever it is, the tables are there
        reporter.note(f"report: not written: {one_line(error)}; dedup report {run_dir} tries again")
        return ""


def _asked(run_dir: str, engine: Engine) -> Engine:
    """The engine that answers the questions of a report: Spark takes seconds to plan what DuckDB answers at once, unless a run is large."""
    record = read_record(run_dir, "embeddings")
    is_large = record is not None and record.rows["metadata"] > _REPORTED_HERE
    return engine if is_large or isinstance(engine, LocalEngine) else LocalEngine()


def _carry_out(
    context: StageContext,
    wanted: Sequence[StageSpec],
    todo: set[str],
    expected: Mapping[str, StageRecord],
    sources: Sources,
    *,
    is_counted: bool,
) -> dict[str, StageRecord]:
    """Run the stages that are to be done; the records of all that are wanted."""
    config, run_dir = context.config, context.config.output.run_dir
    if "embed" in todo:
        # for whoever comes back to the index; how it was carried out, secrets of a cluster included, is nobody's business
        write_json(join(run_dir, CONFIG_FILE), {name: keys for name, keys in to_dict(config).items() if name != "engine"})
    records: dict[str, StageRecord] = {}
    for stage in wanted:
        if stage.name in todo:
            records[stage.name] = _run_stage(context, stage, expected[stage.name], sources)
            if stage.name == "embed" and not is_counted:  # now the images are
                check(config, {}, todo - {"embed"}, context.engine, context.reporter, again=True)
            continue
        record = read_record(run_dir, stage.home)
        if record is None:
            raise RunDirectoryError(f"{run_dir}: the record of stage {stage.name} vanished while the run went on")
        records[stage.name] = record
    return records


def make_engine(config: Config, reporter: Reporter | None = None) -> Engine:
    """The engine a configuration asks for.

    Raises
    ------
    MissingExtra
        If pyspark is not installed.
    ConfigError, StageError
        If Spark can't start, or can't give what is asked for.
    """
    if config.engine.name == "local":
        n_workers, text = bounded_workers(config)
        if text:
            (reporter or SilentReporter()).note(text)
        return LocalEngine(n_workers, config.engine.memory_limit)
    try:
        from dedup.engines.spark.engine import SparkEngine
    except ImportError as error:
        raise MissingExtra(error.name or "pyspark", "spark") from error
    chosen = config.engine
    return SparkEngine(
        join(config.output.run_dir, SCRATCH),
        master=chosen.master,
        options=chosen.spark,
        sends_rows={"auto": None, "true": True, "false": False}[chosen.sends_rows],
        gpus_per_task=chosen.gpus_per_task,
        note=(reporter or SilentReporter()).note,
    )


def _run_stage(context: StageContext, stage: StageSpec, expected: StageRecord, sources: Sources) -> StageRecord:
    run_dir = context.config.output.run_dir
    fs, path = filesystem(join(run_dir, stage.home, "_stage.json"))
    if fs.exists(path):
        fs.rm_file(path)  # from here on the stage is not done
    started = time.perf_counter()
    if stage.run is None:
        identity = digest([expected.config, expected.encoder, expected.output_version])
        result = embed.run(context, sources, identity, expected.encoder)
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


def package_version() -> str:
    """Version of this distribution, '0' in a tree that is not installed."""
    try:
        return version("webdedup")
    except PackageNotFoundError:
        return "0"


__all__ = ["STAGES", "STAGE_NAMES", "RunSummary", "StageSpec", "StageStatus", "make_engine", "package_version", "run", "status"]
