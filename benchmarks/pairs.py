"""Time, memory and recall of `index` (training and assignment), `pairs` and `groups` on synthetic vectors.

python benchmarks/pairs.py --n 1000000 --dim 512 --low 0.96 --high 1.0 --min-similarity 0.96
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
from vectors import Planted, vectors_only, write_embeddings

from dedup.config import IndexConfig, SearchConfig
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.storage.tables import read_table


def planted_recall(run_dir: str, planted: Planted) -> float:
    """Share of the planted pairs that end in one component."""
    groups = read_table(Run(run_dir).table("groups"), ["sample_id", "raw_component_id"])
    ids, raw = groups["sample_id"].to_numpy(), groups["raw_component_id"].to_numpy()

    def label(wanted: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[place] == wanted, raw[place], wanted)

    return float((label(planted.original) == label(planted.copy)).mean()) if len(planted.copy) else 1.0


def measure(args: argparse.Namespace) -> dict[str, object]:
    """One run; figures as a dictionary."""
    with nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=args.scratch) as run_dir:
        search = SearchConfig(
            min_similarity=args.min_similarity,
            method=args.method,
            nprobe=args.nprobe,
            nlist=args.nlist,
            recall_queries=args.queries,
        )
        config = vectors_only(run_dir, search, IndexConfig(codes=args.codes))
        planted = write_embeddings(config, args.n, args.dim, share=args.share, low=args.low, high=args.high, n_crowd=args.crowd)
        started = time.perf_counter()
        with PeakMemory() as memory:
            summary = pipeline.run(config, ["index", "pairs", "confirm", "groups"])
        seconds = time.perf_counter() - started
        figures = summary.records["pairs"].summary
        return {
            "n": args.n, "dim": args.dim, "method": args.method, "codes": summary.figure("index", "codes"), "min_similarity": args.min_similarity, "planted": [args.low, args.high], "crowd": args.crowd,
            "nlist": summary.figure("index", "nlist"), "nprobe": summary.figure("index", "nprobe"),
            "seconds": round(seconds, 1), "stages": {name: record.seconds for name, record in summary.records.items()},
            "planted_recall": planted_recall(run_dir, planted), "pair_recall": figures["recall"], "pairs_sampled": figures["recall_pairs"],
            "queries": figures["recall_queries"], "n_near_edges": figures["n_near_edges"], "largest_list": figures["largest_list"],
            "peak_anonymous_gb": round(memory.peak / 1e9, 2), "peak_anonymous_over_vectors": round(memory.peak / (args.n * args.dim * 2), 2),
            "machine": describe_machine(),
        }  # fmt: skip


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--share", type=float, default=0.05, help="share of the vectors that have a planted copy")
    parser.add_argument("--low", type=float, default=0.961)
    parser.add_argument("--high", type=float, default=0.999)
    parser.add_argument("--crowd", type=int, default=0, help="vectors that are near copies of one")
    parser.add_argument("--min-similarity", type=float, default=0.96)
    parser.add_argument("--nprobe", type=int, default=0)
    parser.add_argument("--nlist", type=int, default=0)
    parser.add_argument("--queries", type=int, default=-1)
    parser.add_argument("--method", default="lists", help="lists, or ivfpq, which needs --codes")
    parser.add_argument("--codes", default="none", help="of the index that is kept: none, pq, fp16")
    parser.add_argument("--keep", default="", help="folder for a run directory to keep, as for benchmarks/lookup.py")
    parser.add_argument("--scratch", default=None, help="folder for the run directory")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
