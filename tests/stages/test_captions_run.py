"""Captions through a whole run: kept as a list, counted where people see it; a mistyped column is told."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from commands import dedup
from shard_data import Sample, detailed, encode, scene, write_tar

from dedup.cli.show.run import summary_lines
from dedup.config.load import load_config
from dedup.config.rules import validate
from dedup.errors import ConfigError, InputError
from dedup.pipeline.plan import status
from dedup.release.rewrite import rewrite
from dedup.runs.directory import Run
from dedup.storage.input.shards import read_shard
from dedup.storage.tables import read_table


def write_members(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def config_for(*settings):
    config = load_config(None, [*settings, "engine.workers=1", "report.enabled=false"])
    validate(config, require_input=True)
    return config


def samples():
    extras = [{"captions": ["one", "two"]}, {"title": "three"}, {}, {}]
    return [Sample(str(n), encode(scene(n)), extra=extra | {"punsafe": 0.1}) for n, extra in enumerate(extras)] + [
        Sample("4", encode(scene(4)), caption="four", extra={"caption": "five"})
    ]


def test_all_captions_reach_every_table_and_the_accounts(tmp_path):
    write_tar(tmp_path / "a.tar", [*samples(), Sample("5", encode(scene(0)), caption="again")])
    config = config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "input.carry=punsafe")
    summary = shared_workers.run(config)
    run = Run(f"{tmp_path}/run")
    rows = [row for name in ("manifest", "duplicates") for row in read_table(run.table(name)).to_pylist()]
    assert {row["key"]: (row["caption"], row["captions"]) for row in rows} == {
        "0": ("one", ["one", "two"]), "1": ("three", ["three"]), "2": (None, None), "3": (None, None), "4": ("four", ["four", "five"]),
        "5": ("again", ["again"]),
    }  # fmt: skip
    lines = dict(summary_lines(summary, config))
    assert lines["captions"] == "4 of 6 images have one (json 2, txt 2), 2 more than one"
    assert lines["carried"] == "punsafe 4 of 6 images"
    texts = json.loads(json.dumps(summary.as_dict()))["stages"]["embed"]["summary"]["texts"]
    assert (texts["n_samples"], texts["n_captions"], texts["by_source"], texts["carried"]) == (6, 6, {"json": 2, "txt": 2}, {"punsafe": 4})
    assert status(f"{tmp_path}/run")[0].input["texts"] == texts


def test_a_table_that_fits_no_image_shows_in_the_summary(tmp_path):
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    for n in range(2):
        (folder / "a" / f"{n}.jpg").write_bytes(encode(scene(n)))
    (tmp_path / "m.csv").write_text("file,caption\nb/0.jpg,of another\nb/1.jpg,of another\nb/2.jpg,of another\n")
    settings = [f"input.images={folder}", f"input.captions={tmp_path}/m.csv", "embed.images_per_partition=1"]
    config = config_for(*settings, f"output.run_dir={tmp_path}/run")
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["captions"] == "0 of 2 images have one"
    assert lines["table"] == "0 of 2 looked up have a row, 0 of 3 rows an image"
    told = dedup("status", f"{tmp_path}/run")
    assert "0 of 2 looked up have a row" in told.stdout


def test_a_mistyped_column_is_an_error_that_names_the_nearest(tmp_path):
    write_tar(tmp_path / "a.tar", samples())
    settings = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run"]
    with pytest.raises(
        InputError,
        match=r"input\.carry names 'punsfe', which is in no json member of the tars .*, and no column of the parquet or Arrow files; expected one of punsafe",
    ):
        shared_workers.run(config_for(*settings, "input.carry=punsfe"))
    summary = shared_workers.run(config_for(*settings, "input.carry=punsafe"))  # the same run directory goes on
    assert summary.records["embed"].summary["texts"]["carried"] == {"punsafe": 4}


def test_a_mistyped_column_of_a_table_is_refused_before_any_work(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(scene(0)))
    (tmp_path / "m.csv").write_text("file,caption,punsafe\na.jpg,one,0.5\n")
    settings = [f"input.images={tmp_path}", f"input.captions={tmp_path}/m.csv", f"output.run_dir={tmp_path}/run"]
    with pytest.raises(
        ConfigError, match=r"'punsfe', which is no column of input\.captions=.*m\.csv; expected one of punsafe, caption, file"
    ):
        shared_workers.run(config_for(*settings, "input.carry=punsfe"))
    assert not (tmp_path / "run" / "embeddings" / "_done").exists()


def test_a_rewritten_folder_keeps_all_captions(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encode(scene(0)))
    (folder / "a.captions").write_text("one\ntwo\n")
    shared_workers.run(config_for(f"input.images={folder}", f"output.run_dir={tmp_path}/run"))
    rewrite(f"{tmp_path}/run", f"{tmp_path}/clean")
    (sample,) = read_shard(f"{tmp_path}/clean/00000.tar")
    assert sample.captions == ("one", "two")


def test_a_schema_tells_of_a_mistyped_column_before_any_work(tmp_path):
    """Only if no file has it: files of one data set may differ."""
    for name, column in (("a", "punsafe"), ("b", "license")):
        pq.write_table(pa.table({"jpg": [encode(scene(0))], column: [0.5]}), tmp_path / f"{name}.parquet")
    settings = [f"input.shards={tmp_path}/*.parquet", f"output.run_dir={tmp_path}/run"]
    expected = r"'licence', which is no column of .*a\.parquet, nor of the other 1; expected one of license, jpg, punsafe"
    with pytest.raises(ConfigError, match=expected):
        shared_workers.run(config_for(*settings, "input.carry=punsafe,licence"))
    assert not (tmp_path / "run" / "embeddings").exists()
    shared_workers.run(config_for(*settings, "input.carry=punsafe,license"))


def test_images_and_samples_are_accounted_apart(tmp_path):
    """And the parquet beside a tar that nobody asked for is named."""
    pictures = [encode(scene(number)) for number in range(4)]
    members = [(f"{key}.{number:02}.jpg", pictures[number]) for key in (22, 23) for number in range(3)]
    members += [("22.01.txt", b"one"), ("24.txt", b"x"), ("25.jpg", pictures[3]), ("nothing", b"")]
    write_members(tmp_path / "a.tar", sorted(members))
    pq.write_table(pa.table({"key": ["22"], "caption": ["unread"]}), tmp_path / "a.parquet")
    config = config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run")
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["samples"] == "5 in 1 shard"
    assert lines["images"] == "7 in 5 samples"
    assert lines["rejected"] == "2 (no_image 1, no_key 1)"
    assert lines["captions"] == "1 of 7 images have one (txt 1)"
    assert lines["not looked at"] == "parquet files beside tars, which input.sidecar=true reads 1"
    assert lines["kept"].startswith("4; 3 duplicates dropped")
    assert lines["in samples"] == "2 kept, 1 dropped, each with all its images"


ORDERS = [
    "p0.txt p1.txt p0.in p1.in p0.out p1.out",
    "p0.in p1.in p0.out p1.out p1.txt p0.txt",
    "p0.in p0.txt p1.in p1.txt p1.out p0.out",
    "p0.in p1.in p0.txt p1.txt p0.out p1.out",
]


@pytest.mark.parametrize("order", ORDERS)
def test_a_text_reaches_all_images_of_its_sample_in_any_order(tmp_path, order):
    config = config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run")
    pictures = {name: encode(scene(number)) for number, name in enumerate(("p0.in", "p0.out", "p1.in", "p1.out"))}
    members = [(f"{name}.jpg", pictures[name]) if name in pictures else (name, name.encode()) for name in order.split()]
    write_members(tmp_path / "a.tar", members)
    summary = shared_workers.run(config, ("embed",)).records["embed"].summary
    rows = read_table(Run(f"{tmp_path}/run").table("metadata")).to_pylist()
    assert {(row["key"], row["member"]): row["captions"] for row in rows} == {
        (key, member): [f"{key}.txt"] for key in ("p0", "p1") for member in ("in.jpg", "out.jpg")
    }
    assert {(row["key"], row["n_images"]) for row in rows} == {("p0", 2), ("p1", 2)}
    n_apart = 1 if "p1.in p1.txt p1.out" in order else 2
    assert (summary["n_late"], sum(summary["texts"]["by_source"].values())) == (n_apart, 4)


def test_shards_that_break_off_are_in_the_accounts(tmp_path):
    """One that gives nothing counts as one that can't be read."""
    write_tar(tmp_path / "a.tar", samples())
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[: len(data) // 2])
    (tmp_path / "c.tar").write_bytes(b"")
    settings = [f"input.shards={tmp_path}/*.tar", f"output.run_dir={tmp_path}/run"]
    with pytest.raises(InputError, match=r"1 of 3 shards can't be read, the first: .*c\.tar breaks off after 0 bytes"):
        shared_workers.run(config_for(*settings))
    config = config_for(*settings, "input.allow_missing=true")
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["broken off"] == "1 shard, used up to there"
    assert lines["unreadable"] == "1 shard, which input.allow_missing lets pass"
    assert status(f"{tmp_path}/run")[0].input["n_broken_off"] == 1


def test_images_that_a_setting_leaves_out_are_not_called_missing(tmp_path):
    write_tar(tmp_path / "a.tar", samples())
    settings = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "input.images_per_sample=zzz.jpg"]
    with pytest.raises(InputError, match=r"none has zzz\.jpg, which input\.images_per_sample asks for"):
        shared_workers.run(config_for(*settings))


