"""Exports name exactly what is kept, and other tools read them."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from shard_data import Sample, encode, make_samples, scene, write_shards, write_tar
from typer.testing import CliRunner

import dedup
from dedup.cli.main import app
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.release.export import export
from dedup.storage.input.names import read_keep_list


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    samples = make_samples(50, n_broken=3)
    for number, sample in enumerate(samples):
        sample.extra = {"uid": rng.bytes(16).hex()} if number != 5 else {}
    shards = write_shards(folder / "shards", samples, per_shard=30)
    run_dir = str(folder / "run")
    overrides = [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1", "input.carry=uid"]
    dedup.run(dedup.load_config(None, overrides))
    return run_dir


def kept(run_dir):
    return pq.read_table(f"{run_dir}/manifest").sort_by("sample_id").to_pylist()


def test_keys_and_urls(run, tmp_path):
    rows = kept(run)
    assert export(run, "keys", str(tmp_path / "k.txt")).n_rows == len(rows)
    assert (tmp_path / "k.txt").read_text().splitlines() == [row["key"] for row in rows]
    export(run, "keys", str(tmp_path / "k.csv"))
    export(run, "keys", str(tmp_path / "k.parquet"))
    assert read_keep_list(str(tmp_path / "k.csv")).to_pylist() == [{"shard": row["shard"], "key": row["key"]} for row in rows]
    assert pq.read_table(tmp_path / "k.parquet")["sample_id"].to_pylist() == [row["sample_id"] for row in rows]
    export(run, "urls", str(tmp_path / "u.txt"))
    assert (tmp_path / "u.txt").read_text().splitlines() == [row["url"] for row in rows]


def test_datacomp_takes_the_uids(run, tmp_path):
    rows = kept(run)
    summary = export(run, "datacomp", str(tmp_path / "uids.npy"))
    array = np.load(tmp_path / "uids.npy", allow_pickle=False)
    # as its own scripts write them: https://github.com/mlfoundations/datacomp
    own = np.array([(int(row["uid"][:16], 16), int(row["uid"][16:], 16)) for row in rows if row["uid"]], np.dtype("u8,u8"))
    own.sort()
    assert array.dtype == np.dtype("u8,u8")
    assert np.array_equal(array, own)
    assert summary.n_left_out == sum(row["uid"] is None for row in rows)


@pytest.mark.parametrize(
    ("form", "name"), [("keys", "a.txt"), ("keys", "a.csv"), ("keys", "a.parquet"), ("urls", "a.txt"), ("datacomp", "a.npy")]
)
def test_an_export_comes_back_as_a_keep_list(run, tmp_path, form, name):
    n = export(run, form, str(tmp_path / name)).n_rows
    back = export(run, "keys", str(tmp_path / "back.parquet"), keep_list=str(tmp_path / name))
    assert back.keep_list.n_unknown == 0
    assert back.n_rows == n
    found = set(pq.read_table(tmp_path / "back.parquet")["sample_id"].to_pylist())
    assert found <= {row["sample_id"] for row in kept(run)}


class SmallGroups(LocalEngine):
    """Files for `datasets` are written in row groups of few images."""

    def map_partitions(self, work, tasks, **how):
        return super().map_partitions(work, [replace(task, group_bytes=40_000) for task in tasks], **how)


@pytest.mark.parametrize("with_images", [True, False])
def test_hugging_face_reads_the_folder(run, tmp_path, with_images):
    with closing(SmallGroups(1)) as engine:
        export(run, "hf", str(tmp_path / "hf"), with_images=with_images, engine=engine)
    n_groups = [pq.ParquetFile(path).num_row_groups for path in (tmp_path / "hf" / "data").iterdir()]
    assert (max(n_groups) > 1) == with_images
    code = """
import hashlib, json, sys
from datasets import Image, load_dataset
data = load_dataset(sys.argv[1], split="train")
for row in data.cast_column("image", Image(decode=False)) if "image" in data.features else data:
    image = row.pop("image", None)
    print(json.dumps(row | {"of_image": hashlib.sha256(image["bytes"]).hexdigest() if image else None}))
if "image" in data.features:
    assert data[0]["image"].size == (data[0]["width"], data[0]["height"])
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "hf")], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, expected = [json.loads(line) for line in done.stdout.splitlines()], kept(run)
    assert [row["key"] for row in rows] == [row["key"] for row in expected]
    assert [row["caption"] for row in rows] == [row["caption"] for row in expected]
    assert [row["duplication_count"] for row in rows] == [row["duplication_count"] for row in expected]
    assert [row["of_image"] for row in rows] == [row["sha256"] if with_images else None for row in expected]
    with pytest.raises(RunDirectoryError, match="holds files of another export"):
        export(run, "hf", str(tmp_path / "hf"), with_images=not with_images)


