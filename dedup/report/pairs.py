"""Pairs side by side: refused ones by reason, and those nearest to either limit."""

from __future__ import annotations

from dataclasses import dataclass

from dedup.report import queries
from dedup.report.asking import Asker, Row
from dedup.report.below import BelowSample, sample_below
from dedup.report.cards import Card, Pair, pair_of
from dedup.report.figures import SIMILARITY_BINS, Reason, lowest_shown, refusals
from dedup.report.reported import ReportedRun
from dedup.storage.tables import dataset

_PER_REASON = 8
_N_NEAR_LIMIT = 8
_N_BELOW = 12
_LOOKED_UP = 500  # of the most similar pairs below the threshold: some are of one group all the same


@dataclass(frozen=True)
class Pairs:
    """Pairs that are drawn.

    Parameters
    ----------
    refused : list of (Reason, list of Pair)
    below : list of Pair
        Just below the threshold, and in no common group.
    confirmed, nearly : list of Pair
        Confirmed by the pixels with the largest distances, and refused with the smallest.
    sample : BelowSample or None
        None where the vectors are gone.
    """

    refused: list[tuple[Reason, list[Pair]]]
    below: list[Pair]
    confirmed: list[Pair]
    nearly: list[Pair]
    sample: BelowSample | None


def pairs(asker: Asker, run: ReportedRun, *, seed: int) -> Pairs:
    """Choose pairs."""
    reasons = refusals(asker.rows(queries.REFUSED, n=_PER_REASON))
    sample = _sample(run, seed)
    nearly = asker.rows(queries.NEARLY, n=_N_NEAR_LIMIT, max_distance=run.config.confirm.max_distance) if reasons else []
    return Pairs(
        [(reason, [pair_of(row, _details(row), row["reason"]) for row in reason.examples]) for reason in reasons],
        [] if sample is None else _below(asker, sample),
        [pair_of(row, _details(row)) for row in asker.rows(queries.FARTHEST, n=_N_NEAR_LIMIT)],
        [pair_of(row, _details(row), "different") for row in nearly],
        sample,
    )


def _details(row: Row) -> list[str]:
    found = {
        "look": "found by a second look",
        "also": "found by the second source",
        "also_look": "found by a second look of the second source",
    }
    turned = "" if row["variant"] in (None, "none") else f"turned: {row['variant']}"
    asked = f"asked by {row['stage']}" if row.get("stage") not in (None, "confirm") else ""
    return [found.get(row["source"], ""), turned, asked]


def _sample(run: ReportedRun, seed: int) -> BelowSample | None:
    counts: dict[int, int] = {}
    for batch in dataset(run.layout.table("partitions")).to_batches(columns=["partition", "n_samples"]):
        for number, n in zip(batch["partition"].to_pylist(), batch["n_samples"].to_pylist(), strict=True):
            counts[number] = counts.get(number, 0) + n
    try:
        threshold = run.min_similarity
        return sample_below(run.run_dir, counts, threshold, low=lowest_shown(threshold), n_bins=SIMILARITY_BINS, seed=seed)
    except FileNotFoundError:  # a run may be kept without its vectors
        return None


def _below(asker: Asker, sample: BelowSample) -> list[Pair]:
    """The most similar pairs below the threshold whose ends are in no common group."""
    ends = list(zip(sample.src.tolist(), sample.dst.tolist(), sample.similarity.tolist(), strict=True))[:_LOOKED_UP]
    wanted = {sample_id for src, dst, _ in ends for sample_id in (src, dst)}
    component = {row["sample_id"]: row["component_id"] for row in asker.rows(queries.COMPONENTS, wanted=wanted)}
    apart = [(src, dst, near) for src, dst, near in ends if component.get(src, src) != component.get(dst, dst)]
    return [Pair(Card(src), Card(dst), near) for src, dst, near in apart[:_N_BELOW]]
