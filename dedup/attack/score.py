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

from dedup.attack.generations import Generation, Generations, find_generations, parquet_at, read_pixels, stack, stretched
from dedup.config import ExtractionConfig
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, Table, reported
from dedup.engines.local import engine_or_own
from dedup.errors import InputError, RunDirectoryError, SampleError
from dedup.numerics.arraytypes import Ids, Pixels, Sims
from dedup.numerics.graph.cliques import largest_clique
from dedup.numerics.pixels import TILES, l2_distances, pairwise_tiled_distances, tiled_distances
from dedup.numerics.search.gpu import Device, choose_device
from dedup.runs.directory import Run
from dedup.runs.record import digest
from dedup.schemas import MEMBERS, SCORES, TARGETS
from dedup.storage.atomic import write_bytes, write_json
from dedup.storage.input.samples import one_line
from dedup.storage.tables import FileWriter, clear, dataset
from dedup.storage.urls import filesystem, join, read_json

_COLUMNS = ("target_id", "component_id", "duplication_count", "shard", "key", "byte_offset", "n_bytes")

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

_NO_MATCH: JsonDict = {"generation": None, "l2": None, "tiled_l2": None, "is_extracted": None, "eidetic_k": None}
_RANKED = ["target_id", "clique_size", "mean_distance", "is_extracted", "tiled_l2", "eidetic_k", "duplication_count", "is_memorized"]
_CLOSEST = 5  # memorised targets that are printed


@dataclass(frozen=True)
class TargetList:
    """Targets in the order of the list."""

    run_dir: str  # the run they come from; empty for other lists, whose groups are not known
    rows: pa.Table  # `target_id, component_id, duplication_count, shard, key, byte_offset, n_bytes`, null where the list lacks it
    n_repeated: int  # rows left out because an earlier one has their target_id


@dataclass(frozen=True)
class ScoreSummary:
    """Counts over all targets."""

    out: str
    n_targets: int
    n_memorized: int
    n_extracted: int
    by_status: dict[str, int] = field(default_factory=dict)  # targets of each `status`
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
    members: Table | None
    options: ExtractionConfig
    device: str
    output: Table


