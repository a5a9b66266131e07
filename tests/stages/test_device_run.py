"""`index` and `pairs` with products computed by torch, beside the same run without: equal tables."""

from dataclasses import replace

import numpy as np
import pytest
from in_process import InProcess
from PIL import ImageFilter, ImageOps
from run_tables import Notes, assert_same_tables
from shard_data import Sample, encode, make_samples, scene, write_shards
from vectors import write_embeddings

from dedup.config import Config, ConfirmConfig, EngineConfig, IndexConfig, OutputConfig, SearchConfig
from dedup.config.load import load_config
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError
from dedup.numerics.search.gpu import Device
from dedup.pipeline import run as pipeline
from dedup.pipeline.stages import STAGES
from dedup.runs.directory import Run
from dedup.stages import stage as context
from dedup.stages.index import stage as index
from dedup.stages.index import views as index_views
from dedup.stages.pairs import stage as pairs
from dedup.stages.pairs import views as pair_views
from dedup.storage.tables import read_table

TABLES = ("representatives", "exact", "assignments", "candidates", "neighbors")


@pytest.fixture
def on_torch(monkeypatch, require_extra):
    """Let `engine.device=cuda` be torch's CPU; gives the devices that were chosen."""
    require_extra("torch")
    chosen = []

    def choose(setting):
        if setting == "cuda":
            chosen.append(Device("cpu", least_columns=16))
            return chosen[-1]
        return None

    for stage in (context, index, index_views, pairs, pair_views):
        monkeypatch.setattr(stage, "choose_device", choose)
    return chosen


def test_a_run_over_vectors_has_equal_tables(tmp_path, on_torch):
    for device in ("cpu", "cuda"):
        search = SearchConfig(min_similarity=0.9, exhaustive_below=0, views=False, nlist=12, nprobe=4)
        config = replace(
            Config(),
            output=OutputConfig(str(tmp_path / device)),
            search=search,
            index=IndexConfig(codes="none"),
            engine=EngineConfig(device=device),
            confirm=ConfirmConfig(enabled=False),
        )
        write_embeddings(config, 6_000, 64, share=0.2, low=0.8, high=0.999, n_crowd=2_000)
        engine, notes = InProcess(), Notes()
        summary = pipeline.run(config, ["index", "pairs"], engine=engine, reporter=notes)
        assert engine.asked["assign_block"] == engine.asked["JoinLists"] == (device == "cuda")
        assert summary.figure("pairs", "n_near_edges") > 500
        assert bool(on_torch) == (device == "cuda")
        assert not any("lack of memory" in note for note in notes.notes)
    assert_same_tables(tmp_path / "cpu", tmp_path / "cuda", TABLES)


def test_a_run_over_images_with_views_has_equal_tables(tmp_path, on_torch):
    pictures = [scene(seed, (240, 200)).filter(ImageFilter.GaussianBlur(6)) for seed in range(20)]
    mirrored = [Sample(f"m{i}", encode(ImageOps.mirror(picture)), "c", i) for i, picture in enumerate(pictures)]
    samples = [*make_samples(100, seed=1), *mirrored, *(Sample(f"p{i}", encode(picture), "c", i) for i, picture in enumerate(pictures))]
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", samples, per_shard=100)
    for device in ("cpu", "cuda"):
        settings = [f"input.shards={tmp_path}/shards/*.tar", f"output.run_dir={tmp_path}/{device}", f"engine.device={device}"]
        engine = InProcess()
        pipeline.run(load_config(None, [*settings, "search.exhaustive_below=100"]), ["embed", "index", "pairs"], engine=engine)
        assert engine.asked["place_views"] == engine.asked["JoinViews"] == (device == "cuda")
        assert engine.asked["count_in_blocks"] is False
    assert_same_tables(tmp_path / "cpu", tmp_path / "cuda", TABLES)
    assert "look" in read_table(Run(str(tmp_path / "cuda")).table("candidates"))["source"].to_pylist()


@pytest.mark.parametrize(
    ("device", "n", "expected"), [("auto", 199_999, "cpu"), ("auto", 200_000, "auto"), ("cuda", 2, "cuda"), ("cpu", 10**9, "cpu")]
)
def test_few_vectors_are_not_worth_the_start_of_a_gpu(device, n, expected, tmp_path):
    search = context.StageContext(Config(engine=EngineConfig(device=device)), InProcess())
    assert search.device(n) == expected


def test_the_device_makes_no_stage_stale():
    cpu, cuda = (Config(search=SearchConfig(min_similarity=0.9), engine=EngineConfig(device=device)) for device in ("cpu", "cuda"))
    assert all(stage.picked(cpu) == stage.picked(cuda) for stage in STAGES)


def test_what_a_gpu_has_no_memory_for_is_said(tmp_path, on_torch, monkeypatch):
    monkeypatch.setattr("dedup.numerics.search.gpu.unless_full", lambda compute: None)
    notes, counts = Notes(), []
    for device in ("cpu", "cuda"):
        search = SearchConfig(min_similarity=0.9, views=False)
        config = replace(
            Config(),
            output=OutputConfig(str(tmp_path / device)),
            search=search,
            index=IndexConfig(codes="none"),
            engine=EngineConfig(device=device),
        )
        write_embeddings(config, 1_500, 32, share=0.2, low=0.8, high=0.999)
        pipeline.run(config, ["index", "pairs"], engine=InProcess(), reporter=notes)
        counts.append(read_table(Run(str(tmp_path / device)).table("neighbors"))["n_neighbors"].to_numpy())
    assert [note for note in notes.notes if note.startswith("pairs")] == [
        "pairs: 6 strips of vectors were compared on the CPU, for lack of memory on the GPU"
    ]
    assert np.array_equal(*counts)


def test_cuda_without_a_gpu_ends_the_run_in_a_line(tmp_path, require_extra):
    torch = require_extra("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    search = SearchConfig(min_similarity=0.9, views=False)
    config = replace(
        Config(),
        output=OutputConfig(str(tmp_path)),
        search=search,
        index=IndexConfig(codes="none"),
        engine=EngineConfig(device="cuda"),
    )
    write_embeddings(config, 300, 32, share=0.2, low=0.8, high=0.999)
    engine = LocalEngine(1)
    with pytest.raises(ConfigError, match=r"engine\.device=cuda: expected a CUDA device"):
        pipeline.run(config, ["index", "pairs"], engine=engine)
    engine.close()
