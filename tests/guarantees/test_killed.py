"""Kill anywhere: a run that is killed, whose worker is killed, or whose disk is full goes on to the very bytes of one left alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from patience import HANGS_S
from shard_data import make_samples, write_shards

SEED = 20_261_124
N_EACH = 2  # faults of each kind
KINDS = [(kind, role) for role in ("driver", "worker") for kind in ("signal", "kill", "full")]
FAULTS = Path(__file__).parents[1] / "faults"
# lists, codes and several files of each kind, although the shards are small
SETTINGS = ["search.exhaustive_below=20", "search.nlist=4", "search.nprobe=2", "index.codes=pq", "embed.thumbnails=true", "engine.workers=2", "report.enabled=false"]  # fmt: skip
TIMES = {"seconds", "finished", "worker_seconds"}


@dataclass(frozen=True)
class Fault:
    """What happens to a run: a signal at a moment, or the n-th write of a kind of process."""

    kind: str  # signal, kill, full
    role: str  # driver, worker
    moment_s: float = 0.0
    number: int = 0


def drawn(kind, role, rng, duration_s):
    """A fault at a random moment, or at a random write."""
    if kind == "signal":
        return Fault(kind, role, moment_s=rng.uniform(0.15, 0.75) * duration_s)
    return Fault(kind, role, number=int(rng.integers(1, 45 if role == "driver" else 25)))


def start(folder, name, fault=None):
    command = [sys.executable, "-m", "dedup", "run", "input.shards=shards/*.tar", f"output.run_dir={name}", *SETTINGS]
    environment = os.environ | {"PYTHONPATH": f"{FAULTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "TMPDIR": str(folder / "tmp")}
    if fault is not None and fault.kind != "signal":
        environment["DEDUP_FAULT"] = f"{fault.kind} {fault.role} {fault.number} {folder / name} {folder / 'fired'}"
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def suffer(folder, name, fault, rng):
    """Start a run and let the fault happen to it; its exit code, what it said, and whether the fault came in time."""
    (folder / "fired").unlink(missing_ok=True)
    process, happened = start(folder, name, fault), False
    if fault.kind == "signal":
        try:
            process.wait(fault.moment_s)
        except subprocess.TimeoutExpired:
            happened = strike(process, fault.role, rng)
    said = process.communicate(timeout=HANGS_S)[0].decode()
    return process.returncode, said, happened or (folder / "fired").exists()


def strike(process, role, rng):
    """SIGKILL to the driver, or to one of its workers as soon as there is one."""
    while process.poll() is None:
        victims = [process.pid] if role == "driver" else workers(process.pid)
        if victims:
            os.kill(victims[int(rng.integers(len(victims)))], signal.SIGKILL)
            return True
        time.sleep(0.005)
    return False


def workers(pid):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def without_times(value):
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def contents(run_dir):
    """Every file of a run, the times in records aside; nobody holds its lock."""
    found = {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert found.pop("_lock.json", b"") == b""
    for name, data in found.items():
        found[name] = data = data.replace(run_dir.name.encode(), b"RUN") if name == "_config.json" else data
        if name.startswith("_stages/") or "/_done/" in name:
            found[name] = without_times(json.loads(data))
    return found


def assert_same_bytes(one, other):
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    write_shards(folder / "shards", make_samples(120, seed=3), per_shard=45)
    (folder / "tmp").mkdir()
    return folder


@pytest.mark.slow
def test_a_dozen_faults_change_no_byte(folder):
    rng, happened_to = np.random.default_rng(SEED), Counter()
    for number in range(2):  # twice: the second finds the modules in the page cache, and shows that bytes do not depend on time
        started = time.perf_counter()
        process = start(folder, f"whole{number}")
        said = process.communicate(timeout=HANGS_S)[0].decode()
        assert process.returncode == 0, said
        duration_s = time.perf_counter() - started
    assert_same_bytes(folder / "whole0", folder / "whole1")
    assert list((folder / "tmp").iterdir()) == []
    attempt = 0
    code = 0
    # a fault that comes too late for what is left of a run is drawn again, for a new run
    for kind, role in islice(cycle(KINDS), 20 * len(KINDS)):
        if happened_to[kind, role] >= N_EACH:
            continue
        fault = drawn(kind, role, rng, duration_s)
        code, said, happened = suffer(folder, f"run{attempt}", fault, rng)
        happened_to[kind, role] += happened
        if happened and fault.kind == "full":
            assert code == 1, said
            assert re.search("error: no room for .* .No space left on device.; free some space and run the same command again", said), said
            assert "Traceback" not in said, said
        if code == 0:
            assert_same_bytes(folder / "whole0", folder / f"run{attempt}")
            attempt += 1
        else:
            assert happened, (fault, said)
    assert happened_to == dict.fromkeys(KINDS, N_EACH)
    if code != 0:  # the last run is not left half done
        process = start(folder, f"run{attempt}")
        said = process.communicate(timeout=HANGS_S)[0].decode()
        assert process.returncode == 0, said
        assert_same_bytes(folder / "whole0", folder / f"run{attempt}")
    assert list((folder / "tmp").iterdir()) == []


def test_what_a_killed_driver_of_spark_left_is_removed(folder):
    (folder / "left" / "_scratch" / "0123").mkdir(parents=True)
    (folder / "left" / "_scratch" / "0123" / "work.pickle").write_bytes(b"x")
    process = start(folder, "left")
    said = process.communicate(timeout=HANGS_S)[0].decode()
    assert process.returncode == 0, said
    assert not (folder / "left" / "_scratch").exists()
