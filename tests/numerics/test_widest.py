"""Widest paths against networkx."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import EdgeError
from dedup.numerics.graph.components import widest_path

IDS = [3, 7, 8, 20, 21, 1 << 33, (1 << 33) + 5, (5 << 32) + 1]
EDGES = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS), st.integers(1, 6).map(lambda k: k / 8)), min_size=1, max_size=24)


def oracle(edges, start, end):
    """Weakest edge and number of edges of the best path, or None."""
    graph = nx.Graph()
    for a, b, similarity in edges:
        if a != b and similarity > graph.get_edge_data(a, b, {"weight": 0.0})["weight"]:
            graph.add_edge(a, b, weight=similarity)
    if start not in graph or end not in graph or not nx.has_path(graph, start, end):
        return None
    path = nx.shortest_path(nx.maximum_spanning_tree(graph), start, end)
    weakest = min(graph.edges[pair]["weight"] for pair in zip(path[:-1], path[1:], strict=True))
    wide = nx.Graph([pair for pair in graph.edges if graph.edges[pair]["weight"] >= weakest])
    return weakest, nx.shortest_path_length(wide, start, end)


@given(EDGES, st.sampled_from(IDS), st.sampled_from(IDS))
def test_the_path_is_as_wide_as_can_be_and_no_longer_than_need_be(edges, start, end):
    src, dst, similarity = (list(column) for column in zip(*edges, strict=True))
    expected = (1.0, 0) if start == end else oracle(edges, start, end)
    if expected is None:
        with pytest.raises(EdgeError, match=str(start)):
            widest_path(src, dst, similarity, start, end)
        return
    path = widest_path(src, dst, similarity, start, end).tolist()
    assert (path[0], path[-1]) == (start, end)
    best = {}
    for a, b, value in edges:
        best[frozenset((a, b))] = max(value, best.get(frozenset((a, b)), 0.0))
    steps = [best[frozenset(pair)] for pair in zip(path[:-1], path[1:], strict=True)]
    assert (min(steps, default=1.0), len(steps)) == expected
    # the order and direction of the edges do not matter
    assert widest_path(dst[::-1], src[::-1], similarity[::-1], start, end).tolist() == path


def test_a_long_chain_and_a_shortcut():
    n = 30_000
    chain = np.arange(n - 1)
    src, dst = np.r_[chain, 0], np.r_[chain + 1, n - 1]
    assert len(widest_path(src, dst, np.r_[np.full(n - 1, 0.9), 0.8], 0, n - 1)) == n
    assert widest_path(src, dst, np.r_[np.full(n - 1, 0.9), 0.9], 0, n - 1).tolist() == [0, n - 1]


def test_wrong_shapes():
    with pytest.raises(EdgeError, match="one shape"):
        widest_path([1, 2], [2], [0.5], 1, 2)
