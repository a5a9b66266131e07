"""The self-join against exhaustive search."""

import numpy as np
import pytest
from vector_data import all_similarities, copies_of, power_law, with_planted

from dedup.errors import ShapeError
from dedup.numerics.graph.components import connected_components, sparsify
from dedup.numerics.search.balls import Ownership, find_balls, half_angle_cosine
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.project import choose_axes, principal_axes, with_rest
from dedup.numerics.search.strips import JoinSettings


def exhaustive(rows, min_similarity, weights, lists=None, list_id=0, similarities=None):
    """Owned pairs within the threshold, and counts, by looking at every pair."""
    similarity = all_similarities(rows) if similarities is None else similarities
    n = len(rows)
    near = similarity >= np.maximum.outer(min_similarity, min_similarity)
    np.fill_diagonal(near, False)
    if lists is not None:
        sets = [set(row[row >= 0].tolist()) for row in lists]
        owned = np.array([[min(sets[i] & sets[j], default=-1) == list_id for j in range(n)] for i in range(n)])
        near &= owned
    src, dst = np.nonzero(np.triu(near))
    return src, dst, similarity[src, dst], (near * weights).sum(1)


def test_equals_exhaustive_search_then_sparsify():
    rng = np.random.default_rng(1)
    rows = with_planted(rng, 900)
    asked, weights = np.full(900, 0.7, np.float32), rng.integers(1, 5, 900)
    joined = self_join(rows, asked, weights, Ownership(np.zeros((900, 1), np.int32), 0), JoinSettings(best=3))
    src, dst, similarity, counts = exhaustive(rows, asked, weights)
    kept = sparsify(src, dst, similarity, 3)
    assert len(src) > 200
    assert np.array_equal(np.stack([joined.src, joined.dst]), np.stack([src[kept], dst[kept]]))
    assert np.array_equal(joined.similarity, similarity[kept])
    assert np.array_equal(joined.n_neighbors, counts)


@pytest.mark.parametrize("seed", range(3))
def test_each_pair_is_owned_by_the_smallest_common_list(seed):
    rng = np.random.default_rng(seed)
    n, n_lists = 400, 9
    rows, weights = with_planted(rng, n, dim=12), rng.integers(1, 4, n)
    asked = np.full(n, 0.75, np.float32)
    lists = np.array([rng.choice(n_lists, 3, replace=False) for _ in range(n)], dtype=np.int32)
    counts, found = np.zeros(n, np.int64), []
    for number in range(n_lists):
        members = np.flatnonzero((lists == number).any(1))
        joined = self_join(rows[members], asked[members], weights[members], Ownership(lists[members], number), JoinSettings(best=1000))
        expected = exhaustive(rows[members], asked[members], weights[members], lists[members], number)
        assert np.array_equal(joined.n_neighbors, expected[3])
        counts[members] += joined.n_neighbors
        found += list(zip(members[joined.src].tolist(), members[joined.dst].tolist(), strict=True))
    assert len(found) == len(set(found))
    common = np.array([[bool(set(a) & set(b)) for b in lists] for a in lists])
    near = (all_similarities(rows) >= 0.75) & common
    np.fill_diagonal(near, False)
    assert set(found) == set(zip(*np.nonzero(np.triu(near)), strict=True))
    assert np.array_equal(counts, (near * weights).sum(1))


def test_thresholds_of_single_rows():
    rng = np.random.default_rng(5)
    rows = with_planted(rng, 500)
    asked = rng.choice(np.array([0.7, 0.95, 2.0], np.float32), 500)
    ones = np.ones(500, np.int64)
    joined = self_join(rows, asked, ones, Ownership(np.zeros((500, 1), np.int32), 0), JoinSettings(best=500))
    src, dst, _, counts = exhaustive(rows, asked, ones)
    assert np.array_equal(joined.n_neighbors, counts)
    assert np.array_equal(np.stack([joined.src, joined.dst]), np.stack([src, dst]))


def test_projections_lose_no_pair_and_change_nothing():
    rng = np.random.default_rng(7)
    rows = with_planted(rng, 1500, dim=256)
    unit = rows.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    axes = principal_axes(unit)
    k = choose_axes(unit, None, axes, 0.9)
    assert 0 < k < 256
    assert choose_axes(unit, None, axes, 0.05) == 0  # nothing could be left out
    projected = with_rest(unit @ axes[:, :k])
    assert (projected @ projected.T + 1e-5 >= unit @ unit.T).all()
    arguments = (np.full(1500, 0.9, np.float32), np.ones(1500, np.int64), Ownership(np.zeros((1500, 1), np.int32), 0))
    whole = self_join(rows, *arguments)
    filtered = self_join(rows, *arguments, projected=projected.astype(np.float16))
    assert len(whole.src) > 50
    for name in ("src", "dst", "similarity", "n_neighbors"):
        assert np.array_equal(getattr(whole, name), getattr(filtered, name))


