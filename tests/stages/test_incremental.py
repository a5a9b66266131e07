"""Runs that add to an earlier one, against one run over everything."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image, ImageFilter, ImageOps
from run_tables import Notes, assert_same_tables
from shard_data import Sample, encode, make_samples, scene, write_shards, write_tar
from vector_data import copies_of, power_law

from dedup.cli.show.run import summary_lines
from dedup.config import (
    BaseConfig,
    Config,
    EmbedConfig,
    EncoderConfig,
    EngineConfig,
    IndexConfig,
    InputConfig,
    KeepConfig,
    OutputConfig,
    SearchConfig,
)
from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.runs.index import load_lists
from dedup.stages.embed import sources
from dedup.stages.embed.sources import inherit_partitions
from dedup.stages.index import stage as index
from dedup.stages.index import views as looks
from dedup.stages.stage import StageContext
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
    return read_table(Run(str(out)).table(name)).to_pylist()


@pytest.fixture
def with_lists_of(monkeypatch):
    """Let runs use the quantizers of another run instead of training their own."""

    def use(run_dir):
        monkeypatch.setattr(index, "train_lists", lambda *_, **__: load_lists(os.path.join(run_dir, "index")))
        monkeypatch.setattr(looks, "train_lists", lambda *_, **__: Run(str(run_dir)).view_lists())

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
    shared_workers.run(config_for(shards[:3], old, **sections))
    summary = shared_workers.run(config_for(shards[3:], new, old, workers=2, **sections))
    with_lists_of(old)
    shared_workers.run(config_for(shards, one, workers=2, **sections))
    assert_same_tables(new, one, SAME)
    # a part of what was found joins old and new, or nothing was tried
    first = table(old, "partitions")[-1]["partition"] + 1
    assert any((row["src"] >> 32) < first <= (row["dst"] >> 32) for row in table(new, "candidates") if row["kind"] == "near")
    assert any((row["src"] >> 32) < first <= (row["dst"] >> 32) for row in table(new, "candidates") if row["kind"] == "exact")
    assert summary.figure("index", "n_base_images") == len(table(old, "representatives"))


def test_three_runs_are_one(shards, tmp_path, with_lists_of):
    sections = {"search": SearchConfig(**LISTS)}
    base = ""
    for number, part in enumerate((shards[:2], shards[2:4], shards[4:])):
        out = tmp_path / str(number)
        shared_workers.run(config_for(part, out, base, **sections))
        base = out
    with_lists_of(tmp_path / "0")
    shared_workers.run(config_for(shards, tmp_path / "one", **sections))
    assert_same_tables(base, tmp_path / "one", SAME)


def test_byte_identical_copies_raise_the_counts_of_others(tmp_path, with_lists_of):
    """Nothing but copies is new: no new distinct image, and yet old ones have more neighbours."""
    samples = make_samples(n_scenes=30, seed=5, n_broken=0)
    write_tar(tmp_path / "a.tar", samples)
    chosen = [sample for sample in samples if sample.source % 4 == 0][::2]
    write_tar(tmp_path / "b.tar", [replace(sample, key=f"again-{sample.key}") for sample in chosen])
    sections = {"search": SearchConfig(**LISTS), "index": IndexConfig(codes="none")}
    shared_workers.run(config_for([tmp_path / "a.tar"], tmp_path / "old", **sections))
    shared_workers.run(config_for([tmp_path / "b.tar"], tmp_path / "new", tmp_path / "old", **sections))
    with_lists_of(tmp_path / "old")
    shared_workers.run(config_for([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "one", **sections))
    assert_same_tables(tmp_path / "new", tmp_path / "one", SAME)
    before, after = ({row["sample_id"]: row["n_neighbors"] for row in table(tmp_path / name, "neighbors")} for name in ("old", "new"))
    copied = {row["sample_id"] for row in table(tmp_path / "old", "metadata") if row["key"] in {sample.key for sample in chosen}}
    assert any(after[sample] > count for sample, count in before.items() if sample not in copied)


def picture(seed):
    return scene(seed, (240, 200)).filter(ImageFilter.GaussianBlur(6))


@pytest.mark.parametrize("search", [{}, LISTS], ids=["one list", "lists"])
def test_turned_framed_and_cropped_copies_across_old_and_new(tmp_path, with_lists_of, search):
    changes = [
        ImageOps.mirror,
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: ImageOps.expand(image, 20, (255, 255, 255)),
        lambda image: image.crop((18, 15, 222, 185)),
    ]
    old = [Sample(f"{i:03d}", encode(picture(i)), "c", i) for i in range(16)]
    old += [Sample(f"{i:03d}-turned", encode(ImageOps.flip(picture(i))), "c", i) for i in range(4)]
    new = [Sample(f"{i:03d}-changed", encode(changes[i % 4](picture(i))), "c", i) for i in range(12)]
    new += [Sample(f"{i:03d}-new", encode(picture(i)), "c", i) for i in range(20, 26)]
    write_tar(tmp_path / "a.tar", old)
    write_tar(tmp_path / "b.tar", new)
    sections = {"search": SearchConfig(**search)}
    shared_workers.run(config_for([tmp_path / "a.tar"], tmp_path / "old", **sections))
    shared_workers.run(config_for([tmp_path / "b.tar"], tmp_path / "new", tmp_path / "old", **sections))
    with_lists_of(tmp_path / "old")
    shared_workers.run(config_for([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "one", **sections))
    assert_same_tables(tmp_path / "new", tmp_path / "one", SAME)
    across = [
        row for row in table(tmp_path / "new", "edges") if row["source"] == "look" and row["src"] >> 32 == 0 and row["dst"] >> 32 == 1
    ]
    assert {row["variant"] for row in across} >= {"mirror", "none"}
    assert len(across) >= 6


def write_vectors(folder, rows):
    """A folder of embeddings as clip-retrieval writes them."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", rows.astype(np.float16))
    keys = [f"{folder.name}-{place}" for place in range(len(rows))]
    pq.write_table(pa.table({"key": keys, "caption": keys}), folder / "metadata" / "metadata_0.parquet")


