"""Demo shards: scenes, plan, tars and their truth."""

import hashlib
import io
import itertools
import json
import tarfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dedup.demo import pictures as scenes
from dedup.demo.pictures import KINDS, photo_scenes, procedural_scene
from dedup.demo.samples import BREAKS, BROKEN, COPY, EXACT, ORIGINAL, caption, make_plan, vary
from dedup.demo.shards import make_demo_data, parse_size
from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.image.descriptor import describe
from dedup.numerics.image.planting import CHANGES


def read_samples(path):
    """Samples of a tar in order, neighbours grouped by key."""
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]
    for key, group in itertools.groupby(members, lambda member: member[0].name.split(".")[0]):
        yield key, {info.name.split(".")[1]: data for info, data in group}


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    progress = []
    summary = make_demo_data(folder, n_images=400, seed=3, per_shard=150, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(150, 400), (300, 400), (400, 400)]
    return summary


@pytest.fixture(scope="module")
def samples(corpus):
    return [(path.name, key, parts) for path in sorted(corpus.out.glob("*.tar")) for key, parts in read_samples(path)]


@pytest.fixture(scope="module")
def truth(corpus):
    return pq.read_table(corpus.truth).to_pylist()


def test_scenes_are_distinct():
    images = [photo.pixels for photo in photo_scenes()] + [procedural_scene(np.random.default_rng([1, i])) for i in range(250)]
    descriptors, qualities = zip(*(describe(image) for image in images), strict=True)
    cosines = np.array(descriptors) @ np.array(descriptors).T
    np.fill_diagonal(cosines, 0.0)
    assert cosines.max() < 0.6
    assert min(qualities) > 8.0, "no scene may fall under the rule for low detail"
    assert len(photo_scenes()) >= 30


def test_procedural_scene_follows_its_generator():
    for kind in KINDS:
        one, same, other = (procedural_scene(np.random.default_rng(seed), (90, 70), kind) for seed in (1, 1, 2))
        assert one.shape == (70, 90, 3) and one.dtype == np.uint8
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)
    with pytest.raises(ConfigError, match="unknown scene 'forest'"):
        procedural_scene(np.random.default_rng(0), kind="forest")


def test_missing_photos_name_the_extra(monkeypatch):
    monkeypatch.setattr(scenes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"webdedup\[demo\]"):
        photo_scenes.__wrapped__()


def test_captions_repeat_from_their_seed():
    first = caption(np.random.default_rng(4), "skyline")
    assert first == caption(np.random.default_rng(4), "skyline")
    assert len({vary(np.random.default_rng(seed), first, "skyline") for seed in range(40)}) > 15
    assert "{" not in "".join(caption(np.random.default_rng(seed), "waves") for seed in range(200))


