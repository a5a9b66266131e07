"""The Spark session: its settings, what it must offer, and what workers learn from it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa
from pyspark import SparkConf, SparkContext, TaskContext
from pyspark.resource import ExecutorResourceRequests, ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from dedup.errors import ConfigError, StageError
from dedup.storage.tables import FileWriter

_GPUS = "spark.executor.resource.gpu"
_MIN_JAVA = 17
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_DEFAULTS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.enabled": "true",
    "spark.python.worker.reuse": "true",
}

# pattern in the text of a Spark error -> message
_CAUSES = (
    (r"PYTHON_VERSION_MISMATCH.*?worker(?: version)?\D*([\d.]+).*?driver(?: version)?\D*([\d.]+)",
     "the workers run Python {0}, the driver {1}; expected one version: set PYSPARK_PYTHON to the same Python on all machines"),
    (r"ModuleNotFoundError: No module named '(\w+)",
     "a worker has no package '{0}'; install it there or ship the environment (docs/cluster.md)"),
    (r"ImportError: ([^\n]+)", "a worker can't import a package: {0}; install it there or ship the environment (docs/cluster.md)"),
    (r"(?:[Ee]xit(?:ed)?(?: with)? (?:code|status)\W{0,3}137|Out ?[Oo]f ?[Mm]emory|Killed by external signal|"
     r"exceeding (?:physical )?memory)",
     "a worker was killed, most likely for lack of memory; raise spark.executor.memoryOverhead, or lower spark.executor.cores so that "
     "fewer tasks share the memory"),
    (r"(?:All masters are unresponsive|Application has been killed|stopped SparkContext|Initial job has not accepted)",
     "the master can't be reached or gives no workers; expected a running master and workers: check engine.master and their logs"),
    (r"Python worker (?:exited|failed)[^\n]*",
     "a Python worker ended without a message, most likely killed for lack of memory; raise spark.executor.memoryOverhead, or lower "
     "spark.executor.cores"),
    (r"(No space left on device)", "{0} on a worker; free some, or name a larger folder with spark.local.dir"),
)  # fmt: skip


def start_session(master: str, options: Sequence[str]) -> SparkSession:
    """Start Spark, or join the running session; see `SparkEngine`."""
    check_java()
    # by default workers on this machine run the driver's interpreter
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("dedup")
    # spark-submit starts the JVM before Python, and its settings take precedence over those of a file
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


def settings(options: Sequence[str]) -> dict[str, str]:
    """Spark settings of a session: the defaults, overridden by the given ones.

    Raises ConfigError if one is not ``spark.…=value``.

    >>> settings(["spark.executor.memory=4g"])["spark.executor.memory"]
    '4g'
    """
    values = dict(_DEFAULTS)
    # results must not depend on the number of threads of a matrix product
    values |= {f"spark.executorEnv.{name}": "1" for name in _THREADS}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.strip().startswith("spark."):
            raise ConfigError(
                f"engine.spark: '{option}' is not a Spark setting; expected spark.NAME=VALUE, such as spark.executor.memory=4g"
            )
        values[name.strip()] = value.strip()
    return values


def check_master(master: str, timeout: float = 10.0) -> None:
    """Raise StageError at once if no standalone master listens: Spark itself takes minutes to give up."""
    addresses = [part.rpartition(":") for part in master.removeprefix("spark://").split(",")] if master.startswith("spark://") else []
    failures = []
    for host, _, port in addresses:
        try:
            with socket.create_connection((host, int(port or 0)), timeout=timeout):
                return
        except (OSError, ValueError) as error:
            failures.append(str(error))
    if failures:
        raise StageError(f"the Spark master {master} can't be reached ({failures[0]}); expected one that runs: check engine.master")


def check_java() -> None:
    """Raise ConfigError without the Java that Spark needs."""
    version, hint = java_version(), "install it (Debian: openjdk-17-jre-headless) or set JAVA_HOME; engine.name=local needs no Java"
    if version is None:
        raise ConfigError(f"engine.name=spark needs Java {_MIN_JAVA} or newer, and none was found; {hint}")
    if version < _MIN_JAVA:
        raise ConfigError(f"engine.name=spark needs Java {_MIN_JAVA} or newer, found Java {version}; {hint}")


def java_version() -> int | None:
    """Major version of the Java that Spark would start; None if there is none."""
    home = os.environ.get("JAVA_HOME", "")
    command = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if not command:
        return None
    try:
        text = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def check_gpus(gpus_per_task: float, master: str, gpus_per_executor: float) -> None:
    """Raise ConfigError if executors can't give each task so many GPUs."""
    setting = f"engine.gpus_per_task={gpus_per_task:g}"
    if master == "local" or master.startswith("local["):
        raise ConfigError(
            f"{setting} needs a cluster, found the master {master}, where Spark deals out no GPUs; set engine.gpus_per_task=0"
        )
    if gpus_per_executor < gpus_per_task:
        name = f"{_GPUS}.amount"
        raise ConfigError(f"{setting} exceeds {name}={gpus_per_executor:g}; raise {name}, as engine.spark or --conf (docs/cluster.md)")


def gpu_profile(session: SparkSession, gpus_per_task: float) -> ResourceProfile | None:
    """Resources of a task on a GPU; None if they are those of any task.

    Without dynamic allocation the profile must not name executor resources: the executors exist already. With it, Spark starts executors
    with the cores and memory of the settings, but only the GPUs that the profile names.

    Raises ConfigError if the session's executors can't give it.
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
    """What a worker must offer for an executor to start there, as settings."""
    conf = session.sparkContext.getConf()
    defaults = {"spark.executor.cores": "1", "spark.executor.memory": "1g", f"{_GPUS}.amount": ""}
    values = {name: conf.get(name, default) for name, default in defaults.items()}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value)


def explained(error: BaseException | None, what: str) -> str:
    """One line on what went wrong in Spark; `what` says what was being done."""
    text = "" if error is None else str(error)
    again = "finished parts are kept: run the same command again"
    for pattern, meaning in _CAUSES:
        match = re.search(pattern, text, re.DOTALL if "VERSION" in pattern else 0)
        if match:
            return f"{what}: {meaning.format(*match.groups())}; {again}"
    # a Python traceback ends with what was raised
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(?:Error|Exception|Interrupt)\b", line)]
    aborted = re.findall(r"Job aborted due to stage failure: ([^\n]+)", text)
    reason = (raised or aborted or lines or ["no reason given"])[0]
    return f"{what}: {reason[:500]}; {again}"


def numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """The numbers in the rows of `spark.range`."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def partition() -> int:
    """Number of the partition that this worker processes."""
    context = TaskContext.get()
    return 0 if context is None else int(context.partitionId())


def gpus() -> list[str]:
    """Addresses of the GPUs that Spark gave this task."""
    context = TaskContext.get()
    resource = None if context is None else context.resources().get("gpu")
    return [] if resource is None else list(resource.addresses)


def cores() -> int:
    """Cores that Spark gave this task, ``spark.task.cpus``."""
    context = TaskContext.get()
    return 1 if context is None else int(context.cpus())


def write_rows(url: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Write a partition's rows, if it has any; returns their number."""
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return 0
    with FileWriter(url, schema) as writer:
        for batch in chain([first], filled):
            writer.write(batch)
    return writer.n_rows
