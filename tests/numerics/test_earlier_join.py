"""Joins that add rows to earlier ones, against a join of all at once."""

import numpy as np
import pytest
from vector_data import copies_of, power_law, random_views, with_planted

from dedup.numerics.graph.components import connected_components
from dedup.numerics.search.balls import Ownership, find_balls
from dedup.numerics.search.gpu import Device
from dedup.numerics.search.list_join import Earlier, self_join
from dedup.numerics.search.lists import pack_lists
from dedup.numerics.search.project import choose_axes, principal_axes, with_rest
from dedup.numerics.search.strips import DEFAULTS, JoinSettings
from dedup.numerics.search.view_join import ViewEdges, ViewRule, Views, best_of_pairs, join_views


def grown(rng, n, n_earlier):
    """Weights now, and weights then: some earlier rows have got further copies."""
    weights = rng.integers(1, 5, n)
    then = np.zeros(n, np.int64)
    heavier = rng.random(n_earlier) < 0.1
    then[:n_earlier] = np.where(heavier, np.maximum(weights[:n_earlier] - 1, 1), weights[:n_earlier])
    return weights, then


def joined_twice(rows, asked, weights, then, lists, number, n_earlier, settings=DEFAULTS, **options):
    """Counts and edges of a list in two steps; positions among its rows."""
    first = self_join(
        rows[:n_earlier], asked[:n_earlier], then[:n_earlier], Ownership(lists[:n_earlier], number), JoinSettings(settings.best)
    )
    earlier = Earlier(n_earlier, weights - then, first.src, first.dst, first.similarity)
    second = self_join(rows, asked, weights, Ownership(lists, number), settings, earlier=earlier, **options)
    second.n_neighbors[:n_earlier] += first.n_neighbors
    return second


