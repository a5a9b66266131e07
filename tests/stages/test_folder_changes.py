"""A folder that changes between two runs: what is new or changed is embedded, the rest is not embedded again."""

import os
import shutil

import numpy as np
import pytest
import shared_workers
from run_tables import Notes, table
from shard_data import detailed, encode

import dedup
from dedup.config.load import load_config
from dedup.errors import InputError
from dedup.storage.input.sources import folder_parts

N = 700


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Many small pictures, few of them alike."""
    folder = tmp_path_factory.mktemp("folder") / "pictures"
    folder.mkdir()
    for number in range(N):
        (folder / f"{number:04d}.jpg").write_bytes(encode(detailed(number % 690, (48, 40))))
    return folder


def config_of(folder, run_dir, *settings):
    words = [f"input.images={folder}", f"output.run_dir={run_dir}", "engine.workers=2", "report.enabled=false", "confirm.enabled=false"]
    return load_config(None, [*words, *settings])


def markers(run_dir):
    return {path.name: path.stat().st_mtime_ns for path in (run_dir / "embeddings" / "_done").iterdir()}


def vectors_by_key(run_dir):
    metadata = table(run_dir, "metadata")
    stored = {int(path.stem[-5:]): np.load(path) for path in (run_dir / "embeddings" / "img_emb").glob("*.npy")}
    rows = zip(metadata["sample_id"].to_pylist(), metadata["key"].to_pylist(), strict=True)
    return {key: stored[sample >> 32][sample & 0xFFFFFFFF] for sample, key in rows}


def change(folder):
    """One more file, one less, one changed, one renamed, each in another place."""
    (folder / "0100b.jpg").write_bytes(encode(detailed(1_000, (48, 40))))
    (folder / "0300.jpg").unlink()
    (folder / "0500.jpg").write_bytes(encode(detailed(1_001, (48, 40))))
    (folder / "0690.jpg").rename(folder / "zzz.jpg")


def test_the_rest_is_not_embedded_again(pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    shared_workers.run(config_of(folder, tmp_path / "run"))
    before = markers(tmp_path / "run")
    assert len(before) >= 4
    change(folder)
    told = Notes()
    shared_workers.run(config_of(folder, tmp_path / "run"), reporter=told)
    after = markers(tmp_path / "run")
    untouched = [name for name in after if after[name] == before.get(name)]
    assert len(untouched) >= len(before) - 5
    assert any("partitions are done already" in note for note in told.notes)
    shared_workers.run(config_of(folder, tmp_path / "afresh"))
    ours, expected = vectors_by_key(tmp_path / "run"), vectors_by_key(tmp_path / "afresh")
    assert ours.keys() == expected.keys() == {path.name for path in folder.iterdir()}
    assert all(np.array_equal(ours[key], expected[key]) for key in ours)
    kept = {row["sha256"] for row in table(tmp_path / "run", "manifest").to_pylist()}
    assert kept == {row["sha256"] for row in table(tmp_path / "afresh", "manifest").to_pylist()}


def test_a_file_more_changes_one_part(pictures, tmp_path):
    names = sorted(path.name for path in pictures.iterdir())
    (tmp_path / "same").mkdir()
    for name in names:
        os.link(pictures / name, tmp_path / "same" / name)
    before = {part.images for part in folder_parts(str(tmp_path / "same"), "", 0)}
    assert all(64 <= len(images) <= 256 for images in list(before)[:-1] if images[-1] != names[-1])
    for name in ("0000a.jpg", "0350a.jpg", "zzzz.jpg"):
        (tmp_path / "same" / name).write_bytes(b"x")
        after = {part.images for part in folder_parts(str(tmp_path / "same"), "", 0)}
        assert len(after - before) <= 2
        (tmp_path / "same" / name).unlink()


def test_a_base_of_the_same_folder_gets_its_new_files(pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    shared_workers.run(config_of(folder, tmp_path / "old"))
    (folder / "0100b.jpg").write_bytes(encode(detailed(5, (48, 40)), quality=70))
    (folder / "zzz.jpg").write_bytes(encode(detailed(1_000, (48, 40))))
    (folder / "0300.jpg").unlink()
    summary = shared_workers.run(config_of(folder, tmp_path / "new", f"base.run_dir={tmp_path}/old"))
    assert summary.records["embed"].summary["n_base_samples"] == N
    assert summary.records["embed"].rows["metadata"] == N + 2
    assert len(vectors_by_key(tmp_path / "new")) == N + 2
    dropped = {row["key"]: row["keeper_key"] for row in table(tmp_path / "new", "duplicates").to_pylist()}
    assert "0005.jpg" in (dropped.get("0100b.jpg"), dropped.get("0100b.jpg", "0005.jpg"))
    again = shared_workers.run(config_of(folder, tmp_path / "third", f"base.run_dir={tmp_path}/new"))
    assert again.records["embed"].rows["metadata"] == N + 2
    (folder / "0400.jpg").write_bytes(encode(detailed(1_002, (48, 40))))
    with pytest.raises(InputError, match=r"1 files have changed since .*new embedded them, the first .*0400.jpg; .* itself again"):
        shared_workers.run(config_of(folder, tmp_path / "fourth", f"base.run_dir={tmp_path}/new"))


def test_what_the_command_says(pictures, tmp_path):
    """Through Python's own entry, as a person does it every week."""
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    for _ in range(2):
        summary = dedup.run(str(folder), out=str(tmp_path / "run"), settings={"report": {"enabled": False}, "engine": {"workers": 2}})
        (folder / "new.jpg").write_bytes(encode(detailed(2_000, (48, 40))))
    assert summary.records["embed"].rows["metadata"] == N + 1


def test_several_folders_are_one_run(pictures, tmp_path):
    for name, numbers in (("a", range(3)), ("b/inside", range(2, 6))):
        (tmp_path / name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(pictures / f"{number:04d}.jpg", tmp_path / name / f"{number}.jpg")
    (tmp_path / "again").symlink_to(tmp_path / "a")
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "b" / "inside", tmp_path / "again"]
    words = [f"input.images={folder}" for folder in folders]
    summary = shared_workers.run(load_config(None, [*words, f"output.run_dir={tmp_path}/run", "engine.workers=1", "report.enabled=false"]))
    assert summary.records["embed"].rows["metadata"] == 7
    assert summary.records["embed"].summary["passed_over"] == {"folders that are given twice, or lie in another": 2}
    (row,) = table(tmp_path / "run", "duplicates").to_pylist()
    assert {(row["shard"], row["key"]), (row["keeper_shard"], row["keeper_key"])} == {
        (f"{tmp_path}/a/", "2.jpg"),
        (f"{tmp_path}/b/", "inside/2.jpg"),
    }
