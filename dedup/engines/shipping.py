"""Tasks and results between the driver and workers on other machines, as files in a folder that all of them reach.

Neither goes through Spark itself: the tasks of a stage may be gigabytes, which a closure would send to every worker, and
results would be held by the driver until the last is there.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dedup.contracts import GroupRows, Result, Task
from dedup.errors import DedupError
from dedup.storage.scratch import ScratchFile
from dedup.storage.tables import filesystem, join, read_range, write_bytes

_RESULT = "result-{:07d}.pickle"


@dataclass
class Shipment:
    """The tasks of one call, in one file, and where their results appear.

    Parameters
    ----------
    folder : str
        A path or fsspec URL, of this shipment alone.
    offsets : list of int
        Where each task's bytes start in ``tasks.pickle``; one more for the end.
    """

    folder: str
    offsets: list[int]
    _seen: set[str] = field(default_factory=set)

    def results(self) -> Iterator[tuple[int, Any]]:
        """Results that have come since the last call: (position of the task, result).

        Raises
        ------
        DedupError
            What the work raised.
        """
        fs, path = filesystem(self.folder)
        fs.invalidate_cache(path)
        for name in sorted(str(found) for found in fs.glob(join(path, "result-*.pickle"))):
            if name in self._seen:
                continue
            self._seen.add(name)
            is_good, value = pickle.loads(fs.cat_file(name))  # noqa: S301 (written by our own workers, in the user's folder)
            if not is_good:
                raise value
            yield int(name.rpartition("-")[2].partition(".")[0]), value

    @property
    def n_received(self) -> int:
        """Results handed out."""
        return len(self._seen)

    def remove(self) -> None:
        """Delete the folder."""
        remove_folder(self.folder)


def ship(scratch: str, work: Callable[..., Result], tasks: Sequence[Task]) -> Shipment:
    """Write the work and its tasks into a new folder below `scratch`."""
    folder = join(scratch, uuid.uuid4().hex)
    write_bytes(join(folder, "work.pickle"), pickle.dumps(work))
    scratch_file, offsets = ScratchFile(join(folder, "tasks.pickle")), [0]
    try:
        for task in tasks:
            offsets.append(offsets[-1] + scratch_file.file.write(pickle.dumps(task)))
    except BaseException:
        scratch_file.abort()
        raise
    scratch_file.close()
    return Shipment(folder, offsets)


def perform(folder: str, number: int, start: int, stop: int) -> None:
    """Do one task, in a worker, and write what came of it; it may be done twice.

    An error that the project raises on purpose is a result: doing the task again would not change it. Others are
    raised, so that the task is tried again elsewhere.
    """
    work = pickle.loads(read_range(join(folder, "work.pickle")))  # noqa: S301 (written by the driver)
    task = pickle.loads(read_range(join(folder, "tasks.pickle"), start, stop))  # noqa: S301
    _write_outcome(folder, number, lambda: work(task))


def perform_pack(folder: str, number: int, start: int, stop: int, groups: Iterator[tuple[int, GroupRows]]) -> None:
    """Do the work on the groups of one pack, as `perform` does a task."""
    work = pickle.loads(read_range(join(folder, "work.pickle")))  # noqa: S301 (written by the driver)
    pack = pickle.loads(read_range(join(folder, "tasks.pickle"), start, stop))  # noqa: S301
    _write_outcome(folder, number, lambda: work(pack, groups))


def _write_outcome(folder: str, number: int, work: Callable[[], Any]) -> None:
    outcome: tuple[bool, Any]
    try:
        outcome = (True, work())
    except DedupError as error:
        outcome = (False, error)
    write_bytes(join(folder, _RESULT.format(number)), pickle.dumps(outcome))


def remove_folder(folder: str) -> None:
    """Delete a folder with what it holds; none need be there."""
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)
    if fs.exists(path):
        fs.rm(path, recursive=True)
