"""Connected components by star contraction on an engine, beside scipy on arrays.

python benchmarks/contraction.py [--edges 10000000] [--path 100000] [--engine spark|local]

Two graphs: edges in components of random size (a random tree and a third more edges), and one path, its nodes in random
order. Both are written as parquet first; the time of the contraction includes reading them. Prints a JSON object a graph.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time

import numpy as np
import pyarrow as pa

from dedup.contracts import Table
from dedup.engines.local import LocalEngine
from dedup.numerics.graph.components import connected_components
from dedup.stages.components import contract
from dedup.storage.tables import write_table

EDGES = pa.schema([("src", pa.int64()), ("dst", pa.int64())])


def components(rng: np.random.Generator, n_edges: int) -> np.ndarray:
    """Edges (n, 2) of components with 2 to some thousand nodes, sizes as 1 / size squared."""
    sizes = np.minimum(2 + np.floor(1 / rng.random(n_edges) - 1).astype(np.int64) * 8, 5_000)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes) * 4 // 3, n_edges)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    n = int(starts[-1])
    start, place = np.repeat(starts[:-1], sizes), np.arange(n)
    size = np.repeat(sizes, sizes)
    inner = place > start
    tree = np.stack([place, start + (rng.random(n) * (place - start)).astype(np.int64)], axis=1)[inner]
    more = rng.integers(0, n, max(0, n_edges - len(tree)))
    extra = np.stack([more, start[more] + (rng.random(len(more)) * size[more]).astype(np.int64)], axis=1)
    shuffled = rng.permutation(n)  # node numbers must not reveal the components
    return shuffled[rng.permutation(np.concatenate([tree, extra]))]


def path(rng: np.random.Generator, n: int) -> np.ndarray:
    nodes = rng.permutation(n)
    return rng.permutation(np.stack([nodes[:-1], nodes[1:]], axis=1))


def measure(engine, name: str, edges: np.ndarray, folder: str) -> None:
    table = Table(f"{folder}/{name}", EDGES)
    for number, part in enumerate(np.array_split(edges, 64)):
        write_table(table, [pa.table({"src": part[:, 0], "dst": part[:, 1]}, schema=EDGES)], f"part-{number:03d}")
    n = int(edges.max()) + 1
    started = time.perf_counter()
    labels = connected_components(edges[:, 0], edges[:, 1], n)
    by_scipy = time.perf_counter() - started
    started = time.perf_counter()
    found = contract(engine, table)
    seconds = time.perf_counter() - started
    ours = np.arange(n)
    ours[found.links["u"].to_numpy()] = found.links["v"].to_numpy()
    result = {
        "graph": name,
        "edges": len(edges),
        "nodes": n,
        "components": len(np.unique(labels)),
        "rounds": found.n_rounds,
        "seconds": round(seconds, 1),
        "scipy_seconds": round(by_scipy, 2),
        "is_equal": bool((ours == labels).all()),
        "peak_mb_of_driver": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--path", type=int, default=100_000)
    parser.add_argument("--engine", choices=["spark", "local"], default="spark")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        if options.engine == "spark":
            from dedup.engines.spark.engine import SparkEngine

            settings = ["spark.driver.memory=3g", "spark.ui.enabled=false", f"spark.sql.shuffle.partitions={4 * options.cores}"]
            engine = SparkEngine(f"{folder}/scratch", master=f"local[{options.cores}]", options=settings)
        else:
            engine = LocalEngine(options.cores)
        measure(engine, "path", path(rng, options.path), folder)
        measure(engine, "components", components(rng, options.edges), folder)
        engine.close()


if __name__ == "__main__":
    main()
