"""Faults inside the processes of a run: at the n-th write to a file of the run its disk is full, or the process is killed.

Python imports a module of this name when it starts, in workers too. DEDUP_FAULT says what happens: «full driver 12 RUN_DIR NOTE»; once it
has happened the file NOTE is there, and a disk that is full stays full for all.
"""

import builtins
import errno
import io
import os
import signal
import sys

_open = io.open
_n_writes = 0


def _strike(path):
    """Count a write, and let it fail if its turn has come."""
    global _n_writes
    _n_writes += _IS_OURS
    if _n_writes == _NUMBER and _IS_OURS:
        with _open(_NOTE, "w") as file:
            file.write(str(path))
        if _KIND == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    if _KIND == "full" and os.path.exists(_NOTE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class _File(io.FileIO):
    def write(self, data):
        _strike(self.name)
        return super().write(data)


def _opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    if not isinstance(file, str | os.PathLike) or not set(mode) & set("wxa+") or not os.path.abspath(file).startswith(_RUN_DIR):
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _File(file, mode.replace("b", "").replace("t", ""))
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


def _renamed(rename):
    def renamed(source, target, **options):
        if os.path.abspath(target).startswith(_RUN_DIR):
            _strike(target)
        return rename(source, target, **options)

    return renamed


if "DEDUP_FAULT" in os.environ:
    _KIND, _role, _number, _RUN_DIR, _NOTE = os.environ["DEDUP_FAULT"].split(" ")
    _NUMBER = int(_number)
    _is_worker, _is_run = "--multiprocessing-fork" in sys.orig_argv, "dedup" in sys.orig_argv
    _IS_OURS = _is_worker if _role == "worker" else _is_run
    if _is_worker or _is_run:
        builtins.open = io.open = _opened
        os.replace = _renamed(os.replace)
        os.rename = _renamed(os.rename)
