"""Controls against the rules they are matched by, over tables of a run that the test writes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import Sample, copies, detailed, encode, scene, write_shards

import dedup
from dedup.attack.controls import find_controls
from dedup.attack.prompts import write_prompts
from dedup.errors import InputError
from dedup.schemas import CONTROLS

WORDS = ("a", "view", "of", "the", "old", "harbour", "in", "winter", "with", "boats", "and", "gulls")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Ten groups of copies with captions of many lengths in two languages, and forty unique images."""
    folder, samples = tmp_path_factory.mktemp("run"), []
    for source in range(50):
        picture = detailed(source, (200, 160)) if source % 2 else scene(source, (120, 100))
        images = [encode(picture), *list(copies(picture))[:3]] if source < 10 else [encode(picture)]
        caption = " ".join(WORDS[: 2 + source % 9]) + f" {source if source % 5 else 'common'}"
        extra = {"LANGUAGE": "de" if source % 3 else "en"}
        samples += [Sample(f"{source:03d}-{k}", image, caption, source, extra=extra) for k, image in enumerate(images)]
    samples.append(Sample("silent", encode(detailed(900)), None, 900))
    shards = write_shards(folder / "shards", samples)
    settings = [f"input.shards={shards}", f"output.run_dir={folder / 'run'}", "input.carry=LANGUAGE", "engine.workers=2"]
    dedup.run(dedup.load_config(None, settings))
    return folder / "run"


def table_of(folder, name):
    return pq.read_table(sorted((folder / name).glob("*.parquet"))).to_pylist()


@pytest.fixture(scope="module")
def found(run_dir, engine):
    summary = find_controls(str(run_dir), engine=engine)
    return summary, pq.read_table(sorted((run_dir / "controls").glob("part-*.parquet")), schema=CONTROLS).to_pylist()


def test_controls_are_unique_and_matched_once(run_dir, found):
    summary, rows = found
    targets = {row["target_id"]: row for row in table_of(run_dir, "targets")}
    unique = {row["key"] for row in table_of(run_dir, "manifest") if row["duplication_count"] == 1}
    related = {row["sample_id"] for name in ("templates", "scenes") for row in table_of(run_dir, name)}
    assert summary.n_targets == len(targets)
    assert summary.n_controls == len(rows) == sum(summary.n_by_level) > 0.8 * len(targets)
    assert len({row["key"] for row in rows}) == len({row["matched_to"] for row in rows}) == len(rows)
    assert {row["key"] for row in rows} <= unique
    assert not {row["component_id"] for row in rows} & related
    assert {row["matched_to"] for row in rows} <= targets.keys()
    assert all(row["caption"] and row["duplication_count"] == 1 for row in rows)


def test_levels_are_as_defined(run_dir, found):
    """Each pair has one language and falls in one cell of its level; its figures are those of the samples."""
    steps = {0: (4, 4, 4), 1: (2, 2, 2), 2: (1, 1, 1), 3: (1, 1, 0), 4: (1, 0, 0)}
    metadata = table_of(run_dir, "embeddings/metadata")
    by_key = {row["key"]: row for row in metadata}
    targets = {row["target_id"]: row for row in table_of(run_dir, "targets")}
    captions = [row["caption"] for row in metadata]
    for row in found[1]:
        own, target = by_key[row["key"]], targets[row["matched_to"]]
        kept = by_key[target["key"]]
        assert row["language"] == own["LANGUAGE"] == kept["LANGUAGE"]
        facts = (len(own["caption"]), captions.count(own["caption"]), own["width"] * own["height"])
        wanted = (len(target["caption"]), captions.count(target["caption"]), kept["width"] * kept["height"])
        assert facts == (row["caption_length"], row["n_caption_samples"], row["n_pixels"])
        assert wanted == (row["target_caption_length"], row["target_n_caption_samples"], row["target_n_pixels"])
        for a, b, step in zip(facts, wanted, steps[row["level"]], strict=True):
            assert np.floor(np.log2(a) * step) == np.floor(np.log2(b) * step)


def test_controls_are_targets_like_others(run_dir, found, tmp_path):
    lines = [json.loads(line) for line in (run_dir / "controls" / "_controls.jsonl").read_text().splitlines()]
    assert [line["target_id"] for line in lines] == [row["target_id"] for row in found[1]]
    summary = write_prompts([f"{run_dir}/targets", f"{run_dir}/controls"], f"{tmp_path}/prompts")
    assert summary.n_prompts == len(found[1]) + found[0].n_targets
    assert sum(n for _, n, _ in dedup_work(run_dir, tmp_path)) == len(found[1])


def dedup_work(run_dir, tmp_path):
    from dedup.attack.generations import write_work

    return write_work(f"{run_dir}/controls", f"{tmp_path}/work")


def test_spark_matches_the_same(run_dir, found, tmp_path, spark_sessions):
    engine = spark_sessions.engine()
    try:
        find_controls(str(run_dir), out=f"{tmp_path}/controls", engine=engine)
    finally:
        engine.close()
    rows = pq.read_table(sorted((tmp_path / "controls").glob("part-*.parquet")), schema=CONTROLS).to_pylist()
    assert rows == found[1]


test_spark_matches_the_same = pytest.mark.spark(test_spark_matches_the_same)


def test_other_lists_and_errors(run_dir, tmp_path, engine):
    rows = table_of(run_dir, "targets")[:3]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "few.parquet")
    summary = find_controls(str(run_dir), f"{tmp_path}/few.parquet", f"{tmp_path}/out", engine=engine)
    assert summary.n_targets == 3
    assert summary.out == f"{tmp_path}/out"
    with pytest.raises(InputError, match="gone does not exist"):
        find_controls(str(run_dir), f"{tmp_path}/gone", f"{tmp_path}/out", engine=engine)
    with pytest.raises(dedup.DedupError, match="holds no run"):
        find_controls(str(tmp_path), engine=engine)
