"""The GPUs and cores that the running task was given.

An engine says so around each task. Work that computes on a GPU asks `task_gpus` in each task and names its device by the
address, ``cuda:1``; what it keeps from task to task, it keeps for each device.

CUDA_VISIBLE_DEVICES is left as it is: a process reads it once, when it starts CUDA, but Spark reuses a worker process for
tasks with other GPUs. An address therefore counts among the devices that the process sees, as pyspark's own
TorchDistributor reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# what NVIDIA's driver makes, in containers too; the last is that of Windows below Linux
_DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")
# of the process, which runs one task at a time, so that the threads of a task see it too
_given: tuple[str, ...] = ()
_n_cores = 1
_n_sharers = 1


def task_gpus() -> tuple[str, ...]:
    """Addresses of the task's GPUs, such as ``("1",)``; empty where no scheduler deals them out."""
    return _given


def task_cores() -> int:
    """Cores that the task may keep busy with threads of its own."""
    return _n_cores


def gpu_sharers() -> int:
    """Processes that use the task's GPU at a time, this one included."""
    return _n_sharers


def give_gpus(addresses: Sequence[str], n_cores: int, n_sharers: int = 1) -> None:
    """From now on these are the GPUs of this process's tasks, shared by so many processes; each task may use so many cores."""
    global _given, _n_cores, _n_sharers
    _given, _n_cores, _n_sharers = tuple(addresses), n_cores, n_sharers


def may_have_gpu() -> bool:
    """Whether there may be a CUDA device here: a look at some files, before anything is imported that takes seconds."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip():
        return False
    return bool(_given) or any(map(os.path.exists, _DRIVER_FILES))


@contextmanager
def given_gpus(addresses: Sequence[str], n_cores: int = 1, n_sharers: int = 1) -> Iterator[None]:
    """While a task runs, these are its GPUs, shared by so many processes, and it may use so many cores."""
    before = _given, _n_cores, _n_sharers
    give_gpus(addresses, n_cores, n_sharers)
    try:
        yield
    finally:
        give_gpus(*before)
