"""The inverted lists and the index that stays: the only importer of faiss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.errors import MissingExtra, ShapeError
from dedup.numerics.collapse import find_balls

try:
    import faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

_PQ_TRAIN = 10_000  # vectors; 39 for each of the 256 centroids, as FAISS asks
_PQ_ITERATIONS = 8
_SAMPLE_RADIUS = 0.9  # similarity from which a crowd in the training sample counts as one vector
_BALANCE_STEPS = (1.0, 1.0, 0.7, 0.5, 0.35, 0.25)
_PLACES_PER_DOUBLING = 2.0  # how many places down the order of lists a list of twice the mean size is moved
_BALANCE_SAMPLE = 16  # vectors per list that sizes are estimated from


@dataclass(frozen=True)
class Quantizer:
    """The coarse quantizer: centroids, and what each list's score is lowered by so that lists are of one size.

    Parameters
    ----------
    centroids : float32 array, shape (nlist, dim)
        Unit rows.
    offsets : float32 array, shape (nlist,)
    """

    centroids: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]

    def assign(self, rows: npt.NDArray[np.float32], nprobe: int) -> npt.NDArray[np.int32]:
        """The lists of each vector, best first, by <row, centroid> - offset.

        Parameters
        ----------
        rows : float32 array, shape (n, dim)
        nprobe : int

        Returns
        -------
        int32 array, shape (n, min(nprobe, nlist))
        """
        return self._search(rows, nprobe)[1].astype(np.int32)

    def _search(self, rows: npt.NDArray[np.float32], nprobe: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        # a coordinate that is 1 in every vector carries the offset through the inner product
        flat = faiss.IndexFlatIP(self.centroids.shape[1] + 1)
        flat.add(np.concatenate([self.centroids, -self.offsets[:, None]], axis=1, dtype=np.float32))
        ones = np.ones((len(rows), 1), dtype=np.float32)
        scores, lists = flat.search(np.concatenate([rows, ones], axis=1, dtype=np.float32), min(nprobe, len(self.centroids)))
        return scores, lists


def choose_nprobe(min_similarity: float) -> int:
    """Lists each vector goes to, from the threshold.

    P(two vectors share a list) falls with their similarity; the table of `docs/results.md` shows it.

    Examples
    --------
    >>> [choose_nprobe(t) for t in (0.96, 0.85, 0.7)]
    [8, 16, 32]
    """
    return 8 if min_similarity >= 0.9 else 16 if min_similarity >= 0.8 else 32


def choose_nlist(n_vectors: int, nprobe: int) -> int:
    """Number of inverted lists: sqrt(nprobe * n) balances assignment and join.

    Examples
    --------
    >>> choose_nlist(1_000_000, 4)
    2000
    """
    return max(1, min(round(math.sqrt(nprobe * n_vectors)), n_vectors // 4 or 1))


def train_quantizer(sample: npt.NDArray[np.float32], nlist: int, nprobe: int, *, iterations: int, seed: int) -> Quantizer:
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
    kmeans = faiss.Kmeans(
        rows.shape[1], nlist, niter=iterations, seed=seed, spherical=True, min_points_per_centroid=1, max_points_per_centroid=len(rows)
    )
    kmeans.train(rows)
    centroids = np.array(kmeans.centroids, dtype=np.float32).reshape(nlist, -1)
    quantizer = Quantizer(centroids, np.zeros(nlist, dtype=np.float32))
    nprobe = min(nprobe, nlist)
    if nprobe == nlist:
        return quantizer
    part = rows[np.random.default_rng(seed).permutation(len(rows))[: _BALANCE_SAMPLE * nlist]]
    for step in _BALANCE_STEPS:
        scores, lists = quantizer._search(part, nprobe)
        sizes = np.bincount(lists.ravel(), minlength=nlist)
        # the distance between neighbouring places in the order of lists is the natural unit of an offset
        unit = float(np.mean(scores[:, 0] - scores[:, -1])) / max(1, nprobe - 1)
        change = step * unit * _PLACES_PER_DOUBLING * np.log2((sizes + 1.0) / (sizes.mean() + 1.0))
        quantizer = Quantizer(quantizer.centroids, (quantizer.offsets + change).astype(np.float32))
    return quantizer


def build_index(
    centroids: npt.NDArray[np.float32],
    train: npt.NDArray[np.float32],
    blocks: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int32]]],
    *,
    codes: str,
    nprobe: int,
) -> bytes:
    """Train the codes, fill the lists, serialise.

    Parameters
    ----------
    centroids : float32 array, shape (nlist, dim)
    train : float32 array, shape (n, dim)
        Sample for the product quantizer.
    blocks : iterable of (ids int64 (n,), rows float32 (n, dim), home list int32 (n,))
    codes : str
        ``pq`` (64 bytes a vector, or as many as divide dim) or ``fp16`` (2 * dim bytes).
    nprobe : int
        Written into the index as its default.

    Returns
    -------
    bytes
        For `faiss.deserialize_index` or, in a file, `faiss.read_index`.
    """
    nlist, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    index: Any
    if codes == "pq":
        index = faiss.IndexIVFPQ(quantizer, dim, nlist, pq_bytes(dim), 8, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.niter = _PQ_ITERATIONS
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(train[:_PQ_TRAIN])
    for ids, rows, home in blocks:
        rows, home = np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(home, np.int64)
        ids = np.ascontiguousarray(ids, np.int64)
        index.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(ids), faiss.swig_ptr(home))
    index.nprobe = min(nprobe, nlist)
    return bytes(faiss.serialize_index(index))


def pq_bytes(dim: int) -> int:
    """Bytes of a product-quantized vector: the largest divisor of `dim` up to 64.

    Examples
    --------
    >>> pq_bytes(512), pq_bytes(384)
    (64, 64)
    """
    return max(m for m in range(1, 65) if dim % m == 0)