def vectors_config(folder, out, base="", *settings):
    given = ["encoder.name=precomputed", f"input.embeddings={folder}", f"output.run_dir={out}", f"base.run_dir={base}", "engine.workers=1"]
    return load_config(None, [*given, *settings])


def angles(*degrees):
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned), np.zeros(len(turned))], axis=1)


def test_a_new_image_joins_two_old_groups(tmp_path):
    """0 and 30 degrees are no copies at 0.95, which 15 degrees is of both."""
    write_vectors(tmp_path / "a", angles(0, 2, 30, 32, 90))
    write_vectors(tmp_path / "b", angles(16, 140))
    shared_workers.run(vectors_config(tmp_path / "a", tmp_path / "old"))
    shared_workers.run(vectors_config(tmp_path / "b", tmp_path / "new", tmp_path / "old"))
    before, after = ({row["sample_id"]: row["raw_component_id"] for row in table(tmp_path / name, "groups")} for name in ("old", "new"))
    assert before == {0: 0, 1: 0, 2: 2, 3: 2}
    assert after == dict.fromkeys([0, 1, 2, 3, 1 << 32], 0)
    counts = {row["sample_id"]: row["n_neighbors"] for row in table(tmp_path / "new", "neighbors")}
    assert counts == {0: 2, 1: 2, 2: 2, 3: 2, 1 << 32: 4}


def test_a_crowd_on_both_sides_has_exact_counts_and_one_group(tmp_path, with_lists_of):
    rng = np.random.default_rng(4)
    centre = power_law(rng, 1, 32)[0]
    rows = np.concatenate([copies_of(rng, centre, 2_400, rng.uniform(0.99, 0.999, 2_400)), power_law(rng, 800, 32)])
    rows = rows[rng.permutation(len(rows))]
    equal = rows[rng.integers(0, 2_000, 100)]
    write_vectors(tmp_path / "a", rows[:2_000])
    write_vectors(tmp_path / "b", np.concatenate([rows[2_000:], equal]))
    together = tmp_path / "together"
    for number, folder in enumerate(("a", "b")):
        for kind, suffix in (("img_emb", "npy"), ("metadata", "parquet")):
            (together / kind).mkdir(parents=True, exist_ok=True)
            (together / kind / f"{kind}_{number}.{suffix}").symlink_to(tmp_path / folder / kind / f"{kind}_0.{suffix}")
    lists = ["search.exhaustive_below=0", "search.nlist=3", "search.nprobe=2", "index.codes=none", "search.all_alike=continue"]
    shared_workers.run(vectors_config(tmp_path / "a", tmp_path / "old", "", *lists))
    shared_workers.run(vectors_config(tmp_path / "b", tmp_path / "new", tmp_path / "old", *lists))
    index_dir = tmp_path / "old"
    with_lists_of(index_dir)
    shared_workers.run(vectors_config(together, tmp_path / "one", "", *lists))
    for name in ("representatives", "exact", "assignments", "neighbors", "groups", "histogram"):
        assert_same_tables(tmp_path / "new", tmp_path / "one", (name,))
    assert max(row["duplication_count"] for row in table(tmp_path / "new", "histogram")) >= 2_400


