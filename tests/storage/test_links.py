"""Files under a second name, on local and other file systems."""

import errno
import os

import fsspec
import pytest

from dedup.storage.atomic import link_or_copy


@pytest.fixture
def remote():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/links/there/a.bin", b"remote")
    yield "memory://links/there"
    fs.rm("/links", recursive=True)


def test_a_local_file_is_linked_and_a_later_one_is_not_the_same(tmp_path):
    source, target = tmp_path / "a.bin", tmp_path / "new" / "folder" / "a.bin"
    source.write_bytes(b"first")
    link_or_copy(str(source), str(target))
    link_or_copy(str(source), str(target))  # once more, as a run that goes on does
    assert source.samefile(target)
    assert os.listdir(target.parent) == ["a.bin"]
    replaced = tmp_path / "b.bin"
    replaced.write_bytes(b"second")
    os.replace(replaced, source)  # how files of a run change
    assert target.read_bytes() == b"first"


def test_a_local_file_is_copied_where_links_do_not_reach(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another file system")

    source, target = tmp_path / "a.bin", tmp_path / "b.bin"
    source.write_bytes(b"first")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(str(source), str(target))
    assert target.read_bytes() == b"first"
    assert not source.samefile(target)


def test_files_go_between_file_systems(tmp_path, remote):
    fs = fsspec.filesystem("memory")
    link_or_copy(f"{remote}/a.bin", f"{remote}/b.bin")
    link_or_copy(f"{remote}/a.bin", str(tmp_path / "new" / "c.bin"))
    (tmp_path / "d.bin").write_bytes(b"local")
    link_or_copy(str(tmp_path / "d.bin"), f"{remote}/e.bin")
    assert fs.cat_file("/links/there/b.bin") == b"remote"
    assert (tmp_path / "new" / "c.bin").read_bytes() == b"remote"
    assert os.listdir(tmp_path / "new") == ["c.bin"]
    assert fs.cat_file("/links/there/e.bin") == b"local"


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        link_or_copy(str(tmp_path / "none"), str(tmp_path / "a.bin"))
    assert os.listdir(tmp_path) == []
