"""One writer at a time: a run directory is locked while its stages are carried out."""

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
from datetime import datetime, timezone

from dedup.contracts import JsonDict
from dedup.errors import RunDirectoryError
from dedup.storage.atomic import write_json
from dedup.storage.urls import filesystem, is_local, join, read_json

_LOCK = "_lock.json"
RENEWED_S = 60.0  # how often a lock on an object store says that its holder lives
_STALE_S = 600.0  # after which it is taken for dead


@contextmanager
def locked(run_dir: str, renewed_s: float = RENEWED_S) -> Iterator[None]:
    """Hold the lock of a run directory.

    `renewed_s`: how often it is renewed on an object store.
    Raises RunDirectoryError naming the holder, if another process has it.

    Notes
    -----
    On a file system the operating system holds the lock, and lets go of it when the process ends, however it ends. An object store
    knows no locks: there a small object names the holder, who renews it; one that was not renewed for ten minutes is taken over. Two
    that begin within the same second may both get it there.
    """
    with _on_disk(run_dir) if is_local(run_dir) else _in_store(run_dir, renewed_s):
        yield


@contextmanager
def _on_disk(run_dir: str) -> Iterator[None]:
    path = filesystem(join(run_dir, _LOCK))[1]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _held(run_dir, _parsed(file.read())) from None
        except OSError:
            pass  # a file system without locks: nothing can be said
        file.truncate(0)
        file.write(json.dumps(_holder()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def _in_store(run_dir: str, renewed_s: float) -> Iterator[None]:
    url, own = join(run_dir, _LOCK), _holder()
    found = read_json(url)
    if found and _lives(found):
        raise _held(run_dir, found)
    write_json(url, own)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(renewed_s):
            with suppress(Exception):  # the store may be away for a while: the run itself will say so
                write_json(url, own | {"renewed": time.time()})

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        fs, path = filesystem(url)
        with suppress(Exception):
            found = read_json(url)
            if found and found.get("id") == own["id"]:
                fs.rm_file(path)


def _lives(holder: JsonDict) -> bool:
    if holder.get("host") == socket.gethostname():
        try:
            os.kill(int(holder.get("pid", 0)), 0)
        except (OSError, ValueError):
            return False
    return time.time() - float(holder.get("renewed", 0)) < _STALE_S


def _holder() -> JsonDict:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return {
        "id": uuid.uuid4().hex,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "user": user,
        "command": os.path.basename(sys.argv[0]) or "python",
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "renewed": time.time(),
    }


def _parsed(text: str) -> JsonDict:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


def _held(run_dir: str, holder: JsonDict) -> RunDirectoryError:
    who = "another process"
    if holder:
        command = f"({holder.get('command')}) of {holder.get('user')}"
        who = f"process {holder.get('pid')} {command} on {holder.get('host')} since {holder.get('since')}"
    return RunDirectoryError(f"{run_dir} is being written by {who}; wait until it ends, or choose another output.run_dir")