@pytest.mark.parametrize("is_new_better", [False, True])
def test_keepers_of_the_base_stay_if_asked(tmp_path, is_new_better):
    small, large = encode(scene(1)), encode(scene(1).resize((192, 160), Image.Resampling.BICUBIC))
    others = [Sample(f"other{i}", encode(scene(10 + i)), "c") for i in range(4)]
    write_tar(tmp_path / "a.tar", [Sample("first", small if is_new_better else large, "c"), *others[:2]])
    write_tar(tmp_path / "b.tar", [Sample("second", large if is_new_better else small, "c"), *others[2:]])
    shared_workers.run(config_for([tmp_path / "a.tar"], tmp_path / "old"))
    kept = {}
    for prefers in (False, True):
        out = tmp_path / f"new-{prefers}"
        summary = shared_workers.run(
            config_for(
                [tmp_path / "b.tar"], out, tmp_path / "old", keep=KeepConfig(["width*height desc", "sample_id"], prefer_base=prefers)
            )
        )
        kept[prefers] = {row["key"] for row in table(out, "manifest")} - {sample.key for sample in others}
    assert kept == {False: {"second" if is_new_better else "first"}, True: {"first"}}
    assert summary.records["manifest"].inputs["base"]


def test_all_that_the_base_kept_of_a_group_stay(tmp_path):
    write_vectors(tmp_path / "a", angles(0, 2, 4, 90))
    write_vectors(tmp_path / "b", angles(3))
    shared_workers.run(vectors_config(tmp_path / "a", tmp_path / "old", "", "keep.per_component=2"))
    kept = {row["key"] for row in table(tmp_path / "old", "manifest")}
    assert kept == {"a-0", "a-1", "a-3"}
    for prefers, expected in (("false", {"a-0", "a-3"}), ("true", kept)):
        out = tmp_path / prefers
        shared_workers.run(vectors_config(tmp_path / "b", out, tmp_path / "old", f"keep.prefer_base={prefers}"))
        assert {row["key"] for row in table(out, "manifest")} == expected
    near = {row["key"]: row["keeper_key"] for row in table(tmp_path / "true", "duplicates")}
    assert near == {"a-2": "a-1", "b-0": "a-1"}


@pytest.fixture(scope="module")
def old(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("old") / "run"
    shared_workers.run(config_for(shards[:3], out))
    return out


def test_files_of_the_base_are_linked_and_stay_as_they_are(shards, old, tmp_path):
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in old.rglob("*") if path.is_file()}
    config = config_for(shards[3:], tmp_path / "new", old)
    shared_workers.run(config)
    vectors = "embeddings/img_emb/img_emb_00001.npy"
    assert (tmp_path / "new" / vectors).samefile(old / vectors)
    shared_workers.run(replace(config, confirm=replace(config.confirm, max_distance=0.2)), redo=True)
    shared_workers.run(replace(config, input=InputConfig([str(path) for path in shards])), redo=True)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in old.rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "new").rglob("_*-img_emb*"))


