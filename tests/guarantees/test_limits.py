"""Limits on resources: what a run needs is said and refused where it is not there, workers are bounded, and shards stream."""

import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from memory import anonymous_bytes
from run_tables import Notes
from shard_data import Sample, detailed, encode, make_samples, write_shards, write_tar

import dedup
from dedup import machine as resources
from dedup.config.load import resolved
from dedup.engines.local import LocalEngine
from dedup.errors import InputError, ResourceError
from dedup.pipeline import preflight


class Listener(Notes):
    @property
    def preflight(self):
        return [note for note in self.notes if note.startswith("preflight: ")]


def config_for(*settings):
    return dedup.load_config(None, [*map(str, settings), "engine.workers=2"])


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", make_samples(60, seed=4), per_shard=40)


@pytest.fixture
def small(monkeypatch):
    """Set what is there: memory in bytes, disk in bytes."""

    def make(memory=10**12, disk=10**12):
        monkeypatch.setattr(preflight, "free_memory", lambda: memory)
        monkeypatch.setattr(preflight, "free_disk", lambda path: (disk, 1))

    return make


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def test_it_is_said_in_one_line(shards, tmp_path, small):
    small(memory=8_000_000_000, disk=80_000_000_000)
    reporter = Listener()
    config = config_for(f"input.shards={shards}", f"output.run_dir={tmp_path}/run")
    dedup.run(config, reporter=reporter)
    (line,) = reporter.preflight
    assert "images; memory 1.2 GB needed, 8.0 GB available; disk " in line
    assert " needed, 80.0 GB available; temporary files " in line
    dedup.run(config, reporter=reporter)
    assert len(reporter.preflight) == 1  # nothing to do, nothing to say


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (
            {"memory": 1_100_000_000},
            "memory: 1.2 GB needed for 2 workers, 1.1 GB available; engine.workers=1 would fit. Nothing was written",
        ),
        ({"memory": 700_000_000}, "memory: 1.2 GB needed for 2 workers, 700.0 MB available; take a machine with more"),
        ({"disk": 200_000}, "needed, 200.0 kB available; choose another output.run_dir, or search.views=false"),
    ],
    ids=["memory", "little memory", "disk"],
)
def test_what_does_not_fit_is_refused_with_both_numbers(shards, tmp_path, small, there, found):
    small(**there)
    settings = [f"input.shards={shards}", f"output.run_dir={tmp_path}/run"]
    with pytest.raises(ResourceError) as error:
        dedup.run(config_for(*settings))
    assert found in str(error.value)
    assert not (tmp_path / "run").exists()
    reporter = Listener()
    dedup.run(config_for(*settings, "engine.preflight=warn"), reporter=reporter)
    assert len(reporter.preflight) >= 2
    assert "preflight: too small: " in reporter.preflight[1]
    assert pq.read_table(tmp_path / "run" / "manifest").num_rows > 50


def test_the_command_ends_with_it(shards, tmp_path):
    command = [sys.executable, "-m", "dedup", "run", f"input.shards={shards}", f"output.run_dir={tmp_path}/run", "engine.workers=10000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TB needed for 10000 workers, " in done.stderr.splitlines()[-1]
    assert "would fit" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def vectors(folder, n):
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(n, 96)).astype(np.float32)
    np.save(folder / "a.npy", rows)
    pq.write_table(pa.table({"key": [f"{k:06d}" for k in range(n)], "caption": [f"caption {k}" for k in range(n)]}), folder / "a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shards", "thumbnails", "folder", "embeddings", "gzip"])
def test_the_estimate_is_no_less_than_what_is_used_and_no_more_than_three_times(tmp_path, kind):
    n, settings = 1_500, []
    if kind == "embeddings":
        vectors(tmp_path / "in", 3_000)
        settings = [f"input.embeddings={tmp_path}/in", "encoder.name=precomputed"]
    elif kind == "folder":
        (tmp_path / "in").mkdir()
        for number in range(n):
            (tmp_path / "in" / f"{number}.jpg").write_bytes(encode(detailed(number, (64, 48))))
        settings = [f"input.images={tmp_path}/in"]
    else:
        mode = "w:gz" if kind == "gzip" else "w"
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "a.tar", mode) as tar:
            for number in range(n):
                for suffix, data in (("jpg", encode(detailed(number, (160, 128)))), ("txt", b"a caption of some words, as they are")):
                    info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        settings = [f"input.shards={tmp_path}/in/a.tar", f"embed.thumbnails={'true' if kind == 'thumbnails' else 'false'}"]
    reporter = Listener()
    config = config_for(
        *settings, f"output.run_dir={tmp_path}/run", "confirm.enabled=false", "report.enabled=false", "search.exhaustive_below=500"
    )
    found = []
    check = preflight.check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dedup.pipeline.run.check", lambda *given, **more: found.append(check(*given, **more)) or found[-1])
        dedup.run(config, reporter=reporter)
    used = size_of(tmp_path / "run")
    assert used <= found[0].disk <= 3 * used
    expected = 3_000 if kind == "embeddings" else n
    if kind in ("folder", "embeddings"):
        assert found[0].is_exact
        assert found[0].n_images == expected
    else:
        assert not found[0].is_exact
        assert 0.7 * n < found[0].n_images < 1.4 * n
        assert len(found) == 2  # and again when they were counted
    # a run that was stopped is not asked twice for what is there
    again = preflight.estimate(resolved(config), {}, False, 2)
    assert again.disk < found[0].disk


