"""A run over parquet or Arrow files finds what a run over the same samples in tars finds; what follows it gives the kept rows back."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from commands import dedup as command
from PIL import Image
from shard_data import encode, make_samples, scene, write_shards

import dedup
from dedup.errors import InputError, RunDirectoryError
from dedup.release.export import export
from dedup.release.rewrite import rewrite

FEATURES = datasets.Features(
    {"key": datasets.Value("string"), "image": datasets.Image(), "caption": datasets.Value("string"), "url": datasets.Value("string")}
)


PLACE = ("shard", "byte_offset", "file", "row", "member", "keeper_shard")  # what tells where a sample is


def as_dataset(samples):
    rows = {
        "key": [sample.key for sample in samples],
        "image": [{"bytes": sample.image, "path": f"{sample.key}.jpg"} for sample in samples],
        "caption": [sample.caption for sample in samples],
        "url": [f"https://example.org/{sample.key}.jpg" for sample in samples],
    }
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def run_over(shards, out, *options):
    words = [f"input.shards={shards}", f"output.run_dir={out}", "engine.workers=1", "report.enabled=false", *options]
    shared_workers.run(dedup.load_config(None, words))
    return str(out)


def table(run_dir, name):
    return pq.read_table(f"{run_dir}/{name}").sort_by("sample_id")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same samples in tars, in parquet files of small row groups, and as `save_to_disk` writes them."""
    folder = tmp_path_factory.mktemp("rows")
    samples = make_samples(40, n_broken=3)
    write_shards(folder / "tars", samples)
    (folder / "parquet").mkdir()
    for number, start in enumerate(range(0, len(samples), 40)):
        whole = as_dataset(samples[start : start + 40])
        whole.to_parquet(str(folder / "parquet" / f"{number:05d}.parquet"), batch_size=7)
        whole.save_to_disk(str(folder / "disk" / f"{number:05d}"))
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    shards = {"tars": "tars/*.tar", "parquet": "parquet/*.parquet", "disk": "disk/*/data-*.arrow"}
    return {name: run_over(folder / pattern, folder / f"run-{name}") for name, pattern in shards.items()}


@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_the_tables_are_those_of_the_same_samples_in_tars(runs, kind):
    for name in ("manifest", "duplicates", "groups", "edges", "candidates", "statistics"):
        rows = []
        for source in ("tars", kind):
            found = pq.read_table(f"{runs[source]}/{name}")
            found = found.drop_columns([column for column in PLACE if column in found.column_names])
            rows.append(sorted(found.to_pylist(), key=repr))
        assert rows[0] == rows[1], name
        assert rows[0]
    rejected = [
        sorted((row["key"], row["reason"]) for row in pq.read_table(f"{runs[source]}/embeddings/rejected").to_pylist())
        for source in ("tars", kind)
    ]
    assert rejected[0] == rejected[1]
    assert len(rejected[0]) == 3


