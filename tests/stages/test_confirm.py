"""The second look in whole runs: look-alikes stay, copies go, and pictures that are gone are said."""

import collections
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shared_workers
from PIL import Image
from shard_data import Sample, encode, write_tar

from dedup.config import Config, ConfirmConfig, EngineConfig, InputConfig, KeepConfig, OutputConfig
from dedup.demo.pictures import procedural_scene
from dedup.errors import RunDirectoryError
from dedup.numerics.graph.components import connected_components
from dedup.numerics.image.planting import plant
from dedup.numerics.judge.compare import REASONS
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

N_LOOKALIKES = 6


def lookalike(seed):
    """The same background with a small subject of its own."""
    background = procedural_scene(np.random.default_rng(7), (320, 280), "ridges")
    subject = procedural_scene(np.random.default_rng(100 + seed), (90, 90), "marble")
    picture = Image.fromarray(background)
    picture.paste(Image.fromarray(subject), (120, 90))
    return picture


def samples():
    made = [Sample(f"lookalike{seed}", encode(lookalike(seed)), f"number {seed}", seed) for seed in range(N_LOOKALIKES)]
    for seed in range(N_LOOKALIKES, N_LOOKALIKES + 6):
        original = procedural_scene(np.random.default_rng(seed), (340, 300))
        made.append(Sample(f"original{seed}", encode(Image.fromarray(original)), "an original", seed))
        for name in ("jpeg_30", "resize_0.5", "watermark_20"):
            copy = plant(original, name, np.random.default_rng(seed))
            made.append(Sample(f"{name}-{seed}".replace(".", "_"), encode(Image.fromarray(copy)), "a copy", seed))
    # a copy of a look-alike: hidden in the crowd, and to be found all the same
    made.append(Sample("hidden", encode(lookalike(3), quality=40), "number 3 again", 3))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    made = samples()
    for number in range(3):
        write_tar(folder / f"{number:05d}.tar", made[number::3])
    return folder


def config_for(folder, out, workers=1, **sections):
    base = Config(input=InputConfig(shards=[f"{folder}/*.tar"]), output=OutputConfig(str(out)), engine=EngineConfig(workers=workers))
    return replace(base, **sections)


def rows(out, name):
    return read_table(Run(str(out)).table(name)).to_pylist()


def components(out):
    """Keys of each group of two or more."""
    groups = collections.defaultdict(set)
    for name in ("manifest", "duplicates"):
        for row in rows(out, name):
            groups[row["component_id"]].add(row["key"])
    return {frozenset(keys) for keys in groups.values() if len(keys) > 1}


def expected():
    groups = collections.defaultdict(set)
    for sample in samples():
        groups[sample.source].add(sample.key)
    return {frozenset(keys) for keys in groups.values() if len(keys) > 1}


