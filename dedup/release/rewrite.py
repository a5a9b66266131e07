"""Cleaned shards: the kept samples of a run as new tars, members byte for byte, or as parquet with all columns."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Final

import pyarrow as pa

from dedup.contracts import Engine, JsonDict, Progress, Reporter, SilentReporter, Table
from dedup.engines.local import engine_or_own
from dedup.errors import NO_ROOM, ConfigError, DedupError, InputError, RunDirectoryError
from dedup.release.feed import Feed, unsorted_shards, write_member
from dedup.release.plan import CleanedShard, KeepListResult, kept_rows, kept_table, named_table, plan_shards, read_file
from dedup.release.rows import copy_rows
from dedup.release.sidecar import write_beside
from dedup.runs.lock import locked
from dedup.runs.record import digest, read_record
from dedup.storage.atomic import AtomicFile, write_json
from dedup.storage.input.encodings import file_at
from dedup.storage.input.kinds import usual_suffix
from dedup.storage.input.samples import one_line
from dedup.storage.urls import filesystem, is_local, join, read_json

_END: Final = b"\0" * (2 * tarfile.BLOCKSIZE)
_UNFINISHED: Final = re.compile(r"_[0-9a-f]{12}-\d{5,}(\.tar|\.parquet|_stats\.json)")
_PLAN = "_rewrite.json"
_TASKS_PER_WORKER = 4
_LEAST_STRETCH = 4  # cleaned shards of a task, unless workers would be idle
_PER_SAMPLE = 4_096  # bytes of headers, text and padding in a tar: an estimate
_ERRORS_SHOWN = 20


@dataclass(frozen=True)
class RewriteSummary:
    """What rewriting did, or would do."""

    out: str
    # n_shards, n_samples: cleaned shards and the samples in them
    n_shards: int
    n_samples: int
    image_bytes: int  # of the samples' images, encoded
    n_bytes: int  # of the shards; an estimate before they are written
    n_done_before: int = 0  # shards that an earlier run had written
    errors: tuple[str, ...] = field(default_factory=tuple)  # why shards were not written, at most 20 of them
    n_failed: int = 0  # shards that were not written
    keep_list: KeepListResult | None = None
    is_dry_run: bool = False


@dataclass(frozen=True)
class RewriteTask:
    """Consecutive cleaned shards that one worker writes."""

    kept: Table
    shards: tuple[CleanedShard, ...]
    out: str  # folder
    unsorted: frozenset[str] = frozenset()  # tars of the input in which members of one sample stand apart
    chooses_captions: bool = False  # whether samples of groups get the caption that the manifest gives them


@dataclass(frozen=True)
class Written:
    """What became of a cleaned shard."""

    number: int
    n_samples: int
    n_bytes: int  # of its file; 0 if it was not written
    error: str = ""  # why it was not
    suffix: str = ".tar"


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
    """Write new shards with the kept samples of a run, all members byte for byte, but for captions that `keep.caption` chose.

    Parameters
    ----------
    run_dir : str
        A finished run over tars, parquet or Arrow files, or a folder of images, which must not have moved.
    out : str
        Folder for ``NNNNN.tar``, with ``NNNNN.parquet`` and ``NNNNN_stats.json`` as of img2dataset; a path or any fsspec URL. Rows of
        parquet or Arrow files become ``NNNNN.parquet`` with the columns and captions they had.
    per_shard : int
        Samples per shard; 0 = one cleaned shard for each shard with kept samples. A shard ends early where a key would repeat.
    keep_list : str
        Keep what this list names instead of the manifest: see `dedup.storage.input.names.read_keep_list`. Excluded samples stay out.
    dry_run : bool
        Only report what would be written.
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
    Samples keep their order. A shard appears under its name only when complete; an interrupted rewrite continues with the missing ones.
    Shards whose samples can no longer be read are left out and named in `errors`.
    """
    if per_shard < 0:
        raise ConfigError(f"per_shard={per_shard} is negative; expected a number of samples, or 0 for a shard each")
    reporter = reporter or SilentReporter()
    kept, keep_list_result = kept_table(run_dir), None  # before the lock: an unfinished run leaves no folder behind
    _refuse_vectors(run_dir)
    with engine_or_own(engine) as engine, nullcontext() if dry_run else locked(out), engine.scratch() as scratch:
        if keep_list:
            kept, keep_list_result = named_table(run_dir, keep_list, join(scratch, "kept") if dry_run else join(out, "_kept"), engine)
        shards = list(plan_shards(kept, per_shard))
        summary = _estimate(out, shards)
        if dry_run:
            return replace(summary, keep_list=keep_list_result, is_dry_run=True)
        _begin(run_dir, out, per_shard, shards)
        task = RewriteTask(kept, tuple(shards), out, unsorted_shards(run_dir), _chooses_captions(run_dir))
        summary = _carry_out(task, summary, engine, reporter)
        return replace(summary, keep_list=keep_list_result)


def _chooses_captions(run_dir: str) -> bool:
    record = read_record(run_dir, "manifest")
    return record is not None and record.config.get("keep.caption", "own") != "own"


def _refuse_vectors(run_dir: str) -> None:
    """Stop before any work if the run knows vectors alone.

    Raises RunDirectoryError.
    """
    record = read_record(run_dir, "embed")
    if record is not None and record.summary.get("has_pixels") is False:
        raise RunDirectoryError(
            f"{run_dir} is a run over embeddings, which hold no pictures to copy; filter the tars that have them while training "
            "(dedup.keep(run, by='key') or by='url'), or write what is kept as a list: dedup export RUN --format keys (urls, datacomp) "
            "--out FILE"
        )


def _begin(run_dir: str, out: str, per_shard: int, shards: Sequence[CleanedShard]) -> None:
    """Note what is written into the folder.

    Raises RunDirectoryError if the folder was begun with another plan, or holds tars of another origin.
    """
    record = read_record(run_dir, "manifest")
    plan: JsonDict = {
        "run": run_dir,
        "manifest": "" if record is None else record.digest,
        "per_shard": per_shard,
        "shards": digest([asdict(shard) for shard in shards]),
    }
    begun = read_json(join(out, _PLAN))
    if begun is None:
        fs, path = filesystem(out)
        if fs.exists(path) and any(str(name).endswith((".tar", ".parquet")) for name in fs.ls(path, detail=False)):
            raise RunDirectoryError(f"{out} holds shards that were not written here; name an empty folder")
    elif changed := sorted(name for name in plan if name != "run" and begun.get(name) != plan[name]):
        raise RunDirectoryError(f"{out} was begun with another {', '.join(changed)}; name another folder, or delete this one")
    clear_unfinished(out)
    write_json(join(out, _PLAN), plan)


def _estimate(out: str, shards: Sequence[CleanedShard]) -> RewriteSummary:
    n_samples, image_bytes = sum(shard.n_samples for shard in shards), sum(shard.image_bytes for shard in shards)
    return RewriteSummary(out, len(shards), n_samples, image_bytes, image_bytes + n_samples * _PER_SAMPLE)


def _carry_out(task: RewriteTask, estimate: RewriteSummary, engine: Engine, reporter: Reporter) -> RewriteSummary:
    """Write the missing shards, in parallel."""
    done = [written for shard in task.shards if (written := finished(task.out, shard)) is not None]
    done_numbers = {written.number for written in done}
    missing = [shard for shard in task.shards if shard.number not in done_numbers]
    n_missing_bytes = estimate.n_bytes - sum(written.n_bytes for written in done)
    if missing and is_local(task.out) and (free := shutil.disk_usage(filesystem(task.out)[1]).free) < n_missing_bytes:
        raise InputError(
            f"{task.out} has {free:,} bytes free, the cleaned shards need some {n_missing_bytes:,}; make room or name another folder"
        )
    tasks = [replace(task, shards=shards) for shards in _stretches(missing, _TASKS_PER_WORKER * engine.n_workers)]
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
        errors=tuple(_described(result, task.out) for result in sorted(failed, key=lambda result: result.number)[:_ERRORS_SHOWN]),
        n_failed=len(failed),
    )


def _described(result: Written, out: str) -> str:
    return f"{out}/{result.number:05d}{result.suffix} with {result.n_samples:,} samples was not written: {result.error}"


def _stretches(shards: Sequence[CleanedShard], n_tasks: int) -> Iterator[tuple[CleanedShard, ...]]:
    """Consecutive shards for each task, so that few shards of the input are read by two tasks."""
    size = max(-(-len(shards) // n_tasks), min(_LEAST_STRETCH, -(-len(shards) * _TASKS_PER_WORKER // n_tasks)))
    stretch: list[CleanedShard] = []
    for shard in shards:
        if stretch and (len(stretch) == size or shard.number != stretch[-1].number + 1):
            yield tuple(stretch)
            stretch = []
        stretch.append(shard)
    if stretch:
        yield tuple(stretch)


def finished(out: str, shard: CleanedShard) -> Written | None:
    """The shard as an earlier call wrote it, or None."""
    stats = read_json(shard_path(out, shard.number, "_stats.json"))
    if stats is None or stats.get("first_sample_id") != shard.first_id or stats.get("count") != shard.n_samples:
        return None
    fs, path = filesystem(shard_path(out, shard.number, shard.suffix))
    with suppress(FileNotFoundError):
        if int(fs.size(path)) == stats.get("n_bytes"):
            return Written(shard.number, shard.n_samples, int(stats["n_bytes"]), suffix=shard.suffix)
    return None


def clear_unfinished(out: str) -> None:
    """Delete the half-written files of a call that was killed."""
    fs, path = filesystem(out)
    if fs.exists(path):
        for name in fs.ls(path, detail=False):
            if _UNFINISHED.fullmatch(posixpath.basename(str(name))):
                fs.rm_file(str(name))


def shard_path(out: str, number: int, suffix: str) -> str:
    """Path of a cleaned shard, or of a file that belongs to it."""
    return join(out, f"{number:05d}{suffix}")


def rewrite_shards(task: RewriteTask) -> list[Written]:
    """Write consecutive cleaned shards, each whole or not at all; one that can't be written does not stop the others.

    Raises InputError if the disk is full.
    """
    feed = Feed(task.unsorted)
    try:
        return [write_shard(task, shard, feed) for shard in task.shards]
    finally:
        feed.close()


def write_shard(task: RewriteTask, shard: CleanedShard, feed: Feed) -> Written:
    """Write one cleaned shard, whole or not at all, unless it is there already."""
    if (done := finished(task.out, shard)) is not None:
        return done
    started = time.time()
    rows = kept_rows(task.kept, shard)
    target = shard_path(task.out, shard.number, shard.suffix)
    try:
        scratch = AtomicFile(target)
    except OSError as error:
        raise _failed(target, shard, error) from error
    try:
        if shard.suffix == ".tar":
            rows, n_bytes = _write_tar(rows, shard.number, scratch, feed, chooses_captions=task.chooses_captions)
            write_beside(rows, shard_path(task.out, shard.number, ".parquet"), chooses_captions=task.chooses_captions)
        else:
            copy_rows(rows, scratch.file)
            n_bytes = scratch.close()
        write_json(shard_path(task.out, shard.number, "_stats.json"), _stats(shard, n_bytes, started))
    except InputError as error:
        scratch.abort()
        return Written(shard.number, shard.n_samples, 0, str(error), shard.suffix)
    except OSError as error:
        scratch.abort()
        raise _failed(target, shard, error) from error
    except BaseException:
        scratch.abort()
        raise
    return Written(shard.number, shard.n_samples, n_bytes, suffix=shard.suffix)


def _failed(target: str, shard: CleanedShard, error: OSError) -> DedupError:
    if error.errno in NO_ROOM:
        text = f"no room for {target} (its images alone take {shard.image_bytes:,} bytes)"
        return InputError(f"{text}: {one_line(error)}; make room and run the same command again, finished shards are kept")
    return InputError(f"{target} can't be written ({one_line(error)}); check the folder and run the same command again")


def _stats(shard: CleanedShard, n_bytes: int, started: float) -> JsonDict:
    """The statistics of a shard as img2dataset writes them, and what tells that this one is whole."""
    ended = time.time()
    return {
        "count": shard.n_samples,
        "successes": shard.n_samples,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": ended - started,
        "start_time": started,
        "end_time": ended,
        "status_dict": {"success": shard.n_samples},
        "n_bytes": n_bytes,
        "first_sample_id": shard.first_id,
        "last_sample_id": shard.last_id,
    }


def _write_tar(rows: pa.Table, number: int, scratch: AtomicFile, feed: Feed, *, chooses_captions: bool) -> tuple[pa.Table, int]:
    """Write the members of samples and the end of a tar; the rows as they are named now, and bytes written."""
    rows = _copy(rows, number, scratch.file, feed, chooses_captions=chooses_captions)
    scratch.file.write(_END)
    scratch.file.write(b"\0" * (-scratch.file.tell() % tarfile.RECORDSIZE))
    return rows, scratch.close()


def _copy(rows: pa.Table, number: int, file: IO[bytes], feed: Feed, *, chooses_captions: bool) -> pa.Table:
    """Copy the members of samples, which are in the order of their shards; returns the rows as they are named now.

    `chooses_captions`: whether samples of groups get the caption of their row.

    Images of a folder get a key without dots, the number of the shard and theirs, and the field of their format: their paths, which may
    hold dots or differ in nothing but the suffix, become the column `path`.
    """
    columns = (rows[name].to_pylist() for name in ("shard", "key", "n_bytes", "captions", "caption", "duplication_count"))
    keys, paths = [], []
    for place, (shard, key, n_bytes, captions, caption, n_copies) in enumerate(zip(*columns, strict=True)):
        chosen = caption if chooses_captions and n_copies > 1 else None
        if shard.endswith("/"):
            keys.append(f"{number:05d}{place:04d}")
            paths.append(key)
            listed = [*dict.fromkeys([*([] if chosen is None else [chosen]), *(captions or [])])]
            _copy_file(keys[-1], read_file(file_at(shard, key), n_bytes), listed, file)
        else:
            keys.append(key)
            paths.append(None)
            feed.copy(shard, key, n_bytes, file, chosen)
    if not any(paths):
        return rows
    rows = rows.set_column(rows.column_names.index("key"), "key", pa.array(keys, pa.string()))
    return rows.append_column("path", pa.array(paths, pa.string()))


def _copy_file(key: str, image: bytes, captions: list[str], file: IO[bytes]) -> None:
    """Write an image of a folder, its first caption as a txt member, and several as a json member as well."""
    members = [(f"{key}.{usual_suffix(image)}", image), *((f"{key}.txt", caption.encode()) for caption in captions[:1])]
    if len(captions) > 1:
        members.append((f"{key}.json", json.dumps({"captions": captions}, ensure_ascii=False).encode()))
    for name, content in members:
        write_member(name, content, file)
