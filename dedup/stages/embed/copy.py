"""Published embeddings as a partition of a run: their metadata, and their vectors as unit rows, read where they lie if they are that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.numerics.arraytypes import Mask, Rows16, Rows32
from dedup.runs.directory import Run
from dedup.runs.vectors import embedding_path
from dedup.schemas import METADATA, REJECTED
from dedup.stages.embed.texts import TextCounts
from dedup.storage.arrays import ArrayWriter, is_laid_out_as, read_rows
from dedup.storage.atomic import link_to
from dedup.storage.input.published_rows import BATCH_ROWS, EmbeddingFile, read_embeddings
from dedup.storage.input.samples import ShardStatus, one_line
from dedup.storage.tables import FileWriter
from dedup.storage.urls import filesystem, is_local, join

Batch = tuple[Rows32, pa.Table]

_LEAST_NORM = 1e-6  # of a vector that has a direction
_UNIT = 5e-4  # by which lengths of unit rows in float16 may differ from 1: rounding makes some 1e-4

_UNKNOWN_QUALITY = 100.0  # of an image whose pixels were not read: the stricter rule for low detail does not apply


@dataclass
class CopiedRows:
    """The outcome of a source's rows."""

    n_samples: int = 0
    n_rejected: int = 0
    status: ShardStatus = "ok"
    error: str | None = None
    is_reachable: bool = True
    n_late: int = 0


def copy_embeddings(
    run: Run, partition: int, sources: list[EmbeddingFile], texts: TextCounts, *, by_bytes: bool
) -> tuple[list[CopiedRows], dict[str, int]]:
    """Write metadata and unit rows of a partition; a file that breaks off is kept up to there.

    Rows of a single array that are float16 and of length 1 are not written again: a link leads to it, unless `embed.copy_vectors` is set.

    `texts`: gains the counts of captions and carried columns.

    `by_bytes`: whether equal images are identified by the `sha256` of their bytes; else by that of their rows.
    Returns the outcome of each source, and the partition's files with their sizes in bytes.
    """
    table = run.table("metadata")
    urls = {
        f"img_emb/img_emb_{partition:05d}.npy": embedding_path(run.path("embeddings"), partition),
        f"metadata/metadata_{partition:05d}.parquet": join(table.path, f"metadata_{partition:05d}.parquet"),
        f"rejected/rejected_{partition:05d}.parquet": join(run.table("rejected").path, f"rejected_{partition:05d}.parquet"),
    }
    vectors_url, metadata_url, rejected_url = urls.values()
    outcomes: list[CopiedRows] = []
    writers = (
        _UnitRows(vectors_url, sources, may_link=not run.config.embed.copy_vectors),
        FileWriter(metadata_url, table.schema),
        FileWriter(rejected_url, REJECTED),
    )
    vectors, metadata, rejected = writers
    try:
        first = partition << 32
        for source in sources:
            outcome, n_read = CopiedRows(), 0
            for rows, columns in _until_it_breaks(source, run.config.input.carry, outcome):
                unit, is_good = vectors.add(rows)
                numbers = np.arange(n_read, n_read + len(rows), dtype=np.int64)
                columns, n_read = columns.append_column("row", pa.array(numbers)), n_read + len(rows)
                good, bad = columns.filter(pa.array(is_good)), columns.filter(pa.array(~is_good))
                texts.add_table(good, run.config.input.carry)
                metadata.write(_metadata(good, unit, first, source, by_bytes=by_bytes))
                first += len(unit)
                if len(bad):
                    rejected.write(_rejected(bad, source))
                outcome.n_samples += len(unit)
                outcome.n_rejected += len(bad)
            outcomes.append(outcome)
        for writer in writers:
            writer.close()
    except BaseException:
        for writer in writers:
            writer.abort()
        raise
    sizes = {}
    for name, url in urls.items():
        fs, path = filesystem(url)
        sizes[name] = int(fs.size(path))
    return outcomes, sizes


