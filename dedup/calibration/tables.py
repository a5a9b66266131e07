"""Precision and recall at each threshold, from pairs counted, copies planted and pairs judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dedup.numerics.arraytypes import Floats, Ids, Mask
from dedup.numerics.image.planting import CHANGES
from dedup.numerics.statistics.shares import accepted_share, interval, share_beside, share_within, wilson
from dedup.numerics.statistics.tails import PairShares
from dedup.schemas import CALIBRATION_RECALLS

_LEAST_DECOYS = 200  # from which the share that pass is taken
_REPLICATES = 400  # as many as of `dedup.numerics.statistics.tails` and `dedup.calibration.lookalikes`
_FAMILIES = {change.name: change.family for change in CHANGES}
_ORDER = {change.name: number for number, change in enumerate(CHANGES)}


@dataclass(frozen=True)
class Estimate:
    """A figure for each threshold, with its interval; NaN where it is not known. All float64, shape (n_thresholds,)."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Precision:
    """Expected false pairs, and the precision that follows, for each threshold."""

    false: Estimate  # unrelated pairs of the whole run
    by_similarity: Estimate
    confirmed: Estimate | None  # once pixels are judged; None where they are not


@dataclass(frozen=True)
class Recall:
    """Recall of planted copies for each threshold, over all changes."""

    whole: Estimate  # by their vectors
    with_views: Floats  # shape (n_thresholds,)
    confirmed: Floats  # shape (n_thresholds,); by their pixels, NaN where none was judged
    least_change: list[str]  # the change with the lowest recall, views included
    least: Floats  # its recall
    by_change: pa.Table  # of `schemas.CALIBRATION_RECALLS`


def precision_with_verdicts(
    shares: PairShares,
    n: int,
    n_links: Ids,
    decoys: tuple[Floats, Mask],
    lookalikes: tuple[Floats, Floats],
    seed: int,
    *,
    has_lookalikes: bool,
) -> Precision:
    """Precision if the run judged pixels: the links are confirmed, the unrelated pairs are in addition.

    `n`: distinct images of the run.
    `n_links`: shape (n_thresholds,).
    `decoys`: similarities of mirrored pairs, and which the judge took for copies.
    `lookalikes`: expected among the links at each threshold, and in each replicate; see `Lookalikes.wrong`.
    `has_lookalikes`: whether any were judged, so that something is known even where no pair was found to mirror.
    """
    rng = np.random.default_rng(seed)
    expected, replicates = _pairs(shares, n)
    by_similarity = Estimate(*share_beside(n_links, expected, replicates, rng, among=lookalikes))
    accepted, judged = accepted_decoys(shares.thresholds, *decoys)
    confirmed = None
    if judged.max(initial=0) > 0 or has_lookalikes:
        passed = accepted_share(accepted, judged, len(replicates), rng)
        mean = (accepted + 0.5) / (judged + 1.0)
        confirmed = Estimate(*share_within(n_links, expected * mean, replicates * passed, rng, among=lookalikes))
    return Precision(Estimate(expected, *interval(replicates)), by_similarity, confirmed)


def precision_without_verdicts(shares: PairShares, n: int, n_links: Ids, seed: int) -> Precision:
    """Precision if similarity alone decides: the unrelated pairs are among the links found."""
    expected, replicates = _pairs(shares, n)
    by_similarity = Estimate(*share_within(n_links, expected, replicates, np.random.default_rng(seed)))
    return Precision(Estimate(expected, *interval(replicates)), by_similarity, None)


def accepted_decoys(thresholds: Floats, similarity: Floats, is_accepted: Mask) -> tuple[Ids, Ids]:
    """Of the decoys at or above each threshold, or of the 200 most similar: how many were taken for copies, and of how many."""
    order = np.argsort(-similarity, kind="stable")
    reached = np.searchsorted(-similarity[order], -thresholds, side="right")
    n = np.minimum(np.maximum(reached, _LEAST_DECOYS), len(order))
    summed = np.concatenate([[0], np.cumsum(is_accepted[order])])
    return summed[n].astype(np.int64), n.astype(np.int64)


