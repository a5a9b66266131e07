"""Explanations of a real run, against networkx and the tables themselves; then chains, crowds and hostile texts of made-up tables."""

import gzip
import hashlib
import json
import math
from dataclasses import replace

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
import shared_workers
from PIL import Image
from run_tables import table
from shard_data import Sample, copies, detailed, encode, scene, write_tar

import dedup
from dedup.cli.show.finished import explanation_lines
from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.explanation.explanation import Explanation
from dedup.runs.directory import Run
from dedup.runs.record import read_record, write_record
from dedup.schemas import EDGES
from dedup.storage.tables import clear, write_table

HOSTILE = "\x1b[31mred\x1b]0;owned\x07 \u202eesrever\u2069 🦊👨‍👩‍👧 \x00\x9b2J שלום\n\nline " + "x" * 100_000


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Three shards, the last compressed: groups, an exact copy, hostile captions, broken images, a key twice, exclusions."""
    folder = tmp_path_factory.mktemp("explain")
    first, second, third = [], [], []
    for seed in range(6):  # groups of six, one of each in the compressed shard
        changed = list(copies(detailed(seed)))
        first += [Sample(f"a{seed}", encode(detailed(seed)), HOSTILE), Sample(f"b{seed}", changed[0], f"caption {seed}")]
        second += [Sample(f"c{seed}", changed[1], None), Sample(f"d{seed}", changed[2], "d"), Sample(f"e{seed}", changed[3], "e")]
        third.append(Sample(f"f{seed}", changed[4], "f"))
    first += [Sample("same", encode(detailed(50)), "one"), Sample("same", encode(detailed(51)), "two")]  # the second is rejected
    second += [Sample("same", encode(detailed(52)), "three"), Sample("broken", b"no image", "broken")]
    second += [Sample("twin", first[0].image, "byte-identical to a0"), Sample("deep/down.0", encode(detailed(53)), "a slash")]
    second.append(Sample("exact1", encode(detailed(55)), "one"))
    third += [
        Sample("exact2", encode(detailed(55)), "another"),
        Sample("alone", encode(detailed(54)), "unique"),
        Sample("near-eval", encode(detailed(60), quality=40), "taken"),
    ]
    third += [Sample("listed", encode(detailed(61)), "listed"), Sample("copy-of-listed", encode(detailed(61), quality=40), "its copy")]
    write_tar(folder / "shards" / "00000.tar", first)
    write_tar(folder / "shards" / "00001.tar", second)
    write_tar(folder / "00002.tar", third)
    (folder / "shards" / "00002.tar.gz").write_bytes(gzip.compress((folder / "00002.tar").read_bytes()))
    (folder / "shards" / "00003.tar").write_bytes(b"no tar at all" * 100)
    write_tar(folder / "eval" / "eval.tar", [Sample("evaluation", encode(detailed(60)))])
    (folder / "takedown.txt").write_text("key:listed\n")
    out = folder / "out"
    overrides = [f"input.shards={folder}/shards/*", f"output.run_dir={out}", "engine.workers=2", f"exclude.list={folder}/takedown.txt"]
    dedup.run(load_config(None, [*overrides, "input.allow_missing=true", f"exclude.reference_shards={folder}/eval/*.tar"]))
    return str(out)


def policy_key(row):
    return -row["width"] * row["height"], -row["n_bytes"], row["sample_id"]


ORDER = ("originality desc", "has_caption desc", "has_exif desc", "width*height desc", "n_bytes desc", "sample_id")


def default_key(row):
    """The values of the default order, the better the smaller; without originality a sample comes last."""
    originality = float("inf") if row["originality"] is None else -row["originality"]
    return originality, row["caption"] is None, row["exif_date"] is None, *policy_key(row)


def graph_of(run_dir):
    graph = nx.Graph()
    for row in table(run_dir, "edges").to_pylist():
        if row["kind"] == "exact" or row["confirmed"] or (row["confirmed"] is None and row["source"] == "whole"):
            graph.add_edge(row["src"], row["dst"], weight=row["similarity"])
    return graph


def test_every_sample_is_explained_as_the_tables_say(run_dir):
    kept, dropped = table(run_dir, "manifest").to_pylist(), table(run_dir, "duplicates").to_pylist()
    rows = {row["sample_id"]: row for row in [*kept, *dropped]}
    neighbors = {row["sample_id"]: row["n_neighbors"] for row in table(run_dir, "neighbors").to_pylist()}
    n_copies = {row["sample_id"]: sum(other["keeper_id"] == row["sample_id"] for other in dropped) for row in kept}
    seen = set()
    for row in [*kept, *dropped, *table(run_dir, "excluded").to_pylist()]:
        found = dedup.explain(run_dir, sample_id=row["sample_id"])
        seen.add(found.outcome)
        assert (found.sample.key, found.sample.shard, found.sample.caption) == (row["key"], row["shard"], row["caption"])
        assert found.component.component_id == row["component_id"]
        assert found.component.duplication_count == row["duplication_count"]
        assert found.component.n_kept + found.component.n_dropped + found.component.n_excluded == row["duplication_count"]
        assert found.n_neighbors == neighbors.get(row["sample_id"], 0)
        assert found.min_similarity == 0.7
        if row in kept:
            assert found.n_copies == n_copies[row["sample_id"]]
            assert found.outcome == ("kept_keeper" if row["duplication_count"] > 1 else "kept_unique")
        if "keeper_id" in row:
            assert found.outcome == f"dropped_{row['kind']}"
            assert found.keeper.sample_id == row["keeper_id"]
            assert (found.similarity_to_keeper, found.distance_to_keeper) == (row["similarity_to_keeper"], row["distance_to_keeper"])
            one, other = rows[row["keeper_id"]], rows[row["sample_id"]]
            keys = [default_key(end) for end in (one, other)]
            assert keys[0] < keys[1]
            place = next(k for k in range(len(ORDER)) if keys[0][k] != keys[1][k])
            assert found.rule.term == ORDER[place]
            values = [found.rule.value, found.rule.other_value]
            assert values == [key[place] is False if place in (1, 2) else abs(key[place]) for key in keys]
            assert found.rule.preferred.sample_id == row["keeper_id"]
        json.dumps(found.as_dict(), allow_nan=False)
    assert seen == {"kept_unique", "kept_keeper", "dropped_exact", "dropped_near", "excluded"}


def test_paths_are_the_widest_and_of_those_the_shortest(run_dir):
    graph = graph_of(run_dir)
    edges = {(row["src"], row["dst"]): row for row in table(run_dir, "edges").to_pylist()}
    lengths = []
    for row in table(run_dir, "duplicates").to_pylist():
        found = dedup.explain(run_dir, sample_id=row["sample_id"])
        nodes = [sample.sample_id for sample in found.path_samples]
        assert (nodes[0], nodes[-1]) == (row["sample_id"], row["keeper_id"])
        for a, b, step in zip(nodes[:-1], nodes[1:], found.path, strict=True):
            expected = edges[min(a, b), max(a, b)]
            assert {name: getattr(step, name) for name in step.__dataclass_fields__} == {
                name: expected[name] for name in step.__dataclass_fields__
            }
        tree = nx.shortest_path(nx.maximum_spanning_tree(graph), nodes[0], nodes[-1])
        weakest = min(graph.edges[pair]["weight"] for pair in zip(tree[:-1], tree[1:], strict=True))
        assert min(step.similarity for step in found.path) == weakest
        wide = nx.Graph([pair for pair in graph.edges if graph.edges[pair]["weight"] >= weakest])
        assert len(found.path) == nx.shortest_path_length(wide, nodes[0], nodes[-1])
        lengths.append(len(found.path))
    assert max(lengths) > 1


@pytest.mark.parametrize(
    ("key", "options", "expected"),
    [
        ("alone", {}, ("alone", "00002.tar.gz")),
        ("00002.tar.gz/alone", {}, ("alone", "00002.tar.gz")),
        ("same", {"shard": "00001.tar"}, ("same", "00001.tar")),
        ("00001.tar/same", {}, ("same", "00001.tar")),
        ("shards/00000.tar/same", {}, ("same", "00000.tar")),
        ("deep/down", {}, ("deep/down", "00001.tar")),
        ("00001.tar/deep/down", {}, ("deep/down", "00001.tar")),
        ("https://example.org/alone.jpg", {}, ("alone", "00002.tar.gz")),
        (hashlib.sha256(encode(detailed(54))).hexdigest().upper(), {}, ("alone", "00002.tar.gz")),
    ],
)
def test_ways_to_name_a_sample(run_dir, key, options, expected):
    found = dedup.explain(run_dir, key, **options)
    assert (found.sample.key, found.sample.shard.rpartition("/")[2]) == expected


@pytest.mark.parametrize(
    ("key", "options", "error", "message"),
    [
        ("same", {}, InputError, r"2 shards have a sample same: .*00000.tar, .*00001.tar; say which with --shard"),
        ("nothing", {}, InputError, r"no sample nothing: it was neither embedded nor rejected.*1 shards could not be read whole"),
        ("alone", {"shard": "00000.tar"}, InputError, "no sample alone in 00000.tar"),
        ("x", {"shard": "00009.tar"}, InputError, "none of the 4 of the run"),
        ("x", {"shard": "00003.tar"}, InputError, "the shard was unreadable"),
        ("", {}, ConfigError, "no sample is named"),
        ("", {"sample_id": 1 << 40}, InputError, "no sample 1099511627776"),
        ("https://nowhere.example.org/x.jpg", {}, InputError, "neither embedded nor rejected"),
    ],
)
def test_samples_that_are_not_there_or_not_alone(run_dir, key, options, error, message):
    with pytest.raises(error, match=message) as raised:
        dedup.explain(run_dir, key, **options)
    assert "\n" not in str(raised.value)


def test_a_digest_of_several_samples_asks_for_one(run_dir):
    with pytest.raises(InputError, match=r"2 samples have the sha256 .*a0 in .*twin in .*--sample-id"):
        dedup.explain(run_dir, hashlib.sha256(encode(detailed(0))).hexdigest())


def test_rejected_samples_and_keys_that_occur_twice(run_dir):
    broken = dedup.explain(run_dir, "broken")
    assert (broken.outcome, broken.sample.sample_id, broken.component) == ("rejected", None, None)
    assert broken.reason.startswith("rejected, undecodable_image: no image")
    twice = dedup.explain(run_dir, "same", shard="00000.tar")
    assert (twice.outcome, twice.sample.caption) == ("kept_unique", "one")
    assert [row.reason for row in twice.rejections] == ["duplicate_key"]
    assert any(name == "rejected" and "duplicate_key" in text for name, text in explanation_lines(twice))


def test_excluded_samples_say_by_what(run_dir):
    near = dedup.explain(run_dir, "near-eval")
    assert (near.outcome, near.exclusion.reason, near.exclusion.excluded_by) == ("excluded", "reference", "evaluation")
    assert near.exclusion.distance_to_reference < 0.5
    assert "near the reference image evaluation in" in near.reason
    listed, copy = dedup.explain(run_dir, "listed"), dedup.explain(run_dir, "copy-of-listed")
    assert listed.reason == "excluded: the list names it: key:listed"
    assert copy.reason == "excluded: a copy of a sample that the list names: key:listed"
    assert (copy.component.n_excluded, copy.component.n_kept) == (2, 0)


def test_text_from_the_data_can_do_nothing_to_a_terminal(run_dir):
    hostile = [row["sample_id"] for row in table(run_dir, "metadata").to_pylist() if row["caption"] and len(row["caption"]) > 1000]
    assert len(hostile) == 6
    for sample_id in hostile:
        for _, text in explanation_lines(dedup.explain(run_dir, sample_id=sample_id)):
            assert text.isprintable()
            assert len(text) < 400


def test_pictures_of_all_outcomes(run_dir, tmp_path):
    for name, options in {
        "hostile": {"key": "a0"},
        "compressed": {"key": "f1"},
        "unique": {"key": "alone"},
        "broken": {"key": "broken"},
        "excluded": {"key": "listed"},
        "twin": {"key": "twin"},
    }.items():
        found = dedup.explain(run_dir, out=tmp_path / f"{name}.png", **options)
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width >= 3 * 176
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        is_read = len(np.unique(pixels, axis=0)) > 2_000  # photos have many colours, a sheet of text few
        assert is_read == (found.outcome != "rejected")


def test_a_picture_without_the_tars(run_dir, tmp_path):
    gone = replace(dedup.explain(run_dir, "a1"))
    samples = tuple(replace(sample, shard="/gone/00000.tar") for sample in gone.path_samples)
    from dedup.explanation.draw import draw_explanation

    draw_explanation(replace(gone, sample=replace(gone.sample, shard="/gone/x.tar"), path_samples=samples), tmp_path / "gone.png")
    with Image.open(tmp_path / "gone.png") as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) < 2_000


# ---- made-up tables over the real run's samples


@pytest.fixture
def other_tables(run_dir, tmp_path):
    """A copy of the run whose tables may be written over."""
    import shutil

    shutil.copytree(run_dir, tmp_path / "run")
    return Run(str(tmp_path / "run"))


def overwrite(run, name, rows):
    target, stage = run.table(name), {"edges": "confirm"}.get(name, name)
    record = read_record(run.url, stage) if stage in STAGE_NAMES else None
    clear(target)
    write_table(target, [pa.Table.from_pylist(rows, schema=target.schema)])
    if record is not None:
        write_record(run.url, record)


def edge(src, dst, similarity, **values):
    row = dict.fromkeys(EDGES.names) | {"kind": "near", "variant": "none", "source": "whole", "confirmed": True}
    return row | {"src": src, "dst": dst, "similarity": similarity} | values


def test_a_chain_that_was_cut(other_tables):
    ids = sorted(row["sample_id"] for row in table(other_tables.url, "metadata").to_pylist())[:5]
    a, b, c, d, e = ids
    group = {"raw_component_id": a, "distance_to_anchor": None}
    groups = [
        {"sample_id": s, "component_id": k, "anchor_id": anchor, "similarity_to_anchor": t, **group}
        for s, k, anchor, t in ((a, a, b, 0.9), (b, a, b, 1.0), (c, a, b, 0.95), (d, d, d, 1.0), (e, e, e, 1.0))
    ]
    overwrite(other_tables, "groups", groups)
    # a shortcut that was refused, and one that no look was taken at: neither joins anything
    bad = [edge(a, e, 0.99, confirmed=False), edge(a, c, 0.99, source="look", confirmed=None)]
    overwrite(other_tables, "edges", [edge(a, b, 0.9), edge(b, c, 0.95), edge(c, d, 0.8), edge(d, e, 0.85), *bad])
    rows = {row["sample_id"]: row for row in table(other_tables.url, "metadata").to_pylist()}
    place = {a: (a, 3), d: (d, 1), e: (e, 1)}
    overwrite(
        other_tables,
        "manifest",
        [rows[s] | {"component_id": place[s][0], "duplication_count": place[s][1]} for s in (a, d, e)],
    )
    dropped = {"component_id": a, "duplication_count": 3, "keeper_id": a, "keeper_shard": "x", "keeper_key": "x", "kind": "near"}
    overwrite(other_tables, "duplicates", [rows[s] | dropped | {"similarity_to_keeper": 0.7} for s in (b, c)])
    overwrite(other_tables, "exact", [])
    cut = dedup.explain(other_tables.url, sample_id=e)
    assert cut.outcome == "kept_unique"
    assert "a group of its own; edges join it to a component of 5" in cut.reason
    assert (cut.component.n_raw_members, cut.component.n_raw_groups) == (5, 3)
    assert [(step.src, step.dst) for step in cut.edges] == [(d, e)]
    assert [sample.sample_id for sample in cut.edge_samples] == [d]
    lines = dict(explanation_lines(cut))
    assert "cut into 3 groups: a chain" in lines["component"]
    through = dedup.explain(other_tables.url, sample_id=c)
    assert [sample.sample_id for sample in through.path_samples] == [c, b, a]
    assert [step.similarity for step in through.path] == [pytest.approx(0.95), pytest.approx(0.9)]


def test_further_keepers_say_why(other_tables):
    """Two byte-different images in one group, kept both: by the number asked for, and because they are too far apart."""
    row = next(row for row in table(other_tables.url, "duplicates").to_pylist() if row["kind"] == "near")
    manifest = table(other_tables.url, "manifest").to_pylist()
    kept = {name: row.get(name) for name in other_tables.table("manifest").schema.names}
    overwrite(other_tables, "manifest", [*manifest, kept])
    overwrite(other_tables, "duplicates", [r for r in table(other_tables.url, "duplicates").to_pylist() if r != row])
    found = dedup.explain(other_tables.url, sample_id=row["sample_id"])
    assert found.outcome == "kept_further"
    assert found.reason == "kept although its group has a keeper: it is not a copy of that one"
    assert [other.sample.sample_id for other in found.other_keepers] == [row["keeper_id"]]
    assert found.other_keepers[0].similarity == pytest.approx(row["similarity_to_keeper"], abs=1e-6)
    assert found.other_keepers[0].min_similarity == pytest.approx(0.7)
    assert any(name == "kept before" and "a copy needs 0.7" in text for name, text in explanation_lines(found))
    record = read_record(other_tables.url, "manifest")
    write_record(other_tables.url, replace(record, config=record.config | {"keep.per_component": 2}))
    assert dedup.explain(other_tables.url, sample_id=row["sample_id"]).reason.endswith("keep.per_component=2")
    first = dedup.explain(other_tables.url, sample_id=row["keeper_id"])
    assert first.outcome == "kept_keeper"
    assert "1 of the group kept beside it" in first.reason


def test_a_keeper_that_the_policy_does_not_prefer(other_tables, tmp_path):
    """A member goes with the nearest keeper; what dropped it may be another. And what the run's base kept comes first."""
    group = [row for row in table(other_tables.url, "groups").to_pylist() if row["raw_component_id"] == row["component_id"]]
    first_group = [row["sample_id"] for row in group if row["component_id"] == group[0]["component_id"]]
    rows = {row["sample_id"]: row for row in table(other_tables.url, "metadata").to_pylist()}
    best, sample, nearest, *rest = sorted(first_group, key=lambda member: policy_key(rows[member]))
    place = {"component_id": group[0]["component_id"], "duplication_count": len(first_group)}
    manifest = [row for row in table(other_tables.url, "manifest").to_pylist() if row["component_id"] != place["component_id"]]
    overwrite(other_tables, "manifest", [*manifest, *(rows[member] | place for member in (best, nearest))])
    dropped = place | {"keeper_shard": "x", "keeper_key": "x", "kind": "near", "similarity_to_keeper": 0.9}
    kept_by = {sample: nearest, **dict.fromkeys(rest, best)}
    duplicates = [rows[member] | dropped | {"keeper_id": keeper} for member, keeper in kept_by.items()]
    overwrite(other_tables, "duplicates", duplicates)
    record = read_record(other_tables.url, "manifest")
    record = replace(record, config=record.config | {"keep.order_by": ["width*height desc", "n_bytes desc", "sample_id"]})
    write_record(other_tables.url, record)
    found = dedup.explain(other_tables.url, sample_id=sample)
    assert (found.keeper.sample_id, found.rule.preferred.sample_id, found.rule.other.sample_id) == (nearest, best, sample)
    assert found.path_samples[-1].sample_id == nearest

    write_record(other_tables.url, replace(record, config=record.config | {"keep.prefer_base": True}))
    base = Run(str(tmp_path / "base"))
    write_table(base.table("manifest"), [pa.Table.from_pylist([rows[nearest] | place], schema=base.table("manifest").schema)])
    config = json.loads((tmp_path / "run" / "_config.json").read_text())
    (tmp_path / "run" / "_config.json").write_text(json.dumps(config | {"base": {"run_dir": base.url}}))
    found = dedup.explain(other_tables.url, sample_id=sample)
    assert (found.rule.term, found.rule.preferred.sample_id) == ("keep.prefer_base", nearest)
    assert dedup.explain(other_tables.url, sample_id=nearest).outcome == "kept_keeper"
    assert dedup.explain(other_tables.url, sample_id=best).outcome == "kept_further"