@pytest.fixture(scope="module")
def run_dir(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    shared_workers.run(config_for(folder, out, workers=2))
    return out


def test_copies_merge_and_lookalikes_do_not(run_dir):
    assert components(run_dir) == expected()


def test_unjudged_lookalikes_merge(folder, tmp_path):
    shared_workers.run(config_for(folder, tmp_path / "out", confirm=ConfirmConfig(enabled=False)))
    merged = components(tmp_path / "out")
    assert frozenset({"hidden", *(f"lookalike{seed}" for seed in range(N_LOOKALIKES))}) in merged
    edges = rows(tmp_path / "out", "edges")
    assert all(edge["confirmed"] is None and edge["distance"] is None and edge["transform"] is None for edge in edges)
    assert rows(tmp_path / "out", "refused") == []


def test_every_candidate_ends_in_edges_or_refused(run_dir):
    pair = lambda row: (row["src"], row["dst"])  # noqa: E731
    candidates = {pair(row) for row in rows(run_dir, "candidates") if row["kind"] == "near"}
    edges = {pair(row) for row in rows(run_dir, "edges") if row["kind"] == "near"}
    refused = {pair(row) for row in rows(run_dir, "refused") if row["stage"] == "confirm"}
    assert not edges & refused
    # a candidate that was not looked at lies between two images that others connect
    ids = sorted({end for edge in edges for end in edge} | {end for pair_ in candidates for end in pair_})
    place = {sample: k for k, sample in enumerate(ids)}
    labels = connected_components([place[src] for src, _ in edges], [place[dst] for _, dst in edges], len(ids))
    assert all(labels[place[src]] == labels[place[dst]] for src, dst in candidates - edges - refused)
    assert len(edges) < len(ids)
    for row in rows(run_dir, "edges"):
        assert row["kind"] == "exact" or (row["confirmed"] is True and 0 <= row["distance"] <= 0.15 and len(row["transform"]) == 6)
    for row in rows(run_dir, "refused"):
        assert row["reason"] in REASONS
    assert refused


def test_dropped_samples_name_a_keeper_they_were_compared_with(run_dir):
    for row in rows(run_dir, "duplicates"):
        assert row["kind"] == "exact" or 0 <= row["distance_to_keeper"] <= 0.15
    anchors = {row["sample_id"]: row for row in rows(run_dir, "groups")}
    for row in anchors.values():
        assert anchors[row["anchor_id"]]["component_id"] == row["component_id"]


def test_transforms_are_about_the_identity_for_copies_of_the_whole(run_dir):
    for row in rows(run_dir, "edges"):
        if row["transform"]:
            matrix = np.array(row["transform"]).reshape(2, 3)
            assert np.allclose(cv2.invertAffineTransform(matrix) @ [0.5, 0.5, 1.0], 0.5, atol=0.03)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_matter(folder, run_dir, tmp_path, workers):
    shared_workers.run(config_for(folder, tmp_path / "out", workers=workers))
    key = lambda row: (row["src"], row["dst"])  # noqa: E731
    for name in ("edges", "refused"):
        assert sorted(rows(tmp_path / "out", name), key=key) == sorted(rows(run_dir, name), key=key)
    for name in ("manifest", "duplicates"):
        assert rows(tmp_path / "out", name) == rows(run_dir, name)


@pytest.mark.parametrize("unreadable", ["refuse", "keep"])
def test_a_tar_that_is_gone(folder, tmp_path, unreadable):
    moved = tmp_path / "shards"
    moved.mkdir()
    for path in sorted(Path(folder).glob("*.tar")):
        (moved / path.name).write_bytes(path.read_bytes())
    config = config_for(moved, tmp_path / "out", confirm=ConfirmConfig(unreadable=unreadable))
    for stage in ("embed", "index", "pairs"):
        shared_workers.run(config, stages=[stage])
    (moved / "00001.tar").unlink()
    notes = []

    class Reporter:
        def progress(self, progress):
            pass

        def note(self, text):
            notes.append(text)

    for stage in ("confirm", "groups", "exclude", "manifest"):
        shared_workers.run(config, stages=[stage], reporter=Reporter())
    assert any("can't be read again" in text and "00001.tar" in text for text in notes)
    of_shard = {row["sample_id"]: row["shard"].endswith("00001.tar") for row in rows(tmp_path / "out", "metadata")}
    touched = [row for row in rows(tmp_path / "out", "refused") if of_shard[row["src"]] or of_shard[row["dst"]]]
    unread = [row for row in rows(tmp_path / "out", "edges") if row["kind"] == "near" and row["confirmed"] is None]
    if unreadable == "refuse":
        assert touched
        assert all(row["reason"] == "unreadable" and row["distance"] is None for row in touched)
        assert unread == []
    else:
        assert touched == []
        assert unread
        assert all(of_shard[row["src"]] or of_shard[row["dst"]] for row in unread)


def test_another_limit_redoes_from_confirm_only(folder, run_dir, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(run_dir, out)
    changed = config_for(folder, out, confirm=ConfirmConfig(max_distance=0.0))
    with pytest.raises(RunDirectoryError, match=r"confirm.max_distance"):
        shared_workers.run(changed)
    summary = shared_workers.run(changed, redo=True)
    assert {"embed", "index", "pairs"} <= set(summary.skipped)
    assert "confirm" not in summary.skipped
    assert components(out) == set()


def test_more_keepers_are_confirmed_too(folder, tmp_path):
    shared_workers.run(config_for(folder, tmp_path / "out", keep=KeepConfig(per_component=2)))
    counts = collections.Counter(row["component_id"] for row in rows(tmp_path / "out", "manifest"))
    assert set(counts.values()) == {1, 2}
    for row in rows(tmp_path / "out", "duplicates"):
        assert row["kind"] == "exact" or row["distance_to_keeper"] <= 0.15
