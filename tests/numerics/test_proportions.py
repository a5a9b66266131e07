"""Intervals of shares, against scipy and by drawing."""

import numpy as np
import pytest
from scipy import stats

from dedup.errors import ShapeError
from dedup.numerics.statistics.shares import accepted_share, share_beside, share_within, wilson


@pytest.mark.parametrize(("n_found", "n"), [(0, 10), (3, 10), (10, 10), (499, 500), (1, 3), (0, 1), (81, 263), (11_990, 12_000)])
def test_wilson_solves_its_equation(n_found, n):
    """Its ends are the shares from which the one that was seen is 1.96 deviations away."""
    low, high = wilson(n_found, n)
    share, z = n_found / n, stats.norm.ppf(0.975)
    for end, is_cut in ((low, n_found == 0), (high, n_found == n)):
        assert is_cut or np.isclose(abs(share - end), z * np.sqrt(end * (1 - end) / n))
    assert (n_found > 0 or low == 0) and (n_found < n or high == 1)
    assert low <= share <= high


def test_precision_without_doubt_is_a_ratio():
    rng = np.random.default_rng(0)
    none = np.zeros((100, 3))
    precision, low, high = share_beside([10, 5, 0], np.zeros(3), none, rng)
    assert np.array_equal(precision[:2], [1, 1])
    assert np.array_equal(low[:2], high[:2])
    assert np.isnan([precision[2], low[2], high[2]]).all()
    assert np.isnan(share_within([0], np.zeros(1), none[:, :1], rng)[0][0])
    with pytest.raises(ShapeError, match="one width"):
        share_within([1, 2], np.zeros(3), none, rng)


def test_the_interval_is_one_for_what_occurs():
    """Of a hundred right ones and a Poisson number of wrong ones, the precision that occurs lies inside in 95% of draws."""
    rng = np.random.default_rng(0)
    replicates = np.full((4_000, 1), 7.0)
    precision, low, high = share_beside([100], np.array([7.0]), replicates, rng)
    assert abs(precision[0] - 100 / 107) < 1e-12
    occurred = 100 / (100 + rng.poisson(7.0, 20_000))
    assert 0.94 < ((low[0] <= occurred) & (occurred <= high[0])).mean() < 0.99
    precision, low, high = share_within([100], np.array([7.0]), replicates, rng)
    assert abs(precision[0] - 0.93) < 1e-12
    occurred = 1 - rng.poisson(7.0, 20_000) / 100
    assert 0.94 < ((low[0] <= occurred) & (occurred <= high[0])).mean() < 0.99


def test_what_was_never_seen_may_still_be():
    drawn = accepted_share([0, 5], [400, 10], 20_000, np.random.default_rng(0))
    assert 0.004 < np.quantile(drawn[:, 0], 0.975) < 0.008  # Jeffreys: 0.0062
    assert abs(drawn[:, 1].mean() - 0.5) < 0.01
