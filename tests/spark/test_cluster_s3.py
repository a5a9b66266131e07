"""Shards and tables on an S3 server over HTTP that fails every fiftieth request."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from faulty_s3 import ENVIRONMENT, faulty_s3
from run_tables import assert_same_tables

from dedup.config.load import load_config
from dedup.demo.shards import make_demo_data
from dedup.pipeline import run as pipeline
from dedup.storage.urls import read_json

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SETTINGS = ["search.exhaustive_below=0", "search.nlist=8", "search.nprobe=4", "search.views=false", "embed.thumbnails=true"]


@pytest.fixture
def s3(require_extra, monkeypatch):
    require_extra("s3fs")
    require_extra("moto")
    with faulty_s3(every=50) as (endpoint, counts, broken):  # the cluster has the keys already
        for name, text in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(name, text)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fs = fsspec.filesystem("s3")
        fs.mkdir("bucket")
        yield fs, endpoint, counts, broken
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_run_from_and_to_s3(s3, cluster, tmp_path):
    fs, endpoint, counts, broken = s3
    workers = {"spark.executorEnv.AWS_ENDPOINT_URL": endpoint}
    make_demo_data(tmp_path / "shards", n_images=240, seed=5, per_shard=40, workers=2)
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    for tar in tars:
        fs.put_file(str(tar), f"bucket/shards/{tar.name}")
    urls, run_dir = "input.shards=s3://bucket/shards/{00000..00005}.tar", "s3://bucket/run"
    local_run = str(tmp_path / "local")
    pipeline.run(load_config(None, [*SETTINGS, urls, f"output.run_dir={local_run}", "engine.workers=2"]))

    broken.add("00003.tar")
    first = cluster.submit("jobs/run.py", *SETTINGS, urls, f"output.run_dir={run_dir}", **workers)
    assert first.wait() == 1, first.text()[-3000:]
    assert "error: 1 of 6 shards can't be reached, the first: s3://bucket/shards/00003.tar" in first.text()
    markers = [f"{run_dir}/embeddings/_done/{number:05d}.json" for number in range(6)]
    assert [bool(read_json(marker)) for marker in markers] == [True, True, True, False, True, True]
    stamps = {marker: fs.info(marker)["LastModified"] for marker in markers if "00003" not in marker}

    broken.clear()
    fs.invalidate_cache()
    again = cluster.submit("jobs/run.py", *SETTINGS, urls, f"output.run_dir={run_dir}", **workers)
    assert again.wait() == 0, again.text()[-3000:]
    assert "5 of 6 partitions are done already" in again.text()
    fs.invalidate_cache()
    assert {marker: fs.info(marker)["LastModified"] for marker in stamps} == stamps
    assert_same_tables(local_run, run_dir)
    assert counts["faults"] >= 20
    assert f"{run_dir}/report.html" in again.text()
    assert fs.cat_file("bucket/run/report.html").count(b"data:image/jpeg;base64,") > 20

    secret = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"].encode()
    logs = [path.read_bytes() for path in Path(cluster.folder).rglob("*") if path.is_file() and path.suffix != ".tar"]
    objects = [fs.cat_file(name) for name in fs.find("bucket/run")]
    assert len(objects) > 20
    assert not any(secret in text for text in logs + objects)
