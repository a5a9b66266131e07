"""webdataset with the filter gives what the manifest keeps, wherever the shards lie now."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import make_samples, write_shards
from webdataset_data import read_webdataset

import dedup
from dedup.errors import ConfigError, InputError, RunDirectoryError


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
    with pytest.raises(RunDirectoryError, match="holds no run: expected _stages/embed.json"):
        dedup.keep(str(tmp_path))


def run_over_vectors(folder, key):
    """A run over embeddings, whose pictures are in tars made elsewhere: of 40 rows, 10 are copies."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 32)).astype(np.float32)
    rows[30:] = rows[:10]
    names = {"key": [key(k) for k in range(40)], "url": [f"http://a/{k}" for k in range(40)], "uid": [f"{k:032x}" for k in range(40)]}
    (folder / "in").mkdir()
    np.save(folder / "in" / "a.npy", rows)
    pq.write_table(pa.table(names), folder / "in" / "a.parquet")
    settings = ["encoder.name=precomputed", f"input.embeddings={folder}/in", f"output.run_dir={folder}/run", "input.carry=uid"]
    dedup.run(dedup.load_config(None, [*settings, "engine.workers=1"]))
    return str(folder / "run")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return run_over_vectors(tmp_path_factory.mktemp("vectors"), lambda k: f"{k:09d}")


def samples_of(form):
    """As webdataset yields img2dataset's tars."""
    for k in range(40):
        fields = {"url": f"http://a/{k}", "uid": f"{k:032x}"}
        yield {"__url__": "/elsewhere/00000.tar", "__key__": f"{k:09d}", "json": json.dumps(fields).encode() if form == "bytes" else fields}


@pytest.mark.parametrize("by", ["key", "url", "uid"])
@pytest.mark.parametrize("form", ["bytes", "decoded"])
def test_tars_made_elsewhere_are_filtered_by_a_name(vectors, by, form):
    keep = pickle.loads(pickle.dumps(dedup.keep(vectors, by=by)))
    assert [sample["__key__"] for sample in samples_of(form) if keep(sample)] == [f"{k:09d}" for k in range(30)]


def test_a_name_that_is_not_there_is_an_error(vectors):
    keep = dedup.keep(vectors, by="key")
    with pytest.raises(InputError, match="has no sample of key nothing"):
        keep({"__key__": "nothing"})
    with pytest.raises(InputError, match="a sample without url"):
        dedup.keep(vectors, by="url")({"__key__": "000000000"})
    with pytest.raises(InputError, match=r"it has no shard of that name; .*dedup.keep\(run, by='key'\)"):
        dedup.keep(vectors)({"__url__": "/elsewhere/00000.tar", "__key__": "000000000"})
    with pytest.raises(ConfigError, match="by='name' is unknown; expected one of shard, key, url, uid"):
        dedup.keep(vectors, by="name")


def test_a_name_of_several_samples_names_none(tmp_path):
    """Keys that are counted anew in each file."""
    run_dir = run_over_vectors(tmp_path, lambda k: f"{k % 35:09d}")
    with pytest.raises(InputError, match="5 values of key name samples that are kept and samples that are not"):
        dedup.keep(run_dir, by="key")
    assert dedup.keep(run_dir, by="url")({"url": "http://a/0"})


def test_vectors_can_not_be_rewritten(vectors, tmp_path):
    with pytest.raises(RunDirectoryError, match=r"is a run over embeddings, .*dedup.keep\(run, by='key'\).*dedup export RUN --format keys"):
        dedup.rewrite(vectors, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
