"""Inverted lists shared out to workers in packs of about equal cost."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dedup.contracts import Pack

_PACKS_PER_WORKER = 24  # small enough at the end that no core waits long for the last
_HOT_ROWS = 131_072  # members up to which a list is one worker's: some 30 s
_HOT = 4.0  # times the mean cost of a list, up to which it is too


def count_lists(blocks: Iterable[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64]:
    """Members of each list, int64 (nlist,), from blocks of the lists of each member.

    Examples
    --------
    >>> count_lists([np.array([[0, 2], [2, 3]], np.int32), np.array([[3, 0]], np.int32)])
    array([2, 0, 2, 2])
    """
    sizes = np.zeros(0, dtype=np.int64)
    for lists in blocks:
        counted = np.bincount(lists.ravel(), minlength=len(sizes))
        counted[: len(sizes)] += sizes
        sizes = counted
    return sizes


def pack_lists(sizes: npt.NDArray[np.int64], n_workers: int, fresh: npt.NDArray[np.int64] | None = None) -> list[Pack]:
    """Pack lists into tasks of about equal cost, the costliest first; a hot list is shared out.

    A list costs its square and its gather; lists of one member cost nothing. Into how many shares a list is cut depends on the
    sizes alone, because each share keeps edges of its own: the edges must not depend on the number of workers.

    Parameters
    ----------
    sizes : int64 array, shape (nlist,)
    n_workers : int
    fresh : int64 array, shape (nlist,), optional
        Members that are compared with all others; None = all are. Lists without any cost nothing.

    Returns
    -------
    list of Pack
        One empty pack where there is nothing to do.
    """
    lists = np.flatnonzero(sizes > 1 if fresh is None else (sizes > 1) & (fresh > 0))
    known = np.zeros(len(lists)) if fresh is None else (sizes[lists] - fresh[lists]).astype(np.float64)
    cost = sizes[lists].astype(np.float64) ** 2 - known**2 + 500.0 * sizes[lists]
    order = np.argsort(-cost, kind="stable")
    lists, cost = lists[order], cost[order]
    n_shares = np.ceil(cost / max(float(_HOT_ROWS) ** 2, _HOT * float(cost.mean()))).astype(np.int64) if len(lists) else lists
    limit = cost.sum() / (_PACKS_PER_WORKER * n_workers)
    packs: list[Pack] = []
    for number, n in zip(lists[n_shares > 1].tolist(), n_shares[n_shares > 1].tolist(), strict=True):
        packs += [Pack(len(packs) + share, np.array([number]), share, n) for share in range(n)]
    lists, cost = lists[n_shares <= 1], cost[n_shares <= 1]
    start, filled = 0, 0.0
    for place in range(len(lists)):
        if filled and filled + cost[place] > limit:
            packs.append(Pack(len(packs), np.sort(lists[start:place])))
            start, filled = place, 0.0
        filled += float(cost[place])
    # an empty table still has one file
    return [*packs, Pack(len(packs), np.sort(lists[start:]))] if len(lists) > start or not packs else packs
