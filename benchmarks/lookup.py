"""Time and recall of looking one vector up in the index of a run, over synthetic vectors.

python benchmarks/lookup.py --n 1000000 --dim 384
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext

import numpy as np
from machine import describe_machine
from memory import PeakMemory
from vectors import vectors_only, write_embeddings

import dedup
from dedup.config import IndexConfig, SearchConfig
from dedup.numerics.similarity import exact_similarity, unit_rows
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.runs.record import read_record
from dedup.storage.tables import read_table


def copies_of(rng: np.random.Generator, rows: np.ndarray, low: float, high: float) -> np.ndarray:
    """A vector at a cosine between `low` and `high` of each row."""
    noise = rng.standard_normal(rows.shape)
    noise -= np.einsum("ij,ij->i", noise, rows)[:, None] * rows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(low, high, len(rows))[:, None]
    return cosine * rows + np.sqrt(1 - cosine**2) * noise


def measure(args: argparse.Namespace, run_dir: str) -> dict[str, object]:
    """Build an index and look vectors up in it."""
    index_config = IndexConfig(codes="auto", factory=args.factory)
    config = vectors_only(run_dir, SearchConfig(min_similarity=args.min_similarity), index_config)
    record = read_record(run_dir, "index")
    with PeakMemory() as building:
        if record is None:
            write_embeddings(config, args.n, args.dim, share=args.share, low=args.low, high=args.high, n_crowd=0)
            record = pipeline.run(config, ["index"]).records["index"]
    rng = np.random.default_rng(1)
    with PeakMemory() as searching:
        started = time.perf_counter()
        index = dedup.open_index(run_dir, device="cpu", stages=("embed", "index"))
        opened = time.perf_counter() - started
        every = read_table(Run(run_dir).table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        ids = np.sort(rng.choice(every, args.queries, replace=False))
        rows = unit_rows(Run(str(run_dir)).read_vectors(ids)).astype(np.float64)
        queries = copies_of(rng, rows, args.low, args.high)
        for query in queries[:: max(1, len(queries) // 50)]:  # warm
            index.search_vectors(query[None], k=10)
        seconds, hits = [], 0
        to_original = exact_similarity(unit_rows(queries).astype(np.float16), Run(str(run_dir)).read_vectors(ids))
        for query, original in zip(queries, to_original, strict=True):
            started = time.perf_counter()
            _, similarity = index.search_vectors(query[None], k=10)
            seconds.append(time.perf_counter() - started)
            hits += bool(similarity[0, 0] >= original)  # the original, or a planted copy that is nearer
    p50, p99 = (round(1e3 * float(np.quantile(seconds, q)), 2) for q in (0.5, 0.99))
    return {
        "n": index.n_images, "dim": args.dim, "codes": record.summary["codes"], "nlist": index.index.nlist, "nprobe": index.index.nprobe,
        "index_seconds": record.seconds, "open_seconds": round(opened, 2), "p50_ms": p50, "p99_ms": p99,
        "recall_at_1": round(hits / len(queries), 4), "queries": len(queries),
        "building_anonymous_gb": round(building.peak / 1e9, 2), "searching_anonymous_gb": round(searching.peak / 1e9, 2),
        "machine": describe_machine(),
    }  # fmt: skip


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--share", type=float, default=0.05, help="share of the vectors that have a planted copy")
    parser.add_argument("--low", type=float, default=0.9, help="least cosine of planted copies and of queries")
    parser.add_argument("--high", type=float, default=0.99)
    parser.add_argument("--min-similarity", type=float, default=0.9)
    parser.add_argument("--factory", default="", help="index.factory")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--run", default="", help="a run made by benchmarks/pairs.py --keep, instead of a new one")
    parser.add_argument("--scratch", default=None, help="folder for the run directory")
    args = parser.parse_args()
    with nullcontext(args.run) if args.run else tempfile.TemporaryDirectory(prefix="dedup-lookup-", dir=args.scratch) as run_dir:
        print(json.dumps(measure(args, run_dir)))


if __name__ == "__main__":
    main()
