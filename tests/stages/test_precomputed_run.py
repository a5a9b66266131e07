"""Runs over embeddings made elsewhere: no image is touched, unless it is known where they lie."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from run_tables import Notes, assert_same_tables, rows_of
from shard_data import make_samples, write_shards
from vector_data import all_similarities, copies_of, power_law

from dedup.config.keys import STAGE_NAMES
from dedup.config.load import load_config
from dedup.errors import ConfigError, InputError
from dedup.numerics.graph.components import connected_components
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

N = (700, 500)


@pytest.fixture(scope="module")
def laion(tmp_path_factory):
    """Two files in clip-retrieval's layout: near copies at known cosines, equal rows, rows that are no vectors."""
    folder, rng = tmp_path_factory.mktemp("laion"), np.random.default_rng(0)
    first, second = power_law(rng, N[0], 64), power_law(rng, N[1], 64)
    for place in range(40):
        second[place] = copies_of(rng, first[place], 1, 0.9 + 0.0025 * place)[0]
    stored = [(20.0 * rows).astype(np.float16) for rows in (first, second)]
    stored[1][40:60] = stored[0][40:60]
    stored[1][70], stored[1][71] = np.nan, 0.0
    (folder / "img_emb").mkdir()
    (folder / "metadata").mkdir()
    for number, rows in enumerate(stored):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", rows)
        keys = [f"{number:05d}{place:04d}" for place in range(len(rows))]
        table = pa.table({"key": keys, "TEXT": [f"caption {place % 5}" for place in range(len(rows))], "NSFW": ["UNLIKELY"] * len(rows)})
        pq.write_table(table, folder / "metadata" / f"metadata_{number:03d}.parquet")
    return folder, stored


def config_for(folder, run_dir, *settings):
    return load_config(None, ["encoder.name=precomputed", f"input.embeddings={folder}", f"output.run_dir={run_dir}", *settings])


def table(run_dir, name):
    return read_table(Run(str(run_dir)).table(name))