def score_generations(
    targets: str,
    generations: str,
    out: str,
    *,
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
        Folder with `TARGET_ID/*.png`, or with webdataset tars whose json has a `target_id`.
    out : str
        Folder for the table `dedup.schemas.SCORES`, a row per target in the order of the list. A run that was stopped continues
        with the missing parts.
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
        return _score(target_list, generations, out, options, device, engine, reporter)


def read_targets(url: str) -> TargetList:
    """Read a run's `targets/` folder, or parquet with the same columns."""
    url, expected = url.rstrip("/"), "expected a run's targets/ folder, or parquet like it"
    try:
        table = parquet_at(url)
        if "target_id" not in table.schema.names:
            raise InputError(f"{url} has no {'column target_id' if table.files else 'parquet files'}; {expected}")
        present = table.to_table(columns=[name for name in _COLUMNS if name in table.schema.names])
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; {expected}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{url} can't be read as targets: {one_line(error)}; {expected}") from error
    absent = {name: pa.nulls(len(present)) for name in _COLUMNS if name not in present.schema.names}
    schema = pa.schema([(name, TARGETS.field(name).type) for name in _COLUMNS])
    rows = pa.table(dict(zip(present.column_names, present.columns, strict=True)) | absent).select(_COLUMNS).cast(schema)
    ids = np.array(rows["target_id"].to_pylist(), dtype=object)
    _, first = np.unique(ids.astype(str), return_index=True)
    run_dir = url.rpartition("/")[0] if url.rpartition("/")[2] == "targets" else ""
    is_run = bool(run_dir) and filesystem(run_dir)[0].exists(join(filesystem(run_dir)[1], "groups"))
    return TargetList(run_dir if is_run else "", rows.take(np.sort(first)), len(rows) - len(first))


def _score(
    targets: TargetList, generations: str, out: str, options: ExtractionConfig, device: str, engine: Engine, reporter: Reporter
) -> ScoreSummary:
    ids, output = targets.rows["target_id"].to_pylist(), Table(out, SCORES)
    size = options.targets_per_part
    located, notes = find_generations(generations, ids, join(out, "_generations"), engine)
    if targets.n_repeated:
        notes.append(f"{targets.n_repeated:,} rows of the list repeat a target_id; the first of each is used")
    members = _write_members(targets, out, engine)
    if members is None:
        notes.append("the list of targets is not that of a run, so groups are not known: eidetic_k is left empty")
    _begin(out, output, {"targets": digest(ids), "generations": generations, "options": vars(options)})
    tasks = [
        ScoreTask(number, start, targets.rows.slice(start, size), located, members, options, device, output)
        for number, start in enumerate(range(0, len(ids), size))
    ]
    missing = [task for task in tasks if not filesystem(out)[0].exists(filesystem(part_url(output, task.number))[1])]
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


def _begin(out: str, output: Table, identity: JsonDict) -> None:
    """Record what is scored, or stop if the folder holds scores of something else."""
    path = join(out, "_score.json")
    recorded = read_json(path)
    if recorded is not None and recorded != identity:
        changed = [name for name in identity if recorded.get(name) != identity[name]]
        raise RunDirectoryError(f"{out} holds scores of other {' and '.join(changed)}; choose another --out, or delete that folder")
    if recorded is None:
        clear(output)
        write_json(path, identity)


def _write_members(target_list: TargetList, out: str, engine: Engine) -> Table | None:
    if not target_list.run_dir:
        return None
    run, members = Run(target_list.run_dir), Table(join(out, "_members"), MEMBERS)
    targets = pa.table({"number": pa.array(range(len(target_list.rows)), pa.int64()), "component_id": target_list.rows["component_id"]})
    clear(members)
    engine.sql_to(MEMBERS_SQL, {"targets": targets, "groups": run.table("groups"), "metadata": run.table("metadata")}, members)
    return members


def score_targets(task: ScoreTask) -> int:
    """Score the targets of one part and write its file; returns the number of targets."""
    generations = task.generations.of_targets(task.first, task.rows["target_id"].to_pylist())
    members: list[list[JsonDict]] = [[] for _ in generations]
    if task.members is not None:
        number = ds.field("number")
        rows = dataset(task.members).to_table(filter=(number >= task.first) & (number < task.first + len(generations)))
        for row in rows.to_pylist():
            members[row["number"] - task.first].append(row)
    device = choose_device(task.device)
    with FileWriter(part_url(task.output, task.number), task.output.schema) as writer:
        for row, images, group in zip(task.rows.to_pylist(), generations, members, strict=True):
            scored = _score_one(row, images, group, task.options, device)
            writer.write(pa.Table.from_pylist([scored], schema=task.output.schema))
    return len(generations)


def part_url(output: Table, number: int) -> str:
    """The file of a part; its presence means that the part is done."""
    return join(output.path, f"part-{number:05d}.parquet")


def _score_one(
    row: JsonDict, generations: list[Generation], members: list[JsonDict], options: ExtractionConfig, device: Device | None
) -> JsonDict:
    read = stack(generations, options.max_side)
    images, n = read.images, len(read.names)
    scored: JsonDict = {name: row[name] for name in ("target_id", "component_id", "duplication_count")} | _NO_MATCH
    scored |= {"n_generations": n, "n_rejected": read.n_rejected, "n_resized": read.n_resized, "status": "ok", "detail": None}
    clique = np.arange(n)
    scored |= {"clique_size": n, "clique_is_exact": True, "mean_distance": None, "is_memorized": False}
    if n < 2:
        scored |= {"status": "few_generations" if generations else "no_generations", "detail": f"{n} of {len(generations)} could be read"}
    elif min(images.shape[1:3]) < TILES:
        raise InputError(f"{row['target_id']}: images of {images.shape[2]} x {images.shape[1]} pixels; expected at least {TILES} to a side")
    else:
        distances = pairwise_tiled_distances(images, device=device)
        largest = largest_clique(distances <= np.float32(options.max_tile_distance))
        clique = largest.members
        scored |= {"clique_size": len(clique), "clique_is_exact": largest.is_exact, "mean_distance": _mean_distance(distances, clique)}
        scored["is_memorized"] = len(clique) >= options.min_clique
    if not n:
        return scored
    candidates = clique if scored["is_memorized"] else np.arange(n)
    try:
        target = _training_image(row, images.shape[1], images.shape[2])
    except (InputError, SampleError) as error:
        status = scored["status"] if scored["status"] != "ok" else "no_training_image"
        return scored | {"status": status, "detail": one_line(error)}
    return scored | _match(images, read.names, candidates, target, members, options.max_distance)


def _mean_distance(distances: Sims, clique: Ids) -> float | None:
    if len(clique) < 2:
        return None
    inside = distances[np.ix_(clique, clique)].astype(np.float64)
    return float(inside.sum() / (len(clique) * (len(clique) - 1)))


def _training_image(row: JsonDict, height: int, width: int) -> Pixels:
    if row["shard"] is None or row["key"] is None or not row["n_bytes"]:
        raise InputError("the list of targets does not say where the training image is (shard, key, byte_offset, n_bytes)")
    return stretched(read_pixels(row["shard"], row["key"], row["byte_offset"], row["n_bytes"]), height, width)


def _match(images: Pixels, names: list[str], candidates: Ids, target: Pixels, members: list[JsonDict], max_distance: float) -> JsonDict:
    """The candidate nearest to the training image, and the samples of the group that are within δ of it."""
    tiles = min(TILES, *images.shape[1:3])
    tiled = tiled_distances(images[candidates], target, tiles)
    best = int(candidates[np.argmin(tiled)])
    nearest = images[best]
    n_near, trouble = 0, ""
    for member in members:
        try:
            pixels = stretched(read_pixels(member["shard"], member["key"], member["byte_offset"], member["n_bytes"]), *nearest.shape[:2])
        except (InputError, SampleError) as error:
            trouble = one_line(error)
            continue
        n_near += member["n_samples"] * bool(tiled_distances(pixels[None], nearest, tiles)[0] <= max_distance)
    return {
        "generation": names[best],
        "l2": float(l2_distances(nearest[None], target)[0]),
        "tiled_l2": float(tiled.min()),
        "is_extracted": bool(tiled.min() <= max_distance),
        "eidetic_k": n_near if members else None,
        "detail": f"not all of the group could be read: {trouble}" if trouble else None,
    }


def _summarise(out: str, output: Table, notes: list[str]) -> ScoreSummary:
    scores = dataset(output).to_table(columns=["is_memorized", "is_extracted", "status"])
    statuses, counts = np.unique(np.array(scores["status"].to_pylist(), dtype=str), return_counts=True)
    ranked = _rank(out, output)
    by_status = {str(status): int(count) for status, count in zip(statuses, counts, strict=True)}
    n_extracted = sum(value is True for value in scores["is_extracted"].to_pylist())
    summary = ScoreSummary(out, len(scores), len(ranked), n_extracted, by_status, notes, ranked[:_CLOSEST])
    write_json(join(out, "_summary.json"), {k: value for k, value in vars(summary).items() if k not in ("out", "notes", "closest")})
    return summary


def _rank(out: str, output: Table) -> list[JsonDict]:
    """Memorised targets as the paper ranks them, written as JSON lines."""
    rows = dataset(output).to_table(columns=_RANKED, filter=ds.field("is_memorized")).drop_columns(["is_memorized"])
    ranked = rows.sort_by([("mean_distance", "ascending"), ("target_id", "ascending")]).to_pylist()
    ranked = [{"rank": number, **row} for number, row in enumerate(ranked, 1)]
    write_bytes(join(out, "_memorized.jsonl"), b"".join(json.dumps(row).encode() + b"\n" for row in ranked))
    return ranked