def assert_same(one, other):
    assert np.array_equal(one.n_neighbors, other.n_neighbors)
    for name in ("src", "dst", "similarity"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_two_steps_are_one(seed, share):
    rng = np.random.default_rng(seed)
    n, n_lists = 500, 5
    rows, asked = with_planted(rng, n, dim=24), np.full(n, 0.7, np.float32)
    asked[rng.random(n) < 0.05] = 0.9
    asked[rng.random(n) < 0.02] = 2.0
    lists = np.array([rng.choice(n_lists, 2, replace=False) for _ in range(n)], dtype=np.int32)
    weights, then = grown(rng, n, int(share * n))
    for number in range(n_lists):
        members = np.flatnonzero((lists == number).any(1))
        n_earlier = int(np.searchsorted(members, int(share * n)))
        own = (rows[members], asked[members], weights[members])
        whole = self_join(*own, Ownership(lists[members], number), JoinSettings(best=3))
        assert len(whole.src) > 20
        assert_same(joined_twice(*own, then[members], lists[members], number, n_earlier, JoinSettings(best=3)), whole)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_projections_and_devices_propose_the_same_pairs(device, require_extra):
    if device:
        require_extra("torch")
    rng = np.random.default_rng(7)
    rows, asked, n, n_earlier = with_planted(rng, 1_500), np.full(1_500, 0.8, np.float32), 1_500, 1_200
    unit = rows.astype(np.float32)
    axes = principal_axes(unit)
    projected = with_rest((unit @ axes)[:, : max(8, choose_axes(unit, None, axes, 0.8))]).astype(np.float16)
    weights, then = grown(rng, n, n_earlier)
    lists = np.zeros((n, 1), np.int32)
    whole = self_join(rows, asked, weights, Ownership(lists, 0), projected=projected)
    settings = JoinSettings(device=Device(device) if device else None)
    assert_same(joined_twice(rows, asked, weights, then, lists, 0, n_earlier, settings, projected=projected), whole)


def test_shares_add_up():
    rng = np.random.default_rng(8)
    n, n_earlier, lists = 3_000, 2_500, np.zeros((3_000, 1), np.int32)
    rows, asked = with_planted(rng, n, dim=24), np.full(n, 0.8, np.float32)
    weights, then = grown(rng, n, n_earlier)
    first = self_join(rows[:n_earlier], asked[:n_earlier], then[:n_earlier], Ownership(lists[:n_earlier], 0))
    earlier = Earlier(n_earlier, weights - then, first.src, first.dst, first.similarity)
    shares = [self_join(rows, asked, weights, Ownership(lists, 0), JoinSettings(share=(k, 3)), earlier=earlier) for k in range(3)]
    whole = self_join(rows, asked, weights, Ownership(lists, 0))
    counts = sum(share.n_neighbors for share in shares)
    counts[:n_earlier] += first.n_neighbors
    assert np.array_equal(counts, whole.n_neighbors)
    pairs = {(a, b) for share in shares for a, b in zip(share.src.tolist(), share.dst.tolist(), strict=True)}
    assert {(a, b) for a, b in zip(whole.src.tolist(), whole.dst.tolist(), strict=True)} <= pairs


@pytest.mark.parametrize("is_crowd_new", [False, True])
def test_crowds_have_exact_counts_and_hold_together(is_crowd_new):
    """Two crowds whose edges touch, rows around them, copies on both sides."""
    rng = np.random.default_rng(9)
    centre = power_law(rng, 1, 48)[0]
    other = copies_of(rng, centre, 1, 0.93)[0]
    rows = np.concatenate(
        [
            copies_of(rng, centre, 900, rng.uniform(0.975, 0.999, 900)),
            copies_of(rng, other, 700, rng.uniform(0.975, 0.999, 700)),
            copies_of(rng, centre, 200, rng.uniform(0.85, 0.95, 200)),
            power_law(rng, 600, 48),
        ]
    )
    order = np.arange(len(rows))[::-1] if is_crowd_new else rng.permutation(len(rows))
    rows, n = rows[order].astype(np.float16), len(rows)
    asked, n_earlier = np.full(n, 0.9, np.float32), 1_300
    assert len(find_balls(rows, 0.9, np.ones(n, bool))) >= 2
    lists = np.sort(np.array([rng.choice(3, 2, replace=False) for _ in range(n)], dtype=np.int32), axis=1)
    lists[: n // 3, 1] = 3  # a list that is not joined here
    weights, then = grown(rng, n, n_earlier)
    edges = [], []
    for number in range(3):
        members = np.flatnonzero((lists == number).any(1))
        first = int(np.searchsorted(members, n_earlier))
        own = (rows[members], asked[members], weights[members])
        whole = self_join(*own, Ownership(lists[members], number))
        twice = joined_twice(*own, then[members], lists[members], number, first)
        assert np.array_equal(twice.n_neighbors, whole.n_neighbors)
        for found, join in zip(edges, (whole, twice), strict=True):
            found.append(np.stack([members[join.src], members[join.dst]]))
        assert len(twice.src) < 12 * len(members)
    # a list has only the edges that it owns: all lists together hold the crowd
    labels = [connected_components(*np.concatenate(found, axis=1), n) for found in edges]
    assert np.array_equal(*labels)


@pytest.mark.parametrize("n_earlier", [0, 150, 390, 400])
def test_views_in_two_steps_are_one(n_earlier):
    rng = np.random.default_rng(4)
    views, wholes = random_views(rng, 400)
    lists = np.array([rng.choice(4, 2, replace=False) for _ in views.image], dtype=np.int32)
    first, second, whole = [], [], []
    for number in range(4):
        of_list = np.flatnonzero((lists == number).any(1))
        for rows, found, options in (
            (of_list[views.image[of_list] < n_earlier], first, {}),
            (of_list, second, {"n_earlier": n_earlier}),
            (of_list, whole, {}),
        ):
            part = Views(*(getattr(views, name)[rows] for name in ("vectors", "image", "kind", "orientation", "is_base")))
            found.append(
                join_views(part, Ownership(lists[rows], number), wholes[part.image], ViewRule(0.7, 0.85), JoinSettings(3), **options)
            )
    expected, together = (
        best_of_pairs(ViewEdges(*(np.concatenate([getattr(e, c) for e in parts]) for c in ("src", "dst", "similarity", "turn"))), 3)
        for parts in (whole, [*first, *second])
    )
    assert len(expected.src) > 100
    assert sum(len(edges.src) for edges in second) < sum(len(edges.src) for edges in whole) or n_earlier == 0
    assert all(np.maximum(edges.src, edges.dst).min(initial=n_earlier) >= n_earlier for edges in second)
    for name in ("src", "dst", "similarity", "turn"):
        assert np.array_equal(getattr(expected, name), getattr(together, name)), name


def test_lists_without_fresh_members_are_in_no_pack():
    sizes, fresh = np.array([100, 50, 1, 80, 0]), np.array([0, 3, 1, 80, 0])
    packs = pack_lists(sizes, 2, fresh)
    assert sorted(number for pack in packs for number in pack.groups.tolist()) == [1, 3]
    # the list that is all new costs more than the larger one with three new members
    assert packs[0].groups.tolist() == [3]
