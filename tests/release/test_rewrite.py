"""Cleaned shards hold the kept samples and nothing else, members byte for byte; whatever goes wrong leaves no half of one."""

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import Sample, detailed, encode, make_samples, scene, write_shards, write_tar
from typer.testing import CliRunner
from webdataset_data import read_webdataset

import dedup
from dedup.cli.main import app
from dedup.contracts import Table
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.release import rewrite as rewriting
from dedup.release.plan import kept_rows, plan_shards
from dedup.release.rewrite import rewrite
from dedup.schemas import MANIFEST
from dedup.storage.tables import FileWriter


def members(path):
    """Name and bytes of every member."""
    with tarfile.open(path, errors="surrogateescape") as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar if member.isreg()]


def all_members(folder):
    return [member for path in sorted(Path(folder).glob("*.tar")) for member in members(path)]


def manifest(run_dir):
    return pq.read_table(f"{run_dir}/manifest").sort_by("sample_id").to_pylist()


def expected(run_dir):
    """What plain tarfile finds of the manifest's samples, in the order of the input."""
    kept, found = manifest(run_dir), []
    for shard in dict.fromkeys(row["shard"] for row in kept):
        keys = {row["key"] for row in kept if row["shard"] == shard}
        found += [member for member in members(shard) if member[0].partition(".")[0] in keys]
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewrite")
    shards = write_shards(folder / "shards", make_samples(50, n_broken=3), per_shard=30)
    for number, path in enumerate(sorted((folder / "shards").glob("*.tar"))):
        keys = [name[:-5] for name, _ in members(path) if name.endswith(".json")]
        table = pa.table(
            {"key": keys, "status": ["success"] * len(keys), "exif": ["{}"] * len(keys), "sha256": ["of the download"] * len(keys)}
        )
        if number != 1:
            pq.write_table(table.slice(0, len(keys) - 1) if number == 2 else table, path.with_suffix(".parquet"))
    run_dir = str(folder / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1"]))
    return run_dir


@pytest.mark.parametrize("per_shard", [1, 7, 30, 10_000, 0])
def test_members_are_those_of_the_kept_samples(run, tmp_path, per_shard):
    summary = rewrite(run, str(tmp_path / "out"), per_shard=per_shard)
    kept = manifest(run)
    assert all_members(tmp_path / "out") == expected(run)
    assert summary.n_samples == len(kept)
    sizes = [len({name.partition(".")[0] for name, _ in members(path)}) for path in sorted((tmp_path / "out").glob("*.tar"))]
    if per_shard:
        assert sizes == [min(per_shard, len(kept) - start) for start in range(0, len(kept), per_shard)]
    else:
        shards = [row["shard"] for row in kept]
        assert sizes == [shards.count(shard) for shard in dict.fromkeys(shards)]
    assert summary.n_bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    read = [sample["__key__"] for sample in read_webdataset(sorted((tmp_path / "out").glob("*.tar")))]
    assert read == [row["key"] for row in kept]


def test_tables_beside_the_shards(run, tmp_path):
    rewrite(run, str(tmp_path), per_shard=40)
    kept = manifest(run)
    tables = [pq.read_table(path) for path in sorted(tmp_path.glob("0*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["key"] for row in rows] == [row["key"] for row in kept]
    assert [row["duplication_count"] for row in rows] == [row["duplication_count"] for row in kept]
    assert [row["url"] for row in rows] == [row["url"] for row in kept]
    with_sidecar = [not row["shard"].endswith("00001.tar") for row in kept]
    assert {row["sha256"] for row, had in zip(rows, with_sidecar, strict=True) if had} <= {"of the download", None}
    assert [row["sha256"] for row, had in zip(rows, with_sidecar, strict=True) if not had] == [
        row["sha256"] for row, had in zip(kept, with_sidecar, strict=True) if not had
    ]
    stats = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("0*_stats.json"))]
    assert [item["successes"] for item in stats] == [table.num_rows for table in tables]
    assert [item["status_dict"] for item in stats] == [{"success": table.num_rows} for table in tables]


def test_a_run_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    rewrite(run, str(whole), per_shard=9)
    write, written = rewriting.write_shard, []

    def stopped(task, wanted, feed):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(wanted.number)
        return write(task, wanted, feed)

    engine = InProcess()
    monkeypatch.setattr(rewriting, "write_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        rewrite(run, str(out), per_shard=9, engine=engine)
    monkeypatch.setattr(rewriting, "write_shard", write)
    assert len(list(out.glob("*.tar"))) == 2
    (out / "_0123456789ab-00002.tar").write_bytes(b"half of a tar")
    (out / "00001_stats.json").unlink()  # killed just before
    summary = rewrite(run, str(out), per_shard=9)
    assert summary.n_done_before == 1
    assert not list(out.glob("_*.tar"))
    for path in whole.glob("*.tar"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(RunDirectoryError, match="another per_shard"):
        rewrite(run, str(out), per_shard=8)


class InProcess:
    """An engine that stays in this process, so that what is replaced here is."""

    n_workers = 1

    def __init__(self):
        from dedup.engines.local import LocalEngine

        self._engine = LocalEngine(1)
        self.scratch, self.sql, self.sql_to = self._engine.scratch, self._engine.sql, self._engine.sql_to

    def map_partitions(self, work, tasks, **_):
        for number, task in enumerate(tasks):
            yield number, work(task)


def test_a_full_disk_leaves_no_half_of_a_shard(run, tmp_path, monkeypatch):
    class Full(io.BufferedWriter):
        def write(self, data):
            if self.tell() > 20_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    class Scratch(rewriting.AtomicFile):
        def __init__(self, url):
            super().__init__(url)
            self.file = Full(self.file.detach()) if url.endswith("00001.tar") else self.file

    monkeypatch.setattr(rewriting, "AtomicFile", Scratch)
    with pytest.raises(InputError, match=r"no room for .*00001\.tar .*run the same command again"):
        rewrite(run, str(tmp_path), per_shard=30, engine=InProcess())
    assert [path.name for path in tmp_path.glob("*.tar")] == ["00000.tar"]
    monkeypatch.undo()
    assert rewrite(run, str(tmp_path), per_shard=30).n_done_before == 1
    assert all_members(tmp_path) == expected(run)


def test_a_limit_on_file_size_is_a_full_disk(run, tmp_path):
    code = f"""
import resource, signal
from dedup.errors import InputError
from dedup.release.plan import kept_table, plan_shards
from dedup.release.rewrite import RewriteTask, rewrite_shards
kept = kept_table({run!r})
task = RewriteTask(kept, tuple(plan_shards(kept, 1000)), {str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    rewrite_shards(task)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no room for" in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_before(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match="has 1 bytes free, the cleaned shards need some"):
        rewrite(run, str(tmp_path))
    assert not list(tmp_path.glob("*.tar"))


def test_a_shard_that_changed_is_named_and_the_others_written(run, tmp_path):
    work = tmp_path / "copy"
    shutil.copytree(run, work / "run")
    rows = pq.read_table(f"{run}/manifest").sort_by("sample_id")
    shards = tmp_path / "shards"
    shutil.copytree(Path(rows["shard"][0].as_py()).parent, shards)
    moved = [str(shards / Path(shard).name) for shard in rows["shard"].to_pylist()]
    place = rows.column_names.index("shard")
    for path in (work / "run" / "manifest").glob("*.parquet"):
        path.unlink()
    pq.write_table(rows.set_column(place, rows.schema.field("shard"), pa.array(moved)), work / "run" / "manifest" / "part-00000.parquet")
    names = sorted(path.name for path in shards.glob("*.tar"))
    (shards / names[1]).unlink()
    (shards / names[2]).write_bytes((shards / names[2]).read_bytes()[:5_000])
    summary = rewrite(str(work / "run"), str(tmp_path / "out"), per_shard=0)
    assert summary.n_failed == 2
    assert "00001.tar with" in summary.errors[0]
    assert "can't be opened" in summary.errors[0]
    assert "breaks off" in summary.errors[1]
    kept = [member for member in expected(run) if any(member in members(shards / name) for name in (names[0], *names[3:]))]
    assert all_members(tmp_path / "out") == kept
    result = CliRunner().invoke(app, ["rewrite", str(work / "run"), str(tmp_path / "out"), "--per-shard", "0"])
    assert result.exit_code == 1
    assert "was not written" in result.stdout


def make_run(tmp_path, entries, **options):
    """A run over a tar of (name, bytes)."""
    path = tmp_path / "shards" / "odd.tar"
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1_234_567, "somebody"
            tar.addfile(info, io.BytesIO(data))
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={path}", f"output.run_dir={run_dir}", "engine.workers=1"]))
    return run_dir


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_odd_members_come_through(tmp_path, form):
    images = [encode(scene(seed)) for seed in range(6)]
    long = "" if form == tarfile.USTAR_FORMAT else "long/" * 60
    entries = [
        ("__info__.json", b"{}"),
        ("README", b"of no sample"),
        (f"{long}a.jpg", images[0]), (f"{long}a.txt", b"caption"), (f"{long}a.npy", b"\x93NUMPY" + bytes(3_000_000)), (f"{long}a.empty", b""),
        ("b.seg.png", b"a mask"), ("b.jpg", images[1]), ("b.jpg", images[2]),
        ("äöü.JPG", images[3]), ("äöü.json", b'{"caption": "x"}'),
        ("c.txt", b"first"), ("c.jpg", images[4]), ("a.d/e.jpg", images[5]),
        ("a.cls", b"1"),
    ]  # fmt: skip
    if form == tarfile.GNU_FORMAT:
        entries.insert(11, ("caf\udce9.jpg", encode(scene(77))))
    run_dir = make_run(tmp_path, entries, format=form, encoding="utf-8", errors="surrogateescape")
    rewrite(run_dir, str(tmp_path / "out"))
    left_out = {"__info__.json", "README"}
    rest = [entry for entry in entries if entry[0] not in left_out]
    second_b = max(number for number, (name, _) in enumerate(rest) if name == "b.jpg")
    del rest[second_b]  # a second sample of that key
    if not long:
        rest.insert(4, rest.pop())  # with the other members of its sample
    else:
        rest = rest[:-1]  # a sample without an image
    assert all_members(tmp_path / "out") == rest
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert {(member.mtime, member.uname) for member in tar} == {(1_234_567, "somebody")}
    assert (tmp_path / "out" / "00000.tar").stat().st_size % 10_240 == 0


def test_compressed_shards(tmp_path):
    folder = tmp_path / "shards"
    samples = [Sample(f"s{number}", encode(scene(number)), f"caption {number}") for number in range(5)]
    write_tar(folder / "a.tar", samples)
    (folder / "b.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()))
    (folder / "a.tar").unlink()
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={folder}/*", f"output.run_dir={run_dir}", "engine.workers=1"]))
    rewrite(run_dir, str(tmp_path / "out"), per_shard=2)
    with tarfile.open(folder / "b.tar.gz") as tar:
        every = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert all_members(tmp_path / "out") == every


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_members_are_written_whole(tmp_path, form):
    folder, shards = tmp_path / "files", tmp_path / "shards"
    folder.mkdir()
    shards.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encode(scene(number)))
        with open(folder / f"{number}.npy", "wb") as file:
            for place in (0, 200_000, 900_000):
                file.seek(place)
                file.write(b"some bytes")
            file.truncate(2_000_000)
    names = sorted(path.name for path in folder.iterdir())
    subprocess.run(["tar", "-S", f"--format={form}", "-cf", str(shards / "a.tar"), "-C", str(folder), *names], check=True)
    assert (shards / "a.tar").stat().st_size < 500_000
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={shards}/*", f"output.run_dir={run_dir}", "engine.workers=1"]))
    rewrite(run_dir, str(tmp_path / "out"))
    assert all_members(tmp_path / "out") == [(name, (folder / name).read_bytes()) for name in names]


def test_one_key_in_several_shards_is_never_twice_in_one(tmp_path):
    for number in range(3):
        samples = [Sample(f"{key:03d}", encode(scene(10 * number + key)), "x") for key in range(4)]
        write_tar(tmp_path / "shards" / f"{number}.tar", samples)
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={tmp_path}/shards/*.tar", f"output.run_dir={run_dir}", "engine.workers=1"]))
    summary = rewrite(run_dir, str(tmp_path / "out"))
    assert summary.n_shards == 3
    assert summary.n_samples == 12
    assert all_members(tmp_path / "out") == expected(run_dir)


def test_a_folder_of_images_becomes_tars(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number in range(4):
        (folder / "sub" / f"{number}.v1.jpg").write_bytes(encode(scene(number)))
        (folder / "sub" / f"{number}.v1.txt").write_text(f"caption {number}")
    (folder / "sub" / "0.png").write_bytes(encode(scene(40), "PNG"))  # webdataset's key would be that of 0.v1.jpg
    (folder / "no_suffix").write_bytes(encode(scene(41), "PNG"))
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.images={folder}", f"output.run_dir={run_dir}", "engine.workers=1"]))
    rewrite(run_dir, str(tmp_path / "out"))
    samples = read_webdataset(sorted((tmp_path / "out").glob("*.tar")))
    assert [sample["__key__"] for sample in samples] == [f"00000{number:04d}" for number in range(6)]
    assert {name for sample in samples for name in sample if not name.startswith("__")} == {"jpg", "png", "txt"}
    paths = {row["key"]: row["path"] for row in pq.read_table(tmp_path / "out" / "00000.parquet").to_pylist()}
    for sample in samples:
        assert bytes.fromhex(sample.get("jpg") or sample["png"]) == (folder / paths[sample["__key__"]]).read_bytes()
    assert {bytes.fromhex(sample["txt"]) for sample in samples if "txt" in sample} == {f"caption {number}".encode() for number in range(4)}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tars_that_are_not_sorted(tmp_path, pack):
    """Members of a sample come out together; of samples with several images, all members."""
    (tmp_path / "shards").mkdir()
    pictures = [encode(scene(number)) for number in range(6)]
    members_in = [(f"{k}.jpg", pictures[k]) for k in range(4)] + [(f"{k}.txt", b"%d" % k) for k in range(4)]
    members_in += [("1.edited.jpg", pictures[4]), ("2.jpg", b"another sample of that key"), ("4.jpg", pictures[0])]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members_in:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    (tmp_path / "shards" / "0.tar").write_bytes(pack(buffer.getvalue()))
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={tmp_path}/shards/*.tar", f"output.run_dir={run_dir}", "engine.workers=1"]))
    kept = {(row["key"], row["member"]): row for row in manifest(run_dir)}
    assert {name: (row["caption"], row["n_images"]) for name, row in kept.items()} == {
        ("0", "jpg"): ("0", 1),
        ("1", "jpg"): ("1", 2),
        ("1", "edited.jpg"): ("1", 2),
        ("2", "jpg"): ("2", 1),
        ("3", "jpg"): ("3", 1),
    }
    assert kept["1", "edited.jpg"]["first_image_id"] == kept["1", "jpg"]["sample_id"]
    assert rewrite(run_dir, str(tmp_path / "out")).n_samples == 4
    assert all_members(tmp_path / "out") == [
        member for k in range(4) for member in members_in if member[0].startswith(f"{k}.") and member[1] != b"another sample of that key"
    ]


def test_keep_lists(run, tmp_path):
    kept, dropped = manifest(run), pq.read_table(f"{run}/duplicates").to_pylist()
    wanted = [kept[3], kept[8], dropped[0]]
    order = sorted(wanted, key=lambda row: row["sample_id"])
    (tmp_path / "keys.txt").write_text("# a comment\n" + "".join(f"{row['key']}\n" for row in wanted) + "not-there\nnor this\n")
    summary = rewrite(run, str(tmp_path / "a"), keep_list=str(tmp_path / "keys.txt"))
    assert [row["key"] for row in pq.read_table(tmp_path / "a" / "00000.parquet").to_pylist()] == [row["key"] for row in order]
    assert summary.keep_list.n_unknown == 2
    assert summary.keep_list.unknown == ("nor this", "not-there")
    pq.write_table(pa.table({"shard": [row["shard"] for row in wanted], "key": [row["key"] for row in wanted]}), tmp_path / "keys.parquet")
    (tmp_path / "sha.txt").write_text("\n".join(row["sha256"].upper() for row in wanted))
    for name in ("keys.parquet", "sha.txt"):
        again = rewrite(run, str(tmp_path / name[:3]), keep_list=str(tmp_path / name), dry_run=True)
        assert again.keep_list.n_unknown == 0
        assert again.n_samples >= 3  # byte-identical copies have one sha256
    (tmp_path / "unknown.txt").write_text("nothing\nof\nthis\nrun\n")
    with pytest.raises(InputError, match="names no sample of .* its first entries are nothing, of, run"):
        rewrite(run, str(tmp_path / "b"), keep_list=str(tmp_path / "unknown.txt"))
    (tmp_path / "mixed.txt").write_text("a\nhttps://a.b/c\n")
    with pytest.raises(InputError, match="some lines are urls and some are not"):
        rewrite(run, str(tmp_path / "b"), keep_list=str(tmp_path / "mixed.txt"))
    (tmp_path / "none.csv").write_text("name\na\n")
    with pytest.raises(InputError, match="found the columns name"):
        rewrite(run, str(tmp_path / "b"), keep_list=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="does not exist"):
        rewrite(run, str(tmp_path / "b"), keep_list=str(tmp_path / "absent.csv"))
    (tmp_path / "uids.csv").write_text("uid\n00\n")
    with pytest.raises(InputError, match=r"names samples by uid, which .* embed with input.carry=\[uid\]"):
        rewrite(run, str(tmp_path / "b"), keep_list=str(tmp_path / "uids.csv"))


@pytest.mark.spark
def test_on_spark_the_same_shards(run, tmp_path, start_spark):
    (tmp_path / "keys.txt").write_text("".join(f"{row['key']}\n" for row in manifest(run)[5:40]) + "unknown\n")
    engine = start_spark()
    try:
        for name, options in (("all", {}), ("some", {"keep_list": str(tmp_path / "keys.txt")})):
            here = rewrite(run, str(tmp_path / "here" / name), per_shard=9, **options)
            there = rewrite(run, str(tmp_path / "there" / name), per_shard=9, engine=engine, **options)
            assert here.n_samples == there.n_samples
            assert here.keep_list == there.keep_list
            for path in (tmp_path / "here" / name).glob("0*.tar"):
                assert (tmp_path / "there" / name / path.name).read_bytes() == path.read_bytes()
    finally:
        engine.close()


def test_what_can_not_be(run, tmp_path):
    with pytest.raises(ConfigError, match="per_shard=-1"):
        rewrite(run, str(tmp_path), per_shard=-1)
    with pytest.raises(RunDirectoryError, match="holds no run: expected _stages/embed.json"):
        rewrite(str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    shards = str(Path(manifest(run)[0]["shard"]).parent)
    with pytest.raises(RunDirectoryError, match="holds shards that were not written here"):
        rewrite(run, shards)


def test_the_plan_on_many_files(tmp_path):
    rows, number = [], 0
    for shard in range(7):
        for key in range(5 + 3 * shard):
            rows.append(
                {
                    "sample_id": (sample_id := (shard << 32) + 2 * key),
                    "first_image_id": sample_id,
                    "shard": f"/s/{shard}.tar",
                    "key": f"{key if shard % 2 else number}",
                    "n_bytes": 10,
                }
            )
            number += 1
    table = Table(str(tmp_path), pa.schema([MANIFEST.field(name) for name in ("sample_id", "first_image_id", "shard", "key", "n_bytes")]))
    for part, start in enumerate(range(0, len(rows), 13)):
        with FileWriter(f"{tmp_path}/part-{part:05d}.parquet", table.schema) as writer:
            writer.write(pa.Table.from_pylist(rows[start : start + 13]))
    for per_shard in (1, 4, 13, 1000, 0):
        plan = list(plan_shards(table, per_shard))
        parts = [kept_rows(table, wanted).to_pylist() for wanted in plan]
        assert [row["sample_id"] for part in parts for row in part] == [row["sample_id"] for row in rows]
        assert [len(part) for part in parts] == [wanted.n_samples for wanted in plan]
        assert [wanted.number for wanted in plan] == list(range(len(plan)))
        assert all(len({row["key"] for row in part}) == len(part) for part in parts)
        for part, following in zip(parts[:-1], parts[1:], strict=True):  # greedy: no shard ends before it must
            is_full = len(part) == per_shard if per_shard else following[0]["shard"] != part[-1]["shard"]
            assert is_full or following[0]["key"] in {row["key"] for row in part}


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_chosen_caption_is_in_the_cleaned_shard(tmp_path, is_sorted):
    """The kept copy's own caption is rare, or it has none: its txt member gets that of most copies, all else stays."""
    pictures = [(number, quality) for number in (1, 2) for quality in (90, 70, 60)]
    captions = ["rare", "often", "often", None, "told", "told"]
    samples = [Sample(f"{k}", encode(detailed(seed), quality=quality), captions[k], seed) for k, (seed, quality) in enumerate(pictures)]
    samples.append(Sample("alone", encode(detailed(9)), "as it is\n", 9))
    write_tar(tmp_path / "00000.tar", samples)
    if not is_sorted:  # all texts behind the images
        with tarfile.open(tmp_path / "00000.tar") as tar:
            members = [(member, tar.extractfile(member).read()) for member in tar]
        with tarfile.open(tmp_path / "00000.tar", "w") as tar:
            for member, data in sorted(members, key=lambda pair: pair[0].name.endswith((".txt", ".json"))):
                tar.addfile(member, io.BytesIO(data))
    for caption in ("own", "most_frequent"):
        run_dir = str(tmp_path / caption)
        settings = [f"input.shards={tmp_path}/00000.tar", f"output.run_dir={run_dir}", "engine.workers=1", "keep.order_by=n_bytes desc"]
        dedup.run(dedup.load_config(None, [*settings, f"keep.caption={caption}"]))
        dedup.rewrite(run_dir, f"{run_dir}/cleaned")
    found = {name: members_of(tmp_path / name / "cleaned" / "00000.tar") for name in ("own", "most_frequent")}
    assert {name: data for name, data in found["own"].items() if name.endswith(".txt")} == {"0.txt": b"rare", "alone.txt": b"as it is\n"}
    assert found["most_frequent"] == found["own"] | {"0.txt": b"often", "3.txt": b"told"}
    beside = pq.read_table(tmp_path / "most_frequent" / "cleaned" / "00000.parquet").to_pylist()
    assert {row["key"]: row["caption"] for row in beside}["3"] == "told"


def members_of(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}
