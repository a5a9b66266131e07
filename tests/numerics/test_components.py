"""Forests and components against networkx."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import EdgeError
from dedup.numerics.graph.components import best_edges, connected_components, maximum_spanning_forest, sparsify


@st.composite
def weighted_graphs(draw):
    n = draw(st.integers(2, 30))
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=80))
    edges = sorted({(min(a, b), max(a, b)) for a, b in pairs if a != b})
    # few distinct weights, so that ties are common
    weights = draw(st.lists(st.sampled_from([0.7, 0.8, 0.9]), min_size=len(edges), max_size=len(edges)))
    src, dst = (np.array([edge[i] for edge in edges], dtype=np.int64) for i in (0, 1))
    return n, src, dst, np.array(weights, dtype=np.float32)


def networkx_labels(src, dst, n):
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(zip(src.tolist(), dst.tolist(), strict=True))
    labels = np.zeros(n, dtype=np.int64)
    for component in nx.connected_components(graph):
        labels[list(component)] = min(component)
    return labels


@pytest.mark.parametrize("n_edges", [0, 10, 256, 257, 5_000])
def test_components_equal_networkx(n_edges):
    rng = np.random.default_rng(n_edges)
    n = 3_000
    src, dst = rng.integers(0, n, n_edges), rng.integers(0, n, n_edges)
    assert np.array_equal(connected_components(src, dst, n), networkx_labels(src, dst, n))


def test_components_of_a_long_path():
    order = np.random.default_rng(0).permutation(10_000)
    assert np.array_equal(connected_components(order[:-1], order[1:], 10_000), np.zeros(10_000))


@given(weighted_graphs())
def test_forest_is_kruskals_under_the_total_order(graph):
    n, src, dst, similarity = graph
    order = sorted(range(len(src)), key=lambda i: (-similarity[i], src[i], dst[i]))
    union = nx.utils.UnionFind(range(n))
    expected = np.zeros(len(src), dtype=bool)
    for i in order:
        if union[src[i]] != union[dst[i]]:
            union.union(src[i], dst[i])
            expected[i] = True
    assert np.array_equal(maximum_spanning_forest(src, dst, similarity), expected)


@given(weighted_graphs(), st.integers(0, 2**16), st.integers(1, 4))
def test_sparsifying_composes(graph, cut, k):
    _, src, dst, similarity = graph
    side = np.array([(cut >> (i % 16)) & 1 for i in range(len(src))], dtype=bool)
    survivors = np.zeros(len(src), dtype=bool)
    for part in (side, ~side):
        survivors[np.flatnonzero(part)[sparsify(src[part], dst[part], similarity[part], k)]] = True
    again = np.zeros(len(src), dtype=bool)
    again[np.flatnonzero(survivors)[sparsify(src[survivors], dst[survivors], similarity[survivors], k)]] = True
    assert np.array_equal(again, sparsify(src, dst, similarity, k))


@given(weighted_graphs(), st.integers(1, 4))
def test_best_edges_equal_a_loop(graph, k):
    n, src, dst, similarity = graph
    expected = set()
    for node in range(n):
        own = [i for i in range(len(src)) if node in (src[i], dst[i])]
        expected.update(sorted(own, key=lambda i: (-similarity[i], src[i], dst[i]))[:k])
    assert set(np.flatnonzero(best_edges(src, dst, similarity, k)).tolist()) == expected


def test_errors_name_what_is_wrong():
    with pytest.raises(EdgeError, match="of one shape"):
        connected_components([0, 1], [1], 3)
    with pytest.raises(EdgeError, match=r"in \[0, 3\), found 0 to 7"):
        connected_components([0, 1], [1, 7], 3)
