"""The tail of unrelated pairs: against scipy, against all pairs, and its intervals against draws from known populations."""

import numpy as np
import pytest
from scipy import stats
from vector_data import all_similarities, power_law

from dedup.errors import ShapeError
from dedup.numerics.search.exhaustive import count_alike
from dedup.numerics.statistics.tails import PairSample, fit_gpd, fit_tail, image_weights, log_closeness, pair_shares, survival


@pytest.mark.parametrize("shape", [-0.3, -1e-12, 0.0, 0.2])
def test_survival_is_scipys(shape):
    x = np.linspace(0, 5, 40)
    assert np.allclose(survival(x, 0.7, shape), stats.genpareto.sf(x, shape, scale=0.7), atol=1e-12)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.25])
def test_the_fit_is_as_likely_as_scipys(shape):
    excess = stats.genpareto.rvs(shape, scale=0.4, size=1_500, random_state=3)
    scale, found = fit_gpd(excess)
    theirs, _, their_scale = stats.genpareto.fit(excess, floc=0)
    own = stats.genpareto.logpdf(excess, found, scale=scale).sum()
    assert own >= stats.genpareto.logpdf(excess, theirs, scale=their_scale).sum() - 0.01
    assert abs(found - shape) < 0.08
    assert abs(scale - 0.4) < 0.05


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    excess, times = rng.exponential(size=300), rng.integers(1, 4, 300)
    assert np.allclose(fit_gpd(excess, times.astype(float)), fit_gpd(np.repeat(excess, times)), atol=1e-3)


def test_a_fit_below_a_limit_finds_what_lies_beyond_it():
    true = stats.genpareto.sf(3.0, 0.1)
    ratios, plain = [], []
    for seed in range(5):
        excess = stats.genpareto.rvs(0.1, scale=1.0, size=6_000, random_state=seed)
        below = excess[excess <= 2.0]
        ratios.append(float(survival(3.0, *fit_gpd(below, upper=2.0))) / true)
        plain.append(float(survival(3.0, *fit_gpd(below))) / true)
    assert 0.6 < np.median(ratios) < 1.5
    assert max(plain) < 0.1  # which take the limit for the end
    with pytest.raises(ShapeError, match="excesses between 0 and 2"):
        fit_gpd(excess, upper=2.0)
    with pytest.raises(ShapeError, match="two or more"):
        fit_gpd(excess[:1])