@pytest.fixture(scope="module")
def run_dir(laion, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    shared_workers.run(config_for(laion[0], run_dir, "input.carry=NSFW", "engine.workers=2"))
    return run_dir


def test_groups_are_those_of_all_pairs(laion, run_dir):
    _, stored = laion
    rows = np.concatenate(stored).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    is_good = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
    unit = (rows / np.maximum(norms, 1e-9))[is_good].astype(np.float16)
    src, dst = np.nonzero(np.triu(all_similarities(unit) >= np.float32(0.95), 1))
    assert 30 < len(src) < 100
    labels = connected_components(src, dst, len(unit))
    groups = table(run_dir, "groups").sort_by("sample_id")
    metadata = table(run_dir, "metadata").sort_by("sample_id")
    position = {sample: place for place, sample in enumerate(metadata["sample_id"].to_pylist())}
    grouped = [position[sample] for sample in groups["sample_id"].to_pylist()]
    raw = [position[sample] for sample in groups["raw_component_id"].to_pylist()]
    assert np.array_equal(np.flatnonzero(np.bincount(labels, minlength=len(unit))[labels] > 1), grouped)
    assert np.array_equal(labels[grouped], raw)
    exact = table(run_dir, "candidates").filter(pa.compute.field("kind") == "exact")
    assert len(exact) == 20
    assert set(exact["source"].to_pylist()) == {"embedding"}
    kinds = table(run_dir, "duplicates")["kind"].to_pylist()
    assert (kinds.count("exact"), kinds.count("near")) == (20, len(src) - 20)


def test_every_row_is_accounted_for(laion, run_dir):
    folder, _ = laion
    rejected = table(run_dir, "rejected").to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [("000010070", "bad_embedding"), ("000010071", "bad_embedding")]
    kept, dropped = table(run_dir, "manifest"), table(run_dir, "duplicates")
    assert len(kept) + len(dropped) + len(rejected) == sum(N)
    assert set(kept["shard"].to_pylist()) == {f"{folder}/img_emb/img_emb_{number}.npy" for number in range(2)}
    assert read_table(Run(str(run_dir)).table("manifest"))["NSFW"].to_pylist()[:2] == ["UNLIKELY"] * 2
    record = json.loads((run_dir / "embeddings" / "_stage.json").read_text())
    assert record["summary"]["exact_by"] == "embedding"


def test_confirmation_is_off_and_says_so(laion, tmp_path):
    reporter = Notes()
    shared_workers.run(config_for(laion[0], tmp_path), ("embed", "index", "pairs", "confirm"), reporter=reporter)
    assert any("confirm: off: these embeddings don't say where their images lie" in note for note in reporter.notes)
    assert set(table(tmp_path, "edges")["confirmed"].to_pylist()) == {None}


def test_files_are_copied_once(laion, tmp_path):
    folder, stored = laion
    other = tmp_path / "laion"
    for name in ("img_emb", "metadata"):
        (other / name).mkdir(parents=True)
        for path in (folder / name).iterdir():
            (other / name / path.name).write_bytes(path.read_bytes())
    config = config_for(other, tmp_path / "run")
    shared_workers.run(config)
    assert shared_workers.run(config).skipped == STAGE_NAMES
    marker = tmp_path / "run" / "embeddings" / "_done" / "00000.json"
    before = marker.stat().st_mtime_ns
    np.save(other / "img_emb" / "img_emb_2.npy", stored[0][:10])
    pq.write_table(pa.table({"key": [str(k) for k in range(10)]}), other / "metadata" / "metadata_2.parquet")
    summary = shared_workers.run(config, redo=True)
    assert marker.stat().st_mtime_ns == before
    assert summary.records["embed"].rows["metadata"] == sum(N) - 2 + 10
    assert summary.records["manifest"].summary["n_exact"] == 30


def test_a_file_that_breaks_off_is_noted(laion, tmp_path):
    _, stored = laion
    np.save(tmp_path / "a.npy", stored[0][:100])
    pq.write_table(pa.table({"key": [str(k) for k in range(100)]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-64])
    reporter = Notes()
    with pytest.raises(InputError, match=r"no image could be read from 1 shard: .*a\.npy: "):
        shared_workers.run(config_for(tmp_path, tmp_path / "run"), reporter=reporter)
    assert any("a.npy: truncated: " in note for note in reporter.notes)


def test_embeddings_of_a_run_are_judged_by_their_pixels(tmp_path):
    """Our own embeddings know where their images lie: the same result as from the images, second looks aside."""
    settings = [
        "engine.workers=2",
        "search.views=false",
        "search.min_similarity=0.7",
        "search.low_detail_quality=0",
        "search.flat_quality=0",
    ]
    first, shards = tmp_path / "first", write_shards(tmp_path, make_samples())
    shared_workers.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={first}", *settings]))
    again = tmp_path / "again"
    shared_workers.run(config_for(first / "embeddings", again, *settings))
    assert any(table(again, "edges")["confirmed"].to_pylist())
    assert_same_tables(first, again, ("candidates", "neighbors", "groups"))
    for name in ("edges", "refused"):  # all but the name of the encoder
        without = [sorted(map(repr, table(run, name).drop_columns("found_by").to_pylist())) for run in (first, again)]
        assert without[0] == without[1]
    kept = [{row["sha256"] for row in table(run, "manifest").to_pylist()} for run in (first, again)]
    assert kept[0] == kept[1]


@pytest.mark.spark
def test_spark_gives_the_same_tables(laion, run_dir, tmp_path, start_spark):
    engine = start_spark()
    shared_workers.run(config_for(laion[0], tmp_path, "input.carry=NSFW"), engine=engine)
    engine.close()
    for name in ("metadata", "rejected", "candidates", "edges", "groups", "manifest", "duplicates", "statistics", "targets"):
        assert rows_of(run_dir, name) == rows_of(tmp_path, name), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["encoder.name=precomputed", "input.shards=a.tar"],
            "encoder.name=precomputed with input.shards=.*; expected encoder.name=precomputed",
        ),
        (["input.embeddings=folder"], "encoder.name=dct with input.embeddings=folder"),
        (["input.embeddings=folder", "input.images=other"], "input.images=other and input.embeddings=folder are set; expected one of them"),
    ],
)
def test_encoder_and_input_belong_together(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        shared_workers.run(load_config(None, [*settings, f"output.run_dir={tmp_path}"]))
