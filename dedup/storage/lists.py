"""The inverted lists' axes and centroids as a file."""

from __future__ import annotations

import io

import numpy as np

from dedup.errors import RunDirectoryError
from dedup.numerics.lists import Lists
from dedup.storage.tables import join, read_bytes, write_bytes


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
