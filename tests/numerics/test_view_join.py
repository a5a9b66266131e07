"""The join of views against brute force."""

import numpy as np
import pytest
from vector_data import all_similarities, copies_of, power_law, random_views

from dedup.numerics.graph.components import sparsify
from dedup.numerics.image.views import INNER, WHOLE, relative_turns
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.strips import JoinSettings
from dedup.numerics.search.view_join import ViewEdges, ViewRule, Views, best_of_pairs, join_views


def exhaustive(views, wholes, min_similarity, view_min_similarity, is_compared):
    """The best pair of rows of each pair of images, as {(src, dst): (similarity, turn)}."""
    similarity, known = all_similarities(views.vectors), all_similarities(wholes) >= np.float32(min_similarity)
    found = {}
    for a, b in zip(*np.nonzero((similarity >= np.float32(view_min_similarity)) & is_compared), strict=True):
        src, dst = views.image[a], views.image[b]
        is_main = views.kind[a] == views.kind[b] == WHOLE and views.orientation[a] == views.orientation[b]
        if src < dst and (views.is_base[a] or views.is_base[b]) and not is_main and not known[src, dst]:
            turn = int(relative_turns()[views.orientation[a], views.orientation[b]])
            key = (int(src), int(dst))
            found[key] = max(found.get(key, (-1.0, 0)), (float(similarity[a, b]), -turn))
    return {key: (similarity, -turn) for key, (similarity, turn) in found.items()}


def as_dict(edges):
    columns = (edges.src, edges.dst, edges.similarity, edges.turn)
    found = {(src, dst): (similarity, turn) for src, dst, similarity, turn in zip(*(column.tolist() for column in columns), strict=True)}
    assert len(found) == len(edges.src)
    return found


def union(parts, best):
    return best_of_pairs(
        ViewEdges(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("src", "dst", "similarity", "turn"))), best
    )


@pytest.mark.parametrize("n_shares", [2, 5])
def test_shares_of_a_list_together_are_the_list(n_shares):
    rng = np.random.default_rng(4)
    views, wholes = random_views(rng, 400)
    n = len(views.image)
    arguments = (views, Ownership(np.zeros((n, 1), np.int32), 0), wholes[views.image], ViewRule(0.7, 0.85))
    shares = [join_views(*arguments, JoinSettings(3, (k, n_shares))) for k in range(n_shares)]
    assert all(len(share.src) for share in shares)
    assert as_dict(union(shares, 3)) == as_dict(join_views(*arguments, JoinSettings(3)))


@pytest.mark.parametrize("n_filter", [0, 16])
def test_one_list_equals_brute_force(n_filter):
    views, wholes = random_views(np.random.default_rng(n_filter), 150)
    n = len(views.image)
    ownership = Ownership(np.zeros((n, 1), np.int32), 0)
    edges = join_views(views, ownership, wholes[views.image], ViewRule(0.7, 0.85, n_filter), JoinSettings(1_000))
    expected = exhaustive(views, wholes, 0.7, 0.85, np.ones((n, n), bool))
    assert len(expected) > 100
    assert as_dict(edges) == expected


def test_lists_together_equal_brute_force():
    rng = np.random.default_rng(3)
    views, wholes = random_views(rng, 120)
    n = len(views.image)
    lists = np.array([rng.choice(6, 2, replace=False) for _ in range(n)], dtype=np.int32)
    parts = []
    for number in range(6):
        rows = np.flatnonzero((lists == number).any(1))
        members = Views(*(getattr(views, name)[rows] for name in ("vectors", "image", "kind", "orientation", "is_base")))
        parts.append(join_views(members, Ownership(lists[rows], number), wholes[members.image], ViewRule(0.7, 0.85), JoinSettings(1_000)))
    common = np.array([[bool(set(a) & set(b)) for b in lists.tolist()] for a in lists.tolist()])
    assert as_dict(union(parts, 1_000)) == exhaustive(views, wholes, 0.7, 0.85, common)


def test_edges_are_sparse_and_parts_compose():
    rng = np.random.default_rng(5)
    src, dst = rng.integers(0, 40, (2, 3_000))
    src, dst = np.minimum(src, dst), np.maximum(src, dst)
    kept = src < dst
    edges = ViewEdges(src[kept], dst[kept], rng.random(kept.sum()).astype(np.float32), rng.integers(0, 8, kept.sum()).astype(np.int8))
    whole = best_of_pairs(edges, 2)
    everything = best_of_pairs(edges, 1_000)
    mask = sparsify(everything.src, everything.dst, everything.similarity, 2)
    assert as_dict(whole).keys() == set(zip(everything.src[mask].tolist(), everything.dst[mask].tolist(), strict=True))
    half = len(edges.src) // 2
    parts = [
        ViewEdges(*(getattr(edges, name)[part] for name in ("src", "dst", "similarity", "turn")))
        for part in (slice(half), slice(half, None))
    ]
    assert as_dict(union([best_of_pairs(part, 2) for part in parts], 2)) == as_dict(whole)


def test_a_crowd_is_linear_and_still_met():
    rng = np.random.default_rng(7)
    n = 3_000
    crowd, stranger = power_law(rng, 2, 48)
    rows = np.concatenate([copies_of(rng, crowd, n, 0.995), copies_of(rng, stranger, 1, 0.99), copies_of(rng, crowd, 1, 0.95)])
    # all copies view alike; every tenth is mirrored; the last row is a crop that another image shows
    orientation = (np.arange(n + 2) % 10 == 0).astype(np.int8)
    kind = np.zeros(n + 2, np.int8)
    kind[-1] = INNER
    views = Views(rows.astype(np.float16), np.arange(n + 2), kind, orientation, np.ones(n + 2, bool))
    wholes = np.where(orientation[:, None] == 1, copies_of(rng, stranger, n + 2, 0.99), copies_of(rng, crowd, n + 2, 0.99))
    wholes[-1] = power_law(rng, 1, 48)[0]
    edges = join_views(views, Ownership(np.zeros((n + 2, 1), np.int32), 0), wholes.astype(np.float16), ViewRule(0.7, 0.85))
    assert len(edges.src) < 1.2 * n
    pairs = set(zip(edges.src.tolist(), edges.dst.tolist(), strict=True))
    assert any(n + 1 in pair for pair in pairs)
    assert not any(n in pair for pair in pairs)
    # copies in one orientation are the main join's, and there are few that know each other in two
    assert all(orientation[a] != orientation[b] or n + 1 in (a, b) for a, b in pairs)
    assert len({a for pair in pairs for a in pair}) > n // 10
