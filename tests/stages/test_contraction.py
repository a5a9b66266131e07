"""Large-star and small-star against networkx and scipy, on both engines."""

from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dedup.contracts import Table
from dedup.engines.local import LocalEngine
from dedup.stages.components import contract
from dedup.storage.tables import write_table

EDGES = pa.schema([("src", pa.int64()), ("dst", pa.int64())])


def random_graph(rng):
    return rng.integers(0, 3_000, (2_000, 2))


def path(rng, n=10_000):
    nodes = rng.permutation(n)
    return rng.permutation(np.stack([nodes[:-1], nodes[1:]], axis=1))


def star(rng):
    centre = np.full(5_000, 2_500)
    return rng.permutation(np.stack([centre, np.arange(5_000)], axis=1))


def many_components(rng):
    start = 5 * np.arange(3_000)
    return rng.permutation(np.concatenate([np.stack([start + a, start + b], axis=1) for a, b in ((0, 3), (3, 1), (4, 2), (2, 4))]))


def large_ids(rng):
    return random_graph(rng) * (1 << 40) + 7


GRAPHS = [random_graph, path, star, many_components, large_ids]


@pytest.fixture(scope="module", params=["local", pytest.param("spark", marks=pytest.mark.spark)])
def engine(request):
    engine = LocalEngine(2) if request.param == "local" else request.getfixturevalue("start_spark")()
    yield engine
    engine.close()


def stored(folder: Path, edges, n_files=9):
    table = Table(str(folder / "edges"), EDGES)
    for number, part in enumerate(np.array_split(edges, n_files)):
        write_table(table, [pa.table({"src": part[:, 0], "dst": part[:, 1]}, schema=EDGES)], f"part-{number}")
    return table


def labels_of(links, nodes):
    found = dict(zip(links["u"].to_pylist(), links["v"].to_pylist(), strict=True))
    assert len(found) == len(links)
    return np.array([found.get(node, node) for node in nodes.tolist()])


@pytest.mark.parametrize("graph", GRAPHS)
def test_labels_are_those_of_networkx_and_scipy(engine, tmp_path, graph):
    edges = graph(np.random.default_rng(1))
    found = contract(engine, stored(tmp_path, edges))
    nodes, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(edges.shape)
    by_scipy = connected_components(coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(nodes),) * 2))[1]
    first = np.full(by_scipy.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, by_scipy, nodes)
    labels = labels_of(found.links, nodes)
    assert (labels == first[by_scipy]).all()
    graph_of = nx.Graph(edges.tolist())
    assert {frozenset(part) for part in nx.connected_components(graph_of)} == {
        frozenset(nodes[labels == label].tolist()) for label in np.unique(labels)
    }
    assert found.n_rounds <= 20


def test_one_file_needs_no_round_and_none_no_link(engine, tmp_path):
    found = contract(engine, stored(tmp_path / "one", path(np.random.default_rng(0), 500), 1))
    assert found.n_rounds == 0
    assert len(found.links) == 499
    assert len(contract(engine, stored(tmp_path / "none", np.zeros((0, 2), np.int64), 6)).links) == 0


def test_a_condition_leaves_edges_out(engine, tmp_path):
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    found = contract(engine, stored(tmp_path, edges, 2), pc.field("src") != 2)
    assert labels_of(found.links, np.arange(5)).tolist() == [0, 0, 0, 3, 3]
