"""Recall of planted pairs and merges of different photos, from the pairs or the components that a tool returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from quality_files import Design

from dedup.numerics.graph.components import connected_components
from dedup.numerics.statistics.shares import wilson

Ints = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of files of one batch that a tool finds near each other.

    Parameters
    ----------
    src, dst : int64 array, shape (n_pairs,)
        Places in the batch.
    distance : float64 array, shape (n_pairs,)
        The tool's own; a similarity with its sign turned.
    """

    src: Ints
    dst: Ints
    distance: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a tool did at one setting.

    Attributes
    ----------
    found : dict
        Change to a bool array, shape (n_originals,): whether copy and original came into one component.
    merged : int64 array
        Pairs of different photos that came into one component in any batch, as ``smaller * n_photos + larger``.
    n_merged : int
        The same summed over batches.
    n_judged : int
        Pairs of different photos, summed over batches.
    """

    found: dict[str, npt.NDArray[np.bool_]]
    merged: Ints
    n_merged: int
    n_judged: int


def share_interval(k: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share; 0 to 1 of none."""
    return wilson(k, n) if n else (0.0, 1.0)


def merged_photos(labels: npt.ArrayLike, identity: npt.ArrayLike, n_photos: int) -> Ints:
    """Unordered pairs of different photos that share a component, each once, as ``smaller * n_photos + larger``.

    Examples
    --------
    >>> merged_photos([0, 0, 2, 0], identity=[0, 1, 2, 0], n_photos=3)  # files 0 and 3 show one photo
    array([1])
    """
    cells = np.unique(np.stack([np.asarray(labels), np.asarray(identity)]), axis=1)  # by component, then by photo
    bounds = np.flatnonzero(np.diff(cells[0], prepend=-1, append=-2))
    merged: list[int] = []
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        if stop - start > 1:
            merged += [a * n_photos + b for a, b in combinations(cells[1, start:stop].tolist(), 2)]
    return np.unique(np.array(merged, dtype=np.int64))


def tally(labels_by_change: Iterable[tuple[str, Ints]], design: Design) -> Tally:
    """Judge the components of every batch; labels in the order of `Design.batch`."""
    found, merged, n_merged, n = {}, np.zeros(0, np.int64), 0, design.n_originals
    for change, labels in labels_by_change:
        found[change] = labels[:n] == labels[design.n_photos :]
        here = merged_photos(labels, design.batch_identity, design.n_photos)
        merged, n_merged = np.union1d(merged, here), n_merged + len(here)
    n_photos = len(np.unique(design.identity))
    return Tally(found, merged, n_merged, len(found) * (n_photos * (n_photos - 1) // 2))


def tally_pairs(pairs: Mapping[str, Pairs], threshold: float, design: Design) -> Tally:
    """Judge the components formed by the pairs up to a distance."""
    n = design.n_photos + design.n_originals

    def labels(batch: Pairs) -> Ints:
        near = batch.distance <= threshold
        return connected_components(batch.src[near], batch.dst[near], n)

    return tally(((change, labels(batch)) for change, batch in pairs.items()), design)


def nearest_photos(pairs: Mapping[str, Pairs], design: Design, n: int = 20) -> list[tuple[float, int, int]]:
    """The nearest pairs of different photos over all batches, each once: distance and the two photos."""
    best: dict[tuple[int, int], float] = {}
    identity = design.batch_identity
    # the photos that the files show, not their identities, so that they can be looked up by name
    shown = np.concatenate([np.arange(design.n_photos), np.arange(design.n_originals)])
    for batch in pairs.values():
        differ = np.flatnonzero(identity[batch.src] != identity[batch.dst])
        for k in differ[np.argsort(batch.distance[differ], kind="stable")[: 20 * n]]:
            a, b = sorted((int(shown[batch.src[k]]), int(shown[batch.dst[k]])))
            best[a, b] = min(best.get((a, b), np.inf), float(batch.distance[k]))
    return sorted((distance, a, b) for (a, b), distance in best.items())[:n]


def summarize(result: Tally, families: Mapping[str, str], design: Design) -> dict[str, object]:
    """Figures of a tally as JSON: recall of each change, of each family and of all, merges.

    Parameters
    ----------
    result : Tally
    families : mapping
        Change to its family; a family's recall pools its changes, of which each has as many copies.
    design : Design
    """
    pooled: dict[str, tuple[int, int]] = {}
    for change, found in result.found.items():
        for name in (families[change], "all"):
            k, n = pooled.get(name, (0, 0))
            pooled[name] = (k + int(found.sum()), n + len(found))
    everything = pooled.pop("all", (0, 0))
    pairs = [(design.photos[code // design.n_photos], design.photos[code % design.n_photos]) for code in result.merged[:200].tolist()]
    return {
        "all": _recall(*everything),
        "families": {name: _recall(*counts) for name, counts in pooled.items()},
        "changes": {change: _recall(int(found.sum()), len(found)) for change, found in result.found.items()},
        "merges": len(result.merged),
        "merges_summed": result.n_merged,
        "pairs_judged": result.n_judged,
        "false_rate": result.n_merged / max(1, result.n_judged),
        "merged": pairs,
    }


def _recall(k: int, n: int) -> dict[str, float]:
    low, high = share_interval(k, n)
    return {"found": k, "n": n, "recall": round(k / max(1, n), 4), "low": round(low, 4), "high": round(high, 4)}
