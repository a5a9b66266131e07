"""Temporary folders: gone at the end, and those of killed processes gone with the next process."""

import os
import signal
import subprocess
import sys

from patience import HANGS_S

from dedup.storage.scratch import scratch_folder
from dedup.storage.tables import hidden_name, remove_half_written

HOLD = "from dedup.storage.scratch import scratch_folder\nwith scratch_folder() as folder:\n    print(folder, flush=True)\n    input()\n"


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
