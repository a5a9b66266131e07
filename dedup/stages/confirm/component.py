"""Judge components of candidates: one task holds all pictures of a component, and reads each of them once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.cluster.hierarchy import DisjointSet

from dedup.judge.pair import PLACES, JudgeInputs, JudgeSettings, PairJudge, Space, VerdictWriter, likely_turns, turns_to_try
from dedup.judge.verdicts import AGAIN, VERDICTS
from dedup.numerics.arraytypes import Ids, Rows16, Sims
from dedup.numerics.graph.components import maximum_spanning_forest
from dedup.numerics.graph.cover import component_slices
from dedup.numerics.similarity import exact_similarity
from dedup.stages.confirm.reconnect import join_parts
from dedup.stages.confirm.work import work_file
from dedup.storage.urls import filesystem, join

_BLOCK = 512  # pairs whose turned similarities are found at a time
_PATIENCE = 8  # refused pairs of the central picture after which it is given up, unless half as many were not refused


@dataclass(frozen=True)
class ConfirmTask:
    """The files of some components, and how to judge them."""

    settings: JudgeSettings
    spaces: tuple[Space, ...]
    folder: str
    number: int
    starts_from_hub: bool  # whether the central picture of a component is compared with the others first
    limit: int  # `confirm.reconnect`; 0: torn components are not searched again
    parts: npt.NDArray[np.int64] | None = None  # shape (n_members,); what is connected already; None = nothing
    judged: npt.NDArray[np.int64] | None = None  # shape (n, 2); pairs of sample_ids that need not be judged again
    tells_pairs: bool = False  # whether the outcome names the pairs


@dataclass
class Confirmed:
    """The outcome of a task."""

    n_judged: int = 0
    n_standing: int = 0
    n_again: int = 0  # of these, pairs that were no candidates
    n_drawn: int = 0  # of these, pairs of drawn, written or printed pictures
    n_unread: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    pairs: list[tuple[int, int, bool]] = field(default_factory=list)  # src, dst, and whether it stands

    def add(self, other: Confirmed) -> None:
        """Add another task's counts."""
        for name in ("n_judged", "n_standing", "n_again", "n_drawn", "n_unread"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.unreadable = sorted({*self.unreadable, *other.unreadable})[:3]


@dataclass(frozen=True)
class Candidates:
    """Candidate pairs of one component; positions among its members, a < b."""

    a: Ids
    b: Ids
    similarity: Sims
    source: Sequence[str]
    found_by: Sequence[str]
    turns: Sequence[tuple[str, ...]]

    def part(self, start: int, stop: int, members: Ids) -> Candidates:
        """Those from `start` to `stop`, whose ends are given as sample_ids, as positions among the members."""
        rows = slice(start, stop)
        a, b = (np.searchsorted(members, side[rows]).astype(np.int64) for side in (self.a, self.b))
        return Candidates(a, b, self.similarity[rows], self.source[rows], self.found_by[rows], self.turns[rows])


def confirm_components(task: ConfirmTask) -> Confirmed:
    """Judge the components of a task."""
    members, pairs, judged = (_read(task, name) for name in ("members", "pairs", "judged"))
    inputs = JudgeInputs(task.settings, members.select(PLACES.names), judged.select(VERDICTS.names))
    src, dst, similarity = (pairs[name].to_numpy() for name in ("src", "dst", "similarity"))
    every = Candidates(src, dst, similarity, pairs["source"].to_pylist(), _found_by(task, pairs), _turns(task, pairs))
    bounds = component_slices(members["component"].to_numpy())
    labels = members["component"].to_numpy()[bounds[:-1]] if len(members) else np.zeros(0, np.int64)
    cuts = [np.searchsorted(pairs["component"].to_numpy(), labels, side=side).tolist() for side in ("left", "right")]
    outcome = Confirmed()
    with inputs.judge() as judge, VerdictWriter(task.settings.run, f"part-{task.number:05d}", "confirm") as writer:
        for start, stop, first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), *cuts, strict=True):
            rows = members.slice(start, stop - start)
            candidates = every.part(first, last, rows["sample_id"].to_numpy())
            _Component(task, rows, candidates, judge, writer, outcome).judge_all()
    outcome.n_unread, outcome.reasons, outcome.n_standing = writer.n_unread, writer.reasons, writer.n_standing
    outcome.n_drawn = writer.n_drawn
    outcome.unreadable = sorted(judge.unreadable.values())[:3]
    return outcome


