"""Two sources of candidates in one run: a model's vectors, and the descriptor beside them."""

import numpy as np
import pytest
import shared_workers
from PIL import ImageOps
from run_tables import TABLES, assert_same_tables, rows_of, table
from shard_data import Sample, encode, make_samples, scene
from tiny_clip import config_for

from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.config.rules import validate
from dedup.errors import ConfigError, RunDirectoryError

# random weights find all pictures alike: at this threshold the model finds next to nothing
STRICT = "search.min_similarity=0.9999"


def samples_with_framed_and_turned():
    samples = make_samples(24, n_broken=2)
    for number in range(6):
        picture = scene(100 + number, (160, 120))
        for kind, copy in enumerate((picture, ImageOps.expand(picture, 12, "white"), ImageOps.mirror(picture))):
            samples.append(Sample(f"9{number}{kind}", encode(copy), None, 100 + number))
    return samples


SAMPLES = samples_with_framed_and_turned()


def components(run_dir):
    found = {}
    for name in ("manifest", "duplicates"):
        for row in table(run_dir, name).to_pylist():
            found.setdefault(row["component_id"], set()).add(row["key"])
    return sorted(map(sorted, found.values()))


@pytest.fixture(scope="module")
def runs(model, shards, tmp_path_factory):
    """The model alone, the descriptor alone, both."""
    folder = tmp_path_factory.mktemp("runs")
    shared_workers.run(config_for(model, shards, folder / "clip", STRICT))
    shared_workers.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={folder / 'dct'}", "engine.workers=2"]))
    both = shared_workers.run(config_for(model, shards, folder / "both", STRICT, "embed.also=dct"))
    return folder, both


def test_the_descriptors_vectors_are_those_of_a_run_of_its_own(runs):
    folder, _ = runs
    for pattern in ("img_emb/*.npy", "img_inner/*.npy"):
        alone = sorted((folder / "dct" / "embeddings").glob(pattern))
        beside = sorted((folder / "both" / "also" / "dct" / "embeddings").glob(pattern))
        assert [path.name for path in alone] == [path.name for path in beside]
        for one, other in zip(alone, beside, strict=True):
            np.testing.assert_array_equal(np.load(one), np.load(other))
    assert sum(np.load(path).shape[0] for path in (folder / "both" / "also" / "dct" / "embeddings").glob("img_inner/img_*.npy")) >= 6


def test_what_either_finds_is_found(runs):
    folder, both = runs
    assert components(folder / "both") == components(folder / "dct")
    assert len(components(folder / "clip")) > len(components(folder / "dct"))
    source = {sample.key: sample.source for sample in SAMPLES}
    assert all(len({source[key] for key in members}) == 1 for members in components(folder / "both"))
    sources = set(table(folder / "both", "candidates")["source"].to_pylist())
    assert {"also", "also_look"} <= sources
    pairs = [(row["src"], row["dst"]) for row in table(folder / "both", "candidates").to_pylist()]
    assert len(set(pairs)) == len(pairs)
    assert both.records["pairs"].summary["n_also_edges"] == sum(
        row["source"].startswith("also") for row in table(folder / "both", "candidates").to_pylist()
    )


def test_candidates_are_counted_by_who_found_them(runs):
    folder, both = runs
    counts = {row["found_by"]: (row["n_confirmed"], row["n_refused"]) for row in table(folder / "both", "candidate_counts").to_pylist()}
    assert "dct" in counts
    assert set(counts) <= {"clip", "dct", "clip+dct"}
    judged = [row for name in ("edges", "refused") for row in table(folder / "both", name).to_pylist() if row["found_by"]]
    assert sum(map(sum, counts.values())) == len(judged)
    for row in judged:
        near = {}
        for name, home, least in (("clip", folder / "both", 0.9999), ("dct", folder / "both" / "also" / "dct", 0.7)):
            vectors = {int(path.stem[-5:]): np.load(path).astype(float) for path in (home / "embeddings" / "img_emb").glob("*.npy")}
            a, b = (vectors[row[end] >> 32][row[end] & 0xFFFFFFFF] for end in ("src", "dst"))
            near[name] = a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= least
        for name, sources in (("clip", ("whole", "look")), ("dct", ("also", "also_look"))):
            assert (name in row["found_by"].split("+")) == (near[name] or row["source"] in sources)
    assert both.records["statistics"].summary["candidates"] == {name: list(pair) for name, pair in counts.items()}
    alone = {row["found_by"] for row in table(folder / "dct", "candidate_counts").to_pylist()}
    assert alone == {"dct"}


