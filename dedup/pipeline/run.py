"""Running the stages in order."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dedup.config import Config
from dedup.config.key import STAGE_NAMES
from dedup.config.load import resolved, to_dict, updated
from dedup.config.rules import validate
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter
from dedup.encoders import n_gpus
from dedup.engines.local import LocalEngine
from dedup.engines.spark.shipment import SCRATCH, remove_folder
from dedup.engines.workers import check_main
from dedup.errors import ConfigError, MissingExtra
from dedup.machine import available_cores, free_memory, package_version
from dedup.pipeline.notebook import default_reporter
from dedup.pipeline.paths import config_for
from dedup.pipeline.plan import Inputs, Plan, make_plan
from dedup.pipeline.preflight import bounded_workers, check
from dedup.pipeline.stages import STAGES
from dedup.report import build as reports
from dedup.runs.directory import CONFIG_FILE, Run
from dedup.runs.lock import locked
from dedup.runs.record import StageRecord, digest, record_path, write_record
from dedup.stages.stage import Stage, StageContext
from dedup.storage.atomic import remove_half_written, write_json
from dedup.storage.input.samples import one_line
from dedup.storage.urls import absolute, filesystem, join

_REPORTED_HERE = 5_000_000  # samples up to which the driver alone gathers a report


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Parameters
    ----------
    run_dir : str
    records : dict
        Stage name to its record, in order.
    skipped : tuple of str
        Stages that were finished before.
    report : str
        Path of the report; empty if none was written.
    """

    run_dir: str
    records: dict[str, StageRecord] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    report: str = ""

    def figure(self, stage: str, name: str) -> JsonDict | int | float | str | None:
        """A figure of a stage's summary; None if there is none."""
        record = self.records.get(stage)
        return None if record is None else record.summary.get(name)

    def as_dict(self) -> JsonDict:
        """For JSON: each stage's rows, times, versions and figures, and whether it was finished before."""
        names = ("rows", "seconds", "finished", "output_version", "dedup_version", "summary")
        stages = {
            stage: {"is_done_before": stage in self.skipped} | {name: getattr(record, name) for name in names}
            for stage, record in self.records.items()
        }
        return {"run_dir": self.run_dir, "stages": stages}


