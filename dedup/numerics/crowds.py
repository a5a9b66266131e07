"""Crowds of near-copies among all vectors: set aside, so that no search returns all of a crowd for each of its members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.collapse import SAFETY, find_balls, half_angle_cosine
from dedup.numerics.distances import unit_rows


@dataclass(frozen=True)
class Crowds:
    """Vectors that are joined among themselves.

    Parameters
    ----------
    group : int32 array, shape (n,)
        The crowd whose surroundings each vector is in, -1 for none: pairs inside one are found by joining it.
    is_inside : bool array, shape (n,)
        Members of a ball, all of whose neighbours are in its surroundings.
    """

    group: npt.NDArray[np.int32]
    is_inside: npt.NDArray[np.bool_]

    @property
    def n_groups(self) -> int:
        """Number of crowds."""
        return int(self.group.max(initial=-1)) + 1


def find_crowds(
    sample: npt.NDArray[np.float16], n: int, blocks: Iterable[tuple[slice, npt.NDArray[np.float16]]], min_similarity: float
) -> Crowds:
    """Find crowds in a sample, and their surroundings among all vectors.

    Parameters
    ----------
    sample : float16 array, shape (m, dim)
    n : int
        Vectors in all.
    blocks : iterable of (slice, float16 array (b, dim))
        All vectors, in order; read only if the sample holds a crowd.
    min_similarity : float
        Cosine from which two vectors are neighbours.

    Returns
    -------
    Crowds

    Notes
    -----
    Vectors within half the threshold's angle θ of a pivot are mutual neighbours; whatever is a neighbour of one of them is within
    1.5 θ of the pivot. Surroundings that meet are one.
    """
    group = np.full(n, -1, dtype=np.int32)
    is_inside = np.zeros(n, dtype=bool)
    balls = find_balls(sample, min_similarity, np.ones(len(sample), dtype=bool))
    if not balls:
        return Crowds(group, is_inside)
    pivots = np.stack([ball.pivot for ball in balls]).astype(np.float32)
    within = half_angle_cosine(min_similarity) + SAFETY
    around = float(np.cos(min(np.pi, 1.5 * np.arccos(min_similarity)))) - SAFETY
    united = np.arange(len(balls))  # the smallest crowd that each is one with
    for part, rows in blocks:
        product = unit_rows(rows) @ pivots.T
        near = product >= around
        is_inside[part] = (product >= within).any(axis=1)
        for place in np.flatnonzero(near.sum(axis=1) > 1).tolist():
            met = np.unique(united[near[place]])
            united[np.isin(united, met)] = met[0]
        group[part] = np.where(near.any(axis=1), near.argmax(axis=1), -1)
    _, numbers = np.unique(united, return_inverse=True)
    group = np.where(group >= 0, numbers[np.maximum(group, 0)], -1).astype(np.int32)
    return Crowds(group, is_inside)
