"""What a calibration works on: the run, what is asked for, the images that are drawn, and what the run knows of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from dedup.config import Config
from dedup.errors import InputError
from dedup.numerics.graph.components import removed_by_threshold
from dedup.runs.directory import Run
from dedup.stages.stage import StageContext
from dedup.storage.tables import dataset, read_table

MOST_PAIRS = 1_000_000_000  # compared: some 15 s of two cores at 384 dimensions
_LEAST_IMAGES = 20


@dataclass(frozen=True)
class CalibrationOptions:
    """What is asked for."""

    precision: float = 0.99  # wanted of what the recommended threshold joins
    n_images: int = 2_000  # images drawn, of which copies are planted
    strengths: str = "default"  # default or all, of the changes of `dedup.numerics.image.planting`
    seed: int = 0


@dataclass(frozen=True)
class Effort:
    """How much is planted and judged at most: less is faster and less certain."""

    # n_copies, n_copies_judged: copies planted, and judged
    n_copies: int = 8_000
    n_copies_judged: int = 2_000
    n_pairs: int = 400  # unrelated pairs judged in one round
    n_decoys: int = 800


@dataclass
class Work:
    """A run that is calibrated."""

    run: Run
    context: StageContext
    options: CalibrationOptions
    effort: Effort
    own: float  # the run's own threshold
    thresholds: npt.NDArray[np.float64]  # shape (n,); ascending
    notes: list[str] = field(default_factory=list)  # what the user should know

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.context.config

    @property
    def has_verdicts(self) -> bool:
        """Whether the run judged its candidates by their pixels."""
        return self.run.judges_pixels


@dataclass(frozen=True)
class Population:
    """The distinct images of a run that follow its threshold."""

    ids: npt.NDArray[np.int64]  # shape (n,); sample_ids, ascending
    labels: npt.NDArray[np.int64]  # shape (n,); equal where the run's look at the pixels joined two; else the image's own sample_id
    n_low_detail: int  # distinct images that ask for more of a copy, and are left out


@dataclass(frozen=True)
class Drawn:
    """What is compared with what, as positions in the population."""

    images: npt.NDArray[np.int64]  # of which copies are planted, ascending
    # rows, columns: images that are compared with each other, ascending
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    @property
    def n_others(self) -> int:
        """Images that each row is compared with."""
        return len(self.columns) - 1 if len(self.columns) else 0


def read_population(run: Run, own: float, *, with_groups: bool) -> Population:
    """Distinct images, and which of them the run has found to be copies.

    Raises InputError if there are too few to say anything.
    """
    table = read_table(run.table("representatives"), ["sample_id", "min_similarity"])
    every, asked = table["sample_id"].to_numpy(), table["min_similarity"].to_numpy()
    ids = np.sort(every[asked <= np.float32(own)])
    if len(ids) < _LEAST_IMAGES:
        raise InputError(f"{run.url} has {len(ids)} distinct images with detail; expected at least {_LEAST_IMAGES} to calibrate on")
    labels = ids.copy()
    if with_groups:
        groups = read_table(run.table("groups"), ["sample_id", "raw_component_id"])
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


def links_by_threshold(population: Population, run: Run, thresholds: npt.NDArray[np.float64], *, of_copies: bool) -> npt.NDArray[np.int64]:
    """Images that near pairs of whole pictures let go, at each threshold, one of each component staying.

    `population`: pairs with other images are left out.
    `thresholds`: shape (n,).
    `of_copies`: count only pairs of images that have one label: candidates that the pixels confirmed, or that copies connect.
    Returns shape (n,).

    Notes
    -----
    A group of n copies counts as n - 1 and not as its n (n - 1) / 2 pairs: what a threshold gets right are the images it drops, and one
    placeholder that occurs a million times must not outweigh a billion false pairs.
    """
    wanted = (ds.field("kind") == "near") & (ds.field("source") == "whole")
    rows = dataset(run.table("candidates")).to_table(columns=["src", "dst", "similarity"], filter=wanted)
    ids = population.ids
    ends = [rows[name].to_numpy() for name in ("src", "dst")]
    known = np.isin(ends[0], ids) & np.isin(ends[1], ids)
    src, dst = (np.searchsorted(ids, end[known]) for end in ends)
    similarity = rows["similarity"].to_numpy()[known]
    if of_copies:
        is_copy = population.labels[src] == population.labels[dst]
        src, dst, similarity = src[is_copy], dst[is_copy], similarity[is_copy]
    return removed_by_threshold(src, dst, similarity, len(ids), thresholds)


def share_confirmed(run: Run, n_samples: int, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of all samples that whole pictures and equal bytes let go at each threshold, pairs of one component of copies alone counting.

    Notes
    -----
    The stage `confirm` looks at no pair that others connect already, so that its edges alone are too few: a candidate stands where
    both ends lie in one component.
    """
    wanted = (ds.field("kind") == "exact") | (ds.field("source") == "whole")
    rows = dataset(run.table("candidates")).to_table(columns=["src", "dst", "similarity"], filter=wanted)
    groups = read_table(run.table("groups"), ["sample_id", "raw_component_id"]).sort_by("sample_id")
    ids, labels = groups["sample_id"].to_numpy(), groups["raw_component_id"].to_numpy()
    ends = [rows[name].to_numpy() for name in ("src", "dst")]
    known = np.isin(ends[0], ids) & np.isin(ends[1], ids)
    src, dst = (np.searchsorted(ids, end[known]) for end in ends)
    similarity, is_copy = rows["similarity"].to_numpy()[known], labels[src] == labels[dst]
    removed = removed_by_threshold(src[is_copy], dst[is_copy], similarity[is_copy], max(len(ids), 1), thresholds)
    return removed / max(n_samples, 1)
