"""Unrelated pairs of a run: counted over sampled images, the most similar of them judged by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from dedup.calibration.draw import Drawn, Population, Work, links_by_threshold
from dedup.calibration.lookalikes import Lookalikes, judge_lookalikes
from dedup.calibration.tables import Precision, precision_with_verdicts, precision_without_verdicts
from dedup.config.encoders import encoder_kind
from dedup.contracts import in_order
from dedup.encoders.dct import turn_names, turns
from dedup.judge.pair import PLACES, JudgeInputs, JudgeSettings, Outcome, find_places
from dedup.numerics.arraytypes import Floats, Ids, Mask, Sims
from dedup.numerics.graph.components import connected_components
from dedup.numerics.search.exhaustive import Alike, count_alike
from dedup.numerics.similarity import apply_turn, unit_rows
from dedup.numerics.statistics.tails import PairSample, PairShares, pair_shares
from dedup.runs.directory import Run
from dedup.stages.stage import StageContext

_BLOCK = 16_384  # columns of a task
_PILOT = 2_000  # images whose pairs show where the most similar pairs begin
_LISTED = 20_000  # about how many pairs are listed one by one
_LISTED_SHARE = 0.05  # of all pairs, at most
_ROUNDS = 4
_FEW = 0.05  # share of copies in a round of judging below which it is the last
_PER_TASK = 25
MIRROR = "mirror"
_DECOY_ROWS = 4_000  # images that are mirrored to find decoys


@dataclass(frozen=True)
class FalsePairs:
    """Unrelated pairs of a run."""

    shares: PairShares
    precision: Precision
    judged: Judged  # pairs that were judged
    n_links: Ids  # shape (n_thresholds,); links of near copies that the run found
    lookalikes: Lookalikes | None = None  # that were made and judged; None where pixels are not


@dataclass
class Counted:
    """Pairs of rows with columns."""

    counts: Ids  # shape (n_rows, n_thresholds)
    row: Ids  # shape (n,); position among the rows
    # src, dst: shape (n,); sample_ids of the row and the column
    src: Ids
    dst: Ids
    similarity: Sims  # shape (n,)
    floor: float  # all pairs of at least this similarity are listed
    thresholds: Floats

    def sample(self, drawn: Drawn, upper: float = 1.0) -> PairSample:
        """The listed pairs below `upper`, for the tail."""
        is_below = self.similarity < np.float32(upper) if upper < 1.0 else np.ones(len(self.row), dtype=bool)
        return PairSample(self.row[is_below], self.similarity[is_below], len(drawn.rows), drawn.n_others, self.floor, upper)

    def without(self, is_copy: Mask) -> Counted:
        """The same pairs without the copies."""
        removed = np.flatnonzero(is_copy)
        counts = self.counts.copy()
        reached = np.searchsorted(self.thresholds.astype(np.float32), self.similarity[removed], side="right")
        for row, n in zip(self.row[removed].tolist(), reached.tolist(), strict=True):
            counts[row, :n] -= 1
        kept = ~is_copy
        return Counted(counts, self.row[kept], self.src[kept], self.dst[kept], self.similarity[kept], self.floor, self.thresholds)


@dataclass
class Judged:
    """Pairs that were judged; rows of `schemas.CALIBRATION_PAIRS`."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, src: Ids, dst: Ids, similarity: Sims, outcomes: Sequence[Outcome], *, is_decoy: bool) -> None:
        """Add the outcomes of some pairs."""
        for a, b, value, outcome in zip(src.tolist(), dst.tolist(), similarity.tolist(), outcomes, strict=True):
            verdict = {"is_copy": outcome.is_copy, "distance": outcome.distance, "reason": outcome.reason}
            kind = "mirrored" if is_decoy else "pair"
            self.rows.append({"src": a, "dst": b, "similarity": value, "kind": kind, "is_decoy": is_decoy, "is_drawn": None} | verdict)

    def add_lookalikes(self, found: Lookalikes) -> None:
        """Add pictures with a part exchanged."""
        for src, dst, outcome in zip(found.src, found.dst, found.outcomes, strict=True):
            row = {"src": src, "dst": dst, "similarity": None, "kind": "exchanged", "is_decoy": True}
            self.rows.append(row | vars(outcome))

    def decoys(self) -> tuple[Floats, Mask]:
        """Similarity of the mirrored pairs that could be read, and which were taken for copies."""
        read = [row for row in self.rows if row["kind"] == "mirrored" and row["is_copy"] is not None]
        return np.array([row["similarity"] for row in read], np.float64), np.array([row["is_copy"] for row in read], bool)


