"""Demo shards: LAION-style tars with planted duplicates, and the truth about them."""

from __future__ import annotations

import dataclasses
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.contracts import Result, Task, in_order
from dedup.demo.pictures import photo_scenes
from dedup.demo.samples import BROKEN, COPY, EXACT, MAX_JPEG_SIZE, MIN_JPEG_SIZE, Plan, SampleMaker, make_plan
from dedup.engines.workers import completed, start_pool, stop_pool
from dedup.errors import ConfigError
from dedup.schemas.fields import BOOL, INT64, TEXT
from dedup.text import counted

_KNOWN = {"key": TEXT, "shard": TEXT, "source_id": INT64, "change": TEXT, "family": TEXT, "is_broken": BOOL, "is_expected": BOOL}
TRUTH = pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in _KNOWN.items()), pa.field("caption", TEXT)])

_MIN_IMAGES = 20
_UNITS = {"": 1, "B": 1, "K": 1000, "KB": 1000, "KIB": 1024, "M": 10**6, "MB": 10**6, "MIB": 1024**2}


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write: its slice of the plan, and the maker of its samples."""

    out: Path
    number: int
    first: int
    sources: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    maker: SampleMaker


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """What `make_demo_data` wrote."""

    out: Path  # the folder with the tars
    truth: Path  # the parquet file in it
    n_shards: int
    n_images: int
    n_bytes: int  # of the tars
    n_sources: int  # distinct scenes: ``n_images - n_copies - n_broken``
    n_copies: int  # planted copies
    n_exact: int  # those of them with the very bytes of their original
    n_broken: int  # samples made unusual: a run rejects them, except those without a caption
    largest_group: int  # samples of the most duplicated scene

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.n_images:,} images in {counted(self.n_shards, 'shard')} ({self.n_bytes / 1e6:,.1f} MB) in {self.out}: "
            f"{self.n_sources:,} scenes, {self.n_copies:,} planted copies ({self.n_exact:,} byte-identical, "
            f"largest group {self.largest_group:,}), {self.n_broken:,} broken; truth in {self.truth}"
        )


def make_demo_data(
    out: str | Path,
    *,
    n_images: int = 2000,
    seed: int = 0,
    per_shard: int = 1000,
    jpeg_size: int | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> DemoSummary:
    """Write tars as img2dataset writes them, a fifth of their images planted copies, and ``truth.parquet``.

    Equal arguments give equal bytes, whatever the number of workers. Memory does not grow with the corpus, except for five
    bytes a sample.

    `out`: folder, made where it is missing. Shards of an earlier call are overwritten.
    `n_images`: samples, at least 20, broken ones included.
    `seed`: not negative; kept in the metadata of ``truth.parquet`` with the other arguments.
    `per_shard`: samples per tar, at most 10,000.
    `jpeg_size`: bytes, 10,000 to 120,000: every image is a JPEG of about 400 x 350 pixels within 10% of that size, and none is broken
    (for throughput benchmarks).
    `workers`: processes; with more than one, a script needs the ``if __name__ == "__main__"`` guard.
    `progress`: called with (samples written, `n_images`) after each shard.
    Raises ConfigError if an argument is out of its range, or `out` holds tars that this call would not overwrite.
    Raises MissingExtra if scikit-image or scikit-learn, which ship the photos, is not installed.

    Notes
    -----
    ``truth.parquet`` has a row per sample, in the order of the tars: `key`, `shard` (file name), `source_id` (equal numbers
    are copies of one scene), `change` (a name of `dedup.numerics.image.planting.CHANGES`, "original", "exact", or how the sample
    is broken), its `family`, `is_broken` (a run must reject it), `is_expected` (the default settings are expected to find
    it a copy of its original; true for originals), `caption`. A broken sample may repeat a key: join on rows that are
    not broken.
    """
    n_shards = -(-n_images // max(per_shard, 1))
    _check(n_images, seed, per_shard, jpeg_size, workers, n_shards)
    folder = Path(out)
    names = [f"{number:05d}.tar" for number in range(n_shards)]
    strangers = sorted({path.name for path in folder.glob("[!_]*.tar")}.difference(names)) if folder.is_dir() else []
    if strangers:
        raise ConfigError(f"{folder} holds {strangers[0]} and {len(strangers) - 1} more tars of another corpus; expected an empty folder")
    folder.mkdir(parents=True, exist_ok=True)

    plan = make_plan(n_images, seed, n_photos=len(photo_scenes()), with_broken=jpeg_size is None)
    maker = SampleMaker(seed, plan.n_photos, plan.first_broken, jpeg_size)
    arguments = {"n_images": n_images, "seed": seed, "per_shard": per_shard, "jpeg_size": jpeg_size}
    schema = TRUTH.with_metadata({key: str(value) for key, value in arguments.items()})
    truth, unfinished = folder / "truth.parquet", folder / "_truth.parquet"
    n_done = 0
    with pq.ParquetWriter(unfinished, schema) as writer:
        for rows in each_in_order(write_shard, list(_tasks(folder, plan, maker, per_shard)), workers):
            writer.write_table(rows.cast(schema))
            n_done += rows.num_rows
            if progress is not None:
                progress(n_done, n_images)
    unfinished.replace(truth)
    return DemoSummary(
        out=folder,
        truth=truth,
        n_shards=n_shards,
        n_images=n_images,
        n_bytes=sum((folder / name).stat().st_size for name in names),
        n_sources=plan.first_broken,
        n_copies=int(np.isin(plan.roles, (COPY, EXACT)).sum()),
        n_exact=int((plan.roles == EXACT).sum()),
        n_broken=int((plan.roles == BROKEN).sum()),
        largest_group=int(np.bincount(plan.sources).max()),
    )


def parse_size(text: str) -> int:
    """Read a file size: a number with B, KB, MB (thousands), KiB or MiB (1024), upper or lower case; bytes without.

    Raises ConfigError if it is not a size.

    Examples
    --------
    >>> parse_size("110KB"), parse_size("0.5 MiB")
    (110000, 524288)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"'{text}' is not a file size; expected a number with B, KB, MB, KiB or MiB, such as 110KB")
    return round(float(match[1]) * _UNITS[match[2].upper()])


