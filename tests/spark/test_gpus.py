"""GPUs on a real standalone cluster, whose workers say they have some: what tasks are given, and what is said where none is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spark_work
from group_work import Numbers
from patience import HANGS_S
from run_tables import rows_of

from dedup.config.load import load_config
from dedup.contracts import Pack
from dedup.demo.shards import make_demo_data
from dedup.errors import ConfigError
from dedup.pipeline import run as pipeline
from dedup.stages.stage import SilentReporter

pytestmark = [pytest.mark.spark, pytest.mark.slow]

N_GPUS = 2
EXECUTOR_GPUS = f"spark.executor.resource.gpu.amount={N_GPUS}"
OPTIONS = ["spark.executor.memory=512m", "spark.driver.host=127.0.0.1", "spark.ui.enabled=false"]


@pytest.fixture(scope="module")
def add_gpus(cluster):
    """Let a worker with GPUs join, if there is none yet."""

    def add():
        if not cluster.n_gpus:
            cluster.add_worker(cores=2, n_gpus=N_GPUS)

    return add


@pytest.fixture
def start(cluster, start_spark):
    """An engine on the cluster; engines with the same options share their executors."""
    from spark_cluster import REPOSITORY

    path = f"spark.executorEnv.PYTHONPATH={REPOSITORY}:{REPOSITORY / 'tests'}"
    return lambda *options, **arguments: start_spark(cluster.master, path, *OPTIONS, *options, **arguments)


@pytest.fixture
def no_session(spark_sessions):
    """The test's own session is the only one, and all workers are its own."""
    spark_sessions.stop()
    yield
    spark_sessions.stop()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_demo_data(folder, n_images=60, seed=3, per_shard=20, workers=1)
    return f"{folder}/*.tar"


def run_side_by_side(engine, folder, n=N_GPUS, **arguments):
    """GPUs of each task, while as many run at a time."""
    folder.mkdir()
    tasks = [(str(folder), number, n) for number in range(n)]
    return sorted(gpus for _, (gpus, _) in engine.map_partitions(spark_work.gpus_side_by_side, tasks, **arguments))


class Listener(SilentReporter):
    """Keeps what is said of tasks that wait, and then does something about it."""

    def __init__(self, react):
        self.notes, self._react = [], react

    def note(self, text):
        if "task" in text:
            self.notes.append(text)
            self._react()


def test_a_cluster_without_gpus_is_told_of_once_and_waited_for(cluster, add_gpus, shards, tmp_path, no_session):
    from dedup.engines.spark.engine import SparkEngine

    config = load_config(None, [f"input.shards={shards}", f"output.run_dir={tmp_path}/run", "engine.name=spark"])
    listener, options = Listener(add_gpus), [*OPTIONS, EXECUTOR_GPUS]
    engine = SparkEngine(str(tmp_path / "scratch"), master=cluster.master, options=options, note=listener.note, patience_s=3.0)
    try:
        summary = pipeline.run(config, ["embed"], engine=engine, reporter=listener)
    finally:
        engine.close()
    assert summary.records["embed"].summary["n_shards"] == 3
    assert listener.notes == [
        "no task has started for 3 s: no worker offers, or has left, what an executor asks for (spark.executor.cores=1, spark.executor.memory=512m, "
        "spark.executor.resource.gpu.amount=2); lower these settings or add such a worker; Spark goes on waiting for one"
    ]


def test_each_task_of_an_application_has_its_gpu(start, add_gpus, tmp_path):
    add_gpus()
    engine = start(EXECUTOR_GPUS, "spark.task.resource.gpu.amount=1")
    assert run_side_by_side(engine, tmp_path / "a") == [("0",), ("1",)]


def test_only_tasks_that_use_a_gpu_ask_for_one(start, add_gpus, tmp_path):
    add_gpus()
    engine = start(EXECUTOR_GPUS, gpus_per_task=1)
    assert run_side_by_side(engine, tmp_path / "a", uses_gpu=True) == [("0",), ("1",)]
    assert run_side_by_side(engine, tmp_path / "b") == [(), ()]
    engine = start(EXECUTOR_GPUS, gpus_per_task=2)
    assert run_side_by_side(engine, tmp_path / "c", n=1, uses_gpu=True) == [("0", "1")]


