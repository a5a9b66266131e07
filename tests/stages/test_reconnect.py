"""After refusals: what a complete graph would keep is kept, and members go with an anchor that confirms them."""

import networkx as nx
import numpy as np
import pytest

from dedup.numerics.graph.components import connected_components
from dedup.numerics.graph.cover import Link, confirmed_cover
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.list_join import self_join
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.similarity import exact_similarity
from dedup.stages.confirm.component import next_round
from dedup.stages.confirm.reconnect import join_parts

THRESHOLD = 0.7


def crowd(seed, n_pictures, n_copies, closeness):
    """Look-alikes about one direction; the copies of a picture are no nearer to each other than to the others."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal(48)
    rows = middle + closeness * rng.standard_normal((n_pictures * n_copies, 48)) * np.linalg.norm(middle) / np.sqrt(48)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = rng.permutation(np.repeat(np.arange(n_pictures), n_copies))
    return rows.astype(np.float16), truth


def complete_graph(rows, truth):
    """Components of all true pairs within the threshold."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(rows)))
    for a in range(len(rows)):
        others = np.arange(a + 1, len(rows))
        near = exact_similarity(rows[others], rows[a]) >= np.float32(THRESHOLD)
        graph.add_edges_from((a, int(b)) for b in others[near & (truth[others] == truth[a])])
    return {frozenset(part) for part in nx.connected_components(graph)}


@pytest.mark.parametrize(("n_pictures", "n_copies", "closeness"), [(40, 3, 0.4), (100, 2, 0.5), (10, 20, 0.3), (60, 3, 0.62)])
@pytest.mark.parametrize("best", [1, 8])
def test_no_true_copy_is_lost_that_a_complete_graph_would_keep(n_pictures, n_copies, closeness, best):
    rows, truth = crowd(n_pictures + best, n_pictures, n_copies, closeness)
    n = len(rows)
    asked = np.full(n, THRESHOLD, dtype=np.float32)
    found = self_join(rows, asked, np.ones(n, np.int64), Ownership(np.zeros((n, 1), np.int32), 0), JoinSettings(best))
    stands = truth[found.src] == truth[found.dst]
    parts = connected_components(found.src[stands], found.dst[stands], n)
    expected = complete_graph(rows, truth)
    lost_before = len(set(parts.tolist())) - len(expected)
    joined, seen = [], set()

    def ask(a, b, similarity):
        assert a < b
        assert (a, b) not in seen
        seen.add((a, b))
        assert similarity >= np.float32(THRESHOLD)
        joined.extend([(a, b)] if truth[a] == truth[b] else [])
        return truth[a] == truth[b]

    judged = np.stack([found.src, found.dst], axis=1)
    join_parts(rows, asked, parts, judged, n, ask)
    assert not seen & set(map(tuple, judged.tolist()))
    more = np.array(joined, dtype=np.int64).reshape(-1, 2)
    labels = connected_components(np.r_[found.src[stands], more[:, 0]], np.r_[found.dst[stands], more[:, 1]], n)
    assert {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)} == expected
    if best == 1 and closeness < 0.6:
        assert lost_before > 0, "the crowd is too easy to show anything"


def test_the_limit_bounds_what_is_asked():
    rows, _ = crowd(1, 60, 2, 0.3)
    asked = []
    join_parts(
        rows,
        np.full(len(rows), THRESHOLD, np.float32),
        np.arange(len(rows)),
        np.zeros((0, 2), np.int64),
        3,
        lambda a, b, s: asked.append((a, b)),
    )
    assert 0 < len(asked) <= 3 * len(rows)


def cover(rows, copies, similarity, links=(), **options):
    """Run the cover on a table of which pairs are copies."""
    asked = []

    def ask(a, b, value):
        asked.append((min(a, b), max(a, b)))
        return Link(value, 0.01) if (min(a, b), max(a, b)) in copies else None

    n = max(rows) + 1
    anchor, found = confirmed_cover(
        np.array(rows),
        {pair: Link(similarity[pair], 0.0) for pair in links},
        lambda a, others: np.array([similarity.get((min(a, b), max(a, b)), 0.0) for b in others.tolist()], np.float32),
        ask,
        min_similarity=np.full(n, THRESHOLD, np.float32),
        **options,
    )
    return anchor.tolist(), found, asked


def test_a_chain_is_cut_where_the_pixels_say_so():
    similarity = {(0, 1): 0.9, (0, 2): 0.9, (1, 2): 0.3}
    # the middle first: both ends are its copies, whatever they are to each other
    anchor, _, asked = cover([0, 1, 2], {(0, 1), (0, 2)}, similarity, links=[(0, 1), (0, 2)])
    assert anchor == [0, 0, 0]
    assert asked == []
    # an end first: the other end is a group of its own
    anchor, found, asked = cover([1, 0, 2], {(0, 1), (0, 2)}, similarity, links=[(0, 1), (0, 2)])
    assert anchor == [0, 0, 2]
    assert found[2].distance is None
    assert asked == [(1, 2)]


def test_a_crop_far_from_its_anchor_is_asked_for():
    anchor, found, asked = cover([0, 1], {(0, 1)}, {(0, 1): 0.2})
    assert anchor == [0, 0]
    assert asked == [(0, 1)]
    assert found[1] == Link(pytest.approx(0.2), 0.01)


def test_further_anchors_are_asked_for_only_while_it_pays():
    rows = list(range(8))
    _, _, asked = cover(rows, set(), {}, tries=2)
    assert len([pair for pair in asked if pair[1] == 7]) == 2
    _, _, asked = cover(rows, set(), {(a, b): 0.8 for a in rows for b in rows}, tries=2)
    assert len([pair for pair in asked if pair[1] == 7]) == 7


def test_byte_identical_copies_follow_their_image():
    anchor, _, asked = cover([0, 1, 0, 1, 2], {(0, 1)}, {(0, 1): 0.9}, links=[(0, 1)])
    assert anchor == [0, 0, 0, 0, 4]
    assert len(asked) == 1


def test_forced_anchors_stay():
    anchor, _, _ = cover([0, 1, 2, 0], {(0, 1), (0, 2), (1, 2)}, {(0, 2): 0.8, (1, 2): 0.9}, links=[(0, 2), (1, 2)], n_forced=2)
    assert anchor == [0, 1, 1, 0]


@pytest.mark.parametrize("seed", range(12))
def test_rounds_give_the_components_that_all_candidates_would(seed):
    rng = np.random.default_rng(seed)
    n, n_edges = 40, int(rng.integers(20, 160))
    pairs = np.unique(np.sort(rng.integers(0, n, (n_edges, 2)), axis=1), axis=0)
    src, dst = pairs[pairs[:, 0] < pairs[:, 1]].T
    similarity = rng.choice([0.7, 0.8, 0.9], len(src)).astype(np.float32)
    stands = rng.random(len(src)) < rng.choice([0.3, 0.7, 1.0])
    is_open, stood, parts, rounds = np.ones(len(src), bool), np.zeros(len(src), bool), np.arange(n), 0
    while len(picked := next_round(np.flatnonzero(is_open), src, dst, similarity, parts)):
        assert is_open[picked].all()
        is_open[picked] = False
        stood[picked] = stands[picked]
        parts, rounds = connected_components(src[stood], dst[stood], n), rounds + 1
    assert np.array_equal(parts, connected_components(src[stands], dst[stands], n))
    assert stood.sum() == n - len(np.unique(parts))  # a tree for each component: nothing was looked at in vain
    if stands.all():
        assert rounds <= 1
