"""What a run is to do: which stages are finished, which must be done, and what prevents it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dedup.config import Config
from dedup.config.key import STAGE_NAMES
from dedup.config.load import resolved
from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.pipeline.base import base_records
from dedup.pipeline.stages import STAGES, with_those_before
from dedup.runs.directory import Run
from dedup.runs.record import Difference, StageRecord, read_record
from dedup.stages.stage import Stage, StageInputs

_SAME_OR_REDO: Final = "give the same, choose another output.run_dir, or run: dedup run … --redo"

Inputs = Mapping[str, StageInputs]  # of the requested stages, by name


@dataclass(frozen=True)
class Plan:
    """What a run will do; making a plan changes nothing."""

    stages: tuple[Stage, ...]  # requested, in order
    # of each requested stage the record it must get, without rows and times; of the stages before them the record they have
    expected: Mapping[str, StageRecord]
    todo: frozenset[str]  # names of the requested stages that are not done

    @property
    def due(self) -> list[Stage]:
        """The requested stages that are not done, in order."""
        return [stage for stage in self.stages if stage.name in self.todo]


def make_plan(config: Config, stages: Sequence[Stage], inputs: Inputs, *, redo: bool) -> Plan:
    """Compare the requested stages with the finished ones.

    Raises InputError if a stage's input is unavailable at the moment; what was made from it stays valid.
    Raises RunDirectoryError if a stage that is needed but not requested is missing, stale or was made with another configuration, or if a
    requested one is finished and its result would change, unless `redo`.
    """
    finished = {stage.name: read_record(config.output.run_dir, stage.name) for stage in stages}
    expected = _expected_records(config, stages, inputs, finished)
    return Plan(tuple(stages), expected, _stages_to_do(config, stages, inputs, expected, finished, redo=redo))


def _expected_records(
    config: Config, stages: Sequence[Stage], inputs: Inputs, finished: Mapping[str, StageRecord | None]
) -> dict[str, StageRecord]:
    names = {stage.name for stage in stages}
    needed = with_those_before(names) - names
    base = base_records(config, next((read.encoder for read in inputs.values() if read.encoder), {}))
    records: dict[str, StageRecord] = {}
    for stage in STAGES:
        of_base = {"base": base[stage.name].digest} if stage.name in base and stage.reads_base(config) else {}
        if stage.name in needed:
            records[stage.name] = _reused_record(config, stage, records)
            # a finished run no longer needs its base
            if base and records[stage.name].inputs.get("base") != of_base.get("base"):
                raise RunDirectoryError(
                    f"{config.output.run_dir}: stage '{stage.name}' was made with another base.run_dir, or from an earlier state of it; "
                    "give the same, or run: dedup run … --redo"
                )
        elif stage.name in names:
            read = inputs[stage.name]
            made_from: JsonDict = {name: records[name].digest for name in stage.reads} | read.identity | of_base
            expected = StageRecord(stage.name, stage.output_version, stage.picked(config), made_from, read.encoder)
            record = finished[stage.name]
            # an address in another spelling changes nothing of what follows
            records[stage.name] = expected if record is None or record.differences(expected) else record
    return records


def _reused_record(config: Config, stage: Stage, records: Mapping[str, StageRecord]) -> StageRecord:
    """The record of a stage whose result is used without redoing it."""
    url = config.output.run_dir
    record = Run(url).record(stage.name)
    if record is None:
        raise RunDirectoryError(f"{url} has no finished stage '{stage.name}'; run: dedup run --only {stage.name} output.run_dir={url} …")
    for name in stage.reads:
        if record.inputs.get(name) != records[name].digest:
            raise RunDirectoryError(f"{url}: stage '{stage.name}' was made from an earlier '{name}'; run: dedup run … --redo")
    changes = stage.changes(record, config)
    if stage.told_again is not None:
        changes = [change for change in changes if change.key in stage.told_again]
    if changes:
        raise RunDirectoryError(f"{url}: stage '{stage.name}' was made with another configuration: {_listed(changes)}; {_SAME_OR_REDO}")
    return record


def _stages_to_do(
    config: Config,
    stages: Sequence[Stage],
    inputs: Inputs,
    expected: Mapping[str, StageRecord],
    finished: Mapping[str, StageRecord | None],
    *,
    redo: bool,
) -> frozenset[str]:
    url, todo = config.output.run_dir, set[str]()
    for stage in stages:
        record = finished[stage.name]
        if stage.refuse is not None:
            stage.refuse(config, inputs[stage.name], record, redo=redo)
        if record is None or any(name in todo for name in stage.reads):
            todo.add(stage.name)
            continue
        differences = record.differences(expected[stage.name])
        if record.summary.get("n_unreachable"):
            # missing shards may be there now, so the input may differ; encoder and settings may not
            todo.add(stage.name)
            differences = [difference for difference in differences if difference.key != "input"]
        if [difference.key for difference in differences] == ["input"] and stage.takes_changes(config):
            todo.add(stage.name)
            continue
        if differences and not redo:
            settings = [difference for difference in differences if difference.key not in STAGE_NAMES]
            reason = f"made from an earlier '{differences[0].key}'"
            if settings:
                reason = _in_words(settings, stage.changed_inputs(config, inputs[stage.name]))
            raise RunDirectoryError(f"{url}: stage '{stage.name}' was {reason}; {_SAME_OR_REDO}")
        if differences:
            todo.add(stage.name)
    return frozenset(todo)


def _in_words(differences: Sequence[Difference], changed_inputs: str) -> str:
    """Differences, that of the input told by its files rather than by a digest."""
    others = [difference for difference in differences if difference.key != "input" or not changed_inputs]
    parts = [f"made with another configuration: {_listed(others)}"] if others else []
    return "; and ".join([*parts, *([f"made from another input: {changed_inputs}"] if len(others) < len(differences) else [])])


def _listed(differences: Sequence[Difference]) -> str:
    return "; ".join(map(str, differences))


_INPUT_FIGURES: Final = frozenset(
    {"n_keys", "n_images", "n_without_image", "n_late", "n_broken_off", "n_unreadable", "passed_over", "texts"}
)


def _input_figures(summary: JsonDict) -> JsonDict:
    return {name: summary[name] for name in sorted(_INPUT_FIGURES)} if summary.keys() >= _INPUT_FIGURES else {}


@dataclass(frozen=True)
class StageStatus:
    """A line of `dedup status`."""

    name: str
    state: str  # done, missing, or stale: a stage before it was redone since or is missing
    rows: dict[str, int]
    seconds: float
    finished: str
    changes: list[str]  # differences from the configuration given
    input: JsonDict = field(default_factory=dict)  # of `embed`: what it found and passed over, of its summary in its record


def status(run_dir: str, config: Config | None = None) -> list[StageStatus]:
    """The state of every stage of a run.

    `config`: configuration to compare with; None = compare nothing.
    Raises RunDirectoryError if the directory holds no run.
    """
    run = Run.open(run_dir)
    resolved_config = None if config is None else resolved(config)
    lines = []
    for stage in STAGES:
        record = run.record(stage.name)
        if record is None:
            lines.append(StageStatus(stage.name, "missing", {}, 0.0, "", []))
            continue
        state = "stale" if run.earlier_inputs(stage.name) else "done"
        changes = [] if resolved_config is None else [str(change) for change in stage.changes(record, resolved_config)]
        lines.append(StageStatus(stage.name, state, record.rows, record.seconds, record.finished, changes, _input_figures(record.summary)))
    return lines
