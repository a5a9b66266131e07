"""Search the components that refused candidates have torn for other pairs that connect them.

The candidates of a crowd of look-alikes are a spanning forest and each image's best few. A true copy may hide behind
them: its edge was not among the best, and the path that stood for it was refused. So torn components are searched again,
the most similar pairs first, until every image has been compared with its nearest neighbours in all other parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.cluster.hierarchy import DisjointSet

from dedup.judge.pair import JudgeInputs, JudgeSettings, VerdictWriter, find_places
from dedup.judge.verdicts import AGAIN, base_tables, find_verdicts, inside
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.graph.components import connected_components
from dedup.numerics.graph.cover import component_slices
from dedup.numerics.similarity import FLOAT32_BAND, Rows, exact_similarity, unit_rows
from dedup.stages.stage import StageContext
from dedup.storage.tables import dataset, read_table

_TASK_MEMBERS = 2_000
_LARGEST = 50_000  # members of a component that is searched again: all its products take a minute
_STRIP = 256


@dataclass(frozen=True)
class ReconnectTask:
    """Members of torn components, component after component."""

    inputs: JudgeInputs
    number: int
    sample_ids: Ids
    thresholds: tuple[Sims, ...]  # similarity that each image needs, by space
    parts: Ids
    bounds: Ids
    judged: Ids
    limit: int


@dataclass
class Reconnected:
    """The outcome of the search."""

    n_judged: int = 0
    n_standing: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def reconnect_components(task: ReconnectTask) -> Reconnected:
    """Search the components of one task."""
    judge = task.inputs.judge()
    outcome = Reconnected()
    with VerdictWriter(task.inputs.settings.run, f"part-again-{task.number:05d}", "confirm") as writer:
        for start, stop in zip(task.bounds[:-1], task.bounds[1:], strict=True):
            ids, parts = task.sample_ids[start:stop], task.parts[start:stop]
            judged = task.judged[(task.judged >= start).all(axis=1) & (task.judged < stop).all(axis=1)] - start
            for number, (space, thresholds) in enumerate(zip(task.inputs.spaces, task.thresholds, strict=True)):
                source, pairs = "also" if number else "whole", list[tuple[int, int]]()

                def are_copies(
                    a: int, b: int, similarity: float, ids: Ids = ids, source: str = source, pairs: list[tuple[int, int]] = pairs
                ) -> bool:
                    verdict = judge.judge(int(ids[a]), int(ids[b]), ["none"], AGAIN)
                    writer.add(int(ids[a]), int(ids[b]), similarity, verdict, source)
                    pairs.append((a, b))
                    outcome.n_judged += 1
                    return verdict.stands

                parts = join_parts(space.run.vectors().view(ids), thresholds[start:stop], parts, judged, task.limit, are_copies)
                judged = np.concatenate([judged, np.array(pairs, dtype=np.int64).reshape(-1, 2)])
    outcome.n_standing, outcome.reasons = writer.n_standing, writer.reasons
    return outcome


def join_parts(
    vectors: Rows, min_similarity: Sims, parts: Ids, judged: Ids, limit: int, are_copies: Callable[[int, int, float], bool]
) -> Ids:
    """Judge pairs between different parts, the most similar first, until no pair remains that could join two.

    `min_similarity`: shape (n,); a pair needs the larger of its two.
    `parts`: shape (n,); the part of each row so far.
    `judged`: shape (n_judged, 2); pairs that are not judged again.
    `limit`: nearest neighbours in other parts that are judged for each image.
    `are_copies`: judges two positions (the smaller first) of a given similarity.
    Returns shape (n,); the part of each row now.

    After Kruskal (1956): with a limit that no image reaches, and an `are_copies` that never errs, the parts joined are
    the components of the complete graph of true copies within the threshold.
    """
    n = len(parts)
    pairs = _nearest_outside(vectors, min_similarity, parts, {(int(min(a, b)), int(max(a, b))) for a, b in judged.tolist()}, limit)
    if not len(pairs):
        return parts
    similarity = exact_similarity(vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    near = similarity >= np.maximum(min_similarity[pairs[:, 0]], min_similarity[pairs[:, 1]])
    pairs, similarity = pairs[near], similarity[near]
    sets, first = DisjointSet(range(n)), dict[int, int]()
    for position, part in enumerate(parts.tolist()):
        sets.merge(first.setdefault(part, position), position)
    for place in np.lexsort((pairs[:, 1], pairs[:, 0], -similarity)).tolist():
        a, b = int(pairs[place, 0]), int(pairs[place, 1])
        if not sets.connected(a, b) and are_copies(a, b, float(similarity[place])):
            sets.merge(a, b)
    return np.array([sets[position] for position in range(n)], dtype=np.int64)


def _nearest_outside(vectors: Rows, min_similarity: Sims, parts: Ids, judged: set[tuple[int, int]], limit: int) -> Ids:
    """Pairs (a < b) of each row with its nearest rows of other parts that were not judged."""
    n = len(parts)
    columns = unit_rows(vectors[np.arange(n)])
    judged_with: dict[int, list[int]] = {}
    for a, b in judged:
        judged_with.setdefault(a, []).append(b)
        judged_with.setdefault(b, []).append(a)
    pairs: set[tuple[int, int]] = set()
    for top in range(0, n, _STRIP):
        rows = np.arange(top, min(top + _STRIP, n))
        product = columns[rows] @ columns.T
        product[parts[rows][:, None] == parts[None, :]] = -2.0
        for place, row in enumerate(rows.tolist()):
            product[place, judged_with.get(row, [])] = -2.0
        product[product < np.maximum.outer(min_similarity[rows], min_similarity) - FLOAT32_BAND] = -2.0
        k = min(limit, n)
        best = np.argpartition(-product, k - 1, axis=1)[:, :k]
        i, j = np.repeat(rows, k), best.ravel()
        near = product[i - top, j] > -2.0
        pairs.update(zip(np.minimum(i, j)[near].tolist(), np.maximum(i, j)[near].tolist(), strict=True))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def reconnect(context: StageContext, settings: JudgeSettings) -> Reconnected:
    """Find the components that refusals have torn and search them."""
    run, limit, total = context.run, context.config.confirm.reconnect, Reconnected()
    near = pc.field("kind") == "near"
    refused = read_table(run.table("refused"), ["src", "dst"])
    if not limit or not len(refused):
        return total
    tables = [read_table(space.run.table("representatives")) for space in context.spaces]
    ids, thresholds = tables[0]["sample_id"].to_numpy(), [table["min_similarity"].to_numpy() for table in tables]
    edges = dataset(run.table("edges")).to_table(columns=["src", "dst"], filter=near)
    standing, torn = _positions(ids, edges), _positions(ids, refused)
    both = np.concatenate([standing, torn])
    raw = connected_components(both[:, 0], both[:, 1], len(ids))
    parts = connected_components(standing[:, 0], standing[:, 1], len(ids))
    # a component of two has no further pair, and one that is still a single part is not torn
    size = np.bincount(raw, minlength=len(ids))[raw]
    n_parts = np.bincount(raw[np.unique(parts)], minlength=len(ids))[raw]
    members = np.flatnonzero((size > 2) & (n_parts > 1) & (size <= _LARGEST))
    too_large = int(((size > _LARGEST) & (n_parts > 1)).sum())
    if too_large:
        context.reporter.note(f"confirm: {too_large:,} images are in components too large to search again where pairs were refused")
    order = members[np.lexsort((members, raw[members]))]
    bounds = component_slices(raw[order])
    judged_of = np.sort(raw[both[:, 0]], kind="stable")
    both = both[np.argsort(raw[both[:, 0]], kind="stable")]
    verdicts = find_verdicts(context.engine, base_tables(context.base, context.config.confirm), ids[np.sort(members)])
    tasks: list[ReconnectTask] = []
    sizes: list[int] = []
    cuts = np.unique(np.searchsorted(bounds, np.arange(0, len(order) + _TASK_MEMBERS, _TASK_MEMBERS)).clip(0, len(bounds) - 1))
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        nodes = order[bounds[first] : bounds[last]]
        place = np.full(len(ids), -1, dtype=np.int64)
        place[nodes] = np.arange(len(nodes))
        rows = np.concatenate(
            [np.arange(*np.searchsorted(judged_of, [label, label + 1])) for label in np.unique(raw[nodes])] or [np.zeros(0, np.int64)]
        ).astype(np.int64)
        offsets = bounds[first : last + 1] - bounds[first]
        places = find_places(context.engine, run.table("metadata"), ids[nodes])
        inputs = JudgeInputs(settings, places, inside(verdicts, np.sort(ids[nodes])), context.spaces)
        of_nodes = tuple(column[nodes] for column in thresholds)
        tasks.append(ReconnectTask(inputs, len(tasks), ids[nodes], of_nodes, parts[nodes], offsets, place[both[rows]], limit))
        sizes.append(len(nodes))
    for _, outcome in context.run_tasks("confirm", "images searched again", reconnect_components, tasks, sizes):
        total.n_judged += outcome.n_judged
        total.n_standing += outcome.n_standing
        total.reasons.update(outcome.reasons)
    return total


def _positions(ids: Ids, pairs: pa.Table) -> Ids:
    """Ends of pairs as positions among the representatives, int64 (n, 2)."""
    return np.stack([np.searchsorted(ids, pairs[end].to_numpy()) for end in ("src", "dst")], axis=1).astype(np.int64).reshape(-1, 2)
