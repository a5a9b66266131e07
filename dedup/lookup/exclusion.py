"""Training images near reference images: all of them, judged by their pixels as the run judges pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dedup.errors import SampleError
from dedup.lookup.index import RunIndex, open_index
from dedup.lookup.inputs import read_inputs
from dedup.lookup.judging import Turned

_JUDGED = 2_000  # training images judged for one reference image; of a larger crowd the rest follows those that are copies
_MOSTLY = 0.9  # of the judged that must be copies for that


@dataclass(frozen=True)
class ReferenceTask:
    """Reference images that one worker looks for.

    Parameters
    ----------
    run_dir : str
    identity : str
        Of the index, so that another one is opened anew.
    paths : tuple of str
        Images and tars.
    reason : str
        ``reference`` or ``listed``.
    keeps_unreadable : bool
        Whether a training image that can't be read counts as near: `confirm.unreadable=keep`.
    device : str
        `engine.device`: where the encoder computes.
    """

    run_dir: str
    identity: str
    paths: tuple[str, ...]
    reason: str
    keeps_unreadable: bool
    device: str


@dataclass
class Near:
    """What was found: a row for each pair of a training image and a reference image, and what could not be looked at.

    Parameters
    ----------
    rows : list of tuple
        sample_id, reason, key, shard, similarity, distance or None.
    n_images : int
        Reference images that were looked for.
    errors : list of str
        Reference images that could not be.
    n_unreadable : int
        Training images that could not be read.
    """

    rows: list[tuple[int, str, str, str | None, float, float | None]]
    n_images: int
    errors: list[str]
    n_unreadable: int


def find_near(task: ReferenceTask) -> Near:
    """Look for the reference images of a task among the training images."""
    index, found = _opened(task.run_dir, task.identity, task.device), Near([], 0, [], 0)
    for asked in read_inputs(task.paths, max_image_bytes=index.opened.config.input.max_image_bytes):
        # a list's own entry is its name
        name, place = (asked.name, "") if task.reason == "listed" else (asked.key, asked.shard)
        try:
            if asked.error is not None:
                raise asked.error
            near, n_unreadable = near_images(index, asked.data, keeps_unreadable=task.keeps_unreadable)
        except SampleError as error:
            found.errors.append(f"{asked.name}: {error}")
            continue
        found.n_images += 1
        found.n_unreadable += n_unreadable
        found.rows += [(sample_id, task.reason, name, place or None, similarity, distance) for sample_id, similarity, distance in near]
    return found


def near_images(index: RunIndex, data: bytes, *, keeps_unreadable: bool) -> tuple[list[tuple[int, float, float | None]], int]:
    """All distinct training images that an image is a copy of.

    Parameters
    ----------
    index : RunIndex
    data : bytes
        The encoded image.
    keeps_unreadable : bool

    Returns
    -------
    near : list of (sample_id, similarity, distance or None)
    n_unreadable : int

    Raises
    ------
    SampleError
        If it is no image.
    """
    views = index.views(data)
    candidates = index.candidates(views)
    order = sorted(candidates, key=lambda sample_id: (-candidates[sample_id][0], sample_id))
    if not index.opened.confirms:
        return [(sample_id, candidates[sample_id][0], None) for sample_id in order], 0
    look, near, n_unreadable, n_judged = Turned(views), [], 0, 0
    for sample_id in order[:_JUDGED]:
        similarity, view = candidates[sample_id]
        verdict = index.judge(look, sample_id, view)
        n_judged += verdict.is_copy is not None
        n_unreadable += verdict.is_copy is None
        if verdict.is_copy or (verdict.is_copy is None and keeps_unreadable):
            near.append((sample_id, similarity, verdict.distance))
    if len(order) > _JUDGED and len(near) >= _MOSTLY * max(n_judged, 1):
        near += [(sample_id, candidates[sample_id][0], None) for sample_id in order[_JUDGED:]]
    return near, n_unreadable


@lru_cache(maxsize=1)
def _opened(run_dir: str, identity: str, device: str) -> RunIndex:
    # BLAS and FAISS of several workers share the cores
    return open_index(run_dir, overrides=(f"engine.device={device}",), device="cpu", stages=("embed", "index"))


def batches_of(paths: list[str], n_workers: int) -> list[tuple[str, ...]]:
    """Paths for each task: a tar is one, images go together."""
    tars = [(path,) for path in paths if path.endswith((".tar", ".tar.gz", ".tgz"))]
    images = [path for path in paths if (path,) not in set(tars)]
    size = int(np.clip(-(-len(images) // (4 * n_workers)), 1, 256))
    return [*tars, *(tuple(images[start : start + size]) for start in range(0, len(images), size))]