def test_a_folder_of_images_goes_to_hugging_face(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encode(scene(number)))
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.images={tmp_path}/images", f"output.run_dir={run_dir}", "engine.workers=1"]))
    export(run_dir, "hf", str(tmp_path / "hf"))
    rows = pq.read_table(tmp_path / "hf" / "data").to_pylist()
    assert [row["image"] for row in rows] == [
        {"bytes": (tmp_path / "images" / f"{number}.jpg").read_bytes(), "path": f"{number}.jpg"} for number in range(3)
    ]
    (tmp_path / "images" / "1.jpg").write_bytes(b"another")
    with pytest.raises(InputError, match=r"1\.jpg has .* bytes, expected"):
        export(run_dir, "hf", str(tmp_path / "hf2"))


def test_a_url_of_any_file_system(run):
    memory = fsspec.filesystem("memory")
    for form, name in (("keys", "k.txt"), ("keys", "k.csv"), ("datacomp", "u.npy")):
        export(run, form, f"memory://exports/{name}")
    assert memory.cat("/exports/k.txt").decode().splitlines() == [row["key"] for row in kept(run)]
    export(run, "keys", "memory://exports/back.txt", keep_list="memory://exports/u.npy")
    memory.rm("/exports", recursive=True)


def test_keys_that_do_not_tell_samples_apart(tmp_path):
    for number in range(2):
        write_tar(
            tmp_path / "shards" / f"{number}.tar", [Sample("one\nline", encode(scene(number))), Sample("key", encode(scene(number + 9)))]
        )
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={tmp_path}/shards/*", f"output.run_dir={run_dir}", "engine.workers=1"]))
    with pytest.raises(InputError, match="the key .key. occurs in 2 shards"):
        export(run_dir, "keys", str(tmp_path / "k.txt"))
    export(run_dir, "keys", str(tmp_path / "k.csv"))
    assert read_keep_list(str(tmp_path / "k.csv"))["key"].to_pylist() == ["one\nline", "key"] * 2
    shard = tmp_path / "shards" / "1.tar"
    shard.rename(tmp_path / "moved.tar")
    with pytest.raises(InputError, match="can't be opened"):
        export(run_dir, "hf", str(tmp_path / "hf"))
    # the worker that still writes the other file is stopped: what it leaves, if anything, has a hidden name
    assert {path.name for path in Path(tmp_path, "hf").rglob("train-*.parquet")} <= {"train-00000-of-00002.parquet"}
    (tmp_path / "moved.tar").rename(shard)
    Path(tmp_path, "hf", "data", "_0123456789ab-train-00001-of-00002.parquet").write_bytes(b"half")
    assert export(run_dir, "hf", str(tmp_path / "hf")).n_rows == 4  # goes on
    assert sorted(path.name for path in Path(tmp_path, "hf", "data").iterdir()) == [f"train-0000{n}-of-00002.parquet" for n in range(2)]
    assert pq.read_table(tmp_path / "hf" / "data")["key"].to_pylist() == ["one\nline", "key"] * 2


@pytest.mark.parametrize("what", ["kept", "dropped", "groups", "counts", "pairs"])
def test_tables_as_one_file(run, tmp_path, what):
    """Every format holds the same rows, which are those of the run's tables."""
    read = {
        "parquet": lambda path: pq.read_table(path).to_pylist(),
        "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
        "csv": lambda path: pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True)).to_pylist(),
    }
    rows = {}
    for form, reader in read.items():
        out = tmp_path / f"x.{form}"
        assert export(run, form, str(out), what=what).n_rows == len(rows.setdefault(form, reader(out)))
    keys = [[(row["shard"], row["key"]) for row in of_form] for of_form in rows.values()]
    assert keys[0] == keys[1] == [(shard, f"{int(key):06d}") for shard, key in keys[2]]  # a CSV has no types
    names = [name for name, value in rows["parquet"][0].items() if not isinstance(value, list | float)]
    assert [[row[name] for name in names] for row in rows["parquet"]] == [[row[name] for name in names] for row in rows["jsonl"]]
    manifest, duplicates = (pq.read_table(f"{run}/{name}").to_pylist() for name in ("manifest", "duplicates"))
    found = rows["parquet"]
    if what in ("kept", "dropped"):
        assert found == (manifest if what == "kept" else duplicates) and "uid" in found[0]
    elif what == "groups":
        kept = {row["sample_id"] for row in manifest if row["duplication_count"] > 1}
        assert {row["sample_id"] for row in found if row["is_kept"]} == kept
        assert {row["sample_id"]: row["keeper_id"] for row in found if not row["is_kept"]} == {
            row["sample_id"]: row["keeper_id"] for row in duplicates
        }
        assert [row["component_id"] for row in found] == sorted(row["component_id"] for row in found)
    elif what == "counts":
        assert [row["duplication_count"] for row in found] == sorted((row["duplication_count"] for row in found), reverse=True)
        assert len(found) == pq.read_table(f"{run}/statistics").num_rows
    else:
        edges = pq.read_table(f"{run}/edges").to_pylist()
        assert len(found) == sum(row["kind"] == "exact" or row["confirmed"] is not False for row in edges)
        assert all({"other_shard", "other_key", "relation"} <= row.keys() for row in found)


def test_lists_of_names_and_what_they_can_not_be(run, tmp_path):
    out = tmp_path / "x.txt"
    assert export(run, "txt", str(out), what="dropped").n_rows == len(out.read_text().splitlines()) > 0
    for form, more, message in (
        ("txt", {"what": "pairs"}, "a list has one name per line; expected --format csv, jsonl or parquet"),
        ("keys", {"what": "dropped"}, "--what dropped with --format keys; expected one of csv"),
        ("csv", {"what": "everything"}, "the table 'everything' is unknown; expected one of kept, dropped"),
        ("csv", {"keep_list": str(out)}, "leave it out"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(run, form, str(tmp_path / "y"), **more)
    assert not (tmp_path / "y").exists()


def test_what_can_not_be(run, tmp_path):
    with pytest.raises(InputError, match="has read no files of rows; expected a run over embeddings, parquet or Arrow files"):
        export(run, "rows", str(tmp_path / "masks"))
    with pytest.raises(
        ConfigError, match="expected one of keys, urls, rows, datacomp, hf, open_clip, imagefolder, csv, jsonl, parquet, txt"
    ):
        export(run, "xml", str(tmp_path / "x"))
    with pytest.raises(ConfigError, match=r"ends in \.npy"):
        export(run, "datacomp", str(tmp_path / "x"))
    with pytest.raises(ConfigError, match=r"ends in \.txt, \.csv or \.parquet"):
        export(run, "keys", str(tmp_path / "k.xyz"))
    uids = tmp_path / "bad.npy"
    np.save(uids, np.zeros(3))
    with pytest.raises(InputError, match="expected a vector of u8,u8"):
        export(run, "keys", str(tmp_path / "x.txt"), keep_list=str(uids))
    np.save(uids, np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match="can't be read"):
        export(run, "keys", str(tmp_path / "x.txt"), keep_list=str(uids))


def test_the_command_line(run, tmp_path):
    result = CliRunner().invoke(app, ["export", run, "--format", "keys", "--out", str(tmp_path / "k.txt"), "--json"])
    assert json.loads(result.stdout)["n_rows"] == len(kept(run))
    (tmp_path / "k.txt").write_text((tmp_path / "k.txt").read_text() + "unknown key\n")
    result = CliRunner().invoke(app, ["rewrite", run, str(tmp_path / "out"), "--keep-list", str(tmp_path / "k.txt"), "engine.workers=1"])
    assert "1 entries of the keep list name no sample of the run: unknown key" in result.stdout
    result = CliRunner().invoke(app, ["rewrite", run, str(tmp_path / "dry"), "--dry-run", "--json"])
    assert json.loads(result.stdout)["n_samples"] == len(kept(run))
    assert not (tmp_path / "dry").exists()


def test_files_of_a_folder_with_their_captions(tmp_path, require_extra):
    """As open_clip and `datasets` read them."""
    datasets, pandas = require_extra("datasets"), require_extra("pandas")
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "sub/b.jpg", "sub/c.png", "copy of a.jpg")):
        (folder / name).write_bytes(encode(scene(number % 3), "PNG" if name.endswith("png") else "JPEG"))
    (folder / "a.txt").write_text('tab\there, "quoted"')
    (folder / "sub/b.txt").write_text("née 日本")
    run_dir = str(tmp_path / "run")
    dedup.run(dedup.load_config(None, [f"input.images={folder}", f"output.run_dir={run_dir}", "engine.workers=1"]))
    summary = dedup.export(run_dir, "open_clip", str(tmp_path / "train.csv"))
    assert (summary.n_rows, summary.n_left_out) == (2, 1)
    read = pandas.read_csv(tmp_path / "train.csv", sep="\t")  # as open_clip does
    assert dict(zip(read["filepath"], read["title"], strict=True)) == {
        f"{folder}/a.jpg": 'tab\there, "quoted"',
        f"{folder}/sub/b.jpg": "née 日本",
    }
    with pytest.raises(InputError, match=r"does not lie below .*; expected --out metadata.jsonl in the folder"):
        dedup.export(run_dir, "imagefolder", str(tmp_path / "elsewhere" / "metadata.jsonl"))
    with pytest.raises(ConfigError, match="expected a name that ends in metadata.jsonl"):
        dedup.export(run_dir, "imagefolder", str(folder / "kept.jsonl"))
    assert dedup.export(run_dir, "imagefolder", str(folder / "metadata.jsonl")).n_rows == 3
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(row["text"] or "" for row in loaded) == ["", "née 日本", 'tab\there, "quoted"']
    assert sorted(row["duplication_count"] for row in loaded) == [1, 1, 2]