def test_files_are_copied_where_they_can_not_be_linked(shards, old, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    context = StageContext(config_for(shards[3:], tmp_path / "new", old), Here())
    assert sorted(inherit_partitions(context)) == [0, 1, 2]
    for path in (old / "embeddings" / "img_emb").iterdir():
        mine = tmp_path / "new" / path.relative_to(old)
        assert mine.read_bytes() == path.read_bytes()
        assert not mine.samefile(path)


class Here(LocalEngine):
    """Tasks run in this process."""

    def map_partitions(self, work, tasks, **_):
        yield from enumerate(map(work, tasks))


def test_old_shards_may_be_listed_and_may_be_gone(shards, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    mine = [shutil.copy2(shard, folder) for shard in shards]
    shared_workers.run(config_for(mine[:3], tmp_path / "old"))
    shared_workers.run(config_for(mine, tmp_path / "listed", tmp_path / "old"))
    verdicts = {(row["src"], row["dst"]): row["distance"] for row in table(tmp_path / "old", "edges") if row["kind"] == "near"}
    for path in mine[:3]:
        os.unlink(path)
    shared_workers.run(config_for(mine[3:], tmp_path / "gone", tmp_path / "old"))
    assert_same_tables(tmp_path / "listed", tmp_path / "gone", ("partitions", "metadata", "rejected", "neighbors", "candidates"))
    # what was judged stands, although no picture of it can be read any more
    now = {(row["src"], row["dst"]): row["distance"] for row in table(tmp_path / "gone", "edges") if row["kind"] == "near"}
    assert verdicts
    assert {pair: now[pair] for pair in verdicts} == verdicts
    assert any(row["reason"] == "unreadable" for row in table(tmp_path / "gone", "refused"))


def test_nothing_new_is_the_base_again(shards, old, tmp_path):
    shared_workers.run(config_for(shards[:3], tmp_path / "new", old))
    assert_same_tables(old, tmp_path / "new", SAME)


def test_old_shards_may_be_gone_where_thumbnails_are_kept(shards, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    mine = [shutil.copy2(shard, folder) for shard in shards]
    thumbnails = {"embed": EmbedConfig(thumbnails="true")}
    shared_workers.run(config_for(mine[:3], tmp_path / "old", **thumbnails))
    for path in mine[:3]:
        os.unlink(path)
    shared_workers.run(config_for(mine[3:], tmp_path / "new", tmp_path / "old", **thumbnails))
    across = [row for row in table(tmp_path / "new", "edges") if row["kind"] == "near" and row["src"] >> 32 < 3 <= row["dst"] >> 32]
    assert across
    assert all(row["confirmed"] for row in across)


def test_a_changed_old_shard_is_refused(shards, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    mine = [shutil.copy2(shard, folder) for shard in shards]
    shared_workers.run(config_for(mine[:2], tmp_path / "old"))
    write_tar(mine[1], make_samples(n_scenes=3, seed=8))
    with pytest.raises(InputError, match=rf"1 source changed since .*{Path(mine[1]).name}.*another name"):
        shared_workers.run(config_for(mine, tmp_path / "new", tmp_path / "old"))
    assert not (tmp_path / "new").exists()
    shared_workers.run(config_for(mine[2:], tmp_path / "new", tmp_path / "old"))  # it need not be listed


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"search": SearchConfig(min_similarity=0.8)}, r"search.min_similarity: 0.7 → 0.8"),
        ({"search": SearchConfig(views=False)}, r"search.views: true → false"),
        ({"search": SearchConfig(best_edges=3)}, r"search.best_edges: 8 → 3"),
        ({"encoder": EncoderConfig(name="clip", pretrained="nowhere.pt")}, r"encoder.name: dct → clip"),
        ({"embed": EmbedConfig(shards_per_partition=2)}, r"embed.shards_per_partition: 1 → 2"),
        ({"input": InputConfig(carry=["punsafe"])}, r"input.carry"),
    ],
)
def test_another_configuration_than_the_bases_is_refused(shards, old, tmp_path, monkeypatch, sections, what):
    monkeypatch.setattr(sources, "encoder_fingerprint", lambda encoder: {"encoder": encoder.name})
    config = config_for(shards[3:], tmp_path / "new", old)
    sections = {name: replace(value, shards=config.input.shards) if name == "input" else value for name, value in sections.items()}
    with pytest.raises(RunDirectoryError, match=rf"made with another configuration.*{what}"):
        shared_workers.run(replace(config, **sections))
    assert not (tmp_path / "new").exists()


def test_another_encoder_than_the_bases_is_refused(shards, old, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "encoder_fingerprint", lambda encoder: {"encoder": "dct", "decoder": "another"})
    with pytest.raises(RunDirectoryError, match=r"decoder: .* → another"):
        shared_workers.run(config_for(shards[3:], tmp_path / "new", old))


def test_what_may_differ(shards, old, tmp_path):
    config = config_for(shards[3:], tmp_path / "new", old, keep=KeepConfig(order_by=["sample_id"]))
    config = replace(config, search=SearchConfig(recall_queries=5), index=IndexConfig(codes="none"))
    assert shared_workers.run(config).figure("index", "codes") == "none"