@dataclass(frozen=True)
class PairTask:
    """Rows that are compared with one block of columns."""

    run: Run
    rows: Ids
    row_labels: Ids
    columns: Ids
    column_labels: Ids
    thresholds: Floats
    floor: float
    is_mirrored: bool


@dataclass(frozen=True)
class JudgeTask:
    """Pairs that a worker judges."""

    inputs: JudgeInputs
    src: tuple[int, ...]
    dst: tuple[int, ...]
    turn: str


def find_floor(run: Run, population: Population, drawn: Drawn, seed: int) -> tuple[float, float]:
    """Similarity from which pairs are listed, and the one that a thousandth of the pairs reach, estimated on some of the rows."""
    chosen = np.sort(np.random.default_rng(seed).permutation(drawn.rows)[:_PILOT])
    unit, labels = unit_rows(run.vectors().take(population.ids[chosen])), population.labels[chosen]
    product = unit @ unit.T
    values = product[np.triu(labels[:, None] != labels[None, :], 1)]
    n_pairs = len(drawn.rows) * drawn.n_others
    share = min(_LISTED_SHARE, max(_LISTED, 5 * len(drawn.rows)) / max(n_pairs, 1))
    floor, thousandth = np.quantile(values, [1.0 - share, 0.999]) if len(values) else (0.0, 0.0)
    # in steps, so that the last bits of a product do not matter
    return float(np.floor(200 * floor) / 200), float(thousandth)


def find_false_pairs(work: Work, population: Population, drawn: Drawn, floor: float, copies: dict[str, tuple[int, int]]) -> FalsePairs:
    """Count unrelated pairs, fit their tail, and derive the precision at each threshold.

    `copies`: by kind, natural or drawn: planted copies that were judged, and how many of them passed.
    """
    run, thresholds, seed, n = work.run, work.thresholds, work.options.seed, len(population.ids)
    counted, judged = count_pairs(work.context, population, drawn, thresholds, floor), Judged()
    # links below the run's own threshold are not known: there are at least as many as at it
    link_thresholds = np.maximum(thresholds, work.run_threshold)
    if not run.judges_pixels:
        links = links_by_threshold(population, run, link_thresholds, of_copies=False)
        shares = _below_copies(work, counted, drawn)
        return FalsePairs(shares, precision_without_verdicts(shares, n, links, seed), judged, links)
    counted, labels = leave_copies_out(work, counted, population, judged)
    shares = pair_shares(counted.sample(drawn), counted.counts, thresholds, seed=seed)
    population = replace(population, labels=labels)
    _judge_decoys(work, population, drawn, counted, judged)
    links = links_by_threshold(population, run, link_thresholds, of_copies=True)
    lookalikes = judge_lookalikes(work, population, drawn, _most_similar(counted, work.run_threshold), copies)
    judged.add_lookalikes(lookalikes)
    mean, replicates = lookalikes.share_wrong(link_thresholds, seed)
    wrong = links * mean, links * replicates
    has_lookalikes = bool(lookalikes.outcomes)
    precision = precision_with_verdicts(shares, n, links, judged.decoys(), wrong, seed, has_lookalikes=has_lookalikes)
    if precision.confirmed is None:
        work.notes.append("no pair could be judged, the images can't be read: precision once pixels are judged is not known")
    return FalsePairs(shares, precision, judged, links, lookalikes)


