"""What the base of a run says of its pairs: edges by the list that owns them, counts, and which lists need a join at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dedup.contracts import Table
from dedup.errors import StageError
from dedup.judge.pair import TURN_NAMES
from dedup.numerics.arraytypes import Ids, Mask
from dedup.numerics.search.list_join import Earlier
from dedup.numerics.search.lists import BLOCK
from dedup.numerics.search.view_join import ViewEdges, no_edges
from dedup.runs.directory import Run
from dedup.stages.index.members import Members
from dedup.stages.stage import StageContext
from dedup.storage.arrays import map_array, save_array
from dedup.storage.tables import FileWriter, dataset, files, read_table
from dedup.storage.urls import filesystem, join

_TASKS_PER_WORKER = 2  # each reads the lists of all images that its edges join
_WHOLE = (pc.field("kind") == "near") & (pc.field("source") == "whole")
_OWNED = np.dtype([("owner", np.int32), ("src", np.int64), ("dst", np.int64), ("similarity", np.float32)])


@dataclass(frozen=True)
class OwnerTask:
    """Some files of the base's candidates, whose owners are looked up."""

    members: Members
    candidates: Table
    names: tuple[str, ...]
    number: int
    output: Table


@dataclass(frozen=True)
class EarlierEdges:
    """The base's edges by list; sent to workers."""

    scratch: str
    n_parts: int
    n_earlier: int  # distinct images of the base

    def of_list(self, number: int, positions: Ids, added: Ids) -> Earlier:
        """The edges among one list's rows.

        `positions`: shape (n,); of its rows among all distinct images, ascending.
        `added`: shape (n,); see `Earlier`.
        """
        parts = []
        for owned in _parts(self.scratch, self.n_parts):
            owners = owned["owner"]
            parts.append(owned[np.searchsorted(owners, number) : np.searchsorted(owners, number, side="right")])
        edges = np.concatenate(parts) if parts else np.zeros(0, _OWNED)
        src, dst = (np.searchsorted(positions, edges[end]).astype(np.int64) for end in ("src", "dst"))
        n_rows = int(np.searchsorted(positions, self.n_earlier))
        return Earlier(n_rows, added, src, dst, np.ascontiguousarray(edges["similarity"]))


@lru_cache(maxsize=1)
def _parts(scratch: str, n_parts: int) -> list[npt.NDArray[Any]]:
    return [map_array(_part(scratch, number)) for number in range(n_parts)]


def _part(scratch: str, number: int) -> str:
    return join(scratch, f"owned-{number:05d}.npy")


def find_owners(task: OwnerTask) -> int:
    """Sort edges by the list that owns them; those of lists without a join become edges of this run unchanged. Returns their number."""
    fs, _ = filesystem(task.candidates.path)
    source = ds.dataset(list(task.names), schema=task.candidates.schema, format="parquet", filesystem=fs)
    edges = source.to_table(filter=_WHOLE)
    scratch = task.members.scratch
    ids, is_joined = map_array(join(scratch, "sample_id.npy")), map_array(join(scratch, "is_joined.npy"))
    src, dst = (np.searchsorted(ids, edges[end].to_numpy()).astype(np.int64) for end in ("src", "dst"))
    owner = _owners(task.members, src, dst)
    is_final = (owner < 0) | ~is_joined[owner]
    owned = np.empty(int((~is_final).sum()), dtype=_OWNED)
    order = np.flatnonzero(~is_final)[np.argsort(owner[~is_final], kind="stable")]
    for name, column in (("owner", owner), ("src", src), ("dst", dst), ("similarity", edges["similarity"].to_numpy())):
        owned[name] = column[order]
    save_array(_part(scratch, task.number), owned)
    with FileWriter(join(task.output.path, f"part-base-{task.number:05d}.parquet"), task.output.schema) as writer:
        writer.write(edges.filter(pa.array(is_final)))
    return writer.n_rows


def _owners(members: Members, src: Ids, dst: Ids) -> npt.NDArray[np.int32]:
    """The smallest list that both ends are in, -1 where there is none, int32 (n,)."""
    lists_of = []
    for end in (src, dst):
        lists = np.full((len(end), members.n_groups_each), -1, dtype=np.int32)
        block = end // BLOCK
        for number in np.unique(block).tolist():
            rows = np.flatnonzero(block == number)
            lists[rows] = members.groups(number)[end[rows] - number * BLOCK]
        lists_of.append(lists)
    src_lists, dst_lists = lists_of
    owner = np.full(len(src), np.iinfo(np.int32).max, dtype=np.int32)
    for column in src_lists.T:
        is_shared = (column >= 0) & (dst_lists == column[:, None]).any(axis=1)
        owner[is_shared] = np.minimum(owner[is_shared], column[is_shared])
    owner[owner == np.iinfo(np.int32).max] = -1
    return owner


def save_owned_edges(context: StageContext, members: Members, is_joined: Mask, output: Table) -> tuple[EarlierEdges, int]:
    """Sort the base's edges into the lists that are joined, and write the others as edges of this run; returns also their number."""
    if context.base is None:
        raise StageError("a run without a base has no earlier edges; please report this")
    candidates = context.base.table("candidates")
    save_array(join(members.scratch, "is_joined.npy"), is_joined)
    names = files(candidates)
    n_tasks = min(len(names), _TASKS_PER_WORKER * context.engine.n_workers)
    tasks = [OwnerTask(members, candidates, tuple(names[number::n_tasks]), number, output) for number in range(n_tasks)]
    n_written = sum(n for _, n in context.engine.map_partitions(find_owners, tasks))
    return EarlierEdges(members.scratch, n_tasks, members.n_earlier), n_written


def earlier_weights(context: StageContext, n: int) -> npt.NDArray[np.int64]:
    """Samples that each distinct image stood for in the base, int64 (n,); 0 for images it did not have."""
    weights = np.zeros(n, dtype=np.int64)
    if context.base is not None:
        base_weights = read_table(context.base.table("representatives"), ["weight"])["weight"].to_numpy()
        weights[: len(base_weights)] = base_weights
    return weights


def read_neighbors(run: Run, ids: Ids) -> Ids:
    """Neighbours that a run has found of each of some distinct images, int64 (n,); 0 for images it does not have."""
    counts = np.zeros(len(ids), dtype=np.int64)
    if len(ids):
        table = read_table(run.table("neighbors"), ["sample_id", "n_neighbors"])
        sample_ids = table["sample_id"].to_numpy()
        place = np.searchsorted(ids, sample_ids).clip(0, len(ids) - 1)
        is_distinct = ids[place] == sample_ids  # the others are byte-identical copies
        counts[place[is_distinct]] = table["n_neighbors"].to_numpy()[is_distinct]
    return counts


def earlier_view_edges(context: StageContext, ids: Ids) -> ViewEdges:
    """The base's edges that only views found, by the positions of their images among all distinct ones."""
    if context.base is None:
        return no_edges()
    columns = ["src", "dst", "similarity", "variant"]
    edges = dataset(context.base.table("candidates")).to_table(columns=columns, filter=pc.field("source") == "look")
    code = {name: number for number, name in enumerate(TURN_NAMES)}
    turn = np.array([code[name] for name in edges["variant"].to_pylist()], dtype=np.int8)
    src, dst = (np.searchsorted(ids, edges[end].to_numpy()).astype(np.int64) for end in ("src", "dst"))
    return ViewEdges(src, dst, edges["similarity"].to_numpy(), turn)
