"""What a threshold joins wrongly: unrelated pairs that are alike, and how many the look at the pixels lets pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dedup.advice.calibration_pairs import Counted, Judged, count_pairs, leave_copies_out, look_at, most_alike
from dedup.advice.calibration_planting import Work
from dedup.advice.calibration_sample import Drawn, Population, links_by_threshold
from dedup.advice.calibration_tables import Precision, precision_with_verdicts, precision_without_verdicts
from dedup.config.encoders import encoder_kind
from dedup.encoders import decoded_side
from dedup.numerics.pairshares import PairShares, pair_shares
from dedup.numerics.pictures import SIDE
from dedup.stages.judging import Look

_DECOYS = 800  # looked at
_DECOY_ROWS = 4_000  # images that are mirrored to find them


@dataclass(frozen=True)
class FalsePairs:
    """Unrelated pairs of a run.

    Parameters
    ----------
    shares : PairShares
    precision : Precision
    judged : Judged
        Pairs that were looked at.
    n_links : int64 array, shape (n_thresholds,)
        Links of near copies that the run has found.
    """

    shares: PairShares
    precision: Precision
    judged: Judged
    n_links: npt.NDArray[np.int64]


def find_false_pairs(work: Work, population: Population, drawn: Drawn, floor: float) -> FalsePairs:
    """Count unrelated pairs, fit their tail, and say what precision follows at each threshold."""
    run_dir, thresholds, seed, n = work.config.output.run_dir, work.thresholds, work.options.seed, len(population.ids)
    counted, judged = count_pairs(work.context, population, drawn, thresholds, floor), Judged()
    at = np.maximum(thresholds, work.own)  # below the run's own threshold links are not known: as many as there, at least
    if not work.has_verdicts:
        links = links_by_threshold(population, run_dir, at, of_copies=False)
        shares = _below_copies(work, counted, drawn)
        return FalsePairs(shares, precision_without_verdicts(shares, n, links, seed), judged, links)
    config = work.config
    look = Look(run_dir, config.input.max_pixels, max(SIDE, decoded_side(config.encoder)), config.confirm.max_distance, False)
    counted, labels = leave_copies_out(work.context, look, counted, population, judged)
    shares = pair_shares(counted.sample(drawn), counted.counts, thresholds, seed=seed)
    population = replace(population, labels=labels)
    _look_at_decoys(work, look, population, drawn, counted, judged)
    links = links_by_threshold(population, run_dir, at, of_copies=True)
    precision = precision_with_verdicts(shares, n, links, judged.decoys(), seed)
    if precision.confirmed is None:
        work.notes.append("no pair could be looked at, the images can't be read: precision after the look at the pixels is not known")
    return FalsePairs(shares, precision, judged, links)


def _below_copies(work: Work, counted: Counted, drawn: Drawn) -> PairShares:
    """Shares of unrelated pairs where nothing tells copies: the tail is fitted below what one pair for each image reaches."""
    order = np.sort(counted.similarity)[::-1]
    upper = float(min(work.own, order[len(drawn.rows)] if len(order) > len(drawn.rows) else work.own))
    inside = counted.without(counted.similarity >= np.float32(upper))
    shares = pair_shares(inside.sample(drawn, upper), inside.counts, work.thresholds, seed=work.options.seed)
    work.notes.append(
        f"the run did not look at pixels, so that copies can't be told from others: the tail is fitted below {upper:.2f}, where few are "
        "copies, and reaches beyond; look at a montage"
    )
    if shares.tail is None:
        work.notes.append("there are too few pairs for a tail: what is counted holds copies, so that false pairs are overstated")
        return pair_shares(counted.sample(drawn), counted.counts, work.thresholds, seed=work.options.seed)
    return shares


def _look_at_decoys(work: Work, look: Look, population: Population, drawn: Drawn, counted: Counted, judged: Judged) -> None:
    """Look at pairs that are none of copies, since one of each is mirrored, and yet are alike."""
    context = work.context
    if encoder_kind(work.config.encoder.name).can_turn:
        last = counted.thresholds[-1:]  # only the pairs are asked for
        found = count_pairs(context, population, drawn, last, counted.floor, is_mirrored=True, most_rows=_DECOY_ROWS)
    else:
        found = counted  # such encoders hardly tell a mirrored picture: the pairs themselves, one of each mirrored
    places = most_alike(found, _DECOYS, set())
    verdicts = look_at(context, look, found.src[places], found.dst[places], "mirror", "decoys")
    judged.add(found.src[places], found.dst[places], found.similarity[places], verdicts, is_decoy=True)
