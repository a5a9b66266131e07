"""The FAISS index that a run keeps: trained once, filled in parts by tasks, merged on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache, cached

from dedup.contracts import JsonDict
from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.arraytypes import Ids, Rows32
from dedup.numerics.search.lists import BLOCK, Lists
from dedup.numerics.similarity import unit_rows
from dedup.runs.directory import Run
from dedup.runs.index import FORMAT, INDEX, LISTS, index_files, publish_index, read_assignments
from dedup.stages.stage import StageContext
from dedup.storage.arrays import clear_files
from dedup.storage.atomic import hidden_folder, scratch_folder, write_bytes
from dedup.storage.urls import filesystem, is_local, read_bytes

_PQ_LEAST = 256  # one vector for each centroid of a product quantizer's byte
PQ_FROM = 20_000  # vectors from which the index holds codes instead of float16
_BLOCKS_PER_PART = 2  # 131,072 vectors: 0.5 GB while they are coded, 9 MB of codes


@dataclass(frozen=True)
class FillTask:
    """Some representatives and the part they fill."""

    run: Run
    number: int
    sample_ids: Ids
    first: int  # position of the first among all representatives
    uses_run_lists: bool  # false: the index finds the list of each vector, as with a factory string


def fill_part(task: FillTask) -> int:
    """Write one part of the index; returns the number of its vectors."""
    from dedup.numerics.search.faiss_index import filled_part

    home = None
    if task.uses_run_lists:
        stop, first_block = task.first + len(task.sample_ids), task.first // BLOCK
        homes = np.concatenate([read_assignments(task.run.path("index"), block)[:, 0] for block in range(first_block, -(-stop // BLOCK))])
        home = homes[task.first - first_block * BLOCK : stop - first_block * BLOCK]
    rows = unit_rows(task.run.read_vectors(task.sample_ids))
    data = filled_part(_trained(task.run), task.sample_ids, rows, home)
    write_bytes(part_path(task.run, task.number), data)
    return len(rows)


def part_path(run: Run, number: int) -> str:
    """Where a part lies until it is merged."""
    return run.path("index", "_parts", f"part-{number:05d}.faiss")


def fill_index(context: StageContext, ids: Ids, lists: Lists, sample: Rows32, nprobe: int, n_base: int) -> JsonDict:
    """Write the index of all representatives; one of the run's base grows.

    `ids`: shape (n,); representatives, as `assignments` has them.
    `sample`: shape (m, dim); unit rows that codes are trained on.
    `n_base`: how many representatives, the first ones, the run's base had.
    Returns `codes`: what the index holds, or ``none``; `format`; `files`: their names and sizes.
    """
    run, options = context.run, context.config.index
    codes = options.codes if options.codes != "auto" else "pq" if len(ids) >= PQ_FROM else "fp16"
    if codes == "none" or not len(ids):
        return {"codes": "none", "files": {}}
    if codes == "pq" and not options.factory and len(ids) < _PQ_LEAST:
        raise ConfigError(f"index.codes=pq needs {_PQ_LEAST} distinct images to train, found {len(ids)}; use auto or fp16")
    base = _base_index(context, options.factory or codes, n_base)
    trained = _train(context, lists, sample, nprobe, codes, base)
    codes = options.factory or codes
    n_held = n_base if base else 0
    write_bytes(_trained_path(run), trained)
    size = BLOCK * _BLOCKS_PER_PART
    tasks = [
        FillTask(run, number, ids[start : start + size], start, not options.factory)
        for number, start in enumerate(range(n_held, len(ids), size))
    ]
    beside = f", beside {n_held:,} of base.run_dir" if n_held else ""
    context.reporter.note(f"index: filling it with {codes} codes of {len(ids) - n_held:,} vectors{beside}")
    n_filled = sum(n for _, n in context.run_tasks("index", "codes", fill_part, tasks, [len(task.sample_ids) for task in tasks]))
    n_merged = _merge(run, trained, [part_path(run, task.number) for task in tasks], base)
    if n_filled != len(ids) - n_held or n_merged != len(ids):
        raise RunDirectoryError(f"{run.url}: the index holds {n_merged:,} of {len(ids):,} vectors; run the same command again")
    clear_files(run.path("index", "_parts"), "*.faiss")
    return {"codes": codes, "format": FORMAT, "files": index_files(run.path("index"))}


def _train(context: StageContext, lists: Lists, sample: Rows32, nprobe: int, codes: str, base: str) -> bytes:
    """An empty index whose codes are trained: that of the run's base without its vectors, where it grows."""
    from dedup.numerics.search.faiss_index import emptied, trained_factory, trained_index

    if base:
        return emptied(base)
    options = context.config.index
    if options.factory:
        return trained_factory(options.factory, sample, nlist=lists.nlist, nprobe=nprobe, seed=options.seed)
    # the index is searched with whole vectors: its centroids are those of the run's lists, rotated back from the principal axes
    centroids = lists.centroids @ lists.axes[:, : lists.centroids.shape[1]].T
    return trained_index(centroids, sample, codes=codes, nprobe=nprobe)


def _base_index(context: StageContext, codes: str, n_base: int) -> str:
    """The index of the run's base, if it holds the same kind of codes of all its images; else ''."""
    if context.base is None or not n_base:
        return ""
    record = context.base.index_facts
    if record.get("codes") != codes or record.get("n_images") != n_base or record.get("format") != FORMAT:
        return ""
    return context.base.index_path()


def _merge(run: Run, trained: bytes, parts: list[str], base: str) -> int:
    """Merge parts on this machine's disk and give the result its name."""
    from dedup.numerics.search.faiss_index import merge_parts

    local = is_local(run.url)
    with hidden_folder(filesystem(run.path("index", "merged"))[1]) if local else scratch_folder() as scratch:
        paths = []
        for part in parts:
            fs, path = filesystem(part)
            paths.append(path if local else os.path.join(scratch, path.rpartition("/")[2]))
            if not local:
                fs.get_file(path, paths[-1])
        merged = [os.path.join(scratch, name) for name in (INDEX, LISTS)]
        n = merge_parts(trained, paths, *merged, base=base)
        publish_index(run.path("index"), *merged)
    return n


def _trained_path(run: Run) -> str:
    return run.path("index", "_parts", "trained.faiss")


def _trained_state(run: Run) -> tuple[object, ...]:
    fs, path = filesystem(_trained_path(run))
    info = fs.info(path)
    return run, info.get("size"), info.get("mtime", info.get("ETag"))


@cached(LRUCache(1), key=_trained_state)
def _trained(run: Run) -> bytes:
    data = read_bytes(_trained_path(run))
    if data is None:
        raise RunDirectoryError(f"{_trained_path(run)} vanished while the index was filled; run the same command again")
    return data
