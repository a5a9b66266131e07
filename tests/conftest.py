"""What tests may ask for; with CI=true nothing they ask for may be missing."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import short_jvms
from hypothesis import HealthCheck, settings

# before numpy loads: worker processes beside the test must not fight over the cores
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
for _name in short_jvms.VARIABLES:
    os.environ.setdefault(_name, short_jvms.OPTIONS)

IS_CI = os.environ.get("CI", "").lower() == "true"

settings.register_profile("dedup", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dedup")


@pytest.fixture(scope="session")
def require_extra() -> Callable[[str], ModuleType]:
    """Import a module of an extra: `torch = require_extra("torch")`."""

    def load(module: str) -> ModuleType:
        try:
            return importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"needs the package {module}: {error}")

    return load


@pytest.fixture(scope="session")
def require_java() -> str:
    """Path of a Java runtime."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("java", path=os.path.join(home, "bin")) if home else None
    return found or shutil.which("java") or pytest.skip("needs Java 17 (Debian: openjdk-17-jre-headless)")


@pytest.fixture(scope="session")
def spark_sessions(
    require_extra: Callable[[str], ModuleType], require_java: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Whoever lets Spark start a session by itself stops the one that is shared before."""
    require_extra("pyspark")
    from spark_sessions import Sessions

    sessions = Sessions(lambda: str(tmp_path_factory.mktemp("spark") / "scratch"))
    yield sessions
    sessions.stop()


@pytest.fixture(scope="session")
def start_spark(spark_sessions: Any) -> Callable[..., Any]:
    """A Spark engine on a session that tests share, whose workers can import the tests' modules; the caller closes it."""
    return spark_sessions.engine


@pytest.fixture
def s3(require_extra: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system of S3's protocol that fails at times, with the bucket `bucket`."""
    fsspec = require_extra("fsspec")
    require_extra("s3fs")
    require_extra("moto")
    from faulty_s3 import ENVIRONMENT, faulty_s3

    with faulty_s3(every=50) as (endpoint, _, _):
        for name, text in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(name, text)
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("bucket")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield fs
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def require_browser() -> str:
    """Path of a Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None) or pytest.skip("needs a browser (Debian: chromium)")


@pytest.fixture(scope="session", autouse=True)
def write_at_the_end() -> Iterator[Callable[..., str]]:
    """Let runs of tests end without a report, which takes half a second each; what would have written it."""
    from dedup.pipeline import run as pipeline

    with pytest.MonkeyPatch.context() as patch:
        written = pipeline.update_report
        patch.setattr(pipeline, "update_report", lambda *_: "")
        yield written


@pytest.fixture(scope="module")
def with_reports(write_at_the_end: Callable[..., str]) -> Iterator[None]:
    """Let runs of a module end with their report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dedup.pipeline.run.update_report", write_at_the_end)
        yield


def _refuse_skip(report: Any) -> None:
    if IS_CI and report.skipped and not hasattr(report, "wasxfail") and "gpu" not in getattr(report, "keywords", {}):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{report.nodeid} would be skipped, which CI=true forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


def _group(items: list[pytest.Item]) -> str:
    """Which tests of a file run one after the other in one process: those on a cluster, those on a shared session, each other file."""
    if any("cluster" in getattr(item, "fixturenames", ()) for item in items):
        return "cluster"
    return "spark" if any(item.get_closest_marker("spark") for item in items) else items[0].nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`, and let those begin first that take longest, so that no process is left alone with them."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    ranks = {}
    for path, found in files.items():
        group = _group(found)
        for item in found:
            item.add_marker(pytest.mark.xdist_group(group))
        is_slow = any(item.get_closest_marker("slow") for item in found)
        ranks[path] = {"cluster": 0, "spark": 1}.get(group, 2 if is_slow else 3)
    items.sort(key=lambda item: ranks[item.path])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop if the groups had no effect: files would be set up by every process, and tests that follow each other would be torn apart."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist has not grouped the tests; expected pytest < 9.2 with pytest-xdist 3.8")
