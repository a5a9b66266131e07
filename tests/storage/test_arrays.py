"""Arrays on local and remote file systems: whole, in stretches, row by row."""

import numpy as np
import pytest

from dedup.runs.vectors import embedding_path, open_store, read_vectors
from dedup.storage.arrays import ArrayWriter, folder_state, map_array, map_arrays, read_array, read_rows, save_array


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(4, 3), np.array([(1, [2, 3]), (4, [5, 6])], dtype=[("a", "i4"), ("b", "i8", 2)])]
)
def test_what_is_saved_is_read(folder, array):
    save_array(f"{folder}/a.npy", array)
    for found in (map_array(f"{folder}/a.npy"), read_array(f"{folder}/a.npy"), read_rows(f"{folder}/a.npy", 0, 99)):
        assert found.dtype == array.dtype
        assert (found == array).all()
    assert (read_rows(f"{folder}/a.npy", 1, 2) == array[1:2]).all()
    assert len(read_rows(f"{folder}/a.npy", 1, 1)) == 0


def test_a_replaced_file_is_read_anew(folder):
    save_array(f"{folder}/x-00001.npy", np.arange(3))
    before = folder_state(folder)
    assert {number: array.tolist() for number, array in map_arrays(folder, "x-").items()} == {1: [0, 1, 2]}
    save_array(f"{folder}/x-00002.npy", np.arange(2))
    assert folder_state(folder) != before
    assert sorted(map_arrays(folder, "x-")) == [1, 2]


def test_vectors_of_some_samples(folder):
    rng = np.random.default_rng(0)
    data = {partition: rng.standard_normal((5_000, 6)).astype(np.float16) for partition in (0, 3)}
    for partition, rows in data.items():
        writer = ArrayWriter(embedding_path(folder, partition), (6,), np.float16)
        writer.write(rows)
        writer.close()
    scattered = [(partition << 32) + rng.choice(5_000, 40, replace=False) for partition in data]
    ids = np.sort(np.concatenate([*scattered, np.arange(2_000, 2_300)])).astype(np.int64)
    ids = np.unique(ids)
    wanted = np.stack([data[sample >> 32][sample & 0xFFFFFFFF] for sample in ids.tolist()])
    assert (read_vectors(folder, ids) == wanted).all()
    assert (open_store(folder).take(ids) == wanted).all()
    assert read_vectors(folder, ids[:0]).shape == (0, 6)
