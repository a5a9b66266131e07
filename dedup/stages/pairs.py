"""Stage `pairs`: all near-duplicate pairs in each inverted list, as sparse candidate edges and exact counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.contracts import GroupRows, JsonDict, Pack, Table
from dedup.numerics.collapse import Ownership
from dedup.numerics.lists import BLOCK
from dedup.numerics.packs import count_lists, pack_lists
from dedup.numerics.selfjoin import self_join
from dedup.numerics.torch_ops import choose_device
from dedup.stages.context import VARIANT_NAMES, StageContext, StageResult
from dedup.stages.earlier import EarlierEdges, earlier_look_edges, earlier_neighbors, earlier_weights, save_owned_edges
from dedup.stages.looks import find_look_edges
from dedup.stages.measuring import measure_recall
from dedup.stages.members import Members, save_members
from dedup.stages.querying import query_all
from dedup.storage.lists import load_lists
from dedup.storage.provenance import read_record
from dedup.storage.tables import FileWriter, clear, read_table, write_table
from dedup.storage.urls import join, read_json

OUTPUT_VERSION = 2
ALSO_SQL = """
SELECT also.src AS src, also.dst AS dst, also.similarity AS similarity, also.kind AS kind, also.variant AS variant,
       CASE WHEN also.source = 'look' THEN 'also_look' ELSE 'also' END AS source
FROM also LEFT JOIN candidates ON also.src = candidates.src AND also.dst = candidates.dst
WHERE candidates.src IS NULL
ORDER BY also.src, also.dst
"""


class _Vectors:
    """The vectors of a list, gathered only when they are indexed."""

    def __init__(self, rows: GroupRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        return self._rows.take("vector", places)


@dataclass(frozen=True)
class JoinedLists:
    """What became of a pack.

    Parameters
    ----------
    n_edges : int
        Written.
    rows, counts : int64 array, shape (n,)
        Positions of images with neighbours, and how many they have.
    n_left : int
        Strips of products that a GPU had no memory for.
    """

    n_edges: int
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    n_left: int


@dataclass(frozen=True)
class JoinLists:
    """Joins the lists of a pack and writes the edges."""

    best: int
    is_projected: bool
    device: str
    edges: Table
    earlier: EarlierEdges | None = None

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> JoinedLists:
        """Join each list and write the edges."""
        device = choose_device(self.device)
        counted, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        with FileWriter(join(self.edges.path, f"part-{pack.number:05d}.parquet"), self.edges.schema) as writer:
            for number, rows in groups:
                ids = rows.column("sample_id")
                earlier = None if self.earlier is None else self.earlier.of_list(number, rows.positions, rows.column("added"))
                joined = self_join(
                    _Vectors(rows),
                    rows.column("min_similarity"),
                    rows.column("weight"),
                    Ownership(rows.groups, number),
                    best=self.best,
                    projected=rows.column("projected") if self.is_projected else None,
                    share=(pack.share, pack.n_shares),
                    device=device,
                    earlier=earlier,
                )
                near = np.flatnonzero(joined.n_neighbors)
                counted.append(rows.positions[near])
                counts.append(joined.n_neighbors[near])
                if len(joined.src):
                    variant = pa.repeat("none", len(joined.src))
                    writer.write(edge_table(ids[joined.src], ids[joined.dst], joined.similarity, "near", variant))
        return JoinedLists(writer.n_rows, np.concatenate(counted), np.concatenate(counts), 0 if device is None else device.n_left)


def edge_table(
    src: npt.NDArray[np.int64],
    dst: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    kind: str,
    variant: pa.Array,
    source: str = "whole",
) -> pa.Table:
    """Rows of `candidates`."""
    n = len(src)
    return pa.table(
        {
            "src": src,
            "dst": dst,
            "similarity": similarity,
            "kind": pa.repeat(kind, n),
            "variant": variant,
            "source": pa.repeat(source, n),
        }
    )


def run(context: StageContext) -> StageResult:
    """Join every list, count neighbours, add the exact copies' edges, measure recall; likewise for the second source of candidates."""
    table = read_table(context.layout.table("representatives"))
    known = {name: table[name].to_numpy() for name in ("sample_id", "weight", "min_similarity")}
    n_neighbors = known["weight"] - 1
    if context.base is not None:
        # of the base's counts those of its pairs: what its images stood for then is theirs, what they stand for now was added above
        weights = earlier_weights(context, len(table))
        n_neighbors += earlier_neighbors(context, known["sample_id"]) - np.maximum(weights - 1, 0)
    figures = _join(context, known, n_neighbors, measures=True)
    n_exact = _write_exact_edges(context)
    n_also = 0 if context.also is None else _write_also_edges(context, context.also)
    n_rows = _write_neighbors(context, known["sample_id"], n_neighbors)
    summary = figures | {"n_exact_edges": n_exact} | ({"n_also_edges": n_also} if context.also else {})
    return StageResult({"candidates": figures["n_near_edges"] + figures["n_look_edges"] + n_exact + n_also, "neighbors": n_rows}, summary)


