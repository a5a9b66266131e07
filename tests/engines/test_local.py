"""The local engine: order, errors, memory, threads."""

import itertools
import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from patience import HANGS_S, wait_for

from dedup.engines.local import LocalEngine
from dedup.errors import SchemaError, StageError


def square(value):
    return value * value


def threads(_):
    return os.environ["OMP_NUM_THREADS"], os.getpid()


def die(value):
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail(value):
    raise ValueError(f"task {value}")


@pytest.fixture
def engine():
    engine = LocalEngine(2)
    yield engine
    engine.close()


def test_every_task_is_run_once(engine):
    results = dict(engine.map_partitions(square, list(range(50))))
    assert results == {i: i * i for i in range(50)}
    assert dict(engine.map_partitions(square, [])) == {}
    assert dict(engine.map_partitions(square, [7])) == {0: 49}


def test_workers_have_one_thread_and_are_reused(engine):
    before = dict(os.environ)
    first = [result for _, result in engine.map_partitions(threads, range(20))]
    assert {count for count, _ in first} == {"1"}
    assert len({pid for _, pid in first}) <= 2
    assert os.getpid() not in {pid for _, pid in first}
    assert dict(os.environ) == before


def test_a_killed_worker_is_one_message(engine):
    with pytest.raises(StageError, match="a worker process died.*run the same command again"):
        list(engine.map_partitions(die, range(6)))
    assert dict(engine.map_partitions(square, range(3))) == {0: 0, 1: 1, 2: 4}


@pytest.mark.parametrize(
    ("is_piped", "guard", "message"),
    [
        (
            False,
            "if True:",
            "ended before their first task: each imports driver.py once more.*expected what starts dedup under `if __name__",
        ),
        (True, "if __name__ == '__main__':", "<stdin> is no file; expected a script in a file; save it"),
    ],
)
def test_a_script_that_workers_cannot_import_is_said(tmp_path, is_piped, guard, message):
    script = tmp_path / "driver.py"
    script.write_text(f"import operator\nfrom dedup.engines.local import LocalEngine\n{guard}\n    list(LocalEngine(1).map_partitions(operator.neg, [1]))\n")  # fmt: skip
    with open(script) as text:
        done = subprocess.run([sys.executable, "-" if is_piped else script], stdin=text, capture_output=True, text=True, timeout=HANGS_S, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("Traceback") <= 2, done.stderr  # the driver's error and its cause: workers say nothing
    assert re.search(message, done.stderr.splitlines()[-1]), done.stderr


def test_a_failing_task_raises_its_own_error(engine):
    with pytest.raises(StageError, match=r"fail, task \d: ValueError: task \d"):
        list(engine.map_partitions(fail, range(4)))


def test_sql_conforms_names_order_and_types(engine):
    table = pa.table({"b": [3, 1, 2], "a": ["x", "y", "z"]})
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])
    result = pa.concat_tables(engine.sql("SELECT b, a FROM numbers ORDER BY b", {"numbers": table}, schema))
    assert result.schema.equals(schema)
    assert result.to_pylist() == [{"a": "y", "b": 1}, {"a": "z", "b": 2}, {"a": "x", "b": 3}]
    with pytest.raises(SchemaError, match="column 'a' is missing"):
        list(engine.sql("SELECT b FROM numbers", {"numbers": table}, schema))


def sleep_and_tell(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(3 * HANGS_S)  # it does not end by itself while somebody waits for that


def test_workers_end_when_the_driver_is_killed(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from dedup.engines.local import LocalEngine\n"
        "from test_local import sleep_and_tell\n"
        "if __name__ == '__main__':\n"
        "    list(LocalEngine(2).map_partitions(sleep_and_tell, [sys.argv[1]] * 2))\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    pids = tmp_path / "pids"
    pids.mkdir()
    driver = subprocess.Popen([sys.executable, script, pids, *Path(__file__).parents[:2]])
    wait_for(lambda: driver.poll() is not None or len(list(pids.iterdir())) == 2)
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(Path("/proc", path.name).exists() for path in pids.iterdir()))


def interrupted_at(moment):
    """Run tasks and press Ctrl-C as the nth function written in C returns, such as the one that takes a lock; whether there was an nth."""
    n_returned = itertools.count()

    def watch(frame, event, _):
        is_waiting = (
            frame.f_code.co_filename.endswith(("threading.py", "_base.py", "workers.py")) and "deferred" not in frame.f_code.co_name
        )
        if event == "c_return" and is_waiting and next(n_returned) == moment:
            os.kill(os.getpid(), signal.SIGINT)

    engine = LocalEngine(1)
    is_interrupted = False
    try:
        try:
            for _ in engine.map_partitions(operator.neg, range(8)):
                sys.setprofile(watch)
        finally:
            sys.setprofile(None)
    except KeyboardInterrupt:
        is_interrupted = True
    engine.close()
    return is_interrupted


def test_ctrl_c_at_any_moment_stops_the_workers():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_local import interrupted_at\n"
        "if __name__ == '__main__':\n"
        "    print(sum(interrupted_at(moment) for moment in range(0, 60, 2)))\n"
    )
    command = [sys.executable, "-c", code, *map(str, Path(__file__).parents[:2])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert int(done.stdout) > 20, done.stderr
