"""Stage `groups`: connected components of the edges, cut into groups whose members are near their anchor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dedup.contracts import JsonDict
from dedup.numerics.arraytypes import Ids, Sims
from dedup.numerics.graph.cover import component_slices, greedy_cover, region_cover
from dedup.runs.directory import Run
from dedup.schemas.pairs import NEAR, STANDING
from dedup.stages.components import components_of
from dedup.stages.groups.cover import cover
from dedup.stages.groups.related import write_related
from dedup.stages.pairs.known import read_neighbors
from dedup.stages.stage import Stage, StageContext, StageResult
from dedup.storage.tables import clear, dataset, read_table

_TASK_ROWS = 20_000  # members per task of components that need vectors


@dataclass(frozen=True)
class Limits:
    """When a component is too large to compare each of its anchors with every member."""

    compared_up_to: int = 4_096  # members of a component whose every anchor is compared with every member
    comparisons: int = 5_000_000  # that the first anchors of a larger component may cost: some 20 s


LIMITS = Limits()

EXPAND_SQL = """
SELECT sample_id, component_id, raw_component_id, anchor_id, similarity_to_anchor, distance_to_anchor FROM grouped
UNION ALL
SELECT exact.sample_id, grouped.component_id, grouped.raw_component_id, grouped.anchor_id, grouped.similarity_to_anchor,
       grouped.distance_to_anchor
