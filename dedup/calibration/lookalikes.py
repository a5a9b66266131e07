"""Look-alikes of a run's own pictures: how many pass the judge, and how many wrong drops that means.

No pair of the run is known to be no copy, least of all those that the judge took for copies. So look-alikes are made: a part of a picture
is exchanged for one of a similar picture. The share of them that passes, and the share of planted copies that does, tell how many of the
pairs that stand, and of those refused, are look-alikes.
Drawn, written and printed pictures are counted apart from photos: they differ in less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from scipy import stats

from dedup.calibration.draw import Drawn, Population, Work
from dedup.contracts import in_order
from dedup.errors import InputError, SampleError
from dedup.judge.pair import InMemory, JudgeInputs, JudgeSettings, PairJudge, find_places
from dedup.numerics.arraytypes import Floats, Ids, Mask, Sims
from dedup.numerics.image.exchange import LARGE_PART, SMALL_PART, exchange_part
from dedup.numerics.image.planting import encode, on_picture
from dedup.numerics.judge.match import DRAWN
from dedup.numerics.statistics.shares import accepted_share, interval
from dedup.runs.directory import Run
from dedup.storage.images.reader import Place
from dedup.storage.tables import dataset

_PER_TASK = 25
_TINY = 1e-12  # of a distribution: too little to draw from
_QUALITY = 90  # JPEG
_REPLICATES = 400
_ENOUGH = 20  # pairs that stand, from which a share of them is taken
KINDS = ("natural", "drawn")


@dataclass(frozen=True)
class ExchangeTask:
    """Pictures of which a part is exchanged, each with the one that the part comes from."""

    inputs: JudgeInputs
    src: tuple[int, ...]
    dst: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Exchanged:
    """The verdict on a picture and the same with a part exchanged."""

    is_copy: bool
    distance: float | None
    reason: str
    is_drawn: bool


@dataclass(frozen=True)
class Decided:
    """Candidates of whole pictures that the run judged by their pixels; shape (n,) each."""

    similarity: Sims
    is_drawn: Mask
    stands: Mask

    def counts(self, thresholds: Floats, *, is_drawn: bool) -> tuple[Ids, Ids]:
        """Of one kind, at or above each threshold: how many stand, and how many were refused; shape (n_thresholds,) each."""
        of_kind = self.is_drawn == is_drawn
        least = thresholds.astype(np.float32)
        counts = []
        for is_chosen in (of_kind & self.stands, of_kind & ~self.stands):
            ascending = np.sort(self.similarity[is_chosen])
            counts.append((len(ascending) - np.searchsorted(ascending, least, side="left")).astype(np.int64))
        return counts[0], counts[1]


@dataclass
class Lookalikes:
    """Look-alikes that were made and judged, copies that were, and the pairs of the run."""

    decided: Decided
    copies: dict[str, tuple[int, int]]  # by kind: planted copies that were judged, and how many of them passed
    src: list[int] = field(default_factory=list)
    dst: list[int] = field(default_factory=list)
    outcomes: list[Exchanged] = field(default_factory=list)

    def counts(self, kind: str) -> tuple[int, int]:
        """Made and judged of one kind, and how many of them passed for copies."""
        own = [outcome for outcome in self.outcomes if outcome.is_drawn == (kind == "drawn")]
        return len(own), sum(outcome.is_copy for outcome in own)

    def wrong(self, thresholds: Floats, seed: int, *, kinds: Sequence[str] = KINDS) -> tuple[Floats, Floats]:
        """Look-alikes expected among the pairs that stand at each threshold, shape (n,), and in each replicate, shape (n_replicates, n).

        The shares of copies and of look-alikes that pass are drawn from Jeffreys' posteriors; where none of a kind was judged, little is
        known of them, and the replicates say so.
        """
        rng = np.random.default_rng(seed)
        replicates = np.zeros((_REPLICATES, len(thresholds)))
        for kind in kinds:
            standing, refused = self.decided.counts(thresholds, is_drawn=kind == "drawn")
            counts = (self.copies.get(kind, (0, 0)), self.counts(kind))
            of_copies, of_lookalikes = (accepted_share(np.array([passed]), np.array([n]), _REPLICATES, rng) for n, passed in counts)
            replicates += lookalikes_among(standing, refused, of_copies, of_lookalikes, rng.random((_REPLICATES, 1)))
        return replicates.mean(axis=0), replicates

    def share_wrong(self, thresholds: Floats, seed: int) -> tuple[Floats, Floats]:
        """Share of the pairs that stand at each threshold, which ascend, that are look-alikes; and in each replicate.

        Where few pairs stand, that of the highest threshold at which enough do.
        """
        standing = np.sum([self.decided.counts(thresholds, is_drawn=kind == "drawn")[0] for kind in KINDS], axis=0)
        _, replicates = self.wrong(thresholds, seed)
        shares = replicates / np.maximum(standing, 1)
        last = max(0, int((standing >= _ENOUGH).sum()) - 1)
        shares = shares[:, np.minimum(np.arange(len(thresholds)), last)]
        return shares.mean(axis=0), shares

    def figures(self, n_images: int, threshold: float, seed: int) -> dict[str, dict[str, float | int]]:
        """For each kind: what was judged and refused, and the expected wrong drops in 10,000 images at the run's threshold.

        `n_images`: distinct images of the run.
        """
        figures: dict[str, dict[str, float | int]] = {}
        at = np.array([threshold])
        for kind in KINDS:
            n, n_accepted = self.counts(kind)
            expected, replicates = self.wrong(at, seed, kinds=[kind])
            low, high = interval(replicates)
            values = {"wrong": float(expected[0]), "wrong_low": float(low[0]), "wrong_high": float(high[0])}
            per_10_000 = {f"{name}_per_10_000": 10_000 * value / max(n_images, 1) for name, value in values.items()}
            standing, refused = (int(count[0]) for count in self.decided.counts(at, is_drawn=kind == "drawn"))
            counted = {"n_judged": n, "n_accepted": n_accepted, "n_standing": standing, "n_refused": refused}
            figures[kind] = counted | values | per_10_000
        return figures


def lookalikes_among(standing: Ids, refused: Ids, of_copies: Floats, of_lookalikes: Floats, quantiles: Floats) -> Floats:
    """Look-alikes among the pairs that a judge lets stand, who errs in known shares: draws from the posterior, the prior being uniform.

    `standing`, `refused`: shape (n,); pairs.
    `of_copies`, `of_lookalikes`: shape (n_draws, 1); share of either that passes, r and p.
    `quantiles`: shape (n_draws, 1); uniform in [0, 1].
    Returns shape (n_draws, n); from 0 to `standing`.

    If a share q of all pairs are copies, s = q r + (1 - q) p of them stand (Rogan and Gladen 1978, "Estimating prevalence from the
    results of a screening test"): for a uniform q, s has a beta distribution cut off at p and r, and (1 - q) p of all pairs stand wrongly.
    A judge who lets copies and look-alikes pass alike tells nothing of q, and it stays uniform.
    """
    low, high = np.minimum(of_copies, of_lookalikes), np.maximum(of_copies, of_lookalikes)
    of_pairs = stats.beta(standing + 1.0, refused + 1.0)
    least, most = of_pairs.cdf(low), of_pairs.cdf(high)
    # where none of the distribution lies between the two, the nearer one
    inside = most - least > _TINY
    share = np.clip(np.where(inside, of_pairs.ppf(least + quantiles * (most - least)), of_pairs.mean()), low, high)
    gap = of_copies - of_lookalikes
    copies = np.where(gap != 0.0, (share - of_lookalikes) / np.where(gap != 0.0, gap, 1.0), quantiles)
    wrong: Floats = np.minimum((1.0 - copies) * of_lookalikes * (standing + refused), standing)
    return wrong


def judge_lookalikes(
    work: Work, population: Population, drawn: Drawn, similar: tuple[Ids, Ids], copies: dict[str, tuple[int, int]]
) -> Lookalikes:
    """Make look-alikes of drawn images, judge them, and read what the run judged.

    `similar`: sample_ids, shape (n,) each: images that are near another, each once, and the most similar one that is no copy.
    `copies`: see `Lookalikes`.
    """
    found = Lookalikes(read_decided(work.run, population), copies)
    rng = np.random.default_rng([work.options.seed, 7])
    src = np.sort(rng.permutation(population.ids[drawn.images])[: work.effort.n_decoys])
    nearest = dict(zip(similar[0].tolist(), similar[1].tolist(), strict=True))
    # what is alike has parts of one kind; otherwise words are exchanged for others of the same page
    dst = np.array([nearest.get(sample, sample) for sample in src.tolist()], dtype=np.int64)
    settings = JudgeSettings.of(work.config)
    places = find_places(work.context.engine, work.run.table("metadata"), np.unique(np.concatenate([src, dst])))
    sample_ids = places["sample_id"].to_numpy()
    tasks = []
    for start in range(0, len(src), _PER_TASK):
        part = slice(start, start + _PER_TASK)
        ids = np.unique(np.concatenate([src[part], dst[part]]))
        inputs = JudgeInputs(settings, places.take(np.searchsorted(sample_ids, ids)))
        tasks.append(ExchangeTask(inputs, tuple(src[part].tolist()), tuple(dst[part].tolist()), work.options.seed))
    results = in_order(work.context.run_tasks("look-alikes", "images", judge_exchanged, tasks, [len(task.src) for task in tasks]))
    for task, outcomes in zip(tasks, results, strict=True):
        for first, second, outcome in zip(task.src, task.dst, outcomes, strict=True):
            if outcome is not None:
                found.src.append(first)
                found.dst.append(second)
                found.outcomes.append(outcome)
    return found


def judge_exchanged(task: ExchangeTask) -> list[Exchanged | None]:
    """Make the look-alikes of a task and judge them; None where a picture can't be read or has nothing to exchange."""
    settings = replace(task.inputs.settings, keeps_unreadable=False)
    places = {row["sample_id"]: Place(**row) for row in task.inputs.places.drop_columns(["n_frames"]).to_pylist()}
    reader, judge, outcomes = settings.reader(), PairJudge(settings), list[Exchanged | None]()
    reader.prefetch(list(places.values()))
    for src, dst in zip(task.src, task.dst, strict=True):
        try:
            picture, other = (reader.read(places[sample]) for sample in (src, dst))
        except (InputError, SampleError):
            outcomes.append(None)
            continue
        original = InMemory(picture)
        is_drawn = (judge.judge(original, InMemory(picture), ["none"]).drawn or 0.0) > DRAWN
        sides, rng = SMALL_PART if is_drawn else LARGE_PART, np.random.default_rng([task.seed, src])
        changed = exchange_part(picture, other, rng, sides)
        if changed is None:
            outcomes.append(None)
            continue
        # a look-alike on the web is no copy of the same pixels either
        shown = on_picture(encode, changed, rng, kind="JPEG", quality=_QUALITY)
        outcome = judge.judge(original, InMemory(shown), ["none"])
        outcomes.append(Exchanged(outcome.stands, outcome.distance, outcome.reason, is_drawn))
    return outcomes


def read_decided(run: Run, population: Population) -> Decided:
    """Candidates of whole pictures with both ends in a population that could be laid on each other, and the run's verdicts."""
    judged = ds.field("agreeing_share").is_valid() & (ds.field("source") == "whole")
    tables = [
        dataset(run.table(name)).to_table(columns=["src", "dst", "similarity", "drawn"], filter=condition)
        for name, condition in (("edges", judged), ("refused", judged & (ds.field("stage") == "confirm")))
    ]
    rows = pa.concat_tables(tables)
    inside = np.isin(rows["src"].to_numpy(), population.ids) & np.isin(rows["dst"].to_numpy(), population.ids)
    drawn = np.nan_to_num(rows["drawn"].to_numpy(zero_copy_only=False).astype(np.float32))
    stands = np.arange(len(rows)) < len(tables[0])
    return Decided(rows["similarity"].to_numpy()[inside], drawn[inside] > DRAWN, stands[inside])
