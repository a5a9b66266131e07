"""What a process may no longer do, by the kernel's own word: limits, Landlock and a seccomp filter. It only imports the standard library.

Each is used where the kernel has it; `Jail` says what is in force. Numbers are those of the kernel's headers, which never change.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38

# Landlock, the same on all machines
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION: Final = 1  # flag: answer with the version
# rights to files by the version that brought them: bits 0 to 12, then refer, truncate, and ioctl of devices in version 5
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK_RIGHTS: Final = {4: 0b11}  # bind and connect of TCP
_SCOPES: Final = {6: 0b11}  # abstract Unix sockets and signals to processes outside

# seccomp
_SET_MODE_FILTER, _ALL_THREADS, _KEEP_SPEED = 1, 1, 4  # older kernels would switch speculation off, which costs a tenth
_KILL, _REFUSE, _ALLOW, _UNKNOWN = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000, 0x00050000 | errno.ENOSYS
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # of the filter's machine: load a word, jump if …, return
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # in the kernel's record of a call; arguments are 8 bytes each, low word first
_PROT_EXEC: Final = 4
_THREAD_FLAGS: Final = 0x3D0F00  # with which the C library starts a thread of this process
_CLONE3: Final = 435  # the same everywhere; its flags lie in memory, where no filter sees them


@dataclass(frozen=True)
class _Machine:
    """A kind of processor, as the filter and the kernel number its calls."""

    audit: int  # its number in the record of a call
    seccomp: int
    allowed: dict[str, int]
    no_code: tuple[int, int]  # mmap, mprotect: allowed for memory that is not executable
    own_thread: int  # tgkill: allowed on this process itself, for abort()
    clone: int  # allowed for threads: the decoder of HEIC starts one


_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        {
            "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
            "rt_sigreturn": 15, "readv": 19, "writev": 20, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35,
            "setitimer": 38, "getpid": 39, "exit": 60, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202,
            "sched_getaffinity": 204, "restart_syscall": 219, "set_robust_list": 273,
            "rseq": 334, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231,
            "getrandom": 318,
        },
        (9, 10),
        234,
        56,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        {
            "close": 57, "set_robust_list": 99,
            "rseq": 293, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "fstat": 80, "exit": 93, "exit_group": 94,
            "futex": 98, "nanosleep": 101, "setitimer": 103, "clock_gettime": 113, "clock_nanosleep": 115, "sched_getaffinity": 123,
            "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
            "rt_sigreturn": 139, "gettimeofday": 169, "getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216,
            "madvise": 233, "getrandom": 278,
        },
        (222, 226),
        131,
        220,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Jail:
    """What is in force."""

    has_filter: bool = False  # seccomp: only memory, time and open descriptors; no files, network, programs, processes, but threads
    landlock: int = 0  # version of Landlock that denies all files; 0 = not there
    max_memory: int = 0  # bytes of address space; 0 = no limit


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it is gone, even by SIGKILL; Linux only.

    `parent`: the process id of the parent; if it is gone already, this process ends now.
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def enter(max_memory: int) -> Jail:
    """Give up, for good, all that is not needed to compute on what open descriptors bring.

    `max_memory`: bytes that may be allocated beyond what is mapped now.
    Returns what is in force: what the platform lacks, or a container forbids, is skipped.
    """
    if sys.platform != "linux":
        _limit()
        return Jail()
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # RLIMIT_CORE says nothing to a program that collects crashes
    address_space = _mapped() + max_memory
    landlock = _deny_files(libc)
    has_limit, has_filter = _limit(address_space), _filter_calls(libc)
    if not has_filter:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # no processes, but no threads either, unless for root
    return Jail(has_filter, landlock, address_space if has_limit else 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mapped() -> int:
    """Bytes of address space in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit(address_space: int = 0) -> bool:
    """Set resource limits; whether that of the address space holds, if one is given."""
    is_limited = bool(address_space)
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 3)]
    for kind, value in [*limits, *([(resource.RLIMIT_AS, address_space)] if address_space else [])]:
        try:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):  # macOS refuses some
            is_limited = is_limited and kind != resource.RLIMIT_AS
    return is_limited


def _deny_files(libc: ctypes.CDLL) -> int:
    """Deny all files, and TCP, with Landlock; returns its version, 0 where there is none."""
    version = int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))
    if version < 1:
        return 0
    handled = [sum(bits for since, bits in rights.items() if version >= since) for rights in (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)]
    known = 8 if version < 4 else 16 if version < 6 else 24  # bytes of the record that this version knows
    rules = struct.pack("=QQQ", *handled)[:known]
    ruleset = int(libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(known), 0))
    if ruleset < 0:
        return 0
    try:  # a ruleset without rules allows nothing
        return version if libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """Refuse all system calls but a few; whether the kernel took the filter."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.maxsize < 1 << 32:  # a 32-bit program on such a kernel numbers its calls otherwise
        return False
    program = b"".join(_program(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    record = Program(len(program) // 8, ctypes.addressof(instructions))
    flags = (_ALL_THREADS | _KEEP_SPEED, _ALL_THREADS)
    return any(libc.syscall(machine.seccomp, _SET_MODE_FILTER, flag, ctypes.byref(record)) == 0 for flag in flags)


def _program(machine: _Machine, pid: int) -> Iterator[bytes]:
    """The filter, in instructions of the kernel's packet filter. A jump leads over as many instructions as it says."""
    yield _step(_LOAD, _MACHINE_AT)
    yield _step(_EQUAL, machine.audit, 1, 0)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, _NUMBER_AT)
    for number in machine.allowed.values():
        yield _step(_EQUAL, number, 0, 1)
        yield _step(_RETURN, _ALLOW)
    for number in machine.no_code:
        yield _step(_EQUAL, number, 0, 4)
        yield _step(_LOAD, _ARGUMENTS_AT + 8 * 2)
        yield _step(_ANY_BIT, _PROT_EXEC, 0, 1)
        yield _step(_RETURN, _REFUSE)
        yield _step(_RETURN, _ALLOW)
    yield _step(_EQUAL, _CLONE3, 0, 1)
    yield _step(_RETURN, _UNKNOWN)  # the C library then uses clone
    yield _step(_EQUAL, machine.clone, 0, 4)
    yield _step(_LOAD, _ARGUMENTS_AT)
    yield _step(_EQUAL, _THREAD_FLAGS, 0, 1)
    yield _step(_RETURN, _ALLOW)
    yield _step(_RETURN, _REFUSE)
    yield _step(_EQUAL, machine.own_thread, 0, 3)
    yield _step(_LOAD, _ARGUMENTS_AT)
    yield _step(_EQUAL, pid, 0, 1)
    yield _step(_RETURN, _ALLOW)
    yield _step(_RETURN, _REFUSE)


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)