def _pairs(shares: PairShares, n: int) -> tuple[Floats, Floats]:
    """Expected unrelated pairs among all n images, and in each replicate."""
    n_pairs = n * (n - 1) / 2
    return shares.shares * n_pairs, shares.replicates * n_pairs


def recall_of(copies: pa.Table, thresholds: Floats, seed: int) -> Recall:
    """Recall by change and threshold, of a table of `schemas.CALIBRATION_COPIES` that is not empty.

    For the intervals over all changes images are resampled: copies of one image depend on each other.
    """
    similarity = copies["similarity"].to_numpy()[:, None]
    required = np.maximum(thresholds.astype(np.float32)[None, :], copies["min_similarity"].to_numpy()[:, None])
    whole = similarity >= required
    with_views = whole | np.array([value is not None for value in copies["look_similarity"].to_pylist()])[:, None]
    is_judged = copies["is_judged"].to_numpy(zero_copy_only=False)
    confirmed = with_views & np.array([value is True for value in copies["is_copy"].to_pylist()])[:, None]
    change_of = np.array(copies["change"].to_pylist())
    change_names = sorted(set(change_of.tolist()), key=_ORDER.__getitem__)
    tables, by_views = [], []
    for name in change_names:
        is_change = change_of == name
        judged = is_change & is_judged
        n, n_judged = int(is_change.sum()), int(judged.sum())
        same = {"change": name, "family": _FAMILIES[name], "n_copies": n, "n_judged": n_judged}
        columns: dict[str, object] = {"threshold": thresholds} | {column: [value] * len(thresholds) for column, value in same.items()}
        columns |= _with_interval("recall", whole[is_change].sum(axis=0), n)
        columns |= _with_interval("recall_looks", with_views[is_change].sum(axis=0), n)
        columns |= _with_interval("recall_confirmed", confirmed[judged].sum(axis=0), n_judged)
        by_views.append(with_views[is_change].mean(axis=0))
        tables.append(pa.table({field.name: pa.array(columns[field.name], field.type) for field in CALIBRATION_RECALLS}))
    view_recall = np.stack(by_views)
    least = view_recall.argmin(axis=0)
    judged_mean = confirmed[is_judged].mean(axis=0) if is_judged.any() else np.full(len(thresholds), np.nan)
    drawn, by_change = _drawn_recall(whole, copies["sample_id"].to_numpy(), seed), pa.concat_tables(tables).cast(CALIBRATION_RECALLS)
    least_change = [change_names[number] for number in least.tolist()]
    return Recall(drawn, with_views.mean(axis=0), judged_mean, least_change, view_recall.min(axis=0), by_change)


def _with_interval(name: str, n_found: Ids, n: int) -> dict[str, object]:
    names = (name, f"{name}_low", f"{name}_high")
    if not n:
        return dict.fromkeys(names, [None] * len(n_found))
    low, high = np.array([wilson(count, n) for count in n_found.tolist()]).T
    return dict(zip(names, (n_found / n, low, high), strict=True))


def _drawn_recall(is_found: Mask, images: Ids, seed: int) -> Estimate:
    """The mean, with an interval from resampled images."""
    image_ids, image_of_copy = np.unique(images, return_inverse=True)
    hits = np.zeros((len(image_ids), is_found.shape[1]))
    np.add.at(hits, image_of_copy, is_found)
    n_each = np.bincount(image_of_copy, minlength=len(image_ids))
    weights = np.random.default_rng(seed).exponential(size=(_REPLICATES, len(image_ids)))
    low, high = interval((weights @ hits) / (weights @ n_each)[:, None])
    return Estimate(is_found.mean(axis=0), low, high)
