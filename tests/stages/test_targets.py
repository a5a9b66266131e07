"""Targets against what plain counting over the samples gives."""

import collections
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import shared_workers
from run_tables import assert_same_tables
from shard_data import Sample, copies, encode, scene, write_shards

from dedup.attack.generations import first_seed, write_work
from dedup.cli.show.run import summary_lines
from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.config.rules import validate
from dedup.errors import ConfigError, InputError
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

CARRY = "input.carry=LANGUAGE,punsafe"


def make_samples():
    """Eight scenes with 1 to 5 near copies and some exact ones; captions of many lengths, one of them common to all data."""
    samples = []
    for source in range(8):
        picture = scene(source)
        images = [encode(picture), *list(copies(picture))[: 1 + source % 5]] + [encode(picture)] * (source % 3)
        for place, image in enumerate(images):
            caption = ["x", f"scene {source}", f"a long view of the scene {source}", "common"][(place * (source + 1)) % 4]
            extra = {"LANGUAGE": "en" if source % 2 else "de", "punsafe": source / 10}
            samples.append(Sample(f"{len(samples):05d}", image, caption, source, extra=extra))
    samples += [Sample(f"{len(samples) + k:05d}", encode(scene(100 + k)), "common", 100 + k) for k in range(20)]
    return samples


SAMPLES = make_samples()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), SAMPLES, per_shard=30)


@pytest.fixture(scope="module")
def run_dir(shards, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "run"
    shared_workers.run(config_for(shards, run_dir))
    return run_dir


def config_for(shards, run_dir, *settings):
    return load_config(None, [f"input.shards={shards}", f"output.run_dir={run_dir}", CARRY, "engine.workers=2", *settings])


def table(run_dir, name):
    return read_table(Run(str(run_dir)).table(name)).to_pylist()


def redo(shards, run_dir, *settings):
    shared_workers.run(config_for(shards, run_dir, *settings), ["targets"], redo=True)
    return table(run_dir, "targets")


def groups_of(run_dir):
    found = collections.defaultdict(list)
    for name in ("manifest", "duplicates"):
        for row in table(run_dir, name):
            found[row["component_id"]].append(row)
    return {component: rows for component, rows in found.items() if len(rows) > 1}


def prompt_of(rows, least=1, most=0):
    counts = collections.Counter(
        row["caption"] for row in rows if len(row["caption"]) >= least and (not most or len(row["caption"]) <= most)
    )
    return min(counts.items(), key=lambda item: (-item[1], item[0])) if counts else None


@pytest.mark.parametrize("ranking", ["duplicates", "neighbors", "caption"])
@pytest.mark.parametrize(("least", "most"), [(1, 0), (3, 0), (3, 10), (9, 0)])
def test_each_ranking_is_what_counting_gives(shards, run_dir, ranking, least, most):
    lengths = [f"targets.min_caption_length={least}", f"targets.max_caption_length={most}"]
    found = redo(shards, run_dir, f"targets.rank_by={ranking}", *lengths)
    near = {row["sample_id"]: row["n_neighbors"] for row in table(run_dir, "neighbors")}
    common = collections.Counter(row["caption"] for row in table(run_dir, "metadata"))
    expected = []
    for component, rows in groups_of(run_dir).items():
        if (prompt := prompt_of(rows, least, most)) is not None:
            values = {
                "duplicates": len(rows),
                "neighbors": max(near.get(row["sample_id"], 0) for row in rows),
                "caption": common[prompt[0]],
            }
            expected.append((-values[ranking], component, prompt[0], prompt[1] / len(rows), values["neighbors"], common[prompt[0]]))
    expected.sort()
    assert [row["component_id"] for row in found] == [row[1] for row in expected]
    assert [row["rank"] for row in found] == list(range(1, len(found) + 1))
    for row, (_, _, caption, share, n_neighbors, n_common) in zip(found, expected, strict=True):
        assert (row["caption"], row["n_neighbors"], row["n_caption_samples"]) == (caption, n_neighbors, n_common)
        assert row["caption_share"] == pytest.approx(share)


def test_carried_columns_filter(shards, run_dir):
    everything = redo(shards, run_dir)
    kept = {row["component_id"]: row for row in table(run_dir, "manifest")}
    english = redo(shards, run_dir, "targets.language=en", "targets.max_punsafe=0.5")
    expected = [
        row["component_id"]
        for row in everything
        if kept[row["component_id"]]["LANGUAGE"] == "en" and kept[row["component_id"]]["punsafe"] <= 0.5
    ]
    assert [row["component_id"] for row in english] == expected
    assert 0 < len(expected) < len(everything)
    assert len(redo(shards, run_dir, "targets.language=en,de")) == len(everything)


def test_captions_beside_the_prompt_are_listed(shards, run_dir):
    targets = redo(shards, run_dir)
    listed = collections.defaultdict(list)
    for row in table(run_dir, "target_captions"):
        listed[row["target_id"]].append(row)
    groups = groups_of(run_dir)
    for target in targets:
        counts = collections.Counter(row["caption"] for row in groups[target["component_id"]])
        rows = listed[target["target_id"]]
        assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))
        assert {row["caption"]: row["n_samples"] for row in rows} == dict(counts)
        assert rows[0]["caption"] == target["caption"]


