"""Assignment to lists and in-list join on a GPU, against the limit that matrix products set.

    python benchmarks/gpu_pairs.py

On any machine with a CUDA device and numpy, scipy, networkx and torch; no FAISS, no Spark. Prints a table and writes
`gpu_pairs.json`. Vectors are in a file, and worker processes that share the GPU gather them from it, as in the local
engine. The limit is the time that the multiply-adds alone take at the rate of a large square product on the same device, measured
first: float32 to score lists (128 coordinates), float16 to compare whole vectors, each pair of a list once. The lists of a block
of vectors and the edges and counts of some lists are compared with what the CPU finds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from gpu_vectors import QUANTIZER_DIM, train, write_vectors

from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.gpu import Device, HalfProducts, float32_sums
from dedup.numerics.search.list_join import Joined, self_join
from dedup.numerics.search.lists import BLOCK, Lists
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.similarity import unit_rows

PUBLIC = 2_000.0  # vectors/s and GPU: BAAI Dataset-Pruning, LAION-2B on 8 A100, k-means and pairs
PUBLIC_N = 2_053_332_591
GOAL = 0.5  # of the limit
CHECKED = 8  # lists that are joined on the CPU as well
BYTES_BESIDE = 600  # of a vector: projection, lists, and their order
PACKS_PER_WORKER = 24
NO_GPU = 3  # exit status


@dataclass
class Seconds:
    """What a worker spent its time on."""

    gather: float = 0.0
    device: float = 0.0
    n_edges: int = 0
    found: list[npt.NDArray[np.int64]] = field(default_factory=list)


class Gathered:
    """Rows of a list, gathered from the file on access."""

    def __init__(self, vectors: npt.NDArray[np.float16], positions: npt.NDArray[np.int64], seconds: Seconds) -> None:
        self.vectors, self.positions, self.seconds = vectors, positions, seconds

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        started = time.perf_counter()
        found = self.vectors[self.positions[rows]]
        self.seconds.gather += time.perf_counter() - started
        return found


@lru_cache(maxsize=16)
def mapped(folder: str, name: str, mode: str = "r") -> npt.NDArray:
    return np.load(os.path.join(folder, f"{name}.npy"), mmap_mode=mode)


@lru_cache(maxsize=1)
def lists_of(folder: str) -> Lists:
    return Lists(
        *(np.load(os.path.join(folder, f"{name}.npy")) for name in ("axes", "centroids", "offsets")), int(mapped(folder, "n_filter"))
    )


def assign(folder: str, start: int, nprobe: int, name: str | None) -> npt.NDArray[np.int32]:
    """Assign one block of vectors to lists, and write these to the shared file."""
    part = slice(start, start + BLOCK)
    chosen, projected = lists_of(folder).place(unit_rows(mapped(folder, "vectors")[part]), nprobe, device=name and Device(name))
    if projected is not None:
        mapped(folder, "projected", "r+")[part] = projected
    mapped(folder, "lists", "r+")[part] = chosen
    return chosen


def join(folder: str, number: int, threshold: float, name: str | None, seconds: Seconds) -> tuple[Joined, npt.NDArray[np.int64]]:
    """Join one list; also returns the positions of its members."""
    offsets = mapped(folder, "bounds")
    members = np.array(mapped(folder, "places")[offsets[number] : offsets[number + 1]], dtype=np.int64)
    ones, n_filter = np.ones(len(members), np.int64), lists_of(folder).n_filter
    joined = self_join(
        Gathered(mapped(folder, "vectors"), members, seconds),
        np.full(len(members), threshold, np.float32),
        ones,
        Ownership(mapped(folder, "lists")[members], number),
        JoinSettings(device=Device(name) if name else None),
        projected=mapped(folder, "projected")[members] if n_filter else None,
    )
    return joined, members


def join_pack(folder: str, numbers: npt.NDArray[np.int64], threshold: float, name: str) -> Seconds:
    """Join the lists of a pack."""
    seconds, compute = Seconds(), HalfProducts.compute

    def timed(self, pieces):
        # ends when the device has reported which blocks hold pairs
        started, gathered = time.perf_counter(), seconds.gather
        try:
            return compute(self, pieces)
        finally:
            seconds.device += time.perf_counter() - started - (seconds.gather - gathered)

    HalfProducts.compute = timed
    try:
        for number in numbers.tolist():
            joined, members = join(folder, number, threshold, name, seconds)
            seconds.n_edges += len(joined.src)
            seconds.found.append(np.stack([members[joined.src], members[joined.dst]], axis=1))
    finally:
        HalfProducts.compute = compute
    return seconds


def start_worker(name: str) -> None:
    torch.set_num_threads(1)
    torch.ones((8, 8), device=name) @ torch.ones((8, 8), device=name)  # CUDA starts now, not during the measurement


def rate(name: str, dtype: torch.dtype, side: int) -> float:
    """Multiply-adds a second of a square product: the best of five."""
    rows = torch.nn.functional.normalize(torch.randn((side, side), device=name), dim=1).to(dtype)

    def product() -> float:
        started = time.perf_counter()
        float((rows @ rows.T)[0, 0])
        return time.perf_counter() - started

    with float32_sums():
        return side**3 / min(product() for _ in range(6))


def fitting(scratch: str, dim: int) -> int:
    """Vectors that fit this machine's free memory and the scratch folder's disk, in whole millions if there is one."""
    with open("/proc/meminfo") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    n = int(0.7 * min(free, shutil.disk_usage(scratch).free) / (2 * dim + BYTES_BESIDE))
    return n // 10**6 * 10**6 or n


def measure(options: argparse.Namespace, n: int, rates: tuple[float, float], folder: str) -> dict[str, object]:
    """Train, assign, join and check n vectors; figures as a dictionary."""
    name, device, threshold = options.device, Device(options.device), options.min_similarity
    pairs = write_vectors(os.path.join(folder, "vectors.npy"), n, options.dim, threshold + 0.001, 0.999, name)
    nprobe = options.nprobe
    # as in `choose_nlist`, which cannot be imported without FAISS
    nlist = options.nlist or max(nprobe + 1, min(round(np.sqrt(nprobe * n)), n // 4))
    clock, n_packs = Clock(), min(nlist, PACKS_PER_WORKER * options.workers)
    lists = clock("train", lambda: train(mapped(folder, "vectors"), nlist, nprobe, threshold, device))
    arrays = {"axes": lists.axes, "centroids": lists.centroids, "offsets": lists.offsets, "n_filter": np.int64(lists.n_filter)}
    for key, array in arrays.items():
        np.save(os.path.join(folder, f"{key}.npy"), array)
    for key, width, dtype in (("lists", nprobe, np.int32), ("projected", lists.n_filter + 1, np.float16)):
        np.lib.format.open_memmap(os.path.join(folder, f"{key}.npy"), mode="w+", dtype=dtype, shape=(n, width))
    with ProcessPoolExecutor(
        options.workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker, initargs=(name,)
    ) as pool:
        list(pool.map(abs, range(4 * options.workers)))

        def assign_all() -> None:
            list(pool.map(assign, *zip(*((folder, start, nprobe, name) for start in range(0, n, BLOCK)), strict=True)))

        def sort_all() -> npt.NDArray[np.int64]:
            flat = mapped(folder, "lists").ravel()
            sizes = np.bincount(flat, minlength=nlist)
            np.save(os.path.join(folder, "places.npy"), (np.argsort(flat, kind="stable") // nprobe).astype(np.int32))
            np.save(os.path.join(folder, "bounds.npy"), np.concatenate([[0], np.cumsum(sizes)]))
            return sizes

        clock("assign", assign_all)
        sizes = clock("sort", sort_all)
        order = np.argsort(-sizes, kind="stable")
        packs = [(folder, order[k::n_packs], threshold, name) for k in range(n_packs)]
        parts = clock("join", lambda: list(pool.map(join_pack, *zip(*packs, strict=True))))
    check(folder, nprobe, threshold, name, sizes)
    keys = np.unique(np.concatenate([found[:, 0] * n + found[:, 1] for part in parts for found in part.found]))
    seconds = clock.seconds["assign"] + clock.seconds["sort"] + clock.seconds["join"]
    scored, compared = n * nlist * QUANTIZER_DIM, float((sizes.astype(np.float64) * (sizes - 1)).sum() / 2 * options.dim)
    limit = scored / rates[0] + compared / rates[1]
    # the same steps at the public run's size: its lists would be longer
    public_nlist = np.sqrt(nprobe * PUBLIC_N)
    public_limit = public_nlist * QUANTIZER_DIM / rates[0] + nprobe**2 * PUBLIC_N / public_nlist / 2 * options.dim / rates[1]
    return {
        "n": n, "nlist": nlist, "nprobe": nprobe, "largest_list": int(sizes.max()), "workers": options.workers,
        "seconds": {key: round(value, 3) for key, value in clock.seconds.items()},
        "worker_seconds_of_join": {key: round(sum(getattr(part, key) for part in parts), 3) for key in ("gather", "device")},
        "vectors_per_s": n / seconds, "limit_s": limit, "share_of_limit": limit / seconds,
        "join_share_of_limit": compared / rates[1] / clock.seconds["join"],
        "vectors_per_s_at_2e9_computed": limit / seconds / public_limit,
        "n_edges": sum(part.n_edges for part in parts), "planted_found": float(np.isin(pairs[:, 0] * n + pairs[:, 1], keys).mean()),
    }  # fmt: skip


class Clock:
    """Wall seconds of steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str, work: Callable):
        started = time.perf_counter()
        result = work()
        self.seconds[step] = time.perf_counter() - started
        return result


