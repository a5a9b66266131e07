"""What the stage `embed` takes over from the run that this one adds to: its partitions, under the numbers they have there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dedup.contracts import JsonDict
from dedup.errors import InputError, RunDirectoryError
from dedup.runs.directory import also_dir
from dedup.stages.stage import StageContext
from dedup.storage.atomic import link_or_copy, write_json
from dedup.storage.images.thumbnails import remove_thumbnails, thumbnail_paths
from dedup.storage.urls import filesystem, join, read_json

ALSO = "also/"  # begins the names of the second source's files

GONE = ("absent", "unreachable")  # fingerprints of sources that are not there


@dataclass(frozen=True)
class Plan:
    """Which shards are in which partition.

    Parameters
    ----------
    next : int
        First number that was never given.
    partitions : dict
        Number to the URLs of its shards.
    """

    next: int
    partitions: dict[int, list[str]]


@dataclass(frozen=True)
class InheritTask:
    """One partition that is taken over as it is."""

    base_dir: str
    run_dir: str
    also: tuple[str, ...]
    partition: int


def marker_path(run_dir: str, partition: int) -> str:
    """The file whose presence means that a partition is done."""
    return join(run_dir, "embeddings", "_done", f"{partition:05d}.json")


def file_url(run_dir: str, also: tuple[str, ...], name: str) -> str:
    """Where a file lies that a marker names."""
    if also and name.startswith(ALSO):
        return join(also_dir(run_dir, also[0]), "embeddings", name.removeprefix(ALSO))
    return join(run_dir, "embeddings", name)


def has_files(run_dir: str, also: tuple[str, ...], files: Mapping[str, int]) -> bool:
    """Whether files are there with their sizes."""
    fs, _ = filesystem(run_dir)
    for name, n_bytes in files.items():
        path = filesystem(file_url(run_dir, also, name))[1]
        if not fs.exists(path) or fs.size(path) != n_bytes:
            return False
    return True


def read_plan(run_dir: str) -> Plan:
    """The plan of a run that has embedded.

    Raises
    ------
    RunDirectoryError
        If there is none.
    """
    saved = read_json(join(run_dir, "embeddings", "_plan.json"))
    if saved is None:
        raise RunDirectoryError(f"{run_dir} holds no embeddings/_plan.json; expected a finished run as base.run_dir")
    return Plan(int(saved["next"]), {int(number): urls for number, urls in saved["partitions"].items()})


def embedded_stamps(run_dir: str) -> dict[str, str]:
    """Every shard that a run has embedded, with the fingerprint it had; '' where an older version kept none."""
    found: dict[str, str] = {}
    for number, urls in read_plan(run_dir).partitions.items():
        stamps = (read_json(marker_path(run_dir, number)) or {}).get("stamps", {})
        found |= {url: stamps.get(url, "") for url in urls}
    return found


def refuse_changed(base_dir: str, now: Mapping[str, str], embedded: Mapping[str, str]) -> None:
    """Stop where a shard that was embedded is another one now.

    Parameters
    ----------
    base_dir : str
    now, embedded : mapping
        URL to fingerprint: of the shards listed, and of those that were embedded. One that can't be reached needs no look.

    Raises
    ------
    InputError
        Naming the first.
    """
    changed = [url for url, stamp in now.items() if embedded.get(url) and stamp not in (*GONE, embedded[url])]
    if changed:
        raise InputError(
            f"{len(changed)} shards have changed since {base_dir} embedded them, the first {changed[0]}; "
            "expected shards that stay as they are: give the changed ones another name, or run without base.run_dir"
        )


def inherit_partition(task: InheritTask) -> JsonDict:
    """Link or copy the files of one partition, its marker last; returns the marker."""
    marker = read_json(marker_path(task.base_dir, task.partition))
    if marker is None:
        raise RunDirectoryError(f"{task.base_dir}: partition {task.partition} is not finished; run it again, then this")
    mine = marker_path(task.run_dir, task.partition)
    if read_json(mine) == marker and has_files(task.run_dir, task.also, marker["files"]):
        return marker
    if not {*thumbnail_paths(task.partition)} <= {*marker["files"]}:
        remove_thumbnails(task.run_dir, task.partition)
    for name in marker["files"]:
        link_or_copy(file_url(task.base_dir, task.also, name), file_url(task.run_dir, task.also, name))
    if not has_files(task.run_dir, task.also, marker["files"]):
        raise RunDirectoryError(
            f"{task.base_dir}: files of partition {task.partition} are not those of its marker; run it again with --redo"
        )
    write_json(mine, marker)
    return marker


def inherit_partitions(context: StageContext) -> dict[int, JsonDict]:
    """Take over all partitions of the base; their markers by number, none where there is no base."""
    if context.base is None:
        return {}
    base_dir, also = context.base.run_dir, tuple(context.config.embed.also)
    numbers = sorted(read_plan(base_dir).partitions)
    tasks = [InheritTask(base_dir, context.layout.run_dir, also, number) for number in numbers]
    return {numbers[place]: marker for place, marker in context.engine.map_partitions(inherit_partition, tasks)}
