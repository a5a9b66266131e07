"""Share of planted pairs that meet in a list, at sizes where joining the lists would take long.

Lists are trained as a run over N vectors trains them, but only the planted pairs are assigned: what `pairs` finds of them, as
`benchmarks/pairs.py` shows where both were run.

python benchmarks/lists.py --n 10000000 --dim 384 --low 0.905 --high 0.99 --nprobe 8 12
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from machine import describe_machine
from vectors import near_copies, power_law_rows

from dedup.config import IndexConfig
from dedup.numerics.search.lists import Training, choose_nlist, choose_nprobe, train_lists
from dedup.numerics.similarity import unit_rows


def measure(args: argparse.Namespace, nprobe: int) -> dict[str, object]:
    """Train lists for N vectors; assign pairs."""
    nprobe = nprobe or choose_nprobe(args.min_similarity, args.n)
    nlist = choose_nlist(args.n, nprobe)
    index, rng = IndexConfig(), np.random.default_rng(0)
    # some vectors of a run are near copies, which hardly affects training
    sample = unit_rows(power_law_rows(rng, index.train_vectors_per_list * nlist, args.dim).astype(np.float16))
    started = time.perf_counter()
    lists = train_lists(sample, Training(nlist, nprobe, index.train_iterations, index.seed), args.min_similarity)
    seconds = time.perf_counter() - started
    rows = power_law_rows(rng, args.pairs, args.dim)
    cosine = rng.uniform(args.low, args.high, args.pairs).astype(np.float32)
    both = [rows, near_copies(rng, rows, cosine)]
    placed = [lists.place(unit_rows(part.astype(np.float16)), nprobe)[0] for part in both]
    meets = (placed[0][:, :, None] == placed[1][:, None, :]).any(axis=(1, 2))
    bands = np.linspace(args.low, args.high, 6)
    shares = [round(float(meets[(cosine >= low) & (cosine <= high)].mean()), 4) for low, high in zip(bands[:-1], bands[1:], strict=True)]
    return {
        "n": args.n, "dim": args.dim, "nlist": nlist, "nprobe": nprobe, "planted": [args.low, args.high], "pairs": args.pairs,
        "share_met": round(float(meets.mean()), 4), "share_met_by_fifth": shares, "training_seconds": round(seconds, 1),
        "machine": describe_machine(),
    }  # fmt: skip


def main() -> None:
    """Print one JSON object for each number of lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--low", type=float, default=0.905)
    parser.add_argument("--high", type=float, default=0.99)
    parser.add_argument("--min-similarity", type=float, default=0.9)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--nprobe", type=int, nargs="*", default=[0], help="lists each; 0 = the default for N")
    args = parser.parse_args()
    for nprobe in args.nprobe:
        print(json.dumps(measure(args, nprobe)))


if __name__ == "__main__":
    main()
