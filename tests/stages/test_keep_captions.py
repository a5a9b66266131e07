"""Captions do not go with the copies that are dropped; a folder can be preferred; files can be told apart by path and time."""

import os

import pytest
import shared_workers
from run_tables import rows_of, table
from shard_data import detailed, encode

from dedup.config.load import load_config
from dedup.errors import ConfigError
from dedup.explanation.explain import explain

# three copies of one picture, two of another, and one alone; captions of each
COPIES = {
    "b/first-0.jpg": (1, 95, ["a red house"]),
    "a/first-1.jpg": (1, 80, ["house, red"]),
    "b/first-2.jpg": (1, 60, ["house, red"]),
    "b/second-0.jpg": (2, 90, ["a boat"]),
    "a/second-1.jpg": (2, 70, []),
    "b/alone.jpg": (3, 90, ["a cat"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    for number, (name, (seed, quality, captions)) in enumerate(COPIES.items()):
        path = folder / "it's images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(detailed(seed), quality=quality))
        os.utime(path, (1_600_000_000 - number, 1_600_000_000 - number))
        for caption in captions:
            path.with_suffix(".txt").write_text(caption)
    run(folder, "run")
    return folder


def config_of(folder, name, *settings):
    words = [f"input.images={folder}/it's images", f"output.run_dir={folder}/{name}", "engine.workers=1", "report.enabled=false"]
    return load_config(None, [*words, *settings])


def run(folder, name, *settings, **options):
    shared_workers.run(config_of(folder, name, *settings), **options)
    return {row["key"]: row for row in table(folder / name, "manifest").to_pylist()}


def kept_of(rows, stem):
    (row,) = [row for key, row in rows.items() if stem in key]
    return row


def test_a_kept_sample_has_all_captions_of_its_group(folder):
    rows = {row["key"]: row for row in table(folder / "run", "manifest").to_pylist()}
    assert kept_of(rows, "first")["group_captions"] == [
        {"caption": "house, red", "n_samples": 2},
        {"caption": "a red house", "n_samples": 1},
    ]
    assert kept_of(rows, "second")["group_captions"] == [{"caption": "a boat", "n_samples": 1}]
    assert kept_of(rows, "alone")["group_captions"] is None
    assert kept_of(rows, "first")["caption"] == COPIES[kept_of(rows, "first")["key"]][2][0]


@pytest.mark.parametrize("prefer", ["a", "a/"])
def test_what_it_trains_with_may_be_the_most_frequent(folder, prefer):
    rows = run(folder, f"frequent{len(prefer)}", "keep.caption=most_frequent", f"keep.prefer={folder}/it's images/{prefer}")
    assert rows.keys() == {"a/first-1.jpg", "a/second-1.jpg", "b/alone.jpg"}
    assert {row["caption"] for row in rows.values()} == {"house, red", "a boat", "a cat"}
    assert rows["a/second-1.jpg"]["captions"] is None  # its own stay as they are


def test_of_two_folders_the_first_goes_before(folder):
    images = f"{folder}/it's images"
    rows = run(folder, "two", f"keep.prefer={images}/b/first-2.jpg", f"keep.prefer={images}/a")
    assert rows.keys() == {"b/first-2.jpg", "a/second-1.jpg", "b/alone.jpg"}
    dropped = {row["key"]: row for row in table(folder / "two", "duplicates").to_pylist()}["a/first-1.jpg"]
    rule = explain(str(folder / "two"), sample_id=dropped["sample_id"]).rule
    assert (rule.term, rule.value) == ("keep.prefer", f"{images}/b/first-2.jpg")


@pytest.mark.parametrize(
    ("order", "kept"),
    [("path desc", {"b/first-2.jpg", "b/second-0.jpg"}), ("mtime asc", {"b/first-2.jpg", "a/second-1.jpg"}), ("mtime desc", {"b/first-0.jpg", "b/second-0.jpg"})],
)  # fmt: skip
def test_paths_and_times_decide(folder, order, kept):
    assert run(folder, order.replace(" ", "-"), f"keep.order_by={order}").keys() == {*kept, "b/alone.jpg"}


def test_the_best_caption_is_known_by_its_similarity(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"keep.caption=best .* set embed.text=true, carry a column similarity"):
        run(folder, "never", "keep.caption=best")
    lines = ["file,caption,similarity", "b/first-0.jpg,a red house,0.2", "a/first-1.jpg,house red,0.3", "b/first-2.jpg,house red,0.1"]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    settings = [f"input.captions={tmp_path}/table.csv", "input.carry=similarity", "keep.caption=best", "keep.order_by=path desc"]
    rows = run(folder, "best", *settings)
    assert rows["b/first-2.jpg"]["caption"] == "house red"


@pytest.mark.spark
def test_spark_gives_the_same(folder, start_spark):
    from dedup.config.key import STAGE_NAMES

    settings = ["keep.caption=most_frequent", f"keep.prefer={folder}/it's images/a"]
    run(folder, "here", *settings)
    shared_workers.run(config_of(folder, "there", *settings), STAGE_NAMES[: STAGE_NAMES.index("manifest")])
    engine = start_spark()
    try:
        shared_workers.run(config_of(folder, "there", *settings), ["manifest"], engine=engine)
    finally:
        engine.close()
    assert rows_of(folder / "here", "manifest") == rows_of(folder / "there", "manifest")
