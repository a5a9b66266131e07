"""A Spark session beside what spark-submit was told, and what its tasks and executors ask of a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pyspark import SparkConf, SparkContext
from pyspark.resource import ExecutorResourceRequests, ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from dedup.engines.spark_setup import check_gpus, check_java, check_master, explained, settings
from dedup.errors import StageError

_GPUS = "spark.executor.resource.gpu"


def start_session(master: str, options: Sequence[str]) -> SparkSession:
    """Start Spark, or join the session that runs; see `SparkEngine`."""
    check_java()
    # workers on this machine run the interpreter of the driver unless told otherwise
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("dedup")
    # spark-submit starts the JVM before Python, and what it was told goes before what a file says
    submitted: SparkConf | None = None
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        SparkContext._ensure_initialized()  # connects to that JVM; without it the settings look empty
        submitted = SparkConf()
    check_master(master or ("" if submitted is None else str(submitted.get("spark.master", ""))))
    if master or submitted is None:
        builder = builder.master(master or "local[*]")
    for name, value in settings(options).items():
        if submitted is None or not submitted.contains(name):
            builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise StageError(explained(error, "Spark did not start")) from error


def gpu_profile(session: SparkSession, gpus_per_task: float) -> ResourceProfile | None:
    """What a task on a GPU asks for; None if that is what every task asks for.

    Without dynamic allocation it may ask nothing of executors, which are there already. With it, Spark starts executors for
    it that have the cores and the memory of the settings, but only those GPUs that it asks for.

    Raises
    ------
    ConfigError
        If the session's executors can't give it.
    """
    if not gpus_per_task:
        return None
    conf = session.sparkContext.getConf()
    amount = int(conf.get(f"{_GPUS}.amount", "0"))
    check_gpus(gpus_per_task, str(session.sparkContext.master), amount)
    builder = ResourceProfileBuilder().require(TaskResourceRequests().resource("gpu", gpus_per_task))
    if conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        script, vendor = (conf.get(f"{_GPUS}.{name}", "") for name in ("discoveryScript", "vendor"))
        builder.require(ExecutorResourceRequests().resource("gpu", amount, script, vendor))
    return builder.build


def executor_settings(session: SparkSession) -> str:
    """The least that a worker must offer for an executor to start there, as settings."""
    conf = session.sparkContext.getConf()
    asked = {"spark.executor.cores": "1", "spark.executor.memory": "1g", f"{_GPUS}.amount": ""}
    values = {name: conf.get(name, default) for name, default in asked.items()}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value)
