"""Components of candidates are judged whole, each picture read once; a large one in parts gives the same groups."""

import collections
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import shared_workers
from in_process import InProcess
from shard_data import Sample, encode, scene, write_tar

from dedup.config import Config, EngineConfig, InputConfig, OutputConfig
from dedup.config.load import resolved
from dedup.numerics.graph.components import connected_components
from dedup.runs.directory import Run
from dedup.stages.confirm.stage import Limits, judge_candidates
from dedup.stages.confirm.work import PAIRS, label_candidates, work_of
from dedup.stages.stage import StageContext
from dedup.storage.images.reader import PictureReader
from dedup.storage.tables import read_table

N_CROWD, N_PAIRS = 24, 8


def samples():
    crowd = scene(1, (300, 260))
    made = [Sample(f"crowd{k:02d}", encode(crowd.resize((300 - 4 * k, 260 - 3 * k)), quality=92 - 2 * k), "c", 0) for k in range(N_CROWD)]
    for k in range(N_PAIRS):
        picture = scene(100 + k, (280, 240))
        made += [Sample(f"pair{k}", encode(picture), "c", 1 + k), Sample(f"other{k}", encode(picture, quality=60), "c", 1 + k)]
    return made


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components")
    write_tar(folder / "00000.tar", samples())
    made = Config(input=InputConfig(shards=[f"{folder}/*.tar"]), output=OutputConfig(str(folder / "run")), engine=EngineConfig(workers=2))
    shared_workers.run(made, ["embed", "index", "pairs"])
    return resolved(made)


def groups_of(config):
    """Keys of each component of the edges."""
    run = Run(config.output.run_dir)
    metadata = read_table(run.table("metadata"), ["sample_id", "key"])
    ids, keys = metadata["sample_id"].to_numpy(), metadata["key"].to_pylist()
    edges = read_table(run.table("edges"), ["src", "dst"])
    labels = connected_components(*(np.searchsorted(ids, edges[end].to_numpy()) for end in ("src", "dst")), len(ids))
    groups = collections.defaultdict(set)
    for key, label in zip(keys, labels.tolist(), strict=True):
        groups[label].add(key)
    return {frozenset(group) for group in groups.values()}, len(edges)


def expected():
    groups = collections.defaultdict(set)
    for sample in samples():
        groups[sample.source].add(sample.key)
    return {frozenset(group) for group in groups.values()}


def test_n_copies_take_n_less_one_comparisons_and_each_picture_is_read_once(config, monkeypatch):
    read, n_read = PictureReader.read, collections.Counter()

    def counted(self, place):
        n_read[place.sample_id] += 1
        return read(self, place)

    monkeypatch.setattr(PictureReader, "read", counted)
    result = judge_candidates(StageContext(config, InProcess()))
    groups, n_edges = groups_of(config)
    assert groups == expected()
    assert n_edges == result.summary["n_judged"] == result.summary["n_confirmed"] == N_CROWD - 1 + N_PAIRS
    assert set(n_read.values()) == {1}
    assert len(n_read) == N_CROWD + 2 * N_PAIRS


@pytest.mark.parametrize("largest", [3, 5, 11])
def test_a_large_component_in_parts_gives_the_same_groups(config, largest):
    result = judge_candidates(StageContext(config, InProcess()), Limits(members=10, largest=largest))
    groups, n_edges = groups_of(config)
    assert groups == expected()
    assert n_edges == result.rows["edges"] == result.summary["n_confirmed"] == N_CROWD - 1 + N_PAIRS


def test_a_large_component_of_lookalikes_is_searched_again(config):
    """Where every comparison with the central picture is refused, the others still find each other."""
    refusing = replace(config, confirm=replace(config.confirm, drop=["scene"]))
    whole = judge_candidates(StageContext(refusing, InProcess()))
    parts = judge_candidates(StageContext(refusing, InProcess()), Limits(members=10, largest=11))
    assert whole.summary["n_confirmed"] == parts.summary["n_confirmed"] == 0
    n_pairs = N_CROWD * (N_CROWD - 1) // 2
    # all pairs of the crowd that are near enough, none twice
    refused = read_table(Run(config.output.run_dir).table("refused"), ["src", "dst"]).to_pylist()
    assert len({(row["src"], row["dst"]) for row in refused}) == len(refused) == parts.summary["n_judged"] <= n_pairs + N_PAIRS
    assert parts.summary["n_judged"] == whole.summary["n_judged"]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_work_holds_each_component_whole_and_each_candidate_once(config, size):
    context = StageContext(config, InProcess())
    labels = label_candidates(context)
    works = list(work_of(context, labels, size, 20))
    seen, pairs = collections.Counter(), []
    for number, work in enumerate(works):
        inside = set(work.members["sample_id"].to_pylist())
        assert set(work.pairs["src"].to_pylist()) | set(work.pairs["dst"].to_pylist()) == inside
        pairs += list(zip(work.pairs["src"].to_pylist(), work.pairs["dst"].to_pylist(), strict=True))
        for component in set(work.members["component"].to_pylist()):
            seen[component] += 1
        if len(inside) > max(size, 20):
            assert len(set(work.members["component"].to_pylist())) == 1, number
        assert work.pairs.schema.equals(PAIRS)
    assert set(seen.values()) == {1}
    candidates = read_table(Run(config.output.run_dir).table("candidates"), ["src", "dst", "kind"]).filter(
        pa.compute.field("kind") == "near"
    )
    assert sorted(pairs) == sorted(zip(candidates["src"].to_pylist(), candidates["dst"].to_pylist(), strict=True))
