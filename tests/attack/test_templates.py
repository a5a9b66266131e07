"""Templates, plain copies and unrelated pictures told apart by whole scorings, alone and with what a run knows."""

import shutil

import numpy as np
import planted_generations as planted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shard_data import Sample, detailed, encode, write_shards

import dedup
from dedup.config import ExtractionConfig
from dedup.schemas import SCORES
from dedup.storage.atomic import write_json

N = 10  # of each kind; benchmarks/planted_generations.py does 200


def rows_of(out):
    return pq.read_table(sorted(out.glob("part-*.parquet")), schema=SCORES).to_pylist()


@pytest.fixture(scope="module")
def scored(tmp_path_factory, engine):
    folder = tmp_path_factory.mktemp("planted")
    kinds = planted.write_planted(folder, N, 128, 0)
    summary = dedup.score_generations(f"{folder}/targets.parquet", f"{folder}/generations", f"{folder}/scores", engine=engine)
    return kinds, rows_of(folder / "scores"), summary


def test_each_kind_has_its_label(scored):
    kinds, rows, summary = scored
    wrong = [(kind, row["label"]) for kind, row in zip(kinds, rows, strict=True) if row["label"] != planted.LABEL_OF[kind]]
    assert len(wrong) <= 1
    assert not [kind for kind, _ in wrong if kind != "template"]
    assert summary.by_label["verbatim"] == N
    assert summary.by_label["retrieved"] == 0


def test_the_columns_of_an_area_say_what_is_in_it(scored):
    kinds, rows, _ = scored
    for kind, row in zip(kinds, rows, strict=True):
        if row["label"] == "template":
            mask = np.asarray(Image.open(pa.BufferReader(row["mask"])))
            assert mask.shape == (64, 64)
            assert (mask == 255).mean() == pytest.approx(row["area"], abs=1e-6)
            assert 0.2 <= row["area"] < 1
            assert row["clique_size_masked"] >= 10
            assert max(row["l2_masked"], row["tiled_l2_masked"]) <= 0.15
            assert row["mean_distance_masked"] <= 0.1
            assert not row["is_memorized"]
        elif row["label"] == "verbatim":
            assert row["is_extracted"]
            assert (row["area"], row["mask"]) == (1.0, None)
            assert (row["clique_size_masked"], row["l2_masked"]) == (row["clique_size"], row["l2"])
        else:
            assert kind == "unrelated"
            assert not row["is_memorized"]
            assert {row[name] for name in ("area", "clique_size_masked", "l2_masked", "mask", "retrieved_key")} == {None}


def test_twelve_equal_on_three_quarters(tmp_path, engine):
    """All twelve are in the clique, and the label is template."""
    training = np.asarray(detailed(1, (128, 128)))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(data := encode(Image.fromarray(training), "PNG"))
    (tmp_path / "gen" / "t0").mkdir(parents=True)
    for number in range(12):
        pixels = training.copy()
        pixels[64:, 64:] = np.asarray(detailed(100 + number, (64, 64)))
        Image.fromarray(pixels).save(tmp_path / "gen" / "t0" / f"{number}.png")
    row = {"target_id": "t0", "shard": f"{tmp_path}/train/", "key": "a.png", "byte_offset": 0, "n_bytes": len(data)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "targets.parquet")
    dedup.score_generations(f"{tmp_path}/targets.parquet", f"{tmp_path}/gen", f"{tmp_path}/out", engine=engine)
    found = rows_of(tmp_path / "out")[0]
    assert (found["label"], found["clique_size_masked"], found["area"]) == ("template", 12, 0.75)
    assert (found["clique_size"], found["is_memorized"], found["is_extracted"]) == (1, False, False)
    assert found["l2_masked"] == found["tiled_l2_masked"] == found["mean_distance_masked"] == 0.0


