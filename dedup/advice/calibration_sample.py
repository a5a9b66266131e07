"""The images that a calibration draws, and what the run knows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from dedup.errors import InputError
from dedup.lookup.opening import OpenedRun
from dedup.numerics.thresholds import removed_by_threshold
from dedup.storage.layout import RunLayout
from dedup.storage.tables import dataset, read_table

MOST_PAIRS = 1_000_000_000  # compared: some 15 s of two cores at 384 dimensions
_LEAST_IMAGES = 20


@dataclass(frozen=True)
class Population:
    """The distinct images of a run that follow its threshold.

    Parameters
    ----------
    ids : int64 array, shape (n,)
        sample_ids, ascending.
    labels : int64 array, shape (n,)
        Equal where the run's look at the pixels joined two; else the image's own sample_id.
    n_low_detail : int
        Distinct images that ask for more of a copy, and are left out.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    n_low_detail: int


@dataclass(frozen=True)
class Drawn:
    """What is compared with what, as positions in the population.

    Parameters
    ----------
    images : int64 array
        Of which copies are planted, ascending.
    rows, columns : int64 array
        Images that are compared with each other, ascending.
    """

    images: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    @property
    def n_others(self) -> int:
        """Images that each row is compared with."""
        return len(self.columns) - 1 if len(self.columns) else 0


def read_population(opened: OpenedRun, own: float, *, with_groups: bool) -> Population:
    """Distinct images, and which of them the run has found to be copies.

    Raises
    ------
    InputError
        If there are too few to say anything.
    """
    layout = RunLayout(opened.config.output.run_dir)
    table = read_table(layout.table("representatives"), ["sample_id", "min_similarity"])
    every, asked = table["sample_id"].to_numpy(), table["min_similarity"].to_numpy()
    ids = np.sort(every[asked <= np.float32(own)])
    if len(ids) < _LEAST_IMAGES:
        raise InputError(f"{layout.run_dir} has {len(ids)} distinct images with detail; expected at least {_LEAST_IMAGES} to calibrate on")
    labels = ids.copy()
    if with_groups:
        groups = read_table(layout.table("groups"), ["sample_id", "raw_component_id"])
        _, here, there = np.intersect1d(ids, groups["sample_id"].to_numpy(), assume_unique=True, return_indices=True)
        labels[here] = groups["raw_component_id"].to_numpy()[there]
    return Population(ids, labels, len(every) - len(ids))


def draw(population: Population, n_images: int, seed: int) -> Drawn:
    """Draw images; all of a small run's are compared with all."""
    rng, n = np.random.default_rng(seed), len(population.ids)
    order = rng.permutation(n)
    n_images = min(n_images, n)
    n_rows = min(n, max(n_images, MOST_PAIRS // n))
    n_columns = min(n, max(n_rows, MOST_PAIRS // n_rows))
    # rows are columns too, so that each has the same number of others
    return Drawn(np.sort(order[:n_images]), np.sort(order[:n_rows]), np.sort(order[:n_columns]))


def links_by_threshold(run_dir: str, name: str, ids: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Images that near pairs of whole pictures let go, at each threshold, one of each component staying.

    Parameters
    ----------
    run_dir : str
    name : str
        `candidates`, or `edges` for those confirmed.
    ids : int64 array
        Images that count, ascending; pairs with others are left out.
    thresholds : float64 array, shape (n,)

    Returns
    -------
    int64 array, shape (n,)

    Notes
    -----
    A group of n copies counts as n - 1 and not as its n (n - 1) / 2 pairs: what a threshold gets right are the images it drops, and one
    placeholder that occurs a million times must not outweigh a billion false pairs.
    """
    wanted = (ds.field("kind") == "near") & (ds.field("source") == "whole")
    rows = dataset(RunLayout(run_dir).table(name)).to_table(columns=["src", "dst", "similarity"], filter=wanted)
    src, dst = rows["src"].to_numpy(), rows["dst"].to_numpy()
    known = np.isin(src, ids) & np.isin(dst, ids)
    names, ends = np.unique(np.concatenate([src[known], dst[known]]), return_inverse=True)
    half = int(known.sum())
    return removed_by_threshold(ends[:half], ends[half:], rows["similarity"].to_numpy()[known], len(names), thresholds)
