"""One standalone cluster for all tests here."""

from __future__ import annotations

import pytest
from faulty_s3 import ENVIRONMENT
from short_jvms import EXECUTORS


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, require_extra, require_java):
    """Two workers of a core each, with the keys of the S3 server that one of the tests starts."""
    require_extra("pyspark")
    from spark_cluster import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("cluster"), ENVIRONMENT, EXECUTORS)
    try:
        cluster.start(n_workers=2)
        yield cluster
    finally:
        cluster.stop()
