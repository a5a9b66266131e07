"""Anchors and keepers by pixels: every member is confirmed as a copy of the one it goes with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.judge.pair import JudgeInputs, JudgeSettings, Outcome, PairJudge, Space, VerdictWriter, find_places, likelier_first
from dedup.judge.verdicts import GROUP, base_tables, find_verdicts, inside
from dedup.numerics.arraytypes import Ids, Mask, Sims
from dedup.numerics.graph.cover import Link, component_slices, confirmed_cover
from dedup.numerics.similarity import best_turn_similarity
from dedup.stages.stage import StageContext
from dedup.storage.arrays import clear_files
from dedup.storage.tables import read_table, rows_between

_TASKS, _LEAST_ROWS, _MOST_ROWS = 64, 50, 2_000  # of a stage, and members of each


def rows_per_task(n_members: int) -> int:
    """Members of whole groups to judge in one task: by their number alone, so that files are cut alike on every machine."""
    return min(_MOST_ROWS, max(_LEAST_ROWS, n_members // _TASKS))


@dataclass(frozen=True)
class CoverTask:
    """Members of whole components in order of preference, with the pairs that are decided already."""

    inputs: JudgeInputs
    stage: str
    number: int
    sample_ids: Ids
    bounds: Ids
    n_forced: Ids
    distinct: Ids
    min_similarity: Sims
    links: pa.Table
    refused: Ids


@dataclass(frozen=True)
class Cover:
    """Position of each member's anchor, similarity and distance to it (nan where pixels were not compared)."""

    anchor: Ids
    similarity: Sims
    distance: npt.NDArray[np.float32]


def cover_components(task: CoverTask) -> Cover:
    """Choose anchors and judge the pairs that are not decided yet."""
    links_of = _links(task.links)
    refused = {(int(a), int(b)) for a, b in task.refused.tolist()}
    threshold_of = dict(zip(task.distinct.tolist(), task.min_similarity.tolist(), strict=True))
    anchor = np.arange(len(task.sample_ids), dtype=np.int64)
    similarity = np.ones(len(anchor), dtype=np.float32)
    distance = np.full(len(anchor), np.nan, dtype=np.float32)
    refusals = VerdictWriter(task.inputs.settings.run, f"{task.stage}-{task.number:05d}", task.stage, writes_edges=False)
    with task.inputs.judge() as judge, refusals as writer:
        for start, stop, n_forced in zip(task.bounds[:-1], task.bounds[1:], task.n_forced.tolist(), strict=True):
            ids, rows = np.unique(task.sample_ids[start:stop], return_inverse=True)
            thresholds = np.array([threshold_of[int(sample)] for sample in ids], dtype=np.float32)
            pairs = _Pairs(ids, thresholds, task.inputs.spaces, judge, writer, refused)
            place = {sample: k for k, sample in enumerate(ids.tolist())}
            links = {(k, place[dst]): link for src, k in place.items() for dst, link in links_of.get(src, ()) if dst in place}
            anchors, anchor_links = confirmed_cover(
                rows.astype(np.int64), links, pairs.similarities, pairs.judge, min_similarity=thresholds, n_forced=n_forced
            )
            anchor[start:stop] = start + anchors
            similarity[start:stop] = [link.similarity for link in anchor_links]
            distance[start:stop] = [np.nan if link.distance is None else link.distance for link in anchor_links]
    return Cover(anchor, similarity, distance)


class _Pairs:
    """The pairs of one component: similarities from the stores, verdicts from the judge."""

    def __init__(
        self, ids: Ids, thresholds: Sims, spaces: tuple[Space, ...], judge: PairJudge, writer: VerdictWriter, refused: set[tuple[int, int]]
    ) -> None:
        self._ids, self._thresholds, self._spaces = ids, thresholds, spaces
        self._judge, self._writer, self._refused = judge, writer, refused

    def similarities(self, row: int, others: Ids) -> Sims:
        """In the run's own vectors; pairs that are near only in those of the second source count as just near enough."""
        first, *also = self._spaces
        similarity = _between(first, np.repeat(self._ids[row], len(others)), self._ids[others])
        for space in also:
            thresholds = np.maximum(self._thresholds[row], self._thresholds[others])
            near = _between(space, np.repeat(self._ids[row], len(others)), self._ids[others]) >= space.min_similarity
            near &= thresholds <= np.float32(first.min_similarity)  # the stricter rule for images of little detail still holds
            similarity[near] = np.maximum(similarity[near], thresholds[near])
        return similarity

    def judge(self, anchor: int, row: int, similarity: float) -> Link | None:
        src, dst = sorted((int(self._ids[anchor]), int(self._ids[row])))
        if (src, dst) in self._refused:
            return None
        outcome, own = judge_members(self._judge, self._spaces, src, dst)
        if outcome.stands:
            return Link(similarity if len(self._spaces) == 1 else own, outcome.distance)
        self._writer.add(src, dst, similarity, outcome, "group")
        return None