class _Component:
    """One component while it is judged."""

    def __init__(
        self, task: ConfirmTask, members: pa.Table, candidates: Candidates, judge: PairJudge, writer: VerdictWriter, outcome: Confirmed
    ) -> None:
        self._task, self._candidates, self._judge, self._writer, self._outcome = task, candidates, judge, writer, outcome
        self._members, self._ids = members, members["sample_id"].to_numpy()
        self._sets = DisjointSet(range(len(self._ids)))
        self._is_open = np.ones(len(candidates.a), dtype=bool)
        self._judged: list[tuple[int, int]] = []  # positions
        if task.judged is not None:
            self._judged += np.searchsorted(self._ids, task.judged).tolist()
        if task.parts is not None:
            first = dict[int, int]()
            for position, part in enumerate(task.parts.tolist()):
                self._sets.merge(first.setdefault(part, position), position)

    def judge_all(self) -> None:
        """The central picture with the others, then the candidates that are left, then what else may connect torn parts."""
        if self._task.starts_from_hub and len(self._ids) > 2:
            self._judge_with(hub_of(self._members))
        self._judge_rounds()
        if self._task.limit and len(self._ids) > 2 and len(self._sets.subsets()) > 1:
            self._search_again()

    def _parts(self) -> Ids:
        return np.array([self._sets[position] for position in range(len(self._ids))], dtype=np.int64)

    def _judge_rounds(self) -> None:
        """Judge candidates, in rounds, until none is left that joins two parts."""
        of = self._candidates
        while len(picked := next_round(np.flatnonzero(self._is_open), of.a, of.b, of.similarity, self._parts())):
            for k in picked.tolist():
                self._judge_candidate(k)

    def _judge_candidate(self, k: int) -> bool:
        of = self._candidates
        self._is_open[k] = False
        return self._compare(int(of.a[k]), int(of.b[k]), float(of.similarity[k]), of.turns[k], of.source[k], of.found_by[k])

    def _compare(
        self, a: int, b: int, similarity: float, turns: Sequence[str], source: str, found_by: str | None, question: str | None = None
    ) -> bool:
        src, dst = int(self._ids[a]), int(self._ids[b])
        verdict = self._judge.judge(src, dst, turns, question or source)
        self._writer.add(src, dst, similarity, verdict, source, found_by)
        self._judged.append((a, b))
        self._outcome.n_judged += 1
        if self._task.tells_pairs:
            self._outcome.pairs.append((src, dst, verdict.stands))
        if verdict.stands:
            self._sets.merge(a, b)
            self._outcome.n_again += found_by is None
        return verdict.stands

    def _judge_with(self, hub: int) -> None:
        """Compare the central picture with each member that is near it, the most similar first, as long as copies are among them."""
        of, space, n = self._candidates, self._task.spaces[0], len(self._ids)
        vectors, thresholds = space.run.vectors().take(self._ids), self._thresholds(0)
        similarity = exact_similarity(vectors, np.broadcast_to(vectors[hub], vectors.shape))
        candidate = {int(of.b[k] if of.a[k] == hub else of.a[k]): k for k in np.flatnonzero((of.a == hub) | (of.b == hub)).tolist()}
        is_near = similarity >= np.maximum(thresholds, thresholds[hub])
        is_near[list(candidate)] = True
        n_refused = n_standing = 0
        for member in np.lexsort((np.arange(n), -similarity)).tolist():
            if not is_near[member] or self._sets.connected(hub, member):
                continue
            if member in candidate:
                if not self._is_open[candidate[member]]:
                    continue
                stands = self._judge_candidate(candidate[member])
            else:
                a, b = sorted((hub, member))
                stands = self._compare(a, b, float(similarity[member]), ["none"], "whole", None, AGAIN)
            n_standing, n_refused = n_standing + stands, n_refused + (not stands)
            if n_refused > max(_PATIENCE, 2 * n_standing):
                break

    def _thresholds(self, space: int) -> Sims:
        thresholds: Sims = self._members[f"min_similarity_{space}"].to_numpy()
        return thresholds

    def _search_again(self) -> None:
        """Other pairs that connect what refusals have torn."""
        for number, space in enumerate(self._task.spaces):
            source = "also" if number else "whole"

            def are_copies(a: int, b: int, similarity: float, source: str = source) -> bool:
                return self._compare(a, b, similarity, ["none"], source, None, AGAIN)

            judged = np.array(self._judged, dtype=np.int64).reshape(-1, 2)
            join_parts(space.run.vectors().view(self._ids), self._thresholds(number), self._parts(), judged, self._task.limit, are_copies)


