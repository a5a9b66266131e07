"""Lists packed into tasks of about equal cost."""

import numpy as np

from dedup.numerics.search.lists import pack_lists


def test_every_list_with_pairs_is_in_one_pack():
    sizes = np.random.default_rng(0).integers(0, 200, 500)
    packs = pack_lists(sizes, 3)
    assert [pack.number for pack in packs] == list(range(len(packs)))
    assert all((np.diff(pack.groups) > 0).all() and pack.n_shares == 1 for pack in packs)
    assert np.array_equal(np.sort(np.concatenate([pack.groups for pack in packs])), np.flatnonzero(sizes > 1))
    cost = [(sizes[pack.groups] ** 2 + 500 * sizes[pack.groups]).sum() for pack in packs]
    assert max(cost) < 2.5 * np.mean(cost)


def test_nothing_to_do_is_one_empty_pack():
    assert [pack.groups.tolist() for pack in pack_lists(np.array([1, 0, 1]), 4)] == [[]]
    assert [pack.groups.tolist() for pack in pack_lists(np.zeros(0, np.int64), 4)] == [[]]


def test_a_hot_list_is_shared_out_alike_for_any_number_of_workers():
    sizes = np.full(1_000, 20_000)
    sizes[[7, 400]] = 1_000_000, 300_000
    for n_workers in (1, 2, 300):
        packs = pack_lists(sizes, n_workers)
        shares = {group: [(p.share, p.n_shares) for p in packs if group in p.groups.tolist()] for group in (7, 400, 8)}
        assert shares[7] == [(k, 59) for k in range(59)]
        assert shares[400] == [(k, 6) for k in range(6)]
        assert shares[8] == [(0, 1)]
    assert all(len(pack.groups) == 1 for pack in packs if pack.n_shares > 1)
    # lists of one size are not hot, however large
    assert all(pack.n_shares == 1 for pack in pack_lists(np.full(100, 400_000), 8))
