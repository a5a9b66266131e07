"""What a run would have removed at other thresholds, against networkx over all pairs."""

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from shard_data import make_samples, write_shards
from typer.testing import CliRunner
from vector_data import all_similarities, with_planted

import dedup
from dedup.attack.sweep import sweep
from dedup.cli.main import app
from dedup.errors import ConfigError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.schemas import OUTLIERS, SWEEP

THRESHOLDS = [0.6, 0.7, 0.75, 0.8, 0.9, 0.97, 1.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    rows = with_planted(np.random.default_rng(0), 800, dim=32, share=0.4)
    rows[100:110] = rows[100]
    (folder / "source" / "img_emb").mkdir(parents=True)
    (folder / "source" / "metadata").mkdir()
    np.save(folder / "source" / "img_emb" / "img_emb_0.npy", rows)
    pq.write_table(pa.table({"caption": [f"{i}" for i in range(800)]}), folder / "source" / "metadata" / "metadata_0.parquet")
    wanted = ["encoder.name=precomputed", f"input.embeddings={folder}/source", f"output.run_dir={folder}/run", "engine.workers=1"]
    dedup.run(dedup.load_config(None, [*wanted, "search.min_similarity=0.7"]))
    return str(folder / "run")


def test_every_threshold_is_as_all_pairs_say(run):
    found = sweep(run, THRESHOLDS)
    similarity = all_similarities(Run(str(run)).read_vectors(np.arange(800)))
    for row in found.table.to_pylist()[1:]:
        graph = nx.from_numpy_array(np.triu(similarity >= np.float32(row["threshold"]), 1))
        assert row["n_removed"] == 800 - nx.number_connected_components(graph)
        assert row["share_removed"] == row["n_removed"] / 800
        assert row["n_confirmed"] == row["n_removed"]  # there are no pixels to look at
    assert found.table["n_removed"][1].as_py() > 100
    assert found.table.schema == SWEEP


def test_below_the_runs_own_threshold_nothing_is_known(run):
    found = sweep(run, [0.6, 0.9])
    assert found.table["n_removed"].to_pylist()[0] is None
    assert "below 0.7, the run's own threshold, nothing is known" in found.notes[0]
    assert sweep(run).table["threshold"].to_pylist() == [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 1.0]
    assert sweep(run).notes == []


def test_the_command(run, tmp_path):
    for name, read in (("s.parquet", pq.read_table), ("s.csv", pyarrow.csv.read_csv)):
        result = CliRunner().invoke(app, ["extraction", "sweep", run, "--thresholds", "0.65,0.7,0.9", "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        assert "not known" in result.output
        assert "5,275 of 50,000" in result.output
        assert read(tmp_path / name)["threshold"].to_pylist() == [0.65, 0.7, 0.9]
    with pytest.raises(ConfigError, match=r"\.parquet or \.csv"):
        CliRunner().invoke(app, ["extraction", "sweep", run, "--out", str(tmp_path / "s.xls")], catch_exceptions=False)
    with pytest.raises(ConfigError, match="expected numbers"):
        CliRunner().invoke(app, ["extraction", "sweep", run, "--thresholds", "a"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="threshold 2"):
        sweep(run, [2.0])
    with pytest.raises(RunDirectoryError, match="holds no run"):
        sweep(str(tmp_path))


def test_of_shards_with_copies(tmp_path):
    """The run's own threshold gives what the run drops, where no look at the pixels and no group says otherwise; the outliers' command."""
    shards = write_shards(tmp_path / "shards", make_samples(40, n_broken=0))
    wanted = [f"input.shards={shards}", f"output.run_dir={tmp_path}/run", "engine.workers=1", "search.views=false", "confirm.enabled=false"]
    dedup.run(dedup.load_config(None, wanted))
    found = sweep(f"{tmp_path}/run")
    assert found.n_dropped == found.table["n_removed"][0].as_py() == found.table["n_confirmed"][0].as_py() > 10
    arguments = ["extraction", "outliers", f"{tmp_path}/run", "--top", "9", "--by", "ratio", "--neighbors", "3", "engine.workers=1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "9, the first 9 certain" in result.output
    table = pq.read_table(sorted((tmp_path / "run" / "outliers").glob("part-*.parquet")), schema=OUTLIERS)
    assert len(table) == 9
    assert table["n_bytes"].to_numpy().min() > 0
