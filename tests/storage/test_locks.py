"""Two that write one run directory: the second is told who the first is."""

import errno
import json
import os
import subprocess
import sys
import time

import fsspec
import pytest
from patience import wait_for

import dedup
from dedup.errors import RunDirectoryError
from dedup.runs.lock import locked

HOLD = (
    "import sys, time\nfrom dedup.runs.lock import locked\nwith locked(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(3600)"
)


def test_the_holder_is_named_and_a_killed_one_lets_go(tmp_path):
    run_dir = str(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, run_dir], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match=rf"is being written by process {other.pid} .* since 20"), locked(run_dir):
            pass
        settings = [f"input.shards={tmp_path}/*.tar", f"output.run_dir={run_dir}"]
        (tmp_path / "a.tar").write_bytes(bytes(1024))
        with pytest.raises(RunDirectoryError, match=f"process {other.pid}"):
            dedup.run(dedup.load_config(None, settings))
        assert os.listdir(run_dir) == ["_lock.json"]
        other.kill()
    with locked(run_dir):
        assert json.loads((tmp_path / "run" / "_lock.json").read_text())["pid"] == os.getpid()
    with locked(run_dir):
        pass


def test_on_an_object_store_the_holder_is_an_object():
    fs, run_dir = fsspec.filesystem("memory"), "memory://locks/run"
    with locked(run_dir, renewed_s=0.05):
        first = json.loads(fs.cat("/locks/run/_lock.json"))
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()}"), locked(run_dir):
            pass
        wait_for(lambda: json.loads(fs.cat("/locks/run/_lock.json"))["renewed"] != first["renewed"], "the lock is renewed")
    assert not fs.exists("/locks/run/_lock.json")
    # holders elsewhere that were not heard of for long, and dead ones here
    for holder in ({**first, "host": "elsewhere", "renewed": time.time() - 700}, {**first, "pid": 2**22 + 1}):
        fs.pipe("/locks/run/_lock.json", json.dumps(holder).encode())
        with locked(run_dir):
            pass
    fs.pipe("/locks/run/_lock.json", json.dumps({**first, "host": "elsewhere", "renewed": time.time() - 100}).encode())
    with pytest.raises(RunDirectoryError, match="on elsewhere"), locked(run_dir):
        pass


def test_without_locks_of_the_system_the_holder_is_a_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    run_dir = str(tmp_path / "run")
    with locked(run_dir, renewed_s=0.05):
        first = json.loads((tmp_path / "run" / "_lock.json").read_text())
        with pytest.raises(RunDirectoryError, match=f"is being written by process {os.getpid()}"), locked(run_dir):
            pass
        wait_for(lambda: json.loads((tmp_path / "run" / "_lock.json").read_text())["renewed"] != first["renewed"], "the lock is renewed")
    with locked(run_dir):
        pass


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    message = r"file/run can't be written \(.*\); expected a folder that this user may write"
    with pytest.raises(RunDirectoryError, match=message), locked(str(tmp_path / "file" / "run")):
        pass