def test_refused_pairs_are_told_the_most_similar_first(other_tables):
    ids = {row["key"]: row["sample_id"] for row in table(other_tables.url, "metadata").to_pylist()}
    alone, others = ids["alone"], [ids[f"a{k}"] for k in range(3)]
    pair = {"kind": "near", "variant": "mirror", "source": "look", "found_by": "dct", "reason": "different", "distance": 0.8, "moved": 0.1}
    pair |= {"transform": None, "stage": "confirm"}
    pairs = [pair | {"src": min(alone, o), "dst": max(alone, o), "similarity": s} for o, s in zip(others, (0.8, 0.9, 0.85), strict=True)]
    overwrite(other_tables, "refused", [*pairs, pairs[0] | {"similarity": 0.82, "stage": "groups"}])
    found = dedup.explain(other_tables.url, "alone", max_refused=2)
    assert found.n_refused == 3
    assert [row.other.key for row in found.refused] == ["a1", "a2"]
    kept = {row["sample_id"] for row in table(other_tables.url, "manifest").to_pylist()}
    assert [row.is_kept for row in found.refused] == [ids["a1"] in kept, ids["a2"] in kept]
    assert not found.refused[0].is_same_group
    text = next(text for _, text in explanation_lines(found) if text.startswith("a1 in"))
    assert text.startswith("a1 in 00000.tar: 0.9000, look by dct, mirror, different, distance 0.800 (by confirm)")


