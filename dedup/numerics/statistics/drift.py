"""How well lists that were trained on earlier vectors suit those that came since, and when to train anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.search.lists import Lists

MAX_ERROR = 1.25  # times the error of the earlier vectors, from which the new ones count as of another kind
MAX_COST = 2.0  # times what lists trained anew would cost, from which that pays
_FEWEST = 100  # new vectors whose mean error says something
_FITTED = 2.5  # lists suit the vectors they were trained on better than others of the kind, by this over the number of these per list (ran)


@dataclass(frozen=True)
class Drift:
    """Figures of lists before and after vectors were added."""

    # error_before, error_added: mean of 1 - <vector, nearest centroid>, of the earlier vectors and of those added; None with one
    # list, which has no centroid
    error_before: float | None
    error_added: float | None
    n_added: int  # vectors that the mean is of
    # imbalance_before, imbalance_after: sum of the squared sizes of the lists against that of even ones: what the join costs too much
    imbalance_before: float
    imbalance_after: float
    cost: float  # comparisons of a join of all vectors against those with lists trained anew
    per_list: float  # vectors for each list that it was trained on

    @property
    def reasons(self) -> list[str]:
        """Why to train anew; empty where there is no reason."""
        found = []
        ratio = self.error_added / self.error_before if self.error_before and self.error_added else 1.0
        if self.n_added >= _FEWEST and ratio > MAX_ERROR * (1.0 + _FITTED / self.per_list):
            found.append(f"the new images are {ratio:.2f} times as far from their lists' centroids as the earlier ones")
        if self.cost > MAX_COST:
            found.append(f"a join of all costs {self.cost:.1f} times what lists trained anew would")
        return found


def quantization_error(lists: Lists, rows: npt.NDArray[np.float32]) -> float | None:
    """Mean of 1 - <row, nearest centroid>, in the coordinates that lists are chosen by; None for one list or no row.

    Parameters
    ----------
    lists : Lists
    rows : float32 array, shape (n, dim)
        Unit rows.
    """
    if lists.nlist == 1 or not len(rows):
        return None
    along = rows @ lists.axes[:, : lists.centroids.shape[1]]
    nearest = [(along[start : start + 4_096] @ lists.centroids.T).max(axis=1) for start in range(0, len(along), 4_096)]
    return float(1.0 - np.concatenate(nearest).astype(np.float64).mean())


def imbalance(sizes: npt.NDArray[np.int64]) -> float:
    """Sum of the squared sizes of lists against that of lists of one size; 1 = even.

    Examples
    --------
    >>> imbalance(np.array([2, 2])), imbalance(np.array([4, 0]))
    (1.0, 2.0)
    """
    total = float(sizes.sum())
    return float((sizes.astype(np.float64) ** 2).sum()) * len(sizes) / total**2 if total else 1.0


def cost_against(sizes: npt.NDArray[np.int64], n: int, nlist: int, nprobe: int, imbalance_before: float) -> float:
    """Comparisons of a join of lists against those of others.

    Parameters
    ----------
    sizes : int64 array, shape (n_lists,)
        Of the lists there are.
    n : int
        Vectors.
    nlist, nprobe : int
        The other lists, and how many a vector goes to.
    imbalance_before : float
        How uneven lists come out when they are trained.

    Examples
    --------
    >>> cost_against(np.array([20, 20]), 40, 4, 1, 1.0)
    2.0
    """
    other = imbalance_before * (float(n) * nprobe) ** 2 / nlist
    return float((sizes.astype(np.float64) ** 2).sum()) / other if other else 1.0