def test_what_can_not_be_told_is_not_made_up(tmp_path, small):
    (tmp_path / "a.tar").write_bytes(b"no tar")
    small(disk=1)
    reporter = Listener()
    config = config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "engine.preflight=warn")
    with pytest.raises(InputError, match="is not a tar"):
        dedup.run(config, reporter=reporter)
    assert reporter.preflight[0].startswith("preflight: how many images there are can't be told before they are read; memory ")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of a machine that is none: files by path below /sys/fs/cgroup, with what /proc says."""

    def make(own, files, available=64_000_000):
        proc, root = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(own)
        (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available} kB\n")
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        return resources.Kernel(proc, root)

    return make


@pytest.mark.parametrize(
    ("own", "files", "memory", "cores"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/cpu.max": "max 100000", "a/memory.max": "5000", "a/memory.current": "3000", "a/memory.stat": "anon 1\ninactive_file 500\n", "a/cpu.max": "250000 100000"}, 2_500, 3),
        ("0::/../..\n", {"memory.max": "7000", "memory.current": "1000", "cpu.max": "50000 100000"}, 6_000, 1),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "9000", "memory/x/memory.usage_in_bytes": "1000", "cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 8_000, 8),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"}, 1_024 * 64_000_000, 8),
        ("nonsense", {}, 1_024 * 64_000_000, 8),
    ],
    ids=["version 2", "container", "version 1", "no limit", "nothing"],
)  # fmt: skip
def test_limits_of_control_groups(groups, own, files, memory, cores):
    kernel = groups(own, files)
    assert resources.free_memory(kernel) == memory
    assert resources.available_cores(kernel) == cores


def test_workers_are_no_more_than_there_is_memory_for():
    there = (16, 2_000_000_000)
    number, text = preflight.bounded_workers(dedup.load_config(None, []), *there)
    assert number == 4
    assert text == "engine: 4 workers for 16 cores: 2.0 GB of memory is there, and each takes 400.0 MB"
    assert preflight.bounded_workers(dedup.load_config(None, ["encoder.name=clip", "encoder.pretrained=x"]), *there)[0] == 1
    assert preflight.bounded_workers(dedup.load_config(None, ["engine.workers=9"]), *there) == (9, "")
    assert preflight.bounded_workers(dedup.load_config(None, []), 16, None) == (16, "")


def test_no_more_workers_are_started_than_there_are_tasks():
    engine = LocalEngine(500)
    try:
        assert sorted(engine.map_partitions(abs, [-1, -2])) == [(0, 1), (1, 2)]
        assert len(engine._pool._processes) <= 2
    finally:
        engine.close()


def header(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)  # sizes beyond 8 GB too


@pytest.mark.slow
def test_a_shard_of_20_gb_streams(tmp_path):
    """Pictures between films that are no images, which are read past: holes of a file, so that it takes no room."""
    path = tmp_path / "big.tar"
    with open(path, "wb") as file:
        for number in range(20):
            picture = encode(detailed(number % 12))
            file.write(header(f"{number:03d}.jpg", len(picture)) + picture + bytes(-len(picture) % 512))
            file.write(header(f"{number:03d}.mp4", 10**9))
            file.seek(10**9 + -(10**9) % 512, 1)
        file.write(bytes(1_024))
    assert path.stat().st_size > 20e9
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "dedup",
        "run",
        f"input.shards={path}",
        f"output.run_dir={run_dir}",
        "engine.workers=1",
        "report.enabled=false",
    ]
    with open(tmp_path / "log", "w+b") as log:
        process, peak = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(tmp_path)}), 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.05)
        log.seek(0)
        assert process.returncode == 0, log.read()
    assert pq.read_table(run_dir / "manifest").num_rows == 12
    assert pq.read_table(run_dir / "duplicates").num_rows == 8
    assert peak < 1e9  # driver and worker
    assert size_of(run_dir) < 10e6


def test_a_sample_of_the_limits(tmp_path):
    """Bytes beyond `input.max_image_bytes` are not held."""
    write_tar(tmp_path / "a.tar", [Sample("a", bytes(50_000_000)), Sample("b", encode(detailed(1)))])
    run_dir = tmp_path / "run"
    dedup.run(config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={run_dir}", "input.max_image_bytes=1000000"))
    assert [row["reason"] for row in pq.read_table(run_dir / "embeddings" / "rejected").to_pylist()] == ["too_many_bytes"]
