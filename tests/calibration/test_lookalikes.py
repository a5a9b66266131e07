"""Look-alikes among what a run merged: the estimate against a simulation, and against runs whose judge lets everything pass."""

import numpy as np
import pytest
import shared_workers
from lookalike_pages import page
from shard_data import Sample, encode, write_tar

import dedup
from dedup.calibration.draw import Effort
from dedup.calibration.lookalikes import Decided, Exchanged, Lookalikes, lookalikes_among
from dedup.config.load import load_config
from dedup.engines.local import LocalEngine

N_PAGES, N_COPIED = 48, 8
FEW = Effort(n_copies=160, n_copies_judged=120, n_pairs=30, n_decoys=48)


def draws(standing, refused, of_copies, of_lookalikes, n=2_000):
    rng = np.random.default_rng(0)
    shares = [np.full((n, 1), share) for share in (of_copies, of_lookalikes)]
    return lookalikes_among(np.array([standing]), np.array([refused]), *shares, rng.random((n, 1)))[:, 0]


@pytest.mark.parametrize(
    ("copies", "others", "of_copies", "of_others"), [(300, 700, 0.95, 0.1), (50, 5_000, 0.9, 0.02), (900, 20, 0.97, 0.5)]
)
def test_the_estimate_is_that_of_a_simulation(copies, others, of_copies, of_others):
    rng = np.random.default_rng(0)
    n_inside, expected, found = 0, [], []
    for right, wrong in zip(rng.binomial(copies, of_copies, 200).tolist(), rng.binomial(others, of_others, 200).tolist(), strict=True):
        drawn = draws(right + wrong, copies + others - right - wrong, of_copies, of_others, 400)
        assert (drawn >= 0).all()
        assert (drawn <= right + wrong).all()
        low, high = np.quantile(drawn, [0.025, 0.975])
        n_inside += low - np.sqrt(wrong) * 2 <= wrong <= high + np.sqrt(wrong) * 2
        expected.append(wrong)
        found.append(drawn.mean())
    assert abs(np.mean(found) - np.mean(expected)) < 0.15 * np.mean(expected) + 2
    assert n_inside > 180


def test_a_judge_who_can_not_tell_says_nothing():
    drawn = draws(100, 0, 0.99, 0.99)
    assert np.quantile(drawn, 0.05) < 10
    assert np.quantile(drawn, 0.95) > 90
    assert draws(100, 0, 1.0, 0.0).max() < 1e-6
    assert draws(0, 100, 0.9, 0.1).max() == 0
    # far from both shares: the nearer one holds
    assert draws(10_000, 0, 0.5, 0.1).max() <= 1_000
    assert draws(100_000, 10, 0.01, 0.5).mean() > 49_000


def made(n_judged, n_accepted, standing, refused, *, is_drawn=True):
    similarity = np.full(standing + refused, 0.9, np.float32)
    decided = Decided(similarity, np.full(len(similarity), is_drawn), np.arange(len(similarity)) < standing)
    outcomes = [Exchanged(k < n_accepted, 0.0, "", is_drawn) for k in range(n_judged)]
    return Lookalikes(decided, {"drawn": (100, 98)}, list(range(n_judged)), list(range(n_judged)), outcomes)


def test_kinds_and_thresholds_are_counted_apart():
    found = made(200, 20, 60, 400)
    drawn, natural = (found.figures(1_000, 0.7, 0)[kind] for kind in ("drawn", "natural"))
    assert (drawn["n_judged"], drawn["n_accepted"], drawn["n_standing"], drawn["n_refused"]) == (200, 20, 60, 400)
    assert 30 < drawn["wrong"] < 60
    assert drawn["wrong_low"] < drawn["wrong"] < drawn["wrong_high"] <= 60
    assert drawn["wrong_per_10_000"] == pytest.approx(10 * drawn["wrong"])
    assert natural["wrong"] == natural["n_judged"] == natural["n_standing"] == 0
    expected, replicates = found.wrong(np.array([0.7, 0.95]), 0)
    assert expected[1] == 0
    assert replicates.shape[1] == 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of one form, each filled in otherwise; some of them twice."""
    folder = tmp_path_factory.mktemp("pages")
    samples = [Sample(f"page{k:02d}", encode(page(k), quality=92), "a page", k) for k in range(N_PAGES)]
    samples += [Sample(f"copy{k:02d}", encode(page(k).resize((400, 300)), quality=70), "a copy", k) for k in range(N_COPIED)]
    write_tar(folder / "00000.tar", samples)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("drop", ["copy,part", "copy,part,template,scene,different"])
def test_precision_is_what_is_true_of_templates(pages, tmp_path, drop):
    settings = [f"input.shards={pages}/00000.tar", f"output.run_dir={tmp_path}/run", f"confirm.drop={drop}", "engine.workers=2"]
    summary = shared_workers.run(load_config(None, settings))
    n_dropped = summary.records["manifest"].rows["duplicates"]
    engine = LocalEngine(2)
    found = dedup.calibrate(f"{tmp_path}/run", n_images=60, engine=engine, effort=FEW)
    engine.close()
    drawn = found.figures["lookalikes"]["drawn"]
    assert drawn["n_judged"] >= 30
    row = next(row for row in found.table.to_pylist() if row["threshold"] == pytest.approx(0.7))
    exchanged = [row for row in found.pairs.to_pylist() if row["kind"] == "exchanged"]
    assert len(exchanged) == drawn["n_judged"] + found.figures["lookalikes"]["natural"]["n_judged"]
    assert all(row["similarity"] is None and row["is_decoy"] and row["is_drawn"] is not None for row in exchanged)
    if drop == "copy,part":
        assert n_dropped == N_COPIED
        assert drawn["n_accepted"] <= 0.2 * drawn["n_judged"]
        assert drawn["wrong"] <= N_COPIED
    else:
        # the judge lets all pass, and the run merged different pages
        assert n_dropped > 2 * N_COPIED
        assert drawn["n_accepted"] == drawn["n_judged"]
        assert row["precision_confirmed"] < 0.8
        assert row["precision_confirmed_low"] < 0.2
        assert found.advice.threshold is None
        assert drawn["wrong_high_per_10_000"] > 8_000