def test_names_that_are_no_text_are_found_again(tmp_path):
    """The pixels of such a file are judged, and it is rewritten."""
    folder = tmp_path / "images"
    folder.mkdir()
    picture = detailed(3, (320, 240))
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encode(picture, quality=95))
    (folder / "copy.jpg").write_bytes(encode(picture, quality=60))
    config = config_for(f"input.images={folder}", f"output.run_dir={tmp_path}/run")
    summary = shared_workers.run(config)
    assert summary.records["manifest"].rows["manifest"] == 1
    rewrite(f"{tmp_path}/run", f"{tmp_path}/clean")
    (sample,) = read_shard(f"{tmp_path}/clean/00000.tar")
    assert sample.image == (folder / os.fsdecode(b"caf\xe9.jpg")).read_bytes()
    assert pq.read_table(tmp_path / "clean" / "00000.parquet")["path"].to_pylist() == ["caf\\xe9.jpg"]


def test_images_without_suffixes_in_a_tar_are_rewritten_with_one(tmp_path):
    pictures = [encode(scene(number)) for number in range(2)]
    write_members(tmp_path / "a.tar", [("a/0", pictures[0]), ("README", b"?"), ("1.jpg", pictures[1]), ("1.txt", b"one")])
    shared_workers.run(config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run"))
    rewrite(f"{tmp_path}/run", f"{tmp_path}/clean")
    with tarfile.open(tmp_path / "clean" / "00000.tar") as tar:
        assert tar.getnames() == ["a/0.jpg", "1.jpg", "1.txt"]
        assert tar.extractfile("a/0.jpg").read() == pictures[0]
    assert [sample.key for sample in read_shard(f"{tmp_path}/clean/00000.tar")] == ["a/0", "1"]


def test_a_file_that_two_folders_lead_to_is_one_image(tmp_path):
    for name in ("x", "y/real"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "y" / "real" / "a.jpg").write_bytes(encode(scene(0)))
    (tmp_path / "y" / "real" / "a.txt").write_text("its caption")
    (tmp_path / "x" / "link").symlink_to(tmp_path / "y" / "real")
    (tmp_path / "x" / "b.jpg").write_bytes(encode(scene(1)))
    config = config_for(f"input.images={tmp_path}/x", f"input.images={tmp_path}/y", f"output.run_dir={tmp_path}/run")
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["kept"].startswith("2; 0 duplicates dropped")
    assert lines["not looked at"] == "folders that are given twice, or lie in another 1"
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a.npy").write_bytes(b"x")
    (tmp_path / "z" / "b.npy").hardlink_to(tmp_path / "z" / "a.npy")
    with pytest.raises(InputError, match="z holds no image, but links to a file that is looked at already 1, files .npy 1"):
        shared_workers.run(config_for(f"input.images={tmp_path}/x", f"input.images={tmp_path}/z", f"output.run_dir={tmp_path}/other"))
    (tmp_path / "y" / "c.jpg").write_bytes(encode(scene(2)))
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["kept"].startswith("3; 0 duplicates dropped")
    assert lines["captions"] == "1 of 3 images have one (txt 1)"


def test_what_could_not_be_read_is_named(tmp_path):
    pictures = [encode(scene(number)) for number in range(2)]
    write_members(tmp_path / "a.tar", [("0.jpg", pictures[0]), ("1.jpg", pictures[1]), ("1.json", b"{bad")])
    config = config_for(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run")
    lines = dict(summary_lines(shared_workers.run(config), config))
    assert lines["captions"] == f"0 of 2 images have one; 1 has json that can't be parsed (the first: {tmp_path}/a.tar 1)"
