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

FORMAT = 1  # of the index's files; no other is read
INDEX = "index.faiss"
LISTS = "index.ivfdata"


def index_files(folder: str) -> dict[str, int]:
    """Names and sizes in bytes of the index's files that exist."""
    fs, root = filesystem(folder)
    fs.invalidate_cache(root)
    return {name: int(fs.size(join(root, name))) for name in (INDEX, LISTS) if fs.exists(join(root, name))}


def clear_index(folder: str) -> None:
    """Delete the index, and parts left by an interrupted stage."""
    for name in (INDEX, LISTS):
        clear_files(folder, name)
    clear_files(join(folder, "_parts"), "*.faiss")


def publish_index(folder: str, index: str, lists: str) -> None:
    """Move the files of a merged index from this machine to the folder; the lists first, since the index refers to them."""
    fs, root = filesystem(folder)
    for path, name in ((lists, LISTS), (index, INDEX)):
        if is_local(folder):
            os.replace(path, join(root, name))
        else:
            fs.put_file(path, join(root, name))


def how_to_rebuild(folder: str) -> str:
    """What to do about an index whose files are damaged: its stage counts as done while its record is there."""
    run_dir = folder.rpartition("/")[0]
    return f"delete {join(run_dir, '_stages', 'index.json')} and run: dedup run --only index output.run_dir={run_dir} …"


def find_index(folder: str) -> str:
    """The path of the index on this machine, fetched if the run is remote.

    Raises RunDirectoryError if there is none, or its files are not those that the stage `index` wrote.
    """
    record = read_json(join(folder, "_index.json")) or {}
    expected = record.get("files")
    redo = "run: dedup run --from index … --redo"
    if not expected:
        why = "index.codes=none" if record.get("codes") == "none" else "an earlier version"
        raise RunDirectoryError(f"{folder} holds no searchable index (it was made with {why}); {redo}")
    if record.get("format") != FORMAT:
        raise RunDirectoryError(f"{folder} holds an index of format {record.get('format')}, expected {FORMAT}; {redo}")
    sizes = index_files(folder)
    for name, n_bytes in expected.items():
        if sizes.get(name) != n_bytes:
            problem = "is missing" if name not in sizes else f"has {sizes[name]:,} bytes"
            raise RunDirectoryError(f"{join(folder, name)} {problem}, expected {n_bytes:,}; {how_to_rebuild(folder)}")
    fs, root = filesystem(folder)
    if is_local(folder):
        return join(root, INDEX)
    state = folder_state(folder)
    local = os.path.join(tempfile.gettempdir(), f"dedup-index-{os.getuid()}-{hashlib.sha256((folder + state).encode()).hexdigest()[:24]}")
    os.makedirs(local, mode=0o700, exist_ok=True)
    for name, n_bytes in expected.items():
        path = os.path.join(local, name)
        if not os.path.exists(path) or os.path.getsize(path) != n_bytes:
            with Replacement(path) as partial:
                fs.get_file(join(root, name), partial)
    return os.path.join(local, INDEX)


def save_lists(folder: str, lists: Lists) -> None:
    """Write `quantizer.npz` into a folder."""
    buffer = io.BytesIO()
    np.savez(buffer, axes=lists.axes, centroids=lists.centroids, offsets=lists.offsets, n_filter=np.int64(lists.n_filter))
    write_bytes(join(folder, "quantizer.npz"), buffer.getvalue())


def load_lists(folder: str) -> Lists:
    """Read `quantizer.npz` of a folder.

    Raises RunDirectoryError if there is none.
    """
    data = read_bytes(join(folder, "quantizer.npz"))
    if data is None:
        raise RunDirectoryError(f"{folder} holds no quantizer.npz; run the stage that writes it first: dedup run --only index …")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Lists(arrays["axes"], arrays["centroids"], arrays["offsets"], int(arrays["n_filter"]))


def read_assignments(folder: str, block: int) -> npt.NDArray[np.int32]:
    """The lists of a block of images, nearest first, shape (n, nprobe); n > 0, and all images of a run have the same number of lists."""
    fs, path = filesystem(join(folder, "assignments", f"part-{block:05d}.parquet"))
    with fs.open(path, "rb") as file:
        lists = pq.read_table(file, columns=["lists"])["lists"].combine_chunks()
    rectangle: npt.NDArray[np.int32] = lists.flatten().to_numpy().reshape(len(lists), -1)
    return rectangle
