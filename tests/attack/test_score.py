"""Planted generations: what is memorised and extracted is known by construction."""

import io
import json
import shutil
import tarfile
import time
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from shard_data import encode, make_samples, scene, write_shards

import dedup
from dedup.attack.curves import by_duplication_count, precision_recall, write_curves
from dedup.config import ExtractionConfig
from dedup.engines.local import LocalEngine
from dedup.errors import InputError, RunDirectoryError
from dedup.schemas import SCORES

SIDE = 64
N_TARGETS = 60
KINDS = ("memorised", "too_few", "too_far", "unrelated", "white")


def picture_of(rng, kind):
    if kind == "white":  # a small thing on white, another in every generation: near by plain l2
        pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
        top, left = rng.integers(0, SIDE - 12, 2)
        pixels[top : top + 12, left : left + 12] = rng.integers(0, 256, (12, 12, 3))
        return Image.fromarray(pixels)
    return scene(int(rng.integers(1 << 40)), (SIDE, SIDE))


def changed(rng, picture, amount):
    """A copy with noise, or blurred, or as a JPEG; for noise alone `amount` is its deviation in grey levels."""
    choice = int(rng.integers(3)) if amount < 20 else 0
    if choice == 1:
        return picture.filter(ImageFilter.GaussianBlur(0.7))
    if choice == 2:
        return Image.open(io.BytesIO(encode(picture, quality=70)))
    noise = rng.normal(0, amount, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.rint(np.asarray(picture, np.float64) + noise), 0, 255).astype(np.uint8))


