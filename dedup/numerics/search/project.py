"""A shorter vector that can only overestimate a similarity.

Rotate unit vectors to the principal axes of the data, and keep the first k coordinates y and the norm r of the
rest. By Cauchy-Schwarz <a, b> <= <y_a, y_b> + r_a r_b, which is the inner product of the (k + 1)-vectors
(y, r): their products propose pairs at a fraction of the cost, and no pair is lost.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from dedup.numerics.arraytypes import Ids, ListIds, Rows32

_SAMPLE = 2_048  # rows whose pairs decide how many coordinates are best
_SAMPLE_LISTS = 48
_STEP = 32

# seconds of one core per pair: for a product, per coordinate; for a proposal, gathered and multiplied in full
_PRODUCT_S = 2e-11
_PROPOSAL_S = 4e-6

# rounding (y, r) to float16 moves each by at most 2^-11 of its norm, which is 1
PROJECTION_BAND = 2 * 2.0**-11 + 1e-4


def one_thread() -> threadpool_limits:
    """A context in which products are one thread's: how many share a sum changes its rounding on some processors, and the lists with it."""
    return threadpool_limits(1, "blas")


def principal_axes(sample: Rows32) -> Rows32:
    """Principal axes of unit rows, the one with the most energy first.

    Returns shape (dim, dim); orthonormal columns: eigenvectors of the second moments about the origin, since the bound is
    on inner products, not variances.
    """
    with one_thread():
        moments = (sample.T @ sample).astype(np.float64) / max(len(sample), 1)
        _, axes = np.linalg.eigh(moments)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def choose_axes(sample: Rows32, lists: ListIds | None, axes: Rows32, min_similarity: float) -> int:
    """How many axes make the join cheapest at a threshold.

    Fewer axes make cheaper products and propose more pairs in vain. This is measured on pairs that a join compares,
    members of one list, which are more alike than random pairs.

    `sample`: shape (n, dim); unit rows.
    `lists`: the lists of each row; None if all are in one.
    `axes`: shape (dim, dim).
    Returns a multiple of 32 below dim; 0 where comparing whole vectors is cheapest.
    """
    dim = sample.shape[1]
    options = list(range(2 * _STEP, dim, _STEP))
    n_false, n_compared = np.zeros(len(options)), 0
    for rows in _compared_together(len(sample), lists):
        rotated = sample[rows] @ axes
        upper = np.triu_indices(len(rows), 1)
        unrelated = (rotated @ rotated.T)[upper] < min_similarity
        n_compared += len(unrelated)
        for place, k in enumerate(options):
            bound = with_rest(rotated[:, :k])
            n_false[place] += np.count_nonzero(((bound @ bound.T)[upper] >= min_similarity - PROJECTION_BAND) & unrelated)
    if not n_compared or not options:
        return 0
    costs = np.append(_PRODUCT_S * np.array(options) + _PROPOSAL_S * n_false / n_compared, _PRODUCT_S * dim)
    best = int(np.argmin(costs))
    return options[best] if best < len(options) else 0


def _compared_together(n: int, lists: ListIds | None) -> list[Ids]:
    """Rows of some lists; without lists, one sample of rows."""
    if lists is None:
        return [np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int64)] if n > 1 else []
    order = np.argsort(lists, axis=None, kind="stable")
    bounds = np.flatnonzero(np.diff(lists.ravel()[order])) + 1
    members = [part // lists.shape[1] for part in np.split(order, bounds)]
    chosen = [members[k] for k in np.linspace(0, len(members) - 1, min(len(members), _SAMPLE_LISTS)).astype(int)]
    return [rows[: _SAMPLE // 8] for rows in chosen if len(rows) > 1]


def with_rest(head: Rows32) -> Rows32:
    """Append to the first coordinates of unit vectors the norm of the rest.

    `head`: shape (n, k).
    Returns shape (n, k + 1); unit rows, up to 3e-7 in the square of the rest.

    >>> with_rest(np.array([[0.6, 0.0]], np.float32)).round(4)
    array([[0.6, 0. , 0.8]], dtype=float32)
    """
    # float32 rounding of 1 - |y|^2 must not make the bound too low
    rest = np.sqrt(np.clip(1.0 + 3e-7 - np.einsum("ij,ij->i", head, head), 0.0, None))
    return np.concatenate([head, rest[:, None]], axis=1, dtype=np.float32)
