"""The resources a run may use on this machine: memory, cores, disk, GPUs; and the version of this package."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """Where Linux tells what a process may use."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")


_KERNEL = Kernel()
_LIMITS = ("memory.max", "memory.limit_in_bytes", "cpu.max", "cpu.cfs_quota_us")  # files of control groups, version 2 and 1
_UNLIMITED = 1 << 60  # without a limit, version 1 writes a number of this order

# made by NVIDIA's driver, in containers too; the last one under WSL
DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")

# globals of the process, which runs one task at a time, so that all threads of a task see them
_given: tuple[str, ...] = ()
_n_cores = 1
_n_sharers = 1


def free_memory(kernel: Kernel = _KERNEL) -> int | None:
    """Bytes that can still be allocated: the least that the machine and each control group of this process leave; None = unknown."""
    rooms = [limit - used for limit, used in map(_limit_and_use, _process_groups("memory", kernel)) if limit is not None]
    available = _available(kernel)
    if available is not None:
        rooms.append(available)
    return max(0, min(rooms)) if rooms else None


def available_cores(kernel: Kernel = _KERNEL) -> int:
    """Cores this process may use, by its affinity and the quotas of its control groups."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for quota in map(_quota, _process_groups("cpu", kernel)) if quota is not None]
    return max(1, min([n_cores, *(math.ceil(quota) for quota in quotas)]))


def free_disk(path: str) -> tuple[int, int]:
    """Free bytes on the file system of a local path, which need not exist yet, and that file system's number."""
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    return shutil.disk_usage(existing).free, os.stat(existing).st_dev


def _available(kernel: Kernel) -> int | None:
    with suppress(OSError, ValueError):
        for line in (kernel.proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with suppress(OSError, ValueError, AttributeError):  # macOS: all memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _process_groups(controller: str, kernel: Kernel) -> list[Path]:
    """Folders of the control groups this process is in, up to the root: of version 2, or of a controller of version 1."""
    with suppress(OSError, ValueError):
        for line in (kernel.proc / "self" / "cgroup").read_text().splitlines():
            number, names, path = line.split(":", 2)
            if number == "0" and not names:
                root = kernel.cgroups
            elif controller in names.split(","):
                root = kernel.cgroups / names
                root = root if root.exists() else kernel.cgroups / controller
            else:
                continue
            group = root / path.lstrip("/")
            folders = [group, *(folder for folder in group.parents if folder == root or root in folder.parents)]
            # in a container the path may be the host's, which does not exist here: the container's group is then the root
            folders = [folder for folder in folders if folder.is_dir()]
            if any((folder / name).exists() for folder in folders for name in _LIMITS):
                return folders
    return []


def _limit_and_use(group: Path) -> tuple[int | None, int]:
    for limit, use in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with suppress(OSError, ValueError):
            n_bytes = int((group / limit).read_text())
            if n_bytes < _UNLIMITED:
                return n_bytes, int((group / use).read_text()) - _file_cache(group)
    return None, 0


def _file_cache(group: Path) -> int:
    """Bytes of cached files that the group is charged for but that are freed when memory is needed."""
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, n_bytes = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(n_bytes)
    return 0


def _quota(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    return None


def task_gpus() -> tuple[str, ...]:
    """Addresses of the task's GPUs, such as ``("1",)``; empty if no scheduler assigns them."""
    return _given


def task_cores() -> int:
    """Cores that the task may use with its own threads."""
    return _n_cores


def gpu_sharers() -> int:
    """Processes that share the task's GPU, this one included."""
    return _n_sharers


def give_gpus(addresses: Sequence[str], n_cores: int, n_sharers: int = 1) -> None:
    """Assign GPUs, each shared by `n_sharers` processes, and `n_cores` cores to this process's tasks from now on."""
    global _given, _n_cores, _n_sharers
    _given, _n_cores, _n_sharers = tuple(addresses), n_cores, n_sharers


def may_have_gpu(driver_files: Sequence[str] = DRIVER_FILES) -> bool:
    """Whether there may be a CUDA device: checks for some files, without importing what takes seconds."""
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip():
        return False
    return bool(_given) or any(map(os.path.exists, driver_files))


@contextmanager
def given_gpus(addresses: Sequence[str], n_cores: int = 1, n_sharers: int = 1) -> Iterator[None]:
    """The same as `give_gpus`, while a task runs."""
    before = _given, _n_cores, _n_sharers
    give_gpus(addresses, n_cores, n_sharers)
    try:
        yield
    finally:
        give_gpus(*before)


def package_version() -> str:
    """Version of this distribution; '0' if it is not installed."""
    try:
        return version("webdedup")
    except PackageNotFoundError:
        return "0"
