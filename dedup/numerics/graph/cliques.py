"""The largest clique of a graph of near pairs: exact by networkx, within a bound on its work."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import networkx as nx
import numpy as np

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Ids, Mask

_MOST_CLIQUES = 20_000  # maximal cliques enumerated; planted and real generations have a handful


@dataclass(frozen=True)
class Clique:
    """A largest clique."""

    members: Ids  # shape (size,); ascending; empty for a graph without nodes
    is_exact: bool  # whether no larger one can exist; otherwise the search reached its limit, and this is the largest it met


def largest_clique(is_near: Mask, *, most_cliques: int = _MOST_CLIQUES) -> Clique:
    """The largest set of nodes that are all near each other; of equal ones, the first that is met.

    `is_near`: shape (n, n); symmetric; the diagonal does not count.
    `most_cliques`: maximal cliques that may be enumerated (their number can be exponential).

    A clique of s nodes lies in the (s - 1)-core. A greedy clique bounds s from below, so only that core is searched,
    component by component, by networkx's enumeration of maximal cliques (Bron and Kerbosch 1973, with pivots by Tomita et al. 2006).

    >>> graph = np.zeros((5, 5), bool)
    >>> graph[:3, :3] = graph[3:, 3:] = True
    >>> largest_clique(graph).members.tolist()
    [0, 1, 2]
    """
    if is_near.ndim != 2 or is_near.shape[0] != is_near.shape[1]:
        raise ShapeError(f"expected a square matrix, found {is_near.shape}")
    adjacency = is_near & is_near.T
    np.fill_diagonal(adjacency, False)
    best = _greedy(adjacency)
    graph = nx.from_numpy_array(adjacency)
    core = graph.subgraph(node for node, number in nx.core_number(graph).items() if number >= len(best))  # to beat the best by one
    n_allowed, is_exact = most_cliques, True
    for component in sorted(nx.connected_components(core), key=lambda nodes: (-len(nodes), min(nodes))):
        if len(component) <= len(best):
            continue
        for clique in islice(nx.find_cliques(core.subgraph(sorted(component))), max(n_allowed, 0)):
            n_allowed -= 1
            if len(clique) > len(best):
                best = sorted(clique)
        if n_allowed <= 0:
            is_exact = False
            break
    return Clique(np.array(best, dtype=np.int64), is_exact)


def _greedy(adjacency: Mask) -> list[int]:
    """The largest clique grown from one of the best connected nodes, each time by the best connected common neighbour."""
    degree = adjacency.sum(axis=1)
    best: list[int] = []
    for start in np.argsort(-degree, kind="stable")[:32].tolist():
        clique, is_candidate = [start], adjacency[start].copy()
        while is_candidate.any():
            nodes = np.flatnonzero(is_candidate)
            nearest = nodes[np.argmax(adjacency[np.ix_(nodes, nodes)].sum(axis=1))]
            clique.append(int(nearest))
            is_candidate &= adjacency[nearest]
        if len(clique) > len(best):
            best = sorted(clique)
    return best