@pytest.mark.parametrize(("kind", "per_shard"), [("parquet", 25), ("disk", 10_000), ("parquet", 0)])
def test_cleaned_files_hold_the_kept_rows_and_nothing_else(runs, folder, tmp_path, kind, per_shard):
    summary = rewrite(runs[kind], str(tmp_path / "clean"), per_shard=per_shard)
    assert (summary.n_failed, summary.errors) == (0, ())
    kept = table(runs[kind], "manifest")
    files = sorted(str(path) for path in (tmp_path / "clean").glob("*.parquet"))
    assert len(files) == summary.n_shards == (len({*kept["shard"].to_pylist()}) if not per_shard else -(-len(kept) // per_shard))
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert data.features == FEATURES
    assert data["key"][:] == kept["key"].to_pylist()
    original = {sample.key: sample for sample in make_samples(40, n_broken=3)}
    for row in data.cast_column("image", datasets.Image(decode=False)):
        assert row["image"]["bytes"] == original[row["key"]].image
        assert row["caption"] == original[row["key"]].caption
    again = rewrite(runs[kind], str(tmp_path / "clean"), per_shard=per_shard)
    assert again.n_done_before == summary.n_shards
    with pytest.raises(RunDirectoryError, match="another per_shard"):
        rewrite(runs[kind], str(tmp_path / "clean"), per_shard=3)


def test_rows_of_a_data_set_are_chosen(runs, folder, tmp_path):
    keeps = dedup.keep(runs["parquet"])
    files = sorted(str(path) for path in (folder / "parquet").glob("*.parquet"))
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["train"]
    kept = table(runs["parquet"], "manifest")["key"].to_pylist()
    assert data.select(keeps.rows(files))["key"][:] == kept
    turned = files[::-1]
    data = datasets.load_dataset("parquet", data_files=turned, cache_dir=str(tmp_path))["train"]
    assert sorted(data.select(keeps.rows(turned))["key"]) == sorted(kept)
    parts = [datasets.load_from_disk(str(path)) for path in sorted((folder / "disk").iterdir())]
    names = [part["filename"] for data in parts for part in data.cache_files]
    chosen = datasets.concatenate_datasets(parts).select(dedup.keep(runs["disk"]).rows(names))
    assert chosen["key"][:] == table(runs["disk"], "manifest")["key"].to_pylist()
    with pytest.raises(InputError, match="no file of rows"):
        keeps.rows(["a.tar"])
    with pytest.raises(InputError, match="no shard of that name"):
        keeps.rows(["b.parquet"])


def test_other_commands_take_them(runs, folder, tmp_path):
    run_dir = runs["parquet"]
    assert export(run_dir, "hf", str(tmp_path / "hf")).n_rows == table(run_dir, "manifest").num_rows
    images = pq.read_table(str(tmp_path / "hf" / "data"))["image"].to_pylist()
    assert images[0]["bytes"] == next(
        s.image for s in make_samples(40, n_broken=3) if s.key == table(run_dir, "manifest")["key"][0].as_py()
    )
    done = command("report", run_dir)
    assert done.returncode == 0, done.stderr
    assert (Path(run_dir) / "report.html").read_text().count("data:image/") > 10
    key = table(run_dir, "duplicates")["key"][0].as_py()
    done = command("explain", run_dir, key, "--out", tmp_path / "why.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.size[0] > 100
    done = command("flag", run_dir, folder / "parquet", "--out", tmp_path / "flags.parquet", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(str(tmp_path / "flags.parquet")).num_rows >= table(run_dir, "manifest").num_rows


def test_samples_of_several_images_are_copies_only_as_a_whole(tmp_path):
    pictures = [encode(scene(i)) for i in range(8)]
    smaller = [encode(scene(i).resize((80, 66))) for i in range(8)]
    pairs = [(pictures[0], pictures[1]), (pictures[0], pictures[2]), (smaller[0], smaller[2]), (pictures[3], pictures[4])]
    pq.write_table(pa.table({"input": [a for a, _ in pairs], "edited": [b for _, b in pairs]}), tmp_path / "edits.parquet")
    run_dir = run_over(tmp_path / "edits.parquet", tmp_path / "run")
    assert sorted({*table(run_dir, "manifest")["key"].to_pylist()}) in (
        ["000000000", "000000001", "000000003"], ["000000000", "000000002", "000000003"]
    )  # fmt: skip
    rewrite(run_dir, str(tmp_path / "clean"))
    assert pq.read_table(str(tmp_path / "clean" / "00000.parquet")).num_rows == 3


def test_kinds_of_shards_are_not_mixed_in_one(tmp_path):
    pq.write_table(pa.table({"image": [encode(scene(i)) for i in range(3)], "text": list("abc")}), tmp_path / "a.parquet")
    write_shards(tmp_path / "b", make_samples(4, n_broken=0))
    pq.write_table(pa.table({"image": [encode(scene(i)) for i in range(5, 8)], "other": [1, 2, 3]}), tmp_path / "c.parquet")
    run_dir = run_over(f"{tmp_path}/{{a.parquet,b/00000.tar,c.parquet}}", tmp_path / "run")
    summary = rewrite(run_dir, str(tmp_path / "clean"))
    assert sorted(path.name for path in (tmp_path / "clean").glob("0*[rt]")) == [
        "00000.parquet", "00001.parquet", "00001.tar", "00002.parquet"
    ]  # fmt: skip
    assert summary.n_shards == 3


def test_files_of_other_columns_and_files_that_changed(tmp_path):
    for name, column in (("a", "text"), ("b", "other")):
        images = [encode(scene(i + ord(name))) for i in range(3)]
        pq.write_table(pa.table({"image": images, column: list("abc")}), tmp_path / f"{name}.parquet")
    run_dir = run_over(tmp_path / "*.parquet", tmp_path / "run")
    summary = rewrite(run_dir, str(tmp_path / "clean"))
    assert (summary.n_shards, summary.n_failed) == (0, 1)
    assert "has other columns than the files before it" in summary.errors[0]
    assert not [*(tmp_path / "clean").glob("*.parquet")]
    summary = rewrite(run_dir, str(tmp_path / "each"), per_shard=0)
    assert (summary.n_shards, summary.n_failed) == (2, 0)
    pq.write_table(pa.table({"image": [encode(scene(9))] * 3, "other": list("abc")}), tmp_path / "b.parquet")
    summary = rewrite(run_dir, str(tmp_path / "changed"), per_shard=0)
    assert (summary.n_shards, summary.n_failed) == (1, 1)
    assert "has no image of" in summary.errors[0]


def test_a_folder_of_files_says_what_to_give(folder, tmp_path):
    with pytest.raises(InputError, match=r"give its files as '.*/parquet/\*\.parquet'"):
        run_over(folder / "parquet", tmp_path / "run")


def test_parquet_of_embeddings_holds_no_rows_of_images(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [f"{i}" for i in range(40)], "embedding": list(vectors)}), tmp_path / "in" / "a.parquet")
    words = [f"input.embeddings={tmp_path / 'in'}", "encoder.name=precomputed", f"output.run_dir={tmp_path / 'run'}", "engine.workers=1", "report.enabled=false"]  # fmt: skip
    shared_workers.run(dedup.load_config(None, words))
    with pytest.raises(RunDirectoryError, match="is a run over embeddings, which hold no pictures to copy"):
        rewrite(str(tmp_path / "run"), str(tmp_path / "clean"))
    assert dedup.keep(str(tmp_path / "run")).rows([str(tmp_path / "in" / "a.parquet")]).tolist() == list(range(40))


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet"])
def test_masks_of_embeddings_name_the_rows_that_are_kept(tmp_path, kind):
    """Rows that are rejected or copies are False; files of one name in two folders stay apart."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2, 50, 16)).astype(np.float32)
    vectors[0, 3:7] = 0
    vectors[1, 20:25] = vectors[0, 10:15]
    for number, folder in enumerate("ab"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        columns = {"uid": [f"{folder}{i}" for i in range(50)]} | ({"embedding": list(vectors[number])} if kind == "parquet" else {})
        pq.write_table(pa.table(columns), tmp_path / "in" / folder / "0.parquet")
        if kind != "parquet":
            write = np.save if kind == "npy" else np.savez
            write(tmp_path / "in" / folder / f"0.{kind}", vectors[number])
    run_dir = str(tmp_path / "run")
    words = [f"input.embeddings={tmp_path / 'in'}", "encoder.name=precomputed", f"output.run_dir={run_dir}", "engine.workers=1"]
    shared_workers.run(dedup.load_config(None, words))
    summary = export(run_dir, "rows", str(tmp_path / "masks"))
    assert (summary.n_files, summary.n_rows) == (2, 91)
    kept = {row["key"]: row for row in table(run_dir, "manifest").to_pylist()}
    found = {folder: np.load(tmp_path / "masks" / folder / "0.npy") for folder in "ab"}
    for folder, mask in found.items():
        assert mask.dtype == bool and len(mask) == 50
        assert {f"{folder}{place}" for place in np.flatnonzero(mask)} == {key for key in kept if key[0] == folder}
    assert all(row["row"] == int(key[1:]) and row["file"] == f"{tmp_path}/in/{key[0]}/0.{kind}" for key, row in kept.items())
    files = [row["file"] for row in (kept["a0"], kept["b0"])]
    assert dedup.keep(run_dir).rows(files).tolist() == np.flatnonzero(np.concatenate([found["a"], found["b"]])).tolist()


def test_masks_of_files_with_images(runs, folder, tmp_path):
    summary = export(runs["parquet"], "rows", str(tmp_path))
    files = sorted((folder / "parquet").glob("*.parquet"))
    masks = [np.load(tmp_path / f"{path.stem}.npy") for path in files]
    assert [len(mask) for mask in masks] == [pq.read_metadata(path).num_rows for path in files]
    kept = dedup.keep(runs["parquet"]).rows([str(path) for path in files])
    assert np.flatnonzero(np.concatenate(masks)).tolist() == kept.tolist()
    assert summary.n_rows == len(kept)
