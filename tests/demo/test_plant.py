"""Planted duplication sets: counts, kinds and the truth, and what a run makes of them."""

import collections
import gzip
import hashlib
import io
import itertools
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import dedup
from in_process import InProcess
from PIL import Image
from shard_data import Sample, encode, write_shards, write_tar

from dedup.config import Config, InputConfig, OutputConfig
from dedup.demo import plant_sources
from dedup.demo.pictures import procedural_scene
from dedup.demo.plant import parse_counts, plant_duplicates
from dedup.demo.plant_samples import KINDS, SHOWS_OTHERS, TRUTH
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.numerics.image.descriptor import describe
from dedup.numerics.image.layouts import LAYOUTS, fill_region, show_inside, template_region
from dedup.numerics.image.planting import CHANGES
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

N_SCENES = 160
COUNTS = (1, 3, 8)


def picture(seed):
    return Image.fromarray(procedural_scene(np.random.default_rng([9, seed]), (220, 180)))


def samples_of(numbers):
    return [Sample(f"s{k:04d}", encode(picture(k)), f"scene {k}") for k in numbers]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Distinct scenes in two tars, among them a broken image and a sample without a caption."""
    samples = samples_of(range(N_SCENES))
    samples.insert(20, Sample("broken", samples[0].image[:500], "broken"))
    samples.insert(40, Sample("silent", encode(picture(1000))))
    return write_shards(tmp_path_factory.mktemp("source"), samples, per_shard=81)


@pytest.fixture(scope="module")
def originals(source):
    return {key: parts for path in sorted(Path(source).parent.glob("*.tar")) for key, parts in read_samples(path)}


@pytest.fixture(scope="module")
def planted(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("planted") / "out"
    return plant_duplicates(source, out, counts=COUNTS, images_per_count=2, edited=True, templates=True, partial=True, seed=4, per_shard=50)


@pytest.fixture(scope="module")
def truth(planted):
    return pq.read_table(planted.truth).to_pylist()


@pytest.fixture(scope="module")
def written(planted):
    return {key: parts for path in sorted(planted.out.glob("*.tar")) for key, parts in read_samples(path)}


def read_samples(path):
    """Samples of a tar in order, members that stand together grouped by key."""
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]
    for key, group in itertools.groupby(members, lambda member: member[0].split(".")[0]):
        yield key, {name.split(".")[1]: data for name, data in group}


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def image_of(parts):
    (suffix,) = set(parts) - {"json", "txt"}
    return parts[suffix]


def box_in(box, shape):
    return [round(share * side) for share, side in zip(box, [shape[1], shape[0]] * 2, strict=True)]


def by_image(truth, kind):
    groups = collections.defaultdict(list)
    for row in truth:
        if row["kind"] == kind:
            groups[row["planted_id"]].append(row)
    return groups.values()


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_sample_is_accounted_for(planted):
    n_inside = 2 * 2 * sum(COUNTS)
    assert (planted.n_read, planted.n_unusable) == (N_SCENES + 2, 2)
    assert planted.unusable == {"truncated_image": 1, "no_caption": 1}
    assert (planted.n_chosen, planted.n_inside, planted.n_left_out) == (2 * len(COUNTS) * 4, n_inside, 0)
    assert planted.n_background == N_SCENES - planted.n_chosen - n_inside
    assert planted.written == dict.fromkeys(KINDS, 2 * sum(COUNTS)) | {"background": planted.n_background}
    assert planted.n_written == sum(planted.written.values())
    said = str(planted)
    assert (
        f"read {N_SCENES + 2} samples: 2 unusable" in said and "48 shown inside" in said and "duplicates that the source holds add" in said
    )


def test_the_truth_is_what_the_tars_hold(planted, truth, written, originals):
    names = sorted(path.name for path in planted.out.iterdir())
    assert names == [f"{k:05d}.tar" for k in range(planted.n_shards)] + ["truth.parquet"]
    assert pq.read_schema(planted.truth).equals(TRUTH) and pq.read_schema(planted.truth).metadata[b"seed"] == b"4"
    assert all(field.metadata[b"meaning"] for field in TRUTH)
    assert [row["key"] for row in truth] == list(written) and len(written) == len(truth) == planted.n_written
    for row in truth:
        parts, original = written[row["key"]], originals[row["source_key"]]
        meta = json.loads(parts["json"])
        assert row["shard"] == f"{row['key'][:5]}.tar" and re.fullmatch(r"\d{9}", row["key"])
        assert hashlib.sha256(image_of(parts)).hexdigest() == row["sha256"] == meta["sha256"]
        assert parts["txt"] == original["txt"] == row["caption"].encode() and meta["caption"] == row["caption"]
        assert meta["url"] == json.loads(original["json"])["url"]
        assert [meta[name] for name in ("key", "planted_id", "source_key", "source_shard")] == [
            row[name] for name in ("key", "planted_id", "source_key", "source_shard")
        ]
        assert ("other_key" in meta) == (row["kind"] in SHOWS_OTHERS)


def test_each_image_occurs_as_often_as_its_count_says(truth):
    for kind in KINDS:
        groups = by_image(truth, kind)
        assert sorted(len(rows) for rows in groups) == sorted([*COUNTS] * 2)
        for rows in groups:
            assert {row["count"] for row in rows} == {len(rows)}
            assert len({(row["source_shard"], row["source_key"], row["caption"]) for row in rows}) == 1
    assert all(row["count"] == 1 and row["planted_id"] is None for row in truth if row["kind"] == "background")
    assert len({row["planted_id"] for row in truth} - {None}) == 4 * 2 * len(COUNTS)


def test_no_image_has_two_roles(truth, written):
    sources = collections.Counter({(row["planted_id"], row["source_key"]) for row in truth if row["planted_id"] is not None})
    used = [key for _, key in sources] + [row["source_key"] for row in truth if row["kind"] == "background"]
    used += [json.loads(written[row["key"]]["json"])["other_key"] for row in truth if row["kind"] in SHOWS_OTHERS]
    assert len(used) == len(set(used)) == N_SCENES


def test_exact_copies_have_the_bytes_of_the_original(truth, written, originals):
    counts = collections.Counter(row["sha256"] for row in truth)
    for row in truth:
        if row["kind"] in ("exact", "background"):
            assert image_of(written[row["key"]]) == originals[row["source_key"]]["jpg"]
            assert counts[row["sha256"]] == row["count"] and row["edit"] is row["box"] is None


def test_edited_copies_differ_but_for_the_first(truth, written, originals):
    names = {change.name for change in CHANGES if change.is_expected}
    for rows in by_image(truth, "edited"):
        original = originals[rows[0]["source_key"]]["jpg"]
        same = [row for row in rows if image_of(written[row["key"]]) == original]
        assert [row["edit"] for row in same] == [None]
        assert {row["edit"] for row in rows if row is not same[0]} <= names


def test_copies_are_spread_over_the_shards(truth, planted):
    for rows in [*by_image(truth, "exact"), *by_image(truth, "partial")]:
        if len(rows) == max(COUNTS):
            assert len({row["shard"] for row in rows}) > 1
    first = [row["kind"] for row in truth if row["shard"] == "00000.tar"]
    assert len(set(first)) == 5


def test_copies_of_a_template_differ_in_one_region_only(truth, written, originals):
    for rows in by_image(truth, "template"):
        assert len({tuple(row["box"]) for row in rows}) == 1
        ground = pixels(originals[rows[0]["source_key"]]["jpg"]).astype(int)
        left, top, right, bottom = box_in(rows[0]["box"], ground.shape)
        assert 0.25 <= (right - left) * (bottom - top) / (ground.shape[0] * ground.shape[1]) <= 0.6
        # JPEG mixes what lies in one block of 16 pixels
        is_outside = np.ones(ground.shape[:2], dtype=bool)
        is_outside[max(0, top - 16) : bottom + 16, max(0, left - 16) : right + 16] = False
        for row in rows:
            change = np.abs(pixels(image_of(written[row["key"]])).astype(int) - ground)
            assert change[is_outside].mean() < 4 and np.percentile(change[is_outside], 99) < 30
            assert change[top:bottom, left:right].mean() > 15
        assert len({row["sha256"] for row in rows}) == len(rows)


def test_partial_copies_show_the_image_in_their_box(truth, written, originals):
    layouts = set()
    for rows in by_image(truth, "partial"):
        original = pixels(originals[rows[0]["source_key"]]["jpg"])
        for row in rows:
            layouts.add(row["edit"])
            shown = pixels(image_of(written[row["key"]]))
            left, top, right, bottom = box_in(row["box"], shown.shape)
            height, width = original.shape[:2]
            parts = [original] + [
                original[(height - high) // 2 :, (width - wide) // 2 :][:high, :wide]
                for share in np.arange(0.6, 0.81, 0.01)
                for high, wide in [(round(share * height), round(share * width))]
            ]
            content = describe(np.ascontiguousarray(shown[top:bottom, left:right]))[0]
            assert max(float(content @ describe(np.ascontiguousarray(part))[0]) for part in parts) > 0.9
            assert (right - left) * (bottom - top) < 0.75 * shown.shape[0] * shown.shape[1]
    assert layouts == set(LAYOUTS)


def test_same_bytes_whatever_the_workers(source, planted, tmp_path):
    arguments = {"counts": COUNTS, "images_per_count": 2, "edited": True, "templates": True, "partial": True, "per_shard": 50}
    plant_duplicates(source, tmp_path / "two", **arguments, seed=4, workers=2)
    assert digests(tmp_path / "two") == digests(planted.out)
    plant_duplicates([source], tmp_path / "other", **arguments | {"seed": 5})
    assert digests(tmp_path / "other")["00000.tar"] != digests(planted.out)["00000.tar"]


def test_a_run_finds_what_was_planted(source, tmp_path):
    summary = plant_duplicates(source, tmp_path / "out", counts=(1, 4, 10), images_per_count=2, edited=True, background=60)
    assert (summary.n_background, summary.n_left_out) == (60, N_SCENES - 12 - 60)
    config = Config(InputConfig(shards=[str(tmp_path / "out" / "*.tar")]), OutputConfig(str(tmp_path / "run")))
    pipeline.run(config, engine=InProcess())
    found = {}
    for name in ("manifest", "duplicates"):
        for row in read_table(Run(config.output.run_dir).table(name), ["key", "component_id", "duplication_count"]).to_pylist():
            found[row["key"]] = row
    truth = pq.read_table(summary.truth).to_pylist()
    assert set(found) == {row["key"] for row in truth}
    n_together = n = 0
    for rows in [*by_image(truth, "exact"), *by_image(truth, "edited")]:
        components = collections.Counter(found[row["key"]]["component_id"] for row in rows)
        n_together += components.most_common(1)[0][1]
        n += len(rows)
    assert n == 60 and n_together >= 0.9 * n
    for row in truth:
        if row["kind"] in ("exact", "background"):
            assert found[row["key"]]["duplication_count"] == row["count"]


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """Scenes of which every fifth occurs twice, and a run over them."""
    folder = tmp_path_factory.mktemp("doubled")
    samples = samples_of(range(30))
    samples += [Sample(f"again{k}", samples[k].image, samples[k].caption) for k in range(0, 30, 5)]
    shards = write_shards(folder, samples, per_shard=20)
    pipeline.run(Config(InputConfig(shards=[shards]), OutputConfig(str(folder / "run"))), engine=InProcess())
    return shards, folder / "run"


def test_only_what_a_run_finds_unique_is_used(doubled, tmp_path):
    shards, run_dir = doubled
    summary = plant_duplicates(shards, tmp_path / "out", counts=(1, 2), images_per_count=3, run_dir=str(run_dir))
    truth = pq.read_table(summary.truth).to_pylist()
    assert {row["source_key"] for row in truth} == {f"s{k:04d}" for k in range(30) if k % 5}
    assert (summary.n_read, summary.n_not_unique, summary.n_left_out, summary.n_unusable) == (36, 12, 12, 0)
    assert "add to these counts" not in str(summary) and "12 left out (12 not kept, or not unique, in" in str(summary)
    with pytest.raises(ConfigError, match=r"needed 26 usable images, found 24 \(36 samples read, 0 unusable, 12 not unique in the run\)"):
        plant_duplicates(shards, tmp_path / "many", counts=(1, 2), images_per_count=13, run_dir=str(run_dir))


def test_a_run_over_other_shards_is_refused(doubled, source, tmp_path):
    with pytest.raises(
        RunDirectoryError, match="has read none of the 2 shards; expected some of those that it has, such as .*00000.tar, found"
    ):
        plant_duplicates(source, tmp_path / "out", counts=(1,), run_dir=str(doubled[1]))
    with pytest.raises(RunDirectoryError, match="holds no run"):
        plant_duplicates(source, tmp_path / "out", counts=(1,), run_dir=str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_compressed_tars_and_rows_give_what_plain_tars_give(source, tmp_path):
    write_tar(tmp_path / "plain.tar", samples_of(range(12)))
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    rows = [{"image": sample.image, "caption": sample.caption, "key": sample.key} for sample in samples_of(range(12))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = []
    for name in ("plain.tar", "packed.tar.gz", "rows.parquet"):
        summary = plant_duplicates(str(tmp_path / name), tmp_path / name.partition(".")[0], counts=(1, 4), images_per_count=2, edited=True)
        names = ("key", "planted_id", "kind", "count", "edit", "source_key", "caption", "sha256")
        found.append(pq.read_table(summary.truth, columns=list(names)).to_pylist())
        assert sorted(path.name for path in summary.out.iterdir()) == ["00000.tar", "truth.parquet"]
    assert found[0] == found[1] == found[2]


def test_texts_that_come_late_belong_to_their_images(tmp_path):
    members = [(f"{sample.key}.jpg", sample.image) for sample in samples_of(range(4))]
    members += [(f"s{k:04d}.txt", b"late %d" % k) for k in range(3)]
    with tarfile.open(tmp_path / "unsorted.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    summary = plant_duplicates(str(tmp_path / "unsorted.tar"), tmp_path / "out", counts=(2,), images_per_count=1)
    assert (summary.n_read, summary.unusable, summary.n_background) == (4, {"no_caption": 1}, 2)
    truth = pq.read_table(summary.truth).to_pylist()
    assert all(row["caption"] == f"late {int(row['source_key'][1:])}" for row in truth)
    assert all(json.loads(parts["json"])["url"] is None for _, parts in read_samples(tmp_path / "out" / "00000.tar"))


def test_shards_that_break_off_are_used_up_to_there_and_named(tmp_path):
    write_tar(tmp_path / "a.tar", samples_of(range(8)))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: len(data) // 2])
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    summary = plant_duplicates(str(tmp_path / "*.tar"), tmp_path / "out", counts=(2,), images_per_count=1)
    assert summary.n_broken_shards == 2 and 2 < summary.n_read < 8
    assert "2 shards not read to the end, the first: " in str(summary) and "a.tar breaks off" in str(summary)


def test_small_and_moving_pictures_are_not_combined(tmp_path):
    small = [Sample(f"small{k}", encode(picture(k).resize((40, 90))), "small") for k in range(6)]
    strips = [Sample(f"strip{k}", encode(picture(k).resize((70, 300))), "strip") for k in range(6)]
    frames = [picture(k) for k in (100, 101)]
    moving = [Sample("moving", encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "moving", suffix="gif")]
    write_tar(tmp_path / "a.tar", [*small, *strips, *moving, *samples_of(range(6))])
    summary = plant_duplicates(str(tmp_path / "a.tar"), tmp_path / "out", counts=(2,), images_per_count=1, templates=True, partial=True)
    truth = pq.read_table(summary.truth).to_pylist()
    assert all(row["source_key"].startswith("s0") for row in truth if row["kind"] in SHOWS_OTHERS)
    assert {row["source_key"] for row in truth if row["kind"] in ("exact", "background")} == {
        *(sample.key for sample in [*small, *strips, *moving])
    }
    with pytest.raises(ConfigError, match=r"needed 12 stills of at least 64 pixels a side .*, 8 of them to show inside copies, found 6"):
        plant_duplicates(str(tmp_path / "a.tar"), tmp_path / "many", counts=(2,), images_per_count=2, templates=True, partial=True)


def test_too_few_images(source, tmp_path):
    message = (
        "too few images to plant: needed 234 usable images, 222 of them to show inside copies, found 160 (162 samples read, 2 unusable); "
        "give more shards, or lower counts, images per count or the number of kinds"
    )
    with pytest.raises(ConfigError) as error:
        plant_duplicates(source, tmp_path / "out", counts=(1, 10, 100), images_per_count=2, templates=True, background=3)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": ()}, "counts is empty; expected positive whole numbers"),
        ({"counts": (1, 0)}, "counts=1,0: expected positive whole numbers, found '0'"),
        ({"counts": (1, 2.5)}, "counts=1,2.5: expected positive whole numbers, found '2.5'"),
        ({"counts": (True,)}, "counts=True: expected positive"),
        ({"counts": (1, 10, 10)}, "counts=1,10,10: expected each count once, found 10 several times"),
        ({"images_per_count": 0}, "images_per_count=0 is out of range; expected 1 or more"),
        ({"background": -1}, "background=-1 is out of range; expected 0 or more"),
        ({"seed": -1}, "seed=-1 is out of range; expected 0 or more"),
        ({"per_shard": 0}, "per_shard=0 is out of range; expected 1 to 10000"),
        ({"per_shard": 10_001}, "per_shard=10001 is out of range"),
        ({"workers": 0}, "workers=0 is out of range; expected 1 or more"),
        (
            {"counts": (1000,), "images_per_count": 101, "per_shard": 1},
            "101,000 samples at per_shard=1 are 101,000 shards; expected at most",
        ),
        ({"shards": "s3://me:secret@bucket/a.tar"}, "shards holds a password"),
        ({"out": "s3://bucket/out"}, "out=s3://bucket/out is not on this machine; expected a local folder"),
    ],
)
def test_wrong_arguments(source, tmp_path, arguments, message):
    given = {"shards": source, "out": tmp_path / "out"} | arguments
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        plant_duplicates(**given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_beside_other_files(source, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for out, message in (
        (tmp_path, "is not empty: found notes.txt; name a new"),
        (tmp_path / "notes.txt", "is a file; expected a new or empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            plant_duplicates(source, out, counts=(1,))
    (tmp_path / "empty").mkdir()
    assert plant_duplicates(source, tmp_path / "empty", counts=(1,), background=0).n_written == 10
    with pytest.raises(ConfigError, match=r"is not empty: found 00000.tar and 1 more; name a new or empty folder"):
        plant_duplicates(source, tmp_path / "empty", counts=(1,))


def test_a_source_that_changes_leaves_nothing(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", samples_of(range(4)))
    read = plant_sources.read_source

    def read_and_lose(task):
        result = read(task)
        Path(task.shard).unlink()
        return result

    monkeypatch.setattr(plant_sources, "read_source", read_and_lose)
    with pytest.raises(InputError, match=r"of .*a.tar can't be read a second time; expected shards that stay as they are; run the same"):
        plant_duplicates(str(tmp_path / "a.tar"), tmp_path / "out", counts=(1,), images_per_count=1)
    assert not (tmp_path / "out").exists()


def test_a_folder_stands_for_the_shards_in_it(source, tmp_path):
    arguments = {"counts": (1, 2), "images_per_count": 1, "background": 4}
    plant_duplicates(source, tmp_path / "glob", **arguments)
    plant_duplicates(str(Path(source).parent), tmp_path / "folder", **arguments)
    assert digests(tmp_path / "glob") == digests(tmp_path / "folder")
    (tmp_path / "photos").mkdir()
    picture(0).save(tmp_path / "photos" / "a.jpg")
    with pytest.raises(ConfigError, match=r"photos holds 1 image \(1 .jpg\); expected tars"):
        plant_duplicates(str(tmp_path / "photos"), tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="matches no file"):
        plant_duplicates(str(tmp_path / "*.tar"), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_progress_is_told(source, tmp_path):
    told = []

    class Listener:
        def progress(self, progress):
            told.append((progress.stage, progress.done, progress.total))

        def note(self, text):
            raise AssertionError(text)

    plant_duplicates(source, tmp_path / "out", counts=(1,), images_per_count=30, background=0, per_shard=20, reporter=Listener())
    assert told == [*(("read", k, 2) for k in range(3)), *(("plant", k, 30) for k in (0, 20, 30))]


def test_the_command(source, tmp_path):
    done = dedup("plant", source, "--counts", "1,2", "--images-per-count", 2, "--background", 5, "--out", tmp_path / "a", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "plant: 11 of 11 samples" in done.stderr
    assert (
        "written 11 samples (exact 6, background 5) in 1 shard" in done.stdout and f"truth in {tmp_path / 'a'}/truth.parquet" in done.stdout
    )
    found = json.loads(
        dedup("plant", source, "--counts", "2", "--edited", "--background", 0, "--out", tmp_path / "b", "--workers", 1, "--json").stdout
    )
    assert found["written"] == {"exact": 20, "edited": 20} and found["out"] == str(tmp_path / "b")


@pytest.mark.parametrize("counts", ["", "1,x", "1,,2", "-1", "1.5", "0", "2,2"])
def test_the_command_refuses_counts_in_one_line(source, tmp_path, counts):
    done = dedup("plant", source, f"--counts={counts}", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith(f"error: counts={counts}: expected ")
    assert not (tmp_path / "out").exists()


def test_counts_are_read():
    assert parse_counts("1, 10,100") == (1, 10, 100)


def test_regions_and_layouts_at_the_smallest_sizes():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        (height, width), (other_height, other_width) = rng.integers(64, 257, (2, 2)).tolist()
        ground, other = np.zeros((height, width, 3), np.uint8), np.full((other_height, other_width, 3), 200, np.uint8)
        left, top, right, bottom = template_region(width, height, rng)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert 0.25 <= (right - left) * (bottom - top) / (width * height) <= 0.6
        filled = fill_region(ground, (left, top, right, bottom), other)
        assert (filled[top:bottom, left:right] == 200).all() and (filled == 200).all(axis=2).sum() == (right - left) * (bottom - top)
        assert not ground.any()
        layout, shown, (left, top, right, bottom) = show_inside(ground, other, rng)
        assert 0 <= left < right <= shown.shape[1] and 0 <= top < bottom <= shown.shape[0], layout
        assert not shown[top:bottom, left:right].any()
        assert shown.any()
