"""What planted shards are made from: which samples of the user's shards can be used, and where their bytes are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.config.keys import MAX_PIXELS
from dedup.config.rules import refuse_password
from dedup.contracts import Progress, Reporter
from dedup.demo.shards import each_in_order
from dedup.errors import ConfigError, InputError, SampleError
from dedup.numerics.image.layouts import LEAST_SIDE
from dedup.runs.directory import Run
from dedup.schemas.fields import BOOL, INT64
from dedup.stages.embed.prepare import in_chunks
from dedup.storage.images.decode import DecodedImage
from dedup.storage.images.isolated import decode_each_isolated, decode_isolated
from dedup.storage.input.recognise import recognise
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.samples import RawSample, SampleReader
from dedup.storage.input.shards import read_image_bytes, read_shard
from dedup.storage.input.sources import expand_shards
from dedup.storage.tables import dataset
from dedup.storage.urls import absolute, is_local

NO_CAPTION: Final = "no_caption"  # why a sample can't be used, beside the reasons for which a run rejects one
_MOST_OBLONG: Final = 4  # sides of a picture that others are shown in, or that is shown in others, to one another

_LARGE: Final = pa.large_string()  # all captions of a shard may have more bytes than 32 bits count
_ROWS: Final = pa.schema(
    {
        "shard": _LARGE,
        "key": _LARGE,
        "file": _LARGE,
        "byte_offset": INT64,
        "n_bytes": INT64,
        "caption": _LARGE,
        "url": _LARGE,
        "is_plain": BOOL,
    }
)


@dataclass(frozen=True)
class ReadTask:
    """One shard to read."""

    shard: str
    unpacked: str  # path for the images of a shard whose bytes can't be read by their range: a compressed tar, a file of rows
    run_dir: str = ""  # only what this run found to be unique is used


@dataclass(frozen=True)
class ReadResult:
    """What a shard holds."""

    rows: pa.Table  # of `_ROWS`: the samples that can be used, in their order
    n_read: int = 0  # samples
    unusable: dict[str, int] = field(default_factory=dict)  # samples by reason
    n_not_unique: int = 0  # samples that the run drops or has copies of
    error: str = ""  # why the shard could not be read to its end


@dataclass
class SourceAccount:
    """What all shards hold together; every sample that was read is usable, unusable or not unique."""

    n_read: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    n_not_unique: int = 0
    errors: list[str] = field(default_factory=list)  # of shards that could not be read to their end

    def add(self, result: ReadResult) -> None:
        """Add a shard."""
        self.n_read += result.n_read
        self.unusable.update(result.unusable)
        self.n_not_unique += result.n_not_unique
        self.errors += [result.error] if result.error else []


@dataclass(frozen=True)
class Sources:
    """The samples that can be used, on disk: captions and places of a whole data set need not fit into memory. Picklable."""

    path: str  # an Arrow file, a batch for each shard
    starts: npt.NDArray[np.int64]  # the first sample of each batch, and how many there are in all

    def rows(self, numbers: npt.NDArray[np.int64]) -> dict[int, dict[str, Any]]:
        """Rows of samples by their number; `numbers`: shape (n,), distinct."""
        found: dict[int, dict[str, Any]] = {}
        batches = np.searchsorted(self.starts, numbers, side="right") - 1
        with pa.memory_map(self.path) as file:
            reader = pa.ipc.open_file(file)
            for batch in np.unique(batches).tolist():
                of_batch = numbers[batches == batch]
                rows = reader.get_batch(batch).take(pa.array(of_batch - self.starts[batch])).to_pylist()
                found |= dict(zip(of_batch.tolist(), rows, strict=True))
        return found


def source_shards(paths: Sequence[str]) -> list[str]:
    """The shards that paths name, as `expand_shards` gives them; of a local folder those that are in it.

    Raises ConfigError if an address holds a password, or a folder holds no shards.
    Raises InputError if there are none.
    """
    refuse_password("shards", paths)
    patterns: list[str] = []
    for path in paths:
        if not (is_local(path) and os.path.isdir(absolute(path))):
            patterns.append(path)
            continue
        found = recognise([path])
        inside = [value for key, _, value in (text.partition("=") for text in found.overrides) if key == "input.shards"]
        if not inside:
            raise ConfigError(f"{path} holds {found.said[0]}; expected tars, or parquet or Arrow files with images; name another folder")
        patterns += inside
    return expand_shards(patterns)


def read_source(task: ReadTask) -> ReadResult:
    """Read a shard: each sample with its first image, which must decode, and its first caption."""
    unique = _unique_places(task) if task.run_dir else None
    reader = read_shard(task.shard, images="first")
    unusable: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    n_read = n_not_unique = 0
    with _Unpacked(task.unpacked) as unpacked:
        for sample, outcome in _decoded(reader):
            n_read += 1
            if isinstance(outcome, SampleError):
                unusable[outcome.reason] += 1
            elif unique is not None and (sample.key, sample.byte_offset) not in unique:
                n_not_unique += 1
            else:
                found.append(_row(sample, outcome, unpacked))
    if reader.status == "unreadable":
        return ReadResult(_ROWS.empty_table(), error=reader.error or "")
    for row in found:
        late = reader.late.get((row["key"], row["member"]))
        if late is not None:  # the tar is not sorted
            row["caption"] = row["caption"] or next(iter(late.captions), None)
            row["url"] = row["url"] or late.url
    rows = [row for row in found if row["caption"]]
    if len(rows) < len(found):
        unusable[NO_CAPTION] += len(found) - len(rows)
    error = "" if reader.status == "ok" else reader.error or ""
    return ReadResult(pa.Table.from_pylist(rows, schema=_ROWS), n_read, dict(unusable), n_not_unique, error)


def _decoded(reader: SampleReader) -> Iterator[tuple[RawSample, DecodedImage | SampleError]]:
    """Samples with what became of their images, which are decoded no larger than it takes to know that they decode."""
    for chunk in in_chunks((0, sample) for sample in reader):
        images = [sample.image for _, sample in chunk if sample.image is not None]
        decoded = decode_each_isolated(images, max_pixels=MAX_PIXELS, min_side=LEAST_SIDE)
        try:
            for _, sample in chunk:
                yield sample, next(decoded) if sample.image is not None else sample.error or SampleError("no_image")
        finally:
            decoded.close()


def _row(sample: RawSample, image: DecodedImage, unpacked: _Unpacked) -> dict[str, Any]:
    file, offset = sample.shard, sample.byte_offset
    if offset is None or is_row_file(sample.shard):
        file, offset = unpacked.path, unpacked.add(sample.image or b"")
    sides = sorted((image.width, image.height))
    return {
        "shard": sample.shard,
        "key": sample.key,
        "member": sample.member,
        "file": file,
        "byte_offset": offset,
        "n_bytes": sample.n_bytes,
        "caption": sample.caption,
        "url": sample.url,
        "is_plain": image.n_frames == 1 and sides[0] >= LEAST_SIDE and sides[1] <= _MOST_OBLONG * sides[0],
    }


class _Unpacked:
    """A file of images one after another, made when the first comes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def add(self, image: bytes) -> int:
        """Append an image; returns where it begins."""
        if self._file is None:
            self._file = open(self.path, "wb")  # noqa: SIM115 (closed below)
        start = self._file.tell()
        self._file.write(image)
        return start

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


