"""One writer at a time: a run directory is locked while its stages run."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import filesystem, is_local, join, read_bytes, read_json

_LOCK = "_lock.json"
RENEWED_S = 60.0  # how often the holder of a lock on an object store renews it
_STALE_S = 600.0  # after which a lock not renewed is considered abandoned


@contextmanager
def locked(folder: str, renewed_s: float = RENEWED_S) -> Iterator[None]:
    """Hold the lock of a folder that is written, such as a run directory.

    On a file system the operating system holds the lock, and releases it however the process ends. On an object store, and on a file
    system without locks, a small file names the holder, who renews it; one not renewed for ten minutes is taken over. Two processes that
    start within the same second may both get that lock.

    `renewed_s`: how often a lock that the operating system does not hold is renewed.
    Raises RunDirectoryError naming the holder, if another process has it, or if the folder can't be written.
    """
    with _on_disk(folder, renewed_s) if is_local(folder) else _by_renewal(folder, renewed_s):
        yield


@contextmanager
def _on_disk(folder: str, renewed_s: float) -> Iterator[None]:
    path = filesystem(join(folder, _LOCK))[1]
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise RunDirectoryError(
            f"{folder} can't be written ({error.strerror or error}); expected a folder that this user may write; choose another "
            "output.run_dir, or change its permissions"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _held(folder, _parsed(file.read())) from None
        except OSError:  # a file system without locks, or without any left
            file.close()
            with _by_renewal(folder, renewed_s):
                yield
            return
        file.truncate(0)
        file.write(json.dumps(_this_process()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def _by_renewal(folder: str, renewed_s: float) -> Iterator[None]:
    url, holder = join(folder, _LOCK), _this_process()
    other = _parsed((read_bytes(url) or b"").decode("utf-8", "replace"))
    if other and _is_alive(other):
        raise _held(folder, other)
    write_json(url, holder)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(renewed_s):
            with suppress(Exception):  # the store may be unreachable for a while: the run itself will report it
                write_json(url, holder | {"renewed": time.time()})

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        fs, path = filesystem(url)
        with suppress(Exception):
            current = read_json(url)
            if current and current.get("id") == holder["id"]:
                fs.rm_file(path)


def _is_alive(holder: JsonDict) -> bool:
    if holder.get("host") == socket.gethostname():
        try:
            os.kill(int(holder.get("pid", 0)), 0)
        except (OSError, ValueError):
            return False
    return time.time() - float(holder.get("renewed", 0)) < _STALE_S


def _this_process() -> JsonDict:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name
        user = str(os.getuid())
    return {
        "id": uuid.uuid4().hex,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "user": user,
        "command": os.path.basename(sys.argv[0]) or "python",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "renewed": time.time(),
    }


def _parsed(text: str) -> JsonDict:
    with suppress(ValueError):
        holder = json.loads(text)
        if isinstance(holder, dict):
            return holder
    return {}


def _held(folder: str, holder: JsonDict) -> RunDirectoryError:
    who = "another process"
    if holder:
        command = f"({holder.get('command')}) of {holder.get('user')}"
        who = f"process {holder.get('pid')} {command} on {holder.get('host')} since {holder.get('since')}"
    return RunDirectoryError(f"{folder} is being written by {who}; wait until it ends, or choose another output.run_dir")
