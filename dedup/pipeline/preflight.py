"""Before any work: whether memory and disk suffice for a run.

Needs are estimated from figures of real runs (`docs/results.md`, "What a run needs"), rounded up: one to three times what is used. They
hold for typical data; an image near the limits (`input.max_pixels`) takes as much as its pixels.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.contracts import Engine, Reporter
from dedup.encoders import n_gpus
from dedup.errors import ResourceError, RunDirectoryError
from dedup.machine import free_disk, free_memory
from dedup.runs.directory import Run
from dedup.stages.embed.copy import may_be_linked
from dedup.stages.embed.moved import Source
from dedup.stages.embed.partition import keeps_thumbnails
from dedup.stages.index.fill import PQ_FROM
from dedup.stages.stage import Stage
from dedup.storage.atomic import scratch_folder
from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.shards import read_shard
from dedup.storage.input.sources import size_of
from dedup.storage.urls import filesystem, is_local, read_range
from dedup.text import bytes_text

# Bytes of anonymous memory. With two workers all processes of runs over 150 and 4,000 pictures took 0.4 and 0.7 GB, over 300,000, 2,000,000
# and 10,000,000 vectors 1.55, 2.2 and 3.4 GB; training lists and joining them counts from some 500,000 images up.
_DRIVER, _WORKER, _PER_IMAGE = 350_000_000, 400_000_000, 220
_SEARCH, _SEARCH_PER_IMAGE = 600_000_000, 1_300
_MODEL = 2_000_000_000  # of a worker in addition: torch, the weights of a ViT-L in fp32, a batch

# Bytes on disk for each image. 1,500 images with some twenty views each took 26 MB, 300,000 vectors 302 MB.
_TABLES, _VIEWS, _THUMBNAIL, _PQ, _LISTS = 700, 17_000, 9_000, 80, 200
_PER_LIST = 12  # bytes of temporary files for each list a vector goes to: 300,000 vectors with 8 lists each took 25 MB
_SAMPLED_SHARDS, _HEAD_BYTES = 20, 8_000_000


@dataclass(frozen=True)
class Needs:
    """What a run needs, in bytes."""

    n_images: int | None  # None if that can't be told
    is_exact: bool
    memory: int  # of all processes together
    disk: int  # in the run directory
    temporary: int  # in the folder for temporary files
    n_workers: int
    savers: tuple[str, ...] = ()  # settings that would save disk


def bounded_workers(config: Config, cores: int, memory: int | None) -> tuple[int, str]:
    """Worker processes of the local engine, and why they are fewer than the cores; '' if they are not.

    As many as configured; by default one per core, but no more than fit into memory.

    `memory`: bytes; None = unknown.
    """
    if config.engine.workers:
        return config.engine.workers, ""
    fitting = cores if memory is None else max(1, (memory - _DRIVER) // _per_worker(config))
    if fitting >= cores:
        return cores, ""
    reason = f"{bytes_text(memory or 0)} of memory is there, and each takes {bytes_text(_per_worker(config))}"
    return fitting, f"engine: {fitting} workers for {cores} cores: {reason}"


def check(
    config: Config,
    sources: Mapping[str, tuple[Source, str]],
    due: Sequence[Stage],
    engine: Engine,
    reporter: Reporter,
    *,
    again: bool = False,
) -> Needs | None:
    """Report what a run needs and what is available.

    `config`: its `engine.preflight` says whether to refuse, or to warn and continue.
    `sources`: of the samples.
    `due`: stages to be done; without any, nothing is checked.
    `again`: the second check, once the number of images is known: of the disk alone, and silent unless it is too small.
    Raises ResourceError if memory or disk are too small, with both numbers and what to do; nothing was written.
    """
    if not due:
        return None
    needs = estimate(config, sources, any(stage.reads_samples for stage in due), engine.n_workers)
    is_here = engine.is_local
    memory = free_memory() if is_here and not again else None  # by the second check the workers have taken theirs
    run_dir, scratch = config.output.run_dir, tempfile.gettempdir()
    disk = free_disk(filesystem(run_dir)[1]) if is_local(run_dir) else None
    temporary = free_disk(scratch)
    parts = [_images(needs)]
    short: list[str] = []
    if memory is not None:
        parts.append(f"memory {bytes_text(needs.memory)} needed, {bytes_text(memory)} available")
        if needs.memory > memory:
            figures = f"{bytes_text(needs.memory)} needed for {needs.n_workers} workers, {bytes_text(memory)} available"
            short.append(f"memory: {figures}; {_less_memory(config, needs, memory)}")
    if needs.n_images is not None and disk is not None:
        parts.append(f"disk {bytes_text(needs.disk)} needed, {bytes_text(disk[0])} available")
        savers = ", or ".join(("another output.run_dir", *needs.savers))
        n_bytes = needs.disk + (needs.temporary if disk[1] == temporary[1] else 0)
        if n_bytes > disk[0]:
            short.append(f"disk of {run_dir}: {bytes_text(n_bytes)} needed, {bytes_text(disk[0])} available; choose {savers}")
    if needs.n_images is not None and is_here:
        needed, free = bytes_text(needs.temporary), bytes_text(temporary[0])
        parts.append(f"temporary files {needed} in {scratch}, {free} available")
        if needs.temporary > temporary[0]:
            short.append(f"disk of {scratch}: {needed} needed, {free} available; set TMPDIR to a larger one")
    if not is_here:
        parts.append("what executors have is not checked")
    if not again:
        reporter.note(f"preflight: {'; '.join(parts)}")
    if short and config.engine.preflight == "warn":
        reporter.note(f"preflight: too small: {'. '.join(short)}")
    elif short:
        written = "What is embedded stays" if again else "Nothing was written"
        raise ResourceError(f"{'. '.join(short)}. {written}; engine.preflight=warn tries anyway")
    return needs


def estimate(config: Config, sources: Mapping[str, tuple[Source, str]], embeds: bool, n_workers: int) -> Needs:
    """What a run needs; see `check`."""
    run = Run(config.output.run_dir, config)
    n_images, is_exact = _count([source for source, _ in sources.values()]) if embeds else (_count_embedded(run), True)
    kind = encoder_kind(config.encoder.name)
    second_kinds = [encoder_kind(name) for name in config.embed.also]
    dim = next((source.dim for source, _ in sources.values() if isinstance(source, EmbeddingFile)), kind.typical_dim)
    if not embeds and is_local(run.url):
        with suppress(RunDirectoryError):  # a run without images has no vectors
            dim = run.vectors().dim
    dims = dim + sum(second.typical_dim for second in second_kinds)
    if n_images is not None and config.base.run_dir:
        n_images += embeds * (_count_embedded(Run(config.base.run_dir)) or 0)
    n = n_images or 0
    has_views = config.search.views and any(each.makes_views for each in (kind, *second_kinds))
    has_thumbnails = kind.has_images and keeps_thumbnails(config, [source for source, _ in sources.values()][:1])
    codes = {"none": 0, "fp16": 2 * dim, "pq": _PQ, "auto": _PQ if n >= PQ_FROM else 2 * dim}[config.index.codes]
    is_linked = embeds and _reads_where_they_lie(config, [source for source, _ in sources.values()])
    bytes_per_image = 2 * dims * (not is_linked) + _TABLES + _LISTS + 2 * codes + _VIEWS * has_views + _THUMBNAIL * has_thumbnails
    nprobe = config.search.nprobe or 32
    n_processes = min(n_workers, n_gpus(config.encoder, config.engine.device) or n_workers) if embeds else n_workers
    memory = _driver(n) + n_processes * _per_worker(config)
    disk = max(0, n * bytes_per_image - _bytes_in(run))
    temporary = n * nprobe * _PER_LIST + (0 if is_local(run.url) else n * codes)
    savers = ("embed.thumbnails=false",) * has_thumbnails + ("search.views=false",) * has_views
    return Needs(n_images, is_exact, memory, disk, temporary, n_processes, savers)


def _reads_where_they_lie(config: Config, sources: Sequence[Source]) -> bool:
    """Whether the vectors are, as far as their files tell, not written again."""
    if config.embed.copy_vectors or config.embed.shards_per_partition > 1 or not is_local(config.output.run_dir):
        return False
    return bool(sources) and all(isinstance(source, EmbeddingFile) and may_be_linked(source) for source in sources)


def _driver(n_images: int) -> int:
    return _DRIVER + min(_SEARCH, n_images * _SEARCH_PER_IMAGE) + n_images * _PER_IMAGE


def _per_worker(config: Config) -> int:
    return _WORKER + (_MODEL if encoder_kind(config.encoder.name).uses_gpu else 0)


def _count(sources: Sequence[Source]) -> tuple[int | None, bool]:
    """Images of the sources, and whether that is exact: those of tars are extrapolated from a sample."""
    n_counted = sum(
        source.n_rows if isinstance(source, EmbeddingFile) else len(source.images) for source in sources if not isinstance(source, str)
    )
    shards = [source for source in sources if isinstance(source, str)]
    if not shards:
        return n_counted, True
    sizes = [size for size in map(size_of, shards[:: -(-len(shards) // _SAMPLED_SHARDS)]) if size]
    per_sample = _bytes_per_sample(shards)
    if not sizes or not per_sample:
        return None, False
    return round(n_counted + sum(sizes) / len(sizes) * len(shards) / per_sample), False


def _bytes_per_sample(shards: Sequence[str]) -> float | None:
    """Mean of the samples at the beginning of a shard; of packed bytes, if it is compressed."""
    for shard in shards[:3]:
        with suppress(Exception), scratch_folder() as folder:  # this is an estimate: the stage itself will report what is wrong
            head = read_range(shard, 0, _HEAD_BYTES)
            path = os.path.join(folder, posixpath.basename(shard))
            with open(path, "wb") as file:
                file.write(head)
            if n := sum(1 for _ in read_shard(path)):
                return len(head) / n
    return None


def _count_embedded(run: Run) -> int | None:
    record = run.record("embed")
    return None if record is None else record.rows["metadata"]


def _bytes_in(run: Run) -> int:
    """Bytes that an earlier attempt left in the run directory; 0 if it is remote."""
    if not is_local(run.url):
        return 0
    total = 0
    for home, _, names in os.walk(filesystem(run.url)[1]):
        for name in names:
            with suppress(OSError):
                total += os.path.getsize(posixpath.join(home, name))
    return total


def _images(needs: Needs) -> str:
    if needs.n_images is None:
        return "how many images there are can't be told before they are read"
    # two significant digits of an estimate: more would pretend precision
    return f"{needs.n_images:,} images" if needs.is_exact else f"about {int(float(f'{needs.n_images:.1e}')):,} images"


def _less_memory(config: Config, needs: Needs, memory: int) -> str:
    fitting = (memory - _driver(needs.n_images or 0)) // _per_worker(config)
    if fitting >= 1:
        return f"engine.workers={fitting} would fit"
    return "take a machine with more, or fewer shards at a time (base.run_dir adds the others)"
