"""The Spark engine by itself, on one JVM: order, errors in one line, and the SQL that both engines share."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import spark_work
from patience import HANGS_S

from dedup.contracts import Table
from dedup.engines.local import LocalEngine
from dedup.engines.spark import session as spark_setup
from dedup.errors import ConfigError, SchemaError, ShapeError, StageError
from dedup.storage.tables import read_table, write_table

pytestmark = pytest.mark.spark
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def engine(start_spark):
    engine = start_spark()
    yield engine
    engine.close()


def test_each_task_has_its_result(engine):
    assert sorted(engine.map_partitions(spark_work.square, range(20))) == [(k, k * k) for k in range(20)]
    assert list(engine.map_partitions(spark_work.square, [])) == []


def test_large_tasks_and_results_go_by_files(engine):
    tasks = [np.full(300_000, k) for k in range(3)]
    found = dict(engine.map_partitions(spark_work.square, tasks))
    assert all((found[k] == k * k).all() for k in range(3))


def test_workers_have_one_thread(engine):
    assert {threads for _, (threads, _) in engine.map_partitions(spark_work.surroundings, range(4))} == {"1"}


def test_a_worker_that_dies_is_tried_again(engine, tmp_path):
    assert list(engine.map_partitions(spark_work.die_once, [str(tmp_path)])) == [(0, "done")]


def test_an_error_on_purpose_is_not_tried_again(engine, tmp_path):
    with pytest.raises(ShapeError, match="expected 2, found 3"):
        list(engine.map_partitions(spark_work.refuse, [str(tmp_path)]))
    assert (tmp_path / "calls").read_text() == "x"


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (spark_work.fail, r"fail: 1 of 1 tasks failed: ValueError: task 7 is bad"),
        (spark_work.need_a_package, r"a worker has no package 'package_that_is_nowhere'; install it there or ship the environment"),
        (
            spark_work.die,
            r"a Python worker ended without a message, most likely killed for lack of memory; raise spark.executor.memoryOverhead",
        ),
    ],
)
def test_a_failure_is_one_line_that_names_the_cause(engine, work, message):
    with pytest.raises(StageError, match=message) as caught:
        list(engine.map_partitions(work, [7]))
    assert "\n" not in str(caught.value)


def test_scratch_is_empty_afterwards(engine):
    assert list(engine.map_partitions(spark_work.square, [3])) == [(0, 9)]
    list(engine.sql("SELECT a FROM t", {"t": pa.table({"a": [1]})}, pa.schema([("a", pa.int64())])))
    assert not os.path.exists(engine._scratch) or not os.listdir(engine._scratch)


T = pa.schema([("k", pa.int64()), ("s", pa.string()), ("f", pa.float32()), ("w", pa.int32())])
ROWS = {"k": [3, 1, 2, 2, 5], "s": ["b", None, "a", "ä", "Z"], "f": [0.5, 0.25, None, 0.7, 0.1], "w": [7, 40_000, 3, 2, 1]}
QUERIES = {
    "order": ("SELECT w, k, f, s FROM t ORDER BY s DESC NULLS LAST, k", T),
    "swapped": ("SELECT CAST(w AS BIGINT) AS k, s, f, CAST(k AS INTEGER) AS w FROM t ORDER BY 1", T),
    "group": (
        "SELECT s, count(*) AS k, CAST(sum(CAST(w AS BIGINT) * 100000) AS BIGINT) AS w FROM t GROUP BY s ORDER BY s ASC NULLS LAST",
        pa.schema([("w", pa.int64()), ("s", pa.string()), ("k", pa.int64())]),
    ),
    "nothing": ("SELECT k, s, f, w FROM t WHERE k > 100", T),
}


@pytest.mark.parametrize("stored", [True, False], ids=["files", "memory"])
@pytest.mark.parametrize("name", QUERIES)
def test_queries_mean_the_same_on_both_engines(engine, tmp_path, name, stored):
    query, schema = QUERIES[name]
    table = pa.table(ROWS, schema=T)
    source = table
    if stored:
        source = Table(str(tmp_path / "t"), T)
        write_table(source, [table.slice(0, 2)], "part-a")
        write_table(source, [table.slice(2)], "_hidden")
        source = Table(source.path, T, "*.parquet")
    found = [
        pa.concat_tables(list(other.sql(query, {"t": source}, schema)) or [schema.empty_table()]) for other in (engine, LocalEngine(1))
    ]
    assert found[0].equals(found[1])
    outputs = [Table(str(tmp_path / f"out-{k}"), schema) for k in range(2)]
    counts = [other.sql_to(query, {"t": source}, output) for other, output in zip((engine, LocalEngine(1)), outputs, strict=True)]
    assert counts[0] == counts[1] == len(found[0])
    assert read_table(outputs[0]).equals(read_table(outputs[1]))


def test_a_query_of_another_schema_is_refused(engine):
    with pytest.raises((SchemaError, StageError), match="column 'k' is missing"):
        list(engine.sql("SELECT s FROM t", {"t": pa.table(ROWS, schema=T)}, T))


def test_a_broken_query_is_one_line(engine):
    with pytest.raises(StageError, match="a query failed: .*nowhere") as caught:
        list(engine.sql("SELECT * FROM nowhere", {}, T))
    assert "\n" not in str(caught.value)


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs Java 17 or newer, and none was found; install it \(Debian: openjdk-17-jre-headless\)"):
        spark_setup.check_java()


def test_an_old_java(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Java 17 or newer, found Java 8"):
        spark_setup.check_java()


def test_an_unreachable_master():
    from spark_cluster import free_port

    with pytest.raises(
        StageError, match=r"the Spark master spark://127.0.0.1:\d+ can't be reached .*; expected one that runs: check engine.master"
    ):
        spark_setup.check_master(f"spark://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("asked", "master", "there", "message"),
    [
        (
            1,
            "local[2]",
            4,
            "engine.gpus_per_task=1 needs a cluster, found the master local[2], where Spark deals out no GPUs; set engine.gpus_per_task=0",
        ),
        (0.5, "local", 4, "engine.gpus_per_task=0.5 needs a cluster"),
        (
            1,
            "spark://host:7077",
            0,
            "engine.gpus_per_task=1 exceeds spark.executor.resource.gpu.amount=0; raise spark.executor.resource.gpu",
        ),
        (2, "yarn", 1, "engine.gpus_per_task=2 exceeds spark.executor.resource.gpu.amount=1"),
    ],
)
def test_gpus_that_executors_cannot_give(asked, master, there, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        spark_setup.check_gpus(asked, master, there)


def test_gpus_that_executors_can_give():
    spark_setup.check_gpus(0.5, "local-cluster[2,1,512]", 1)
    spark_setup.check_gpus(2, "yarn", 2)


def test_a_setting_that_is_none():
    with pytest.raises(ConfigError, match=re.escape("engine.spark: 'memory=4g' is not a Spark setting")):
        spark_setup.settings(["memory=4g"])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        # standalone, YARN twice, and what has no pattern
        ("Lost task 0.3: ExecutorLostFailure (executor 3 exited caused by one of the running tasks) Reason: Command exited with code 137",
         "a worker was killed, most likely for lack of memory"),
        ("Container marked as failed: container_1 on host: h. Exit status: 137.", "a worker was killed, most likely for lack of memory"),
        ("Container killed by YARN for exceeding physical memory limits. 5 GB used.", "a worker was killed, most likely for lack of memory"),
        ("An error occurred while calling o1.x.\n: SparkException: Job aborted due to stage failure: Task 0 failed\nDriver stacktrace:",
         "embed: Task 0 failed; finished parts are kept"),
    ],
)  # fmt: skip
def test_causes_are_read_from_what_spark_says(found, said):
    assert said in spark_setup.explained(RuntimeError(found), "embed")


OTHER_PYTHON = """
import collections, sys
sys.version_info = collections.namedtuple("V", "major minor micro releaselevel serial")(3, 99, 0, "final", 0)
"""


def test_workers_of_another_python(tmp_path, require_extra, require_java):
    """Workers that say they run another version, in a driver of its own: a session keeps its interpreter."""
    import subprocess

    require_extra("pyspark")
    (tmp_path / "sitecustomize.py").write_text(OTHER_PYTHON)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    script = (
        "import sys; from dedup.engines.spark.engine import SparkEngine; import spark_work\n"
        f"engine = SparkEngine({str(tmp_path / 'scratch')!r}, master='local[1]')\n"
        "try: list(engine.map_partitions(spark_work.square, [1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "PYSPARK_PYTHON": str(python), "PYTHONPATH": TESTS}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=HANGS_S)
    assert "StageError" in found.stdout, found.stderr[-2000:]
    assert "the workers run Python 3.99, the driver 3." in found.stdout
    assert "set PYSPARK_PYTHON to the same Python on all machines" in found.stdout


def submit_here(script, *arguments):
    import subprocess

    import pyspark

    command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), *arguments[:-1], str(script), *arguments[-1]]
    own = {"PYTHONPATH": str(Path(TESTS).parent), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, timeout=HANGS_S)


SETTINGS_JOB = """
import sys
from dedup.pipeline.run import make_engine
from dedup.cli.submit import spark_config
engine = make_engine(spark_config(sys.argv[1], ["output.run_dir=" + sys.argv[2]]))
conf = engine._spark.conf
print("settings", conf.get("spark.sql.shuffle.partitions"), conf.get("spark.executor.memory"), engine._spark.sparkContext.master)
engine.close()
"""


def test_what_spark_submit_was_told_goes_before_a_file(tmp_path, require_extra, require_java):
    require_extra("pyspark")
    (tmp_path / "job.py").write_text(SETTINGS_JOB)
    (tmp_path / "c.yaml").write_text(
        "engine:\n  master: spark://nowhere:1\n  spark: [spark.sql.shuffle.partitions=7, spark.executor.memory=777m]\n"
    )
    told = ["--master", "local[1]", "--conf", "spark.sql.shuffle.partitions=3"]
    found = submit_here(tmp_path / "job.py", *told, [str(tmp_path / "c.yaml"), str(tmp_path / "run")])
    assert "settings 3 777m local[1]" in found.stdout, found.stderr[-2000:]


def test_a_job_without_its_master_says_so_at_once(tmp_path, require_extra, require_java):
    from spark_cluster import REPOSITORY, free_port

    require_extra("pyspark")
    (tmp_path / "a.tar").write_bytes(b"")
    master = f"spark://127.0.0.1:{free_port()}"
    arguments = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run"]
    found = submit_here(REPOSITORY / "jobs" / "run.py", "--master", master, arguments)
    assert found.returncode == 1
    said = found.stdout + found.stderr  # spark-submit passes on what its Python says by either
    assert f"error: the Spark master {master} can't be reached" in said
    assert "Traceback" not in said
