"""Recall of planted changes by the default encoder, and the similarities of unrelated images.

    python benchmarks/planted.py SHARDS... --n 300

Each of n sampled images is changed in every way of `numerics/planting.py`; a change is found if the similarity of
the changed image to its original reaches the threshold. Images of the sample itself that reach it are listed: look
at them, they are false pairs or real copies.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.encoders.dct import DctEncoder
from dedup.numerics.image.planting import Change, changes
from dedup.numerics.similarity import exact_similarity
from dedup.stages.embed.prepare import Preparation, RejectedSample
from dedup.storage.images.decode import decode_image
from dedup.storage.input.samples import RawSample
from dedup.storage.input.shards import read_shard

MAX_PIXELS = 10**9
Vectors = npt.NDArray[np.float16]


class Describer:
    """The vector that a run stores for a sample, decoded and prepared as a worker does."""

    def __init__(self) -> None:
        self._encoder = DctEncoder()
        self._prepare = Preparation(self._encoder, MAX_PIXELS, finds_inner=False, keeps_thumbnails=False)

    def __call__(self, sample: RawSample) -> Vectors | None:
        """Shape (dim,); None for a sample without an image that decodes."""
        found = self._prepare((0, sample))
        return None if isinstance(found, RejectedSample) else self._encoder.encode(found.prepared[None])[0].astype(np.float16)


def plant(sample: RawSample, change: Change, rng: np.random.Generator) -> RawSample:
    """A copy as found on the web: changed, and re-encoded."""
    buffer = io.BytesIO()
    pixels = decode_image(sample.image, max_pixels=MAX_PIXELS).pixels
    Image.fromarray(change.apply(pixels, rng)).save(buffer, "JPEG", quality=90)
    return replace(sample, image=buffer.getvalue())


def near_in(samples: list[RawSample], vectors: Vectors, min_similarity: float) -> list[tuple[str, str, float]]:
    """Keys and similarity of the pairs of a sample that reach the threshold."""
    unit = vectors.astype(np.float32)
    product = np.triu(unit @ unit.T, 1)
    places = zip(*np.nonzero(product >= min_similarity), strict=True)
    return [(samples[i].key, samples[j].key, round(float(product[i, j]), 3)) for i, j in places]


def main() -> None:
    """Print a markdown table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--min-similarity", type=float, default=0.7)
    parser.add_argument("--strengths", choices=["default", "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    describe = Describer()
    readable = [sample for shard in args.shards for sample in read_shard(shard) if describe(sample) is not None]
    chosen = np.random.default_rng(args.seed).choice(len(readable), min(args.n, len(readable)), replace=False)
    samples = [readable[k] for k in chosen]
    originals = np.stack([describe(sample) for sample in samples])
    results: dict[str, float] = {}
    expected = []
    print("| change | expected | recall | median similarity |\n|---|---|---|---|")
    for change in changes(strengths=args.strengths):
        copies = [plant(sample, change, np.random.default_rng([args.seed, number])) for number, sample in enumerate(samples)]
        similarity = exact_similarity(np.stack([describe(copy) for copy in copies]), originals)
        results[change.name] = float((similarity >= args.min_similarity).mean())
        expected += [results[change.name]] if change.is_expected else []
        print(
            f"| {change.name} | {'yes' if change.is_expected else 'no'} | {results[change.name]:.3f} | {np.median(similarity):.3f} |",
            flush=True,
        )
    print(
        json.dumps(
            {
                "n": len(samples),
                "min_similarity": args.min_similarity,
                "mean_recall_expected": float(np.mean(expected)),
                "mean_recall_all": float(np.mean(list(results.values()))),
                "near_in_sample": near_in(samples, originals, args.min_similarity),
            }
        )
    )


if __name__ == "__main__":
    main()
