"""The whole job on small shards, against planted truth and plain Python."""

import collections
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from shard_data import Sample, encode, make_samples, scene, write_shards, write_tar
from vector_data import all_similarities

from dedup import schemas
from dedup.config import Config, ConfirmConfig, EngineConfig, IndexConfig, InputConfig, KeepConfig, OutputConfig, SearchConfig
from dedup.config.key import STAGE_NAMES
from dedup.engines.local import LocalEngine
from dedup.errors import AccountingError, ConfigError, InputError, RunDirectoryError
from dedup.numerics.graph.components import connected_components
from dedup.numerics.search.lists import pack_lists
from dedup.pipeline import plan
from dedup.runs.directory import Run
from dedup.stages.groups import stage as groups
from dedup.stages.manifest import stage as manifest
from dedup.stages.pairs import stage as pairs
from dedup.stages.pairs import views
from dedup.stages.stage import StageContext
from dedup.storage.tables import read_table


def config_for(shards, out, workers=1, **sections):
    base = Config(input=InputConfig(shards=[shards]), output=OutputConfig(str(out)), engine=EngineConfig(workers=workers))
    return replace(base, **sections)


def table(out, name):
    return read_table(Run(str(out)).table(name))


def all_tables(out):
    """Bytes-independent content of every table."""
    return {name: table(out, name).to_pylist() for name in schemas.TABLES if name not in ("assignments",)}


@pytest.fixture(scope="module")
def samples():
    return make_samples()


@pytest.fixture(scope="module")
def shards(samples, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), samples)


