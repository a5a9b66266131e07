"""What must not be trained on: near evaluation images, or on a list, with its copies."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image
from run_tables import table
from shard_data import Sample, detailed, encode, write_shards, write_tar

import dedup
from dedup.config.key import STAGE_NAMES
from dedup.errors import ConfigError, InputError, RunDirectoryError


def samples():
    """Thirty pictures; of each third one a JPEG copy, of each fifth one a byte-identical one."""
    made = []
    for seed in range(30):
        picture = detailed(seed)
        made.append(Sample(f"{seed:03d}a", encode(picture), f"picture {seed}"))
        if seed % 3 == 0:
            made.append(Sample(f"{seed:03d}b", encode(picture, quality=50), "copy"))
        if seed % 5 == 0:
            made.append(Sample(f"{seed:03d}c", encode(picture), "twin"))
    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("exclude") / "shards", samples(), per_shard=20)


def run(shards, run_dir, *settings, stages=STAGE_NAMES, engine=None):
    wanted = [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1", *settings]
    return shared_workers.run(dedup.load_config(None, wanted), stages, engine=engine)


def keys(run_dir, name):
    return {row["key"] for row in table(str(run_dir), name).to_pylist()}


def check_accounts(run_dir, n):
    """Each sample in one table; each group that is not all gone has a keeper; each dropped sample's keeper is kept."""
    parts = [row["key"] for name in ("manifest", "duplicates", "excluded", "rejected") for row in table(str(run_dir), name).to_pylist()]
    assert len(parts) == len(set(parts)) == n
    kept = {row["sample_id"] for row in table(str(run_dir), "manifest").to_pylist()}
    assert all(row["keeper_id"] in kept for row in table(str(run_dir), "duplicates").to_pylist())


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    run(shards, run_dir)
    return run_dir


def test_training_samples_near_reference_images_go(shards, plain, tmp_path):
    """A mirrored, a cropped, a recompressed and an unrelated reference, in a tar and in a folder."""
    picture = detailed(3)
    references = [
        Sample("eval/mirrored", encode(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))),
        Sample("eval/other", encode(detailed(777))),
    ]
    write_tar(tmp_path / "eval.tar", references)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "jpeg.jpg").write_bytes(encode(detailed(10), quality=40))
    (tmp_path / "eval" / "crop.png").write_bytes(encode(detailed(7).crop((14, 12, 146, 116)), "PNG"))
    (tmp_path / "eval" / "broken.jpg").write_bytes(b"broken")
    run_dir = tmp_path / "run"
    summary = run(shards, run_dir, f"exclude.reference_shards={tmp_path}/eval.tar", f"exclude.reference_images={tmp_path}/eval")
    found = {row["key"]: row for row in table(str(run_dir), "excluded").to_pylist()}
    assert set(found) == {"003a", "003b", "010a", "010c", "007a"}
    assert {row["reason"] for row in found.values()} == {"reference"}
    assert (found["003a"]["excluded_by"], found["003a"]["reference_shard"]) == ("eval/mirrored", f"{tmp_path}/eval.tar")
    assert (found["010c"]["excluded_by"], found["010c"]["reference_shard"]) == ("jpeg.jpg", f"{tmp_path}/eval/")
    assert found["010a"]["similarity_to_reference"] > 0.98
    assert found["010a"]["distance_to_reference"] <= 0.15
    assert summary.records["exclude"].summary | {"n_references": 4, "n_reference_errors": 1} == summary.records["exclude"].summary
    check_accounts(run_dir, len(samples()))
    # counts are those of the data: nothing of the reference enters them
    for name in ("groups", "statistics", "histogram", "captions", "neighbors"):
        assert table(str(run_dir), name).equals(table(str(plain), name)), name
    assert keys(run_dir, "manifest") == keys(plain, "manifest") - set(found)