def test_a_finished_run_is_refused_a_second_source(model, shards, runs):
    folder, _ = runs
    with pytest.raises(RunDirectoryError, match=r'embed\.also: \[\] → \["dct"\]'):
        shared_workers.run(config_for(model, shards, folder / "clip", STRICT, "embed.also=dct"))
    with pytest.raises(RunDirectoryError, match=r"embed\.also"):
        shared_workers.run(config_for(model, shards, folder / "both", STRICT), ["pairs"])


def test_what_is_there_is_not_made_again_and_what_is_missing_is(model, shards, runs, tmp_path):
    folder, _ = runs
    config = config_for(model, shards, folder / "both", STRICT, "embed.also=dct")
    assert len(shared_workers.run(config).skipped) == len(STAGE_NAMES)
    path = folder / "both" / "also" / "dct" / "embeddings" / "img_emb" / "img_emb_00001.npy"
    before = np.load(path)
    path.unlink()
    (folder / "both" / "_stages" / "embed.json").unlink()
    shared_workers.run(config, redo=True)
    np.testing.assert_array_equal(np.load(path), before)
    assert components(folder / "both") == components(folder / "dct")


def test_shards_are_added_in_both_spaces(model, shards, runs, tmp_path):
    folder, _ = runs
    first = shards.replace("*", "{00000..00000}")
    shared_workers.run(config_for(model, first, tmp_path / "old", STRICT, "embed.also=dct"))
    config = config_for(model, shards, tmp_path / "new", STRICT, "embed.also=dct", f"base.run_dir={tmp_path / 'old'}")
    shared_workers.run(config)
    assert_same_tables(folder / "both", tmp_path / "new", ("metadata", "rejected", "partitions", "representatives", "neighbors"))
    assert components(tmp_path / "new") == components(folder / "both")
    across = {row["source"] for row in table(tmp_path / "new", "candidates").to_pylist() if row["src"] >> 32 < row["dst"] >> 32}
    assert {"also", "also_look"} <= across
    ours, theirs = (home / "also" / "dct" / "embeddings" / "img_emb" / "img_emb_00000.npy" for home in (tmp_path / "new", tmp_path / "old"))
    assert ours.samefile(theirs)
    with pytest.raises(RunDirectoryError, match=r"embed\.also"):
        shared_workers.run(config_for(model, shards, tmp_path / "alone", STRICT, f"base.run_dir={tmp_path / 'old'}"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["embed.also=dct"], r"embed\.also=dct with encoder\.name=dct"),
        (["encoder.name=clip", "embed.also=phash"], r"embed\.also=phash is not a second source"),
        (["encoder.name=clip", "embed.also=dct", "confirm.enabled=false"], r"embed\.also=dct with confirm\.enabled=false"),
    ],
)
def test_what_does_not_go_together_is_said(settings, message):
    with pytest.raises(ConfigError, match=message):
        validate(load_config(None, settings))


@pytest.mark.spark
def test_spark_gives_the_same_tables(model, shards, runs, tmp_path, start_spark):
    engine = start_spark()
    try:
        until = STAGE_NAMES[: STAGE_NAMES.index("confirm") + 1]
        shared_workers.run(config_for(model, shards, tmp_path / "run", STRICT, "embed.also=dct"), until, engine=engine)
    finally:
        engine.close()
    assert_same_tables(runs[0] / "both", tmp_path / "run", TABLES[: TABLES.index("edges")])
    confirmed = rows_of(tmp_path / "run", "edges")
    assert len(confirmed) > 20
    assert set(confirmed) <= set(rows_of(runs[0] / "both", "edges"))