def _unique_places(task: ReadTask) -> set[tuple[str, int | None]]:
    """Key and place of the samples of a shard that a run keeps and has no copy of."""
    is_unique = (pc.field("shard") == task.shard) & (pc.field("duplication_count") == 1) & (pc.field("n_images") == 1)
    table = dataset(Run(task.run_dir).table("manifest")).to_table(columns=["key", "byte_offset"], filter=is_unique)
    return set(zip(table["key"].to_pylist(), table["byte_offset"].to_pylist(), strict=True))


def read_original(row: dict[str, Any]) -> bytes:
    """The image of a sample, byte for byte.

    `row`: of `Sources`.
    Raises InputError if it is no longer where it was.
    """
    try:
        return read_image_bytes(row["file"], row["key"], row["byte_offset"], row["n_bytes"])
    except InputError as error:
        raise InputError(
            f"the image {row['key']!r} of {row['shard']} can't be read a second time; expected shards that stay as they are; run the same "
            "command again"
        ) from error


def read_pixels(row: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The pixels of a sample's image, shape (height, width, 3); RGB.

    Raises InputError if it is no longer what it was.
    """
    try:
        return decode_isolated(read_original(row), max_pixels=MAX_PIXELS).pixels
    except SampleError as error:
        raise InputError(
            f"the image {row['key']!r} of {row['shard']} decoded when it was read first and does not now ({error}); expected shards that "
            "stay as they are; run the same command again"
        ) from error


def read_sources(
    tasks: Sequence[ReadTask], path: str, workers: int, reporter: Reporter
) -> tuple[Sources, npt.NDArray[np.bool_], SourceAccount]:
    """Read all shards.

    `path`: of the Arrow file that `Sources` reads.
    Returns the samples that can be used; which of them can be changed or shown in others, shape (n,); and the account of all samples.
    """
    starts, is_plain, account = [0], [np.zeros(0, dtype=bool)], SourceAccount()
    reporter.progress(Progress("read", 0, len(tasks), "shards"))
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, _ROWS) as writer:
        for number, result in enumerate(each_in_order(read_source, tasks, workers), 1):
            account.add(result)
            if result.rows.num_rows:
                writer.write_batch(result.rows.combine_chunks().to_batches()[0])
                starts.append(starts[-1] + result.rows.num_rows)
                is_plain.append(result.rows["is_plain"].to_numpy())
            reporter.progress(Progress("read", number, len(tasks), "shards"))
    return Sources(path, np.array(starts, dtype=np.int64)), np.concatenate(is_plain), account
