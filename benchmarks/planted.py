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
import tarfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from dedup.encoders.dct import DctEncoder
from dedup.errors import SampleError
from dedup.numerics.distances import exact_similarity
from dedup.numerics.planting import changes
from dedup.storage.images import decode_image
from dedup.storage.shards import read_shard


def describe(data: bytes, encoder: DctEncoder) -> np.ndarray:
    """The stored vector of an encoded image, float16 (dim,)."""
    image = decode_image(data, max_pixels=10**9, min_side=encoder.min_side)
    return encoder.encode(encoder.prepare(image.pixels, image.box)[None])[0][0].astype(np.float16)


def images(shards: list[str]) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of every image that decodes."""
    for shard in shards:
        for sample in read_shard(shard):
            if sample.image is not None:
                try:
                    decode_image(sample.image, max_pixels=10**9, min_side=64)
                except (SampleError, tarfile.TarError):
                    continue
                yield sample.key, sample.image


def main() -> None:
    """Print a markdown table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--min-similarity", type=float, default=0.7)
    parser.add_argument("--strengths", default="all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    encoder = DctEncoder()
    found = list(images(args.shards))
    rng = np.random.default_rng(args.seed)
    chosen = rng.choice(len(found), min(args.n, len(found)), replace=False)
    originals = np.stack([describe(found[k][1], encoder) for k in chosen])
    results: dict[str, float] = {}
    expected = []
    print("| change | expected | recall | median similarity |\n|---|---|---|---|")
    for change in changes(strengths=args.strengths):
        vectors = []
        for number, k in enumerate(chosen):
            pixels = decode_image(found[k][1], max_pixels=10**9).pixels
            buffer = io.BytesIO()
            # a copy on the web has been encoded again
            Image.fromarray(change.apply(pixels, np.random.default_rng([args.seed, number]))).save(buffer, "JPEG", quality=90)
            vectors.append(describe(buffer.getvalue(), encoder))
        similarity = exact_similarity(np.stack(vectors), originals)
        results[change.name] = float((similarity >= args.min_similarity).mean())
        expected += [results[change.name]] if change.is_expected else []
        print(
            f"| {change.name} | {'yes' if change.is_expected else 'no'} | {results[change.name]:.3f} | {np.median(similarity):.3f} |",
            flush=True,
        )
    unit = originals.astype(np.float32)
    product = np.triu(unit @ unit.T, 1)
    near = [
        (found[chosen[i]][0], found[chosen[j]][0], round(float(product[i, j]), 3))
        for i, j in zip(*np.nonzero(product >= args.min_similarity), strict=True)
    ]
    print(
        json.dumps(
            {
                "n": len(chosen),
                "min_similarity": args.min_similarity,
                "mean_recall_expected": float(np.mean(expected)),
                "mean_recall_all": float(np.mean(list(results.values()))),
                "near_in_sample": near,
            }
        )
    )


if __name__ == "__main__":
    main()