def hub_of(members: pa.Table) -> int:
    """Position of the central picture among the members of one component: the anchor of its group, if it is a copy of the others."""
    return int(np.lexsort((members["sample_id"].to_numpy(), -members["n_neighbors"].to_numpy()))[0])


def next_round(candidates: Ids, src: Ids, dst: Ids, similarity: Sims, parts: Ids) -> Ids:
    """The candidates to judge next: a spanning forest of the components that are not connected yet.

    `candidates`: shape (n_open,); those not judged, as positions in the arrays below.
    `src`, `dst`: shape (n,); ends of all candidates, as nodes.
    `similarity`: shape (n,).
    `parts`: shape (n_nodes,); component of each node so far.
    Returns ascending; empty when all remaining candidates lie within components.
    """
    a, b = parts[src[candidates]], parts[dst[candidates]]
    low, high = np.minimum(a, b), np.maximum(a, b)
    crossing = np.flatnonzero(low != high)
    # one candidate, the most similar, for each pair of components
    order = crossing[np.lexsort((candidates[crossing], -similarity[candidates[crossing]], high[crossing], low[crossing]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    order = order[first]
    return np.sort(candidates[order[maximum_spanning_forest(low[order], high[order], similarity[candidates[order]])]])


def _read(task: ConfirmTask, name: str) -> pa.Table:
    fs, path = filesystem(join(task.folder, work_file(name, task.number)))
    with fs.open(path, "rb") as file:
        return pq.read_table(file)


def _found_by(task: ConfirmTask, pairs: pa.Table) -> list[str]:
    """The encoders that each pair is a candidate of."""
    source = np.array(pairs["source"].to_pylist(), dtype=object)
    names = np.full(len(pairs), "", dtype=object)
    for number, space in enumerate(task.spaces):
        is_found = np.isin(source, ("also", "also_look") if number else ("whole", "look"))
        if len(task.spaces) > 1:
            for part, src, dst in _vectors(space, pairs):
                is_found[part] |= exact_similarity(src, dst) >= np.float32(space.min_similarity)
        names[is_found] = [f"{name}+{space.encoder}" if name else space.encoder for name in names[is_found]]
    return list(names)


def _turns(task: ConfirmTask, pairs: pa.Table) -> list[tuple[str, ...]]:
    space = task.spaces[-1]  # the one that can be turned, if any can
    likely: list[str | None] = [None] * len(pairs)
    if space.turns:
        for part, src, dst in _vectors(space, pairs):
            likely[part] = likely_turns(src, dst, space.turns)
    return [turns_to_try(variant, turn) for variant, turn in zip(pairs["variant"].to_pylist(), likely, strict=True)]


def _vectors(space: Space, pairs: pa.Table) -> Iterator[tuple[slice, Rows16, Rows16]]:
    """The vectors of both ends of the pairs, in blocks."""
    store, ends = space.run.vectors(), [pairs[end].to_numpy() for end in ("src", "dst")]
    for start in range(0, len(pairs), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield part, store.take(ends[0][part]), store.take(ends[1][part])
