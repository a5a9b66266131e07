"""Images removed at a sweep of thresholds, against networkx at each."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.errors import EdgeError
from dedup.numerics.graph.components import maximum_spanning_forest, removed_by_threshold, sparsify

THRESHOLDS = [0.95, 0.5, 0.7, 0.7, 0.901, 1.0, 1.5]


def by_networkx(src, dst, similarity, n, thresholds):
    removed = []
    for threshold in thresholds:
        graph = nx.Graph()
        graph.add_nodes_from(range(n))
        graph.add_edges_from((a, b) for a, b, s in zip(src, dst, similarity, strict=True) if np.float32(s) >= np.float32(threshold))
        removed.append(n - nx.number_connected_components(graph))
    return removed


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(0, 150))
def test_every_threshold_is_as_networkx_says(seed, n, n_edges):
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, n, n_edges), rng.integers(0, n, n_edges)
    # ties, repeated edges and loops among them
    similarity = (rng.integers(50, 101, n_edges) / 100).astype(np.float32)
    found = removed_by_threshold(src, dst, similarity, n, THRESHOLDS)
    assert found.tolist() == by_networkx(src, dst, similarity, n, THRESHOLDS)


@given(st.integers(0, 2**32 - 1))
def test_a_forest_and_best_edges_are_enough(seed):
    """What a run keeps of its pairs answers for every threshold above its own."""
    rng = np.random.default_rng(seed)
    src, dst = np.triu_indices(40, 1)
    similarity = rng.random(len(src)).astype(np.float32)
    kept = sparsify(src, dst, similarity, 2)
    every, some = (removed_by_threshold(src[mask], dst[mask], similarity[mask], 40, THRESHOLDS) for mask in (slice(None), kept))
    assert np.array_equal(every, some)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_remove_what_components_do(seed):
    rng = np.random.default_rng(seed)
    n = 60
    pairs = np.unique(np.sort(rng.integers(0, n, (150, 2)), axis=1), axis=0)
    src, dst = pairs[pairs[:, 0] != pairs[:, 1]].T
    similarity = rng.random(len(src))
    thresholds = [0.0, 0.2, 0.5, 0.8, 1.0]
    expected = []
    for threshold in thresholds:
        graph = nx.empty_graph(n)
        graph.add_edges_from(zip(src[similarity >= threshold], dst[similarity >= threshold], strict=True))
        expected.append(n - nx.number_connected_components(graph))
    assert removed_by_threshold(src, dst, similarity, n, thresholds).tolist() == expected
    forest = maximum_spanning_forest(src, dst, similarity.astype(np.float32))
    assert removed_by_threshold(src[forest], dst[forest], similarity[forest], n, thresholds).tolist() == expected


def test_a_threshold_is_met_as_tables_hold_it():
    assert removed_by_threshold([0], [1], np.array([0.9], np.float32), 2, [0.9]).tolist() == [1]
    assert removed_by_threshold([0], [1], np.array([0.9], np.float32), 2, np.array([0.9])).tolist() == [1]
    assert removed_by_threshold([], [], [], 5, [0.5]).tolist() == [0]


def test_wrong_arguments():
    with pytest.raises(EdgeError, match="one shape"):
        removed_by_threshold([0, 1], [1], [0.5], 3, [0.5])
    with pytest.raises(EdgeError, match=r"ids in \[0, 2\)"):
        removed_by_threshold([0], [2], [0.5], 2, [0.5])
    with pytest.raises(EdgeError, match="found NaN"):
        removed_by_threshold([0], [1], [np.nan], 2, [0.5])