def test_a_crowd_of_many_thousands_is_read_by_its_own_edges(other_tables):
    """Edges of two components lie among each other in the files; the path is that of one of them."""
    n = 20_000
    meta = table(other_tables.url, "metadata").to_pylist()
    start, end = meta[0]["sample_id"], meta[-1]["sample_id"]
    inner = np.arange(start + 1_000, start + 1_000 + 2 * n, 2)  # no samples: the path of three leads past them
    rng = np.random.default_rng(0)
    rows = [edge(int(a), int(b), float(s)) for a, b, s in zip(inner[:-1], inner[1:], rng.uniform(0.7, 0.8, n - 1), strict=True)]
    rows += [edge(int(a) + 1, int(b) + 1, 0.99) for a, b in zip(inner[:-1], inner[1:], strict=True)]  # another component
    middle = meta[1]["sample_id"]
    rows += [edge(middle, int(inner[0]), 0.9), edge(int(inner[-1]), end, 0.9)]
    rows += [edge(min(start, middle), max(start, middle), 0.95), edge(min(middle, end), max(middle, end), 0.85)]
    overwrite(other_tables, "edges", sorted(rows, key=lambda row: (row["src"], row["dst"])))
    overwrite(other_tables, "exact", [])
    members = [start, middle, *inner.tolist(), end]
    group = {"component_id": start, "raw_component_id": start, "anchor_id": start, "similarity_to_anchor": 0.9, "distance_to_anchor": None}
    overwrite(other_tables, "groups", [{"sample_id": member} | group for member in members])
    count = {"component_id": start, "duplication_count": len(members)}
    overwrite(other_tables, "manifest", [meta[-1] | count])
    dropped = count | {"keeper_id": end, "keeper_shard": "x", "keeper_key": "x", "kind": "near", "similarity_to_keeper": 0.7}
    overwrite(other_tables, "duplicates", [meta[0] | dropped])
    found = dedup.explain(other_tables.url, sample_id=start)
    assert [sample.sample_id for sample in found.path_samples] == [start, middle, end]
    assert math.isclose(min(step.similarity for step in found.path), 0.85, rel_tol=1e-6)
    assert found.component.n_raw_members == n + 3
    assert found.n_edges == 1


