"""Synthetic vectors and trained lists, made on a device: the input of `gpu_pairs.py`. Needs only numpy, scipy and torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dedup.numerics.search.gpu import Device
from dedup.numerics.search.lists import Lists, Quantizer, draw_sample
from dedup.numerics.search.project import choose_axes, principal_axes

CHUNK = 262_144  # vectors made at a time
SHARE = 0.05  # of the vectors that have a planted copy
QUANTIZER_DIM = 128
PER_LIST = 32  # training sample, vectors per list
ITERATIONS = 6


def write_vectors(path: str, n: int, dim: int, low: float, high: float, name: str) -> npt.NDArray[np.int64]:
    """Write float16 unit rows with a spectrum that falls as 1/k; returns the planted pairs, (n_pairs, 2), at cosines in [low, high]."""
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, dim))
    generator = torch.Generator(device=name).manual_seed(0)
    spectrum = torch.arange(1, dim + 1, device=name, dtype=torch.float32) ** -0.5
    pairs = []

    def unit(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(rows, dim=1)

    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        rows = unit(torch.randn((size, dim), device=name, generator=generator) * spectrum)
        n_pairs = int(SHARE * size)
        cosine = low + (high - low) * torch.rand((n_pairs, 1), device=name, generator=generator)
        originals = rows[:n_pairs]
        other = torch.randn((n_pairs, dim), device=name, generator=generator) * spectrum
        other = unit(other - (other * originals).sum(dim=1, keepdim=True) * originals)
        # a copy is about a chunk away from its original
        rows[size - n_pairs :] = cosine * originals + (1.0 - cosine**2).sqrt() * other
        vectors[start : start + size] = rows.half().cpu().numpy()
        place = np.arange(n_pairs) + start
        pairs.append(np.stack([place, place + size - n_pairs], axis=1))
    vectors.flush()
    return np.concatenate(pairs)


def train(vectors: npt.NDArray[np.float16], nlist: int, nprobe: int, min_similarity: float, device: Device) -> Lists:
    """Lists as `dedup.numerics.search.lists.train_lists` makes them, with k-means in torch, so that no FAISS is needed."""
    # unit rows up to float16 rounding
    sample = vectors[draw_sample(len(vectors), PER_LIST * nlist, 0)].astype(np.float32)
    axes = principal_axes(sample[: 16 * PER_LIST * QUANTIZER_DIM])
    along = sample @ axes[:, :QUANTIZER_DIM]
    rows = torch.tensor(along, device=device.name)
    centroids = torch.nn.functional.normalize(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:nlist]], dim=1)
    for _ in range(ITERATIONS):
        nearest = torch.cat([(part @ centroids.T).argmax(dim=1) for part in rows.split(max(1, 2**26 // nlist))])
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        is_empty = sums.norm(dim=1, keepdim=True) == 0.0
        centroids = torch.nn.functional.normalize(torch.where(is_empty, centroids, sums), dim=1)
    quantizer = Quantizer(centroids.cpu().numpy(), np.zeros(nlist, np.float32)).balanced(along[: 16 * nlist], nprobe, device)
    part = sample[:20_000]
    n_filter = choose_axes(part, quantizer.assign(along[: len(part)], nprobe, device), axes, min_similarity)
    return Lists(axes[:, : max(along.shape[1], n_filter)], quantizer.centroids, quantizer.offsets, n_filter)
