"""Cleaned shards of what a run keeps, from paths to results: planned, checked for room, resumed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from dedup.contracts import Engine, JsonDict, Progress, Reporter
from dedup.engines.local import engine_or_own
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.stages.context import SilentReporter
from dedup.storage.atomic import write_json
from dedup.storage.kept import KeepListResult, kept_table, named_table
from dedup.storage.locks import locked
from dedup.storage.provenance import digest, read_record
from dedup.storage.rewrite import RewriteTask, Written, clear_unfinished, finished, rewrite_shards
from dedup.storage.rewriteplan import Cleaned, plan_shards
from dedup.storage.urls import filesystem, is_local, join, read_json

_PLAN = "_rewrite.json"
_TASKS_PER_WORKER = 4
_LEAST_STRETCH = 4  # cleaned shards of a task, as long as every worker has one
_PER_SAMPLE = 4_096  # bytes of headers, text and padding in a tar, where nothing more is known
_ERRORS_SHOWN = 20


@dataclass(frozen=True)
class RewriteSummary:
    """What rewriting did, or would do.

    Parameters
    ----------
    out : str
    n_shards, n_samples : int
        Cleaned shards and the samples in them.
    image_bytes : int
        Of the samples' images, encoded.
    n_bytes : int
        Of the tars; an estimate before they are written.
    n_done_before : int
        Shards that an earlier run had written.
    errors : tuple of str
        Why shards were not written, at most 20 of them.
    n_failed : int
        Shards that were not.
    keep_list : KeepListResult or None
    is_dry_run : bool
    """

    out: str
    n_shards: int
    n_samples: int
    image_bytes: int
    n_bytes: int
    n_done_before: int = 0
    errors: tuple[str, ...] = field(default_factory=tuple)
    n_failed: int = 0
    keep_list: KeepListResult | None = None
    is_dry_run: bool = False


def rewrite(
    run_dir: str,
    out: str,
    *,
    per_shard: int = 10_000,
    keep_list: str = "",
    dry_run: bool = False,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> RewriteSummary:
    """Write new shards that hold the kept samples of a run, all their members byte for byte.

    Parameters
    ----------
    run_dir : str
        A finished run over tars or a folder of images, which must still be where they were.
    out : str
        Folder for ``NNNNN.tar``, and ``NNNNN.parquet`` and ``NNNNN_stats.json`` as img2dataset has them; a path or any fsspec URL.
    per_shard : int
        Samples in each shard; 0 = a cleaned shard for each shard that keeps any. A shard ends early where a key would repeat.
    keep_list : str
        Keep what this list names instead of the manifest: see `dedup.storage.names.read_keep_list`. Excluded samples stay out.
    dry_run : bool
        Say what would be written.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Returns
    -------
    RewriteSummary

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or `out` holds shards of another manifest or other options.
    InputError
        If the disk has no room, or the keep list can't be used.

    Notes
    -----
    Samples keep their order. A shard appears under its name when it is whole; a run that was stopped goes on with the missing ones.
    Shards whose samples can't be read any more are left out and named in `errors`.
    """
    if per_shard < 0:
        raise ConfigError(f"per_shard={per_shard} is negative; expected a number of samples, or 0 for a shard each")
    reporter, kept, found = reporter or SilentReporter(), kept_table(run_dir), None  # a run that is none leaves no folder behind
    with engine_or_own(engine) as engine, nullcontext() if dry_run else locked(out), engine.scratch() as scratch:
        if keep_list:
            kept, found = named_table(run_dir, keep_list, join(scratch, "kept") if dry_run else join(out, "_kept"), engine)
        shards = list(plan_shards(kept, per_shard))
        summary = _estimate(out, shards)
        if dry_run:
            return replace(summary, keep_list=found, is_dry_run=True)
        _begin(run_dir, out, per_shard, shards)
        summary = _carry_out(RewriteTask(kept, tuple(shards), out), summary, engine, reporter)
        return replace(summary, keep_list=found)


def _begin(run_dir: str, out: str, per_shard: int, shards: Sequence[Cleaned]) -> None:
    """Note what is written into the folder, unless that is what was begun there."""
    record = read_record(run_dir, "manifest")
    plan: JsonDict = {
        "run": run_dir,
        "manifest": "" if record is None else record.digest,
        "per_shard": per_shard,
        "shards": digest([shard.as_json() for shard in shards]),
    }
    begun = read_json(join(out, _PLAN))
    if begun is None:
        fs, path = filesystem(out)
        if fs.exists(path) and any(str(name).endswith(".tar") for name in fs.ls(path, detail=False)):
            raise RunDirectoryError(f"{out} holds tars that were not written here; name an empty folder")
    elif changed := sorted(name for name in plan if name != "run" and begun.get(name) != plan[name]):
        raise RunDirectoryError(f"{out} was begun with another {', '.join(changed)}; name another folder, or delete this one")
    clear_unfinished(out)
    write_json(join(out, _PLAN), plan)


def _carry_out(work: RewriteTask, estimate: RewriteSummary, engine: Engine, reporter: Reporter) -> RewriteSummary:
    """Write what is missing, in parallel."""
    done = [written for shard in work.shards if (written := finished(work.out, shard)) is not None]
    known = {written.number for written in done}
    missing = [shard for shard in work.shards if shard.number not in known]
    left = estimate.n_bytes - sum(written.n_bytes for written in done)
    if missing and is_local(work.out) and (free := shutil.disk_usage(filesystem(work.out)[1]).free) < left:
        raise InputError(f"{work.out} has {free:,} bytes free, the cleaned shards need some {left:,}; make room or name another folder")
    tasks = [replace(work, shards=shards) for shards in _stretches(missing, _TASKS_PER_WORKER * engine.n_workers)]
    results, total, n_samples = list(done), sum(shard.n_samples for shard in missing), 0
    reporter.progress(Progress("rewrite", 0, total, "samples"))
    for _, part in engine.map_partitions(rewrite_shards, tasks):
        results += part
        n_samples += sum(result.n_samples for result in part)
        reporter.progress(Progress("rewrite", n_samples, total, "samples"))
    failed = [result for result in results if result.error]
    return replace(
        estimate,
        n_shards=len(results) - len(failed),
        n_samples=sum(result.n_samples for result in results if not result.error),
        n_bytes=sum(result.n_bytes for result in results),
        n_done_before=len(done),
        errors=tuple(_described(result, work.out) for result in sorted(failed, key=lambda result: result.number)[:_ERRORS_SHOWN]),
        n_failed=len(failed),
    )


def _described(result: Written, out: str) -> str:
    return f"{out}/{result.number:05d}.tar with {result.n_samples:,} samples was not written: {result.error}"


def _stretches(shards: Sequence[Cleaned], n_tasks: int) -> Iterator[tuple[Cleaned, ...]]:
    """Neighbouring shards for each task, so that few shards of the input are read by two."""
    size = max(-(-len(shards) // n_tasks), min(_LEAST_STRETCH, -(-len(shards) * _TASKS_PER_WORKER // n_tasks)))
    stretch: list[Cleaned] = []
    for shard in shards:
        if stretch and (len(stretch) == size or shard.number != stretch[-1].number + 1):
            yield tuple(stretch)
            stretch = []
        stretch.append(shard)
    if stretch:
        yield tuple(stretch)


def _estimate(out: str, shards: Sequence[Cleaned]) -> RewriteSummary:
    n_samples, image_bytes = sum(shard.n_samples for shard in shards), sum(shard.image_bytes for shard in shards)
    return RewriteSummary(out, len(shards), n_samples, image_bytes, image_bytes + n_samples * _PER_SAMPLE)
