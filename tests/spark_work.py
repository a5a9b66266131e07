"""Work that tests send to Spark workers, which import it by name."""

import os
import signal
import time
from pathlib import Path

from patience import wait_for

from dedup.errors import ShapeError
from dedup.machine import task_gpus


def square(value):
    return value * value


def surroundings(_):
    return os.environ["OMP_NUM_THREADS"], os.getpid()


def die(value):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder):
    """The first attempt dies; the second finds its mark."""
    mark = Path(folder) / "tried"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def fail(value):
    raise ValueError(f"task {value} is bad")


def refuse(value):
    with open(f"{value}/calls", "a") as file:
        file.write("x")
    raise ShapeError("expected 2, found 3")


def need_a_package(value):
    import package_that_is_nowhere  # noqa: F401


def kill_the_executor(_):
    """What a machine does that runs out of memory: the JVM above the daemon that forked this worker."""
    daemon = os.getppid()
    status = Path(f"/proc/{daemon}/stat").read_text()
    above = int(status.rpartition(")")[2].split()[1])
    assert b"CoarseGrainedExecutorBackend" in Path(f"/proc/{above}/cmdline").read_bytes()  # no other JVM of this machine
    os.kill(above, signal.SIGKILL)
    time.sleep(60.0)  # no result is left behind: the daemon ends this process too


def gpus_side_by_side(task):
    """The task's GPUs and its process, once `n` tasks run at a time."""
    folder, number, n = task
    (Path(folder) / str(number)).touch()
    wait_for(lambda: len(os.listdir(folder)) >= n, "the other tasks have started")
    return task_gpus(), os.getpid()


class GpusOfPacks:
    """Does as `gpus_side_by_side` with packs of groups, whose rows it counts as well."""

    def __init__(self, folder, n):
        self.folder, self.n = folder, n

    def __call__(self, pack, groups):
        n_rows = sum(len(rows) for _, rows in groups)
        return gpus_side_by_side((self.folder, pack.number, self.n))[0], n_rows
