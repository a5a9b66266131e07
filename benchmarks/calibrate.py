"""Time of `dedup calibrate`, and what it advises, on demo shards or your own run.

    python benchmarks/calibrate.py --n 6000 --n-images 2000
    python benchmarks/calibrate.py --run out

Demo shards have no groups of look-alikes: their advice says little, their time much.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from dataclasses import astuple

from machine import describe_machine, processor_seconds

import dedup
from dedup.calibration.draw import Effort
from dedup.demo.shards import make_demo_data
from dedup.engines.local import LocalEngine


def make_run(folder: str, n: int, workers: int) -> str:
    """A finished run over demo shards."""
    make_demo_data(f"{folder}/shards", n_images=n, workers=workers)
    keys = [f"input.shards={folder}/shards/*.tar", f"output.run_dir={folder}/run", f"engine.workers={workers}"]
    dedup.run(dedup.load_config(None, keys))
    return f"{folder}/run"


def measure(run_dir: str, out: str, args: argparse.Namespace) -> dict[str, object]:
    """Calibrate once."""
    before, started = processor_seconds(), time.perf_counter()
    engine = LocalEngine(args.workers)
    try:
        effort = Effort(*(max(20, round(args.effort * limit)) for limit in astuple(Effort())))
        wanted = {"n_images": args.n_images, "changes": args.changes, "precision": args.precision}
        found = dedup.calibrate(run_dir, out, **wanted, engine=engine, effort=effort)
    finally:
        engine.close()
    seconds, figures = time.perf_counter() - started, found.figures
    row = next(row for row in found.table.to_pylist() if row["threshold"] == figures["run"]["min_similarity"])
    return {
        "n_images": figures["run"]["n_images"], "n_drawn": figures["sample"]["n_images"], "n_copies": len(found.copies),
        "n_pairs": figures["sample"]["n_rows"] * figures["sample"]["n_others"], "seconds": round(seconds, 1),
        "processor_seconds": round(processor_seconds() - before, 1), "workers": args.workers,
        "recall": round(row["recall"], 4), "recall_looks": round(row["recall_looks"], 4),
        "expected_false": row["expected_false"], "advice": found.advice.lines, "by_similarity_alone": found.otherwise and found.otherwise.lines,
        "machine": describe_machine(),
    }  # fmt: skip


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=6_000, help="demo samples")
    parser.add_argument("--run", default="", help="a finished run instead of demo shards")
    parser.add_argument("--n-images", type=int, default=2_000)
    parser.add_argument("--changes", default="default")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the copies and pairs that are judged by default")
    parser.add_argument("--precision", type=float, default=0.99)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", default=None, help="folder for shards and run")
    args = parser.parse_args()
    with nullcontext() if args.run else tempfile.TemporaryDirectory(prefix="dedup-calibrate-", dir=args.scratch) as folder:
        run_dir = args.run or make_run(str(folder), args.n, args.workers)
        with tempfile.TemporaryDirectory(prefix="dedup-calibration-", dir=args.scratch) as out:
            print(json.dumps(measure(run_dir, out, args)))


if __name__ == "__main__":
    main()
