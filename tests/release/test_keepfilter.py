"""webdataset with the filter gives what the manifest keeps, wherever the shards lie now."""

import pickle
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shard_data import make_samples, write_shards
from webdataset_data import read_webdataset

import dedup
from dedup.errors import InputError, RunDirectoryError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keep")
    samples = make_samples(40, n_broken=2)
    for name in ("a/train", "b/train"):  # shards that are told apart by their folders alone
        part = samples[: len(samples) // 2] if name.startswith("a") else samples[len(samples) // 2 :]
        write_shards(folder / name, part, per_shard=30)
    run_dir = str(folder / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={folder}/*/train/*.tar", f"output.run_dir={run_dir}", "engine.workers=1"]))
    return run_dir


def kept(run_dir):
    rows = pq.read_table(f"{run_dir}/manifest", columns=["sample_id", "shard", "key"]).sort_by("sample_id")
    return list(zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True))


def shards_of(run_dir):
    return sorted(pq.read_table(f"{run_dir}/partitions")["shard"].to_pylist())


def test_webdataset_gives_what_is_kept(run):
    samples = read_webdataset(shards_of(run), run)
    assert [(sample["__url__"], sample["__key__"]) for sample in samples] == kept(run)
    assert len(samples) < len(read_webdataset(shards_of(run)))
    assert all("jpg" in sample or "png" in sample for sample in samples)


def test_shards_may_have_moved(run, tmp_path):
    root = Path(run).parent
    for name in ("a", "b"):
        shutil.copytree(root / name, tmp_path / "elsewhere" / name)
    moved = [str(tmp_path / "elsewhere" / Path(shard).relative_to(root)) for shard in shards_of(run)]
    samples = read_webdataset([*moved[:2], f"file:{moved[2]}", *(f"pipe:cat {name}" for name in moved[3:])], run)
    assert [sample["__key__"] for sample in samples] == [key for _, key in kept(run)]
    flat = tmp_path / "00000.tar"
    shutil.copy(moved[0], flat)
    with pytest.raises(InputError, match="several of its shards end alike"):
        dedup.keep(run)({"__url__": str(flat), "__key__": "x"})


def test_the_filter_is_sent_to_workers(run):
    keep = dedup.keep(run)
    shard, key = kept(run)[0]
    assert keep({"__url__": shard, "__key__": key})
    again = pickle.loads(pickle.dumps(keep))
    assert again({"__url__": shard, "__key__": key})
    dropped = pq.read_table(f"{run}/duplicates").to_pylist()
    assert not any(again({"__url__": row["shard"], "__key__": row["key"]}) for row in dropped)


def test_what_is_not_of_the_run_is_no_silent_no(run, tmp_path):
    keep = dedup.keep(run)
    with pytest.raises(InputError, match="it has no shard of that name"):
        keep({"__url__": "s3://bucket/99999.tar", "__key__": "x"})
    with pytest.raises(InputError, match="put dedup.keep before"):
        keep({"__key__": "x"})
    with pytest.raises(RunDirectoryError, match="holds no run: expected embeddings/_stage.json"):
        dedup.keep(str(tmp_path))
