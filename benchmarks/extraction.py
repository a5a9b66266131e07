"""Time and memory of scoring generated images, and of the adaptive distance.

python benchmarks/extraction.py                                   # synthetic images
python benchmarks/extraction.py --cifar cifar10_jpg.tar.xz        # test images of CIFAR-10 as if they were generated, against its training images

The scoring: 500 generations of 512 × 512 of one prompt, in memory; beyond their decoding. The adaptive distance: 10,000 images against 50,000.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
import time

import numpy as np
import numpy.typing as npt
from memory import PeakMemory, anonymous_bytes
from PIL import Image

from dedup.numerics.adaptive import adaptive_distances
from dedup.numerics.cliques import largest_clique
from dedup.numerics.tiled import l2_distances, pairwise_tiled_distances, tiled_distances

Pixels = npt.NDArray[np.uint8]
_THRESHOLD = 0.1


def smooth(rng: np.random.Generator, n: int, side: int) -> Pixels:
    """Pictures of smooth random colour."""
    images = np.empty((n, side, side, 3), np.uint8)
    for number in range(n):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        images[number] = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    return images


def generations(rng: np.random.Generator, n: int, side: int, n_memorized: int) -> tuple[Pixels, Pixels]:
    """Generations of one prompt, some of them one training image with noise; and that image."""
    images, training = smooth(rng, n, side), smooth(rng, 1, side)[0]
    for number in rng.choice(n, n_memorized, replace=False).tolist():
        noise = rng.normal(0, 6, training.shape)
        images[number] = np.clip(np.rint(training + noise), 0, 255)
    return images, training


def score(n: int, side: int, seed: int) -> dict[str, object]:
    """What `dedup extraction score` computes of one target."""
    images, training = generations(np.random.default_rng(seed), n, side, n // 10)
    seconds = {}
    with PeakMemory(every_s=0.02) as memory:
        before = anonymous_bytes(os.getpid())
        started = time.perf_counter()
        distances = pairwise_tiled_distances(images, threshold=_THRESHOLD)
        seconds["distances"] = time.perf_counter() - started
        clique = largest_clique(distances <= np.float32(_THRESHOLD))
        seconds["clique"] = time.perf_counter() - started - seconds["distances"]
        tiled = tiled_distances(images[clique.members], training)
        nearest = images[clique.members[tiled.argmin()]]
        l2_distances(nearest[None], training)
        seconds["match"] = time.perf_counter() - started - seconds["distances"] - seconds["clique"]
        seconds["all"] = time.perf_counter() - started
    if len(clique.members) != n // 10:
        raise RuntimeError(f"planted a clique of {n // 10}, found {len(clique.members)}")
    return {
        "what": f"score {n} generations of {side} x {side}",
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "images_mb": images.nbytes >> 20,
        "anonymous_mb_before": before >> 20,
        "peak_anonymous_mb": memory.peak >> 20,
    }


def cifar(path: str, rng: np.random.Generator, n_generated: int, n_training: int) -> tuple[Pixels, Pixels]:
    """Test and training images of a tar of `train/…` and `test/…` files."""
    found: dict[str, list[Pixels]] = {"train": [], "test": []}
    with tarfile.open(path) as tar:
        for member in tar:
            parts = member.name.split("/")
            split = next((name for name in found if name in parts), None)
            data = tar.extractfile(member) if member.isfile() and split else None
            if data is not None and split is not None:
                found[split].append(np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB")))
    images = {name: np.stack(part) for name, part in found.items()}
    chosen = {name: rng.permutation(len(part)) for name, part in images.items()}
    return images["test"][chosen["test"][:n_generated]], images["train"][chosen["train"][:n_training]]


def adaptive(generated: Pixels, training: Pixels, around: str) -> dict[str, object]:
    """The adaptive distance of all."""
    with PeakMemory(every_s=0.05) as memory:
        before = anonymous_bytes(os.getpid())
        started = time.perf_counter()
        found = adaptive_distances(generated, training, around="training" if around == "training" else "generated")
        seconds = time.perf_counter() - started
    return {
        "what": f"adaptive distance of {len(generated):,} to {len(training):,}, neighbours of the {around} image",
        "seconds": {"all": round(seconds, 1)},
        "images_mb": (generated.nbytes + training.nbytes) >> 20,
        "anonymous_mb_before": before >> 20,
        "peak_anonymous_mb": memory.peak >> 20,
        "quantiles": {f"{q:g}": round(float(np.quantile(found.adaptive, q)), 4) for q in (0, 0.001, 0.01, 0.1, 0.5, 1)},
        "quantiles_of_l2": {f"{q:g}": round(float(np.quantile(found.l2, q)), 4) for q in (0, 0.001, 0.01, 0.1, 0.5, 1)},
    }


def main() -> None:
    """Print a table, and a line of JSON for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=500, help="0 = leave out the scoring")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--generated", type=int, default=10_000, help="0 = leave out the adaptive distance")
    parser.add_argument("--training", type=int, default=50_000)
    parser.add_argument("--cifar", default="", help="tar of train/… and test/… images; else smooth synthetic ones of 32 x 32")
    parser.add_argument("--around", choices=["generated", "training", "both"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = []
    if args.generations:
        results.append(score(args.generations, args.side, args.seed))
    if args.generated:
        rng = np.random.default_rng(args.seed)
        if args.cifar:
            generated, training = cifar(args.cifar, rng, args.generated, args.training)
        else:
            generated, training = smooth(rng, args.generated, 32), smooth(rng, args.training, 32)
        results += [adaptive(generated, training, name) for name in ("generated", "training") if args.around in (name, "both")]
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, numpy {np.__version__}, load {os.getloadavg()[0]:.1f}"
    print(f"{'what':<75} {'seconds':>8} {'peak MB':>8}")
    for result in results:
        print(f"{result['what']:<75} {result['seconds']['all']:>8} {result['peak_anonymous_mb']:>8}")  # type: ignore[index]
    for result in results:
        print(json.dumps(result | {"machine": machine}))


if __name__ == "__main__":
    main()
