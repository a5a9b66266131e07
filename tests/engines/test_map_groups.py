"""Rows brought together by group, on both engines: the same groups, the same order."""

import numpy as np
import pytest
from group_work import Numbers, Report

from dedup.contracts import Pack
from dedup.engines.local import LocalEngine

SPARKS = [pytest.param(name, marks=pytest.mark.spark) for name in ("spark sends rows", "spark gathers rows")]


@pytest.fixture(scope="module", params=["local", *SPARKS])
def engine(request):
    if request.param == "local":
        engine = LocalEngine(2)
    else:
        engine = request.getfixturevalue("start_spark")(sends_rows=request.param == "spark sends rows")
    yield engine
    engine.close()


def lists_of(n, n_each, n_groups, seed=0):
    """Different groups for each row, the first group a crowd."""
    rng = np.random.default_rng(seed)
    lists = np.argsort(rng.random((n, n_groups)), axis=1)[:, :n_each].astype(np.int32)
    half = lists[: n // 2]
    half[~(half == 0).any(axis=1), 0] = 0
    return lists


def packs_of(*groups):
    return [Pack(number, np.sort(part)) for number, part in enumerate(groups)]


def expected(source, pack):
    found = []
    for number in pack.groups.tolist():
        positions = np.flatnonzero((source.lists == number).any(axis=1))
        if len(positions):
            values, vectors = source.take("value", positions), source.take("vector", positions[::-1])
            kind = source.take("flag", positions).dtype.kind
            lists = source.lists[positions].tolist()
            found.append((number, positions.tolist(), lists, values.tolist(), vectors.tolist(), kind, (pack.share, pack.n_shares)))
    return found


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (500, 3, 11, 64), (500, 1, 4, 499), (64, 4, 9, 64)])
def test_each_group_has_its_rows_in_order(engine, shape):
    n, n_each, n_groups, block = shape
    source = Numbers(lists_of(n, n_each, n_groups), block)
    # groups in no order of their numbers, one pack of none, the last group left out
    order = np.random.default_rng(1).permutation(max(1, n_groups - 1))
    packs = packs_of(*np.array_split(order, 3), np.zeros(0, dtype=np.int64))
    # two groups that are shared out, one of them in a pack of its own too
    packs += [Pack(4 + k, order[:1], k, 3) for k in range(3)] + [Pack(7 + k, np.array([n_groups - 1]), k, 2) for k in range(2)]
    found = dict(engine.map_groups(source, Report(), packs))
    assert sorted(found) == list(range(9))
    for pack in packs:
        assert [entry for entry in found[pack.number] if entry[1]] == expected(source, pack)


def test_no_packs_and_no_rows(engine):
    assert list(engine.map_groups(Numbers(np.zeros((0, 2), np.int32), 8), Report(), [])) == []


@pytest.mark.parametrize("has_columns", [True, False])
def test_large_groups_go_through_a_file(has_columns):
    from dedup.engines.spark import groups as spark_groups

    limits = spark_groups.Limits(batch_bytes=300, record_bytes=100, held_bytes=1_000)
    source = Numbers(lists_of(400, 2, 5), 50)
    (pack,) = packs = packs_of(np.arange(5))
    routes = spark_groups.Routes.of(packs)
    batches = [batch for block in range(8) for batch in spark_groups.send(source, routes, block, has_columns=has_columns, limits=limits)]
    import pyarrow as pa

    table = pa.Table.from_batches(batches).sort_by([("grp", "ascending"), ("place", "ascending")])
    dtype = spark_groups.row_type(source, source.rows(0).dtype if has_columns else None)
    groups = spark_groups.received(iter(table.combine_chunks().to_batches(max_chunksize=37)), source, dtype, limits)
    assert Report()(pack, groups) == expected(source, pack)


@pytest.mark.spark
def test_a_pack_whose_worker_died_is_done_again(tmp_path, start_spark):
    engine = start_spark()
    source = Numbers(lists_of(300, 2, 6), 100)
    packs = packs_of(np.arange(0, 3), np.arange(3, 6))
    found = dict(engine.map_groups(source, Report(str(tmp_path)), packs))
    engine.close()
    assert (tmp_path / "tried").exists()
    assert [found[k] for k in (0, 1)] == [expected(source, pack) for pack in packs]