def test_of_points_about_a_point_closeness_is_exponential():
    """The reason for the scale: in d dimensions the share of pairs closer than r is r^d."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200_000, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = rows[:100_000, 0]  # to the first axis
    tail = np.sort(log_closeness(similarity[similarity > 0]))[-2_000:]
    scale, shape = fit_gpd(tail - tail[0])
    assert abs(shape) < 0.1
    assert abs(1 / scale - 2.5) < 0.35  # the sphere has 5 dimensions, similarity is the square of a distance


def _sample(rows, n_rows, thresholds, floor):
    n = len(rows)
    found = count_alike(rows[:n_rows], np.arange(n_rows), rows, np.arange(n), thresholds, floor)
    return PairSample(found.row, found.similarity, n_rows, n - 1, floor), found.counts


def test_what_is_counted_is_what_all_pairs_say():
    rows = power_law(np.random.default_rng(2), 500, 32).astype(np.float16)
    thresholds = np.array([0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
    sample, counts = _sample(rows, 500, thresholds, 0.3)
    found = pair_shares(sample, counts, thresholds, seed=0, n_replicates=50)
    upper = all_similarities(rows)[np.triu_indices(500, 1)]
    exact = np.array([(upper >= np.float32(t)).mean() for t in thresholds])
    assert np.array_equal(found.n_counted, [2 * (upper >= np.float32(t)).sum() for t in thresholds])
    assert found.is_counted[:2].all()
    assert not found.is_counted[-1]
    assert np.allclose(found.shares[found.is_counted], exact[found.is_counted])
    # the tail begins as what is counted ends
    assert found.tail is not None
    near = np.array([found.tail.start + 0.01])
    assert abs(float(found.tail.shares(near)[0]) / (upper >= near).mean() - 1) < 0.15
    assert (np.diff(found.shares) <= 0).all()


def test_the_tail_reaches_beyond_the_sample():
    """Pairs a thousand times rarer than the rarest of the sample, within its interval."""
    dim, thresholds = 48, np.array([0.5, 0.8, 0.85])
    rng = np.random.default_rng(0)
    many = power_law(rng, 12_000, dim).astype(np.float32)
    true = np.zeros(3)
    for start in range(0, 12_000, 1_000):
        product = many[start : start + 1_000] @ many.T
        product[np.arange(1_000), np.arange(start, start + 1_000)] = -1
        true += [(product >= t).mean() / 12 for t in thresholds]
    sample, counts = _sample(power_law(rng, 2_500, dim).astype(np.float16), 400, thresholds, 0.5)
    found = pair_shares(sample, counts, thresholds, seed=0, n_replicates=200)
    low, high = np.quantile(found.replicates, [0.025, 0.975], axis=0)
    assert (low <= true).all()
    assert (true <= high).all()
    assert not found.is_counted[1:].any()


def test_copies_that_nothing_tells_do_not_bend_the_tail():
    rng = np.random.default_rng(1)
    rows = power_law(rng, 3_000, 48)
    thresholds = np.array([0.5, 0.7, 0.8, 0.9])
    true = _shares_of(rows[600:], thresholds)
    rows[:600] = 0.96 * rows[600:1_200] + 0.28 * power_law(rng, 600, 48)  # copies at about 0.95
    rows = rng.permutation(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    sample, counts = _sample(rows, 1_000, thresholds, 0.5)
    plain = pair_shares(sample, counts, thresholds, seed=0, n_replicates=10)
    kept = sample.similarity < 0.8
    below = PairSample(sample.row[kept], sample.similarity[kept], 1_000, 2_999, 0.5, 0.8)
    at_upper = np.zeros_like(counts)
    np.add.at(at_upper, sample.row[~kept], 1)
    found = pair_shares(below, counts - at_upper, thresholds, seed=0, n_replicates=80)
    low, high = np.quantile(found.replicates, [0.025, 0.975], axis=0)
    assert (low[:3] <= 1.5 * true[:3]).all()
    assert (true[:3] <= 1.5 * high[:3]).all()
    assert found.shares[3] < 0.2 * plain.shares[3]
    # what is counted goes on as the tail
    assert abs(found.shares[0] / true[0] - 1) < 0.2


def test_intervals_hold_what_a_population_has():
    """Draws of images: beta-distributed closeness to a few themes, pairs that share an image depending on each other."""
    thresholds, dim, n_draws = np.array([0.6, 0.8, 0.9]), 24, 24

    def population(rng, n):
        themes = np.eye(dim)[:6]
        share = rng.beta(2.0, 3.0, size=(n, 1))
        rows = share * themes[rng.integers(0, 6, n)] + (1 - share) * power_law(rng, n, dim)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    true = np.mean([_shares_of(population(np.random.default_rng(1_000 + k), 4_000), thresholds) for k in range(4)], axis=0)
    for n_rows, n in ((300, 300), (200, 3_000)):
        inside = np.zeros(len(thresholds))
        for seed in range(n_draws):
            sample, counts = _sample(population(np.random.default_rng(seed), n).astype(np.float16), n_rows, thresholds, 0.6)
            found = pair_shares(sample, counts, thresholds, seed=seed, n_replicates=120)
            low, high = np.quantile(found.replicates, [0.025, 0.975], axis=0)
            inside += (low <= true) & (true <= high)
        # 95% is meant; from few images, and where the tail reaches beyond them, it is somewhat less
        assert (inside >= 0.75 * n_draws).all(), inside
        assert inside.mean() >= 0.85 * n_draws, inside


def _shares_of(rows, thresholds):
    single = rows.astype(np.float32)
    upper = (single @ single.T)[np.triu_indices(len(rows), 1)]
    return np.array([(upper >= t).mean() for t in thresholds])


def test_weights_of_images_have_the_spread_of_the_count():
    """Where rows are columns too, pairs vary as the count over images drawn anew does."""
    rng = np.random.default_rng(0)
    weights = image_weights(500, 500, 4_000, rng)
    assert abs(weights.mean() - 1) < 0.02
    assert abs(weights.var() - 4) < 0.2
    few = image_weights(10, 10_000, 40_000, rng)
    assert abs(few.var() - 1) < 0.05


def test_too_few_pairs_have_no_tail():
    rows = power_law(np.random.default_rng(0), 30, 16).astype(np.float16)
    thresholds = np.array([0.2, 0.9])
    sample, counts = _sample(rows, 30, thresholds, 0.2)
    assert fit_tail(sample) is None
    found = pair_shares(sample, counts, thresholds, seed=0, n_replicates=20)
    assert found.is_counted.all()
    assert found.shares[1] == 0.0
    with pytest.raises(ShapeError, match="counts of shape"):
        pair_shares(sample, counts[:5], thresholds, seed=0)
