"""Near-duplicate pairs of views: joined list by list, the best of each pair of images kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dedup.contracts import GroupRows, Pack
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.lists import count_lists, pack_lists
from dedup.numerics.search.viewjoin import ViewEdges, Views, best_of_pairs, join_views, no_edges
from dedup.runs.views import view_parts
from dedup.stages.index.members import ViewMembers
from dedup.stages.index.views import LISTS_OF_A_VIEW
from dedup.stages.stage import StageContext


@dataclass(frozen=True)
class JoinViews:
    """Joins the lists of views of a pack; gives their edges, and the strips of products that a GPU had no memory for."""

    min_similarity: float
    view_min_similarity: float
    n_filter: int
    best: int
    device: str
    n_earlier: int = 0

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> tuple[ViewEdges, int]:
        """Join each list; the edges are few, and go to the driver."""
        device = choose_device(self.device)
        found = [no_edges()]
        for number, rows in groups:
            view = rows.column("view")
            images = view["image"].astype(np.int64)
            views = Views(rows.column("vector"), images, view["kind"], view["orientation"], view["is_base"])
            asked = (self.min_similarity, self.view_min_similarity)
            share = (pack.share, pack.n_shares)
            joined = join_views(
                views,
                Ownership(rows.groups, number),
                rows.view("whole"),
                *asked,
                n_filter=self.n_filter,
                best=self.best,
                share=share,
                device=device,
                n_earlier=self.n_earlier,
            )
            found.append(joined)
        return _united(found, self.best), 0 if device is None else device.n_left


def _united(parts: list[ViewEdges], best: int) -> ViewEdges:
    columns = [[getattr(part, name) for part in parts] for name in ("src", "dst", "similarity", "turn")]
    return best_of_pairs(ViewEdges(*(np.concatenate(column) for column in columns)), best)


def find_view_edges(context: StageContext, scratch: str, n_earlier: int, earlier: ViewEdges) -> ViewEdges:
    """Join all lists of views; images are positions among the representatives, whose sample_ids lie in `scratch`.

    Parameters
    ----------
    context : StageContext
    scratch : str
    n_earlier : int
        Images, the first ones, that the run's base has compared with each other.
    earlier : ViewEdges
        What it found.
    """
    search, run = context.config.search, context.run
    parts = view_parts(run.views_folder) if search.views else ()
    if not parts:
        return no_edges()
    members = ViewMembers.of(run, scratch, parts)
    counts, fresh = count_lists(members.groups(block) for block in range(len(parts))), None
    if n_earlier:
        counted = count_lists(members.groups(block)[members.images(block) >= n_earlier] for block in range(len(parts)))
        fresh = np.zeros(len(counts), dtype=np.int64)
        fresh[: len(counted)] = counted
    n_filter = run.view_lists().n_filter
    device = context.device(int(counts.sum()) // LISTS_OF_A_VIEW)
    work = JoinViews(search.min_similarity, search.view_min_similarity, n_filter, search.best_edges, device, n_earlier)
    packs = pack_lists(counts, context.engine.n_workers, fresh)
    results = context.run_groups("pairs", "lists of views", members, work, packs, uses_gpu=device != "cpu")
    # in the order of the packs, not of their ends
    joined = [found for _, found in sorted(results, key=lambda result: result[0])]
    context.note_left("views", sum(n_left for _, n_left in joined))
    edges = [found for found, _ in joined]
    return _united([earlier, *edges], search.best_edges)
