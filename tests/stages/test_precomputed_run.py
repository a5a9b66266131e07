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

from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config, resolved
from dedup.errors import ConfigError, InputError, RunDirectoryError, StageError
from dedup.numerics.graph.components import connected_components
from dedup.pipeline.preflight import estimate
from dedup.runs.directory import Run
from dedup.runs.vectors import EmbeddingStore
from dedup.stages.embed.sources import find_sources
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
    record = json.loads((run_dir / "_stages" / "embed.json").read_text())
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


def test_a_file_that_breaks_off_is_refused_before_any_work(laion, tmp_path):
    _, stored = laion
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", stored[0][:100])
        pq.write_table(pa.table({"key": [f"{name}{k}" for k in range(100)]}), tmp_path / f"{name}.parquet")
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-64])
    with pytest.raises(InputError, match=r"a\.npy is cut off: its header announces 100 rows, and 64 bytes of them are missing"):
        shared_workers.run(config_for(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run" / "embeddings" / "metadata").exists()
    shared_workers.run(config_for(tmp_path, tmp_path / "run", "input.allow_missing=true"))
    assert len(table(tmp_path / "run", "metadata")) == 100
    summary = json.loads((tmp_path / "run" / "_stages" / "embed.json").read_text())["summary"]
    assert summary["passed_over"] == {"rows of arrays that are cut off": 100}


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


def test_one_folder_in_many_spellings(laion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(laion[0])
    (tmp_path / "up").mkdir()
    shared_workers.run(config_for("link", tmp_path / "run"))
    for spelling in (laion[0], f"{laion[0]}/", "./link", "up/../link/", tmp_path / "link"):
        summary = shared_workers.run(config_for(spelling, tmp_path / "run"))
        assert summary.skipped == STAGE_NAMES
    # another folder is another input
    (tmp_path / "other").mkdir()
    for name in ("img_emb", "metadata"):
        (tmp_path / "other" / name).symlink_to(laion[0] / name)
    with pytest.raises(RunDirectoryError, match="input.embeddings"):
        shared_workers.run(config_for("other", tmp_path / "run"))


def cone(folder):
    """Vectors with a large common mean, as hidden states have: unrelated pairs have a cosine of 0.97."""
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((400, 64)) * 0.2 + rng.standard_normal(64) * 1.2).astype(np.float32)
    np.save(folder / "a.npy", rows)
    pq.write_table(pa.table({"key": [str(k) for k in range(len(rows))]}), folder / "a.parquet")


def test_a_run_that_would_drop_nearly_everything_stops(tmp_path):
    cone(tmp_path)
    with pytest.raises(
        StageError, match=r"1\d\d?% of 79,800 pairs of random images reach search.min_similarity=0.95 \(the median is 0.97\d\)"
    ):
        shared_workers.run(config_for(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run" / "_stages" / "manifest.json").exists()
    notes = Notes()
    shared_workers.run(config_for(tmp_path, tmp_path / "run", "search.all_alike=continue"), reporter=notes)
    assert any("most images will count as copies" in note for note in notes.notes)
    assert len(table(tmp_path / "run", "manifest")) < 40
    shared_workers.run(config_for(tmp_path, tmp_path / "higher", "search.min_similarity=0.999"))
    assert len(table(tmp_path / "higher", "manifest")) == 400


def test_a_crowd_of_copies_is_no_such_run(tmp_path):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((400, 64))
    rows[:200] = rows[0] + 0.05 * rng.standard_normal((200, 64))
    np.save(tmp_path / "a.npy", rows.astype(np.float32))
    pq.write_table(pa.table({"key": [str(k) for k in range(len(rows))]}), tmp_path / "a.parquet")
    shared_workers.run(config_for(tmp_path, tmp_path / "run"))
    assert len(table(tmp_path / "run", "manifest")) == 201


def test_what_differs_in_the_input_is_named(tmp_path):
    def write(name, seed):
        np.save(tmp_path / "in" / f"{name}.npy", power_law(np.random.default_rng(seed), 60, 16).astype(np.float32))
        pq.write_table(pa.table({"key": [f"{name}{k}" for k in range(60)]}), tmp_path / "in" / f"{name}.parquet")

    (tmp_path / "in").mkdir()
    for seed, name in enumerate("abc"):
        write(name, seed)
    config = config_for(tmp_path / "in", tmp_path / "run")
    shared_workers.run(config)
    for name in ("b.npy", "b.parquet"):
        (tmp_path / "in" / name).unlink()
    write("d", 4)
    write("e", 5)
    write("c", 9)
    told = r"made from another input: 2 files new \(.*d.npy\); 1 file changed \(.*c.npy\); 1 file gone \(.*b.npy\); give the same"
    with pytest.raises(RunDirectoryError, match=told):
        shared_workers.run(config)
    higher = config_for(tmp_path / "in", tmp_path / "run", "input.max_pixels=1000")
    with pytest.raises(
        RunDirectoryError, match=r"made with another configuration: input.max_pixels: .* → 1000; and made from another input: 2 files new"
    ):
        shared_workers.run(higher)


@pytest.fixture
def unit_rows(tmp_path):
    """One array of float16 rows of length 1, with copies."""
    rng = np.random.default_rng(5)
    rows = power_law(rng, 300, 64)
    rows[100:120] = [copies_of(rng, row, 1, 0.98)[0] for row in rows[:20]]
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "a.npy", rows.astype(np.float16))
    return folder, rows.astype(np.float16)


def vectors_of(run_dir):
    return run_dir / "embeddings" / "img_emb" / "img_emb_00000.npy"


def test_unit_rows_are_read_where_they_lie(unit_rows, tmp_path):
    folder, rows = unit_rows
    linked, copied = tmp_path / "linked", tmp_path / "copied"
    shared_workers.run(config_for(folder, linked, "engine.workers=1"))
    shared_workers.run(config_for(folder, copied, "engine.workers=1", "embed.copy_vectors=true"))
    assert vectors_of(linked).readlink() == folder / "a.npy"
    assert not vectors_of(copied).is_symlink()
    assert np.abs(np.load(vectors_of(copied)).astype(np.float32) - rows).max() <= 2**-11
    kept = [[row["key"] for row in table(run_dir, "manifest").to_pylist()] for run_dir in (linked, copied)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 280
    again = shared_workers.run(config_for(folder, linked, "engine.workers=1"))
    assert again.skipped == STAGE_NAMES
    fresh = [resolved(config_for(folder, tmp_path / "fresh", f"embed.copy_vectors={copies}")) for copies in ("false", "true")]
    needs = [estimate(config, find_sources(config).sources, True, 1).disk for config in fresh]
    assert needs[1] - needs[0] == rows.nbytes


@pytest.mark.parametrize("what", ["longer", "null", "float32", "Fortran", "truncated later"])
def test_other_rows_are_copied(unit_rows, tmp_path, what):
    """Also if that shows in the last rows alone: those before are then written as well."""
    folder, rows = unit_rows
    rows = np.concatenate([rows] * 100)  # more than are read at once
    expected = rows.copy()
    if what == "longer":
        rows[-1] *= 2
    elif what == "null":
        rows[-1], expected = 0, expected[:-1]
    stored = rows.astype(np.float32) if what == "float32" else np.asfortranarray(rows) if what == "Fortran" else rows
    np.save(folder / "a.npy", stored)
    settings = config_for(folder, tmp_path / "run", "engine.workers=1", "search.views=false")
    if what == "truncated later":
        shared_workers.run(settings, ("embed",))
        assert vectors_of(tmp_path / "run").is_symlink()
        (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:-64])
        with pytest.raises(InputError, match="a.npy is cut off"):
            shared_workers.run(settings, ("embed",))
        return
    shared_workers.run(settings, ("embed",))
    assert not vectors_of(tmp_path / "run").is_symlink()
    found = np.load(vectors_of(tmp_path / "run")).astype(np.float32)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2**-10


def test_equal_rows_have_one_digest_whether_they_are_copied_or_not(tmp_path):
    """Rows scaled in half precision are 1 long but for more than rounding in float32 leaves."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((500, 64)).astype(np.float16)
    rows = rows / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
    away = np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1)
    rows = rows[away < 4.5e-4]
    assert away[away < 4.5e-4].max() > 2e-4
    folder = tmp_path / "vectors"
    folder.mkdir()
    np.save(folder / "a.npy", rows)
    np.save(folder / "b.npy", np.concatenate([rows, np.zeros((1, 64), np.float16)]))
    shared_workers.run(config_for(folder, tmp_path / "run", "engine.workers=1", "search.views=false"))
    paths = sorted((tmp_path / "run" / "embeddings" / "img_emb").iterdir())
    assert [path.is_symlink() for path in paths] == [True, False]
    assert table(tmp_path / "run", "exact").num_rows == len(rows)


def test_vectors_that_are_gone_are_named(unit_rows, tmp_path):
    folder, _ = unit_rows
    shared_workers.run(config_for(folder, tmp_path / "run", "engine.workers=1"))
    (folder / "a.npy").rename(tmp_path / "elsewhere.npy")
    with pytest.raises(RunDirectoryError, match=r"img_emb_00000.npy leads to .*vectors/a.npy, which is gone; .*put it back, or run"):
        Run(str(tmp_path / "run")).check_vectors()
    with pytest.raises(RunDirectoryError, match=r"leads to .*a.npy, which is gone: published embeddings are read where they lie"):
        EmbeddingStore(f"{tmp_path}/run/embeddings")


def test_a_run_that_adds_to_one_whose_vectors_moved(unit_rows, tmp_path):
    folder, rows = unit_rows
    shared_workers.run(config_for(folder, tmp_path / "base", "engine.workers=1"))
    moved = folder.rename(tmp_path / "moved")
    np.save(moved / "b.npy", rows[:50])
    settings = [f"base.run_dir={tmp_path}/base", f"base.moved={folder}={moved}", "engine.workers=1"]
    summary = shared_workers.run(config_for(moved, tmp_path / "run", *settings))
    folder_of = tmp_path / "run" / "embeddings" / "img_emb"
    assert [path.readlink() for path in sorted(folder_of.iterdir())] == [moved / "a.npy", moved / "b.npy"]
    assert summary.records["manifest"].rows["manifest"] == 280
