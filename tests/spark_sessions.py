"""The Spark session of the tests' own process, which can have one at a time: tests that ask for the same settings share it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession
from short_jvms import EXECUTORS

from dedup.engines.spark.engine import SparkEngine
from dedup.engines.spark.session import start_session

_OPTIONS = (
    "spark.ui.enabled=false",
    "spark.sql.shuffle.partitions=4",
    # plans of a few rows take longer to compile than to run; those of the cluster's tests are compiled
    "spark.sql.codegen.wholeStage=false",
    "spark.sql.codegen.factoryMode=NO_CODEGEN",
    *(f"{name}={value}" for name, value in EXECUTORS.items()),
    f"spark.executorEnv.PYTHONPATH={os.path.dirname(__file__)}",  # workers import the tests' modules
)


class Sessions:
    """Makes engines; a session, its JVM and its Python workers go on until one with other settings is asked for.

    Parameters
    ----------
    make_scratch : callable
        Gives a scratch folder that nobody else has.
    """

    def __init__(self, make_scratch: Callable[[], str]) -> None:
        self._make_scratch = make_scratch
        self._session: SparkSession | None = None
        self._settings: tuple[str, ...] = ()

    def engine(self, master: str = "local[2,3]", *options: str, **arguments: Any) -> SparkEngine:
        """An engine on a session with these settings; by default on this machine, where tasks may fail twice."""
        settings = (master, *_OPTIONS, *options)
        if self._session is None or settings != self._settings:
            self.stop()
            SparkContext._ensure_initialized()  # a JVM that starts with a session hands its settings on to every later one
            self._session, self._settings = start_session(master, settings[1:]), settings
        return SparkEngine(self._make_scratch(), session=self._session, **arguments)

    def stop(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.stop()
            self._session = None
