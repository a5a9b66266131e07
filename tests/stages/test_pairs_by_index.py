"""Pairs by looking images up in the index, against pairs by lists and against all pairs."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from run_tables import rows_of, table
from vector_data import all_similarities, copies_of, power_law, with_planted

import dedup
from dedup.config.key import STAGE_NAMES
from dedup.errors import ConfigError
from dedup.numerics.search.balls import find_crowds
from dedup.numerics.search.faiss_index import search_all

NAMES = ("candidates", "neighbors", "groups", "manifest", "duplicates", "statistics")


def run(folder, rows, *options, stages=STAGE_NAMES, engine=None):
    source = folder.parent / "source"
    if not source.exists():
        (source / "img_emb").mkdir(parents=True)
        (source / "metadata").mkdir()
        np.save(source / "img_emb" / "img_emb_0.npy", rows.astype(np.float16))
        keys = pa.table({"key": [f"{number:06d}" for number in range(len(rows))]})
        pq.write_table(keys, source / "metadata" / "metadata_0.parquet")
    wanted = ["encoder.name=precomputed", f"input.embeddings={source}", f"output.run_dir={folder}", "engine.workers=2"]
    return shared_workers.run(dedup.load_config(None, [*wanted, *options]), stages, engine=engine)


def same(one, other, names=NAMES):
    for name in names:
        assert rows_of(one, name) == rows_of(other, name), name


def pairs_of(rows, least):
    similarity = all_similarities(rows)
    return {(int(a), int(b)) for a, b in np.argwhere(np.triu(similarity >= np.float32(least), 1))}


def test_where_every_pair_is_compared_the_tables_are_equal(tmp_path):
    rows = with_planted(np.random.default_rng(0), 1_500)
    rows[700:720] = rows[100:120]  # equal rows: exact copies with a weight
    for method in ("lists", "ivfpq"):
        run(tmp_path / method, rows, f"search.method={method}", "search.min_similarity=0.7")
    same(tmp_path / "lists", tmp_path / "ivfpq")
    assert len(rows_of(tmp_path / "lists", "candidates")) > 300


@pytest.mark.parametrize("codes", ["fp16", "pq", "IVF40,Flat"])
def test_through_lists_and_codes_few_are_missed_and_none_invented(tmp_path, codes):
    rows = with_planted(np.random.default_rng(1), 6_000)
    wanted = f"index.codes={codes}" if "," not in codes else f"index.factory={codes}"
    options = [
        "search.min_similarity=0.85",
        "search.exhaustive_below=0",
        "search.nlist=60",
        "search.nprobe=12",
        "search.recall_queries=500",
    ]
    summary = run(tmp_path / "run", rows, "search.method=ivfpq", wanted, *options)
    true = pairs_of(rows, 0.85)
    found = {(row["src"], row["dst"]) for row in table(tmp_path / "run", "candidates").to_pylist()}
    assert found <= true
    assert len(found) >= 0.98 * len(true)  # sparse as these pairs are, nearly all of them are kept
    assert summary.records["pairs"].summary["recall"] >= 0.98
    counts = dict(zip(*(table(tmp_path / "run", "neighbors")[name].to_pylist() for name in ("sample_id", "n_neighbors")), strict=True))
    expected = np.bincount(np.array(sorted(true)).ravel(), minlength=len(rows))
    assert all(0 < counts[sample] <= expected[sample] for sample in counts)


def crowded():
    """Two crowds that meet, one that stands alone, and pairs elsewhere and at their edges."""
    rng = np.random.default_rng(2)
    rows = power_law(rng, 5_000)
    beside = copies_of(rng, rows[0], 1, 0.93)
    crowds = [copies_of(rng, centre, 900, rng.uniform(0.975, 0.999, 900)) for centre in (rows[0], beside[0], rows[1])]
    edges = copies_of(rng, rows[0], 60, rng.uniform(0.8, 0.95, 60))
    return np.concatenate([rows, *crowds, edges, copies_of(rng, rows[7], 5, 0.97)])[rng.permutation(5_000 + 2_700 + 65)].astype(np.float16)


def test_crowds_are_counted_to_the_last(tmp_path):
    rows = crowded()
    options = ["search.min_similarity=0.9", "index.codes=fp16"]
    for method in ("lists", "ivfpq"):
        run(tmp_path / method, rows, f"search.method={method}", *options)
    same(tmp_path / "lists", tmp_path / "ivfpq", [name for name in NAMES if name != "candidates"])
    counts = dict(zip(*(table(tmp_path / "ivfpq", "neighbors")[name].to_pylist() for name in ("sample_id", "n_neighbors")), strict=True))
    expected = (all_similarities(rows) >= np.float32(0.9)).sum(axis=1) - 1
    assert counts == {sample: int(n) for sample, n in enumerate(expected) if n}
    assert max(counts.values()) > 850


def test_surroundings_hold_every_neighbour_of_a_crowd():
    rows = crowded()
    blocks = [(slice(start, start + 1_000), rows[start : start + 1_000]) for start in range(0, len(rows), 1_000)]
    crowds = find_crowds(rows, len(rows), blocks, 0.9)
    assert crowds.n_groups == 2
    assert crowds.is_inside.sum() > 2_000
    near = all_similarities(rows) >= np.float32(0.9)
    for member in np.flatnonzero(crowds.is_inside):
        assert (crowds.group[near[member]] == crowds.group[member]).all()
    quiet = find_crowds(rows[:300], 300, iter(()), 0.99)
    assert (quiet.n_groups, int(quiet.is_inside.sum())) == (0, 0)


@pytest.mark.parametrize("n_near", [0, 5, 90, 128, 700, 1_000])
def test_a_search_widens_until_it_has_all(n_near):
    rng = np.random.default_rng(n_near)
    exact = np.where(np.arange(1_000) < n_near, 0.95, 0.5)
    coded = exact + rng.normal(0, 0.01, 1_000)  # the order of the codes
    order = np.argsort(-coded)
    asked = []

    def search(rows, k):
        asked.append(k)
        return np.tile(order[:k], (len(rows), 1)), np.tile(exact[order[:k]].astype(np.float32), (len(rows), 1))

    query, ids, similarity = search_all(search, np.full(2, 0.9, np.float32), 1_000)
    assert sorted(ids[query == 0].tolist()) == sorted(ids[query == 1].tolist()) == list(range(n_near))
    assert (similarity == np.float32(0.95)).all()
    assert max(asked) <= max(128, 4 * n_near)


def test_without_codes_it_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="search.method=ivfpq searches the index, which index.codes=none leaves out"):
        run(tmp_path / "run", power_law(np.random.default_rng(3), 100), "search.method=ivfpq", "index.codes=none")


@pytest.mark.spark
def test_on_spark_the_tables_are_equal(tmp_path, start_spark):
    rows = crowded()
    options = ["search.method=ivfpq", "search.min_similarity=0.9", "search.exhaustive_below=0", "search.nlist=40", "search.nprobe=8"]
    run(tmp_path / "local", rows, *options)
    engine = start_spark()
    try:
        run(tmp_path / "spark", rows, *options, stages=["embed", "index", "pairs"], engine=engine)
    finally:
        engine.close()
    same(tmp_path / "local", tmp_path / "spark", ["candidates", "neighbors"])
