"""What lists need of FAISS: the nearest centroids of a row, and k-means."""

from __future__ import annotations

import numpy as np

from dedup.errors import MissingExtra
from dedup.numerics.arraytypes import Ids, Rows32, Sims

try:
    import faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error


def search_flat(rows: Rows32, centroids: Rows32, offsets: Sims, n_best: int) -> tuple[Sims, Ids]:
    """The lists of the largest <row, centroid> - offset of each row, best first, in float32.

    `n_best`: at most nlist.
    Returns `scores`, `lists`: shape (n, n_best).
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


def train_kmeans(rows: Rows32, n_centroids: int, n_iterations: int, seed: int, n_gpus: int) -> Rows32:
    """Spherical k-means on all rows; returns shape (n_centroids, dim)."""
    kmeans = faiss.Kmeans(
        rows.shape[1],
        n_centroids,
        niter=n_iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
        gpu=n_gpus,
    )
    kmeans.train(rows)
    return np.array(kmeans.centroids, dtype=np.float32).reshape(n_centroids, -1)