def page(number):
    """One sheet, filled in otherwise each time: a template's training images."""
    picture = np.asarray(detailed(7, (320, 320))).copy()
    picture[190:290, 40:280] = np.asarray(detailed(50 + number, (240, 100)))
    return Image.fromarray(picture)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six pages of one template, and a picture three times; each template and each group is a target."""
    folder = tmp_path_factory.mktemp("run")
    samples = [Sample(f"page{k}", encode(page(k)), f"page number {k}", k) for k in range(6)]
    copied = detailed(99, (320, 240))
    samples += [Sample(f"copy{k}", encode(copied, quality=90 - 15 * k), "a picture seen often", 9) for k in range(3)]
    samples += [Sample(f"lone{k}", encode(detailed(200 + k, (320, 240))), f"picture {k} alone", 20 + k) for k in range(5)]
    shards = write_shards(folder / "shards", samples)
    settings = [f"input.shards={shards}", f"output.run_dir={folder / 'run'}", "engine.workers=1", "targets.min_caption_length=3"]
    dedup.run(dedup.load_config(None, settings))
    return folder / "run", {sample.key: sample for sample in samples}


def test_a_target_for_each_template(run, tmp_path):
    """Of a template one image, the first of those with most copies; the group of copies has no template and is no target."""
    run_dir, _ = run
    shutil.copytree(run_dir, tmp_path / "run")
    settings = [f"input.shards={run_dir.parent / 'shards' / '*.tar'}", f"output.run_dir={tmp_path / 'run'}", "engine.workers=1"]
    config = dedup.load_config(None, [*settings, "targets.min_caption_length=3", "targets.rank_by=templates"])
    dedup.run(config, ("targets",), redo=True)
    targets = pq.read_table(sorted((tmp_path / "run" / "targets").glob("*.parquet"))).to_pylist()
    assert [(row["key"], row["caption"], row["template_count"]) for row in targets] == [("page0", "page number 0", 6)]
    assert (targets[0]["duplication_count"], targets[0]["caption_share"], targets[0]["n_captions"]) == (1, 1.0, 1)
    others = pq.read_table(sorted((tmp_path / "run" / "target_captions").glob("*.parquet"))).to_pylist()
    assert [(row["target_id"], row["caption"]) for row in others] == [(targets[0]["target_id"], "page number 0")]
    with pytest.raises(dedup.DedupError, match="targets.rank_by=templates needs the templates that the judge finds"):
        dedup.run(dedup.load_config(None, [*settings, "targets.rank_by=templates", "confirm.enabled=false"]), redo=True)


def targets_of(run_dir, keys, out):
    """The samples with these keys as a list of targets, where a run's would be."""
    metadata = pq.read_table(sorted((run_dir / "embeddings" / "metadata").glob("*.parquet"))).to_pylist()
    chosen = {row["key"]: row for row in metadata if row["key"] in keys}
    rows = [
        {"target_id": chosen[key]["sha256"][:16], "component_id": chosen[key]["sample_id"], "duplication_count": 1}
        | {name: chosen[key][name] for name in ("shard", "key", "byte_offset", "n_bytes", "caption", "url")}
        for key in keys
    ]
    out.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), out / "part-00000.parquet")
    return [row["target_id"] for row in rows]


def fill(folder, images):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number:03d}.png")


def test_what_a_run_knows(run, tmp_path, engine):
    """The template's mask makes one generation enough; a clique of another training image is retrieved; similarity is the run's."""
    run_dir, samples = run
    keys = ["page0", "lone0", "lone1"]
    shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "targets")
    ids = targets_of(tmp_path / "run", keys, tmp_path / "run" / "targets")
    # one generation of the template; a clique that is another image of the run; a clique of nothing in the run
    fill(tmp_path / "gen" / ids[0], [page(77), detailed(300, (320, 320)), detailed(301, (320, 320))])
    copied = Image.open(pa.BufferReader(samples["copy0"].image))
    fill(tmp_path / "gen" / ids[1], [copied] * 11)
    fill(tmp_path / "gen" / ids[2], [detailed(400, (320, 240))] * 11)
    summary = dedup.score_generations(f"{tmp_path}/run/targets", f"{tmp_path}/gen", f"{tmp_path}/out", engine=engine)
    assert not [note for note in summary.notes if "neither" in note]
    first, second, third = rows_of(tmp_path / "out")
    assert (first["label"], first["clique_size_masked"]) == ("template", 1)
    assert first["area"] > 0.4
    assert (second["label"], second["is_memorized"]) == ("retrieved", True)
    assert second["retrieved_key"].startswith("copy")
    assert (third["label"], third["is_memorized"], third["retrieved_key"]) == ("none", True, None)
    assert first["similarity"] > 0.7 > second["similarity"]
    assert summary.by_label == {"verbatim": 0, "template": 1, "retrieved": 1, "none": 1}


def test_a_run_that_can_not_embed_is_said(run, tmp_path, engine):
    run_dir, _ = run
    shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "index")
    ids = [row["target_id"] for row in pq.read_table(tmp_path / "run" / "targets").to_pylist()]
    fill(tmp_path / "gen" / ids[0], [detailed(400, (320, 240))] * 3)
    options = ExtractionConfig(min_clique=3)
    summary = dedup.score_generations(f"{tmp_path}/run/targets", f"{tmp_path}/gen", f"{tmp_path}/out", options=options, engine=engine)
    assert [note for note in summary.notes if "neither looked up nor embedded" in note]
    row = next(row for row in rows_of(tmp_path / "out") if row["target_id"] == ids[0])
    assert (row["label"], row["similarity"]) == ("none", None)


def test_scores_of_another_form_are_not_continued(tmp_path, engine):
    planted.write_planted(tmp_path, 1, 64, 0)
    arguments = f"{tmp_path}/targets.parquet", f"{tmp_path}/generations", f"{tmp_path}/out"
    dedup.score_generations(*arguments, engine=engine)
    write_json(f"{tmp_path}/out/_made_of.json", {"columns": "other"})
    with pytest.raises(
        dedup.DedupError, match="holds results of other targets and generations and options and prompts and run and columns"
    ):
        dedup.score_generations(*arguments, engine=engine)
