"""Planted duplication sets: a user's own shards written again, with chosen images repeated exactly as often as asked, and the truth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dedup.contracts import Progress, Reporter, SilentReporter
from dedup.demo.plant_samples import BACKGROUND, KINDS, SHOWS_OTHERS, TRUTH, Rows, WriteTask, write_shard
from dedup.demo.plant_sources import ReadTask, SourceAccount, Sources, read_sources, source_shards
from dedup.demo.shards import each_in_order
from dedup.errors import ConfigError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.storage.atomic import hidden_folder
from dedup.storage.tables import read_table
from dedup.storage.urls import absolute, is_local
from dedup.text import bytes_text, counted, printable

_TRUTH_FILE: Final = "truth.parquet"
_MOST_PER_SHARD: Final = 10_000  # keys have four digits for the place in a shard
_MOST_SHARDS: Final = 100_000  # and five for the shard
_ERRORS_SHOWN: Final = 20


@dataclass(frozen=True)
class PlantOptions:
    """What is planted; the arguments of `plant_duplicates`, kept in the metadata of ``truth.parquet``."""

    counts: tuple[int, ...]
    images_per_count: int
    kinds: tuple[str, ...]
    background: int | None
    seed: int
    per_shard: int


@dataclass(frozen=True)
class PlantSummary:
    """What `plant_duplicates` read and wrote.

    ``n_read == n_unusable + n_chosen + n_inside + n_background + n_left_out``.
    """

    out: Path  # the folder with the tars
    truth: Path  # the parquet file in it
    n_shards: int  # written
    n_bytes: int  # of these
    n_written: int  # samples
    written: dict[str, int]  # of these, by kind
    n_read: int  # samples of the source
    n_unusable: int  # their image does not decode, or they have no caption
    unusable: dict[str, int]  # of these, by reason
    n_chosen: int  # images that occur as often as their count says
    n_inside: int  # images that fill templates or hold partial copies, and occur nowhere else
    n_background: int  # images that occur once
    n_left_out: int  # samples that could be used and were not
    n_not_unique: int  # of these, samples that the run drops or knows copies of
    run_dir: str  # the run that vouches that the source holds no copies of its own; '' if none does
    n_broken_shards: int  # shards that could not be read to their end
    errors: tuple[str, ...] = field(default_factory=tuple)  # why, at most 20 of them

    def __str__(self) -> str:
        """Some lines for a person."""
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.written.items())
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in self.unusable.items())
        inside = f"{self.n_inside:,} shown inside copies, " if self.n_inside else ""
        not_unique = f" ({self.n_not_unique:,} not kept, or not unique, in {self.run_dir})" if self.run_dir else ""
        lines = [
            f"read {counted(self.n_read, 'sample')}: {self.n_unusable:,} unusable{f' ({reasons})' if reasons else ''}, "
            f"{self.n_chosen:,} chosen, {inside}{self.n_background:,} background, {self.n_left_out:,} left out{not_unique}",
            f"written {counted(self.n_written, 'sample')} ({kinds}) in {counted(self.n_shards, 'shard')}, {bytes_text(self.n_bytes)}, "
            f"in {self.out}; truth in {self.truth}",
        ]
        if self.n_broken_shards:
            lines.append(f"{counted(self.n_broken_shards, 'shard')} not read to the end, the first: {printable(self.errors[0])}")
        if not self.run_dir:
            lines.append("duplicates that the source holds add to these counts: to leave them out, `dedup run` it and give --run RUN_DIR")
        return "\n".join(lines)


def plant_duplicates(
    shards: str | Sequence[str],
    out: str | Path,
    *,
    counts: Sequence[int] = (1, 10, 100, 1000),
    images_per_count: int = 10,
    edited: bool = False,
    templates: bool = False,
    partial: bool = False,
    background: int | None = None,
    run_dir: str = "",
    seed: int = 0,
    per_shard: int = 1000,
    workers: int = 1,
    reporter: Reporter | None = None,
) -> PlantSummary:
    """Write shards in which images drawn from a user's own occur as often as asked, beside images that occur once.

    Parameters
    ----------
    shards : str or sequence of str
        The source, as `input.shards`: tars, or parquet or Arrow files with images; or a folder of them. Of each sample the first image
        and the first caption are used; other members are not carried over.
    out : str or Path
        Local folder, new or empty, for ``NNNNN.tar`` and ``truth.parquet``.
    counts : sequence of int
        How often chosen images occur: positive, each given once.
    images_per_count : int
        Images of each kind for each count.
    edited : bool
        Plant images whose first copy has the bytes of the original, and every further one a web edit of
        `dedup.numerics.image.planting`, as JPEG.
    templates : bool
        Plant images of which every copy has the same region, 25 to 60% of the area, filled with another image.
    partial : bool
        Plant images of which every copy is another picture that shows the image, or its central part.
    background : int, optional
        Images that occur once; by default all that are not used otherwise.
    run_dir : str
        A finished run over these shards; only samples that it keeps and knows no copy of are used. '' = all samples.
    seed : int
        Of everything drawn at random; not negative.
    per_shard : int
        Samples per tar, at most 10,000.
    workers : int
        Processes; with more than one, a script needs the ``if __name__ == "__main__"`` guard.
    reporter : Reporter, optional
        Told of shards read and samples written.

    Returns
    -------
    PlantSummary

    Raises
    ------
    ConfigError
        If an argument is out of its range, `out` is not empty, or the source has too few images, or none in shards.
    InputError
        If no shard matches, or a shard changes while it is read.
    RunDirectoryError
        If the run is not finished, or did not read these shards.

    Notes
    -----
    Every image of the source has one role: chosen, shown inside a template or a partial copy, background, or none. Kinds that change or
    combine pictures take stills of at least 64 pixels a side and at most four times as long as wide. Equal arguments give equal bytes,
    whatever the number of workers. Memory: about 100 bytes for each sample written, and the captions of a shard; the captions of all, and
    the images of compressed tars and files of rows, are on the disk of `out` until it is finished.
    """
    kinds = tuple(kind for kind, is_wanted in zip(KINDS, (True, edited, templates, partial), strict=True) if is_wanted)
    options = PlantOptions(tuple(counts), images_per_count, kinds, background, seed, per_shard)
    _check(options, workers)
    urls = source_shards([shards] if isinstance(shards, str) else shards)
    run_dir = _checked_run(run_dir, urls)
    reporter = reporter or SilentReporter()
    with _new_folder(out) as (folder, parts):
        tasks = [ReadTask(url, str(parts / f"unpacked-{number}.bin"), run_dir) for number, url in enumerate(urls)]
        sources, is_plain, account = read_sources(tasks, str(parts / "sources.arrow"), workers, reporter)
        rows = _plan(is_plain, account, options)
        names = _write(rows, sources, parts, options, workers, reporter)
        for name in (*names, _TRUTH_FILE):  # the truth last: where it is, all is there
            os.replace(parts / name, folder / name)
    return _summary(Path(out), names, rows, len(is_plain), account, run_dir)


def parse_counts(text: str) -> tuple[int, ...]:
    """Read counts as a command line gives them: whole numbers between commas.

    Raises ConfigError if there is something else.

    Examples
    --------
    >>> parse_counts("1,10, 100")
    (1, 10, 100)
    """
    counts = []
    for word in text.split(","):
        if not word.strip().isdecimal():
            raise ConfigError(f"counts={text}: expected positive whole numbers between commas, such as 1,10,100, found '{word.strip()}'")
        counts.append(int(word))
    return tuple(counts)


def _check(options: PlantOptions, workers: int) -> None:
    """Refuse arguments that can't work."""
    counts, given = options.counts, ",".join(map(str, options.counts))
    if not counts:
        raise ConfigError("counts is empty; expected positive whole numbers, such as 1,10,100")
    if wrong := [count for count in counts if type(count) is not int or count < 1]:
        raise ConfigError(f"counts={given}: expected positive whole numbers, found '{wrong[0]}'; leave it out")
    if repeated := [count for count, n in Counter(counts).items() if n > 1]:
        raise ConfigError(
            f"counts={given}: expected each count once, found {repeated[0]} several times; raise images_per_count for more images"
        )
    for name, value, low, high in (
        ("images_per_count", options.images_per_count, 1, None),
        ("background", 0 if options.background is None else options.background, 0, None),
        ("seed", options.seed, 0, None),
        ("per_shard", options.per_shard, 1, _MOST_PER_SHARD),
        ("workers", workers, 1, None),
    ):
        if value < low or (high is not None and value > high):
            raise ConfigError(f"{name}={value} is out of range; expected {f'{low} or more' if high is None else f'{low} to {high}'}")
    _check_shards(options, sum(counts) * options.images_per_count * len(options.kinds))


