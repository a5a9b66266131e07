"""Threshold advice on demo shards and on vectors alone, against direct computation."""

import gzip
import json
import shutil
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import make_samples, write_shards
from typer.testing import CliRunner
from vector_data import all_similarities, power_law

import dedup
from dedup.calibration import calibrate as calibration_files
from dedup.calibration.calibrate import advise, calibrate
from dedup.calibration.copies import make_copy
from dedup.calibration.draw import Effort
from dedup.calibration.tables import accepted_decoys, recall_of
from dedup.cli.main import app
from dedup.config.load import load_config
from dedup.config.rules import validate
from dedup.demo.shards import make_demo_data
from dedup.encoders.dct import DctEncoder
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.numerics.image.descriptor import ycbcr_grid
from dedup.numerics.image.planting import CHANGES
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.schemas import CALIBRATION, CALIBRATION_COPIES, CALIBRATION_PAIRS, CALIBRATION_RECALLS
from dedup.storage.images.decode import decode_image
from dedup.storage.input.shards import read_image_bytes
from dedup.storage.tables import read_table

pytestmark = pytest.mark.slow

NUMBERS = {change.name: number for number, change in enumerate(CHANGES)}
FEW = Effort(n_copies=500, n_copies_judged=150, n_pairs=60, n_decoys=100)  # a tenth of the work
SCHEMAS = {"thresholds": CALIBRATION, "recalls": CALIBRATION_RECALLS, "copies": CALIBRATION_COPIES, "pairs": CALIBRATION_PAIRS}


@pytest.fixture(scope="module")
def engine():
    engine = LocalEngine(2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, engine):
    folder = tmp_path_factory.mktemp("calibrate")
    make_demo_data(folder / "shards", n_images=240, seed=3, per_shard=80, workers=2)
    dedup.run(load_config(None, [f"input.shards={folder}/shards/*.tar", f"output.run_dir={folder}/run"]), engine=engine)
    return str(folder / "run")


@pytest.fixture(scope="module")
def found(run, engine):
    return dedup.calibrate(run, precision=0.9, n_images=150, seed=1, engine=engine, effort=FEW)


def _images(run):
    """Distinct images with detail, their components, and similarities of all pairs."""
    layout = Run(run)
    representatives = read_table(layout.table("representatives")).to_pylist()
    ids = np.array(sorted(row["sample_id"] for row in representatives if row["min_similarity"] <= np.float32(0.7)))
    of = {row["sample_id"]: row["raw_component_id"] for row in read_table(layout.table("groups")).to_pylist()}
    return ids, np.array([of.get(i, i) for i in ids.tolist()]), all_similarities(Run(str(run)).read_vectors(ids))


def test_false_pairs_are_those_of_all_pairs(run, found):
    ids, labels, similarity = _images(run)
    assert found.figures["sample"]["is_exhaustive"]
    assert found.figures["run"]["n_images"] == len(ids)
    pairs = {(row["src"], row["dst"]): row["is_copy"] for row in found.pairs.to_pylist() if not row["is_decoy"]}
    others = (labels[:, None] != labels[None, :]) & np.triu(np.ones_like(similarity, dtype=bool), 1)
    # the most alike in no component together, and none of them a copy by its pixels
    row, column = np.nonzero(others)
    order = np.argsort(-similarity[row, column], kind="stable")[: len(pairs)]
    assert {frozenset(pair) for pair in pairs} == {frozenset((int(ids[row[k]]), int(ids[column[k]]))) for k in order}
    assert not any(pairs.values())
    for line in found.table.to_pylist():
        exact = int((similarity[others] >= np.float32(line["threshold"])).sum())
        assert abs(line["n_counted"] - 2 * exact) <= 2  # a float32 product in the last bit
        if not line["is_fitted"]:
            assert abs(line["expected_false"] - exact) <= 1
        assert line["expected_false_low"] <= line["expected_false"] <= line["expected_false_high"]