def judge_members(judge: PairJudge, spaces: tuple[Space, ...], src: int, dst: int) -> tuple[Outcome, float]:
    """The verdict on two members of a group that no search found, and their similarity in the run's own vectors."""
    turned = spaces[-1]  # the last is the one that can be turned, if any can
    a, b = (turned.run.vectors().take(np.array([sample])) for sample in (src, dst))
    outcome = judge.judge(src, dst, likelier_first(a, b, turned.turns), GROUP)
    return outcome, float(_between(spaces[0], np.array([src]), np.array([dst]))[0])


def _between(space: Space, a: Ids, b: Ids) -> Sims:
    store = space.run.vectors()
    return best_turn_similarity(store.take(a), store.take(b), space.turns)[0]


def cover(
    context: StageContext,
    settings: JudgeSettings,
    stage: str,
    component: Ids,
    sample_ids: Ids,
    links: pa.Table,
    n_forced: Ids | None = None,
) -> Cover:
    """Anchors of all components.

    `stage`: the stage that asks, as `refused` names it.
    `component`: shape (n,); sorted.
    `sample_ids`: shape (n,); distinct images (representatives) of the members, each component in order of preference.
    `links`: `src, dst, similarity, distance` of confirmed copies, src < dst.
    `n_forced`: shape (n_components,); how many first members of each component are anchors in any case; None = one.
    """
    n, refusals = len(sample_ids), context.run.table("refused")
    clear_files(refusals.path, f"{stage}-*.parquet")
    result = Cover(np.arange(n, dtype=np.int64), np.ones(n, dtype=np.float32), np.full(n, np.nan, dtype=np.float32))
    if not n:
        return result
    bounds = component_slices(component)
    distinct = np.unique(sample_ids)
    label = np.full(len(distinct), -1, dtype=np.int64)
    label[np.searchsorted(distinct, sample_ids)] = component
    linked = _inside(distinct, label, links)
    forced = np.ones(len(bounds) - 1, dtype=np.int64) if n_forced is None else n_forced
    decided = _pairs_of_two(bounds, forced == 1, sample_ids, distinct, linked, result)
    undecided = np.flatnonzero(~decided & (np.diff(bounds) > 1))
    linked, linked_in = _by_component(distinct, label, linked)
    refused, refused_in = _by_component(distinct, label, _inside(distinct, label, read_table(refusals, ["src", "dst"])))
    thresholds = min_similarity_of(context, distinct)
    tasks: list[CoverTask] = []
    slices: list[Ids] = []
    # one query for all tasks: each would read the whole of metadata
    is_undecided = np.repeat(np.isin(np.arange(len(bounds) - 1), undecided), np.diff(bounds))
    places = find_places(context.engine, context.run.table("metadata"), np.unique(sample_ids[is_undecided]))
    placed = places["sample_id"].to_numpy()
    verdicts = find_verdicts(context.engine, base_tables(context.base, context.config.confirm), placed)
    sizes = np.diff(bounds)[undecided]
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // rows_per_task(int(sizes.sum())))) + 1
    for part in np.split(undecided, cuts) if len(undecided) else []:
        rows = np.concatenate([np.arange(bounds[k], bounds[k + 1]) for k in part])
        offsets = np.concatenate([[0], np.cumsum(np.diff(bounds)[part])]).astype(np.int64)
        ids = np.unique(sample_ids[rows])
        links_part, refused_part = (_slice(pairs_in, component[rows[0]], component[rows[-1]]) for pairs_in in (linked_in, refused_in))
        refused_pairs = np.stack([refused[end].to_numpy()[refused_part] for end in ("src", "dst")], axis=1)
        inputs = JudgeInputs(settings, places.take(np.searchsorted(placed, ids)), inside(verdicts, ids), context.spaces)
        tasks.append(
            CoverTask(
                inputs, stage, len(tasks), sample_ids[rows], offsets, forced[part], ids, thresholds[np.searchsorted(distinct, ids)],
                rows_between(linked, links_part.start, links_part.stop), refused_pairs,
            )
        )  # fmt: skip
        slices.append(rows)
    for number, covered in context.run_tasks(stage, "members", cover_components, tasks, [len(rows) for rows in slices]):
        rows = slices[number]
        result.anchor[rows], result.similarity[rows], result.distance[rows] = rows[covered.anchor], covered.similarity, covered.distance
    return result


