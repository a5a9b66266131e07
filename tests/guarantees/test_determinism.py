"""The same input and configuration give the same tables: with any workers, threads and hash seed, in any order of shards, on both engines."""

import glob
import json
import os
import subprocess
import sys

import pytest
from run_tables import TABLES, table
from shard_data import make_samples, write_shards

# lists and codes, second looks, thumbnails, and a threshold below which chance pairs are many
SETTINGS = ["search.exhaustive_below=20", "search.nlist=6", "search.nprobe=2", "search.min_similarity=0.5", "index.codes=pq", "embed.thumbnails=true"]  # fmt: skip


def run(folder, name, shards, *settings, **environment):
    command = [sys.executable, "-m", "dedup", "run", *shards, f"output.run_dir={name}", *SETTINGS, "report.enabled=false", *settings]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / name


def contents(run_dir):
    """Bytes of every table and array, without records."""
    found = {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in found.items()
        if not name.startswith(("_stages/", "_lock.json", "_config.json")) and "/_done/" not in name
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards, one of them cut, and a run over them by one worker."""
    folder = tmp_path_factory.mktemp("determinism")
    write_shards(folder / "shards", make_samples(120, seed=5), per_shard=24)
    cut = folder / "shards" / "00003.tar"
    cut.write_bytes(cut.read_bytes()[:-16_000])
    run(folder, "one", ["input.shards=shards/*.tar"], "engine.workers=1", OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    return folder


def named(folder, order):
    paths = sorted(glob.glob("shards/*.tar", root_dir=folder))
    return [f"input.shards={path}" for path in order(paths)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "workers", "threads"),
    [
        (lambda paths: [*paths[5::-1], *paths[6:], paths[2]], 5, "4"),  # one of them twice
        (lambda paths: ["shards/0000{3..0}.tar", *paths[::2], "shards/*.tar"], 2, "3"),
    ],
    ids=["turned", "braces"],
)
def test_workers_threads_and_the_order_of_shards(folder, order, workers, threads):
    shards = named(folder, order)
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    other = run(folder, f"run{workers}", shards, f"engine.workers={workers}", PYTHONHASHSEED=threads, **environment)
    left, right = contents(folder / "one"), contents(other)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []
    assert len(table(folder / "one", "manifest")) > 60
    assert len(table(folder / "one", "duplicates")) > 60


@pytest.mark.slow
def test_spark_gives_the_same_tables(folder, require_extra, require_java):
    require_extra("pyspark")
    settings = ["engine.name=spark", "engine.master=local[2]", "engine.sends_rows=true", "engine.spark=spark.ui.enabled=false", "engine.spark=spark.sql.shuffle.partitions=3"]  # fmt: skip
    other = run(folder, "spark", named(folder, reversed), *settings)
    for table_name in TABLES:
        left, right = (sorted(map(repr, table(run_dir, table_name).to_pylist())) for run_dir in (folder / "one", other))
        assert left == right, table_name
    # the arrays, to the last bit
    left, right = contents(folder / "one"), contents(other)
    arrays = [path for path in left if path.endswith((".npy", ".npz", ".bin", ".faiss", ".ivfdata"))]
    assert len(arrays) > 10
    assert [path for path in arrays if left[path] != right.get(path)] == []


def test_seeds_are_recorded(folder):
    for stage in ("index", "pairs"):
        record = json.loads((folder / "one" / "_stages" / f"{stage}.json").read_text())
        if stage == "index":
            assert record["config"]["index.seed"] == 1234
    config = json.loads((folder / "one" / "_config.json").read_text())
    assert config["index"]["seed"] == 1234
