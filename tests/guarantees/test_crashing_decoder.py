"""A decoder that crashes costs the image it crashes on, and nothing else: runs, lookups and the service go on."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from patience import HANGS_S, wait_for
from shard_data import Sample, detailed, encode, write_tar

TESTS = Path(__file__).parent.parent
BUG = b"CRASH"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS / "crashing"), str(TESTS.parent)])}


def command(*arguments):
    return [sys.executable, "-m", "dedup", *map(str, arguments)]


def dedup(*arguments):
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of twelve samples, of which three crash the decoder."""
    folder = tmp_path_factory.mktemp("crashing")
    for shard in range(2):
        samples = [Sample(f"{shard}{k:02d}", encode(detailed(100 * shard + k, (300, 200)))) for k in range(12)]
        for k in (4, 5) if shard else (11,):
            samples[k] = Sample(samples[k].key, samples[k].image + BUG)
        write_tar(folder / f"{shard}.tar", samples)
    (folder / "bad.jpg").write_bytes(encode(detailed(1, (300, 200))) + BUG)
    (folder / "good.jpg").write_bytes(encode(detailed(1, (300, 200)), quality=80))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return dedup("run", f"input.shards={folder}/*.tar", f"output.run_dir={folder}/run", "engine.workers=2").stderr


def test_a_run_rejects_the_image_and_says_so(folder, run):
    rejected = pq.read_table(folder / "run" / "embeddings" / "rejected").to_pylist()
    assert sorted((Path(row["shard"]).name, row["key"], row["reason"]) for row in rejected) == [
        ("0.tar", "011", "decoder_crashed"),
        ("1.tar", "104", "decoder_crashed"),
        ("1.tar", "105", "decoder_crashed"),
    ]
    for row in rejected:
        assert row["detail"].startswith("JPEG of ")
        assert row["detail"].endswith(" bytes: the decoder was ended by signal SIGABRT")
    assert pq.read_table(folder / "run" / "manifest").num_rows == 21
    assert "3 images crashed the process that decodes" in " ".join(run.split())


def test_lookups_go_on(folder, run):
    lines = dedup("query", folder / "run", folder / "bad.jpg", folder / "good.jpg", "--json").stdout.splitlines()
    bad, good = map(json.loads, lines)
    assert bad["error"].startswith("decoder_crashed: JPEG of ")
    assert (good["is_copy"], good["matches"][0]["key"]) == (True, "001")
    said = dedup("flag", folder / "run", folder / "bad.jpg", folder / "good.jpg", "--out", folder / "flags.parquet", "--json").stdout
    assert {name: json.loads(said)[name] for name in ("n_images", "n_copies", "n_errors")} == {"n_images": 2, "n_copies": 1, "n_errors": 1}


def test_the_service_goes_on(folder, run, require_extra):
    require_extra("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/search"

    def post(name):
        with suppress(httpx.ConnectError):
            return httpx.post(url, content=(folder / name).read_bytes(), timeout=HANGS_S)

    with subprocess.Popen(command("serve", folder / "run", "--port", port), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as server:
        assert "distinct images" in server.stderr.readline()
        assert wait_for(lambda: post("good.jpg"), "the service answers", pause_s=0.1).json()["is_copy"] is True
        refused = post("bad.jpg")
        assert (refused.status_code, refused.json()["reason"]) == (422, "decoder_crashed")
        assert post("good.jpg").json()["is_copy"] is True
        server.send_signal(signal.SIGINT)
        said = server.stderr.read()
    assert (server.returncode, "Traceback" in said) == (0, False)


def test_what_is_in_force_is_told(folder, run):
    assert json.loads(dedup("info", folder / "run", "--json").stdout)["decoding"].startswith("own process")
    assert " ".join(dedup("info", folder / "run").stdout.split()).count("decoding own process") == 1
