"""Tasks and results between the driver and workers on other machines, as files in a folder that all can reach.

Neither goes through Spark itself: the tasks of a stage may be gigabytes, which a closure would send to every worker, and
the driver would hold all results until the last has arrived.

They are pickled, as Spark pickles the functions it sends, and loading a pickle runs code: so each is sealed with a key that the
driver draws and Spark carries to the workers inside the function. A file that others put into the folder is not loaded.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedup.contracts import GroupRows, Result, Task
from dedup.errors import DedupError, StageError
from dedup.storage.atomic import AtomicFile, write_bytes
from dedup.storage.urls import filesystem, join, matching, read_range

SCRATCH = "_scratch"  # below a run directory
_RESULT = "result-{:07d}.pickle"
_WORK, _TASKS = "work.pickle", "tasks.pickle"
_SEAL_BYTES = hashlib.sha256().digest_size


@dataclass
class Shipment:
    """The tasks of one call, in one file, and the folder where their results appear; the driver sends it to workers."""

    folder: str  # a path or fsspec URL, used by this shipment only
    offsets: list[int]  # where each task's bytes start in ``tasks.pickle``, and the end
    key: bytes = field(repr=False)  # seals all files
    _seen: set[str] = field(default_factory=set)

    def results(self) -> Iterator[tuple[int, Any]]:
        """Results that have arrived since the last call: (position of the task, result).

        Raises the DedupError that the work raised.
        Raises StageError if a result was not written by a worker of this job.
        """
        fs, _ = filesystem(self.folder)
        for name in matching(self.folder, "result-*.pickle"):
            if name in self._seen:
                continue
            self._seen.add(name)
            number = int(name.rpartition("-")[2].partition(".")[0])
            is_ok, value = _opened(self.key, _RESULT.format(number), fs.cat_file(name))
            if not is_ok:
                raise value
            yield number, value

    @property
    def n_received(self) -> int:
        """Number of results yielded so far."""
        return len(self._seen)

    def perform(self, number: int, *groups: Iterator[tuple[int, GroupRows]]) -> None:
        """Run the work on one task in a worker, or on a pack with its groups, and write the outcome; Spark may run a task twice.

        A DedupError is an outcome too: running the task again would not change it. Other errors are raised, so that the task
        is tried again elsewhere.
        """
        work = _opened(self.key, _WORK, read_range(join(self.folder, _WORK)))
        sealed = read_range(join(self.folder, _TASKS), self.offsets[number], self.offsets[number + 1])
        task, name = _opened(self.key, f"{_TASKS} {number}", sealed), _RESULT.format(number)
        outcome: tuple[bool, Any]
        try:
            outcome = (True, work(task, *groups))
        except DedupError as error:
            outcome = (False, error)
        write_bytes(join(self.folder, name), _sealed(self.key, name, outcome))

    def remove(self) -> None:
        """Delete the folder."""
        remove_folder(self.folder)


def ship(scratch: str, work: Callable[..., Result], tasks: Sequence[Task]) -> Shipment:
    """Write the work and its tasks into a new folder below `scratch`."""
    folder, key = join(scratch, uuid.uuid4().hex), secrets.token_bytes(32)
    write_bytes(join(folder, _WORK), _sealed(key, _WORK, work))
    offsets = [0]
    with AtomicFile(join(folder, _TASKS)) as file:
        for number, task in enumerate(tasks):
            offsets.append(offsets[-1] + file.write(_sealed(key, f"{_TASKS} {number}", task)))
    return Shipment(folder, offsets, key)


def _sealed(key: bytes, name: str, value: object) -> bytes:
    """A pickle, preceded by the seal of its name and bytes."""
    data = pickle.dumps(value)
    return hmac.digest(key, name.encode() + b"\0" + data, "sha256") + data


def _opened(key: bytes, name: str, sealed: bytes) -> Any:
    """Load what was sealed under this name.

    Raises StageError, before loading, if it was sealed with another key or has changed since.
    """
    seal, data = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
    if not hmac.compare_digest(seal, hmac.digest(key, name.encode() + b"\0" + data, "sha256")):
        raise StageError(
            f"{name} in the run's _scratch was not written by this job, and was not loaded; who else writes to the run directory?"
        )
    return pickle.loads(data)  # noqa: S301 (the seal proves that this job wrote it)


def remove_folder(folder: str) -> None:
    """Delete a folder and its contents, if it exists."""
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)
    if fs.exists(path):
        fs.rm(path, recursive=True)