def _check_shards(options: PlantOptions, n_samples: int) -> None:
    n_shards = -(-n_samples // options.per_shard)
    if n_shards > _MOST_SHARDS:
        raise ConfigError(
            f"{n_samples:,} samples at per_shard={options.per_shard} are {n_shards:,} shards; expected at most {_MOST_SHARDS:,}: raise "
            f"per_shard (to {_MOST_PER_SHARD:,} at most), or plant fewer"
        )


def _checked_run(run_dir: str, urls: Sequence[str]) -> str:
    """The address of a run, '' for none.

    Raises RunDirectoryError if its manifest is missing or out of date, or it has read none of the shards.
    """
    if not run_dir:
        return ""
    run = Run.open(run_dir)
    run.up_to_date("manifest")
    known = read_table(run.table("partitions"), ["shard"])["shard"].to_pylist()
    if not set(known) & set(urls):
        raise RunDirectoryError(
            f"{run_dir} has read none of the {counted(len(urls), 'shard')}; expected some of those that it has, such as "
            f"{min(known, default='none')}, found {urls[0]}; give the same shards, or a run over these"
        )
    return absolute(run_dir)


@contextmanager
def _new_folder(out: str | Path) -> Iterator[tuple[Path, Path]]:
    """The folder `out`, and a hidden one inside it for files in the making; after an error nothing is left.

    Raises ConfigError if it is not local, no folder, or not empty.
    """
    if not is_local(str(out)):
        raise ConfigError(f"out={out} is not on this machine; expected a local folder: write there, and copy the shards")
    folder = Path(absolute(str(out)))
    is_new = not folder.exists()
    if not is_new and not folder.is_dir():
        raise ConfigError(f"{out} is a file; expected a new or empty folder: name another")
    if not is_new and (held := sorted(os.listdir(folder))):
        raise ConfigError(
            f"{out} is not empty: found {held[0]}{f' and {len(held) - 1:,} more' if len(held) > 1 else ''}; name a new or empty folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} can't be made ({error.strerror}); expected a folder that this user may write: name another") from error
    try:
        with hidden_folder(str(folder / "parts")) as parts:
            yield folder, Path(parts)
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty: all went well
                folder.rmdir()


def _plan(is_plain: npt.NDArray[np.bool_], account: SourceAccount, options: PlantOptions) -> Rows:
    """Draw the role of every image, and the order of the samples.

    Raises ConfigError if there are too few images.
    """
    per_kind = len(options.counts) * options.images_per_count
    n_copies = sum(options.counts) * options.images_per_count  # of each kind
    n_others = n_copies * sum(kind in SHOWS_OTHERS for kind in options.kinds)
    n_plain = per_kind * (len(options.kinds) - 1) + n_others
    _refuse_too_few(is_plain, per_kind + n_plain, n_plain, n_others, account)
    rng = np.random.default_rng([options.seed, 0])
    # those that must be plain first: where there are enough images, they are enough for every kind
    plain = rng.permutation(np.flatnonzero(is_plain))[:n_plain]
    is_free = np.ones(len(is_plain), dtype=bool)
    is_free[plain] = False
    free = rng.permutation(np.flatnonzero(is_free))
    n_background = len(free) - per_kind if options.background is None else min(options.background, len(free) - per_kind)
    chosen, others = np.concatenate([free[:per_kind], plain[: n_plain - n_others]]), plain[n_plain - n_others :]
    rows = _rows(chosen, others, free[per_kind : per_kind + n_background], options)
    _check_shards(options, len(rows))
    return rows.take(rng.permutation(len(rows)))


def _rows(chosen: npt.NDArray[np.int64], others: npt.NDArray[np.int64], background: npt.NDArray[np.int64], options: PlantOptions) -> Rows:
    """All samples, in the order of their planted_id; the background last.

    `chosen`, `others`, `background`: numbers of images, shape (n,) each.
    """
    kinds = np.array([KINDS.index(kind) for kind in options.kinds], dtype=np.int8)
    per_kind = len(options.counts) * options.images_per_count
    kind = np.repeat(kinds, per_kind)  # of each chosen image, as the next
    count = np.tile(np.repeat(np.array(options.counts, dtype=np.int32), options.images_per_count), len(kinds))
    planted_id = np.repeat(np.arange(len(chosen)), count)
    copy = np.arange(len(planted_id)) - np.repeat(np.cumsum(count) - count, count)
    shows = np.isin(kind[planted_id], [KINDS.index(name) for name in SHOWS_OTHERS])
    other = np.full(len(planted_id), -1, dtype=np.int64)
    other[shows] = others
    n = len(background)
    return Rows(
        source=np.concatenate([chosen[planted_id], background]),
        other=np.concatenate([other, np.full(n, -1, dtype=np.int64)]),
        planted_id=np.concatenate([planted_id, np.full(n, -1, dtype=np.int64)]),
        kind=np.concatenate([kind[planted_id], np.full(n, len(KINDS), dtype=np.int8)]),
        count=np.concatenate([count[planted_id], np.ones(n, dtype=np.int32)]),
        copy=np.concatenate([copy, np.zeros(n, dtype=np.int64)]).astype(np.int32),
    )


def _refuse_too_few(is_plain: npt.NDArray[np.bool_], n_needed: int, n_plain: int, n_others: int, account: SourceAccount) -> None:
    needed, found, what = n_needed, len(is_plain), "usable images"
    if n_plain > is_plain.sum() and found >= n_needed:
        needed, found, what = n_plain, int(is_plain.sum()), "stills of at least 64 pixels a side and not too oblong"
    if found >= needed:
        return
    of_these = f", {n_others:,} of them to show inside copies" if n_others else ""
    lost = f"{account.n_read:,} samples read, {account.unusable.total():,} unusable"
    lost += f", {account.n_not_unique:,} not unique in the run" if account.n_not_unique else ""
    lost += f", {counted(len(account.errors), 'shard')} not read to the end, the first: {account.errors[0]}" if account.errors else ""
    raise ConfigError(
        f"too few images to plant: needed {needed:,} {what}{of_these}, found {found:,} ({lost}); give more shards, or lower counts, "
        "images per count or the number of kinds"
    )


def _write(rows: Rows, sources: Sources, parts: Path, options: PlantOptions, workers: int, reporter: Reporter) -> list[str]:
    """Write the tars and the truth into a folder; returns the names of the tars."""
    starts = range(0, len(rows), options.per_shard)
    tasks = [
        WriteTask(parts, number, rows.take(slice(start, start + options.per_shard)), sources, options.seed)
        for number, start in enumerate(starts)
    ]
    schema = TRUTH.with_metadata({name: str(value) for name, value in asdict(options).items()})
    n_done = 0
    reporter.progress(Progress("plant", 0, len(rows), "samples"))
    with pq.ParquetWriter(parts / _TRUTH_FILE, schema, compression="zstd") as writer:
        for truth in each_in_order(write_shard, tasks, workers):
            writer.write_table(truth.cast(schema))
            n_done += truth.num_rows
            reporter.progress(Progress("plant", n_done, len(rows), "samples"))
    return [f"{task.number:05d}.tar" for task in tasks]


def _summary(folder: Path, names: Sequence[str], rows: Rows, n_usable: int, account: SourceAccount, run_dir: str) -> PlantSummary:
    of_kind = np.bincount(rows.kind, minlength=len(KINDS) + 1).tolist()
    n_chosen, n_inside, n_background = int(rows.planted_id.max()) + 1, int((rows.other >= 0).sum()), of_kind[-1]
    return PlantSummary(
        out=folder,
        truth=folder / _TRUTH_FILE,
        n_shards=len(names),
        n_bytes=sum((folder / name).stat().st_size for name in names),
        n_written=len(rows),
        written={kind: n for kind, n in zip((*KINDS, BACKGROUND), of_kind, strict=True) if n},
        n_read=account.n_read,
        n_unusable=account.unusable.total(),
        unusable=dict(account.unusable.most_common()),
        n_chosen=n_chosen,
        n_inside=n_inside,
        n_background=n_background,
        n_left_out=n_usable - n_chosen - n_inside - n_background + account.n_not_unique,
        n_not_unique=account.n_not_unique,
        run_dir=run_dir,
        n_broken_shards=len(account.errors),
        errors=tuple(account.errors[:_ERRORS_SHOWN]),
    )
