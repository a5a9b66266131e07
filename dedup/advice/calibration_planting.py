"""What the steps of a calibration share, and how its images are planted with copies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.advice.calibration_copies import CopyResult, CopyTask, plant_copies
from dedup.advice.calibration_sample import Drawn, Population
from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.encoders import look_maker
from dedup.lookup.opening import OpenedRun
from dedup.numerics.planting import changes
from dedup.schemas import CALIBRATION_COPIES
from dedup.stages.context import StageContext
from dedup.stages.judging import PLACES, find_places

_COPIES, _JUDGED = 8_000, 2_000  # planted, and looked at
_IMAGES_PER_TASK = 20

_SIZED_PLACES = pa.schema([*PLACES, ("width", pa.int32()), ("height", pa.int32())])


@dataclass(frozen=True)
class CalibrationOptions:
    """What is asked for.

    Parameters
    ----------
    precision : float
        Wanted of what the recommended threshold joins.
    n_images : int
        Images drawn, of which copies are planted.
    strengths : str
        default or all, of the changes of `numerics.planting`.
    seed : int
    """

    precision: float = 0.99
    n_images: int = 2_000
    strengths: str = "default"
    seed: int = 0


@dataclass
class Work:
    """A run that is calibrated.

    Parameters
    ----------
    opened : OpenedRun
    context : StageContext
    options : CalibrationOptions
    own : float
        The run's own threshold.
    thresholds : float64 array, shape (n,)
        Ascending.
    notes : list of str
        What the user should know.
    """

    opened: OpenedRun
    context: StageContext
    options: CalibrationOptions
    own: float
    thresholds: npt.NDArray[np.float64]
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.context.config

    @property
    def has_verdicts(self) -> bool:
        """Whether the run looked at the pixels of its candidates."""
        return self.opened.confirms


def plant(work: Work, population: Population, drawn: Drawn) -> tuple[pa.Table, int]:
    """Plant copies of the drawn images and find them.

    Returns
    -------
    copies : pyarrow.Table
        Of `schemas.CALIBRATION_COPIES`.
    n_unreadable : int
        Images that could not be read.
    """
    config, options = work.config, work.options
    if not encoder_kind(config.encoder.name).has_images:
        work.notes.append(
            "the run holds precomputed embeddings: no copies can be planted, recall is not known; name what made them, such as "
            "encoder.name=clip encoder.model=ViT-B-32 encoder.pretrained=…"
        )
        return CALIBRATION_COPIES.empty_table(), 0
    names = [change.name for change in changes(strengths="all" if options.strengths == "all" else "default")]
    rows = find_places(work.context, population.ids[drawn.images], _SIZED_PLACES).to_pylist()
    n_each = min(len(names), max(1, _COPIES // len(rows)))
    share = min(1.0, _JUDGED / (n_each * len(rows))) if work.opened.confirms else 0.0
    rng = np.random.default_rng([options.seed, 1])
    order = rng.permutation(len(names))
    has_looks = look_maker(config.encoder) is not None and bool(work.opened.index.get("n_looks"))
    least, tasks = float(work.thresholds[0]), []
    for start in range(0, len(rows), _IMAGES_PER_TASK):
        part = rows[start : start + _IMAGES_PER_TASK]
        # each change as often as each other, and none twice of one image
        own = [tuple(names[order[((start + k) * n_each + j) % len(names)]] for j in range(n_each)) for k in range(len(part))]
        judged = [tuple((rng.random(n_each) < share).tolist()) for _ in part]
        tasks.append(CopyTask(config, tuple(part), tuple(own), tuple(judged), least, has_looks, options.seed))
    parts: dict[int, CopyResult] = {}
    uses_gpu = encoder_kind(config.encoder.name).uses_gpu
    for number, found in work.context.run_tasks(
        "copies", "images", plant_copies, tasks, [len(task.rows) for task in tasks], uses_gpu=uses_gpu
    ):
        parts[number] = found
    unreadable = [text for number in sorted(parts) for text in parts[number].unreadable]
    copies = pa.concat_tables([parts[number].copies for number in sorted(parts)])
    if unreadable:
        work.notes.append(f"{len(unreadable):,} of {len(rows):,} drawn images can't be read, and have no copies: {unreadable[0]}")
    if not len(copies):
        work.notes.append("no copy could be planted: recall is not known")
    return copies, len(unreadable)
