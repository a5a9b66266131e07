"""Training and choosing inverted lists; with `ivf` and `ivfbuild` the only importer of faiss."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dedup.errors import MissingExtra, ShapeError
from dedup.numerics.collapse import find_balls
from dedup.numerics.quantizer import Quantizer
from dedup.numerics.torch_ops import Device

try:
    import faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

_SAMPLE_RADIUS = 0.9  # similarity from which a crowd in the training sample counts as one vector
_BALANCE_SAMPLE = 16  # vectors per list that sizes are estimated from


def search_flat(
    rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32], n_best: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The lists of the largest <row, centroid> - offset of each row, best first, in float32.

    Parameters
    ----------
    rows : float32 array, shape (n, dim)
    centroids : float32 array, shape (nlist, dim)
    offsets : float32 array, shape (nlist,)
    n_best : int
        At most nlist.

    Returns
    -------
    scores : float32 array, shape (n, n_best)
    lists : int64 array, shape (n, n_best)
    """
    # a coordinate that is 1 in every vector carries the offset through the inner product
    flat = faiss.IndexFlatIP(centroids.shape[1] + 1)
    flat.add(np.concatenate([centroids, -offsets[:, None]], axis=1, dtype=np.float32))
    ones = np.ones((len(rows), 1), dtype=np.float32)
    scores, lists = flat.search(np.concatenate([rows, ones], axis=1, dtype=np.float32), n_best)
    return scores, lists


def count_gpus() -> int:
    """GPUs that FAISS can use here: none unless the package is faiss-gpu."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def choose_nprobe(min_similarity: float, n_vectors: int) -> int:
    """Lists each vector goes to, from the threshold and the number of vectors.

    P(two vectors share a list) falls with their similarity, and as lists grow narrower; the tables of `docs/results.md` show it.

    Examples
    --------
    >>> [choose_nprobe(t, 1_000_000) for t in (0.96, 0.85, 0.7)]
    [8, 16, 32]
    >>> [choose_nprobe(0.96, n) for n in (10_000, 10_000_000, 1_000_000_000)]
    [8, 12, 20]
    """
    least = 8 if min_similarity >= 0.9 else 16 if min_similarity >= 0.8 else 32
    return round(least * (1 + max(0.0, math.log10(max(1, n_vectors) / 1_000_000)) / 2))


def choose_nlist(n_vectors: int, nprobe: int) -> int:
    """Number of inverted lists: sqrt(nprobe * n) balances assignment and join.

    Examples
    --------
    >>> choose_nlist(1_000_000, 4)
    2000
    """
    return max(1, min(round(math.sqrt(nprobe * n_vectors)), n_vectors // 4 or 1))


def train_quantizer(
    sample: npt.NDArray[np.float32], nlist: int, nprobe: int, *, iterations: int, seed: int, device: Device | None = None
) -> Quantizer:
    """Train the coarse quantizer: spherical k-means, then offsets that balance the lists.

    Parameters
    ----------
    sample : float32 array, shape (n, dim)
        More than 32 rows a list bring little.
    nlist : int
    nprobe : int
        Lists each vector will go to: what is balanced.
    iterations : int
    seed : int
    device : Device, optional
        Where FAISS has GPUs too, the lists are trained on all of these, and balanced on this device.

    Returns
    -------
    Quantizer
        With fewer lists than asked for where the sample has fewer distinct rows.

    Raises
    ------
    ShapeError
        If there are fewer rows than lists.

    Notes
    -----
    A crowd of near-copies would draw centroids in proportion to its size and be torn over hundreds of lists,
    so that its pairs are compared nowhere or often. Each crowd is one vector of the sample.

    A join costs the sum of the squared list sizes, and k-means leaves hubs: offsets learnt on the sample halve
    that sum at equal recall, since near vectors are offset alike (`docs/results.md`).

    A GPU sums in another order, and k-means carries that on: the lists are as good as the CPU's, but others, as with another
    seed. So the training is all on GPUs, or all on the CPU, where it gives the same lists every time.
    """
    if len(sample) < nlist:
        raise ShapeError(f"can't train {nlist} lists from {len(sample)} vectors; lower search.nlist")
    rows = np.array(sample, dtype=np.float32, order="C")
    keep = np.ones(len(rows), dtype=bool)
    for ball in find_balls(rows.astype(np.float16), _SAMPLE_RADIUS, keep):
        keep[ball.rows[1:]] = False
        rows[ball.rows[0]] = ball.pivot
    rows = rows[keep]
    nlist = min(nlist, len(rows))
    n_gpus = count_gpus() if device is not None else 0
    kmeans = faiss.Kmeans(
        rows.shape[1],
        nlist,
        niter=iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
        gpu=n_gpus,
    )
    kmeans.train(rows)
    centroids = np.array(kmeans.centroids, dtype=np.float32).reshape(nlist, -1)
    part = rows[np.random.default_rng(seed).permutation(len(rows))[: _BALANCE_SAMPLE * nlist]]
    quantizer = Quantizer(centroids, np.zeros(nlist, dtype=np.float32))
    return quantizer.balanced(part, min(nprobe, nlist), device if n_gpus else None)
