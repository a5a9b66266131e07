"""Largest cliques against networkx's own."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.errors import ShapeError
from dedup.numerics.graph.cliques import largest_clique


def matrix(graph):
    return nx.to_numpy_array(graph, nodelist=sorted(graph)).astype(bool)


def check(adjacency):
    found = largest_clique(adjacency)
    expected, _ = nx.max_weight_clique(nx.from_numpy_array(adjacency), weight=None)
    assert found.is_exact
    assert len(found.members) == len(expected)
    inside = adjacency[np.ix_(found.members, found.members)]
    assert inside.sum() == len(found.members) * (len(found.members) - 1)
    assert (np.diff(found.members) > 0).all()


@given(n=st.integers(1, 24), density=st.floats(0.0, 1.0), seed=st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_random_graphs(n, density, seed):
    check(matrix(nx.gnp_random_graph(n, density, seed=seed)))


@pytest.mark.parametrize("seed", range(4))
def test_planted_cliques_in_500_generations(seed):
    """What a prompt's generations look like: some memorised images, and noise between the others."""
    rng = np.random.default_rng(seed)
    adjacency = np.triu(rng.random((500, 500)) < 0.02, 1)
    places = rng.permutation(500)
    for size, start in ((60, 0), (25, 60), (11, 85)):
        members = places[start : start + size]
        adjacency[np.ix_(members, members)] = True
    adjacency = np.triu(adjacency, 1)
    found = largest_clique(adjacency | adjacency.T)
    assert found.is_exact
    assert found.members.tolist() == sorted(places[:60].tolist())


def test_complete_and_empty_graphs():
    check(~np.eye(40, dtype=bool))
    assert largest_clique(np.zeros((0, 0), bool)).members.tolist() == []
    assert largest_clique(np.zeros((5, 5), bool)).members.tolist() == [0]
    assert largest_clique(np.ones((1, 1), bool)).members.tolist() == [0]


def test_where_the_search_ends_at_its_bound_it_says_so():
    # the complement of disjoint triangles (Moon and Moser 1965): 3^20 maximal cliques, each of one node a triangle
    adjacency = ~matrix(nx.disjoint_union_all([nx.complete_graph(3)] * 20)) & ~np.eye(60, dtype=bool)
    hidden = adjacency.copy()
    hidden[np.ix_(range(3), range(3))] = ~np.eye(3, dtype=bool)
    found = largest_clique(hidden, most_cliques=50)
    assert len(found.members) in (20, 21, 22)
    if len(found.members) < 22:
        assert not found.is_exact
    with pytest.raises(ShapeError, match="square"):
        largest_clique(np.zeros((2, 3), bool))


def test_a_bound_that_is_met_is_not_exact():
    graph = nx.gnp_random_graph(40, 0.5, seed=1)
    assert not largest_clique(matrix(graph), most_cliques=1).is_exact