@pytest.mark.parametrize("is_projected", [False, True])
def test_a_crowd_of_near_copies_has_linear_edges_and_exact_counts(is_projected):
    rng = np.random.default_rng(11)
    centre = power_law(rng, 1, 128)[0]
    rows = np.concatenate(
        [copies_of(rng, centre, 3000, rng.uniform(0.99, 0.9999, 3000)), copies_of(rng, centre, 300, 0.93), power_law(rng, 700, 128)]
    )
    rows = rows[rng.permutation(4000)].astype(np.float16)
    weights, asked = rng.integers(1, 3, 4000), np.full(4000, 0.9, np.float32)
    lists = np.array([sorted(rng.choice(6, 2, replace=False)) for _ in range(4000)], dtype=np.int32)
    lists[:, 1] = 6  # every row is in list 6, which owns the pairs that share no smaller one
    projected = None
    if is_projected:
        unit = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
        projected = with_rest(unit @ principal_axes(unit)[:, :64]).astype(np.float16)
    counts, edges = np.zeros(4000, np.int64), []
    for number in range(7):
        members = np.flatnonzero((lists == number).any(1))
        part = None if projected is None else projected[members]
        joined = self_join(rows[members], asked[members], weights[members], Ownership(lists[members], number), projected=part)
        counts[members] += joined.n_neighbors
        edges += list(zip(members[joined.src].tolist(), members[joined.dst].tolist(), strict=True))
        assert (joined.similarity >= np.float32(0.9)).all()
    near = all_similarities(rows) >= np.float32(0.9)
    np.fill_diagonal(near, False)
    assert np.array_equal(counts, (near * weights).sum(1))
    assert len(edges) == len(set(edges)) < 10 * 4000
    src, dst = np.nonzero(np.triu(near))
    found = connected_components(*np.array(edges).T, 4000)
    assert np.array_equal(found, connected_components(src, dst, 4000))


@pytest.mark.parametrize("n_shares", [2, 7, 60])
@pytest.mark.parametrize("is_projected", [False, True])
def test_shares_of_a_list_together_are_the_list(n_shares, is_projected):
    rng = np.random.default_rng(13)
    crowd = copies_of(rng, power_law(rng, 1, 64)[0], 1_500, rng.uniform(0.95, 0.9999, 1_500))
    rows = np.concatenate([crowd, with_planted(rng, 2_500, dim=64)])[rng.permutation(4_000)].astype(np.float16)
    weights, asked = rng.integers(1, 3, 4_000), np.full(4_000, 0.9, np.float32)
    lists = np.where(rng.random((4_000, 2)) < 0.5, [3, 5], [5, 9]).astype(np.int32)
    unit = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    projected = with_rest(unit @ principal_axes(unit)[:, :32]).astype(np.float16) if is_projected else None
    arguments = (rows, asked, weights, Ownership(lists, 5))
    whole = self_join(*arguments, projected=projected)
    shares = [self_join(*arguments, JoinSettings(share=(k, n_shares)), projected=projected) for k in range(n_shares)]
    assert sum(len(share.src) > 0 for share in shares) > 1
    assert np.array_equal(sum(share.n_neighbors for share in shares), whole.n_neighbors)
    src, dst, similarity = (np.concatenate([getattr(share, name) for share in shares]) for name in ("src", "dst", "similarity"))
    assert len({*zip(src.tolist(), dst.tolist(), strict=True)}) == len(src)
    kept = sparsify(src, dst, similarity, 8)
    order = np.lexsort((dst[kept], src[kept]))
    for found, name in ((src, "src"), (dst, "dst"), (similarity, "similarity")):
        assert np.array_equal(found[kept][order], getattr(whole, name))


def test_balls_hold_mutual_neighbours_only():
    rng = np.random.default_rng(3)
    rows = np.concatenate([copies_of(rng, power_law(rng, 1)[0], 900, rng.uniform(0.9, 1.0, 900)), power_law(rng, 600)]).astype(np.float16)
    balls = find_balls(rows, 0.8, np.ones(1500, bool))
    assert balls
    similarity = all_similarities(rows)
    for ball in balls:
        assert len(ball.rows) >= 256
        assert similarity[np.ix_(ball.rows, ball.rows)].min() >= 0.8
        assert ball.cosines.min() >= half_angle_cosine(0.8)


def test_empty_single_and_wrong_shapes():
    empty = self_join(
        np.zeros((0, 8), np.float16), np.zeros(0, np.float32), np.zeros(0, np.int64), Ownership(np.zeros((0, 1), np.int32), 0)
    )
    assert len(empty.src) == 0
    one = self_join(np.ones((1, 8), np.float16), np.ones(1, np.float32), np.ones(1, np.int64), Ownership(np.zeros((1, 1), np.int32), 0))
    assert one.n_neighbors.tolist() == [0]
    with pytest.raises(ShapeError, match="expected 2 thresholds"):
        self_join(np.ones((2, 8), np.float16), np.ones(1, np.float32), np.ones(2, np.int64), Ownership(np.zeros((2, 1), np.int32), 0))
