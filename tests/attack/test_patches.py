"""Patches of planted generations: what is copied shows in the curve, what is not lies at chance."""

import planted_generations as planted
import pyarrow.parquet as pq
import pytest

import dedup
from dedup.attack.patches import patch_curve
from dedup.schemas import PATCH_CURVE, PATCHES


@pytest.fixture(scope="module")
def measured(tmp_path_factory, engine):
    folder = tmp_path_factory.mktemp("patches")
    kinds = planted.write_planted(folder, 2, 128, 5)
    arguments = f"{folder}/targets.parquet", f"{folder}/generations"
    dedup.score_generations(*arguments, f"{folder}/scores", engine=engine)
    summary = dedup.measure_patches(*arguments, f"{folder}/out", scores=f"{folder}/scores", n_generations=2, engine=engine)
    return folder, kinds, summary


def rows_of(folder):
    return pq.read_table(sorted((folder / "out").glob("part-*.parquet")), schema=PATCHES).to_pylist()


def test_copies_consist_of_patches_and_templates_in_part(measured):
    folder, kinds, summary = measured
    curve = pq.read_table(folder / "out" / "_curve.parquet", schema=PATCH_CURVE).to_pylist()
    assert (summary.n_targets, summary.n_left_out) == (len(kinds), 0)
    shares = {(row["label"], row["side"]): row for row in curve if row["least"] is None}
    for side in (32, 64, 128, 256):
        whole, part = shares["verbatim", side], shares["template", side]
        assert whole["share_same"] > 0.95
        assert part["share_same"] < whole["share_same"]
        for row in (whole, part):
            assert row["share_same"] <= row["share_any"]
            assert row["share_same_by_chance"] <= row["share_any_by_chance"] <= row["share_any"] + 0.15
    assert shares["verbatim", 256]["share_any_by_chance"] < 0.5 < shares["verbatim", 256]["share_any"]
    assert (folder / "out" / "curve.png").stat().st_size > 5_000
    assert {row["least"] for row in curve} == {None, 1}


def test_the_curve_is_the_mean_over_targets(measured):
    folder, _, _ = measured
    rows = rows_of(folder)
    table = pq.read_table(sorted((folder / "out").glob("part-*.parquet")), schema=PATCHES)
    for row in patch_curve(table).to_pylist():
        own = [r for r in rows if r["side"] == row["side"] and row["label"] in (None, r["label"]) and r["n_patches"]]
        assert row["n_targets"] == len(own)
        assert row["share_any"] == pytest.approx(sum(r["n_any"] / r["n_patches"] for r in own) / len(own))


def test_measuring_that_was_stopped_goes_on(measured, engine):
    folder, _, _ = measured
    before = rows_of(folder)
    parts = sorted((folder / "out").glob("part-*.parquet"))
    parts[0].unlink()
    options = {"scores": f"{folder}/scores", "engine": engine}
    arguments = f"{folder}/targets.parquet", f"{folder}/generations", f"{folder}/out"
    dedup.measure_patches(*arguments, n_generations=2, **options)
    assert rows_of(folder) == before
    with pytest.raises(dedup.DedupError, match="holds results of other options"):
        dedup.measure_patches(*arguments, n_generations=5, **options)


def test_a_training_image_that_is_gone_is_counted(measured, tmp_path, engine):
    folder, kinds, _ = measured
    table = pq.read_table(folder / "targets.parquet")
    keys = ["gone.png", *table["key"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("key"), "key", [keys]), tmp_path / "targets.parquet")
    summary = dedup.measure_patches(
        f"{tmp_path}/targets.parquet", f"{folder}/generations", f"{tmp_path}/out", n_generations=1, engine=engine
    )
    assert (summary.n_targets, summary.n_left_out) == (len(kinds) - 1, 1)