def run(
    config: Config | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    stages: Sequence[str] = STAGE_NAMES,
    *,
    out: str | os.PathLike[str] = "",
    settings: Mapping[str, Any] | None = None,
    redo: bool = False,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> RunSummary:
    """Run stages in order; finished ones are skipped.

    Parameters
    ----------
    config : Config, path or sequence of paths
        A configuration; or what to read, as `dedup run PATH…` takes it: a folder of photos, tars, parquet files, embeddings, globs.
    stages : sequence of str
        Names from `STAGE_NAMES`; the stages before them must be finished.
    out : path
        The run directory; by default the configuration's, or of paths the first one's name with ``-dedup``, in the working directory.
    settings : mapping
        Keys of the configuration, ``{"search.min_similarity": 0.9}``, over those of `config`.
    redo : bool
        Redo from the first stage whose configuration or input changed, instead of refusing.
    engine : Engine
        By default the one that `config.engine` names.
    reporter : Reporter
        Told of progress; by default a line in a notebook, and nobody elsewhere.

    Raises
    ------
    ConfigError, RunDirectoryError
        Before any work, if the configuration can't work or the run directory holds another run.
    InputError
        If a path holds nothing to read, or a shard can't be reached.
    StageError
        If workers can't import the script that calls this, or it calls this without ``if __name__ == "__main__"``.
    """
    given = dict(settings or {}) | ({"output.run_dir": os.fspath(out)} if out else {})
    if not isinstance(config, Config):
        paths = [config] if isinstance(config, str | os.PathLike) else list(config)
        config, _ = config_for([os.fspath(path) for path in paths])
    if given:
        config = updated(config, given)
    if engine is None and config.engine.name == "local":
        check_main()
    reporter = reporter or default_reporter()
    unknown = sorted(set(stages) - set(STAGE_NAMES))
    if unknown:
        raise ConfigError(f"unknown stage '{unknown[0]}'; expected one of {', '.join(STAGE_NAMES)}")
    requested = [stage for stage in STAGES if stage.name in stages]
    validate(config, require_input=any(stage.reads_samples for stage in requested))
    config = resolved(config)
    if not config.output.run_dir:
        raise ConfigError("output.run_dir is not set; add output.run_dir=FOLDER")
    fs, path = filesystem(config.output.run_dir)
    if fs.isfile(path):
        raise ConfigError(f"output.run_dir={config.output.run_dir} is a file; expected a folder; choose another")
    if config.engine.name != "local":  # workers have other working directories
        config = replace(config, output=replace(config.output, run_dir=absolute(config.output.run_dir)))
        if config.base.run_dir:
            config = replace(config, base=replace(config.base, run_dir=absolute(config.base.run_dir)))
    return _finish(config, requested, engine, reporter, redo=redo)


def _finish(config: Config, stages: Sequence[Stage], given: Engine | None, reporter: Reporter, *, redo: bool) -> RunSummary:
    """Plan, check memory and disk, take the lock, plan again, and carry out the plan."""
    run_dir = config.output.run_dir
    inputs = {stage.name: stage.inputs(config) for stage in stages}
    plan = make_plan(config, stages, inputs, redo=redo)
    if "index" in plan.todo and config.index.codes != "none" and importlib.util.find_spec("faiss") is None:
        raise MissingExtra("faiss", "cpu")  # better now than after embedding
    engine = given or make_engine(config, reporter)
    sources = {url: source for read in inputs.values() for url, source in read.sources.items()}
    try:
        needs = check(config, sources, plan.due, engine, reporter)
        with locked(run_dir) if plan.todo else nullcontext():
            plan = make_plan(config, stages, inputs, redo=redo)  # another run may have held the lock until now
            if plan.todo:
                remove_half_written(run_dir)  # left behind by a killed attempt
                if engine.is_local:
                    remove_folder(join(run_dir, SCRATCH))  # left behind by a killed Spark attempt; a Spark engine clears it itself
            context = StageContext(config, engine, reporter)
            records = _carry_out(context, plan, inputs, is_counted=needs is None or needs.is_exact)
        report = update_report(config, engine, reporter) if len(stages) == len(STAGES) else ""
    finally:
        if given is None:
            engine.close()
    return RunSummary(run_dir, records, tuple(stage.name for stage in stages if stage.name not in plan.todo), report)


def update_report(config: Config, engine: Engine, reporter: Reporter) -> str:
    """Write the report of a run unless it is up to date; returns its path, '' if there is none."""
    run = Run(config.output.run_dir, config)
    if not config.report.enabled or not reports.can_write():
        return ""
    try:
        if reports.is_current(run.url):
            return reports.path_of(run.url)
        return reports.write_report(run.url, engine=_report_engine(run, engine)).path
    except Exception as error:  # the tables are complete without it
        reporter.note(f"report: not written: {one_line(error)}; dedup report {run} tries again")
        return ""


def _report_engine(run: Run, engine: Engine) -> Engine:
    """The engine for a report's queries: unless a run is large, DuckDB answers in less time than Spark takes to plan."""
    record = run.record("embed")
    is_large = record is not None and record.rows["metadata"] > _REPORTED_HERE
    return engine if is_large or engine.is_local else LocalEngine()


def _carry_out(context: StageContext, plan: Plan, inputs: Inputs, *, is_counted: bool) -> dict[str, StageRecord]:
    config, run = context.config, context.run
    if any(stage.reads_samples for stage in plan.due):
        # for later lookups; the engine's settings may hold secrets of a cluster
        write_json(run.path(CONFIG_FILE), {name: keys for name, keys in to_dict(config).items() if name != "engine"})
    records: dict[str, StageRecord] = {}
    for stage in plan.stages:
        if stage.name not in plan.todo:
            records[stage.name] = run.finished(stage.name)
            continue
        records[stage.name] = _do_stage(replace(context, inputs=inputs[stage.name]), stage, plan.expected[stage.name])
        if stage.reads_samples and not is_counted:  # now they are
            check(config, {}, [later for later in plan.due if not later.reads_samples], context.engine, context.reporter, again=True)
    return records


def _do_stage(context: StageContext, stage: Stage, expected: StageRecord) -> StageRecord:
    fs, path = filesystem(record_path(context.run.url, stage.name))
    if fs.exists(path):
        fs.rm_file(path)  # from here on the stage counts as not done
    started = time.perf_counter()
    identity = digest([expected.config, expected.encoder, expected.output_version])
    result = stage.run(replace(context, identity=identity))
    record = replace(
        expected,
        rows=result.rows,
        seconds=round(time.perf_counter() - started, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        dedup_version=package_version(),
        summary=result.summary,
    )
    write_record(context.run.url, record)
    return record


def make_engine(config: Config, reporter: Reporter | None = None, count_gpus: Callable[[], int] | None = None) -> Engine:
    """The engine that a configuration names.

    `count_gpus`: processes that tasks which need a GPU alone get on this machine, if they do not run the configured encoder.
    Raises MissingExtra if pyspark is not installed.
    Raises ConfigError, StageError if Spark can't start, or lacks the resources configured.
    """
    reporter = reporter or SilentReporter()
    if config.engine.name == "local" and count_gpus is not None:
        return LocalEngine(config.engine.workers, config.engine.memory_limit, count_gpus)
    if config.engine.name == "local":
        n_workers, reason = bounded_workers(config, available_cores(), free_memory())
        if reason:
            reporter.note(reason)
        return LocalEngine(n_workers, config.engine.memory_limit, partial(n_gpus, config.encoder, config.engine.device))
    try:
        from dedup.engines.spark.engine import SparkEngine
    except ImportError as error:
        raise MissingExtra(error.name or "pyspark", "spark") from error
    settings = config.engine
    return SparkEngine(
        join(config.output.run_dir, SCRATCH),
        master=settings.master,
        options=settings.spark,
        sends_rows={"auto": None, "true": True, "false": False}[settings.sends_rows],
        gpus_per_task=settings.gpus_per_task,
        note=reporter.note,
    )
