"""The files of a run's index: the FAISS index for lookups, and the inverted lists that pairs are found in."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dedup.errors import RunDirectoryError
from dedup.numerics.search.lists import Lists
from dedup.storage.arrays import clear_files, folder_state
from dedup.storage.atomic import Replacement, write_bytes
from dedup.storage.urls import filesystem, is_local, join, read_bytes, read_json

FORMAT = 1  # of the index's files; another one is not read

INDEX = "index.faiss"

LISTS = "index.ivfdata"


def index_files(run_dir: str) -> dict[str, int]:
    """Names and sizes in bytes of the index's files, as they are there."""
    fs, folder = filesystem(join(run_dir, "index"))
    fs.invalidate_cache(folder)
    return {name: int(fs.size(join(folder, name))) for name in (INDEX, LISTS) if fs.exists(join(folder, name))}


def clear_index(run_dir: str) -> None:
    """Delete the index and what a stopped stage left of its parts."""
    for name in (INDEX, LISTS):
        clear_files(join(run_dir, "index"), name)
    clear_files(join(run_dir, "index", "_parts"), "*.faiss")


def publish_index(run_dir: str, index: str, lists: str) -> None:
    """Move the files of a merged index, on this machine, to their place: the lists first, since the index names them."""
    fs, folder = filesystem(join(run_dir, "index"))
    for path, name in ((lists, LISTS), (index, INDEX)):
        if is_local(run_dir):
            os.replace(path, join(folder, name))
        else:
            fs.put_file(path, join(folder, name))


def how_to_rebuild(run_dir: str) -> str:
    """What to do about an index whose files are damaged: its stage counts as done while its record is there."""
    return f"delete {join(run_dir, 'index', '_stage.json')} and run: dedup run --only index output.run_dir={run_dir} …"


def find_index(run_dir: str) -> str:
    """The path of a run's index on this machine, checked against what the stage wrote; fetched if the run lies elsewhere.

    Raises
    ------
    RunDirectoryError
        If there is none, or its files are not those that the stage `index` wrote.
    """
    record = read_json(join(run_dir, "index", "_index.json")) or {}
    expected = record.get("files")
    again = f"run: dedup run --from index output.run_dir={run_dir} … --redo"
    if not expected:
        why = "index.codes=none" if record.get("codes") == "none" else "an earlier version"
        raise RunDirectoryError(f"{run_dir} holds no searchable index (it was made with {why}); {again}")
    if record.get("format") != FORMAT:
        raise RunDirectoryError(f"{run_dir} holds an index of format {record.get('format')}, expected {FORMAT}; {again}")
    found = index_files(run_dir)
    for name, n_bytes in expected.items():
        if found.get(name) != n_bytes:
            there = "is missing" if name not in found else f"has {found[name]:,} bytes"
            raise RunDirectoryError(f"{join(run_dir, 'index', name)} {there}, expected {n_bytes:,}; {how_to_rebuild(run_dir)}")
    fs, folder = filesystem(join(run_dir, "index"))
    if is_local(run_dir):
        return join(folder, INDEX)
    state = folder_state(join(run_dir, "index"))
    local = os.path.join(tempfile.gettempdir(), f"dedup-index-{os.getuid()}-{hashlib.sha256((run_dir + state).encode()).hexdigest()[:24]}")
    os.makedirs(local, mode=0o700, exist_ok=True)
    for name, n_bytes in expected.items():
        path = os.path.join(local, name)
        if not os.path.exists(path) or os.path.getsize(path) != n_bytes:
            with Replacement(path) as partial:
                fs.get_file(join(folder, name), partial)
    return os.path.join(local, INDEX)


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
        raise RunDirectoryError(
            f"{folder} holds no quantizer.npz; run the stage that writes it first: dedup run --only index output.run_dir=… …"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Lists(arrays["axes"], arrays["centroids"], arrays["offsets"], int(arrays["n_filter"]))


def read_assignments(run_dir: str, block: int) -> npt.NDArray[np.int32]:
    """The lists of one block of images, nearest first, int32 (n, nprobe); n > 0, since all of a run have the same number of lists."""
    fs, path = filesystem(join(run_dir, "index", "assignments", f"part-{block:05d}.parquet"))
    with fs.open(path, "rb") as file:
        lists = pq.read_table(file, columns=["lists"])["lists"].combine_chunks()
    rectangle: npt.NDArray[np.int32] = lists.flatten().to_numpy().reshape(len(lists), -1)
    return rectangle
