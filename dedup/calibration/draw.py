"""What a calibration works on: the run, the options, the drawn images, and which of them the run joined."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow.dataset as ds

from dedup.config import Config
from dedup.errors import InputError
from dedup.numerics.arraytypes import Floats, Ids, Sims
from dedup.numerics.graph.components import removed_by_threshold
from dedup.runs.directory import Run
from dedup.stages.stage import StageContext
from dedup.storage.tables import dataset, read_table

MOST_PAIRS = 1_000_000_000  # compared: some 15 s of two cores at 384 dimensions
_LEAST_IMAGES = 20


@dataclass(frozen=True)
class CalibrationOptions:
    """Options of a calibration."""

    precision: float = 0.99  # that the recommended threshold must reach
    n_images: int = 2_000  # images drawn, of which copies are planted
    strengths: str = "default"  # default or all, of the changes of `dedup.numerics.image.planting`
    seed: int = 0


@dataclass(frozen=True)
class Effort:
    """Limits on what is planted and judged: less is faster and less certain."""

    n_copies: int = 8_000  # copies planted
    n_copies_judged: int = 2_000
    n_pairs: int = 400  # unrelated pairs judged in one round
    n_decoys: int = 800


@dataclass
class Work:
    """A calibration in progress."""

    run: Run
    context: StageContext
    options: CalibrationOptions
    effort: Effort
    run_threshold: float  # its `search.min_similarity`
    thresholds: Floats  # shape (n,); ascending
    notes: list[str] = field(default_factory=list)  # what the user should know

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.context.config


@dataclass(frozen=True)
class Population:
    """The distinct images of a run that its own threshold applies to."""

    ids: Ids  # shape (n,); sample_ids, ascending
    labels: Ids  # shape (n,); equal for images that the run joined after judging; else the sample_id
    n_low_detail: int  # distinct images that need a higher similarity, and are left out


@dataclass(frozen=True)
class Drawn:
    """The images drawn, as positions in the population."""

    images: Ids  # of which copies are planted, ascending
    # rows, columns: images that are compared with each other, ascending
    rows: Ids
    columns: Ids

    @property
    def n_others(self) -> int:
        """Images that each row is compared with."""
        return len(self.columns) - 1 if len(self.columns) else 0


def read_population(run: Run, run_threshold: float, *, with_groups: bool) -> Population:
    """Read the distinct images, and which of them the run has found to be copies."""
    table = read_table(run.table("representatives"), ["sample_id", "min_similarity"])
    all_ids, thresholds = table["sample_id"].to_numpy(), table["min_similarity"].to_numpy()
    ids = np.sort(all_ids[thresholds <= np.float32(run_threshold)])
    if len(ids) < _LEAST_IMAGES:
        raise InputError(f"{run.url} has {len(ids)} distinct images with detail; expected at least {_LEAST_IMAGES} to calibrate on")
    labels = ids.copy()
    if with_groups:
        groups = read_table(run.table("groups"), ["sample_id", "raw_component_id"])
        _, places, rows = np.intersect1d(ids, groups["sample_id"].to_numpy(), assume_unique=True, return_indices=True)
        labels[places] = groups["raw_component_id"].to_numpy()[rows]
    return Population(ids, labels, len(all_ids) - len(ids))


def draw(population: Population, n_images: int, seed: int) -> Drawn:
    """Draw images; in a small run, all are compared with all."""
    rng, n = np.random.default_rng(seed), len(population.ids)
    order = rng.permutation(n)
    n_images = min(n_images, n)
    n_rows = min(n, max(n_images, MOST_PAIRS // n))
    n_columns = min(n, max(n_rows, MOST_PAIRS // n_rows))
    # rows are columns too, so that each has the same number of others
    return Drawn(np.sort(order[:n_images]), np.sort(order[:n_rows]), np.sort(order[:n_columns]))


def links_by_threshold(population: Population, run: Run, thresholds: Floats, *, of_copies: bool) -> Ids:
    """Count the images that near pairs of whole pictures of a population remove at each threshold, keeping one of each component.

    `of_copies`: count only pairs of images that have one label: candidates that the pixels confirmed, or that copies connect.

    A group of n copies counts as n - 1 and not as its n (n - 1) / 2 pairs: what a threshold gets right is the images it drops, and one
    placeholder that occurs a million times must not outweigh a billion false pairs.
    """
    src, dst, similarity = _candidates(run, (ds.field("kind") == "near") & (ds.field("source") == "whole"), population.ids)
    if of_copies:
        is_copy = population.labels[src] == population.labels[dst]
        src, dst, similarity = src[is_copy], dst[is_copy], similarity[is_copy]
    return removed_by_threshold(src, dst, similarity, len(population.ids), thresholds)


def share_confirmed(run: Run, n_samples: int, thresholds: Floats) -> Floats:
    """Share of all samples that whole pictures and equal bytes remove at each threshold, counting only pairs within a component of copies.

    The stage `confirm` judges no pair that others connect already, so its edges alone are too few: a candidate counts as confirmed
    if both ends are in one component.
    """
    groups = read_table(run.table("groups"), ["sample_id", "raw_component_id"]).sort_by("sample_id")
    ids, labels = groups["sample_id"].to_numpy(), groups["raw_component_id"].to_numpy()
    src, dst, similarity = _candidates(run, (ds.field("kind") == "exact") | (ds.field("source") == "whole"), ids)
    is_copy = labels[src] == labels[dst]
    removed = removed_by_threshold(src[is_copy], dst[is_copy], similarity[is_copy], max(len(ids), 1), thresholds)
    return removed / max(n_samples, 1)


def _candidates(run: Run, condition: ds.Expression, ids: Ids) -> tuple[Ids, Ids, Sims]:
    """Candidates with both ends in `ids`, which ascend: positions of the ends, and similarity."""
    rows = dataset(run.table("candidates")).to_table(columns=["src", "dst", "similarity"], filter=condition)
    ends = [rows[name].to_numpy() for name in ("src", "dst")]
    is_inside = np.isin(ends[0], ids) & np.isin(ends[1], ids)
    src, dst = (np.searchsorted(ids, end[is_inside]) for end in ends)
    return src, dst, rows["similarity"].to_numpy()[is_inside]