@pytest.fixture(scope="module")
def run_dir(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    shared_workers.run(config_for(shards, out, workers=2))
    return out


def test_every_table_has_its_schema(run_dir):
    for name, schema in schemas.TABLES.items():
        layout = Run(str(run_dir)).table(name)
        for path in Path(layout.path).glob(layout.pattern):
            assert pq.read_schema(path).equals(schema), name


def test_planted_copies_are_found_and_nothing_else(run_dir, samples):
    component = {row["key"]: row["component_id"] for name in ("manifest", "duplicates") for row in table(run_dir, name).to_pylist()}
    by_source, by_component = collections.defaultdict(set), collections.defaultdict(set)
    for sample in samples:
        if sample.source >= 0:
            by_source[sample.source].add(component[sample.key])
            by_component[component[sample.key]].add(sample.source)
    assert all(len(found) == 1 for found in by_source.values())
    assert all(len(found) == 1 for found in by_component.values())


def test_every_sample_is_in_exactly_one_table(run_dir, samples):
    keys = [row["key"] for name in ("manifest", "duplicates", "excluded", "rejected") for row in table(run_dir, name).to_pylist()]
    assert sorted(keys) == sorted(sample.key for sample in samples)
    rejected = table(run_dir, "rejected").to_pylist()
    assert {row["key"] for row in rejected} == {sample.key for sample in samples if sample.source < 0}
    assert {row["reason"] for row in rejected} <= set(schemas.REJECT_REASONS)


def test_edges_and_neighbors_equal_exhaustive_search(run_dir):
    metadata = table(run_dir, "metadata")
    ids = metadata["sample_id"].to_numpy()
    similarity = all_similarities(Run(str(run_dir)).vectors().take(ids))
    near = similarity >= np.float32(0.7)
    np.fill_diagonal(near, False)
    counts = {row["sample_id"]: row["n_neighbors"] for row in table(run_dir, "neighbors").to_pylist()}
    assert [counts.get(sample_id, 0) for sample_id in ids.tolist()] == near.sum(1).tolist()
    place = {sample_id: i for i, sample_id in enumerate(ids.tolist())}
    edges = table(run_dir, "edges").to_pylist()
    for edge in edges:
        assert edge["src"] < edge["dst"]
        assert edge["similarity"] == pytest.approx(similarity[place[edge["src"]], place[edge["dst"]]], abs=1e-6) or edge["kind"] == "exact"
    src, dst = np.nonzero(np.triu(near))
    expected = connected_components(src, dst, len(ids))
    found = connected_components([place[edge["src"]] for edge in edges], [place[edge["dst"]] for edge in edges], len(ids))
    assert np.array_equal(found, expected)


def test_statistics_equal_counting_by_hand(run_dir):
    groups = collections.defaultdict(list)
    for name in ("manifest", "duplicates"):
        for row in table(run_dir, name).to_pylist():
            groups[row["component_id"]].append(row)
    statistics = {row["component_id"]: row for row in table(run_dir, "statistics").to_pylist()}
    anchored = {row["sample_id"]: row["similarity_to_anchor"] for row in table(run_dir, "groups").to_pylist()}
    assert set(statistics) == {component for component, rows in groups.items() if len(rows) > 1}
    captions = collections.defaultdict(dict)
    for row in table(run_dir, "captions").to_pylist():
        captions[row["component_id"]][row["caption"]] = row["n_samples"]
    for component, row in statistics.items():
        members = groups[component]
        counted = collections.Counter(member["caption"] for member in members)
        caption, n = min(counted.items(), key=lambda item: (-item[1], item[0]))
        assert row["duplication_count"] == len(members) == members[0]["duplication_count"]
        assert row["n_exact"] == len(members) - len({member["sha256"] for member in members})
        assert row["n_urls"] == len({member["url"] for member in members})
        assert (row["n_captions"], row["caption"], row["caption_share"]) == (len(counted), caption, pytest.approx(n / len(members)))
        assert captions[component] == dict(counted)
        similar = sorted(anchored[member["sample_id"]] for member in members)
        assert row["min_similarity"] == similar[0]
        assert row["mean_similarity"] == pytest.approx(np.mean(similar[:-1]), abs=1e-6)
    sizes = collections.Counter(len(rows) for rows in groups.values())
    histogram = {row["duplication_count"]: (row["n_components"], row["n_images"]) for row in table(run_dir, "histogram").to_pylist()}
    assert histogram == {size: (n, n * size) for size, n in sizes.items()}


def test_targets_rank_the_most_duplicated_captions(run_dir):
    targets = table(run_dir, "targets").to_pylist()
    statistics = table(run_dir, "statistics").to_pylist()
    expected = sorted(statistics, key=lambda row: (-row["duplication_count"], row["component_id"]))
    assert [row["component_id"] for row in targets] == [row["component_id"] for row in expected]
    assert [row["rank"] for row in targets] == list(range(1, len(targets) + 1))
    kept = {row["component_id"]: row for row in table(run_dir, "manifest").to_pylist()}
    assert all(row["target_id"] == kept[row["component_id"]]["sha256"][:16] for row in targets)
    lines = [json.loads(line) for line in (run_dir / "targets.jsonl").read_text().splitlines()]
    assert lines == targets


def test_dropped_samples_name_a_kept_one_within_the_threshold(run_dir):
    kept = {row["sample_id"]: row for row in table(run_dir, "manifest").to_pylist()}
    dropped = table(run_dir, "duplicates").to_pylist()
    assert {row["kind"] for row in dropped} == {"exact", "near"}
    for row in dropped:
        keeper = kept[row["keeper_id"]]
        assert (row["keeper_shard"], row["keeper_key"], row["component_id"]) == (keeper["shard"], keeper["key"], keeper["component_id"])
        assert row["similarity_to_keeper"] >= np.float32(0.7)
        assert keeper["width"] * keeper["height"] >= row["width"] * row["height"]


def test_byte_ranges_lead_to_the_image(run_dir, samples):
    by_key = {sample.key: sample for sample in samples}
    for row in table(run_dir, "metadata").to_pylist()[::7]:
        with open(row["shard"], "rb") as file:
            file.seek(row["byte_offset"])
            assert file.read(row["n_bytes"]) == by_key[row["key"]].image


@pytest.mark.parametrize("hot_rows", [None, 20])
def test_forced_lists_give_the_same_tables(run_dir, shards, tmp_path, monkeypatch, hot_rows):
    if hot_rows:  # every list is shared out, and its shares are written one by one
        for stage in (pairs, views):
            monkeypatch.setattr(stage, "pack_lists", partial(pack_lists, hot_rows=hot_rows, hot_cost=0.0))
    # every vector goes to every list, so that nothing but the bookkeeping of lists can differ
    search = SearchConfig(exhaustive_below=0, nlist=5, nprobe=5)
    shared_workers.run(config_for(shards, tmp_path, workers=2, search=search))
    n_files = len(list((tmp_path / "candidates").glob("part-0*.parquet")))
    assert n_files > 20 if hot_rows else n_files < 20
    expected, found = all_tables(run_dir), all_tables(tmp_path)
    for name in ("candidates", "edges", "refused", "neighbors", "groups", "manifest", "duplicates", "statistics", "targets"):
        order = str if name != "edges" else (lambda row: (row["src"], row["dst"]))
        assert sorted(found[name], key=order) == sorted(expected[name], key=order), name


def test_giant_components_are_cut_alike(shards, tmp_path):
    config = config_for(shards, tmp_path, confirm=ConfirmConfig(enabled=False))
    shared_workers.run(config, ["embed", "index", "pairs", "confirm", "groups"])
    expected = table(tmp_path, "groups").to_pylist()
    assert len(expected) > 20
    for comparisons in (10**6, 1):  # all anchors compared with all members; one, and the rest along the edges
        groups.form_groups(StageContext(config, LocalEngine(1)), groups.Limits(compared_up_to=1, comparisons=comparisons))
        assert table(tmp_path, "groups").to_pylist() == expected


def test_workers_and_order_of_shards_do_not_matter(run_dir, shards, tmp_path):
    names = sorted(Path(shards).parent.glob("*.tar"), reverse=True)
    config = replace(config_for(shards, tmp_path), input=InputConfig(shards=[str(name) for name in names]))
    shared_workers.run(config)
    assert all_tables(tmp_path) == all_tables(run_dir)


def test_finished_stages_are_skipped_and_changes_are_refused(shards, tmp_path):
    config = config_for(shards, tmp_path)
    first = shared_workers.run(config)
    assert first.skipped == ()
    again = shared_workers.run(config)
    assert again.skipped == STAGE_NAMES
    assert again.records == first.records
    other = replace(config, search=replace(config.search, min_similarity=0.9))
    with pytest.raises(
        RunDirectoryError, match=r"stage 'index' was made with another configuration: search.min_similarity: 0.7 → 0.9.*--redo"
    ):
        shared_workers.run(other)
    redone = shared_workers.run(other, redo=True)
    assert redone.skipped == ("embed",)
    keep = replace(other, keep=KeepConfig(order_by=["n_bytes", "sample_id"]))
    assert shared_workers.run(keep, redo=True).skipped == ("embed", "index", "pairs", "confirm", "groups", "exclude", "statistics")
    assert [stage.state for stage in plan.status(str(tmp_path))] == ["done"] * 9
    assert plan.status(str(tmp_path), config)[1].changes == ["search.min_similarity: 0.9 → 0.7"]


def test_embedding_resumes_by_partition(shards, samples, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(Path(shards).parent, folder)
    config = config_for(str(folder / "*.tar"), tmp_path / "out")
    shared_workers.run(config, ["embed"])
    out = tmp_path / "out" / "embeddings"
    before = {path.name: path.stat().st_mtime_ns for path in (out / "img_emb").iterdir()}
    (tmp_path / "out" / "_stages" / "embed.json").unlink()
    (out / "_done" / "00001.json").unlink()
    shared_workers.run(config, ["embed"])
    after = {path.name: path.stat().st_mtime_ns for path in (out / "img_emb").iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["img_emb_00001.npy"]
    # a new shard is appended, though its name sorts first
    write_tar(folder / "0000.tar", [Sample("new", encode(scene(77)), "new", 77)])
    with pytest.raises(
        RunDirectoryError, match=r"stage 'embed' was made from another input: 1 file new \(.*0000.tar\); 0 files changed; 0 files gone"
    ):
        shared_workers.run(config)
    shared_workers.run(config, redo=True)
    partitions = {Path(row["shard"]).name: row["partition"] for row in table(tmp_path / "out", "partitions").to_pylist()}
    assert partitions["0000.tar"] == len(before)
    assert partitions["00000.tar"] == 0


def test_a_missing_shard_stops_the_manifest_but_not_the_others(shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(Path(shards).parent, folder)
    gone = tmp_path / "gone.tar"
    shutil.copy(folder / "00000.tar", gone)
    listing = tmp_path / "list.txt"
    listing.write_text(f"{folder}/*.tar\n{gone}\n")
    (tmp_path / "pattern").mkdir()
    config = replace(config_for("", tmp_path / "out"), input=InputConfig(shards=[str(folder / "{00000..00009}.tar")]))
    with pytest.raises(InputError, match=r"shards can't be reached, the first: .*tar .*input.allow_missing=true"):
        shared_workers.run(config)
    assert not (tmp_path / "out" / "manifest").exists()
    n_there = len(list(folder.glob("*.tar")))
    assert len(list((tmp_path / "out" / "embeddings" / "_done").iterdir())) == n_there
    allowed = replace(config, input=replace(config.input, allow_missing=True))
    shared_workers.run(allowed)
    statuses = collections.Counter(row["status"] for row in table(tmp_path / "out", "partitions").to_pylist())
    assert statuses == {"ok": n_there, "unreadable": 10 - n_there}


def test_broken_tars_are_marked_and_their_samples_kept(samples, tmp_path):
    good = [sample for sample in samples if sample.source >= 0][:30]
    write_tar(tmp_path / "shards" / "a.tar", good[:10])
    write_tar(tmp_path / "shards" / "b.tar", good[10:20])
    whole = (tmp_path / "shards" / "b.tar").read_bytes()
    (tmp_path / "shards" / "b.tar").write_bytes(whole[: len(whole) * 6 // 10])
    (tmp_path / "shards" / "c.tar").write_text("I am no tar\n" * 100)
    write_tar(tmp_path / "shards" / "d.tar", [])
    (tmp_path / "shards" / "e.tar").write_bytes(b"")
    out = tmp_path / "out"
    config = config_for(str(tmp_path / "shards" / "*.tar"), out)
    with pytest.raises(InputError, match=r"2 of 5 shards can't be read, the first: .*c\.tar is not a tar"):
        shared_workers.run(config)
    shared_workers.run(replace(config, input=replace(config.input, allow_missing=True)))
    rows = {Path(row["shard"]).name: row for row in table(out, "partitions").to_pylist()}
    assert [rows[name]["status"] for name in ("a.tar", "b.tar", "c.tar", "d.tar")] == ["ok", "truncated", "unreadable", "ok"]
    assert rows["a.tar"]["n_samples"] == 10
    assert 4 <= rows["b.tar"]["n_samples"] < 10
    assert rows["c.tar"]["error"]
    kept = {row["key"] for name in ("manifest", "duplicates") for row in table(out, name).to_pylist()}
    assert {sample.key for sample in good[:14]} <= kept


def test_nothing_but_broken_samples(tmp_path):
    write_tar(tmp_path / "a.tar", [Sample("x", b"no image", "c"), Sample("y", b"", "c")])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"from 1 shard: all samples were rejected \(.*_image 1, .*_image 1; .*rejected says more\)"):
        shared_workers.run(config_for(str(tmp_path / "a.tar"), out))
    assert not (out / "manifest").exists()
    assert {row["reason"] for row in table(out, "rejected").to_pylist()} == {"undecodable_image", "empty_image"}


def test_low_detail_images_are_not_copies_of_each_other(tmp_path):
    from PIL import Image, ImageDraw

    entries = []
    for i in range(6):
        entries.append((f"uniform{i}", Image.new("RGB", (90, 60), (40 * i, 90, 30))))
        gradient = np.linspace(0, 255 - 30 * i, 90)[None, :, None].repeat(60, 0).repeat(3, 2).astype(np.uint8)
        entries.append((f"gradient{i}", Image.fromarray(gradient)))
        moon = Image.new("RGB", (800, 800))
        ImageDraw.Draw(moon).ellipse((280 + 12 * i, 320, 520 + 20 * i, 560 + 8 * i), fill=(230, 230, 220))
        entries.append((f"moon{i}", moon.resize((200, 200), Image.Resampling.BOX)))
    samples = [Sample(name, encode(picture, "PNG"), name, suffix="png") for name, picture in entries]
    samples.append(Sample("uniform0copy", samples[0].image, "again", suffix="png"))
    moon = entries[2][1]
    samples.append(Sample("moon0copy", encode(moon.resize((400, 400), Image.Resampling.BICUBIC), "PNG"), "again", suffix="png"))
    write_tar(tmp_path / "a.tar", samples)
    shared_workers.run(config_for(str(tmp_path / "a.tar"), tmp_path / "out"))
    dropped = {row["key"]: row["keeper_key"] for row in table(tmp_path / "out", "duplicates").to_pylist()}
    assert dropped == {"uniform0copy": "uniform0", "moon0copy": "moon0"}  # the enlarged one goes


def test_keep_policy(shards, tmp_path):
    config = config_for(shards, tmp_path, keep=KeepConfig(order_by=["n_bytes", "key desc"], per_component=2))
    shared_workers.run(config)
    groups = collections.defaultdict(list)
    for name in ("manifest", "duplicates"):
        for row in table(tmp_path, name).to_pylist():
            groups[row["component_id"]].append((row["n_bytes"], -int(row["key"]), row["sample_id"], name))
    for rows in groups.values():
        assert [name for *_, name in sorted(rows)] == ["manifest"] * min(2, len(rows)) + ["duplicates"] * max(0, len(rows) - 2)
    with pytest.raises(ConfigError, match="keep.order_by"):
        shared_workers.run(replace(config, keep=KeepConfig(order_by=["1; DROP TABLE metadata"])))


def test_accounts_are_checked_before_publishing(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MANIFEST_SQL", manifest.MANIFEST_SQL.replace("ORDER BY", "AND metadata.sample_id <> 3 ORDER BY"))
    with pytest.raises(AccountingError, match="samples were seen; nothing was published"):
        shared_workers.run(config_for(shards, tmp_path))
    assert not list((tmp_path / "manifest").glob("[!_.]*.parquet"))
    with pytest.raises(RunDirectoryError, match="holds no table"):
        table(tmp_path, "manifest")


TAMPERED = {
    "a keeper that is not kept": ("DUPLICATES_SQL", "keepers.keeper_id AS keeper_id", "keepers.keeper_id + 1000000 AS keeper_id", "have a keeper that is not kept"),
    "another group": ("DUPLICATES_SQL", "metadata.sample_id) AS component_id", "metadata.sample_id) + 1 AS component_id", "have a keeper of another group"),
    "too far": ("DUPLICATES_SQL", "keepers.distance_to_keeper AS distance_to_keeper", "CAST(NULL AS FLOAT) AS distance_to_keeper", "are less similar to their keeper than 0.7"),
    "other pixels": ("DUPLICATES_SQL", "keepers.distance_to_keeper AS distance_to_keeper", "CAST(0.2 AS FLOAT) AS distance_to_keeper", "differ from their keeper's by more than confirm.max_distance=0.15"),
    "a wrong count": ("MANIFEST_SQL", "COALESCE(counts.duplication_count,", "COALESCE(counts.duplication_count + 1,", "than their duplication_count"),
    "a wrong label": ("MANIFEST_SQL", "COALESCE(groups.component_id, metadata.sample_id)", "COALESCE(groups.component_id, metadata.sample_id + 1)", "not labelled by their own sample_id"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_does_not_hold_is_not_published(shards, tmp_path, monkeypatch, name):
    query, right, wrong, message = TAMPERED[name]
    assert right in getattr(manifest, query)
    changed = getattr(manifest, query).replace(right, wrong)
    if name == "too far":
        changed = changed.replace("keepers.similarity_to_keeper AS", "CAST(0.1 AS FLOAT) AS")
    monkeypatch.setattr(manifest, query, changed)
    with pytest.raises(AccountingError, match=message):
        shared_workers.run(config_for(shards, tmp_path))
    for folder in ("manifest", "duplicates", "excluded"):
        assert not list((tmp_path / folder).glob("[!_.]*.parquet"))


def test_folder_of_images(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for i in range(12):
        (folder / ("sub" if i % 2 else ".") / f"{i}.jpg").write_bytes(encode(scene(i % 8)))
        (folder / ("sub" if i % 2 else ".") / f"{i}.txt").write_text(f"caption {i}")
    config = Config(input=InputConfig(images=[str(folder)]), output=OutputConfig(str(tmp_path / "out")), engine=EngineConfig(workers=1))
    shared_workers.run(replace(config, embed=replace(config.embed, images_per_partition=5)))
    rows = table(tmp_path / "out", "metadata").to_pylist()
    assert len(rows) == 12
    assert {row["sample_id"] >> 32 for row in rows} == {0, 1, 2}
    assert {row["key"]: row["caption"] for row in rows}["sub/3.jpg"] == "caption 3"
    dropped = table(tmp_path / "out", "duplicates").to_pylist()
    assert len(dropped) == 4
    assert {row["kind"] for row in dropped} == {"exact"}


def test_carried_columns(tmp_path):
    samples = [Sample(str(i), encode(scene(i % 2)), "c", extra={"similarity": 0.1 * i, "LICENSE": "cc", "punsafe": None}) for i in range(4)]
    write_tar(tmp_path / "a.tar", samples)
    carry = ["similarity", "LICENSE", "punsafe"]
    config = config_for(str(tmp_path / "a.tar"), tmp_path / "out")
    config = replace(config, input=replace(config.input, carry=carry), keep=KeepConfig(order_by=["similarity desc"]))
    shared_workers.run(config)
    kept = read_table(Run(str(tmp_path / "out")).table("manifest"))
    assert kept.schema.field("similarity").type == pa.float64()
    assert [(row["key"], row["LICENSE"], row["punsafe"]) for row in kept.to_pylist()] == [("2", "cc", None), ("3", "cc", None)]


def test_stages_alone(shards, tmp_path):
    config = config_for(shards, tmp_path)
    with pytest.raises(RunDirectoryError, match="no finished stage 'embed'; run: dedup run --only embed"):
        shared_workers.run(config, ["index"])
    for name in STAGE_NAMES:
        assert shared_workers.run(config, [name]).skipped == ()
    assert shared_workers.run(config).skipped == STAGE_NAMES


def test_a_run_directory_that_is_no_folder(tmp_path, samples, run_dir):
    # the other tests write to paths; a URL of another file system takes another way through storage
    import fsspec

    write_tar(tmp_path / "a.tar", [sample for sample in samples if sample.source >= 0])
    config = config_for(str(tmp_path / "a.tar"), "memory://dedup-test/run")

    class Here(LocalEngine):
        """Runs tasks in this process, the only one that sees its memory."""

        def map_partitions(self, work, tasks, *, uses_gpu=False):
            return ((number, work(task)) for number, task in enumerate(tasks))

    try:
        shared_workers.run(config, engine=Here(1))
        assert shared_workers.run(config).skipped == STAGE_NAMES
        names = ("key", "duplication_count")
        expected = sorted(tuple(row[name] for name in names) for row in table(run_dir, "manifest").to_pylist())
        assert sorted(tuple(row[name] for name in names) for row in table(config.output.run_dir, "manifest").to_pylist()) == expected
        shared_workers.run(replace(config, keep=KeepConfig(order_by=["n_bytes"])), redo=True, engine=Here(1))
        assert table(config.output.run_dir, "targets").num_rows == table(run_dir, "targets").num_rows
    finally:
        fsspec.filesystem("memory").rm("/dedup-test", recursive=True)


def test_a_stage_alone_refuses_what_does_not_fit(shards, tmp_path):
    config = config_for(shards, tmp_path)
    shared_workers.run(config, ["embed", "index"])
    turned = replace(config, search=SearchConfig(views=False))
    with pytest.raises(RunDirectoryError, match=r"stage 'index' was made with another configuration: search.views"):
        shared_workers.run(turned, ["pairs"])
    shared_workers.run(config)
    shared_workers.run(replace(config, search=SearchConfig(min_similarity=0.9)), ["index"], redo=True)
    with pytest.raises(RunDirectoryError, match="stage 'pairs' was made from an earlier 'index'"):
        shared_workers.run(replace(config, search=SearchConfig(min_similarity=0.9)), ["manifest"])
    assert [stage.state for stage in plan.status(str(tmp_path))] == ["done"] * 2 + ["stale"] * 7


def test_a_shard_that_is_gone_for_a_while_loses_nothing(shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(Path(shards).parent, folder)
    pattern = str(folder / "{00000..00001}.tar")
    config = config_for(pattern, tmp_path / "out")
    shared_workers.run(config)
    before = all_tables(tmp_path / "out")
    (folder / "00001.tar").rename(tmp_path / "away.tar")
    for redo in (False, True):
        with pytest.raises(InputError, match="1 of 2 shards can't be reached, .*nothing was changed"):
            shared_workers.run(config, redo=redo)
    (tmp_path / "out" / "_stages" / "embed.json").unlink()
    with pytest.raises(InputError, match="was embedded before, and its results are still there"):
        shared_workers.run(config)
    allowed = replace(config, input=replace(config.input, allow_missing=True))
    shared_workers.run(allowed, redo=True)
    assert table(tmp_path / "out", "partitions").num_rows == 2
    with pytest.raises(InputError, match="can't be reached"):
        shared_workers.run(config)
    (tmp_path / "away.tar").rename(folder / "00001.tar")
    shared_workers.run(config, redo=True)
    assert all_tables(tmp_path / "out") == before


def test_partition_numbers_are_given_once(tmp_path):
    for name in "abc":
        write_tar(tmp_path / f"{name}.tar", [Sample(name, encode(scene(ord(name))), name)])
    config = config_for("", tmp_path / "out")

    def numbers(names):
        listed = replace(config, input=InputConfig(shards=[str(tmp_path / f"{name}.tar") for name in names]))
        shared_workers.run(listed, redo=True)
        return {Path(row["shard"]).stem: row["partition"] for row in table(tmp_path / "out", "partitions").to_pylist()}

    assert numbers("ab") == {"a": 0, "b": 1}
    assert numbers("a") == {"a": 0}
    assert numbers("ac") == {"a": 0, "c": 2}
    assert numbers("abc") == {"a": 0, "c": 2, "b": 3}
    config = replace(config, embed=replace(config.embed, shards_per_partition=3))
    assert set(numbers("abc").values()) == {4}


def test_changed_captions_are_a_changed_input(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encode(scene(i)))
    config = Config(input=InputConfig(images=[str(folder)]), output=OutputConfig(str(tmp_path / "out")))
    shared_workers.run(config)
    (folder / "1.txt").write_text("said later")
    shared_workers.run(config)  # a folder's files come and go: no --redo is asked for
    assert [row["caption"] for row in table(tmp_path / "out", "manifest").to_pylist()] == [None, "said later", None]


def test_product_codes_of_too_few_images(shards, tmp_path):
    with pytest.raises(ConfigError, match="index.codes=pq needs 256 distinct images"):
        shared_workers.run(config_for(shards, tmp_path, index=IndexConfig(codes="pq")))