def check(folder: str, nprobe: int, threshold: float, name: str, sizes: npt.NDArray[np.int64]) -> None:
    """Compare some lists' edges and counts with those of the CPU, and a block's lists with those of float64."""
    for number in np.argsort(-sizes, kind="stable")[:: max(1, len(sizes) // CHECKED)][:CHECKED].tolist():
        here, there = (join(folder, number, threshold, where, Seconds())[0] for where in (None, name))
        for key in ("src", "dst", "similarity", "n_neighbors"):
            assert np.array_equal(getattr(here, key), getattr(there, key)), f"list {number}: {key} differs from the CPU's"
    lists, rows = lists_of(folder), unit_rows(mapped(folder, "vectors")[:2_048])
    along = (rows @ lists.axes)[:, :QUANTIZER_DIM].astype(np.float64)
    best = np.argsort(-(along @ lists.centroids.T.astype(np.float64) - lists.offsets), axis=1, kind="stable")[:, :nprobe]
    chosen, _ = lists.place(rows, nprobe, device=Device(name))
    assert np.array_equal(chosen, best), "lists differ from those of float64"


def print_table(rows: list[dict]) -> None:
    print(
        "| vectors | lists, each | train | assign | sort | join | vectors/s | at 2e9, computed | share of the limit | join alone | planted found |"
    )
    print("| --- |" + " --- |" * 10)
    for row in rows:
        steps = " | ".join(f"{row['seconds'][key]:.1f} s" for key in ("train", "assign", "sort", "join"))
        print(
            f"| {row['n']:,} | {row['nlist']:,}, {row['nprobe']} | {steps} | {row['vectors_per_s']:,.0f} | {row['vectors_per_s_at_2e9_computed']:,.0f} | "
            f"{row['share_of_limit']:.1%} | {row['join_share_of_limit']:.1%} | {row['planted_found']:.5f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", nargs="+", default=["1000000", "10000000", "fit"], help="vectors; fit = as many as fit on this machine")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--min-similarity", type=float, default=0.96)
    parser.add_argument("--nprobe", type=int, default=8)
    parser.add_argument("--nlist", type=int, default=0, help="0 = sqrt(nprobe * n)")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder for the vectors: 1 KB each at 512 dimensions")
    parser.add_argument("--out", default="gpu_pairs.json")
    options = parser.parse_args()
    # as in the engines: the number of threads must not change how sums are split
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    is_cuda = options.device.startswith("cuda")
    if is_cuda and not torch.cuda.is_available():
        parser.exit(
            NO_GPU,
            f"gpu_pairs.py: --device {options.device}: torch {torch.__version__} sees no CUDA device here; give --device cpu to see it run\n",
        )
    side = 8_192 if is_cuda else 512
    rates = rate(options.device, torch.float32, side), rate(options.device, torch.float16, side)
    result = {
        "device": torch.cuda.get_device_name(options.device) if is_cuda else "cpu",
        "torch": torch.__version__, "dim": options.dim, "min_similarity": options.min_similarity,
        "multiply_adds_per_s": {"float32": rates[0], "float16": rates[1]}, "public_vectors_per_s": PUBLIC, "goal": GOAL, "runs": [],
    }  # fmt: skip
    for wanted in options.n:
        n = fitting(options.scratch, options.dim) if wanted == "fit" else int(wanted)
        with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=options.scratch) as folder:
            result["runs"].append(measure(options, n, rates, folder))
        # keep what was measured, since a larger run may fail
        with open(options.out, "w") as file:
            json.dump(result, file, indent=2)
    print(f"{result['device']}, torch {result['torch']}: float16 {2e-12 * rates[1]:,.3g} TFLOP/s, float32 {2e-12 * rates[0]:,.3g} TFLOP/s")
    print_table(result["runs"])
    print(f"public: {PUBLIC:,.0f} vectors/s and GPU at {PUBLIC_N:,} vectors; goal: {GOAL:.0%} of the limit; more in {options.out}")


if __name__ == "__main__":
    main()
