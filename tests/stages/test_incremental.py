"""Runs that add to an earlier one, against one run over everything."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_tables import assert_same_tables
from shard_data import make_samples, write_shards

from dedup import pipeline
from dedup.config import BaseConfig, Config, EngineConfig, IndexConfig, InputConfig, OutputConfig, SearchConfig
from dedup.stages import index, looks
from dedup.storage.layout import RunLayout
from dedup.storage.lists import load_lists
from dedup.storage.looks import looks_folder
from dedup.storage.tables import read_table

# all but the files that name their parts, and the figures that are of a run
SAME = (
    "metadata", "rejected", "representatives", "exact", "assignments", "candidates", "neighbors", "edges", "refused", "groups", "manifest",
    "duplicates", "captions", "statistics", "histogram", "candidate_counts", "targets", "target_captions", "partitions",
)  # fmt: skip
LISTS = {"exhaustive_below": 0, "nlist": 12, "nprobe": 3, "recall_queries": 20}


def config_for(shards, out, base="", workers=1, **sections):
    known = {"input": InputConfig(shards=[str(shard) for shard in shards]), "output": OutputConfig(str(out)), "base": BaseConfig(str(base))}
    return replace(Config(), **known, engine=EngineConfig(workers=workers), **sections)


def table(out, name):
    return read_table(RunLayout(str(out)).table(name)).to_pylist()


@pytest.fixture
def with_lists_of(monkeypatch):
    """Let runs use the quantizers of another run instead of training their own."""

    def use(run_dir):
        lists, of_looks = load_lists(os.path.join(run_dir, "index")), load_lists(looks_folder(str(run_dir)))
        nprobe = json.loads(Path(run_dir, "index", "_index.json").read_text())["nprobe"]
        monkeypatch.setattr(index, "_train", lambda context, ids, *_: (lists, np.zeros((1, len(lists.axes)), np.float32)))
        monkeypatch.setattr(index, "_lists", lambda context, n: (lists.nlist, nprobe))
        monkeypatch.setattr(looks, "_train", lambda context, ids, _: (of_looks, min(3, of_looks.nlist), len(ids)))

    return use


@pytest.fixture(scope="module")
def samples():
    """Scenes with copies, shuffled, so that copies of one lie on both sides; a few that can't be read."""
    return make_samples(n_scenes=90, seed=3)


@pytest.fixture(scope="module")
def shards(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, samples, per_shard=45)
    return sorted(folder.glob("*.tar"))


@pytest.mark.parametrize("search", [{}, LISTS], ids=["one list", "lists"])
def test_equal_to_one_run_over_everything(shards, tmp_path, with_lists_of, search):
    sections = {"search": SearchConfig(**search), "index": IndexConfig(codes="none")}
    old, new, one = tmp_path / "old", tmp_path / "new", tmp_path / "one"
    pipeline.run(config_for(shards[:3], old, **sections))
    summary = pipeline.run(config_for(shards[3:], new, old, workers=2, **sections))
    with_lists_of(old)
    pipeline.run(config_for(shards, one, workers=2, **sections))
    assert_same_tables(new, one, SAME)
    # a part of what was found joins old and new, or nothing was tried
    first = table(old, "partitions")[-1]["partition"] + 1
    assert any((row["src"] >> 32) < first <= (row["dst"] >> 32) for row in table(new, "candidates") if row["kind"] == "near")
    assert any((row["src"] >> 32) < first <= (row["dst"] >> 32) for row in table(new, "candidates") if row["kind"] == "exact")
    assert summary.figure("index", "n_base_images") == len(table(old, "representatives"))