def _most_similar(counted: Counted, least: float) -> tuple[Ids, Ids]:
    """Each image that has listed pairs of at least a similarity, with the other end of its most similar one."""
    near = counted.similarity >= np.float32(least)
    src, dst = np.concatenate([counted.src[near], counted.dst[near]]), np.concatenate([counted.dst[near], counted.src[near]])
    order = np.lexsort((dst, -np.tile(counted.similarity[near], 2), src))
    images, first = np.unique(src[order], return_index=True)
    return images, dst[order][first]


def _below_copies(work: Work, counted: Counted, drawn: Drawn) -> PairShares:
    """Shares of unrelated pairs if copies are not known: the tail is fitted below the similarity that one pair per image reaches."""
    order = np.sort(counted.similarity)[::-1]
    upper = float(min(work.run_threshold, order[len(drawn.rows)] if len(order) > len(drawn.rows) else work.run_threshold))
    below = counted.without(counted.similarity >= np.float32(upper))
    shares = pair_shares(below.sample(drawn, upper), below.counts, work.thresholds, seed=work.options.seed)
    fitted = f"the tail is fitted below {upper:.2f}, where few pairs are copies, and extrapolated; look at a montage"
    work.notes.append(f"the run judged no pixels, so copies can't be told from others: {fitted}")
    if shares.tail is None:
        work.notes.append("there are too few pairs to fit a tail: the counted pairs include copies, so false pairs are overstated")
        return pair_shares(counted.sample(drawn), counted.counts, work.thresholds, seed=work.options.seed)
    return shares


