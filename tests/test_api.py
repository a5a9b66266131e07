"""Public names, and the array interface against exhaustive search."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from in_process import InProcess
from shard_data import make_samples, write_shards
from vector_data import all_similarities, power_law, with_planted

import dedup
from dedup.errors import ShapeError
from dedup.numerics.graph.components import connected_components


def test_every_public_name_is_there():
    assert sorted(dedup.__all__) == sorted(set(dedup.__all__))
    for name in dedup.__all__:
        assert getattr(dedup, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dedup.nothing
    assert dir(dedup) == sorted(dedup.__all__)


def test_a_run_over_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "pairs", make_samples(10))
    summary = dedup.run(tmp_path / "pairs", settings={"report.enabled": False, "search": {"min_similarity": 0.9}}, engine=InProcess())
    assert summary.run_dir == "pairs-dedup" and Path("pairs-dedup/manifest").is_dir()
    config = dedup.load_config({"input.shards": "pairs/*.tar", "report.enabled": False})
    summary = dedup.run([str(tmp_path / "pairs")], out="x", settings={"report.enabled": False}, engine=InProcess())
    assert summary.run_dir == "x"
    again = dedup.run(config, out="y", engine=InProcess())
    assert again.run_dir == "y" and Path("y/manifest").is_dir()
    with pytest.raises(dedup.DedupError, match="nowhere does not exist"):
        dedup.run("nowhere")
    assert dedup.__version__[0].isdigit()


def test_type_checkers_see_every_public_name():
    tree = ast.parse(inspect.getsource(dedup))
    seen = [entry for node in tree.body if isinstance(node, ast.If) for entry in node.body if isinstance(entry, ast.ImportFrom)]
    assert all(alias.asname == alias.name for entry in seen for alias in entry.names)  # or they are no exports
    assert {(entry.module, alias.name) for entry in seen for alias in entry.names} == {
        (getattr(dedup, name).__module__ if name != "Config" else "dedup.config", name) for name in dedup.__all__
    }


@pytest.mark.parametrize("options", [{}, {"exhaustive_below": 0}, {"exhaustive_below": 0, "nlist": 12, "nprobe": 12}])
def test_near_duplicates_equal_exhaustive_search(options):
    rows = with_planted(np.random.default_rng(0), 3_000, dim=96).astype(np.float32)
    edges = dedup.near_duplicates(rows * 3.0, 0.8, **options)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    near = all_similarities(unit.astype(np.float16)) >= np.float32(0.8)
    np.fill_diagonal(near, False)
    src, dst = np.nonzero(np.triu(near))
    assert len(src) > 300
    is_complete = "nlist" in options or not options
    found = set(zip(edges.src.tolist(), edges.dst.tolist(), strict=True))
    assert found <= set(zip(src.tolist(), dst.tolist(), strict=True))
    assert len(found) == len(edges.src)
    if is_complete:
        assert np.array_equal(edges.n_neighbors, near.sum(1))
        expected = connected_components(src, dst, 3_000)
        assert np.array_equal(connected_components(edges.src, edges.dst, 3_000), expected)
    else:
        assert edges.n_neighbors.sum() > 0.99 * near.sum()


def test_a_chain_of_public_calls():
    rng = np.random.default_rng(1)
    rows = power_law(rng, 300, 32)
    rows[10:15] = rows[3]
    edges = dedup.near_duplicates(rows, 0.999)
    labels = dedup.connected_components(edges.src, edges.dst, len(rows))
    counts = dedup.duplication_counts(labels)
    assert counts[[3, 10, 14]].tolist() == [6, 6, 6]
    assert (counts == 1).sum() == 294
    assert edges.n_neighbors[12] == 5


@pytest.mark.parametrize(
    ("rows", "threshold", "message"),
    [
        (np.zeros(5), 0.9, "shape"),
        (np.full((5, 2), "a"), 0.9, "numbers"),
        (np.full((5, 2), np.nan), 0.9, "found NaN"),
        (np.ones((5, 2)), 1.5, "min_similarity=1.5"),
    ],
)
def test_wrong_arguments(rows, threshold, message):
    with pytest.raises(ShapeError, match=message):
        dedup.near_duplicates(rows, threshold)