def _check(n_images: int, seed: int, per_shard: int, jpeg_size: int | None, workers: int, n_shards: int) -> None:
    if n_images < _MIN_IMAGES:
        raise ConfigError(f"n_images={n_images} is too few to plant duplicates in; expected at least {_MIN_IMAGES}")
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; expected 0 or more")
    if not 1 <= per_shard <= 10_000:
        raise ConfigError(f"per_shard={per_shard} does not fit keys of four digits per shard; expected 1 to 10000")
    if n_shards > 100_000:
        raise ConfigError(f"n_images={n_images} at per_shard={per_shard} gives {n_shards} shards; expected at most 100000: raise per_shard")
    if workers < 1:
        raise ConfigError(f"workers={workers}; expected 1 or more")
    if jpeg_size is not None and not MIN_JPEG_SIZE <= jpeg_size <= MAX_JPEG_SIZE:
        raise ConfigError(f"jpeg_size={jpeg_size} can't be met at 400 x 350 pixels; expected {MIN_JPEG_SIZE} to {MAX_JPEG_SIZE} bytes")


def _tasks(out: Path, plan: Plan, maker: SampleMaker, per_shard: int) -> Iterator[ShardTask]:
    for number, first in enumerate(range(0, len(plan.sources), per_shard)):
        part = slice(first, first + per_shard)
        yield ShardTask(out, number, first, plan.sources[part], plan.roles[part], maker)


def each_in_order(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Do each task, in this process or in several, and yield the results in the order of the tasks."""
    if workers == 1 or len(tasks) == 1:
        yield from map(work, tasks)
        return
    pool = start_pool(min(workers, len(tasks)))
    try:
        yield from in_order((number, future.result()) for number, future in completed(pool, work, tasks, 2 * workers))
    finally:
        stop_pool(pool)


def write_shard(task: ShardTask) -> pa.Table:
    """Write the tar of a task, under a name that starts with "_" until it is whole; returns its rows of `TRUTH`, in its order."""
    name = f"{task.number:05d}.tar"
    unfinished = task.out / f"_{name}"
    rows = []
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, (source, role) in enumerate(zip(task.sources.tolist(), task.roles.tolist(), strict=True)):
            key = f"{task.number:05d}{index:04d}"
            # not the key just before: two neighbours with one key would be read as one sample
            earlier = next((i for i in range(index - 2, -1, -1) if task.roles[i] != BROKEN), None)
            earlier_key = None if earlier is None else f"{task.number:05d}{earlier:04d}"
            sample = task.maker.make(task.first + index, source, role, key, earlier_key)
            captions = [] if sample.caption is None else [("txt", sample.caption.encode())]
            add_members(tar, sample.key, [(sample.suffix, sample.image), ("json", sample.meta), *captions])
            rows.append({column: getattr(sample, column, None) for column in TRUTH.names} | {"shard": name, "source_id": source})
    unfinished.replace(task.out / name)
    return pa.Table.from_pylist(rows, schema=TRUTH)


def add_members(tar: tarfile.TarFile, key: str, members: Sequence[tuple[str, bytes]]) -> None:
    """Add a sample to a tar; `members`: suffix and bytes of each."""
    for suffix, data in members:
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)  # mtime, uid and gid stay 0: the same arguments give the same bytes
        tar.addfile(info, io.BytesIO(data))
