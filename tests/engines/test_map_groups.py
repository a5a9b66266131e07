"""Rows brought together by group, on both engines: the same groups, the same order."""

import numpy as np
import pytest
from group_work import Numbers, Report

from dedup.engines.local import LocalEngine

SPARKS = [pytest.param(name, marks=pytest.mark.spark) for name in ("spark sends rows", "spark gathers rows")]


@pytest.fixture(scope="module", params=["local", *SPARKS])
def engine(request):
    if request.param == "local":
        engine = LocalEngine(2)
    else:
        engine = request.getfixturevalue("start_spark")("local[2,3]", sends_rows=request.param == "spark sends rows")
    yield engine
    engine.close()


def lists_of(n, n_each, n_groups, seed=0):
    """Different groups for each row, some fewer than others, the first group a crowd."""
    rng = np.random.default_rng(seed)
    lists = np.argsort(rng.random((n, n_groups)), axis=1)[:, :n_each].astype(np.int32)
    lists[rng.random((n, n_each)) < 0.2] = -1
    lists[: n // 2, 0] = np.where((lists[: n // 2] == 0).any(axis=1), -1, 0)
    return lists


def expected(source, pack):
    found = []
    for number in pack.tolist():
        positions = np.flatnonzero((source.lists == number).any(axis=1))
        if len(positions):
            values, vectors = source.take("value", positions), source.take("vector", positions[::-1])
            kind = source.take("flag", positions).dtype.kind
            found.append((number, positions.tolist(), source.lists[positions].tolist(), values.tolist(), vectors.tolist(), kind))
    return found


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (500, 3, 11, 64), (500, 1, 4, 499), (64, 4, 9, 64)])
def test_each_group_has_its_rows_in_order(engine, shape):
    n, n_each, n_groups, block = shape
    source = Numbers(lists_of(n, n_each, n_groups), block)
    # groups in no order of their numbers, one pack of none, the last group left out
    order = np.random.default_rng(1).permutation(max(1, n_groups - 1))
    packs = [np.sort(part) for part in np.array_split(order, 3)] + [np.zeros(0, dtype=np.int64)]
    found = dict(engine.map_groups(source, Report(), packs))
    assert sorted(found) == [0, 1, 2, 3]
    for number, pack in enumerate(packs):
        got = [entry[:5] for entry in found[number] if entry[1]]
        assert got == [entry[:5] for entry in expected(source, pack)]


def test_no_packs_and_no_rows(engine):
    assert list(engine.map_groups(Numbers(np.zeros((0, 2), np.int32), 8), Report(), [])) == []


@pytest.mark.parametrize("has_columns", [True, False])
def test_large_groups_go_through_a_file(monkeypatch, has_columns):
    from dedup.engines import spark_groups

    monkeypatch.setattr(spark_groups, "_HELD_BYTES", 1_000)
    monkeypatch.setattr(spark_groups, "_BATCH_BYTES", 300)
    monkeypatch.setattr(spark_groups, "_RECORD_BYTES", 100)
    source = Numbers(lists_of(400, 2, 5), 50)
    pack = np.arange(5)
    batches = [batch for block in range(8) for batch in spark_groups.send(source, np.zeros(5, np.int32), block, has_columns=has_columns)]
    import pyarrow as pa

    table = pa.Table.from_batches(batches).sort_by([("grp", "ascending"), ("place", "ascending")])
    dtype = spark_groups.row_type(source, source.rows(0).dtype if has_columns else None)
    groups = spark_groups.received(iter(table.combine_chunks().to_batches(max_chunksize=37)), source, dtype)
    assert [entry[:5] for entry in Report()(0, groups)] == [entry[:5] for entry in expected(source, pack)]


@pytest.mark.spark
def test_a_pack_whose_worker_died_is_done_again(tmp_path, start_spark):
    engine = start_spark("local[2,3]")
    source = Numbers(lists_of(300, 2, 6), 100)
    packs = [np.arange(0, 3), np.arange(3, 6)]
    found = dict(engine.map_groups(source, Report(str(tmp_path)), packs))
    engine.close()
    assert (tmp_path / "tried").exists()
    assert [[entry[:5] for entry in found[k]] for k in (0, 1)] == [[entry[:5] for entry in expected(source, pack)] for pack in packs]