def _links(table: pa.Table) -> dict[int, list[tuple[int, Link]]]:
    links: dict[int, list[tuple[int, Link]]] = {}
    columns = (table[name].to_pylist() for name in ("src", "dst", "similarity", "distance"))
    for src, dst, similarity, distance in zip(*columns, strict=True):
        links.setdefault(src, []).append((dst, Link(similarity, distance)))
    return links


def _inside(distinct: Ids, label: Ids, pairs: pa.Table) -> pa.Table:
    """Pairs whose two ends are members of one component."""
    labels, is_inside = [], np.ones(len(pairs), dtype=bool)
    for end in ("src", "dst"):
        values = pairs[end].to_numpy()
        place = np.searchsorted(distinct, values).clip(0, len(distinct) - 1)
        is_inside &= distinct[place] == values
        labels.append(label[place])
    return pairs.filter(pa.array(is_inside & (labels[0] == labels[1])))


def _by_component(distinct: Ids, label: Ids, pairs: pa.Table) -> tuple[pa.Table, Ids]:
    """Pairs ordered by the component they lie in, and that component."""
    component = label[np.searchsorted(distinct, pairs["src"].to_numpy())]
    order = np.argsort(component, kind="stable")
    return pairs.take(order), component[order]


def _slice(component: Ids, first: int, last: int) -> slice:
    """Where the pairs of the components from `first` to `last` lie."""
    return slice(int(np.searchsorted(component, first)), int(np.searchsorted(component, last, side="right")))


def _pairs_of_two(bounds: Ids, is_free: Mask, sample_ids: Ids, distinct: Ids, links: pa.Table, result: Cover) -> Mask:
    """Decide all free components of two linked members at once; returns which components were decided."""
    is_pair = (np.diff(bounds) == 2) & is_free
    starts = bounds[:-1][is_pair]
    a, b = (np.searchsorted(distinct, sample_ids[starts + k]) for k in (0, 1))
    key = np.minimum(a, b) * len(distinct) + np.maximum(a, b)
    link_keys = np.searchsorted(distinct, links["src"].to_numpy()) * len(distinct) + np.searchsorted(distinct, links["dst"].to_numpy())
    order = np.argsort(link_keys, kind="stable")
    place = np.searchsorted(link_keys[order], key).clip(0, max(len(link_keys) - 1, 0))
    is_linked = (link_keys[order][place] == key) if len(link_keys) else np.zeros(len(key), dtype=bool)
    is_equal = a == b
    second = starts + 1
    result.anchor[second[is_linked | is_equal]] = starts[is_linked | is_equal]
    rows = order[place[is_linked]] if len(link_keys) else np.zeros(0, dtype=np.int64)
    result.similarity[second[is_linked]] = links["similarity"].to_numpy()[rows]
    result.distance[second[is_linked]] = links["distance"].to_numpy(zero_copy_only=False).astype(np.float32)[rows]
    result.similarity[second[is_equal]] = 1.0
    decided = np.zeros(len(bounds) - 1, dtype=bool)
    decided[np.flatnonzero(is_pair)[is_linked | is_equal]] = True
    return decided


def min_similarity_of(context: StageContext, sample_ids: Ids) -> Sims:
    """Similarity that each of some distinct images needs to a copy."""
    table = read_table(context.run.table("representatives"), ["sample_id", "min_similarity"])
    thresholds: Sims = table["min_similarity"].to_numpy()[np.searchsorted(table["sample_id"].to_numpy(), sample_ids)]
    return thresholds
