"""Outliers of a run against all pairs, and planted ones."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vector_data import all_similarities, copies_of, power_law

import dedup
from dedup.attack.outliers import OutlierOptions, rank_images
from dedup.config import Config
from dedup.contracts import SilentReporter
from dedup.engines.local import LocalEngine
from dedup.errors import InputError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.schemas import OUTLIERS

DIM = 32


def make_run(folder, rows, *options):
    """A run over embeddings that are there already."""
    source = folder / "source"
    (source / "img_emb").mkdir(parents=True)
    (source / "metadata").mkdir()
    np.save(source / "img_emb" / "img_emb_0.npy", rows.astype(np.float16))
    n = len(rows)
    table = {"caption": [f"image {i}" for i in range(n)], "url": [f"https://example.org/{i}.jpg" for i in range(n)]}
    table |= {"key": [f"{i:06d}" for i in range(n)]}
    pq.write_table(pa.table(table), source / "metadata" / "metadata_0.parquet")
    wanted = ["encoder.name=precomputed", f"input.embeddings={source}", f"output.run_dir={folder / 'run'}", "engine.workers=2"]
    dedup.run(dedup.load_config(None, [*wanted, *options]))
    return str(folder / "run")


def vectors(n=1_500, seed=0):
    """Crowded places, a few images far from all else, and copies of some of either."""
    rng = np.random.default_rng(seed)
    centres = np.abs(power_law(rng, 30, DIM))
    centres[:, DIM // 2 :] = 0
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = np.concatenate([copies_of(rng, centre, n // 30, rng.uniform(0.75, 0.93, n // 30)) for centre in centres])
    lonely = np.zeros((6, DIM))
    lonely[np.arange(6), DIM - 1 - np.arange(6)] = -1
    rows = np.concatenate([rows, lonely])
    # image n + 1 has a copy that is similar, n + 2 one of the same bytes
    copies = np.concatenate([copies_of(rng, lonely[1], 1, 0.995), lonely[2:3]])
    return np.concatenate([rows, copies]), [*range(n, n + 6)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rows, lonely = vectors()
    run_dir = make_run(tmp_path_factory.mktemp("outliers"), rows)
    return run_dir, Run(str(run_dir)).read_vectors(np.arange(len(rows))), lonely


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    rows, lonely = vectors(seed=1)
    options = ["search.exhaustive_below=0", "search.nlist=25", "search.nprobe=4"]
    run_dir = make_run(tmp_path_factory.mktemp("listed"), rows, *options)
    return run_dir, Run(str(run_dir)).read_vectors(np.arange(len(rows))), lonely


@pytest.fixture(scope="module")
def engine():
    started = LocalEngine(2)
    yield started
    started.close()


def rows_of(out):
    return pq.read_table(sorted(out.glob("part-*.parquet")), schema=OUTLIERS).to_pylist()


def expected_of(rows, kept, k):
    """Mean distance to the k nearest and the density ratio, of the kept rows."""
    similarity = all_similarities(rows[kept]).astype(np.float64)
    np.fill_diagonal(similarity, -2)
    order = np.lexsort((np.broadcast_to(np.arange(len(kept)), similarity.shape), -similarity), axis=1)[:, :k]
    mean = (1 - np.take_along_axis(similarity, order, axis=1)).mean(axis=1)
    return mean, mean / mean[order].mean(axis=1), kept[order[:, 0]]


def kept_ids(run_dir):
    return np.sort(pq.read_table(f"{run_dir}/manifest", columns=["sample_id"])["sample_id"].to_numpy())


@pytest.mark.parametrize("by", ["mean", "ratio"])
@pytest.mark.parametrize("with_duplicates", [False, True])
def test_all_are_as_defined(run, engine, tmp_path, by, with_duplicates):
    run_dir, rows, _ = run
    # the last sample has the bytes of another
    kept = np.arange(len(rows) - 1) if with_duplicates else kept_ids(run_dir)
    mean, ratio, nearest = expected_of(rows, kept, 7)
    summary = dedup.find_outliers(
        run_dir, str(tmp_path / "out"), top=10_000, by=by, n_neighbors=7, with_duplicates=with_duplicates, engine=engine
    )
    found = rows_of(tmp_path / "out")
    assert [row["rank"] for row in found] == list(range(1, len(kept) + 1))
    assert sorted(row["sample_id"] for row in found) == kept.tolist()
    place = np.searchsorted(kept, [row["sample_id"] for row in found])
    np.testing.assert_allclose([row["outlierness"] for row in found], mean[place], atol=1e-6)
    np.testing.assert_allclose([row["density_ratio"] for row in found], ratio[place], rtol=1e-5)
    assert [row["nearest_id"] for row in found] == nearest[place].tolist()
    value = np.array([row["outlierness" if by == "mean" else "density_ratio"] for row in found])
    assert (np.diff(value) <= 0).all()
    assert all(row["is_exact"] for row in found)
    assert summary.n_images == summary.n_exact == summary.n_certain == summary.n_outliers == len(kept)
    assert summary.recall is None


def test_planted_outliers_come_first_and_copies_do_not_hide_them(run, engine, tmp_path):
    run_dir, rows, lonely = run
    dedup.find_outliers(run_dir, str(tmp_path / "without"), top=6, n_neighbors=1, engine=engine)
    first = {row["caption"] for row in rows_of(tmp_path / "without")}
    copies = {lonely[1]: {lonely[1], len(rows) - 2}, lonely[2]: {lonely[2], len(rows) - 1}}  # either of two copies may be the keeper
    assert all(any(f"image {name}" in first for name in copies.get(image, {image})) for image in lonely)
    dedup.find_outliers(run_dir, str(tmp_path / "with"), top=6, n_neighbors=1, with_duplicates=True, engine=engine)
    others = {row["caption"] for row in rows_of(tmp_path / "with")}
    assert f"image {lonely[0]}" in others
    assert f"image {lonely[2]}" in others  # byte-identical copies are one image
    assert not {f"image {lonely[1]}", f"image {len(rows) - 2}"} & others


def test_lines_hold_the_prompts(run, engine, tmp_path):
    summary = dedup.find_outliers(run[0], str(tmp_path / "out"), top=20, engine=engine)
    table = rows_of(tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "_outliers.jsonl").read_text().splitlines()]
    assert lines == table
    assert len(lines) == 20
    assert all(line["url"] == f"https://example.org/{line['sample_id']}.jpg" and line["caption"] for line in lines)
    about = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert about["n_images"] == summary.n_images
    again = dedup.find_outliers(run[0], str(tmp_path / "out"), top=3, engine=engine)  # replaces what was found before
    assert len(rows_of(tmp_path / "out")) == again.n_outliers == 3


@pytest.mark.parametrize("with_duplicates", [False, True])
def test_through_the_lists(listed, engine, tmp_path, with_duplicates):
    run_dir, rows, lonely = listed
    kept = np.arange(len(rows) - 1) if with_duplicates else kept_ids(run_dir)
    mean, _, _ = expected_of(rows, kept, 5)
    options = OutlierOptions(top=10_000, n_neighbors=5, with_duplicates=with_duplicates, refine=150, exhaustive_below=0)
    summary = rank_images(run_dir, str(tmp_path / "out"), options, engine, SilentReporter())
    found = rows_of(tmp_path / "out")
    assert sorted(row["sample_id"] for row in found) == kept.tolist()
    place = np.searchsorted(kept, [row["sample_id"] for row in found])
    value, is_exact = np.array([row["outlierness"] for row in found]), np.array([row["is_exact"] for row in found])
    np.testing.assert_allclose(value[is_exact], mean[place][is_exact], atol=1e-6)
    assert (value >= mean[place] - 1e-6).all()  # bounds
    assert summary.n_exact == is_exact.sum() >= 150
    assert 0.5 < summary.recall < 1.0
    # as many of the first ranks as are said to be certain are those of all pairs
    assert summary.n_certain >= 6
    best = np.sort(mean)[::-1][: summary.n_certain]
    np.testing.assert_allclose(value[: summary.n_certain], best, atol=1e-6)
    assert set(lonely[3:]) <= {row["sample_id"] for row in found[:6]}


def test_ratios_through_the_lists(listed, engine, tmp_path):
    run_dir, rows, _ = listed
    options = OutlierOptions(top=20, by="ratio", n_neighbors=5, refine=200, exhaustive_below=0)
    summary = rank_images(run_dir, str(tmp_path / "out"), options, engine, SilentReporter())
    kept = kept_ids(run_dir)
    _, ratio, _ = expected_of(rows, kept, 5)
    found = rows_of(tmp_path / "out")
    best = set(kept[np.argsort(-ratio)[:20]].tolist())
    assert len(best & {row["sample_id"] for row in found}) >= 15
    assert summary.n_certain is None


def test_a_single_list_is_compared_whole(run, engine, tmp_path):
    summary = rank_images(run[0], str(tmp_path / "out"), OutlierOptions(top=5, exhaustive_below=0), engine, SilentReporter())
    assert summary.n_exact == summary.n_images
    assert "every pair" in summary.notes[0]


def test_fewer_images_than_neighbours(tmp_path, engine):
    rng = np.random.default_rng(0)
    run_dir = make_run(tmp_path, power_law(rng, 4, DIM))
    summary = dedup.find_outliers(run_dir, engine=engine)
    assert summary.out == f"{run_dir}/outliers"
    mean, _, _ = expected_of(Run(str(run_dir)).read_vectors(np.arange(4)), np.arange(4), 3)
    found = rows_of(tmp_path / "run" / "outliers")
    np.testing.assert_allclose([row["outlierness"] for row in found], np.sort(mean)[::-1], atol=1e-6)


def test_what_can_not_be_done_is_said(run, engine, tmp_path):
    with pytest.raises(InputError, match="top >= 1"):
        dedup.find_outliers(run[0], str(tmp_path / "out"), top=0, engine=engine)
    with pytest.raises(RunDirectoryError, match="holds no run"):
        dedup.find_outliers(str(tmp_path / "nowhere"), str(tmp_path / "out"), engine=engine)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".hidden").write_text("keep me")
    with pytest.raises(RunDirectoryError, match="holds other files"):
        dedup.find_outliers(run[0], str(tmp_path / "mine"), engine=engine)
    assert (tmp_path / "mine" / ".hidden").exists()
    assert Config().extraction  # nothing of this is configuration