def count_pairs(
    context: StageContext, population: Population, drawn: Drawn, thresholds: Floats, floor: float, *, mirrors: int = 0
) -> Counted:
    """Compare the rows with the columns, block by block; or some of the rows, at least so many, mirrored."""
    rows = drawn.rows[:: max(1, len(drawn.rows) // mirrors)] if mirrors else drawn.rows
    ids, labels = population.ids, population.labels
    blocks = [drawn.columns[start : start + _BLOCK] for start in range(0, len(drawn.columns), _BLOCK)]
    tasks = [
        PairTask(context.run, ids[rows], labels[rows], ids[block], labels[block], thresholds, floor, bool(mirrors)) for block in blocks
    ]
    stage = "decoys" if mirrors else "unrelated"
    parts = list(in_order(context.run_tasks(stage, "images", compare_block, tasks, [len(task.columns) for task in tasks])))
    row, dst, similarity = (np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "column", "similarity"))
    counts = np.sum([part.counts for part in parts], axis=0)
    return Counted(counts, row, ids[rows][row], dst, similarity, floor, thresholds)


def compare_block(task: PairTask) -> Alike:
    """Compare rows, mirrored or not, with a block of columns; pairs come as sample_ids."""
    store = task.run.vectors()
    rows, columns = store.take(task.rows), store.take(task.columns)
    if task.is_mirrored:
        rows = apply_turn(rows, turns()[turn_names().index(MIRROR)]).astype(np.float16)
    alike = count_alike(rows, task.row_labels, columns, task.column_labels, task.thresholds, task.floor)
    return Alike(alike.counts, alike.row, task.columns[alike.column], alike.similarity)


def leave_copies_out(work: Work, counted: Counted, population: Population, judged: Judged) -> tuple[Counted, Ids]:
    """Judge the most similar pairs; leave out the copies and all pairs that they join. Also returns the resulting labels."""
    labels, seen = population.labels, {(-1, -1)}
    for _ in range(_ROUNDS):
        chosen = most_alike(counted, work.effort.n_pairs, seen)
        if not len(chosen):
            break
        src, dst, similarity = counted.src[chosen], counted.dst[chosen], counted.similarity[chosen]
        outcomes = judge_pairs(work.context, src, dst, "none", "judge")
        judged.add(src, dst, similarity, outcomes, is_decoy=False)
        seen |= set(zip(np.minimum(src, dst).tolist(), np.maximum(src, dst).tolist(), strict=True))
        is_copy = np.array([outcome.is_copy is True for outcome in outcomes])
        labels = _joined(population.ids, labels, src[is_copy], dst[is_copy])
        positions = [np.searchsorted(population.ids, ends) for ends in (counted.src, counted.dst)]
        counted = counted.without(labels[positions[0]] == labels[positions[1]])
        if is_copy.mean() < _FEW:
            break
    return counted, labels


def _joined(ids: Ids, labels: Ids, src: Ids, dst: Ids) -> Ids:
    """Labels after joining the components of some pairs."""
    distinct, node_of = np.unique(labels, return_inverse=True)
    ends = [node_of[np.searchsorted(ids, end)] for end in (src, dst)]
    return np.asarray(distinct[connected_components(ends[0], ends[1], len(distinct))][node_of])


def _judge_decoys(work: Work, population: Population, drawn: Drawn, counted: Counted, judged: Judged) -> None:
    """Judge pairs that are similar but no copies, since one of each is mirrored."""
    context = work.context
    if encoder_kind(work.config.encoder.name).can_turn:
        last = counted.thresholds[-1:]  # only the pairs are needed, not the counts
        decoys = count_pairs(context, population, drawn, last, counted.floor, mirrors=_DECOY_ROWS)
    else:
        decoys = counted  # such encoders hardly distinguish mirrored pictures: take the same pairs, and mirror one of each
    chosen = most_alike(decoys, work.effort.n_decoys, set())
    outcomes = judge_pairs(context, decoys.src[chosen], decoys.dst[chosen], MIRROR, "decoys")
    judged.add(decoys.src[chosen], decoys.dst[chosen], decoys.similarity[chosen], outcomes, is_decoy=True)


def most_alike(counted: Counted, n: int, skip: set[tuple[int, int]]) -> Ids:
    """Places of the n most similar pairs, each once, without those in `skip`."""
    low, high = np.minimum(counted.src, counted.dst), np.maximum(counted.src, counted.dst)
    order = np.lexsort((high, low, -counted.similarity))
    place_of: dict[tuple[int, int], int] = {}
    for place, pair in zip(order.tolist(), zip(low[order].tolist(), high[order].tolist(), strict=True), strict=True):
        if pair not in skip:
            place_of.setdefault(pair, place)
            if len(place_of) == n:
                break
    return np.array(list(place_of.values()), dtype=np.int64)


def judge_pairs(context: StageContext, src: Ids, dst: Ids, turn: str, stage: str) -> list[Outcome]:
    """Judge pairs, the first of each turned; returns outcomes in their order."""
    if not len(src):
        return []
    # a pair that can't be read is no evidence, whatever the run decides about it
    settings = replace(JudgeSettings.of(context.config), keeps_unreadable=False)
    order = np.lexsort((dst, src))  # a picture is read once for all its pairs
    metadata = context.run.table("metadata")
    places = find_places(context.engine, metadata, np.unique(np.concatenate([src, dst]))).sort_by("sample_id")
    sample_ids = places["sample_id"].to_numpy()
    tasks = []
    for start in range(0, len(order), _PER_TASK):
        part = order[start : start + _PER_TASK]
        ids = np.unique(np.concatenate([src[part], dst[part]]))
        part_places = places.take(pa.array(np.searchsorted(sample_ids, ids))).cast(PLACES)
        tasks.append(JudgeTask(JudgeInputs(settings, part_places), tuple(src[part].tolist()), tuple(dst[part].tolist()), turn))
    results = in_order(context.run_tasks(stage, "pairs", judge_block, tasks, [len(task.src) for task in tasks]))
    by_place = dict(zip(order.tolist(), (outcome for outcomes in results for outcome in outcomes), strict=True))
    return [by_place[place] for place in range(len(src))]


def judge_block(task: JudgeTask) -> list[Outcome]:
    """Judge the pairs of a task."""
    with task.inputs.judge() as judge:
        return [judge.judge(src, dst, (task.turn,), "calibration") for src, dst in zip(task.src, task.dst, strict=True)]
