"""How vectors find their inverted lists, and the short projections that propose pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.projection import choose_axes, principal_axes, with_rest
from dedup.numerics.quantizer import Quantizer
from dedup.numerics.torch_ops import Device

LEAST_SAMPLE = 10_000  # vectors to train on, however few the lists
BLOCK = 65_536  # vectors placed at a time
_QUANTIZER_DIM = 128  # principal coordinates the lists are chosen by; more cost time and find no more pairs


@dataclass(frozen=True)
class Lists:
    """Principal axes and the coarse quantizer along them.

    Parameters
    ----------
    axes : float32 array, shape (dim, k)
    centroids : float32 array, shape (nlist, k_lists)
        In the first k_lists coordinates along the axes.
    offsets : float32 array, shape (nlist,)
        What each list's product is lowered by, so that lists are of one size.
    n_filter : int
        Coordinates of the projections that propose pairs; 0 = whole vectors are compared.
    """

    axes: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]
    n_filter: int

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return len(self.centroids)

    @property
    def is_idle(self) -> bool:
        """Whether there is one list and no projection, so that no vector needs to be read."""
        return self.nlist == 1 and not self.n_filter

    def place(
        self, rows: npt.NDArray[np.float32], nprobe: int, device: Device | None = None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float16] | None]:
        """Choose the lists of vectors and project them.

        Parameters
        ----------
        rows : float32 array, shape (n, dim)
            Unit rows.
        nprobe : int
            Lists each vector goes to.
        device : Device, optional
            Where the scores of lists are computed; None = the CPU. The lists are the same.

        Returns
        -------
        lists : int32 array, shape (n, nprobe)
            Of each vector, none twice, its nearest first; with one list, shape (n, 1).
        projected : float16 array, shape (n, n_filter + 1), or None
        """
        along = rows @ self.axes
        projected = with_rest(along[:, : self.n_filter]).astype(np.float16) if self.n_filter else None
        if self.nlist == 1:
            return np.zeros((len(rows), 1), dtype=np.int32), projected
        chosen = Quantizer(self.centroids, self.offsets).assign(along[:, : self.centroids.shape[1]], nprobe, device)
        return chosen, projected


def train_lists(
    sample: npt.NDArray[np.float32],
    nlist: int,
    nprobe: int,
    min_similarity: float,
    *,
    iterations: int,
    seed: int,
    is_rotated: bool = False,
    device: Device | None = None,
) -> Lists:
    """Find the axes, train the quantizer, and choose how many axes propose pairs.

    Parameters
    ----------
    sample : float32 array, shape (n, dim)
        Unit rows.
    nlist, nprobe : int
        With nlist = 1 nothing is trained.
    min_similarity : float
    iterations, seed : int
        Of k-means.
    is_rotated : bool
        Keep every axis, so that rows along them hold all of a vector.
    device : Device, optional
        See `train_quantizer`.

    Returns
    -------
    Lists
    """
    axes = principal_axes(sample)
    k = min(_QUANTIZER_DIM, sample.shape[1])
    centroids, offsets, sample_lists = np.zeros((1, k), dtype=np.float32), np.zeros(1, dtype=np.float32), None
    if nlist > 1:
        from dedup.numerics.ann import train_quantizer

        along = sample @ axes[:, :k]
        quantizer = train_quantizer(along, nlist, nprobe, iterations=iterations, seed=seed, device=device)
        centroids, offsets, sample_lists = quantizer.centroids, quantizer.offsets, quantizer.assign(along, nprobe, device)
    n_filter = choose_axes(sample, sample_lists, axes, min_similarity)
    return Lists(axes if is_rotated else axes[:, : max(k, n_filter)], centroids, offsets, n_filter)


def draw_sample(n: int, n_wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of a training sample, ascending, shape (min(n, max(n_wanted, LEAST_SAMPLE)),)."""
    return np.sort(np.random.default_rng(seed).choice(n, n_sampled(n, n_wanted), replace=False))


def n_sampled(n: int, n_wanted: int) -> int:
    """Size of a training sample."""
    return min(n, max(n_wanted, LEAST_SAMPLE))