class _UnitRows:
    """The vectors of a partition as unit rows: a file of its own, or a link to the only array if its rows are that already."""

    def __init__(self, url: str, sources: Sequence[EmbeddingFile], *, may_link: bool) -> None:
        self._url, self._source, self._n_linked = url, sources[0], 0
        self._writer: ArrayWriter | None = None
        if not (may_link and len(sources) == 1 and is_local(url) and may_be_linked(sources[0])):
            self._start()

    def _start(self) -> None:
        """Write a file, with the rows so far."""
        self._writer = ArrayWriter(self._url, (self._source.dim,), np.float16)
        for start in range(0, self._n_linked, BATCH_ROWS):
            rows = read_rows(self._source.url, start, min(start + BATCH_ROWS, self._n_linked))
            self._writer.write(unit_float16(rows.astype(np.float32))[0])

    def add(self, rows: Rows32) -> tuple[Rows16, Mask]:
        """Take the next rows of the source; returns those that are good, as they will be read, and which they are."""
        if self._writer is None and not bool((np.abs(_lengths(rows) - 1) <= _UNIT).all()):
            self._start()
        if self._writer is None:
            self._n_linked += len(rows)
            return rows.astype(np.float16), np.ones(len(rows), dtype=bool)
        unit, is_good = unit_float16(rows)
        self._writer.write(unit)
        return unit, is_good

    def close(self) -> None:
        """Finish the file or the link."""
        if self._writer is None and self._n_linked == self._source.n_rows:
            try:
                link_to(self._source.url, self._url)
                return
            except OSError:  # a file system without links
                self._start()
        elif self._writer is None:  # the source broke off
            self._start()
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.abort()


def may_be_linked(source: EmbeddingFile) -> bool:
    """Whether the vectors of a file are laid out as a run's are, so that they need no copy if their length is 1."""
    return is_local(source.url) and source.url.endswith(".npy") and is_laid_out_as(source.url, np.float16)


def _until_it_breaks(source: EmbeddingFile, carry: Sequence[str], outcome: CopiedRows) -> Iterator[Batch]:
    """Read a file; an error that ends it early is put into the outcome."""
    try:
        yield from read_embeddings(source, carry)
    except Exception as error:  # of pyarrow, numpy or the file system
        # a local file that can't be read is broken for good; a remote one may come back
        is_broken = is_local(source.url) or isinstance(error, ValueError)
        outcome.status, outcome.error, outcome.is_reachable = "truncated", one_line(error), is_broken


def _lengths(rows: Rows32) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return lengths


def unit_float16(rows: Rows32) -> tuple[Rows16, Mask]:
    """Rows scaled to length 1 and rounded, without those that are not finite or have no direction; and which rows were good.

    Rows that have length 1 but for rounding stay as they are, as where they are read in place: equal rows have equal digests everywhere.
    """
    norms = _lengths(rows)
    is_good = np.isfinite(norms) & (norms > _LEAST_NORM)
    norms[np.abs(norms - 1) <= _UNIT] = 1.0
    unit = (rows[is_good] / norms[is_good, None]).astype(np.float16)
    return unit, is_good


def _metadata(table: pa.Table, unit: Rows16, first: int, source: EmbeddingFile, *, by_bytes: bool) -> pa.Table:
    n = len(unit)
    columns = {name: table[name] for name in table.column_names}
    columns["sample_id"] = pa.array(np.arange(first, first + n, dtype=np.int64))
    digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in unit] if not by_bytes or table["sha256"].null_count else []
    if digests:
        columns["sha256"] = pc.coalesce(table["sha256"], pa.array(digests)) if by_bytes else pa.array(digests)
    columns["key"] = pc.coalesce(table["key"], pa.scalar(""))
    if source.has_places:
        columns["shard"] = pc.coalesce(table["shard"], pa.scalar(source.url))
    else:
        columns |= {"shard": pa.repeat(source.url, n), "byte_offset": pa.nulls(n, pa.int64()), "n_bytes": pa.nulls(n, pa.int64())}
    for name in ("width", "height", "n_bytes"):
        columns[name] = pc.fill_null(columns[name], 0)
    columns |= {
        "member": pa.nulls(n, pa.string()),
        "n_images": pa.repeat(pa.scalar(1, pa.int32()), n),
        "first_image_id": columns["sample_id"],
    }
    columns |= {"quality": pa.repeat(pa.scalar(_UNKNOWN_QUALITY, pa.float32()), n), "caption_similarity": pa.nulls(n, pa.float32())}
    columns |= {name: pa.nulls(n, METADATA.field(name).type) for name in ("format", "jpeg_quality", "exif_date", "mtime")}
    columns |= {"n_frames": pa.nulls(n, pa.int32()), "file": pa.repeat(source.url, n)}
    return pa.table(columns)


def _rejected(table: pa.Table, source: EmbeddingFile) -> pa.Table:
    n = len(table)
    return pa.table(
        {
            "shard": pa.repeat(source.url, n),
            "key": pc.coalesce(table["key"], pa.scalar("")),
            "member": pa.nulls(n, pa.string()),
            "reason": pa.repeat("bad_embedding", n),
            "detail": pa.repeat(f"expected {source.dim} finite numbers that are not all 0", n),
        }
    )
