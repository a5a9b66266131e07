"""The inverted lists' axes and centroids as a file, and who is in which list."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dedup.errors import RunDirectoryError
from dedup.numerics.lists import Lists
from dedup.storage.atomic import write_bytes
from dedup.storage.urls import filesystem, join, read_bytes


def save_lists(folder: str, lists: Lists) -> None:
    """Write `quantizer.npz` into a folder."""
    buffer = io.BytesIO()
    np.savez(buffer, axes=lists.axes, centroids=lists.centroids, offsets=lists.offsets, n_filter=np.int64(lists.n_filter))
    write_bytes(join(folder, "quantizer.npz"), buffer.getvalue())


def load_lists(folder: str) -> Lists:
    """Read `quantizer.npz` of a folder.

    Raises
    ------
    RunDirectoryError
        If there is none.
    """
    data = read_bytes(join(folder, "quantizer.npz"))
    if data is None:
        raise RunDirectoryError(f"{folder} holds no quantizer.npz; run the stage that writes it first: dedup index output.run_dir=… …")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Lists(arrays["axes"], arrays["centroids"], arrays["offsets"], int(arrays["n_filter"]))


def read_assignments(run_dir: str, block: int) -> npt.NDArray[np.int32]:
    """The lists of one block of images, nearest first, int32 (n, nprobe); n > 0, since all of a run have the same number of lists."""
    fs, path = filesystem(join(run_dir, "index", "assignments", f"part-{block:05d}.parquet"))
    with fs.open(path, "rb") as file:
        lists = pq.read_table(file, columns=["lists"])["lists"].combine_chunks()
    rectangle: npt.NDArray[np.int32] = lists.flatten().to_numpy().reshape(len(lists), -1)
    return rectangle
