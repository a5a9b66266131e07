"""Ctrl-C: one line that says how to go on, exit code 130, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import HANGS_S, wait_for
from run_tables import assert_same_tables
from shard_data import Sample, detailed, encode, write_tar

GOES_ON = "interrupted; run the same command again to continue from the finished parts"
QUICK = ["confirm.enabled=false", "search.views=false", "engine.workers=2"]
ANEW = "interrupted; run the same command again; it starts over"


def session(leader):
    """Processes that live in a session: process id to command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(owner) == leader and state != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    return found


def start(*arguments, cwd):
    command = [sys.executable, "-m", "dedup", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=cwd)


def while_at_work(condition, process):
    """Wait until the condition holds; the process must still be at work then."""

    def holds():
        if process.poll() is not None:
            pytest.fail(f"ended too early: {process.communicate()}")
        return condition()

    wait_for(holds, pause_s=0.01)


def workers(process):
    return [line for line in session(process.pid).values() if "spawn_main" in line]


def interrupt(process, to):
    """Press Ctrl-C; what was said since, with the exit code."""
    (os.killpg if to == "group" else os.kill)(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=HANGS_S)
    wait_for(lambda: not session(process.pid), "nobody is left behind")
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    return process.returncode, said, errors.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight shards that take some seconds."""
    folder = tmp_path_factory.mktemp("interrupt")
    picture = [encode(detailed(seed, (900, 700)), quality=90) for seed in range(24)]
    for number in range(8):
        samples = [Sample(f"{number}-{k}", picture[k % 24] + bytes([number, k])) for k in range(60)]
        write_tar(folder / "shards" / f"{number:05d}.tar", samples)
    whole = start("run", "input.shards=shards/*.tar", "output.run_dir=whole", *QUICK, cwd=folder)
    _, errors = whole.communicate(timeout=HANGS_S)
    assert whole.returncode == 0, errors
    return folder


@pytest.mark.parametrize("to", ["group", "process"])
def test_a_run_is_stopped_and_goes_on(folder, to):
    arguments = ["run", "input.shards=shards/*.tar", f"output.run_dir=out-{to}", *QUICK]
    process = start(*arguments, cwd=folder)
    embeddings = folder / f"out-{to}" / "embeddings"
    while_at_work(lambda: list((embeddings / "_done").glob("[0-9]*.json")), process)
    assert interrupt(process, to) == (130, "", GOES_ON)
    done = [path.stem for path in (embeddings / "_done").glob("[0-9]*.json")]
    assert 1 <= len(done) < 8
    kept = {path: path.stat().st_mtime_ns for path in (embeddings / "img_emb" / f"img_emb_{name}.npy" for name in done)}
    again = start(*arguments, cwd=folder)
    _, errors = again.communicate(timeout=HANGS_S)
    assert again.returncode == 0, errors
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert_same_tables(folder / f"out-{to}", folder / "whole")


@pytest.mark.parametrize("moment", ["modules", "workers"])
def test_before_any_work_was_done(folder, moment, tmp_path):
    process = start("run", "input.shards=shards/*.tar", f"output.run_dir={tmp_path}/out", *QUICK, cwd=folder)
    # the run directory is made when all is imported; workers import their modules for a second
    while_at_work(lambda: (tmp_path / "out").exists() if moment == "modules" else workers(process), process)
    assert interrupt(process, "group") == (130, "", GOES_ON)


@pytest.mark.parametrize("to", ["group", "process"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["demo-data", "demo", "--n-images", 3000, "--per-shard", 100, "--workers", 2],
        ["plant", "shards/*.tar", "--counts", "1,500", "--edited", "--out", "planted", "--workers", 2],
        ["flag", "whole", *(f"shards/{k:05d}.tar" for k in range(8)), "--out", "flags.parquet", "--workers", 2],
        ["query", "whole", *(f"shards/{k:05d}.tar" for k in range(8)), "--workers", 2],
    ],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_with_workers(folder, arguments, to):
    process = start(*arguments, cwd=folder)
    while_at_work(lambda: len(workers(process)) == 2, process)
    time.sleep(0.5)
    code, _, last = interrupt(process, to)
    assert (code, last) == (130, ANEW)


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.2])
def test_twice_in_a_hurry(folder, tmp_path, delay_s):
    process = start("run", "input.shards=shards/*.tar", f"output.run_dir={tmp_path}/out", *QUICK, cwd=folder)
    while_at_work(lambda: len(workers(process)) == 2, process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(delay_s)
    code, _, last = (
        interrupt(process, "group")
        if process.poll() is None
        else (process.returncode, "", process.communicate()[1].strip().splitlines()[-1])
    )
    # after the line the second one may end it at once, which a shell reports as 130 too
    assert code in (130, -signal.SIGINT)
    assert last == GOES_ON


def test_in_the_middle_of_a_query_of_the_driver():
    code = (
        "import pyarrow as pa, sys\n"
        "from dedup.engines.local import LocalEngine\n"
        "from dedup.cli.show.terminal import errors_shown\n"
        "with errors_shown('go on'):\n"
        "    print('started', flush=True)\n"
        "    query = 'SELECT count(*) AS n FROM range(1000000) AS a, range(1000000) AS b WHERE (a.range * b.range) % 7 = 3'\n"
        "    list(LocalEngine(1).sql(query, {}, pa.schema([('n', pa.int64())])))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    code, _, last = interrupt(process, "process")
    assert (code, last) == (130, "interrupted; go on")


def test_an_error_of_its_own_is_no_interruption():
    code = "from dedup.cli.show.terminal import errors_shown\nwith errors_shown('go on'):\n    raise RuntimeError('Query interrupted')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: Query interrupted (unexpected" in done.stderr


def test_a_library_that_answers_ctrl_c_in_our_place():
    """As pyspark does, whose handler then raises what typer turns into an exit code."""
    code = (
        "import signal, sys, os\n"
        "from dedup.cli.show.terminal import errors_shown\n"
        "with errors_shown('go on'):\n"
        "    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted; go on\n")


@pytest.mark.parametrize(
    "swallows",
    [
        "try:\n    press()\n    time.sleep(60)\nexcept BaseException:\n    pass\n",
        "class Finaliser:\n    def __del__(self):\n        press()\n        time.sleep(0.1)\nFinaliser()\n",
        "import weakref\nmark = type('Mark', (), {})()\nweakref.finalize(mark, press)\ndel mark\n",
    ],
    ids=["except", "finaliser", "callback"],
)
def test_one_that_a_library_swallows_is_raised_again(swallows):
    code = (
        "import os, signal, sys, time\n"
        "from dedup.cli.show.terminal import errors_shown\n"
        "press = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "with errors_shown('go on'):\n"
        f"    exec({swallows!r})\n"
        "    try:\n"
        f"        time.sleep({HANGS_S})\n"
        "    finally:\n"
        "        time.sleep(2.5)\n"  # what stops the workers is not cut short
        "        print('stopped', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=HANGS_S)
    assert (done.returncode, done.stdout, done.stderr) == (130, "stopped\n", "interrupted; go on\n")
