"""Scoring the generations of one prompt, and the adaptive distance at CIFAR-10's size: time and memory.

    python benchmarks/extraction.py --json extraction.json

Generations are noise with a planted clique, decoded already; training and generated images of the second part are noise of
32 pixels with some copies. Prints a table and, on request, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from machine import describe_machine

from dedup.numerics.graph.cliques import largest_clique
from dedup.numerics.pixels import adaptive_distances, pairwise_tiled_distances, tiled_distances
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.shared import Limits, find_shared


def score_one(n: int, side: int, device_name: str) -> tuple[dict[str, float], int]:
    """Seconds of each step for n generations of one prompt, a tenth of them one picture; and the clique found."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    picture = images[0].astype(np.int16)
    for place in range(n // 10):
        images[place] = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255)
    device, seconds = choose_device(device_name), {}
    started = time.perf_counter()
    distances = pairwise_tiled_distances(images, device=device)
    seconds["all pairs"] = time.perf_counter() - started
    started = time.perf_counter()
    clique = largest_clique(distances <= 0.1)
    seconds["clique"] = time.perf_counter() - started
    started = time.perf_counter()
    tiled_distances(images[clique.members], images[0])
    seconds["training image"] = time.perf_counter() - started
    # another corner, as a template has it: the area that is left has to be found
    images[: n // 10, : side // 2, : side // 2] = rng.integers(0, 256, (n // 10, side // 2, side // 2, 3), dtype=np.uint8)
    started = time.perf_counter()
    shared = find_shared(images, images[0], Limits())
    seconds["shared area"] = time.perf_counter() - started
    assert shared is None or len(shared.members) <= n // 10
    return seconds, len(clique.members)


def adapt(n_generated: int, n_training: int) -> float:
    rng = np.random.default_rng(1)
    training = rng.integers(0, 256, (n_training, 32, 32, 3), dtype=np.uint8)
    generated = rng.integers(0, 256, (n_generated, 32, 32, 3), dtype=np.uint8)
    generated[:100] = training[:100]
    started = time.perf_counter()
    found = adaptive_distances(generated, training)
    seconds = time.perf_counter() - started
    assert not found.distance[:100].any()
    assert found.distance[100:].min() > 0.5
    return seconds


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=500)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--generated", type=int, default=10_000)
    parser.add_argument("--training", type=int, default=50_000)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    seconds, size = score_one(options.generations, options.side, options.device)
    rows = [(f"{options.generations} generations of {options.side} px, {name}", value) for name, value in seconds.items()]
    rows += [("  together", sum(seconds.values()))]
    after_scoring = peak_gb()
    rows += [(f"adaptive distance, {options.generated:,} against {options.training:,}", adapt(options.generated, options.training))]
    print("| what | seconds |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |")
    machine = describe_machine()
    found = {"clique": size, "peak_gb_scoring": round(after_scoring, 2), "peak_gb": round(peak_gb(), 2), "machine": machine}
    print(json.dumps(found))
    if options.json:
        Path(options.json).write_text(json.dumps({"seconds": dict(rows), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