def test_links_are_the_images_that_copies_let_go(run, found):
    ids, labels, similarity = _images(run)
    for line in found.table.to_pylist():
        at = np.float32(max(line["threshold"], 0.7))
        graph = nx.from_numpy_array(np.triu((similarity >= at) & (labels[:, None] == labels[None, :]), 1))
        assert line["n_links"] == len(ids) - nx.number_connected_components(graph)
        known = line["threshold"] >= 0.7
        assert (line["share_removed"] is not None) == (line["share_confirmed"] is not None) == known
        if known:
            assert line["share_confirmed"] <= line["share_removed"]
    assert found.table["n_links"][0].as_py() > 10


def test_copies_are_found_as_their_pixels_say(run, found):
    """Similarity of planted copies, each decoded and described on its own."""
    layout, encoder = Run(run), DctEncoder()
    metadata = {row["sample_id"]: row for row in read_table(layout.table("metadata")).to_pylist()}
    rows = found.copies.to_pylist()
    assert len(rows) >= 380
    for row in rows[::23]:
        source = metadata[row["sample_id"]]
        data = read_image_bytes(source["shard"], source["key"], source["byte_offset"], source["n_bytes"])
        image = decode_image(data, max_pixels=10**9, min_side=256)
        left, top, right, bottom = image.box
        part = np.ascontiguousarray(image.pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))])
        rng = np.random.default_rng([1, row["sample_id"], NUMBERS[row["change"]]])
        copy = decode_image(make_copy(part, row["change"], rng), max_pixels=10**9, min_side=encoder.min_side)
        vector = encoder.encode(ycbcr_grid(copy.pixels, copy.box)[None]).astype(np.float16)
        own = exact_similarity(Run(str(run)).read_vectors(np.array([row["sample_id"]])), vector)
        assert abs(float(own[0]) - row["similarity"]) < 1e-3  # rows of a larger batch round otherwise


def test_recall_is_the_share_of_the_copies(found):
    rows, lines = found.copies.to_pylist(), {line["threshold"]: line for line in found.table.to_pylist()}
    for line in found.recalls.to_pylist()[::7]:
        own = [row for row in rows if row["change"] == line["change"]]
        whole = [row["similarity"] >= np.float32(max(line["threshold"], row["min_similarity"])) for row in own]
        looks = [is_whole or row["look_similarity"] is not None for is_whole, row in zip(whole, own, strict=True)]
        assert line["n_copies"] == len(own)
        assert np.isclose(line["recall"], np.mean(whole))
        assert np.isclose(line["recall_looks"], np.mean(looks))
        judged = [is_found and row["is_copy"] is True for is_found, row in zip(looks, own, strict=True) if row["is_judged"]]
        assert line["n_judged"] == len(judged)
        assert line["recall_confirmed"] is None if not judged else np.isclose(line["recall_confirmed"], np.mean(judged))
        assert line["recall_low"] <= line["recall"] <= line["recall_high"]
    at = {line["change"]: line for line in found.recalls.to_pylist() if line["threshold"] == 0.7}
    assert at["jpeg_30"]["recall"] == 1.0
    assert at["mirror"]["recall"] < 0.3 < 0.8 < at["mirror"]["recall_looks"]
    assert lines[0.7]["recall"] < 0.9 < lines[0.7]["recall_looks"]
    assert lines[0.7]["recall_low"] < lines[0.7]["recall"] < lines[0.7]["recall_high"]
    assert max(line["n_copies"] for line in at.values()) - min(line["n_copies"] for line in at.values()) <= 2
    assert 0.8 < lines[0.7]["recall_confirmed"] <= 1.0


