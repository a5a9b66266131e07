"""Templates and scenes of whole runs: tables, counts, masks, and thinning them out."""

import collections
import io
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import shared_workers
from PIL import Image, ImageDraw, ImageFont
from shard_data import Sample, encode, write_tar

import dedup
from dedup.config import Config, ConfirmConfig, EngineConfig, InputConfig, KeepConfig, OutputConfig
from dedup.demo.pictures import photo_scenes
from dedup.runs.directory import Run
from dedup.stages.groups.related import across_src, shared_mask
from dedup.stages.manifest.thin import beyond
from dedup.storage.tables import read_table

NAMES = ("Amelia Fox", "Robert Ibarra", "Jo Winter", "Kim Sung", "Ines Duarte")


def form(name, colour):
    picture = Image.new("RGB", (480, 560), (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    draw.rectangle([0, 0, 480, 60], fill=colour)
    draw.text((20, 16), "ORDER FORM", fill=(255, 255, 255), font=ImageFont.load_default(26))
    for line in range(11):
        draw.text((30, 80 + 42 * line), f"Field number {line + 1}:", fill=(20, 20, 40), font=font)
    draw.text((230, 80 + 42 * 4), name, fill=(20, 20, 40), font=font)
    draw.text((230, 80 + 42 * 7), name[::-1], fill=(20, 20, 40), font=font)
    return picture


def samples():
    made = [Sample(f"form{k}", encode(form(name, (40, 90, 160))), f"form of {name}", k) for k, name in enumerate(NAMES)]
    # the first form three times
    made.append(Sample("form0-again", encode(form(NAMES[0], (40, 90, 160)), quality=40), "again", 0))
    made.append(Sample("form0-small", encode(form(NAMES[0], (40, 90, 160)).resize((360, 420))), "small", 0))
    for k, scene in enumerate(list(photo_scenes())[:3]):
        photo = Image.fromarray(scene.pixels[:300, :300])
        made.append(Sample(f"photo{k}", encode(photo), "a photo", 10 + k))
        made.append(Sample(f"part{k}", encode(photo.crop((39, 39, 261, 261))), "a part of it", 10 + k))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    made = samples()
    for number in range(2):
        write_tar(folder / f"{number:05d}.tar", made[number::2])
    return folder


def run(folder, out, **sections):
    base = Config(input=InputConfig(shards=[f"{folder}/*.tar"]), output=OutputConfig(str(out)), engine=EngineConfig(workers=1))
    shared_workers.run(replace(base, **sections))
    return out


@pytest.fixture(scope="module")
def run_dir(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("run") / "out")


def rows(out, name):
    return read_table(Run(str(out)).table(name)).to_pylist()


def keys(out):
    return {row["sample_id"]: row["key"] for row in rows(out, "metadata")}


def test_the_forms_are_one_template_and_the_parts_are_dropped(run_dir):
    key_of = keys(run_dir)
    members = collections.defaultdict(set)
    for row in rows(run_dir, "templates"):
        members[row["template_id"]].add(key_of[row["sample_id"]])
    assert list(members.values()) == [{*(f"form{k}" for k in range(5)), "form0-again", "form0-small"}]
    dropped = {row["key"] for row in rows(run_dir, "duplicates")}
    assert len(dropped & {"form0", "form0-again", "form0-small"}) == 2
    assert not dropped & {f"form{k}" for k in range(1, 5)}
    assert dropped >= {f"part{k}" for k in range(3)}
    for row in rows(run_dir, "edges"):
        ends = [key_of[row[end]] for end in ("src", "dst")]
        of_part = [end for end, key in zip(("src", "dst"), ends, strict=True) if key.startswith("part")]
        assert (row["relation"], row["inside"]) == (("part", of_part[0]) if of_part else ("copy", None))
        assert row["agreeing_share"] > 0.9


def test_counts_are_those_of_the_refused_pairs(run_dir):
    group_of = {row["sample_id"]: row["component_id"] for row in rows(run_dir, "groups")}
    graph = nx.Graph()
    for row in rows(run_dir, "refused"):
        if row["relation"] == "template":
            graph.add_edge(group_of.get(row["src"], row["src"]), group_of.get(row["dst"], row["dst"]))
            assert row["mask"] is not None
    sizes = collections.Counter(group_of.values())
    expected = {
        min(part): (len(part), sum(sizes.get(group, 1) for group in part)) for part in nx.connected_components(graph) if len(part) > 1
    }
    found = {row["template_id"]: (row["n_components"], row["n_samples"]) for row in rows(run_dir, "template_counts")}
    assert found == expected
    assert list(found.values()) == [(5, 7)]
    (statistics,) = (row for row in rows(run_dir, "statistics") if row["duplication_count"] == 3)
    assert (statistics["template_count"], statistics["scene_count"]) == (7, 3)
    others = [row for row in rows(run_dir, "statistics") if row["duplication_count"] != 3]
    assert all(row["template_count"] == row["duplication_count"] for row in others)


def test_the_mask_shows_where_the_names_are(run_dir):
    (counts,) = rows(run_dir, "template_counts")
    mask = np.asarray(Image.open(io.BytesIO(counts["mask"])))
    differs, agrees = mask < 64, mask > 192
    assert agrees.sum() > 3 * differs.sum() > 0
    places = (np.nonzero(differs)[0] + 0.5) / 64 * 560
    lines = [90 + 42 * 4, 90 + 42 * 7]
    assert (np.abs(places[:, None] - lines).min(axis=1) < 30).all()
    assert 0.5 < counts["agreeing_share"] < 1.0


@pytest.mark.parametrize("most", [1, 3])
def test_templates_may_be_thinned_out(folder, tmp_path, most):
    out = run(folder, tmp_path / "out", keep=KeepConfig(templates=most, scenes=1))
    kept = [row["key"] for row in rows(out, "manifest") if row["key"].startswith("form")]
    gone = [row for row in rows(out, "duplicates") if row["kind"] == "template"]
    assert len({key.partition("-")[0] for key in kept}) == most
    assert {row["keeper_key"] for row in gone} <= set(kept)
    assert all(0.5 < row["similarity_to_keeper"] < 1 and row["distance_to_keeper"] is None for row in gone)
    assert len(rows(out, "manifest")) + len(rows(out, "duplicates")) == len(samples())
    explanation = dedup.explain(str(out), gone[0]["key"])
    assert explanation.outcome == "dropped_thinned"
    assert f"of one template with {gone[0]['keeper_key']}" in explanation.reason
    assert f"keep.templates={most}" in explanation.reason


def test_parts_may_be_kept(folder, tmp_path):
    out = run(folder, tmp_path / "out", confirm=ConfirmConfig(drop=["copy"]))
    assert {row["key"] for row in rows(out, "duplicates")} <= {"form0", "form0-again", "form0-small"}
    refused = [row for row in rows(out, "refused") if row["relation"] == "part"]
    assert len(refused) == 3
    assert all(row["reason"] == "not_dropped" for row in refused)


def test_templates_may_be_dropped_like_copies(folder, tmp_path):
    out = run(folder, tmp_path / "out", confirm=ConfirmConfig(drop=["copy", "part", "template"]))
    assert sum(row["key"].startswith("form") for row in rows(out, "manifest")) == 1
    assert rows(out, "templates") == []


def test_the_first_groups_of_each_template_stay():
    rng = np.random.default_rng(0)
    label = np.sort(rng.integers(0, 30, 400))
    component = label * 10 + rng.integers(0, 6, 400)
    goes, first = beyond(label, component, 2)
    expected = []
    for number in np.unique(label):
        places = np.flatnonzero(label == number)
        kept = list(dict.fromkeys(component[places].tolist()))[:2]
        expected += [place for place in places.tolist() if component[place] not in kept]
        assert (first[places] == places[0]).all()
    assert goes.tolist() == expected
    assert beyond(label[:0], component[:0], 1)[0].tolist() == []


def test_a_mask_is_laid_over_the_first_picture():
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, :32] = 0
    # the first picture is the right half of the second
    laid = across_src(mask, [0.5, 0.0, 0.5, 0.0, 1.0, 0.0])
    assert (laid == 255).all()
    whole = across_src(mask, [2.0, 0.0, -0.5, 0.0, 1.0, 0.0])
    assert (whole[:, :16] == 128).all()
    assert (whole[:, 16:32] == 0).all()
    assert (whole[:, 32:48] == 255).all()


def test_shared_masks_are_means_where_most_have_something():
    one, other, empty = (np.full((64, 64), value, np.uint8) for value in (255, 0, 128))
    assert (shared_mask([one, one, other]) == 170).all()
    assert (shared_mask([one, empty, empty]) == 128).all()
    assert (shared_mask([one, other]) == 129).all()  # not the value that says there is nothing
