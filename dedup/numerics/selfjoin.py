"""All near-duplicate pairs among the members of one inverted list."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.collapse import Ball, Ownership, Rows, find_balls
from dedup.numerics.listjoin import Earlier, Joined, ListJoin
from dedup.numerics.torch_ops import Device

_COLLAPSE_FROM = 1_024  # members from which looking for balls pays


def self_join(
    vectors: Rows,
    min_similarity: npt.NDArray[np.float32],
    weights: npt.NDArray[np.int64],
    ownership: Ownership,
    *,
    best: int = 8,
    projected: npt.NDArray[np.float16] | None = None,
    share: tuple[int, int] = (0, 1),
    device: Device | None = None,
    earlier: Earlier | None = None,
) -> Joined:
    """Find all pairs within the threshold and keep a sparse set of them.

    Parameters
    ----------
    vectors : float16 array, shape (n, dim), or Rows
        Unit rows up to float16 rounding, ordered by sample_id.
    min_similarity : float32 array, shape (n,)
        Similarity each row asks of a copy; a pair needs the larger of its two.
    weights : int64 array, shape (n,)
        Samples each row stands for.
    ownership : Ownership
        Pairs that another list owns are left out.
    best : int
        Best edges kept for each row beside the maximum-similarity spanning forest.
    projected : float16 array, shape (n, k + 1), optional
        Projections (`dedup.numerics.projection`) whose products bound the similarities.
    share : (int, int)
        Which share of the comparisons is made here, and of how many. The counts of all shares add up to those of the whole; their
        edges, sparsified once more, are its edges.
    device : Device, optional
        Where the products are computed that propose pairs; None = the CPU. Edges and counts are the same: float64 on the CPU
        judges what is proposed. What balls there are, and their rows' products with others, stay on the CPU.
    earlier : Earlier, optional
        What an earlier join of the first rows has found. Only pairs with another row are compared, and those of rows that stand for
        more samples than then.

    Returns
    -------
    Joined
        With `earlier`, the edges of all rows, and by how much the counts are more than they were then (weights of the rows themselves
        left out).
        Without balls, the edges are exactly forest and best edges of all pairs within the threshold. Inside a
        ball (`find_balls`) they are a star around its middle and a path: linear in its members.

    Raises
    ------
    ShapeError
        If the shapes do not match.
    """
    n = len(vectors)
    if min_similarity.shape != (n,) or weights.shape != (n,):
        raise ShapeError(f"expected {n} thresholds and weights, found {min_similarity.shape} and {weights.shape}")
    if projected is not None and len(projected) != n:
        raise ShapeError(f"expected projections of {n} rows, found {projected.shape}")
    if earlier is not None and len(earlier.added) != n:
        raise ShapeError(f"expected what was added to {n} rows, found {len(earlier.added)}")
    join = ListJoin(vectors, min_similarity, weights, ownership, best, projected, share, device, earlier)
    usable = min_similarity <= 1.0  # others ask for equal bytes, which are one row already
    balls: list[Ball] = []
    if n >= _COLLAPSE_FROM and join.may_be_dense():
        threshold = float(min_similarity.min())
        balls = find_balls(vectors, threshold, min_similarity == np.float32(threshold)) if threshold <= 1.0 else []
    for ball in balls:
        usable[ball.rows] = False
    rest = np.flatnonzero(usable)
    join.among(rest)
    for number, ball in enumerate(balls):
        join.inside(ball)
        join.between(rest, ball)
        for other in balls[number + 1 :]:
            join.between(other.rows, ball)
    return join.result()