@pytest.mark.parametrize("sends_rows", [True, False])
def test_packs_of_groups_that_use_a_gpu_have_one(start, add_gpus, tmp_path, sends_rows):
    add_gpus()
    engine = start(EXECUTOR_GPUS, gpus_per_task=1, sends_rows=sends_rows)
    source, packs = Numbers(np.arange(40, dtype=np.int32)[:, None] % 4, 16), [Pack(k, np.array([k, k + 2])) for k in range(N_GPUS)]
    for uses_gpu, expected in ((True, [(("0",), 20), (("1",), 20)]), (False, [((), 20), ((), 20)])):
        work = spark_work.GpusOfPacks(str(tmp_path / f"{uses_gpu}"), N_GPUS)
        (tmp_path / f"{uses_gpu}").mkdir()
        assert sorted(found for _, found in engine.map_groups(source, work, packs, uses_gpu=uses_gpu)) == expected


def test_executors_that_come_with_the_tasks_have_the_gpus(start, add_gpus, tmp_path):
    add_gpus()
    engine = start(EXECUTOR_GPUS, "spark.executor.cores=2", "spark.dynamicAllocation.enabled=true", gpus_per_task=1)
    assert run_side_by_side(engine, tmp_path / "a", uses_gpu=True) == [("0",), ("1",)]


def test_the_job_embed(cluster, add_gpus, shards, tmp_path, no_session):
    add_gpus()
    log = tmp_path / "log"
    log.mkdir()
    settings = [f"input.shards={shards}"]
    events = {"enabled": "true", "dir": f"file://{log}", "compress": "false", "rolling.enabled": "false"}
    told = {f"spark.eventLog.{name}": value for name, value in events.items()} | {"spark.executor.resource.gpu.amount": str(N_GPUS)}
    job = cluster.submit("jobs/embed.py", *settings, f"output.run_dir={tmp_path}/run", "engine.gpus_per_task=0.5", **told)
    assert job.wait() == 0, job.text()[-3000:]
    pipeline.run(load_config(None, [*settings, f"output.run_dir={tmp_path}/local", "engine.workers=1"]), ["embed"])
    assert rows_of(tmp_path / "run", "metadata") == rows_of(tmp_path / "local", "metadata")
    logged = [json.loads(line) for path in log.iterdir() for line in path.read_text().splitlines()]
    asked = [event["Task Resource Requests"] for event in logged if event["Event"] == "SparkListenerResourceProfileAdded"]
    assert [requests["gpu"]["Amount"] for requests in asked if "gpu" in requests] == [0.5]


def test_more_gpus_than_an_executor_has_are_refused(cluster, no_session, tmp_path):
    from pyspark.sql import SparkSession

    from dedup.engines.spark.engine import SparkEngine

    with pytest.raises(ConfigError, match=r"engine.gpus_per_task=3 exceeds spark.executor.resource.gpu.amount=2; raise"):
        SparkEngine(str(tmp_path), master=cluster.master, options=[*OPTIONS, EXECUTOR_GPUS], gpus_per_task=3)
    assert SparkSession.getActiveSession() is None


def test_spark_on_one_machine_is_refused(shards, require_java, tmp_path):
    command = [str(Path(sys.executable).parent / "dedup"), "run", f"input.shards={shards}", f"output.run_dir={tmp_path}/run"]
    engine = ["engine.name=spark", "engine.master=local[2]", "engine.gpus_per_task=1"]
    found = subprocess.run([*command, *engine], capture_output=True, text=True, timeout=HANGS_S)
    assert found.returncode == 2, found.stderr
    assert "\nerror: engine.gpus_per_task=1 needs a cluster, found the master local[2], where Spark deals out no GPUs" in found.stderr
    assert "Traceback" not in found.stderr
