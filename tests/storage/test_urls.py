"""What names this machine's disk is read and written there, however it is written."""

import errno
import os

import numpy as np
import pyarrow as pa
import pytest

from dedup.contracts import Table
from dedup.find.inputs import find_inputs
from dedup.storage.arrays import map_array, map_arrays, save_array
from dedup.storage.atomic import AtomicFile, link_or_copy, write_bytes
from dedup.storage.input.shards import read_image_bytes
from dedup.storage.tables import FileWriter, read_table, write_table
from dedup.storage.urls import RangeReader, absolute, filesystem, is_local, local_path, matching, open_binary, read_bytes


@pytest.fixture(params=["", "file://", "local://"], ids=["path", "file", "local"])
def folder(request, tmp_path):
    return request.param + str(tmp_path)


def test_one_meaning_of_local(folder, tmp_path):
    assert is_local(folder)
    assert absolute(folder) == local_path(folder) == filesystem(folder)[1] == str(tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket/a", "memory://a", "https://host/a", "simplecache::file:///a", "zip://a::/b.zip"])
def test_others_stay_as_they_are(url):
    assert not is_local(url)
    assert absolute(url) == url


def test_every_reader_finds_the_bytes(folder):
    url = f"{folder}/new/a.bin"
    write_bytes(url, b"0123456789")
    assert read_bytes(url) == b"0123456789"
    with open_binary(url) as file:
        assert file.read() == b"0123456789"
    reader = RangeReader()
    assert [reader.read(url, 2, 3), reader.read(url, 8, 5)] == [b"234", b"89"]
    assert read_image_bytes(url, "a", 2, 3) == b"234"
    assert [local_path(path) for path in find_inputs([url])] == [f"{local_path(folder)}/new/a.bin"]


def test_every_writer_leaves_whole_files_alone(folder, tmp_path):
    rows = pa.table({"a": [1, 2]})
    write_table(Table(f"{folder}/table", rows.schema), [rows])
    save_array(f"{folder}/array-00001.npy", np.arange(3))
    link_or_copy(f"{folder}/array-00001.npy", f"{folder}/linked.npy")
    with AtomicFile(f"{folder}/text") as file:
        file.write(b"text")
    for writer in (AtomicFile(f"{folder}/broken"), FileWriter(f"{folder}/broken.parquet", rows.schema)):
        with pytest.raises(ZeroDivisionError), writer:
            raise ZeroDivisionError
    assert sorted(os.listdir(tmp_path)) == ["array-00001.npy", "linked.npy", "table", "text"]
    assert read_table(Table(f"{folder}/table", rows.schema)).equals(rows)
    assert map_array(f"{folder}/linked.npy").tolist() == map_arrays(folder, "array-")[1].tolist() == [0, 1, 2]
    assert (tmp_path / "linked.npy").samefile(tmp_path / "array-00001.npy")


def test_files_that_match_a_pattern(tmp_path):
    folder = tmp_path / "run [1]*"
    (folder / "part-2.parquet.d").mkdir(parents=True)
    for name in ("part-1.parquet", "part-0.parquet", "_part-2.parquet", "notes"):
        (folder / name).touch()
    assert matching(str(folder), "part-*.parquet") == [str(folder / f"part-{i}.parquet") for i in (0, 1)]
    assert matching(str(folder), "_*") == [str(folder / "_part-2.parquet")]
    assert matching(str(tmp_path / "none"), "*") == []
    assert matching(str(folder / "notes"), "x*") == []


def test_a_folder_that_can_not_be_listed_is_not_an_empty_one(tmp_path, monkeypatch):
    def scandir(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match="Too many open files"):
        matching(str(tmp_path), "*")
