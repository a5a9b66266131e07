"""Near-duplicate pairs of views: joined list by list, the best of each pair of images kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dedup.contracts import GroupRows, Pack
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.lists import count_lists, pack_lists
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.search.view_join import ViewEdges, ViewRule, Views, join_views, no_edges, united
from dedup.runs.vectors import view_parts
from dedup.stages.index.members import ViewMembers
from dedup.stages.index.views import LISTS_OF_A_VIEW
from dedup.stages.stage import StageContext


@dataclass(frozen=True)
class JoinViews:
    """Joins the lists of views of a pack; returns their edges and how many strips of products a GPU had no memory for."""

    rule: ViewRule
    best: int
    device: str
    n_earlier: int = 0

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> tuple[ViewEdges, int]:
        """Join each list; the edges are few and go to the driver."""
        device = choose_device(self.device)
        edges = [no_edges()]
        for number, rows in groups:
            view = rows.column("view")
            images = view["image"].astype(np.int64)
            views = Views(rows.column("vector"), images, view["kind"], view["orientation"], view["is_base"])
            settings = JoinSettings(self.best, (pack.share, pack.n_shares), device)
            ownership, wholes = Ownership(rows.groups, number), rows.view("whole")
            edges.append(join_views(views, ownership, wholes, self.rule, settings, n_earlier=self.n_earlier))
        return united(edges, self.best), 0 if device is None else device.n_left


def find_view_edges(context: StageContext, scratch: str, n_earlier: int, earlier: ViewEdges) -> ViewEdges:
    """Join all lists of views; images are positions among the representatives, whose sample_ids lie in `scratch`.

    `n_earlier`: the first images, which the run's base has compared with each other.
    `earlier`: the edges it found.
    """
    search, run = context.config.search, context.run
    parts = view_parts(run.views_folder) if search.views else ()
    if not parts:
        return no_edges()
    members = ViewMembers.of(run, scratch, parts)
    counts, fresh = count_lists(members.groups(block) for block in range(len(parts))), None
    if n_earlier:
        fresh = count_lists((members.groups(block)[members.images(block) >= n_earlier] for block in range(len(parts))), len(counts))
    rule = ViewRule(search.min_similarity, search.view_min_similarity, run.view_lists().n_filter)
    device = context.device(int(counts.sum()) // LISTS_OF_A_VIEW)
    work = JoinViews(rule, search.best_edges, device, n_earlier)
    packs = pack_lists(counts, context.engine.n_workers, fresh)
    results = context.run_groups("pairs", "view lists", members, work, packs, uses_gpu=device != "cpu")
    # by number of the pack, not as they end
    joined = [result for _, result in sorted(results, key=lambda numbered: numbered[0])]
    context.note_left("views", sum(n_left for _, n_left in joined))
    return united([earlier, *(edges for edges, _ in joined)], search.best_edges)
