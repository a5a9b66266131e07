"""How a sample hangs together with others: the edges of its component, and the path through them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.errors import EdgeError, RunDirectoryError
from dedup.explanation.explanation import Step
from dedup.numerics.graph.components import widest_path
from dedup.runs.directory import Run
from dedup.schemas.pairs import STANDING
from dedup.storage.tables import dataset

_BATCH_ROWS = 65_536

_COLUMNS = ["src", "dst", "similarity", "kind", "variant", "source", "found_by", "confirmed", "distance"]

_IS_EXACT = pc.field("kind") == "exact"

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ComponentEdges:
    """The edges of one connected component that stand, byte-identical copies left out.

    Parameters
    ----------
    src, dst : int64 array, shape (n_edges,)
    similarity : float32 array, shape (n_edges,)
    """

    src: Ids
    dst: Ids
    similarity: npt.NDArray[np.float32]

    def of(self, sample_id: int, n: int) -> tuple[list[tuple[int, int]], int]:
        """The most similar edges of a sample, as (src, dst), and how many it has."""
        own = np.flatnonzero((self.src == sample_id) | (self.dst == sample_id))
        order = own[np.lexsort((self.dst[own], self.src[own], -self.similarity[own]))][:n]
        return [(int(self.src[k]), int(self.dst[k])) for k in order], len(own)


def component_edges(layout: Run, members: Ids) -> ComponentEdges:
    """Read the edges between members of a component.

    Parameters
    ----------
    layout : Run
    members : int64 array, ascending
        sample_ids of the connected component.

    Notes
    -----
    Files are read in batches, and only where they hold ids of the component's range: 20 bytes an edge of the component, and no more
    for all others. The path through them takes some 300 bytes an edge.
    """
    near: list[tuple[npt.NDArray[np.generic], ...]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    src, dst = pc.field("src"), pc.field("dst")
    low, high = int(members[0]), int(members[-1])
    wanted = STANDING & (src >= low) & (src < high) & (dst > low) & (dst <= high)
    for batch in dataset(layout.table("edges")).to_batches(columns=_COLUMNS[:3], filter=wanted, batch_size=_BATCH_ROWS):
        columns = [batch[name].to_numpy() for name in _COLUMNS[:3]]
        inside = _is_in(columns[0], members)
        near.append(tuple(column[inside] for column in columns))
    parts = [np.concatenate(column) for column in zip(*near, strict=True)]
    return ComponentEdges(parts[0].astype(np.int64), parts[1].astype(np.int64), parts[2].astype(np.float32))


def representatives(layout: Run, sample_ids: Iterable[int]) -> dict[int, int]:
    """The sample that stands for the image of each: the first with the same bytes, or the sample itself."""
    found = {sample_id: sample_id for sample_id in sample_ids}
    rows = dataset(layout.table("exact")).to_table(filter=pc.field("sample_id").isin(list(found))).to_pylist()
    return found | {row["sample_id"]: row["representative_id"] for row in rows}


def path_between(layout: Run, edges: ComponentEdges, start: int, end: int) -> list[int]:
    """sample_ids from one sample to another of its component, along the widest path; copies join by the image they share.

    Raises
    ------
    RunDirectoryError
        If nothing joins them: tables of different runs.
    """
    of = representatives(layout, [start, end])
    try:
        between = widest_path(edges.src, edges.dst, edges.similarity, of[start], of[end]).tolist()
    except EdgeError as error:
        raise RunDirectoryError(
            f"{layout.url}: no edges join sample {start} and sample {end}, which are in one component ({error}); its tables do not "
            "belong together: run dedup status, then dedup run … --redo"
        ) from error
    return [*([start] if of[start] != start else []), *between, *([end] if of[end] != end else [])]


def read_steps(layout: Run, pairs: Iterable[tuple[int, int]]) -> list[Step]:
    """Whole rows of `edges`, for pairs in either direction; of a pair that occurs twice the more similar.

    Pairs that are no edge are left out.
    """
    wanted = [(min(pair), max(pair)) for pair in pairs]
    ends = [pa.array(sorted({pair[side] for pair in wanted}), pa.int64()) for side in (0, 1)]
    if not wanted:
        return []
    rows = dataset(layout.table("edges")).to_batches(
        columns=_COLUMNS,
        filter=pc.field("src").isin(ends[0]) & pc.field("dst").isin(ends[1]) & (_IS_EXACT | STANDING),
        batch_size=_BATCH_ROWS,
    )
    is_wanted, found = set(wanted), dict[tuple[int, int], Step]()
    for batch in rows:
        for row in batch.to_pylist():
            pair = (row["src"], row["dst"])
            if pair in is_wanted and (pair not in found or row["similarity"] > found[pair].similarity):
                found[pair] = Step(**row)
    return [found[pair] for pair in wanted if pair in found]


def _is_in(values: Ids, members: Ids) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(members, values).clip(0, len(members) - 1)
    found: npt.NDArray[np.bool_] = members[place] == values
    return found
