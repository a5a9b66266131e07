"""The pipeline on a real standalone cluster: the same tables as on one machine, whoever is killed."""

from __future__ import annotations

import time

import pytest
from patience import wait_for
from run_tables import assert_same_tables, rows_of

from dedup.config.load import load_config
from dedup.demo.shards import make_demo_data
from dedup.pipeline import run as pipeline
from dedup.storage.urls import read_json

pytestmark = [pytest.mark.spark, pytest.mark.slow]

N_IMAGES, PER_SHARD = 800, 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_demo_data(folder, n_images=N_IMAGES, seed=3, per_shard=PER_SHARD, workers=2)
    return f"{folder}/*.tar"


@pytest.fixture(scope="module")
def settings(shards):
    # lists even for so few images; small tasks, so that there is a middle of a stage to be killed in
    return [f"input.shards={shards}", "search.exhaustive_below=0", "search.nlist=64", "search.nprobe=16"]


@pytest.fixture(scope="module")
def local_run(tmp_path_factory, settings):
    run_dir = tmp_path_factory.mktemp("local") / "run"
    pipeline.run(load_config(None, [*settings, f"output.run_dir={run_dir}", "engine.workers=2"]))
    return run_dir


def done(run_dir):
    """Finished partitions: marker to the time it was written; not those that have half their bytes yet."""
    return {path.name: path.stat().st_mtime_ns for path in run_dir.glob("embeddings/_done/[0-9]*.json") if read_json(str(path))}


def test_workers_killed_in_embed_and_in_pairs(cluster, settings, local_run, tmp_path):
    run_dir = tmp_path / "run"
    job = cluster.submit("jobs/run.py", *settings, f"output.run_dir={run_dir}", "groups.max_driver_edges=0")
    n_shards = N_IMAGES // PER_SHARD
    wait_for(lambda: len(done(run_dir)) >= 3 or job.process.poll() is not None, "three partitions are embedded")
    cluster.kill_worker()
    assert len(done(run_dir)) < n_shards, job.text()[-2000:]
    cluster.add_worker()
    candidates = run_dir / "candidates"
    wait_for(lambda: any(candidates.glob("part-*.parquet")) or job.process.poll() is not None, "pairs has written something")
    cluster.kill_worker()
    assert not (run_dir / "_stages" / "pairs.json").exists(), "pairs was over before its worker was killed"
    cluster.add_worker()
    assert job.wait() == 0, job.text()[-3000:]
    assert_same_tables(local_run, run_dir)
    assert not (run_dir / "_scratch").exists()


def test_driver_killed_in_embed(cluster, settings, local_run, tmp_path):
    from spark_cluster import kill_group

    run_dir = tmp_path / "run"
    first = cluster.submit("jobs/embed.py", *settings, f"output.run_dir={run_dir}")
    wait_for(lambda: len(done(run_dir)) >= 3 or first.process.poll() is not None, "three partitions are embedded")
    kill_group(first.process)
    time.sleep(3.0)  # the executors notice, and end
    before = done(run_dir)
    assert 3 <= len(before) < N_IMAGES // PER_SHARD
    again = cluster.submit("jobs/embed.py", *settings, f"output.run_dir={run_dir}")
    assert again.wait() == 0, again.text()[-3000:]
    assert f"{len(before)} of {N_IMAGES // PER_SHARD} partitions are done already" in again.text()
    assert {name: stamp for name, stamp in done(run_dir).items() if name in before} == before
    assert rows_of(run_dir, "metadata") == rows_of(local_run, "metadata")


ALL_JOBS = """
import runpy, sys
jobs, run_dir, settings = sys.argv[1], sys.argv[2], sys.argv[3:]
for number, stage in enumerate("embed index pairs confirm groups exclude manifest statistics targets".split()):
    given = settings[:1] + ["-c", run_dir + ".yaml"] if number % 2 else settings
    sys.argv = ["run.py", "--only", stage, *given, "output.run_dir=" + run_dir]
    runpy.run_path(f"{jobs}/run.py", run_name="__main__")
"""


def test_each_stage_by_itself(cluster, settings, local_run, tmp_path):
    """Stage after stage, with and without a configuration file; one JVM for all of them, executors included, to save time."""
    from spark_cluster import REPOSITORY

    run_dir, script = tmp_path / "run", tmp_path / "all.py"
    script.write_text(ALL_JOBS)
    (tmp_path / "run.yaml").write_text("search:\n  exhaustive_below: 0\n  nlist: 64\n  nprobe: 16\nengine:\n  master: spark://nowhere:1\n")
    job = cluster.submit(str(script), str(REPOSITORY / "jobs"), str(run_dir), *settings, master="local[2]")
    assert job.wait() == 0, job.text()[-3000:]
    assert_same_tables(local_run, run_dir)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import spark_work
from dedup.cli.show.terminal import errors_shown
from dedup.engines.spark.engine import SparkEngine
with errors_shown():
    list(SparkEngine(sys.argv[2]).map_partitions(spark_work.kill_the_executor, [1]))
"""


def test_an_executor_killed_for_memory_is_named(cluster, tmp_path):
    from spark_cluster import REPOSITORY

    script, tests = tmp_path / "killed.py", str(REPOSITORY / "tests")
    script.write_text(KILLED)
    path = {"spark.task.maxFailures": "1", "spark.executorEnv.PYTHONPATH": f"{REPOSITORY}:{tests}"}
    job = cluster.submit(str(script), tests, str(tmp_path / "scratch"), **path)
    assert job.wait() == 1
    (line,) = [line for line in job.text().splitlines() if line.startswith("error:")]
    assert "a worker was killed, most likely for lack of memory; raise spark.executor.memoryOverhead" in line
