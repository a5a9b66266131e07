"""Stage `embed` for embeddings that are there already: rows are copied into a run, no image is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.runs.directory import Run
from dedup.runs.vectors import embedding_path
from dedup.schemas import REJECTED
from dedup.storage.arrays import ArrayWriter
from dedup.storage.input.published import EmbeddingFile, read_embeddings
from dedup.storage.input.samples import ShardStatus, one_line
from dedup.storage.tables import FileWriter
from dedup.storage.urls import filesystem, is_local, join

Batch = tuple[npt.NDArray[np.float32], pa.Table]
_LEAST_NORM = 1e-6  # of a vector that has a direction
_UNKNOWN_QUALITY = 100.0  # of an image that was not looked at: the stricter rule for low detail does not apply


@dataclass
class CopiedRows:
    """What became of the rows of a partition."""

    n_samples: int = 0
    n_rejected: int = 0
    status: ShardStatus = "ok"
    error: str | None = None
    is_reachable: bool = True


def copy_embeddings(run: Run, partition: int, sources: list[EmbeddingFile], *, by_bytes: bool) -> tuple[list[CopiedRows], dict[str, int]]:
    """Write unit rows and metadata of a partition.

    `by_bytes`: whether equal images are known by the `sha256` of their bytes; else by that of their rows.
    Returns of each source. What breaks off is kept up to there.
    Returns names of the partition's files with their sizes in bytes.
    """
    table = run.table("metadata")
    urls = {
        f"img_emb/img_emb_{partition:05d}.npy": embedding_path(run.path("embeddings"), partition),
        f"metadata/metadata_{partition:05d}.parquet": join(table.path, f"metadata_{partition:05d}.parquet"),
        f"rejected/rejected_{partition:05d}.parquet": join(run.table("rejected").path, f"rejected_{partition:05d}.parquet"),
    }
    vectors_url, metadata_url, rejected_url = urls.values()
    copied: list[CopiedRows] = []
    writers = (
        ArrayWriter(vectors_url, (sources[0].dim,), np.float16),
        FileWriter(metadata_url, table.schema),
        FileWriter(rejected_url, REJECTED),
    )
    vectors, metadata, rejected = writers
    try:
        first = partition << 32
        for source in sources:
            found = CopiedRows()
            for rows, known in _until_it_breaks(source, run.config.input.carry, found):
                unit, is_good = unit_float16(rows)
                good, bad = known.filter(pa.array(is_good)), known.filter(pa.array(~is_good))
                vectors.write(unit)
                metadata.write(_metadata(good, unit, first, source, by_bytes=by_bytes))
                first += len(unit)
                if len(bad):
                    rejected.write(_rejected(bad, source))
                found.n_samples += len(unit)
                found.n_rejected += len(bad)
            copied.append(found)
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
    return copied, sizes


def _until_it_breaks(source: EmbeddingFile, carry: Sequence[str], found: CopiedRows) -> Iterator[Batch]:
    """Read a file; that it can't be read to its end is noted."""
    try:
        yield from read_embeddings(source, carry)
    except Exception as error:  # of pyarrow, numpy or the file system
        # what lies here and can't be read is broken and stays so; what could not be fetched may be there next time
        is_broken = is_local(source.url) or isinstance(error, ValueError)
        found.status, found.error, found.is_reachable = "truncated", one_line(error), is_broken


def unit_float16(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Rows brought to length 1 and rounded, of those that are finite and have a direction; and which those are."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    is_good = np.isfinite(norms) & (norms > _LEAST_NORM)
    unit = (rows[is_good] / norms[is_good, None]).astype(np.float16)
    return unit, is_good


def _metadata(known: pa.Table, unit: npt.NDArray[np.float16], first: int, source: EmbeddingFile, *, by_bytes: bool) -> pa.Table:
    n = len(unit)
    columns = {name: known[name] for name in known.column_names}
    columns["sample_id"] = pa.array(np.arange(first, first + n, dtype=np.int64))
    of_rows = [hashlib.sha256(row.tobytes()).hexdigest() for row in unit] if not by_bytes or known["sha256"].null_count else []
    if of_rows:
        columns["sha256"] = pc.coalesce(known["sha256"], pa.array(of_rows)) if by_bytes else pa.array(of_rows)
    columns["key"] = pc.coalesce(known["key"], pa.scalar(""))
    if source.has_places:
        columns["shard"] = pc.coalesce(known["shard"], pa.scalar(source.url))
    else:
        columns |= {"shard": pa.repeat(source.url, n), "byte_offset": pa.nulls(n, pa.int64()), "n_bytes": pa.nulls(n, pa.int64())}
    for name in ("width", "height", "n_bytes"):
        columns[name] = pc.fill_null(columns[name], 0)
    columns |= {"quality": pa.repeat(pa.scalar(_UNKNOWN_QUALITY, pa.float32()), n), "caption_similarity": pa.nulls(n, pa.float32())}
    return pa.table(columns)


def _rejected(known: pa.Table, source: EmbeddingFile) -> pa.Table:
    n = len(known)
    return pa.table(
        {
            "shard": pa.repeat(source.url, n),
            "key": pc.coalesce(known["key"], pa.scalar("")),
            "reason": pa.repeat("bad_embedding", n),
            "detail": pa.repeat(f"expected {source.dim} finite numbers that are not all 0", n),
        }
    )
