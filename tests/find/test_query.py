"""Coming back to a finished run: what is in it is found, changed or not, and nothing else is called a copy."""

import io
import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from shard_data import Sample, detailed, encode, make_samples, write_shards, write_tar
from typer.testing import CliRunner
from vector_data import copies_of, power_law

import dedup
from dedup.cli.main import app
from dedup.errors import ConfigError, InputError, RunDirectoryError, ShapeError
from dedup.find.info import index_info
from dedup.schemas import FLAGS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookup")
    samples = make_samples(40, n_broken=2)
    samples += [Sample(f"d{seed:05d}", encode(detailed(seed)), f"detailed {seed}", 1000 + seed) for seed in range(40)]
    shards = write_shards(folder / "shards", samples)
    run_dir = str(folder / "run")
    dedup.run(dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={run_dir}", "engine.workers=1"]))
    return run_dir, samples


@pytest.fixture(scope="module")
def index(run):
    return dedup.open_index(run[0])


def test_each_image_of_the_run_is_found_as_itself(run, index):
    good = [sample for sample in run[1] if sample.caption != "broken"]
    keys = {sample.key: sample.image for sample in good}
    for sample, answer in zip(good, index.search([sample.image for sample in good], k=4), strict=True):
        best = answer.matches[0]
        assert answer.error is None
        assert best.similarity == 1.0
        assert best.is_copy
        assert best.distance <= 0.01
        assert best.view == "none"
        assert keys[best.key] == sample.image  # or a byte-identical twin, the first of them
        n_same = sum(other.source == sample.source for other in good)
        assert best.duplication_count == n_same
        assert [match.is_copy is True for match in answer.matches] == sorted(
            (match.is_copy is True for match in answer.matches), reverse=True
        )


MADE = {
    "jpeg_30": lambda picture, width, height: picture,
    "mirror": lambda picture, width, height: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "half": lambda picture, width, height: picture.resize((width // 2, height // 2), Image.Resampling.LANCZOS),
    "bordered": lambda picture, width, height: ImageOps.expand(picture, 20, (255, 255, 255)),
    "cropped": lambda picture, width, height: picture.crop((width // 10, height // 10, width - width // 10, height - height // 10)),
    "rotate90": lambda picture, width, height: picture.transpose(Image.Transpose.ROTATE_90),
    "grey": lambda picture, width, height: picture.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", MADE)
def test_changed_copies_are_found(index, change):
    found = 0
    for seed in range(10):
        picture = detailed(seed)
        best = index.search([encode(MADE[change](picture, *picture.size), quality=30)], k=3)[0].matches
        found += bool(best) and best[0].is_copy is True and best[0].key == f"d{seed:05d}"
    assert found >= 9


def test_what_is_not_in_it_is_no_copy(index):
    answers = index.search([detailed(500 + seed) for seed in range(30)], min_similarity=0.0, k=3)
    assert all(answer.matches for answer in answers)
    assert not any(answer.is_copy for answer in answers)


def test_what_is_no_image_is_said_and_the_others_are_answered(index):
    answers = index.search([b"", b"no image", encode(detailed(3))[:200], encode(detailed(3))])
    assert [answer.reason for answer in answers] == ["empty_image", "undecodable_image", "truncated_image", None]
    assert answers[3].is_copy
    with pytest.raises(InputError, match="nowhere.jpg does not exist"):
        index.search(["nowhere.jpg"])
    with pytest.raises(ShapeError, match=r"expected vectors of shape \(n, 384\)"):
        index.search_vectors(np.zeros((2, 100), np.float32))


def test_previews_are_small_jpegs_of_training_images(run, index):
    match = index.search([encode(detailed(7))])[0].matches[0]
    picture = Image.open(io.BytesIO(index.preview(match.sample_id, 64)))
    assert max(picture.size) == 64
    expected = detailed(7).resize(picture.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(picture, dtype=float) - np.asarray(expected, dtype=float)).mean() < 12  # unrelated ones: 80
    with pytest.raises(RunDirectoryError, match="expected sample"):
        index.preview(10_000)


def test_the_command(run, tmp_path):
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encode(detailed(1), quality=40))
    (folder / "b.png").write_bytes(encode(detailed(900), "PNG"))
    write_tar(folder / "c.tar", [Sample("inside", encode(detailed(2)), "c")])
    result = CliRunner().invoke(app, ["query", run[0], str(folder), "--json", "--k", "3", "--workers", "1"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == [f"{folder}/a.jpg", f"{folder}/b.png", f"{folder}/c.tar:inside"]
    assert [row["is_copy"] for row in rows] == [True, False, True]
    assert rows[0]["matches"][0] | {"key": "d00001", "caption": "detailed 1", "duplication_count": 1} == rows[0]["matches"][0]
    assert all(a["similarity"] >= b["similarity"] for row in rows for a, b in zip(row["matches"], row["matches"][1:], strict=False))
    shown = CliRunner().invoke(app, ["query", run[0], str(folder / "a.jpg")])
    assert "a.jpg: a copy" in shown.output
    assert "detailed 1" in shown.output
    with pytest.raises(InputError, match="does not exist"):
        CliRunner().invoke(app, ["query", run[0], str(tmp_path / "gone.jpg")], catch_exceptions=False)


def test_images_may_lie_anywhere(run):
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/asked/a/one.jpg", encode(detailed(3)))
        fs.pipe("/asked/b/two.png", encode(detailed(801), "PNG"))
        fs.pipe("/asked/b/notes.txt", b"x")
        result = CliRunner().invoke(app, ["query", run[0], "memory://asked", "--json", "--workers", "1"])
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert [(row["image"], row["is_copy"]) for row in rows] == [
            ("memory:///asked/a/one.jpg", True),
            ("memory:///asked/b/two.png", False),
        ]
    finally:
        fs.rm("/asked", recursive=True)


def test_flags(run, index, tmp_path):
    folder = tmp_path / "generated"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(encode(detailed(seed if seed < 3 else 600 + seed), "PNG"))
    (folder / "6.png").write_bytes(b"broken")
    out = tmp_path / "flags.parquet"
    result = CliRunner().invoke(app, ["flag", run[0], str(folder), "--out", str(out), "--workers", "2", "--fail"])
    assert result.exit_code == 3, result.output
    table = pq.read_table(out)
    assert table.schema.equals(FLAGS)
    rows = table.to_pylist()
    assert [row["is_copy"] for row in rows] == [True, True, True, False, False, False, None]
    assert [row["rule"] for row in rows[:3]] == ["pixels"] * 3
    assert rows[6]["error"].startswith("undecodable_image")
    for seed, row in enumerate(rows[:3]):
        # the definition: the training image of the tar stretched to the size of the generated one
        training = np.asarray(Image.open(io.BytesIO(encode(detailed(seed)))).convert("RGB"), dtype=np.float64)
        own = np.asarray(detailed(seed), dtype=np.float64)
        assert row["key"] == f"d{seed:05d}"
        assert row["l2"] == pytest.approx(np.sqrt(((own - training) ** 2).mean()) / 255, abs=1e-3)
        assert row["l2"] <= row["tiled_l2"] < 0.15
        assert row["min_similarity"] == pytest.approx(index.min_similarity)


def test_a_tar_that_is_gone_leaves_the_question_open(run, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run[0], moved)
    shards = tmp_path / "shards"
    write_shards(shards, [sample for sample in run[1] if sample.caption != "broken"])
    run_dir = str(tmp_path / "own")
    dedup.run(dedup.load_config(None, [f"input.shards={shards}/*.tar", f"output.run_dir={run_dir}", "engine.workers=1"]))
    shutil.rmtree(shards)
    (tmp_path / "a.jpg").write_bytes(encode(detailed(1)))
    summary = dedup.flag_images(run_dir, [str(tmp_path / "a.jpg")], str(tmp_path / "flags.parquet"))
    row = pq.read_table(tmp_path / "flags.parquet").to_pylist()[0]
    assert summary.n_unknown == 1
    assert (row["is_copy"], row["rule"], row["key"]) == (None, "unreadable", "d00001")


def test_a_run_that_does_not_fit_is_refused(run, tmp_path, monkeypatch):
    def damaged(name):
        shutil.copytree(run[0], tmp_path / name)
        return tmp_path / name

    with pytest.raises(RunDirectoryError, match="holds no run"):
        dedup.open_index(str(tmp_path / "nowhere"))
    target = damaged("vectors")
    (target / "embeddings" / "img_emb" / "img_emb_00001.npy").unlink()
    with pytest.raises(RunDirectoryError, match="img_emb_00001.npy is missing"):
        dedup.open_index(str(target))
    target = damaged("changed")
    rows = np.load(target / "embeddings" / "img_emb" / "img_emb_00000.npy")
    np.save(target / "embeddings" / "img_emb" / "img_emb_00000.npy", rows[:-1])
    with pytest.raises(RunDirectoryError, match="has changed since the index was built"):
        dedup.open_index(str(target))
    target = damaged("format")
    record = json.loads((target / "index" / "_index.json").read_text())
    (target / "index" / "_index.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(RunDirectoryError, match="holds an index of format 99, expected 1"):
        dedup.open_index(str(target))
    for name in ("index.faiss", "index.ivfdata"):
        target = damaged(f"cut {name}")
        data = (target / "index" / name).read_bytes()
        (target / "index" / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(RunDirectoryError, match=f"{name} has .* bytes, expected"):
            dedup.open_index(str(target))
    monkeypatch.setattr("dedup.runs.directory.encoder_fingerprint", lambda config: {"model": "dct-384-v2", "preprocessing": "other"})
    with pytest.raises(RunDirectoryError, match="embedded with another encoder: model: dct-384-v1 there, dct-384-v2 here"):
        dedup.open_index(run[0]).search([encode(detailed(0))])


# Vectors alone: against brute force


def precomputed_run(folder, rows, *options):
    (folder / "source" / "img_emb").mkdir(parents=True)
    np.save(folder / "source" / "img_emb" / "img_emb_0.npy", rows.astype(np.float16))
    (folder / "source" / "metadata").mkdir()
    table = pa.table({"key": [f"{number:06d}" for number in range(len(rows))]})
    pq.write_table(table, folder / "source" / "metadata" / "metadata_0.parquet")
    wanted = ["encoder.name=precomputed", f"input.embeddings={folder / 'source'}", f"output.run_dir={folder / 'run'}", "engine.workers=1"]
    dedup.run(dedup.load_config(None, [*wanted, *options]))
    return dedup.open_index(str(folder / "run"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = power_law(rng, 24_000, 64)
    crowd = copies_of(rng, rows[0], 400, rng.uniform(0.97, 0.999, 400))
    rows = np.concatenate([rows, crowd])
    options = ("search.exhaustive_below=0", "search.min_similarity=0.9", "search.nlist=200", "search.nprobe=8")
    return precomputed_run(tmp_path_factory.mktemp("vectors"), rows, *options), rows


def test_planted_copies_are_found_through_product_codes(planted):
    index, rows = planted
    assert index.run.index_facts["codes"] == "pq"
    rng = np.random.default_rng(1)
    chosen = rng.choice(np.arange(1, 24_000), 500, replace=False)
    queries = np.concatenate([copies_of(rng, rows[place], 1, 0.95) for place in chosen])
    ids, similarity = index.search_vectors(queries, k=3)
    stored = index.run.read_vectors(np.sort(ids[:, 0])).astype(np.float64)
    assert len(stored) == 500
    assert (ids[:, 0] == chosen).mean() >= 0.99
    assert similarity[ids[:, 0] == chosen, 0] == pytest.approx(0.95, abs=2e-3)


def test_a_crowd_is_found_whole_however_large(planted):
    index, rows = planted
    query, ids, similarity = index.vectors.neighbors(rows[:3], 0.95)
    unit = index.run.read_vectors(np.arange(len(rows))).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for number in range(3):
        product = unit @ unit[number]
        expected = np.flatnonzero(product >= 0.95)
        found = ids[query == number]
        assert set(found.tolist()) <= set(expected.tolist())
        assert len(found) >= 0.99 * len(expected)
        np.testing.assert_allclose(similarity[query == number], product[found], atol=1e-6)
    assert (query == 0).sum() >= 396


def test_figures_of_an_index(planted):
    index, _ = planted
    info = index_info(index, n_queries=100)
    sizes = index.index.list_sizes()
    assert info.n_vectors == sizes.sum() == 24_400
    assert info.imbalance == pytest.approx(200 * (sizes.astype(float) ** 2).sum() / 24_400**2)
    assert info.n_pairs > 100
    assert info.pair_recall >= 0.97
    assert info.recall_at_1 >= 0.97
    result = CliRunner().invoke(app, ["info", index.run_dir, "--queries", "20"])
    assert result.exit_code == 0, result.output
    assert "IndexIVFPQ, pq: 24,400 vectors of 64 dimensions, 64 bytes each" in result.output
    as_json = CliRunner().invoke(app, ["info", index.run_dir, "--queries", "0", "--json"])
    assert json.loads(as_json.stdout)["nlist"] == 200


def test_images_need_an_encoder_that_fits(planted):
    index, _ = planted
    with pytest.raises(ConfigError, match="does not know what made them"):
        index.search([encode(detailed(0))])
    other = dedup.open_index(index.run_dir, overrides=["encoder.name=dct"])
    with pytest.raises(ConfigError, match="gives vectors of 384 dimensions, expected 64"):
        other.search([encode(detailed(0))])
    with pytest.raises(ConfigError, match="search.nprobe is fixed by the run"):
        dedup.open_index(index.run_dir, overrides=["search.nprobe=3"])


def test_embeddings_of_a_known_encoder_take_images(run, tmp_path):
    """Vectors without pictures: similarity alone decides, and the flags say so."""
    vectors = np.concatenate([np.load(path) for path in sorted(Path(run[0], "embeddings", "img_emb").glob("*.npy"))])
    index = precomputed_run(tmp_path, vectors)
    own = dedup.open_index(index.run_dir, overrides=["encoder.name=dct"])
    best = own.search([encode(detailed(5))])[0].matches[0]
    assert best.similarity == 1.0
    assert best.is_copy is None
    for name, seed in (("a.jpg", 5), ("b.jpg", 950)):
        (tmp_path / name).write_bytes(encode(detailed(seed)))
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    dedup.flag_images(index.run_dir, paths, str(tmp_path / "flags.parquet"), overrides=["encoder.name=dct"])
    rows = pq.read_table(tmp_path / "flags.parquet").to_pylist()
    assert [(row["is_copy"], row["rule"]) for row in rows] == [(True, "similarity"), (False, "none")]


def test_another_index_by_its_factory_string(tmp_path):
    rng = np.random.default_rng(2)
    rows = power_law(rng, 3_000, 32)
    index = precomputed_run(tmp_path, rows, "index.factory=IVF20,Flat", "search.nprobe=10", "search.exhaustive_below=0", "search.nlist=30")
    assert index.index.nlist == 20
    assert index.run.index_facts["codes"] == "IVF20,Flat"
    ids, _ = index.search_vectors(rows[:200], k=1)
    assert (ids[:, 0] == np.arange(200)).mean() > 0.97


def test_an_index_grows_with_its_run(tmp_path):
    """New vectors join the lists and codes that are there, whatever the size of blocks; the old index stays as it is."""
    rows = power_law(np.random.default_rng(4), 4_000, 32)
    options = ("search.exhaustive_below=0", "search.nlist=30", "search.nprobe=6", "search.min_similarity=0.9", "index.codes=pq")
    old = precomputed_run(tmp_path / "old", rows[:3_000], *options)
    added = tmp_path / "new"
    (added / "source" / "img_emb").mkdir(parents=True)
    (added / "source" / "metadata").mkdir()
    np.save(added / "source" / "img_emb" / "img_emb_0.npy", rows[3_000:].astype(np.float16))
    keys = pa.table({"key": [f"new{number:06d}" for number in range(1_000)]})
    pq.write_table(keys, added / "source" / "metadata" / "metadata_0.parquet")
    wanted = ["encoder.name=precomputed", f"input.embeddings={added / 'source'}", f"output.run_dir={added / 'run'}", "engine.workers=1"]
    dedup.run(dedup.load_config(None, [*wanted, *options, f"base.run_dir={tmp_path / 'old' / 'run'}"]))
    grown = dedup.open_index(f"{added}/run")
    assert (old.n_images, grown.n_images) == (3_000, 4_000)
    before, after = old.index.list_sizes(), grown.index.list_sizes()
    assert (after >= before).all()
    assert after.sum() == 4_000
    # a vector's code is the one it had
    of_old, of_grown = (index.index.search(rows[:3_000].astype(np.float32), 1) for index in (old, grown))
    same = of_old[0][:, 0] == of_grown[0][:, 0]
    assert same.mean() > 0.9
    assert np.array_equal(of_old[1][same], of_grown[1][same])
    ids, _ = grown.search_vectors(rows, k=1)
    keys = [grown.samples.row(int(sample_id))["key"] for sample_id in ids[3_000::100, 0]]
    assert keys == [f"new{number:06d}" for number in range(0, 1_000, 100)]


def test_no_index_is_said(tmp_path):
    rows = power_law(np.random.default_rng(3), 300, 16)
    with pytest.raises(RunDirectoryError, match="holds no searchable index .*index.codes=none"):
        precomputed_run(tmp_path, rows, "index.codes=none")
    with pytest.raises(ConfigError, match="index.factory=HNSW32 has no inverted lists"):
        dedup.run(dedup.load_config(None, ["input.shards=a.tar", f"output.run_dir={tmp_path}/x", "index.factory=HNSW32"]))