def test_other_tools_read_caption_and_url(shards, run_dir):
    redo(shards, run_dir)
    rows = pq.read_table(sorted((run_dir / "targets").glob("*.parquet")), columns=["caption", "url"])
    assert rows.num_rows == len(table(run_dir, "targets"))
    lines = [json.loads(line) for line in (run_dir / "targets.jsonl").read_text().splitlines()]
    assert lines == table(run_dir, "targets")


def test_the_budget_is_told_and_its_rate_makes_nothing_stale(shards, run_dir):
    redo(shards, run_dir)
    config = config_for(shards, run_dir, "targets.images_per_second=2")
    summary = shared_workers.run(config, ["targets"])
    assert summary.skipped == ("targets",)
    n_images = 500 * len(table(run_dir, "targets"))
    text = dict(summary_lines(summary, config))["targets"]
    assert f"{n_images:,} images to generate, {n_images / 7200:,.1f} GPU hours at 2 images/s" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["targets.rank_by=size"], r"targets\.rank_by=size is unknown; expected one of duplicates, templates, neighbors, caption"),
        (["targets.language=en"], r"targets\.language needs the column LANGUAGE, which is not carried"),
        (["targets.max_punsafe=0.3"], r"targets\.max_punsafe needs the column punsafe"),
        (["targets.language=e'n", "input.carry=LANGUAGE"], r"'e'n' is not a language"),
        (["targets.min_caption_length=9", "targets.max_caption_length=3"], r"max_caption_length=3 is below"),
        (["targets.max_punsafe=1.5"], r"targets\.max_punsafe=1\.5 is out of range"),
    ],
)
def test_what_can_not_be_asked_is_said(settings, message):
    with pytest.raises(ConfigError, match=message):
        validate(load_config(None, settings))


def test_work_is_split_and_made_again_without_what_is_there(shards, run_dir, tmp_path):
    targets = redo(shards, run_dir, "targets.n_generations=6")
    parts = write_work(f"{run_dir}/targets", str(tmp_path / "work"), n_parts=3)
    lines = [[json.loads(line) for line in Path(path).read_text().splitlines()] for path, _, _ in parts]
    assert sorted(line["target_id"] for part in lines for line in part) == sorted(row["target_id"] for row in targets)
    assert max(map(len, lines)) - min(map(len, lines)) <= 1
    seeds = [line["first_seed"] + k for part in lines for line in part for k in range(line["n_generations"])]
    assert len(set(seeds)) == len(seeds) == 6 * len(targets)
    assert max(seeds) < 2**63
    # some were generated since
    for number, row in enumerate(targets):
        folder = tmp_path / "generations" / row["target_id"]
        folder.mkdir(parents=True)
        for place in range(min(6, 2 * number)):
            (folder / f"{place}.png").touch()
        (folder / "notes.txt").touch()
    again = write_work(f"{run_dir}/targets", str(tmp_path / "again"), n_parts=2, generations=str(tmp_path / "generations"))
    left = {line["target_id"]: line for path, _, _ in again for line in map(json.loads, Path(path).read_text().splitlines())}
    for number, row in enumerate(targets):
        n_left = 6 - min(6, 2 * number)
        assert (row["target_id"] in left) == (n_left > 0)
        if n_left:
            assert left[row["target_id"]]["n_generations"] == n_left
            assert left[row["target_id"]]["first_seed"] == first_seed(row["target_id"]) + 2 * number
    assert sum(n_images for _, _, n_images in again) == sum(line["n_generations"] for line in left.values())


def test_work_that_can_not_be_listed_is_said(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        write_work(str(tmp_path / "nowhere"), str(tmp_path / "work"))
    with pytest.raises(ConfigError, match="--n-parts=0"):
        write_work(str(tmp_path), str(tmp_path / "work"), n_parts=0)
    with pytest.raises(InputError, match="is not a number"):
        first_seed("a name")
    assert not list((tmp_path / "work").glob("*.jsonl"))


@pytest.mark.spark
def test_spark_gives_the_same_targets(shards, tmp_path, start_spark):
    settings = ["targets.rank_by=neighbors", "targets.min_caption_length=3", "targets.language=en"]
    here, there = (config_for(shards, tmp_path / name, *settings) for name in ("here", "there"))
    shared_workers.run(here)
    shared_workers.run(there, STAGE_NAMES[: STAGE_NAMES.index("statistics")])
    engine = start_spark()
    try:
        shared_workers.run(there, engine=engine)
    finally:
        engine.close()
    for name in ("targets", "target_captions", "captions", "statistics"):
        assert table(tmp_path / "here", name) == table(tmp_path / "there", name)
    assert_same_tables(tmp_path / "here", tmp_path / "there", ("edges", "groups"))
