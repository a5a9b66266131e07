"""Inverted lists: training their centroids, placing vectors in them, and dealing them out as work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dedup.contracts import Pack
from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Floats, Ids, ListIds, Rows16, Rows32, Sims
from dedup.numerics.search.balls import find_balls
from dedup.numerics.search.faiss_lists import count_gpus, search_flat, train_kmeans
from dedup.numerics.search.gpu import Device, best_lists, release, unless_full
from dedup.numerics.search.project import choose_axes, one_thread, principal_axes, with_rest
from dedup.numerics.similarity import FLOAT32_BAND

_SPARE = 4  # lists searched beyond those wanted, since the order of near ties is settled afterwards
_MAX_SCORES = 2**26  # scores a device computes at a time, 4 bytes each
_LEAST_ROWS = 64  # rows scored at a time, below which a device counts as full
_CHUNK = 65_536  # pairs of a vector and a list whose exact score is computed at a time
_BALANCE_STEPS = (1.0, 1.0, 0.7, 0.5, 0.35, 0.25)
_PLACES_PER_DOUBLING = 2.0  # how many places down the order of lists a list of twice the mean size is moved


@dataclass(frozen=True)
class Quantizer:
    """Centroids, and by how much each list's score is lowered so that lists are of one size."""

    centroids: Rows32  # shape (nlist, dim); unit rows
    offsets: Sims  # shape (nlist,)

    def assign(self, rows: Rows32, nprobe: int, device: Device | None = None) -> ListIds:
        """The lists of each vector, best first, by <row, centroid> - offset.

        `rows`: shape (n, dim); of norm 1 at most.
        `device`: where scores are computed; None = the CPU. The lists are the same: where float32 scores are too close to tell their
        order, float64 decides, and between equal ones the smaller number.
        Returns shape (n, min(nprobe, nlist)).
        """
        nprobe = min(nprobe, len(self.centroids))
        scores, lists = self.search(rows, min(nprobe + _SPARE, len(self.centroids)), device)
        return self._settled(rows, scores, lists, nprobe)[:, :nprobe].astype(np.int32)

    def search(self, rows: Rows32, n_best: int, device: Device | None = None) -> tuple[Sims, Ids]:
        """Scores and lists, best first by the score in float32, shapes (n, n_best)."""
        n_rows = max(_LEAST_ROWS, _MAX_SCORES // len(self.centroids))
        while device is not None and n_rows >= _LEAST_ROWS:
            best = unless_full(lambda n=n_rows: best_lists(device.name, rows, self.centroids, self.offsets, n_best, n))  # type: ignore[misc]
            if best is not None:
                return best
            release(device.name)
            n_rows //= 2
        return search_flat(rows, self.centroids, self.offsets, n_best)

    def balanced(self, rows: Rows32, nprobe: int, device: Device | None = None) -> Quantizer:
        """The same centroids with offsets under which lists of `nprobe` each are of about one size, learnt on some rows."""
        quantizer, nlist = self, len(self.centroids)
        if nprobe >= nlist:
            return self
        for step in _BALANCE_STEPS:
            scores, lists = quantizer.search(rows, min(nprobe + _SPARE, nlist), device)
            sizes = np.bincount(quantizer._settled(rows, scores, lists, nprobe)[:, :nprobe].ravel(), minlength=nlist)
            # the mean difference between consecutive scores is the natural unit of an offset; it is rounded to few bits, since the last
            # bits of a score depend on how many threads share a product
            unit = float(np.float16(np.mean(scores[:, 0] - scores[:, nprobe - 1], dtype=np.float64))) / max(1, nprobe - 1)
            change = step * unit * _PLACES_PER_DOUBLING * np.log2((sizes + 1.0) / (sizes.mean() + 1.0))
            quantizer = Quantizer(self.centroids, (quantizer.offsets + change).astype(np.float32))
        return quantizer

    def _settled(self, rows: Rows32, scores: Sims, lists: Ids, nprobe: int) -> Ids:
        """Put the first `nprobe` of the best lists into the order of their exact scores.

        A float32 score is within FLOAT32_BAND of the exact one, times the sizes of its summands, so that two scores further
        apart than twice that are in order. Consecutive lists that are closer form a run, which is sorted anew; where a run
        reaches from the wanted lists to the last one searched, it may go on, and all lists of that row are scored.
        """
        margin = 2.0 * FLOAT32_BAND * (1.0 + float(np.abs(self.offsets).max(initial=0.0)))
        is_tied = scores[:, :-1] - scores[:, 1:] <= margin
        settled, unsure = lists.copy(), np.flatnonzero(is_tied.any(axis=1))
        tied = is_tied[unsure]
        run = np.concatenate([np.zeros((len(unsure), 1), np.int64), np.cumsum(~tied, axis=1)], axis=1)
        in_run = np.zeros(run.shape, dtype=bool)
        in_run[:, :-1] |= tied
        in_run[:, 1:] |= tied
        row, place = np.nonzero(in_run)
        number = lists[unsure[row], place]
        order = np.lexsort((number, -self._exact(rows, unsure[row], number), run[row, place], row))
        settled[unsure[row], place] = number[order]
        if lists.shape[1] < len(self.centroids):
            every = np.arange(len(self.centroids))
            for unsettled in unsure[run[:, nprobe - 1] == run[:, -1]].tolist():
                exact = self._exact(rows, np.full(len(every), unsettled), every)
                settled[unsettled] = np.argsort(-exact, kind="stable")[: lists.shape[1]]
        return settled

    def _exact(self, rows: Rows32, places: Ids, lists: Ids) -> Floats:
        """Scores of pairs of a row and a list, float64 (n,)."""
        exact = np.empty(len(places), dtype=np.float64)
        for start in range(0, len(places), _CHUNK):
            part = slice(start, start + _CHUNK)
            vectors, centroids = rows[places[part]].astype(np.float64), self.centroids[lists[part]].astype(np.float64)
            exact[part] = np.einsum("ij,ij->i", vectors, centroids) - self.offsets[lists[part]]
        return exact


_SAMPLE_RADIUS = 0.9  # similarity from which a ball in the training sample counts as one vector
_BALANCE_SAMPLE = 16  # vectors per list that sizes are estimated from


def choose_nprobe(min_similarity: float, n_vectors: int) -> int:
    """Lists each vector goes to, from the threshold and the number of vectors.

    The less similar two vectors are, and the narrower the lists, the less likely they share one; see the tables of `docs/results.md`.

    >>> [choose_nprobe(t, 1_000_000) for t in (0.96, 0.85, 0.7)]
    [8, 16, 32]
    >>> [choose_nprobe(0.96, n) for n in (10_000, 10_000_000, 1_000_000_000)]
    [8, 12, 20]
    """
    least = 8 if min_similarity >= 0.9 else 16 if min_similarity >= 0.8 else 32
    return round(least * (1 + max(0.0, math.log10(max(1, n_vectors) / 1_000_000)) / 2))


def choose_nlist(n_vectors: int, nprobe: int) -> int:
    """Number of inverted lists: sqrt(nprobe * n) balances assignment and join.

    >>> choose_nlist(1_000_000, 4)
    2000
    """
    return max(1, min(round(math.sqrt(nprobe * n_vectors)), n_vectors // 4 or 1))


@dataclass(frozen=True)
class Training:
    """How lists are trained."""

    nlist: int  # 1 = no training
    nprobe: int  # lists each vector will go to: what is balanced
    iterations: int  # of k-means
    seed: int


def train_quantizer(sample: Rows32, training: Training, device: Device | None = None) -> Quantizer:
    """Train the coarse quantizer: spherical k-means, then offsets that balance the lists.

    `sample`: shape (n, dim); more than 32 rows per list gain little.
    `device`: where FAISS has GPUs too, the lists are trained on all of them, and balanced on this device.
    Returns fewer lists than `training.nlist` where the sample has fewer distinct rows.
    Raises ShapeError if there are fewer rows than lists.

    A crowd of near-copies would draw centroids in proportion to its size and be spread over hundreds of lists,
    so that its pairs are compared nowhere or many times. Therefore each ball is one vector of the sample.

    A join costs the sum of the squared list sizes, and k-means leaves hubs: offsets learnt on the sample halve
    that sum at equal recall, since near vectors get the same offsets (`docs/results.md`).

    A GPU sums in another order, which k-means amplifies: the lists are as good as the CPU's, but different, as with another
    seed. So training runs all on GPUs, or all on the CPU, where it gives the same lists every time.
    """
    if len(sample) < training.nlist:
        raise ShapeError(f"can't train {training.nlist} lists from {len(sample)} vectors; lower search.nlist")
    rows = np.array(sample, dtype=np.float32, order="C")
    keep = np.ones(len(rows), dtype=bool)
    for ball in find_balls(rows.astype(np.float16), _SAMPLE_RADIUS, keep):
        keep[ball.rows[1:]] = False
        rows[ball.rows[0]] = ball.pivot
    rows = rows[keep]
    nlist = min(training.nlist, len(rows))
    n_gpus = count_gpus() if device is not None else 0
    centroids = train_kmeans(rows, nlist, training.iterations, training.seed, n_gpus)
    part = rows[np.random.default_rng(training.seed).permutation(len(rows))[: _BALANCE_SAMPLE * nlist]]
    quantizer = Quantizer(centroids, np.zeros(nlist, dtype=np.float32))
    return quantizer.balanced(part, min(training.nprobe, nlist), device if n_gpus else None)


LEAST_SAMPLE = 10_000  # training vectors, however few the lists
BLOCK = 65_536  # vectors placed at a time
_QUANTIZER_DIM = 128  # principal coordinates the lists are chosen by; more cost time and find no more pairs


@dataclass(frozen=True)
class Lists:
    """Principal axes and the coarse quantizer along them."""

    axes: Rows32  # shape (dim, k)
    centroids: Rows32  # shape (nlist, k_lists); in the first k_lists coordinates along the axes
    offsets: Sims  # shape (nlist,); by how much each list's product is lowered, so that lists are of one size
    n_filter: int  # coordinates of the projections that propose pairs; 0 = whole vectors are compared

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return len(self.centroids)

    @property
    def is_idle(self) -> bool:
        """Whether there is one list and no projection, so that no vector needs to be read."""
        return self.nlist == 1 and not self.n_filter

    def place(self, rows: Rows32, nprobe: int, device: Device | None = None) -> tuple[ListIds, Rows16 | None]:
        """Choose the lists of vectors and project them.

        `rows`: shape (n, dim); unit rows.
        `nprobe`: lists each vector goes to.
        `device`: where the scores of lists are computed; None = the CPU. The lists are the same.
        Returns `lists`: shape (n, nprobe); of each vector, distinct and nearest first; with one list, shape (n, 1).
        Returns `projected`: shape (n, n_filter + 1).
        """
        along = rows @ self.axes
        projected = with_rest(along[:, : self.n_filter]).astype(np.float16) if self.n_filter else None
        if self.nlist == 1:
            return np.zeros((len(rows), 1), dtype=np.int32), projected
        chosen = Quantizer(self.centroids, self.offsets).assign(along[:, : self.centroids.shape[1]], nprobe, device)
        return chosen, projected


def train_lists(
    sample: Rows32, training: Training, min_similarity: float, *, is_rotated: bool = False, device: Device | None = None
) -> Lists:
    """Find the axes, train the quantizer, and choose how many axes propose pairs.

    `sample`: shape (n, dim); unit rows.
    `is_rotated`: keep every axis, so that the coordinates hold the whole vector.
    `device`: see `train_quantizer`.
    """
    axes = principal_axes(sample)
    k = min(_QUANTIZER_DIM, sample.shape[1])
    centroids, offsets, sample_lists = np.zeros((1, k), dtype=np.float32), np.zeros(1, dtype=np.float32), None
    if training.nlist > 1:
        with one_thread():
            along = sample @ axes[:, :k]
        quantizer = train_quantizer(along, training, device)
        centroids, offsets, sample_lists = quantizer.centroids, quantizer.offsets, quantizer.assign(along, training.nprobe, device)
    with one_thread():
        n_filter = choose_axes(sample, sample_lists, axes, min_similarity)
    return Lists(axes if is_rotated else axes[:, : max(k, n_filter)], centroids, offsets, n_filter)


def draw_sample(n: int, n_wanted: int, seed: int) -> Ids:
    """Positions of a training sample, ascending, shape (min(n, max(n_wanted, LEAST_SAMPLE)),)."""
    return np.sort(np.random.default_rng(seed).choice(n, n_sampled(n, n_wanted), replace=False))


def n_sampled(n: int, n_wanted: int) -> int:
    """Size of a training sample."""
    return min(n, max(n_wanted, LEAST_SAMPLE))


_PACKS_PER_WORKER = 24  # so small that no core waits long for the last one
HOT_ROWS = 131_072  # members up to which a list is one worker's: some 30 s
HOT_COST = 4.0  # times the mean cost of a list, up to which it is too


def count_lists(blocks: Iterable[ListIds], nlist: int = 0) -> Ids:
    """Members of each list, int64 (nlist or more,), from blocks of the lists of each member.

    >>> count_lists([np.array([[0, 2], [2, 3]], np.int32), np.array([[3, 0]], np.int32)])
    array([2, 0, 2, 2])
    """
    sizes = np.zeros(nlist, dtype=np.int64)
    for lists in blocks:
        counted = np.bincount(lists.ravel(), minlength=len(sizes))
        counted[: len(sizes)] += sizes
        sizes = counted
    return sizes


def pack_lists(
    sizes: Ids,
    n_workers: int,
    fresh: Ids | None = None,
    *,
    hot_rows: int = HOT_ROWS,
    hot_cost: float = HOT_COST,
) -> list[Pack]:
    """Pack lists into tasks of about equal cost, the costliest first; a hot list is shared out.

    A list costs its comparisons and its gather; lists of one member cost nothing. The number of shares of a list depends on the
    sizes alone: each share sparsifies its edges by itself, and they must not depend on the number of workers.

    `sizes`: shape (nlist,).
    `fresh`: shape (nlist,); members that are compared with all others; None = all are. Lists without fresh members cost nothing.
    `hot_rows`, `hot_cost`: a list is hot if it costs more than the square of `hot_rows` and more than `hot_cost` times the mean.
    Returns at least one pack: an empty one where there is nothing to do.
    """
    lists = np.flatnonzero(sizes > 1 if fresh is None else (sizes > 1) & (fresh > 0))
    n_earlier = np.zeros(len(lists)) if fresh is None else (sizes[lists] - fresh[lists]).astype(np.float64)
    cost = sizes[lists].astype(np.float64) ** 2 - n_earlier**2 + 500.0 * sizes[lists]
    order = np.argsort(-cost, kind="stable")
    lists, cost = lists[order], cost[order]
    n_shares = np.ceil(cost / max(float(hot_rows) ** 2, hot_cost * float(cost.mean()))).astype(np.int64) if len(lists) else lists
    limit = cost.sum() / (_PACKS_PER_WORKER * n_workers)
    packs: list[Pack] = []
    for number, n in zip(lists[n_shares > 1].tolist(), n_shares[n_shares > 1].tolist(), strict=True):
        packs += [Pack(len(packs) + share, np.array([number]), share, n) for share in range(n)]
    lists, cost = lists[n_shares <= 1], cost[n_shares <= 1]
    start, filled = 0, 0.0
    for place in range(len(lists)):
        if filled and filled + cost[place] > limit:
            packs.append(Pack(len(packs), np.sort(lists[start:place])))
            start, filled = place, 0.0
        filled += float(cost[place])
    # even an empty table has one file
    return [*packs, Pack(len(packs), np.sort(lists[start:]))] if len(lists) > start or not packs else packs
