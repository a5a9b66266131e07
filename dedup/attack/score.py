"""Scores of generated images: which prompts are memorised, and which training images are reproduced.

After Carlini et al. (2023): a prompt is memorised if at least 10 of its generations show one picture, that is, form a
clique in the graph of pairs within a distance; an image is extracted if a generation is within δ = 0.15 of it; it is k-eidetic if at
most k training samples are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from dedup.attack.generations import Generations, find_generations
from dedup.attack.one_target import LABELS, Target, TargetScorer
from dedup.attack.parts import begin, identity_of, missing_parts, part_url, refuse_other, rows_by_number
from dedup.attack.prompts import read_prompts
from dedup.attack.target_list import TargetList, read_targets
from dedup.attack.training import MASKS_SQL, TrainingRun
from dedup.config import ExtractionConfig
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, Table, reported
from dedup.engines.local import engine_or_own
from dedup.numerics.search.gpu import choose_device
from dedup.runs.directory import Run
from dedup.schemas import MEMBERS, SCORES, TEMPLATE_PAIRS
from dedup.storage.atomic import write_bytes, write_json
from dedup.storage.tables import FileWriter, clear, dataset, rows_between
from dedup.storage.urls import join

# the distinct images of each target's group, with how many samples have them
MEMBERS_SQL = """
SELECT targets.number AS number, images.shard AS shard, images.key AS key, images.byte_offset AS byte_offset,
       images.n_bytes AS n_bytes, images.n_samples AS n_samples
FROM targets
JOIN (
  SELECT component_id, shard, key, byte_offset, n_bytes, n_samples
  FROM (
    SELECT groups.component_id AS component_id, metadata.shard AS shard, metadata.key AS key, metadata.byte_offset AS byte_offset,
           metadata.n_bytes AS n_bytes,
           count(*) OVER (PARTITION BY groups.component_id, metadata.sha256) AS n_samples,
           row_number() OVER (PARTITION BY groups.component_id, metadata.sha256 ORDER BY metadata.sample_id) AS place
    FROM groups JOIN metadata ON groups.sample_id = metadata.sample_id
  ) AS ranked
  WHERE place = 1
) AS images ON targets.component_id = images.component_id
ORDER BY targets.number, images.shard, images.key
"""

_RANKED = ["target_id", "clique_size", "mean_distance", "is_extracted", "tiled_l2", "eidetic_k", "duplication_count", "is_memorized"]
_CLOSEST = 5  # memorised targets that are printed


@dataclass(frozen=True)
class ScoreSummary:
    """Counts over all targets."""

    out: str
    n_targets: int
    n_memorized: int
    n_extracted: int
    by_status: dict[str, int] = field(default_factory=dict)  # targets of each `status`
    by_label: dict[str, int] = field(default_factory=dict)  # targets of each `label`
    notes: list[str] = field(default_factory=list)
    # the first lines of `_memorized.jsonl`: memorised targets by the mean distance inside their clique, least first
    closest: list[JsonDict] = field(default_factory=list)


@dataclass(frozen=True)
class ScoreTask:
    """Consecutive targets of the list."""

    number: int
    first: int
    rows: pa.Table
    generations: Generations
    # of the run that the targets come from: the images of their groups, and pairs of their templates; None for another list
    members: Table | None
    templates: Table | None
    run_dir: str  # the run that embeds and looks up generations; empty if none can
    options: ExtractionConfig
    device: str
    output: Table


def score_generations(
    targets: str,
    generations: str,
    out: str,
    *,
    prompts: str = "",
    options: ExtractionConfig | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> ScoreSummary:
    """Find which targets a model has memorised, and which training images it reproduces.

    Parameters
    ----------
    targets : str
        A run's `targets/` folder, through which its tars and groups are found, or parquet with the same columns.
    generations : str
        Folder with `TARGET_ID/*.png`, or with webdataset tars whose json has a `target_id`. With `prompts` also folders named by the prompt
        (its first 200 characters, / as _) or its number, and files `img_NUMBER_SEED.jpg`, as published tools write them.
    out : str
        Folder for the table `dedup.schemas.SCORES`, a row per target in the order of the list. A run that was stopped continues
        with the missing parts.
    prompts : str
        Folder written by `write_prompts`, or its prompts.parquet.
    options : ExtractionConfig
    device : str
        Where pairwise distances are computed: cpu or cuda; auto = cuda where torch finds a GPU.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    InputError
        If targets or generations can't be read.
    RunDirectoryError
        If `out` holds scores of other targets, generations or options.

    Notes
    -----
    After Carlini et al. (2023), "Extracting Training Data from Diffusion Models", sections 4 and 5.
    """
    target_list, options, reporter = read_targets(targets), options or ExtractionConfig(), reporter or SilentReporter()
    with engine_or_own(engine) as engine:
        return _score(target_list, generations, read_prompts(prompts) if prompts else None, out, options, device, engine, reporter)


def _score(
    targets: TargetList,
    generations: str,
    prompts: pa.Table | None,
    out: str,
    options: ExtractionConfig,
    device: str,
    engine: Engine,
    reporter: Reporter,
) -> ScoreSummary:
    ids, output = targets.rows["target_id"].to_pylist(), Table(out, SCORES)
    size = options.targets_per_part
    why_not = TrainingRun(targets.run_dir, device).why_not() if targets.run_dir else ""
    run_dir = "" if why_not else targets.run_dir
    made_of = {
        "targets": ids,
        "generations": generations,
        "options": list(vars(options).items()),
        "prompts": None if prompts is None else prompts.to_pydict(),
        "run": [targets.run_dir, run_dir],
    }
    identity = identity_of(output, made_of)
    refuse_other(output, identity)
    located, notes = find_generations(generations, ids, join(out, "_generations"), engine, prompts)
    begin(output, identity)
    notes += targets.notes()
    members = _write_members(targets, out, engine)
    if members is None:
        notes.append("the list of targets is not that of a run, so groups are not known: eidetic_k is left empty")
    templates = _write_templates(targets, out, engine)
    if why_not:
        notes.append(f"generations are neither looked up nor embedded, so similarity and the label retrieved are not given: {why_not}")
    tasks = [
        ScoreTask(
            number,
            start,
            rows_between(targets.rows, start, start + size),
            located,
            members,
            templates,
            run_dir,
            options,
            device,
            output,
        )
        for number, start in enumerate(range(0, len(ids), size))
    ]
    missing = missing_parts(tasks, output)
    sizes = [len(task.rows) for task in missing]
    n_done = len(ids) - sum(sizes)
    if n_done:
        notes.append(f"{n_done:,} of {len(ids):,} targets were scored before")
    for note in notes:
        reporter.note(f"extraction: {note}")
    results = engine.map_partitions(score_targets, missing, uses_gpu=device != "cpu")
    for _ in reported(results, sizes, reporter, "score", "targets", n_done=n_done):
        pass
    return _summarise(out, output, notes)


def _write_members(target_list: TargetList, out: str, engine: Engine) -> Table | None:
    if not target_list.run_dir:
        return None
    run, members = Run(target_list.run_dir), Table(join(out, "_members"), MEMBERS)
    targets = pa.table({"number": pa.array(range(len(target_list.rows)), pa.int64()), "component_id": target_list.rows["component_id"]})
    clear(members)
    engine.sql_to(MEMBERS_SQL, {"targets": targets, "groups": run.table("groups"), "metadata": run.table("metadata")}, members)
    return members


def _write_templates(target_list: TargetList, out: str, engine: Engine) -> Table | None:
    """The pairs that say where the training images of a target's template agree; None if the run did not look for templates."""
    run = Run(target_list.run_dir) if target_list.run_dir else None
    if run is None or run.record("confirm") is None:
        return None
    templates = Table(join(out, "_templates"), TEMPLATE_PAIRS)
    numbered = {"number": pa.array(range(len(target_list.rows)), pa.int64())}
    numbered |= {name: target_list.rows[name] for name in ("shard", "key", "byte_offset")}
    clear(templates)
    engine.sql_to(MASKS_SQL, {"targets": pa.table(numbered), **{name: run.table(name) for name in ("metadata", "refused")}}, templates)
    return templates