def test_listed_samples_go_with_their_copies(shards, tmp_path):
    twin = next(sample for sample in samples() if sample.key == "005a")
    (tmp_path / "asked.jpg").write_bytes(encode(detailed(12), quality=60))
    lines = [
        "# taken down in May",
        hashlib.sha256(twin.image).hexdigest().upper(),
        "https://example.org/009a.jpg",
        "key:011a",
        f"{tmp_path}/asked.jpg",
        "no such key",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    run_dir = tmp_path / "run"
    summary = run(shards, run_dir, f"exclude.list={tmp_path}/list.txt")
    found = {row["key"]: row for row in table(str(run_dir), "excluded").to_pylist()}
    assert {key: row["reason"] for key, row in found.items()} == {
        "005a": "listed", "005c": "listed", "009a": "listed", "009b": "copy", "011a": "listed", "012a": "listed", "012b": "listed",
    }  # fmt: skip
    assert found["009b"]["excluded_by"] == "https://example.org/009a.jpg"
    assert found["012a"]["excluded_by"] == f"{tmp_path}/asked.jpg"
    assert summary.records["exclude"].summary["n_entries"] == 5
    check_accounts(run_dir, len(samples()))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_lists_may_be_tables(shards, tmp_path, kind):
    rows = pa.table({"key": ["001a", None], "url": [None, "https://example.org/002a.jpg"], "note": ["a", "b"]})
    path = tmp_path / f"list.{kind}"
    pq.write_table(rows, path) if kind == "parquet" else pa.csv.write_csv(rows, path)
    run(shards, tmp_path / "run", f"exclude.list={path}")
    assert keys(tmp_path / "run", "excluded") == {"001a", "002a"}


def test_a_group_that_loses_its_keeper_keeps_another(tmp_path):
    """The reference is the lower part of a picture: the picture goes, its upper part, which shares too little with the reference, stays."""
    picture = detailed(3, (240, 200))
    write_tar(tmp_path / "train.tar", [Sample("whole", encode(picture)), Sample("top", encode(picture.crop((0, 0, 240, 162))))])
    write_tar(tmp_path / "eval.tar", [Sample("bottom", encode(picture.crop((0, 38, 240, 200))))])
    run(f"{tmp_path}/train.tar", tmp_path / "plain")
    assert (keys(tmp_path / "plain", "manifest"), keys(tmp_path / "plain", "duplicates")) == ({"whole"}, {"top"})
    run(f"{tmp_path}/train.tar", tmp_path / "run", f"exclude.reference_shards={tmp_path}/eval.tar")
    assert keys(tmp_path / "run", "excluded") == {"whole"}
    assert keys(tmp_path / "run", "manifest") == {"top"}
    assert table(tmp_path / "run", "manifest").to_pylist()[0]["duplication_count"] == 2
    check_accounts(tmp_path / "run", 2)


def _written(path, text):
    path.write_text(text)
    return path


def test_another_list_redoes_the_manifest_and_nothing_before(shards, plain, tmp_path):
    run_dir = tmp_path / "run"
    path = _written(tmp_path / "list.txt", "001a")
    run(shards, run_dir, f"exclude.list={path}")
    path.write_text("002a")
    with pytest.raises(dedup.DedupError, match="stage 'exclude' was made with another configuration: list"):
        run(shards, run_dir, f"exclude.list={path}")
    summary = shared_workers.run(
        dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1", f"exclude.list={path}"]),
        redo=True,
    )
    assert set(summary.skipped) == {"embed", "index", "pairs", "confirm", "groups", "statistics"}
    assert keys(run_dir, "excluded") == {"002a"}


def test_what_can_not_work_is_said(shards, tmp_path):
    with pytest.raises(InputError, match="exclude.list=.*nowhere.txt does not exist"):
        run(shards, tmp_path / "a", f"exclude.list={tmp_path}/nowhere.txt")
    path = tmp_path / "list.csv"
    path.write_text("name\nx\n")
    with pytest.raises(InputError, match=r"found the columns name, expected one of sha256, url, key, image"):
        run(shards, tmp_path / "b", f"exclude.list={path}")
    with pytest.raises(InputError, match=r"reference|no shard|matches"):
        run(shards, tmp_path / "c", f"exclude.reference_shards={tmp_path}/none*.tar")
    write_tar(tmp_path / "eval.tar", [Sample("x", encode(detailed(1)))])
    with pytest.raises(ConfigError, match="expected index.codes other than none"):
        run(shards, tmp_path / "d", f"exclude.reference_shards={tmp_path}/eval.tar", "index.codes=none")


@pytest.mark.spark
def test_on_spark_the_same_go(shards, tmp_path, start_spark):
    write_tar(tmp_path / "eval.tar", [Sample("eval/one", encode(detailed(3), quality=50)), Sample("eval/two", encode(detailed(10)))])
    settings = [f"exclude.reference_shards={tmp_path}/eval.tar", f"exclude.list={_written(tmp_path / 'list.txt', 'key:009a')}"]
    run(shards, tmp_path / "local", *settings)
    run(shards, tmp_path / "spark", *settings, stages=STAGE_NAMES[: STAGE_NAMES.index("exclude")])
    engine = start_spark()
    try:
        run(shards, tmp_path / "spark", *settings, stages=["exclude", "manifest"], engine=engine)
    finally:
        engine.close()
    for name in ("exclusions", "excluded", "manifest", "duplicates"):
        assert table(str(tmp_path / "spark"), name).equals(table(str(tmp_path / "local"), name)), name


def test_a_run_without_an_image_ends_and_says_that_nothing_can_be_looked_up(tmp_path):
    (tmp_path / "empty.tar").write_bytes(b"")
    write_tar(tmp_path / "eval.tar", [Sample("eval/one", encode(detailed(3)))])
    run_dir = str(tmp_path / "run")
    settings = [
        f"input.shards={tmp_path}/empty.tar",
        f"output.run_dir={run_dir}",
        f"exclude.reference_shards={tmp_path}/eval.tar",
        "engine.workers=1",
    ]
    with pytest.raises(InputError, match=r"1 of 1 shard can't be read, the first: .*empty\.tar breaks off after 0 bytes"):
        shared_workers.run(dedup.load_config(None, settings))
    for look in (dedup.open_index, dedup.calibrate):
        with pytest.raises(RunDirectoryError, match="holds no run"):
            look(run_dir)
