"""A standalone Spark cluster on loopback: a master, workers, and jobs submitted to them, each a process group of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyspark
from patience import HANGS_S, wait_for

REPOSITORY = Path(__file__).parents[1]
_SPARK = Path(pyspark.__file__).parent / "bin"
# four JVMs and their Python workers share a small machine
_SETTINGS = {
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
    "spark.network.timeout": "60s",
    "spark.executor.heartbeatInterval": "5s",
    "spark.driver.host": "127.0.0.1",
}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and its children: nobody gets to clean up."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(HANGS_S)


@dataclass
class Job:
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = HANGS_S) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_group(self.process)
            raise AssertionError(f"a job took more than {seconds:.0f} s:\n{self.text()[-3000:]}") from None

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Cluster:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    n_started: int = 0
    n_gpus: int = 0
    n_jobs: int = 0

    @property
    def master(self) -> str:
        return f"spark://127.0.0.1:{self.port}"

    def start(self, n_workers: int = 2) -> None:
        self._spawn("master", "org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(self.port), "--webui-port", "0")
        wait_for(lambda: "I have been elected leader" in self._log("master"), "the master is up")
        for _ in range(n_workers):
            self.add_worker()

    def add_worker(self, cores: int = 1, n_gpus: int = 0, core: int | None = None, memory: str = "2g") -> subprocess.Popen[bytes]:
        """A worker; it says it has GPUs by a discovery script as a real one uses. With `core` it runs on that core alone."""
        name = f"worker-{self.n_started}"
        self.n_started += 1
        self.n_gpus += n_gpus
        environment = {}
        if n_gpus:
            script = self.folder / f"{name}-gpus.sh"
            script.write_text(f"#!/bin/sh\necho '{json.dumps({'name': 'gpu', 'addresses': [str(k) for k in range(n_gpus)]})}'\n")
            script.chmod(0o755)
            resource = "-Dspark.worker.resource.gpu"
            environment["SPARK_WORKER_OPTS"] = f"{resource}.amount={n_gpus} {resource}.discoveryScript={script}"
        process = self._spawn(
            name, "org.apache.spark.deploy.worker.Worker", self.master, "-c", str(cores), "-m", memory,
            "--host", "127.0.0.1", "--webui-port", "0", "--work-dir", str(self.folder / name), core=core, **environment,
        )  # fmt: skip
        self.workers.append(process)
        wait_for(lambda: "Successfully registered with master" in self._log(name), f"{name} is registered")
        return process

    def kill_worker(self) -> None:
        """SIGKILL for the worker that has been there longest, and for its executors."""
        kill_group(self.workers.pop(0))

    def submit(self, script: str, *arguments: str, master: str = "", **settings: str) -> Job:
        """A job of spark-submit, on this cluster unless `master` says otherwise."""
        log = self.folder / f"job-{self.n_jobs}.log"
        self.n_jobs += 1
        confs = [f"--conf={name}={value}" for name, value in (_SETTINGS | self.settings | settings).items()]
        command = [str(_SPARK / "spark-submit"), "--master", master or self.master, *confs, str(REPOSITORY / script), *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=self._environment(), cwd=self.folder, start_new_session=True
            )
        self.processes.append(process)
        return Job(process, log)

    def stop(self) -> None:
        for process in reversed(self.processes):
            kill_group(process)

    def _spawn(self, name: str, *command: str, core: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
        pinned = [] if core is None else ["taskset", "-c", str(core)]  # what it starts inherits it
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                [*pinned, str(_SPARK / "spark-class"), *command],
                stdout=output, stderr=output, env=self._environment() | environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        own = {
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": str(REPOSITORY),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }
        return {**os.environ, **own, **self.environment}
