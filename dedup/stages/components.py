"""Connected components of a table of edges: found by the driver where they are few, else on the engine.

There by alternating large-star and small-star contraction:
R. Kiveris, S. Lattanzi, V. Mirrokni, V. Rastogi and S. Vassilvitskii, "Connected components in MapReduce and beyond",
SoCC 2014. A round links every node's larger neighbours, then its smaller ones, to the smallest of them; in the end each
component is a star about its smallest node. The rounds are queries in the SQL that all engines share, and each writes its
edges to files: no plan grows from round to round, and a lost worker costs no more than its part of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dedup.contracts import Engine, Table
from dedup.errors import StageError
from dedup.numerics.arraytypes import Ids
from dedup.numerics.graph.components import connected_components
from dedup.storage.tables import FileWriter, clear, dataset, files, read_table
from dedup.storage.urls import filesystem, join

_MOST_ROUNDS = 100  # a path of 10^9 nodes takes some 40
_FILES_PER_TASK = 4
_BATCH_ROWS = 1_000_000
LINKS = pa.schema([pa.field("u", pa.int64(), nullable=False), pa.field("v", pa.int64(), nullable=False)])  # u > v
_BOTH = "(SELECT u, v FROM links UNION ALL SELECT v AS u, u AS v FROM links)"

LARGE_STAR_SQL = f"""
SELECT DISTINCT ends.v AS u, CASE WHEN lowest.m < ends.u THEN lowest.m ELSE ends.u END AS v
FROM {_BOTH} AS ends
JOIN (SELECT u, min(v) AS m FROM {_BOTH} AS every_end GROUP BY u) AS lowest ON ends.u = lowest.u
WHERE ends.v > ends.u
"""  # noqa: S608 (names of our own columns only)

SMALL_STAR_SQL = """
SELECT DISTINCT u, v FROM (
    SELECT links.v AS u, lowest.m AS v
    FROM links JOIN (SELECT u, min(v) AS m FROM links GROUP BY u) AS lowest ON links.u = lowest.u
    WHERE links.v <> lowest.m
    UNION ALL
    SELECT u, min(v) AS v FROM links GROUP BY u
) AS linked
"""

# in stars each leaf has one link, and no leaf is a centre
OPEN_SQL = """
SELECT CAST((SELECT count(*) FROM (SELECT u FROM links GROUP BY u HAVING count(*) > 1) AS several) AS BIGINT) AS n_several,
       CAST((SELECT count(*) FROM (SELECT DISTINCT v FROM links) AS centres JOIN (SELECT DISTINCT u FROM links) AS leaves
             ON centres.v = leaves.u) AS BIGINT) AS n_both
"""

_OPEN = pa.schema([("n_several", pa.int64()), ("n_both", pa.int64())])


@dataclass(frozen=True)
class Contraction:
    """Components as stars."""

    links: pa.Table  # ``u, v``: every node but the smallest of its component, and that smallest one
    n_rounds: int


@dataclass(frozen=True)
class ForestTask:
    """Some files of edges, and where their stars go."""

    edges: Table
    names: tuple[str, ...]
    condition: pc.Expression | None
    output: str


@dataclass(frozen=True)
class Components:
    """The nodes that edges touch, and the smallest node of each one's component."""

    nodes: Ids  # shape (n,); ascending
    component: Ids  # shape (n,)
    n_rounds: int | None = None  # of the contraction; None where the driver found them


def components_of(
    engine: Engine,
    edges: Table,
    condition: pc.Expression,
    *,
    max_driver_edges: int,
    stage: str,
    note: Callable[[str], None] = lambda text: None,
) -> Components:
    """Find the components of a table of edges.

    `edges`, `condition`: as for `contract`.
    `max_driver_edges`: `groups.max_driver_edges`: more are contracted on the engine.
    `stage`: that asks, for the notes.
    """
    if dataset(edges).count_rows(filter=condition) > max_driver_edges:
        stars = contract(engine, edges, condition, note=lambda text: note(f"{stage}: {text}"))
        leaves, centres = (stars.links[end].to_numpy() for end in ("u", "v"))
        middles = np.unique(centres)
        nodes, component = np.concatenate([leaves, middles]), np.concatenate([centres, middles])
        order = np.argsort(nodes, kind="stable")
        return Components(nodes[order], component[order], stars.n_rounds)
    ends = dataset(edges).to_table(columns=["src", "dst"], filter=condition)
    src, dst = ends["src"].to_numpy(), ends["dst"].to_numpy()
    nodes, places = np.unique(np.concatenate([src, dst]), return_inverse=True)
    return Components(nodes, nodes[connected_components(places[: len(src)], places[len(src) :], len(nodes))])


def write_forest(task: ForestTask) -> int:
    """Contract the edges of some files among themselves; returns the number of links, one less than nodes in each tree."""
    fs, _ = filesystem(task.edges.path)
    source = ds.dataset(list(task.names), schema=task.edges.schema, format="parquet", filesystem=fs)
    u, v = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for batch in source.to_batches(columns=["src", "dst"], filter=task.condition, batch_size=_BATCH_ROWS):
        src, dst = np.concatenate([u, batch["src"].to_numpy()]), np.concatenate([v, batch["dst"].to_numpy()])
        nodes, ends = np.unique(np.concatenate([src, dst]), return_inverse=True)
        labels = connected_components(ends[: len(src)], ends[len(src) :], len(nodes))
        is_leaf = labels != np.arange(len(nodes))
        u, v = nodes[is_leaf], nodes[labels[is_leaf]]
    with FileWriter(task.output, LINKS) as writer:
        writer.write(pa.table({"u": u, "v": v}, schema=LINKS))
    return len(u)


def contract(
    engine: Engine, edges: Table, condition: pc.Expression | None = None, *, note: Callable[[str], None] = lambda text: None
) -> Contraction:
    """Find the components of a table of edges.

    `edges`: with the columns `src` and `dst`: undirected, in any order, any number of times.
    `condition`: which of its rows are edges.
    `note`: receives a line about each round.
    Raises StageError if it does not end, which would be a bug.
    """
    names = files(edges)
    with engine.scratch() as scratch:
        current = Table(join(scratch, "round-000"), LINKS)
        tasks = [
            ForestTask(edges, tuple(names[k : k + _FILES_PER_TASK]), condition, join(current.path, f"part-{number:05d}.parquet"))
            for number, k in enumerate(range(0, len(names), _FILES_PER_TASK))
        ]
        n_links = sum(n for _, n in engine.map_partitions(write_forest, tasks))
        n_rounds = 0
        while n_links and (len(tasks) > 1 or n_rounds) and _is_open(engine, current):
            n_rounds += 1
            if n_rounds > _MOST_ROUNDS:
                raise StageError(f"components: {_MOST_ROUNDS} rounds did not contract {n_links:,} links to stars; please report this")
            for query, name in ((LARGE_STAR_SQL, "large"), (SMALL_STAR_SQL, "round")):
                following = Table(join(scratch, f"{name}-{n_rounds:03d}"), LINKS)
                n_links = engine.sql_to(query, {"links": current}, following)
                clear(current)
                current = following
            note(f"round {n_rounds} of the contraction left {n_links:,} links")
        return Contraction(read_table(current), n_rounds)


def _is_open(engine: Engine, links: Table) -> bool:
    counts = next(iter(engine.sql(OPEN_SQL, {"links": links}, _OPEN))).to_pylist()[0]
    return bool(counts["n_several"] or counts["n_both"])
