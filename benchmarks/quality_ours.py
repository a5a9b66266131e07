"""This project in `quality.py`: a run per change, read from the tables it writes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from quality_files import Design
from quality_measures import Ints, Tally, tally

import dedup
from dedup.config import Config
from dedup.config.key import STAGE_NAMES
from dedup.config.keys import KEYS
from dedup.config.load import resolved
from dedup.engines.local import LocalEngine
from dedup.machine import available_cores

# Label and overrides of each column; columns with a key that this version lacks are left out.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("default", ()),
    ("without second looks", ("search.views=false",)),
    # views are candidates for confirmation: without it they are left out too
    ("one vector", ("confirm.enabled=false",)),
)
_STAGES = STAGE_NAMES[: STAGE_NAMES.index("manifest") + 1]
# these settings change no result here: exact codes are not needed, recall need not be measured, the cores share a folder
_QUIET = ("index.codes=none", "search.recall_queries=0")
THRESHOLD = "search.min_similarity"


def available_parts(parts: Sequence[tuple[str, tuple[str, ...]]] | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """The parts, by default `PARTS`, whose keys all exist."""
    return [
        (label, overrides)
        for label, overrides in (PARTS if parts is None else parts)
        if all(text.partition("=")[0] in KEYS for text in overrides)
    ]


def default_threshold() -> float:
    """The default threshold."""
    return resolved(Config()).search.min_similarity


class Runs:
    """Runs of one part: a run directory per change, whose embeddings are made once and kept while thresholds change."""

    def __init__(self, design: Design, scratch: Path, overrides: Sequence[str], engine: LocalEngine) -> None:
        self._design, self._scratch, self._overrides, self._engine = design, scratch, tuple(overrides), engine

    def tally(self, threshold: float | None, *, until_merge: bool = False) -> tuple[Tally, float]:
        """Judge every batch at a threshold, None for the default; also wall seconds.

        With `until_merge` the batches after the first that merges different photos are left out.
        """
        started, is_over = time.perf_counter(), False
        found: list[tuple[str, Ints]] = []
        for change in self._design.changes:
            if not is_over:
                found.append((change, self._labels(change, threshold)))
                is_over = until_merge and bool(len(tally(found[-1:], self._design).merged))
        return tally(found, self._design), time.perf_counter() - started

    def close(self) -> None:
        """Remove the run directories."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _labels(self, change: str, threshold: float | None) -> Ints:
        images, run_dir = self._scratch / "images" / change, self._scratch / "runs" / change
        if not images.exists():
            link_files(self._design.batch(change), images)
        n_files = self._design.n_photos + self._design.n_originals
        settings = [f"input.images={images}", f"output.run_dir={run_dir}", f"embed.images_per_partition={-(-n_files // available_cores())}"]
        settings += [*_QUIET, *self._overrides, *([] if threshold is None else [f"{THRESHOLD}={threshold}"])]
        dedup.run(dedup.load_config(None, settings), _STAGES, redo=True, engine=self._engine)
        labels = -1 - np.arange(n_files)  # an image that was rejected is in no component
        for name in ("manifest", "duplicates"):
            rows = ds.dataset(run_dir / name, format="parquet", exclude_invalid_files=True).to_table(columns=["key", "component_id"])
            places = [int(key.partition(".")[0]) for key in rows["key"].to_pylist()]
            labels[places] = rows["component_id"].to_numpy()
        return labels


def link_files(files: Sequence[Path], folder: Path) -> None:
    """Give files a folder of their own, named by their position; hard links if the file system supports them."""
    folder.mkdir(parents=True)
    for place, file in enumerate(files):
        target = folder / f"{place:06d}{file.suffix}"
        try:
            os.link(file, target)
        except OSError:
            target.symlink_to(file.resolve())


def clean_percent(is_clean: Callable[[int], bool], start: int, low: int = 50, high: int = 100) -> int:
    """Smallest similarity in per cent at which no different photos are merged, by bisection; `high` if there is none.

    Examples
    --------
    >>> clean_percent(lambda percent: percent >= 83, start=70)
    83
    """
    low, high = (low - 1, start) if is_clean(start) else (start, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_clean(middle) else (middle, high)
    return high


def measure(
    design: Design, scratch: Path, parts: Sequence[tuple[str, tuple[str, ...]]]
) -> Iterator[tuple[str, dict[str, tuple[float, Tally]], float]]:
    """Every part: its label, threshold and tally by setting (default, clean), and seconds of the default runs."""
    engine = LocalEngine()
    try:
        for label, overrides in parts:
            runs = Runs(design, scratch / label.replace(" ", "-"), overrides, engine)
            start = default_threshold()
            default, seconds = runs.tally(None)
            tallies = {round(100 * start): default}

            def is_clean(percent: int, runs: Runs = runs, tallies: dict[int, Tally] = tallies) -> bool:
                if percent not in tallies:
                    tallies[percent], _ = runs.tally(percent / 100, until_merge=True)
                return not len(tallies[percent].merged)

            # a default that merges nothing wrong is what users get; each lower threshold would cost a run per change
            percent = round(100 * start)
            if not is_clean(percent):
                percent = clean_percent(is_clean, percent)
                is_clean(percent)
            runs.close()
            yield label, {"default": (start, default), "clean": (percent / 100, tallies[percent])}, seconds
    finally:
        engine.close()
