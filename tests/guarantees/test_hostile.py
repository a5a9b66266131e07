"""Accounting under fire: whatever is in the shards, the run ends and every sample is in exactly one table."""

import collections
import contextlib
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile import add, make

import dedup
from dedup.schemas import REJECT_REASONS
from dedup.storage.input.samples import IMAGE_SUFFIXES
from dedup.storage.input.shards import Grouping, parse_name

SEED = 20_261_123


@dataclass(frozen=True)
class Hostile:
    """A run over hostile shards, and the most memory one of its processes took (bytes)."""

    paths: list[Path]
    n_samples: int
    run_dir: str
    settings: list[str]
    peak: int


# very many by their vectors; fewer by all that a run does, as most of its time goes to pairs of pictures
@pytest.fixture(scope="module", params=[(3_000, ["confirm.enabled=false"]), (900, [])], ids=["many", "judged"])
def hostile(request, tmp_path_factory):
    n_samples, settings = request.param
    folder = tmp_path_factory.mktemp("hostile")
    paths = make(folder / "shards", SEED, n_samples)
    run_dir = str(folder / "run")
    settings = [*settings, "engine.workers=2"]
    command = [sys.executable, "-m", "dedup", "run", f"input.shards={folder}/shards/*", f"output.run_dir={run_dir}", *settings]
    command.append("input.allow_missing=true")  # two files are no tars
    with open(folder / "log", "w+b") as log:
        # a process of its own: what pytest holds does not count
        process, peaks = subprocess.Popen(command, stdout=log, stderr=log), {}
        while process.poll() is None:
            for pid in [process.pid, *_children(process.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), _anonymous(pid))
            time.sleep(0.1)
        log.seek(0)
        assert process.returncode == 0, log.read()[-3_000:].decode()
    return Hostile(paths, n_samples, run_dir, settings, max(peaks.values()))


def _children(pid):
    with contextlib.suppress(OSError):
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return []


def _anonymous(pid):
    with contextlib.suppress(OSError, IndexError):
        return 1024 * int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0])
    return 0  # it ended while we looked


def rows(run_dir, name, columns=None):
    return pq.read_table(f"{run_dir}/{name}", columns=columns).to_pylist()


def keys(run_dir, *names):
    return collections.Counter((row["shard"], row["key"]) for name in names for row in rows(run_dir, name, ["shard", "key"]))


def listed(path):
    """Keys of the images of a tar that is whole, and of its samples without one, as plain tarfile lists them."""
    grouping, found, runs = Grouping(), [], []
    with tarfile.open(path, errors="surrogateescape", ignore_zeros=True) as tar:
        for member in tar:
            named = parse_name(member.name) if member.isreg() else None
            if named is None or named.problem:
                found += [named.key] if named else []
                continue
            if grouping.begins(named):
                runs.append([named.key, 0, False])
            runs[-1][1] += named.suffix.rpartition(".")[2] in IMAGE_SUFFIXES
            runs[-1][2] |= grouping.is_duplicate
    with_image = {key for key, n_images, is_duplicate in runs if n_images and not is_duplicate}
    for key, n_images, is_duplicate in runs:
        found += [key] * (1 if is_duplicate else n_images)
    found += {key for key, _, is_duplicate in runs if not is_duplicate} - with_image
    return [(str(path), key) for key in found]


@pytest.mark.slow
def test_every_sample_is_in_exactly_one_table(hostile):
    paths, run_dir = hostile.paths, hostile.run_dir
    seen = keys(run_dir, "manifest", "duplicates", "excluded", "embeddings/rejected")
    status = {row["shard"]: row["status"] for row in rows(run_dir, "partitions")}
    assert set(status) == {str(path) for path in paths}
    whole = [path for path in paths if status[str(path)] == "ok"]
    assert sum(seen.values()) >= hostile.n_samples
    expected = collections.Counter(key for path in whole for key in listed(path))
    assert {key: n for key, n in seen.items() if status[key[0]] == "ok"} == expected
    assert keys(run_dir, "embeddings/metadata") == keys(run_dir, "manifest", "duplicates", "excluded")
    assert not keys(run_dir, "manifest") & keys(run_dir, "duplicates")
    counts = {row["shard"]: row for row in rows(run_dir, "partitions")}
    for shard, row in counts.items():
        assert row["n_samples"] + row["n_rejected"] == sum(n for key, n in seen.items() if key[0] == shard)
    assert hostile.peak < 1.5e9


@pytest.mark.slow
def test_what_is_rejected_has_its_reason(hostile):
    run_dir = hostile.run_dir
    found = collections.Counter(row["reason"] for row in rows(run_dir, "embeddings/rejected"))
    assert set(found) <= set(REJECT_REASONS)
    assert {"no_image", "empty_image", "undecodable_image", "truncated_image", "unsupported_format", "too_many_pixels", "duplicate_key", "no_key"} <= set(found)  # fmt: skip
    assert all(row["detail"] for row in rows(run_dir, "embeddings/rejected"))
    status = {row["shard"].rpartition("/")[2]: row["status"] for row in rows(run_dir, "partitions")}
    assert {status[name] for name in ("half_block.tar", "no_end.tar", "nothing.tar", "cut.tar.gz", "header.tar")} == {"truncated"}
    assert {status[name] for name in ("text.tar", "noise.tar")} == {"unreadable"}
    assert {
        status[name] for name in ("gzip.tar", "bzip2.tar.bz2", "xz.tar.xz", "put_together.tar", "empty.tar", "odd.tar", "sparse.tar")
    } == {"ok"}


@pytest.mark.slow
def test_good_samples_fare_as_they_would_alone(hostile, tmp_path):
    """The accepted samples in clean tars give the same manifest and duplicates."""
    paths, run_dir = hostile.paths, hostile.run_dir
    kept = collections.defaultdict(list)
    for row in sorted(rows(run_dir, "embeddings/metadata", ["sample_id", "shard", "key"]), key=lambda row: row["sample_id"]):
        kept[row["shard"]].append(row["key"])
    (tmp_path / "shards").mkdir()
    for path in paths:
        if kept[str(path)]:
            _rewrite(path, kept[str(path)], tmp_path / "shards" / path.name)
    again = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={tmp_path}/shards/*", f"output.run_dir={again}", *hostile.settings]))
    assert not rows(again, "embeddings/rejected")
    for name, columns in (("manifest", ("sha256", "duplication_count")), ("duplicates", ("sha256", "keeper_key", "similarity_to_keeper", "kind", "distance_to_keeper"))):  # fmt: skip
        mine, theirs = (
            {(row["shard"].rpartition("/")[2], row["key"]): [row[column] for column in columns] for row in rows(folder, name)}
            for folder in (run_dir, again)
        )
        assert mine == theirs


def _rewrite(path, wanted, target):
    """The image of each wanted sample, and its caption."""
    from dedup.storage.input.shards import read_shard

    wanted = set(wanted)
    with tarfile.open(target, "w", encoding="utf-8", errors="surrogateescape") as tar:
        for sample in read_shard(str(path)):
            if sample.key in wanted and sample.image is not None:
                name = sample.key.encode().replace(b"\\xe9", b"\xe9").decode("utf-8", "surrogateescape")
                add(tar, f"{name}.{sample.member}", sample.image)
                if sample.caption is not None and sample.n_images == 1:
                    add(tar, f"{name}.txt", sample.caption.encode())
