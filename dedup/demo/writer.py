"""One demo shard: its samples made and written to a tar, and its rows of the truth."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.demo.plan import BROKEN
from dedup.demo.samples import Sample, SampleMaker

TRUTH = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("source_id", pa.int64(), nullable=False),
        pa.field("change", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("is_broken", pa.bool_(), nullable=False),
        pa.field("is_expected", pa.bool_(), nullable=False),
        pa.field("caption", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write: its slice of the plan and what makes its samples."""

    out: Path
    number: int
    first: int
    sources: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    maker: SampleMaker


def write_shard(task: ShardTask) -> pa.Table:
    """Write the tar of a task, under a name that starts with "_" until it is whole.

    Parameters
    ----------
    task : ShardTask

    Returns
    -------
    pyarrow.Table
        Of schema `TRUTH`, a row per sample in the order of the tar.
    """
    name = f"{task.number:05d}.tar"
    unfinished = task.out / f"_{name}"
    rows = []
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, (source, role) in enumerate(zip(task.sources.tolist(), task.roles.tolist(), strict=True)):
            key = f"{task.number:05d}{index:04d}"
            # not the key right before: two neighbours of one key would read as one sample
            earlier = next((i for i in range(index - 2, -1, -1) if task.roles[i] != BROKEN), None)
            earlier_key = None if earlier is None else f"{task.number:05d}{earlier:04d}"
            sample = task.maker.make(task.first + index, source, role, key, earlier_key)
            _add(tar, sample)
            rows.append(
                {
                    "key": sample.key,
                    "shard": name,
                    "source_id": source,
                    "change": sample.change,
                    "family": sample.family,
                    "is_broken": sample.is_broken,
                    "is_expected": sample.is_expected,
                    "caption": sample.caption,
                }
            )
    unfinished.replace(task.out / name)
    return pa.Table.from_pylist(rows, schema=TRUTH)


def _add(tar: tarfile.TarFile, sample: Sample) -> None:
    members = [(sample.suffix, sample.image), ("json", sample.meta)]
    if sample.caption is not None:
        members.append(("txt", sample.caption.encode()))
    for suffix, data in members:
        info = tarfile.TarInfo(f"{sample.key}.{suffix}")
        info.size = len(data)  # mtime, uid and gid stay 0: the same arguments give the same bytes
        tar.addfile(info, io.BytesIO(data))
