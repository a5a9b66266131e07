"""Files that are whole or not there, on any file system; temporary folders, and what killed processes leave."""

import errno
import os
import signal
import subprocess
import sys

import fsspec
import pytest
from patience import HANGS_S

from dedup.storage.atomic import AtomicFile, Replacement, hidden_name, link_or_copy, remove_half_written, scratch_folder, write_bytes
from dedup.storage.urls import read_bytes

HOLD = "from dedup.storage.atomic import scratch_folder\nwith scratch_folder() as folder:\n    print(folder, flush=True)\n    input()\n"


def hold(tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD], env=os.environ | {"TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait(HANGS_S)


def test_a_folder_is_removed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder, scratch_folder() as other:
        assert os.path.isdir(folder)
        assert os.path.isdir(other)
    assert list(tmp_path.iterdir()) == []


def test_one_of_a_killed_process_is_removed_by_the_next_and_others_stay(tmp_path):
    killed, living = hold(tmp_path), hold(tmp_path)
    left, kept = killed.stdout.readline().strip(), living.stdout.readline().strip()
    (tmp_path / "dedup-of-others").mkdir()
    with open(os.path.join(left, "data"), "wb") as file:
        file.write(b"x")
    killed.send_signal(signal.SIGKILL)
    end(killed)
    assert os.path.isdir(left)
    following = hold(tmp_path)
    following.stdout.readline()
    assert not os.path.exists(left)
    assert os.path.isdir(kept)
    for process in (living, following):
        process.kill()
        end(process)
    assert (tmp_path / "dedup-of-others").is_dir()


def test_half_written_files_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "a" / "_unchecked").mkdir(parents=True)
    kept = [
        tmp_path / "a" / name for name in ("_stage.json", "part-00000.parquet", "_unchecked-00000.parquet", "_unchecked/0123456789ab-x")
    ]
    left = [tmp_path / "a" / "part-00000.parquet", tmp_path / "x.json"]
    for path in kept:
        path.touch()
    for path in left:
        with open(hidden_name(str(path)), "wb"):
            pass
    folder = hidden_name(str(tmp_path / "a" / "merged"))
    os.makedirs(os.path.join(folder, "deep"))
    remove_half_written(str(tmp_path))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not os.path.exists(folder)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def names(place):
    fs, _, path = place.rpartition("://")
    fs = fsspec.filesystem(fs or "file")
    return sorted(name.rpartition("/")[2] for name in fs.find(path))


def test_a_file_is_seen_when_it_is_whole(place):
    with AtomicFile(f"{place}/a.bin") as file:
        file.write(b"-----")
        file.seek(0)
        file.write(b"begun")
        file.flush()
        assert "a.bin" not in names(place)
    assert read_bytes(f"{place}/a.bin") == b"begun"
    writer = AtomicFile(f"{place}/b.bin")
    writer.file.write(b"12345")
    assert writer.close() == 5
    assert names(place) == ["a.bin", "b.bin"]


def test_what_breaks_leaves_what_stood_there(place):
    write_bytes(f"{place}/a.bin", b"before")
    with pytest.raises(TypeError), AtomicFile(f"{place}/a.bin") as file:
        file.writelines([b"half", "a text"])
    assert names(place) == ["a.bin"]
    assert read_bytes(f"{place}/a.bin") == b"before"


def test_what_can_not_be_renamed_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError), Replacement(str(tmp_path / "a")) as hidden, open(hidden, "wb"):
        pass
    writer = AtomicFile(str(tmp_path / "a"))
    with pytest.raises(IsADirectoryError):
        writer.close()
    with pytest.raises(IsADirectoryError):
        write_bytes(str(tmp_path / "a"), b"x")
    assert os.listdir(tmp_path) == ["a"]


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