FROM exact JOIN grouped ON exact.representative_id = grouped.sample_id
ORDER BY sample_id
"""


@dataclass(frozen=True)
class CoverTask:
    """Members of whole components, component after component, each in its order of preference."""

    run: Run
    sample_ids: Ids
    min_similarity: Sims
    bounds: Ids


def cover_components(task: CoverTask) -> tuple[Ids, Sims]:
    """Anchor (as a sample_id) and similarity to it, for each member of the task."""
    store = task.run.vectors()
    anchor_ids = np.empty(len(task.sample_ids), dtype=np.int64)
    similarity = np.empty(len(task.sample_ids), dtype=np.float32)
    for start, stop in zip(task.bounds[:-1], task.bounds[1:], strict=True):
        ids = task.sample_ids[start:stop]
        anchor, similar = greedy_cover(store.take(ids), task.min_similarity[start:stop], np.arange(len(ids)))
        anchor_ids[start:stop], similarity[start:stop] = ids[anchor], similar
    return anchor_ids, similarity


def form_groups(context: StageContext, limits: Limits = LIMITS) -> StageResult:
    """Label components, cut them into groups, let byte-identical copies follow their representative; templates and scenes beside them."""
    run = context.run
    representatives = read_table(run.table("representatives"))
    ids = representatives["sample_id"].to_numpy()
    labels, summary = _components(context, ids)
    size = np.bincount(labels, minlength=len(ids))[labels]
    members = np.flatnonzero((size > 1) | (representatives["weight"].to_numpy() > 1))

    n_neighbors = read_neighbors(run, ids)
    # anchors are taken by (n_neighbors descending, sample_id)
    order = members[np.lexsort((members, -n_neighbors[members], labels[members]))]
    settings, distance = context.judge_settings, np.full(len(order), np.nan, dtype=np.float32)
    if settings is not None:
        # with confirm.unreadable=keep also those whose pixels could not be read
        links = dataset(run.table("edges")).to_table(columns=["src", "dst", "similarity", "distance"], filter=NEAR)
        covered = cover(context, settings, "groups", labels[order], ids[order], links)
        anchor, similarity, distance = order[covered.anchor], covered.similarity, covered.distance
    else:
        min_similarity = representatives["min_similarity"].to_numpy()
        anchor, similarity = _cover(context, ids, labels, order, min_similarity, _edges(context, ids), limits)
    # the smallest member names the group
    group_first = np.full(len(ids), len(ids), dtype=np.int64)
    np.minimum.at(group_first, anchor, order)
    grouped = pa.table(
        {
            "sample_id": ids[order],
            "component_id": ids[group_first[anchor]],
            "raw_component_id": ids[labels[order]],
            "anchor_id": ids[anchor],
            "similarity_to_anchor": similarity,
            "distance_to_anchor": pa.array(distance, from_pandas=True),
        }
    )
    table = run.table("groups")
    clear(table)
    n_rows = context.engine.sql_to(EXPAND_SQL, {"grouped": grouped, "exact": run.table("exact")}, table)
    n_raw, n_groups = len(np.unique(labels[order])), len(np.unique(anchor))
    rows = {"groups": n_rows} | write_related(context)
    return StageResult(rows, {"n_raw_components": n_raw, "n_groups": n_groups, "n_split": n_groups - n_raw} | summary)


def _components(context: StageContext, ids: Ids) -> tuple[Ids, JsonDict]:
    """Label of each representative, the position of the smallest of its component; found on the engine where edges are many."""
    most = context.config.groups.max_driver_edges
    edges = context.run.table("edges")
    found = components_of(context.engine, edges, STANDING, max_driver_edges=most, stage="groups", note=context.reporter.note)
    labels = np.arange(len(ids), dtype=np.int64)
    labels[np.searchsorted(ids, found.nodes)] = np.searchsorted(ids, found.component)
    return labels, {} if found.n_rounds is None else {"contraction_rounds": found.n_rounds}


def _edges(context: StageContext, ids: Ids) -> tuple[Ids, Ids, Sims]:
    """Ends and similarities of the edges that stand; positions are compact node ids and keep the order of the sample_ids."""
    edges = dataset(context.run.table("edges")).to_table(columns=["src", "dst", "similarity"], filter=STANDING)
    src, dst = (np.searchsorted(ids, edges[end].to_numpy()).astype(np.int64) for end in ("src", "dst"))
    return src, dst, edges["similarity"].to_numpy()


def _cover(
    context: StageContext, ids: Ids, labels: Ids, order: Ids, min_similarity: Sims, edges: tuple[Ids, Ids, Sims], limits: Limits
) -> tuple[Ids, Sims]:
    """Anchor (as a node) and similarity to it, for each entry of `order`.

    Components of one or two need no vectors: a pair has one edge, and its similarity is known.
    """
    anchor, similarity = order.copy(), np.ones(len(order), dtype=np.float32)
    bounds = component_slices(labels[order])
    lengths = np.diff(bounds)
    second = bounds[:-1][lengths == 2] + 1
    anchor[second] = order[second - 1]
    pair_similarity = np.zeros(len(ids), dtype=np.float32)
    pair_similarity[labels[edges[0]]] = edges[2]
    similarity[second] = pair_similarity[labels[order[second]]]

    for k in np.flatnonzero(lengths > limits.compared_up_to):
        rows = np.arange(bounds[k], bounds[k + 1])
        anchor[rows], similarity[rows] = _cover_giant(context, ids, order[rows], min_similarity, edges, limits.comparisons)
    large = np.flatnonzero((lengths > 2) & (lengths <= limits.compared_up_to))
    tasks, slices = [], []
    for part in np.split(large, np.flatnonzero(np.diff(np.cumsum(lengths[large]) // _TASK_ROWS)) + 1) if len(large) else []:
        rows = np.concatenate([np.arange(bounds[k], bounds[k + 1]) for k in part])
        nodes = order[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths[part])]).astype(np.int64)
        tasks.append(CoverTask(context.run, ids[nodes], min_similarity[nodes], offsets))
        slices.append(rows)
    results = context.run_tasks("groups", "members", cover_components, tasks, [len(rows) for rows in slices])
    for number, (anchor_ids, similar) in results:
        rows = slices[number]
        anchor[rows], similarity[rows] = np.searchsorted(ids, anchor_ids), similar
    return anchor, similarity


def _cover_giant(
    context: StageContext, ids: Ids, nodes: Ids, min_similarity: Sims, edges: tuple[Ids, Ids, Sims], comparisons: int
) -> tuple[Ids, Sims]:
    """Anchors (as nodes) and similarities of one component that is too large to compare each anchor with every member.

    A crowd of copies of one picture has few anchors, and they are compared with all members. The rest is a chain of
    look-alikes, which is cut along its edges.
    """
    rows = context.run.vectors().view(ids[nodes])
    positions, thresholds = np.arange(len(nodes)), min_similarity[nodes]
    budget = max(1, comparisons // len(nodes))
    anchor, similarity = greedy_cover(rows, thresholds, positions, max_anchors=budget)
    rest = np.flatnonzero(anchor < 0)
    if len(rest):
        text = f"groups: {len(rest):,} of {len(nodes):,} images of one component are not copies of its {budget:,} most copied ones"
        context.reporter.note(f"{text}; they are cut along their edges: is search.min_similarity too low?")
        place = np.full(len(ids), -1, dtype=np.int64)
        place[nodes[rest]] = np.arange(len(rest))
        inside = (place[edges[0]] >= 0) & (place[edges[1]] >= 0)
        src, dst = place[edges[0][inside]], place[edges[1][inside]]
        rest_anchor, similarity[rest] = region_cover(context.run.vectors().view(ids[nodes[rest]]), thresholds[rest], src, dst)
        anchor[rest] = rest[rest_anchor]
    return nodes[anchor], similarity


STAGE = Stage("groups", reads=("confirm",), output_version=3, run=form_groups)