def score_targets(task: ScoreTask) -> int:
    """Score the targets of one part and write its file; returns the number of targets."""
    n = len(task.rows)
    generations = task.generations.of_targets(task.first, task.rows["target_id"].to_pylist())
    members, templates = (rows_by_number(table, task.first, n) for table in (task.members, task.templates))
    training = TrainingRun(task.run_dir, task.device) if task.run_dir else None
    scorer = TargetScorer(task.options, choose_device(task.device), training)
    with FileWriter(part_url(task.output, task.number), task.output.schema) as writer:
        for target in map(Target, task.rows.to_pylist(), generations, members, templates):
            writer.write(pa.Table.from_pylist([scorer.score(target)], schema=task.output.schema))
    return n


def _summarise(out: str, output: Table, notes: list[str]) -> ScoreSummary:
    scores = dataset(output).to_table(columns=["is_memorized", "is_extracted", "status", "label"])
    statuses, counts = np.unique(np.array(scores["status"].to_pylist(), dtype=str), return_counts=True)
    ranked = _rank(out, output)
    by_status = {str(status): int(count) for status, count in zip(statuses, counts, strict=True)}
    labels = scores["label"].to_pylist()
    by_label = {label: labels.count(label) for label in LABELS}
    n_extracted = sum(value is True for value in scores["is_extracted"].to_pylist())
    summary = ScoreSummary(out, len(scores), len(ranked), n_extracted, by_status, by_label, notes, ranked[:_CLOSEST])
    write_json(join(out, "_summary.json"), {k: value for k, value in vars(summary).items() if k not in ("out", "notes", "closest")})
    return summary


def _rank(out: str, output: Table) -> list[JsonDict]:
    """Memorised targets as the paper ranks them, written as JSON lines."""
    rows = dataset(output).to_table(columns=_RANKED, filter=ds.field("is_memorized")).drop_columns(["is_memorized"])
    ranked = rows.sort_by([("mean_distance", "ascending"), ("target_id", "ascending")]).to_pylist()
    ranked = [{"rank": number, **row} for number, row in enumerate(ranked, 1)]
    write_bytes(join(out, "_memorized.jsonl"), b"".join(json.dumps(row).encode() + b"\n" for row in ranked))
    return ranked