@pytest.mark.parametrize("n_images", [20, 100, 1500, 50_000])
def test_plan_holds_what_it_promises(n_images):
    plan = make_plan(n_images, seed=1, n_photos=39)
    assert len(plan.sources) == len(plan.roles) == n_images
    n_copies = int(np.isin(plan.roles, (COPY, EXACT)).sum())
    assert n_copies == n_images // 5
    assert (plan.roles == BROKEN).sum() >= min(len(BREAKS), n_images // 20)
    # each source has one original (or one broken sample), whatever the number of its copies
    heads = plan.sources[np.isin(plan.roles, (ORIGINAL, BROKEN))]
    assert np.array_equal(np.sort(heads), np.arange(n_images - n_copies))
    assert np.array_equal(plan.sources[: plan.n_photos], np.arange(plan.n_photos))
    sizes = np.bincount(plan.sources)
    assert sizes[0] == (150 if n_images >= 1500 else n_images // 10)
    assert sizes[1:].max() <= 12
    assert (plan.roles[plan.sources == 0] == EXACT).any()


def test_truth_matches_the_tars(corpus, samples, truth):
    assert [path.name for path in sorted(corpus.out.iterdir())] == ["00000.tar", "00001.tar", "00002.tar", "truth.parquet"]
    assert len(samples) == len(truth) == corpus.n_images == 400
    names = {change.name: change for change in CHANGES}
    for (shard, key, parts), row in zip(samples, truth, strict=True):
        assert (shard, key) == (row["shard"], row["key"])
        meta = json.loads(parts["json"])
        (suffix,) = set(parts) - {"json", "txt"}
        assert meta["key"] == key
        assert meta["caption"] == row["caption"]
        assert meta["sha256"] == hashlib.sha256(parts[suffix]).hexdigest()
        assert (parts["txt"].decode() if "txt" in parts else None) == row["caption"]
        if not row["is_broken"]:
            with Image.open(io.BytesIO(parts[suffix])) as image:
                assert image.size == (meta["width"], meta["height"])
                assert {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix] == image.format
        if row["change"] in names:
            assert (row["family"], row["is_expected"]) == (names[row["change"]].family, names[row["change"]].is_expected)
    assert pq.read_schema(corpus.truth).metadata[b"seed"] == b"3"


def test_counts(corpus, truth):
    groups = Counter(row["source_id"] for row in truth)
    changes = Counter(row["change"] for row in truth)
    assert groups[0] == corpus.largest_group == 40
    assert corpus.n_copies == 80
    assert corpus.n_exact == changes["exact"]
    assert corpus.n_sources == changes["original"] == 400 - 80 - corpus.n_broken
    assert {row["change"] for row in truth if row["source_id"] == 0} >= {"original", "exact"}


def test_copies_show_their_source(samples, truth):
    images = {}
    for (_, _, parts), row in zip(samples, truth, strict=True):
        if row["change"] in ("original", "exact") or row["family"] in ("brightness", "resize", "jpeg", "blur", "sharpen"):
            (suffix,) = set(parts) - {"json", "txt"}
            images.setdefault(row["source_id"], []).append((row["change"], parts[suffix]))
    n_compared = 0
    for group in images.values():
        original = next(data for change, data in group if change == "original")
        for change, data in group:
            if change == "exact":
                assert data == original
            elif change != "original":
                n_compared += 1
                assert describe(decode_pixels(data))[0] @ describe(decode_pixels(original))[0] > 0.8
    assert n_compared > 5


def decode_pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_broken_samples(corpus, samples, truth):
    broken = {
        row["change"]: (row, parts) for (_, _, parts), row in zip(samples, truth, strict=True) if row["family"] in ("broken", "no_caption")
    }
    assert set(broken) == set(BREAKS)
    assert broken["zero_bytes"][1]["jpg"] == b""
    assert broken["not_an_image"][1]["jpg"].startswith(b"<html>")
    with pytest.raises(OSError, match="truncated"):
        decode_pixels(broken["truncated"][1]["jpg"])
    assert broken["no_caption"][0]["caption"] is None and not broken["no_caption"][0]["is_broken"]
    repeated = broken["duplicate_key"][0]
    assert sum((row["shard"], row["key"]) == (repeated["shard"], repeated["key"]) for row in truth) == 2
    keys = [(row["shard"], row["key"]) for row in truth if not row["is_broken"]]
    assert len(set(keys)) == len(keys)
    assert not any(row["is_expected"] for row in truth if row["is_broken"])


def test_same_bytes_whatever_the_workers(tmp_path):
    arguments = {"n_images": 60, "seed": 9, "per_shard": 25}
    make_demo_data(tmp_path / "one", **arguments)
    make_demo_data(tmp_path / "two", **arguments, workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    make_demo_data(tmp_path / "two", **arguments | {"seed": 10})
    assert digest(tmp_path / "one")["00000.tar"] != digest(tmp_path / "two")["00000.tar"]


@pytest.mark.parametrize("n_bytes", [15_000, 110_000])
def test_jpeg_size(tmp_path, n_bytes):
    summary = make_demo_data(tmp_path, n_images=60, jpeg_size=n_bytes)
    assert summary.n_broken == 0
    for _, parts in read_samples(tmp_path / "00000.tar"):
        assert abs(len(parts["jpg"]) - n_bytes) <= 0.1 * n_bytes
        height, width, _ = decode_pixels(parts["jpg"]).shape
        assert 0.9 < height * width / (400 * 350) < 1.1


def test_parse_size():
    assert [parse_size(text) for text in ("110KB", "110kb", "2 MiB", "0.5MB", "900")] == [110_000, 110_000, 2 * 1024**2, 500_000, 900]
    for text in ("", "KB", "110 potatoes", "-5KB"):
        with pytest.raises(ConfigError, match="is not a file size"):
            parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_images": 19}, "too few"),
        ({"n_images": 40, "seed": -1}, "seed=-1"),
        ({"n_images": 40, "per_shard": 0}, "per_shard=0"),
        ({"n_images": 40, "per_shard": 10_001}, "per_shard=10001"),
        ({"n_images": 40, "workers": 0}, "workers=0"),
        ({"n_images": 40, "jpeg_size": 900}, "jpeg_size=900"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_demo_data(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_tars_of_another_corpus_are_not_mixed_in(tmp_path):
    (tmp_path / "00007.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds 00007\.tar"):
        make_demo_data(tmp_path, n_images=20)