def distance(a, b):
    """The definition: the largest over 16 tiles of the root of the mean squared difference."""
    difference = (np.asarray(a, np.float64) - np.asarray(b, np.float64)) / 255.0
    step = SIDE // 4
    tiles = [difference[y : y + step, x : x + step] for y in range(0, SIDE, step) for x in range(0, SIDE, step)]
    return max(float(np.sqrt((tile**2).mean())) for tile in tiles)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """60 targets of five kinds, 20 generations each; training images in a tar, half of the generations in tars."""
    folder, rng, rows, truth = tmp_path_factory.mktemp("planted"), np.random.default_rng(0), [], []
    generations = folder / "generations"
    opened = ExitStack()
    train, *shards = (opened.enter_context(tarfile.open(folder / name, "w")) for name in ("train.tar", "gen-0.tar", "gen-1.tar"))  # noqa: SIM115
    for number in range(N_TARGETS):
        kind = KINDS[number % len(KINDS)]
        target, picture = f"{number:016x}", picture_of(rng, kind)
        original = encode(picture, "PNG")
        train.addfile(member(f"{number:05d}.png", original), io.BytesIO(original))
        n_copies = {"memorised": 12, "too_few": 9, "too_far": 12}.get(kind, 0)
        amount = 60.0 if kind == "too_far" else 6.0
        images = [changed(rng, picture, amount) for _ in range(n_copies)] + [picture_of(rng, kind) for _ in range(20 - n_copies)]
        images = [images[place] for place in rng.permutation(20)]
        for place, image in enumerate(images):
            data = encode(image, "PNG")
            if number % 2:
                (generations / target).mkdir(parents=True, exist_ok=True)
                (generations / target / f"{place:03d}.png").write_bytes(data)
            else:
                shard = shards[(number // 2 + place) % 2]  # those of a target are in both
                about = json.dumps({"target_id": target}).encode()
                for suffix, content in (("png", data), ("json", about)):
                    shard.addfile(member(f"{target}-{place:03d}.{suffix}", content), io.BytesIO(content))
        exact = [distance(image, picture) for image in images]
        pairs = np.array([[distance(a, b) for b in images] for a in images])
        rows.append({"target_id": target, "component_id": number, "duplication_count": number + 2, "shard": str(folder / "train.tar"),
                     "key": f"{number:05d}", "byte_offset": None, "n_bytes": len(original)})  # fmt: skip
        truth.append({"kind": kind, "exact": exact, "pairs": pairs, "l2": [plain(image, picture) for image in images]})
    opened.close()
    for number in range(2):
        shutil.move(folder / f"gen-{number}.tar", generations / f"gen-{number}.tar")
    with tarfile.open(folder / "train.tar") as tar:
        places = {info.name: info for info in tar}
    for row in rows:
        row["byte_offset"] = places[f"{row['key']}.png"].offset_data
    pq.write_table(pa.Table.from_pylist(rows), folder / "targets.parquet")
    return folder, truth


def member(name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info


def plain(a, b):
    return float(np.sqrt((((np.asarray(a, np.float64) - np.asarray(b, np.float64)) / 255.0) ** 2).mean()))


@pytest.fixture(scope="module")
def scored(planted, tmp_path_factory):
    folder, _ = planted
    out = tmp_path_factory.mktemp("scores") / "out"
    summary = dedup.score_generations(str(folder / "targets.parquet"), str(folder / "generations"), str(out))
    return out, summary


def rows_of(out):
    return pq.read_table(sorted(out.glob("part-*.parquet")), schema=SCORES).to_pylist()


def test_what_is_planted_is_found_and_nothing_else(planted, scored):
    """Precision 1 at the paper's rule, and the recall that was built in."""
    rows, (_, truth) = rows_of(scored[0]), planted
    assert [row["target_id"] for row in rows] == [f"{number:016x}" for number in range(N_TARGETS)]
    for row, known in zip(rows, truth, strict=True):
        assert row["is_memorized"] == (known["kind"] == "memorised"), known["kind"]
        assert row["is_extracted"] == (known["kind"] in ("memorised", "too_few")), known["kind"]
        assert row["status"] == "ok"
        assert row["n_generations"] == 20
    assert scored[1].n_memorized == N_TARGETS // 5
    assert scored[1].n_extracted == 2 * N_TARGETS // 5
    ranked = [json.loads(line) for line in (scored[0] / "_memorized.jsonl").read_text().splitlines()]
    expected = sorted((row["mean_distance"], row["target_id"]) for row in rows if row["is_memorized"])
    assert [(row["mean_distance"], row["target_id"]) for row in ranked] == expected
    assert scored[1].closest == ranked[:5]


def test_every_number_is_as_defined(planted, scored):
    for row, known in zip(rows_of(scored[0]), planted[1], strict=True):
        near = known["pairs"] <= 0.1
        if row["is_memorized"]:
            assert row["clique_size"] == 12
            inside = np.flatnonzero(near.sum(axis=1) >= 12)
            expected = known["pairs"][np.ix_(inside, inside)].sum() / (12 * 11)
            assert row["mean_distance"] == pytest.approx(expected, abs=1e-4)
            assert row["tiled_l2"] == pytest.approx(min(known["exact"][place] for place in inside), abs=1e-6)
        else:
            assert row["tiled_l2"] == pytest.approx(min(known["exact"]), abs=1e-6)
        assert row["l2"] <= row["tiled_l2"]
        assert row["clique_is_exact"]
        assert row["eidetic_k"] is None


def test_tiles_are_not_fooled_by_equal_backgrounds(planted, scored):
    white = [(row, known) for row, known in zip(rows_of(scored[0]), planted[1], strict=True) if known["kind"] == "white"]
    assert sum(min(known["l2"]) <= 0.15 for _, known in white) >= 9
    assert not any(row["is_extracted"] or row["is_memorized"] for row, _ in white)


def test_curves(planted, scored):
    scores = pq.read_table(sorted(scored[0].glob("part-*.parquet")))
    labels = np.array([known["kind"] == "memorised" for known in planted[1]])
    curve = precision_recall(scores, labels)
    assert curve["precision"].to_pylist()[:12] == [1.0] * 12
    assert curve["recall"][11].as_py() == 1.0
    assert curve["precision"][59].as_py() == pytest.approx(0.2)
    bins = by_duplication_count(scores).to_pylist()
    assert sum(row["n_targets"] for row in bins) == N_TARGETS
    assert sum(row["n_memorized"] for row in bins) == N_TARGETS // 5
    assert all(row["least"] <= row["most"] for row in bins)
    assert by_duplication_count(scores.slice(0, 0)).num_rows == 0


def test_curves_are_written_as_tables_and_pictures(planted, scored, tmp_path):
    labels = [f"{number:016x},{str(known['kind'] == 'memorised').lower()}" for number, known in enumerate(planted[1])]
    (tmp_path / "labels.csv").write_text("\n".join(["target_id,is_memorized", *labels[:45]]))
    files = write_curves(str(scored[0]), str(tmp_path / "curves"), str(tmp_path / "labels.csv"))
    names = [f"{name}.{kind}" for name in ("by_duplication_count", "precision_recall") for kind in ("parquet", "png")]
    assert [path.rsplit("/", 1)[1] for path in files] == names
    assert pq.read_table(files[2])["recall"].to_pylist()[-1] == 1.0
    assert pq.read_table(files[2]).num_rows == 45
    for path in files[1::2]:
        with Image.open(path) as picture:
            assert picture.size == (720, 480)
    with pytest.raises(InputError, match="gone.csv does not exist"):
        write_curves(str(scored[0]), str(tmp_path / "curves"), str(tmp_path / "gone.csv"))


def test_a_run_that_was_stopped_does_only_what_is_missing(planted, tmp_path):
    folder, _ = planted
    arguments = str(folder / "targets.parquet"), str(folder / "generations"), str(tmp_path / "out")
    options = ExtractionConfig(targets_per_part=15)
    dedup.score_generations(*arguments, options=options)
    first = rows_of(tmp_path / "out")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*.parquet")}
    (tmp_path / "out" / "part-00002.parquet").unlink()
    time.sleep(0.01)
    summary = dedup.score_generations(*arguments, options=options)
    assert rows_of(tmp_path / "out") == first
    changed_files = {path.name for path in (tmp_path / "out").glob("part-*.parquet") if stamps[path.name] != path.stat().st_mtime_ns}
    assert changed_files == {"part-00002.parquet"}
    assert "45 of 60 targets were scored before" in summary.notes
    with pytest.raises(RunDirectoryError, match="holds results of other options"):
        dedup.score_generations(*arguments)


def small(tmp_path, sizes=((64, 64),) * 3):
    """One target with its training image, and a folder of generations."""
    picture = scene(1, (SIDE, SIDE))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(data := encode(picture, "PNG"))
    row = {"target_id": "t0", "shard": f"{tmp_path}/train/", "key": "a.png", "byte_offset": 0, "n_bytes": len(data)}
    (tmp_path / "gen" / "t0").mkdir(parents=True)
    for number, size in enumerate(sizes):
        picture.resize(size, Image.Resampling.BICUBIC).save(tmp_path / "gen" / "t0" / f"{number}.png")
    return row


def score_small(tmp_path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "targets.parquet")
    engine = LocalEngine(1)
    try:
        summary = dedup.score_generations(
            f"{tmp_path}/targets.parquet", f"{tmp_path}/gen", f"{tmp_path}/out", options=ExtractionConfig(**options), engine=engine
        )
    finally:
        engine.close()
    return rows_of(tmp_path / "out"), summary


def test_mixed_sizes_are_stretched_to_the_size_of_most_and_counted(tmp_path):
    rows, _ = score_small(tmp_path, [small(tmp_path, [(64, 64), (64, 64), (64, 64), (96, 96), (128, 64)])])
    assert rows[0]["n_generations"] == 5
    assert rows[0]["n_resized"] == 2
    assert rows[0]["clique_size"] == 5


def test_large_generations_are_reduced(tmp_path):
    rows, _ = score_small(tmp_path, [small(tmp_path, [(256, 256)] * 3)], max_side=64)
    assert rows[0]["n_resized"] == 0
    assert rows[0]["is_extracted"]


def test_broken_and_missing_images_are_counted(tmp_path):
    row = small(tmp_path)
    (tmp_path / "gen" / "t0" / "x.png").write_bytes(b"no image")
    nan = np.full((8, 8), np.nan, np.float32)
    Image.fromarray(nan).save(tmp_path / "gen" / "t0" / "y.tif")
    for name, colour in (("z", "black"), ("zz", "red")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "gen" / "t0" / f"{name}.png")
    shutil.copy(tmp_path / "gen" / "t0" / "0.png", tmp_path / "gen" / "t0" / "_0123456789ab-9.png")  # of a generator that was killed
    (tmp_path / "gen" / "t1").mkdir()
    (tmp_path / "gen" / "elsewhere").mkdir()
    shutil.copy(tmp_path / "gen" / "t0" / "0.png", tmp_path / "gen" / "t1" / "0.png")
    others = [{**row, "target_id": "t1"}, {**row, "target_id": "t2"}, {**row, "target_id": "t0"}]
    rows, summary = score_small(tmp_path, [row, *others])
    assert [row["status"] for row in rows] == ["ok", "few_generations", "no_generations"]
    assert rows[0]["n_generations"] == 3
    assert rows[0]["n_rejected"] == 4
    assert rows[1]["is_extracted"]  # one generation is enough for that
    assert rows[2]["n_generations"] == 0
    assert summary.by_status == {"ok": 1, "few_generations": 1, "no_generations": 1}
    assert "1 rows of the list repeat a target_id; the first of each is used" in summary.notes
    assert any("1 folders match no target of the list, the first is elsewhere" in note for note in summary.notes)


def test_a_training_image_that_is_gone_is_named_and_the_others_go_on(tmp_path):
    row = small(tmp_path)
    shutil.copytree(tmp_path / "gen" / "t0", tmp_path / "gen" / "t1")
    moved = {**row, "target_id": "t1", "shard": f"{tmp_path}/moved.tar"}
    rows, summary = score_small(tmp_path, [moved, row], min_clique=3)
    assert (rows[0]["target_id"], rows[0]["status"], rows[0]["is_extracted"]) == ("t1", "no_training_image", None)
    assert "moved.tar" in rows[0]["detail"]
    assert rows[0]["is_memorized"]
    assert (rows[1]["status"], rows[1]["is_extracted"]) == ("ok", True)
    assert summary.by_status["no_training_image"] == 1


def test_what_can_not_be_read_is_said(tmp_path):
    row = small(tmp_path)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "good.parquet")
    with pytest.raises(InputError, match="is not a folder"):
        dedup.score_generations(str(tmp_path / "good.parquet"), str(tmp_path / "nowhere"), str(tmp_path / "out"))
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="has no column target_id"):
        dedup.score_generations(str(tmp_path / "other.parquet"), str(tmp_path / "gen"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="gone does not exist"):
        dedup.score_generations(str(tmp_path / "gone"), str(tmp_path / "gen"), str(tmp_path / "out"))
    pq.write_table(pa.Table.from_pylist([{**row, "target_id": "other"}]), tmp_path / "targets.parquet")
    with pytest.raises(InputError, match="holds no images of these targets"):
        dedup.score_generations(str(tmp_path / "targets.parquet"), str(tmp_path / "gen"), str(tmp_path / "out"))


def test_from_a_run_to_eidetic_labels(tmp_path):
    """The run's own targets: groups are known, and how many of their samples a generation gives away."""
    samples = make_samples(16, n_broken=0)
    shards = write_shards(tmp_path / "shards", samples)
    dedup.run(dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={tmp_path / 'run'}", "engine.workers=2"]))
    targets = pq.read_table(sorted((tmp_path / "run" / "targets").glob("*.parquet"))).to_pylist()
    by_key = {sample.key: sample for sample in samples}
    for row in targets:
        folder = tmp_path / "gen" / row["target_id"]
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.jpg").write_bytes(by_key[row["key"]].image)
    summary = dedup.score_generations(
        f"{tmp_path}/run/targets", f"{tmp_path}/gen", f"{tmp_path}/out", options=ExtractionConfig(min_clique=3)
    )
    assert summary.n_memorized == summary.n_extracted == len(targets)
    for row, target in zip(rows_of(tmp_path / "out"), targets, strict=True):
        assert row["tiled_l2"] == 0.0
        assert row["duplication_count"] == target["duplication_count"]
        # all copies of a scene look alike: each sample of the group counts, byte-identical ones too
        assert row["eidetic_k"] == target["duplication_count"]
