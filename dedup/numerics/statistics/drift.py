"""How well lists that were trained on earlier vectors suit those added since, and when to retrain them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dedup.numerics.arraytypes import Ids, Rows32
from dedup.numerics.search.lists import Lists

MAX_ERROR = 1.25  # times the error of the earlier vectors, above which the new ones count as of another kind
MAX_COST = 2.0  # times the cost with retrained lists, above which retraining pays
_FEWEST = 100  # new vectors from which their mean error means something
_FITTED = 2.5  # over the vectors per list: how much better lists suit the vectors they were trained on than others of the kind (measured)


@dataclass(frozen=True)
class Drift:
    """Figures of lists before and after vectors were added."""

    # error_before, error_added: mean of 1 - <vector, nearest centroid>, of the earlier vectors and of those added; None with one
    # list, which has no centroid
    error_before: float | None
    error_added: float | None
    n_added: int  # vectors that `error_added` is the mean of
    # imbalance_before, imbalance_after: sum of the squared sizes of the lists over that of even ones: by what factor the join costs more
    imbalance_before: float
    imbalance_after: float
    cost: float  # comparisons of a join of all vectors over those with retrained lists
    per_list: float  # training vectors per list

    @property
    def reasons(self) -> list[str]:
        """Why to retrain; empty where there is no reason to."""
        reasons = []
        ratio = self.error_added / self.error_before if self.error_before and self.error_added else 1.0
        if self.n_added >= _FEWEST and ratio > MAX_ERROR * (1.0 + _FITTED / self.per_list):
            reasons.append(f"the new images are {ratio:.2f} times as far from their lists' centroids as the earlier ones")
        if self.cost > MAX_COST:
            reasons.append(f"a join of all costs {self.cost:.1f} times what it would with retrained lists")
        return reasons


def quantization_error(lists: Lists, rows: Rows32) -> float | None:
    """Mean of 1 - <row, nearest centroid>, in the coordinates that lists are chosen by; None for one list or no rows.

    `rows`: shape (n, dim); unit rows.
    """
    if lists.nlist == 1 or not len(rows):
        return None
    along = rows @ lists.axes[:, : lists.centroids.shape[1]]
    nearest = [(along[start : start + 4_096] @ lists.centroids.T).max(axis=1) for start in range(0, len(along), 4_096)]
    return float(1.0 - np.concatenate(nearest).astype(np.float64).mean())


def imbalance(sizes: Ids) -> float:
    """Sum of the squared sizes of lists over that of lists of one size; 1 = even.

    >>> imbalance(np.array([2, 2])), imbalance(np.array([4, 0]))
    (1.0, 2.0)
    """
    total = float(sizes.sum())
    return float((sizes.astype(np.float64) ** 2).sum()) * len(sizes) / total**2 if total else 1.0


def cost_against(sizes: Ids, n: int, nlist: int, nprobe: int, imbalance_before: float) -> float:
    """Comparisons of a join with the present lists over those with retrained ones.

    `sizes`: shape (n_lists,); of the present lists.
    `n`: vectors.
    `nlist`, `nprobe`: retrained lists, and how many a vector goes to.
    `imbalance_before`: how uneven lists are when freshly trained.

    >>> cost_against(np.array([20, 20]), 40, 4, 1, 1.0)
    2.0
    """
    retrained = imbalance_before * (float(n) * nprobe) ** 2 / nlist
    return float((sizes.astype(np.float64) ** 2).sum()) / retrained if retrained else 1.0