def _join(
    context: StageContext, known: dict[str, npt.NDArray[np.generic]], n_neighbors: npt.NDArray[np.int64], *, measures: bool
) -> JsonDict:
    """Write the near edges of a source, add to the neighbours of each image; returns figures.

    Where the run adds to another, lists that hold nothing new are left out, and the counts are those of pairs it has not counted.
    """
    layout, edges = context.layout, context.layout.table("candidates")
    clear(edges)
    n, index = len(known["sample_id"]), read_json(layout.path("index", "_index.json")) or {}
    is_projected = load_lists(layout.path("index")).n_filter > 0
    before = earlier_weights(context, n)
    n_earlier, added = int(np.count_nonzero(before)), known["weight"].astype(np.int64) - before
    if n_earlier:
        known = known | {"added": added}
    with context.engine.scratch() as scratch:
        save_members(scratch, known)
        members = Members(layout.run_dir, scratch, n, max(1, int(index.get("nprobe", 1))), is_projected, n_earlier)
        n_blocks = len(members.block_sizes)
        sizes, fresh, earlier, n_near = count_lists(members.groups(block) for block in range(n_blocks)), None, None, 0
        if n_earlier:
            fresh = np.zeros(len(sizes), dtype=np.int64)
            counted = count_lists(members.groups(k)[added[k * BLOCK : (k + 1) * BLOCK] > 0] for k in range(n_blocks))
            fresh[: len(counted)] = counted
            earlier, n_near = save_owned_edges(context, members, fresh > 0, edges)
        by_index = context.config.search.method == "ivfpq" and n > 0
        packs = pack_lists(sizes, context.engine.n_workers, fresh)
        for found in query_all(context, members, edges) if by_index else _join_lists(context, members, packs, earlier, edges):
            n_near += found.n_edges
            np.add.at(n_neighbors, found.rows, found.counts)
        n_look = _write_look_edges(context, known["sample_id"].astype(np.int64), scratch, n_earlier)
        recall = measure_recall(context, members, known, n_neighbors) if measures else {}
    return {"n_near_edges": n_near, "n_look_edges": n_look, "largest_list": int(sizes.max(initial=0))} | recall


def _join_lists(
    context: StageContext, members: Members, packs: Sequence[Pack], earlier: EarlierEdges | None, edges: Table
) -> Iterator[JoinedLists]:
    """Join lists; what was found, and written, in parts."""
    device, n_left = context.device(members.n), 0
    work = JoinLists(context.config.search.best_edges, members.is_projected, device, edges, earlier)
    for _, joined in context.run_groups("pairs", "lists", members, work, packs, uses_gpu=device != "cpu"):
        n_left += joined.n_left
        yield joined
    context.note_left("vectors", n_left)


def _write_also_edges(context: StageContext, also: StageContext) -> int:
    """Edges that the second source of candidates alone has found."""
    table = read_table(also.layout.table("representatives"))
    known = {name: table[name].to_numpy() for name in ("sample_id", "weight", "min_similarity")}
    _join(also, known, np.zeros(len(table), dtype=np.int64), measures=False)
    tables = {"candidates": context.layout.table("candidates"), "also": also.layout.table("candidates")}
    return context.engine.sql_to(ALSO_SQL, tables, context.layout.table("candidates"), "part-also")


def _write_look_edges(context: StageContext, ids: npt.NDArray[np.int64], scratch: str, n_earlier: int) -> int:
    """Edges of images that only second looks find alike."""
    found = find_look_edges(context, scratch, n_earlier, earlier_look_edges(context, ids))
    variant = pa.DictionaryArray.from_arrays(found.turn, list(VARIANT_NAMES)).cast(pa.string())
    rows = edge_table(ids[found.src], ids[found.dst], found.similarity, "near", variant, "look")
    return write_table(context.layout.table("candidates"), [rows], "part-look")


def exact_source(run_dir: str) -> str:
    """What makes samples exact copies, as `source` of their edges: equal image bytes, or no more than equal embeddings."""
    record = read_record(run_dir, "embeddings")
    return "embedding" if record is not None and record.summary.get("exact_by") == "embedding" else "whole"


def _write_exact_edges(context: StageContext) -> int:
    """Edges from each representative to its byte-identical copies."""
    exact = read_table(context.layout.table("exact"))
    n = len(exact)
    rows = edge_table(
        exact["representative_id"].to_numpy(),
        exact["sample_id"].to_numpy(),
        np.ones(n, dtype=np.float32),
        "exact",
        pa.repeat("none", n),
        exact_source(context.layout.run_dir),
    )
    return write_table(context.layout.table("candidates"), [rows], "part-exact")


def _write_neighbors(context: StageContext, ids: npt.NDArray[np.int64], n_neighbors: npt.NDArray[np.int64]) -> int:
    """A row for each sample with neighbours; byte-identical copies have their representative's count."""
    table = context.layout.table("neighbors")
    clear(table)
    have = np.flatnonzero(n_neighbors)
    counted = pa.table({"sample_id": ids[have], "n_neighbors": n_neighbors[have]})
    query = """
    SELECT sample_id, n_neighbors FROM counted
    UNION ALL
    SELECT exact.sample_id, counted.n_neighbors FROM exact JOIN counted ON exact.representative_id = counted.sample_id
    ORDER BY sample_id
    """
    tables = {"counted": counted, "exact": context.layout.table("exact")}
    return context.engine.sql_to(query, tables, table)
