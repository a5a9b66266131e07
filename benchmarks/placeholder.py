"""Time and memory of all stages after `embed` when a placeholder image makes up half of the data, at several sizes.

Of n vectors, half are one image, byte for byte, and a twentieth are near-copies of it; the rest are unrelated, 5% of them planted pairs.
Each size runs in a process of its own, beside a run of as many vectors without a placeholder.

python benchmarks/placeholder.py --n 500000 1000000 2000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

from machine import describe_machine
from memory import PeakMemory
from pairs import planted_recall
from vectors import vectors_only, write_embeddings

from dedup.config import IndexConfig, SearchConfig
from dedup.config.key import STAGE_NAMES
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.storage.urls import read_json


def measure(n: int, dim: int, min_similarity: float, has_placeholder: bool, scratch: str | None) -> dict[str, object]:
    """One run; figures as a dictionary."""
    with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=scratch) as run_dir:
        config = vectors_only(run_dir, SearchConfig(min_similarity=min_similarity), IndexConfig(codes="none"))
        n_equal, n_crowd = (n // 2, n // 20) if has_placeholder else (0, 0)
        planted = write_embeddings(config, n, dim, share=0.05, low=min_similarity + 0.005, high=0.999, n_crowd=n_crowd, n_equal=n_equal)
        started = time.perf_counter()
        with PeakMemory() as memory:
            summary = pipeline.run(config, STAGE_NAMES[1:])
        seconds = time.perf_counter() - started
        counted = read_json(Run(run_dir).path("_summary.json")) or {}
        return {
            "n": n, "dim": dim, "min_similarity": min_similarity, "equal": n_equal, "near": n_crowd, "seconds": round(seconds, 1),
            "microseconds_per_vector": round(1e6 * seconds / n, 1), "stages": {name: record.seconds for name, record in summary.records.items()},
            "peak_anonymous_gb": round(memory.peak / 1e9, 2), "bytes_per_vector": round(memory.peak / n),
            "edges": summary.records["pairs"].rows, "rows": summary.records["manifest"].rows, "planted_recall": planted_recall(run_dir, planted),
            "largest": counted.get("largest"), "machine": describe_machine(),
        }  # fmt: skip


def main() -> None:
    """Print a JSON object for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[500_000, 1_000_000, 2_000_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--min-similarity", type=float, default=0.9)
    parser.add_argument("--scratch", default=None, help="folder for the run directories")
    parser.add_argument("--one", choices=["with", "without"], default="", help="one run in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.n[0], args.dim, args.min_similarity, args.one == "with", args.scratch)), flush=True)
        return
    options = ["--dim", str(args.dim), "--min-similarity", str(args.min_similarity), *(["--scratch", args.scratch] if args.scratch else [])]
    for n in args.n:
        for one in ("without", "with"):
            subprocess.run([sys.executable, __file__, "--n", str(n), "--one", one, *options], check=True)


if __name__ == "__main__":
    main()
