"""Synthetic embeddings with planted pairs, as a finished `embed` stage.

Well-separated blobs flatter any index, so the vectors have a power-law spectrum: eigenvalue k of their
covariance falls as 1/k, as those of real encoders do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import Config, ConfirmConfig, IndexConfig, OutputConfig, ReportConfig, SearchConfig
from dedup.config.load import resolved
from dedup.contracts import Table
from dedup.pipeline.stages import STAGES
from dedup.runs.directory import Run
from dedup.runs.record import StageRecord, write_record
from dedup.runs.vectors import embedding_path
from dedup.storage.arrays import ArrayWriter
from dedup.storage.tables import FileWriter, write_table
from dedup.storage.urls import join

ROWS_PER_PARTITION = 100_000


@dataclass(frozen=True)
class Planted:
    """Positions of the planted pairs and the cosine each was planted at."""

    original: npt.NDArray[np.int64]
    copy: npt.NDArray[np.int64]


def vectors_only(run_dir: str, search: SearchConfig, index: IndexConfig) -> Config:
    """Configuration of a run over vectors without pictures: no views, no confirmation, no report; lists at every size."""
    config = replace(
        Config(),
        output=OutputConfig(run_dir),
        search=replace(search, views=False, exhaustive_below=0),
        index=index,
        confirm=ConfirmConfig(enabled=False),
        report=ReportConfig(enabled=False),
    )
    return resolved(config)


def power_law_rows(rng: np.random.Generator, n: int, dim: int) -> npt.NDArray[np.float32]:
    """Unit rows whose covariance has eigenvalues 1/k, shape (n, dim)."""
    rows = rng.standard_normal((n, dim), dtype=np.float32) * (np.arange(1, dim + 1, dtype=np.float32) ** -0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def near_copies(rng: np.random.Generator, rows: npt.NDArray[np.float32], cosine: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """For each row a unit vector at the given cosine; the difference has the same spectrum."""
    other = power_law_rows(rng, len(rows), rows.shape[1])
    other -= np.einsum("ij,ij->i", other, rows)[:, None] * rows
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return cosine[:, None] * rows + np.sqrt(1.0 - cosine**2)[:, None] * other


def write_embeddings(
    config: Config,
    n: int,
    dim: int,
    *,
    share: float,
    low: float,
    high: float,
    seed: int = 0,
    n_crowd: int = 0,
    crowd_cosine: float = 0.99,
    n_equal: int = 0,
) -> Planted:
    """Write n vectors as partitions of a run: a share planted as near copies of others, and a crowd around one.

    Each planted copy follows in the partition of its original; planted cosines are uniform in [low, high].
    The crowd are near copies of one vector at cosines in [crowd_cosine, 1); n_equal further samples are that vector, from equal bytes.
    """
    run = Run(config.output.run_dir)
    originals, copies = [], []
    n_crowd_left, n_equal_left = n_crowd, n_equal
    starts = range(0, n, ROWS_PER_PARTITION)
    centre = power_law_rows(np.random.default_rng(seed), 1, dim)
    for partition, start in enumerate(starts):
        rng = np.random.default_rng([seed, partition])
        size = min(ROWS_PER_PARTITION, n - start)
        rows = power_law_rows(rng, size, dim)
        n_pairs = int(share * size)
        place = rng.permutation(size)
        original, copy, rest = place[:n_pairs], place[n_pairs : 2 * n_pairs], place[2 * n_pairs :]
        rows[copy] = near_copies(rng, rows[original], rng.uniform(low, high, n_pairs).astype(np.float32))
        originals.append(original + (partition << 32))
        copies.append(copy + (partition << 32))
        crowd = rest[: min(-(-n_crowd_left // (len(starts) - partition)), len(rest))]
        rows[crowd] = near_copies(rng, np.repeat(centre, len(crowd), 0), rng.uniform(crowd_cosine, 0.9999, len(crowd)).astype(np.float32))
        n_crowd_left -= len(crowd)
        rest = rest[len(crowd) :]
        equal = rest[: min(-(-n_equal_left // (len(starts) - partition)), len(rest))]
        rows[equal] = centre
        n_equal_left -= len(equal)
        writer = ArrayWriter(embedding_path(f"{config.output.run_dir}/embeddings", partition), (dim,), np.float16)
        writer.write(rows)
        writer.close()
        _write_metadata(run.table("metadata"), partition, size, equal)
    _write_partitions(run, n, len(starts))
    stage = STAGES[0]
    record = StageRecord(
        "embed", stage.output_version, stage.picked(resolved(config)), {"input": f"synthetic {n}"}, {"model": "synthetic"}, {"metadata": n}
    )
    write_record(config.output.run_dir, record)
    return Planted(np.concatenate(originals), np.concatenate(copies))


def _write_metadata(table: Table, partition: int, n: int, equal: npt.NDArray[np.int64]) -> None:
    ids = np.arange(n) + (partition << 32)
    sha256 = [f"{i:064x}" for i in ids.tolist()]
    for place in equal.tolist():
        sha256[place] = "e" * 64
    with FileWriter(join(table.path, f"metadata_{partition:05d}.parquet"), table.schema) as writer:
        writer.write(
            pa.table(
                {
                    "sample_id": ids,
                    "shard": pa.repeat(f"synthetic-{partition:05d}.tar", n),
                    "key": pa.array([f"{i:012d}" for i in ids.tolist()]),
                    "member": pa.repeat("jpg", n),
                    "n_images": np.ones(n, np.int32),
                    "first_image_id": ids,
                    "url": pa.nulls(n, pa.string()),
                    "caption": pa.nulls(n, pa.string()),
                    "captions": pa.nulls(n, pa.list_(pa.string())),
                    "sha256": pa.array(sha256),
                    "width": np.full(n, 400, np.int32),
                    "height": np.full(n, 350, np.int32),
                    "n_frames": np.ones(n, np.int32),
                    "format": pa.repeat("JPEG", n),
                    "jpeg_quality": np.full(n, 90, np.int32),
                    "exif_date": pa.nulls(n, pa.string()),
                    "mtime": pa.nulls(n, pa.int64()),
                    "file": pa.nulls(n, pa.string()),
                    "row": pa.nulls(n, pa.int64()),
                    "n_bytes": np.full(n, 110_000),
                    "byte_offset": pa.nulls(n, pa.int64()),
                    "quality": np.full(n, 80.0, np.float32),
                    "caption_similarity": pa.nulls(n, pa.float32()),
                }
            )
        )


def _write_partitions(run: Run, n: int, n_partitions: int) -> None:
    rows = [
        {
            "partition": k,
            "shard": f"synthetic-{k:05d}.tar",
            "status": "ok",
            "error": None,
            "n_samples": min(ROWS_PER_PARTITION, n - k * ROWS_PER_PARTITION),
            "n_rejected": 0,
            "n_late": 0,
        }
        for k in range(n_partitions)
    ]
    table = run.table("partitions")
    write_table(table, [pa.Table.from_pylist(rows, schema=table.schema)])
    write_table(Table(run.table("rejected").path, run.table("rejected").schema), [], "rejected_00000")