def test_unfinished_and_mixed_runs_are_refused(other_tables, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        dedup.explain(str(tmp_path / "nothing"), "a0")
    record = read_record(other_tables.url, "groups")
    write_record(other_tables.url, replace(record, output_version=99))
    with pytest.raises(RunDirectoryError, match="made from an earlier 'groups'"):
        dedup.explain(other_tables.url, "a0")
    (tmp_path / "run" / "_stages" / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match="no finished stage 'manifest'"):
        dedup.explain(other_tables.url, "a0")
    # what was rejected is known before
    assert dedup.explain(other_tables.url, "broken").outcome == "rejected"


def test_edges_of_another_run_are_noticed(other_tables):
    row = next(row for row in table(other_tables.url, "duplicates").to_pylist() if row["kind"] == "near")
    overwrite(other_tables, "edges", [])
    with pytest.raises(RunDirectoryError, match="no edges join sample"):
        dedup.explain(other_tables.url, sample_id=row["sample_id"])
    overwrite(other_tables, "edges", [edge(row["sample_id"], row["sample_id"] + 1000, 0.9)])
    groups = [r for r in table(other_tables.url, "groups").to_pylist() if r["sample_id"] == row["sample_id"]]
    overwrite(other_tables, "groups", [groups[0], groups[0] | {"sample_id": row["sample_id"] + 1000}])
    with pytest.raises(RunDirectoryError, match=f"no sample {row['sample_id'] + 1000}, which its other tables name"):
        dedup.explain(other_tables.url, sample_id=row["sample_id"])


def test_an_explanation_is_frozen(run_dir):
    found = dedup.explain(run_dir, "alone")
    assert isinstance(found, Explanation)
    with pytest.raises(AttributeError):
        found.outcome = "rejected"


@pytest.mark.parametrize(
    ("asked", "meant"), [("1.JPG", "0001.jpg"), ("a/0001.jpg", "0001.jpg"), ("photo_17.png", "photo_12.jpg"), ("nothing like it", None)]
)
def test_near_keys_are_suggested(tmp_path, asked, meant):
    for number, name in enumerate(("0001.jpg", "0002.jpg", "0011.jpg", "photo_12.jpg", "photo_33.jpg")):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encode(scene(number)))
    config = load_config(
        None, [f"input.images={tmp_path}/photos", f"output.run_dir={tmp_path}/run", "engine.workers=1", "report.enabled=false"]
    )
    shared_workers.run(config)
    with pytest.raises(InputError) as refused:
        dedup.explain(str(tmp_path / "run"), asked)
    assert (f"did you mean {meant}" in str(refused.value)) if meant else ("did you mean" not in str(refused.value))