def test_a_copy_of_little_detail_needs_more():
    """What the run would ask of it counts."""
    rows = [
        {"sample_id": 1, "change": "blur_2", "similarity": 0.95, "min_similarity": 0.99, "is_judged": True},
        {"sample_id": 2, "change": "blur_2", "similarity": 0.95, "min_similarity": 0.0, "is_judged": True, "is_copy": True},
        {"sample_id": 3, "change": "blur_2", "similarity": 0.999, "min_similarity": 2.0, "is_judged": False},
        {"sample_id": 4, "change": "blur_2", "similarity": 0.3, "min_similarity": 0.0, "look_similarity": 0.9, "is_judged": True},
    ]
    copies = pa.Table.from_pylist(
        [{"look_similarity": None, "is_copy": None, "distance": None} | row for row in rows], schema=CALIBRATION_COPIES
    )
    found = recall_of(copies, np.array([0.2, 0.7, 0.96]), seed=0)
    assert found.whole.value.tolist() == [0.5, 0.25, 0.0]
    assert found.with_views.tolist() == [0.5, 0.5, 0.25]
    assert np.allclose(found.confirmed, [1 / 3, 1 / 3, 0])


def test_decoys_are_mirrored_pairs_that_are_no_copies(run, found):
    ids, labels, similarity = _images(run)
    place = {int(sample): k for k, sample in enumerate(ids)}
    decoys = [row for row in found.pairs.to_pylist() if row["kind"] == "mirrored"]
    assert len(decoys) == found.figures["decoys"]["n_judged"] == 100
    assert found.figures["decoys"]["n_accepted"] == sum(row["is_copy"] for row in decoys)
    for row in decoys:
        assert labels[place[row["src"]]] != labels[place[row["dst"]]]
    # about as alike as pairs that are not mirrored
    others = similarity[(labels[:, None] != labels[None, :]) & np.triu(np.ones_like(similarity, dtype=bool), 1)]
    assert abs(np.median([row["similarity"] for row in decoys]) - np.median(np.sort(others)[-100:])) < 0.1
    accepted, judged = accepted_decoys(np.array([0.5, 0.8]), np.array([0.6, 0.9, 0.55]), np.array([True, False, False]))
    assert (accepted.tolist(), judged.tolist()) == ([1, 1], [3, 3])  # fewer than two hundred: all of them


def test_the_advice_is_a_configuration(run, found):
    wanted = 0.9
    low = found.table["precision_confirmed_low"].to_pylist()
    thresholds = found.table["threshold"].to_pylist()
    assert found.advice.rule == "confirmed"
    assert found.advice.threshold == next(t for t, value in zip(thresholds, low, strict=True) if value is not None and value >= wanted)
    config = load_config(f"{run}/calibration/calibration.yaml", ["input.shards=a.tar", "output.run_dir=b"])
    validate(config)
    assert config.search.min_similarity == found.advice.threshold
    assert load_config(None, list(found.advice.lines)).search.min_similarity == found.advice.threshold
    assert found.otherwise.lines == (f"search.min_similarity={found.otherwise.threshold:g}", "confirm.enabled=false")
    assert found.otherwise.threshold >= found.advice.threshold
    never = advise(found.table, "similarity", 0.9999999)
    assert never.threshold is None or found.table["precision_similarity_low"][thresholds.index(never.threshold)].as_py() == 1.0