def test_no_run_no_base(shards, old, tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no run: expected embeddings/_plan.json"):
        shared_workers.run(config_for(shards, tmp_path / "new", tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"is output.run_dir itself"):
        shared_workers.run(config_for(shards, old, old))
    with pytest.raises(ConfigError, match=r"keep.prefer_base=true without base.run_dir"):
        shared_workers.run(config_for(shards, tmp_path / "new", keep=KeepConfig(prefer_base=True)))
    shared_workers.run(config_for(shards[:1], tmp_path / "half"), stages=("embed", "index"))
    with pytest.raises(RunDirectoryError, match=r"half: stage pairs is not finished"):
        shared_workers.run(config_for(shards[1:], tmp_path / "new", tmp_path / "half"))


def test_a_base_that_changed_makes_the_run_stale(shards, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    shared_workers.run(config_for(shards[:2], old))
    shared_workers.run(config_for(shards[3:], new, old))
    assert shared_workers.run(config_for(shards[3:], new, old)).skipped == STAGE_NAMES
    shared_workers.run(config_for(shards[:3], old), redo=True)
    with pytest.raises(RunDirectoryError, match=r"base: "):
        shared_workers.run(config_for(shards[3:], new, old))
    with pytest.raises(RunDirectoryError, match=r"another base.run_dir"):
        shared_workers.run(config_for(shards[3:], new, old), stages=("pairs",))
    shared_workers.run(config_for(shards[3:], new, old), redo=True)
    shared_workers.run(config_for(shards, tmp_path / "one"))
    assert components(new) == components(tmp_path / "one")  # partitions keep the numbers they had


def test_a_finished_run_needs_its_base_no_longer(shards, old, tmp_path):
    base, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(old, base)
    config = config_for(shards[3:], new, base)
    shared_workers.run(config)
    before = table(new, "targets")
    shutil.rmtree(base)
    alone = replace(config, base=BaseConfig())
    shared_workers.run(alone, stages=("manifest", "statistics", "targets"), redo=True)
    assert table(new, "targets") == before
    with pytest.raises(RunDirectoryError, match=r"base: .* → absent"):
        shared_workers.run(alone)


def components(out):
    found = {}
    for name in ("manifest", "duplicates"):
        for row in table(out, name):
            found.setdefault(row["component_id"], set()).add(row["key"])
    return sorted(map(sorted, found.values()))


@pytest.mark.parametrize(
    ("stage", "after"),
    [("inherit_partition", 1), ("embed_partition", 1), ("assign_block", 0), ("find_owners", 0), ("confirm_components", 1)],
)
def test_a_run_that_was_stopped_goes_on(shards, old, tmp_path, stage, after):
    class Stopping(LocalEngine):
        def map_partitions(self, work, tasks, **options):
            for n_done, result in enumerate(super().map_partitions(work, tasks, **options)):
                if getattr(work, "__name__", "") == stage and n_done >= after:
                    raise KeyboardInterrupt
                yield result

    config, engine = config_for(shards[3:], tmp_path / "new", old), Stopping(1)
    with pytest.raises(KeyboardInterrupt):
        shared_workers.run(config, engine=engine)
    engine.close()
    shared_workers.run(config)
    shared_workers.run(config_for(shards[3:], tmp_path / "other", old))
    assert_same_tables(tmp_path / "new", tmp_path / "other", SAME)


def test_the_summary_says_whether_the_lists_suit(shards, old, tmp_path):
    config = config_for(shards[3:], tmp_path / "new", old)
    lines = dict(summary_lines(shared_workers.run(config), config))
    n_old, n_all = len(table(old, "representatives")), len(table(tmp_path / "new", "representatives"))
    assert lines["base"] == f"{n_old:,} of them from the base, {n_all - n_old:,} new; the base's lists: they suit"


def test_images_of_another_kind_are_told(tmp_path):
    rng = np.random.default_rng(0)
    write_vectors(tmp_path / "a", power_law(rng, 2_000, 32))
    write_vectors(tmp_path / "same", power_law(rng, 500, 32))
    write_vectors(tmp_path / "other", power_law(rng, 500, 32)[:, ::-1])
    lists = ["search.exhaustive_below=0", "search.nlist=40", "search.nprobe=4", "index.codes=none"]
    shared_workers.run(vectors_config(tmp_path / "a", tmp_path / "old", "", *lists))
    said = {}
    for kind in ("same", "other"):
        notes = Notes()
        summary = shared_workers.run(vectors_config(tmp_path / kind, tmp_path / f"new-{kind}", tmp_path / "old", *lists), reporter=notes)
        said[kind] = [note for note in notes.notes if "no longer fit" in note]
        drift = summary.figure("index", "drift")
        assert bool(drift["reasons"]) == (kind == "other")
        assert bool(said[kind]) == (kind == "other")


@pytest.mark.spark
def test_spark_gives_the_same_tables(shards, tmp_path, start_spark):
    sections = {"search": SearchConfig(**LISTS), "keep": KeepConfig(prefer_base=True)}
    shared_workers.run(config_for(shards[:3], tmp_path / "old", **sections | {"keep": KeepConfig()}))
    shared_workers.run(config_for(shards[3:], tmp_path / "local", tmp_path / "old", **sections))
    engine = start_spark(sends_rows=True)
    try:
        shared_workers.run(config_for(shards[3:], tmp_path / "spark", tmp_path / "old", **sections), engine=engine)
    finally:
        engine.close()
    assert_same_tables(tmp_path / "local", tmp_path / "spark", SAME)