def test_files(run, found):
    for name, schema in SCHEMAS.items():
        table = pq.read_table(f"{run}/calibration/{name}")
        assert table.schema.equals(schema)
    figures = json.loads(Path(run, "calibration", "_calibration.json").read_text())
    assert figures["options"] == {"precision": 0.9, "n_images": 150, "strengths": "default", "seed": 1}
    assert figures["advice"][0]["threshold"] == found.advice.threshold
    assert figures["tail"]["n_excesses"] >= 50
    assert Path(run, "calibration", "calibration.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_one_worker_finds_the_same(run, found, tmp_path):
    engine = LocalEngine(1)
    try:
        again = dedup.calibrate(run, str(tmp_path / "out"), n_images=150, seed=1, engine=engine, effort=FEW)
    finally:
        engine.close()
    for name in ("table", "recalls", "copies", "pairs"):
        assert getattr(again, name).equals(getattr(found, name)), name


def test_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dedup.calibration.calibrate.calibrate", partial(calibrate, effort=FEW))
    arguments = [
        "calibrate",
        run,
        "--precision",
        "0.9",
        "--n-images",
        "20",
        "--changes",
        "all",
        "--out",
        str(tmp_path / "out"),
        "engine.workers=2",
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    for word in ("threshold", "recall", "false pairs (95%)", "after pixels", "0.70 (the run's", "search.min_similarity=", "decoys"):
        assert word in shown.output
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert as_json.exit_code == 0
    told = json.loads(as_json.stdout)
    assert told["options"]["strengths"] == "all"
    assert [row["threshold"] for row in told["thresholds"]] == read_table_of(tmp_path / "out")["threshold"].to_pylist()
    for wrong, message in (
        (["--precision", "1.5"], "precision 1.5"),
        (["--n-images", "3"], "at least 20"),
        (["--changes", "some"], "default or all"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(app, ["calibrate", run, *wrong], catch_exceptions=False)
    with pytest.raises(ConfigError, match="fixed by the run"):
        CliRunner().invoke(app, ["calibrate", run, "search.min_similarity=0.9"], catch_exceptions=False)
    with pytest.raises(RunDirectoryError, match="holds no run"):
        CliRunner().invoke(app, ["calibrate", str(tmp_path)], catch_exceptions=False)


def read_table_of(out):
    return pq.read_table(out / "thresholds")


def test_without_matplotlib_the_tables_are_written(run, found, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_files.importlib.util, "find_spec", lambda name: None)
    written = calibration_files.write_calibration(found, str(tmp_path / "out"))
    assert not any(name.endswith(".png") for name in written)
    assert (tmp_path / "out" / "thresholds").is_dir()
    assert any("pip install 'webdedup[report]'" in note for note in found.notes)
    found.notes.pop()


def test_missing_and_compressed_shards(tmp_path, engine):
    write_shards(tmp_path / "shards", make_samples(48, n_broken=0), per_shard=30)
    tars = sorted((tmp_path / "shards").iterdir())
    for tar in tars[:2]:
        with open(tar, "rb") as source, gzip.open(f"{tar}.gz", "wb") as target:
            shutil.copyfileobj(source, target)
        tar.unlink()
    wanted = [f"input.shards={tmp_path}/shards/*", f"output.run_dir={tmp_path}/run"]
    dedup.run(load_config(None, wanted), engine=engine)
    found = dedup.calibrate(str(tmp_path / "run"), n_images=40, engine=engine, effort=FEW)
    assert found.figures["sample"]["n_unreadable"] == 0
    assert len(set(found.copies["sample_id"].to_pylist())) == 40
    tars[2].unlink()
    again = dedup.calibrate(str(tmp_path / "run"), n_images=40, engine=engine, effort=FEW)
    n_gone = again.figures["sample"]["n_unreadable"]
    assert 0 < n_gone < 40
    assert len(set(again.copies["sample_id"].to_pylist())) == 40 - n_gone
    assert any(f"{n_gone} of 40 drawn images can't be read" in note for note in again.notes)
    for path in (tmp_path / "shards").iterdir():
        path.unlink()
    none = dedup.calibrate(str(tmp_path / "run"), n_images=40, engine=engine, effort=FEW)
    assert len(none.copies) == 0
    assert none.table["recall"].null_count == len(none.table)
    assert none.table["precision_confirmed"].null_count == len(none.table)
    assert none.advice.rule == "similarity"
    assert any("can't be read: precision once pixels are judged is not known" in note for note in none.notes)


def test_a_folder_of_images_without_a_look_at_pixels(tmp_path, engine):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for sample in make_samples(40, n_broken=0):
        (tmp_path / "images" / "sub" / f"{sample.key}.jpg").write_bytes(sample.image)
    wanted = [f"input.images={tmp_path}/images", f"output.run_dir={tmp_path}/run", "confirm.enabled=false"]
    dedup.run(load_config(None, wanted), engine=engine)
    found = dedup.calibrate(str(tmp_path / "run"), n_images=30, precision=0.5, engine=engine, effort=FEW)
    assert len(found.copies) > 400
    assert not any(found.copies["is_judged"].to_pylist())
    assert found.otherwise is None
    assert found.advice.rule == "similarity"
    assert "confirm.enabled=false" not in found.advice.lines
    assert found.table["share_confirmed"].null_count == len(found.table)


def test_vectors_alone_have_false_pairs_and_precision(tmp_path, engine):
    """Precomputed embeddings: no copies can be planted, and nothing tells copies; false pairs are those of the population without copies."""
    rng, n, n_copies = np.random.default_rng(0), 3_000, 300
    rows = power_law(rng, n, 64)
    rows[:n_copies] = 0.99 * rows[n_copies : 2 * n_copies] + 0.14 * power_law(rng, n_copies, 64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    (tmp_path / "source" / "img_emb").mkdir(parents=True)
    (tmp_path / "source" / "metadata").mkdir()
    np.save(tmp_path / "source" / "img_emb" / "img_emb_0.npy", rows)
    pq.write_table(pa.table({"caption": [f"{i}" for i in range(n)]}), tmp_path / "source" / "metadata" / "metadata_0.parquet")
    wanted = [
        "encoder.name=precomputed",
        f"input.embeddings={tmp_path}/source",
        f"output.run_dir={tmp_path}/run",
        "search.min_similarity=0.9",
    ]
    dedup.run(load_config(None, wanted), engine=engine)
    found = dedup.calibrate(str(tmp_path / "run"), precision=0.9, engine=engine, effort=FEW)
    assert found.table["recall"].null_count == len(found.table)
    assert found.table["precision_confirmed"].null_count == len(found.table)
    for part in ("precomputed embeddings", "judged no pixels"):
        assert any(part in note for note in found.notes)
    clean = all_similarities(power_law(np.random.default_rng(1), n, 64).astype(np.float16))[np.triu_indices(n, 1)]
    lines = {line["threshold"]: line for line in found.table.to_pylist()}
    for threshold in (0.75, 0.8, 0.85):
        true = int((clean >= np.float32(threshold)).sum())
        assert lines[threshold]["expected_false_low"] * 0.7 <= true <= lines[threshold]["expected_false_high"] * 1.4
    assert lines[0.95]["n_links"] == n_copies
    assert found.advice == advise(found.table, "similarity", 0.9)
    precision = lines[0.95]["precision_similarity_low"], lines[0.95]["precision_similarity"], lines[0.95]["precision_similarity_high"]
    assert precision[0] <= 1.0 == precision[2]  # copies at 0.99, and others hardly reach 0.9
    assert precision[1] > 0.9


def test_too_few_images(tmp_path, engine):
    shards = write_shards(tmp_path / "shards", make_samples(8, n_broken=0))
    dedup.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={tmp_path}/run"]), engine=engine)
    with pytest.raises(InputError, match="expected at least 20"):
        dedup.calibrate(str(tmp_path / "run"), engine=engine, effort=FEW)


def test_a_model_has_its_own_copies_and_decoys(tmp_path, engine, require_extra):
    """An encoder without second looks, whose decoys are alike pairs with one of each mirrored."""
    require_extra("open_clip")
    from tiny_clip import write_model

    architecture, safe, _ = write_model(tmp_path)
    shards = write_shards(tmp_path / "shards", make_samples(40, n_broken=0))
    keys = ["encoder.name=clip", f"encoder.model={architecture}", f"encoder.pretrained={safe}", "engine.device=cpu"]
    dedup.run(load_config(None, [*keys, f"input.shards={shards}", f"output.run_dir={tmp_path}/run"]), engine=engine)
    found = dedup.calibrate(str(tmp_path / "run"), n_images=20, engine=engine, effort=FEW)
    assert found.copies["look_similarity"].null_count == len(found.copies) > 300
    row = next(row for row in found.table.to_pylist() if row["threshold"] == 0.9)
    assert row["recall"] == row["recall_looks"] > 0.5
    decoys = [row for row in found.pairs.to_pylist() if row["kind"] == "mirrored"]
    alike = {frozenset((row["src"], row["dst"])) for row in found.pairs.to_pylist() if not row["is_decoy"] and not row["is_copy"]}
    assert len(decoys) == 100
    assert sum(frozenset((row["src"], row["dst"])) in alike for row in decoys) > 30
