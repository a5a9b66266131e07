"""Runs whose vectors are a model's: a tiny one with random weights, on a CPU."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image
from run_tables import TABLES, Notes, assert_same_tables, rows_of, table
from shard_data import Sample, encode, make_samples, scene, write_tar
from tiny_clip import config_for, write_model, write_script

from dedup.config.load import load_config
from dedup.encoders import load_encoder
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, RunDirectoryError
from dedup.numerics.image.descriptor import Crop
from dedup.stages.embed import partition as embedding
from dedup.stages.embed import stage as embed
from dedup.stages.embed.prepare import in_chunks, in_order
from dedup.storage.images.decode import decode_image
from dedup.storage.input.samples import RawSample
from dedup.storage.urls import read_json

SAMPLES = make_samples(30)


class Here(LocalEngine):
    """Works in this process, so that what a test replaces is replaced for the worker too."""

    def map_partitions(self, work, tasks, *, uses_gpu=False):
        yield from ((number, work(task)) for number, task in enumerate(tasks))


@pytest.fixture(scope="module")
def done(model, shards, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "run"
    shared_workers.run(config_for(model, shards, run_dir))
    return run_dir


def test_planted_copies_are_found_and_look_alikes_refused(done):
    """Random weights make all pictures alike, so that it is the pixels that decide."""
    source = {sample.key: sample.source for sample in SAMPLES}
    groups = {}
    for name in ("manifest", "duplicates"):
        for row in table(done, name).to_pylist():
            groups.setdefault(row["component_id"], set()).add(source[row["key"]])
    assert all(len(sources) == 1 for sources in groups.values())
    assert len(groups) == len({sample.source for sample in SAMPLES if sample.source >= 0})
    assert table(done, "refused").num_rows
    assert set(table(done, "metadata")["quality"].to_pylist()) > {0.0} or min(table(done, "metadata")["quality"].to_pylist()) > 1.0
    assert table(done, "metadata")["caption_similarity"].null_count == table(done, "metadata").num_rows


def test_every_sample_ends_in_one_place(done):
    places = [row["key"] for name in ("manifest", "duplicates", "rejected") for row in table(done, name).to_pylist()]
    assert sorted(places) == sorted(sample.key for sample in SAMPLES)


def noise_samples(n, seed):
    """Pictures with vectors of their own; a fifth are broken in one way or another."""
    rng = np.random.default_rng(seed)
    samples, good = [], []
    for number in range(n):
        picture = encode(scene(seed * 10_000 + number, (80 + number % 40, 64 + number % 23)))
        broken = rng.random() < 0.2
        data = [b"", picture[:60], b"no image", picture[: len(picture) // 2]][int(rng.integers(4))] if broken else picture
        samples.append(Sample(f"{number:05d}", data, f"caption {number}"))
        good += [] if broken else [number]
    return samples, good


@pytest.mark.parametrize(("n_threads", "batch_size"), [(4, 7), (4, 64), (1, 3), (0, 16)])
def test_no_sample_is_lost_or_swapped(model, tmp_path, n_threads, batch_size):
    samples, good = noise_samples(150, 5)
    for number in range(3):
        write_tar(tmp_path / "shards" / f"{number}.tar", samples[50 * number : 50 * number + 50])
    settings = [
        f"embed.decode_threads={n_threads}",
        f"embed.batch_size={batch_size}",
        "embed.shards_per_partition=3",
        "embed.thumbnails=true",
    ]
    config = config_for(model, tmp_path / "shards" / "*.tar", tmp_path / "run", *settings)
    shared_workers.run(config, ["embed"])
    folder = tmp_path / "run" / "embeddings"
    vectors = np.load(folder / "img_emb" / "img_emb_00000.npy").astype(np.float32)
    rows = pq.read_table(folder / "metadata" / "metadata_00000.parquet").to_pylist()
    rejected = pq.read_table(folder / "rejected" / "rejected_00000.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"{number:05d}" for number in good]
    assert [row["sample_id"] for row in rows] == list(range(len(good)))
    assert sorted(row["key"] for row in rejected) == sorted({sample.key for sample in samples} - {row["key"] for row in rows})
    encoder = load_encoder(config.encoder, config.engine.device)
    for row, vector in zip(rows, vectors, strict=True):
        image = decode_image(samples[int(row["key"])].image, max_pixels=10**8, min_side=encoder.min_side)
        alone = encoder.encode(encoder.prepare(Crop(image.pixels, image.box))[None])[0]
        assert float(alone @ vector) / np.linalg.norm(vector) > 0.99999
        assert row["shard"].endswith(f"{int(row['key']) // 50}.tar")
    offsets = np.load(folder / "thumbnails" / "offsets_00000.npy")
    assert len(offsets) == len(rows) + 1
    counted = {row["shard"][-5:]: (row["n_samples"], row["n_rejected"]) for row in table(tmp_path / "run", "partitions").to_pylist()}
    for number in range(3):
        n_good = sum(50 * number <= place < 50 * number + 50 for place in good)
        assert counted[f"{number}.tar"] == (n_good, 50 - n_good)


def test_quality_is_the_same_for_all_encoders(model, tmp_path):
    """Averaged over whole pixels first, where the model's images are large: what is measured of a picture hardly changes."""
    rng = np.random.default_rng(0)
    fine = [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((700, 500)) for side in (2, 8, 32, 128, 400)]
    write_tar(tmp_path / "a.tar", [Sample(f"{number}", encode(picture), "") for number, picture in enumerate(fine)])
    shared_workers.run(config_for(model, tmp_path / "a.tar", tmp_path / "clip", "encoder.exact_preprocessing=true"), ["embed"])
    shared_workers.run(load_config(None, [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/dct"]), ["embed"])
    ours, dct = (table(tmp_path / name, "metadata")["quality"].to_numpy() for name in ("clip", "dct"))
    assert (np.diff(ours) > 0).any()
    np.testing.assert_allclose(ours, dct, rtol=0.1, atol=0.5)


def test_results_come_in_order_and_items_are_drawn_a_bounded_number_ahead():
    drawn = []

    def items():
        for number in range(10_000):
            drawn.append(number)
            yield number

    results = in_order(negated, in_eights(items()), 4)
    for number in range(100):
        assert next(results) == -number
        assert len(drawn) <= number + 200
    results.close()
    assert list(in_order(negated, in_eights(iter(range(20))), 0)) == [-number for number in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda chunk: [1 / number for number in chunk], [[2, 1], [0, 3]], 2))


def negated(numbers):
    return (-number for number in numbers)


def in_eights(items):
    while chunk := list(islice(items, 8)):
        yield chunk


def test_chunks_are_bounded_in_number_and_bytes():
    sizes = [10] * 20 + [3_000_000, 10, 2_000_000, 10, 10]
    samples = [(0, RawSample(f"{number}", "a.tar", image=bytes(size))) for number, size in enumerate(sizes)]
    chunks = list(in_chunks(iter(samples)))
    assert [sample for chunk in chunks for sample in chunk] == samples
    assert [len(chunk) for chunk in chunks] == [8, 8, 7, 2]


def test_threads_and_encoding_ahead_change_no_table(model, shards, done, tmp_path):
    shared_workers.run(config_for(model, shards, tmp_path / "run", "embed.decode_threads=3"))
    assert_same_tables(done, tmp_path / "run")


def test_similarity_to_the_caption_is_measured_and_may_order(model, shards, done, tmp_path):
    run_dir = tmp_path / "run"
    order = "keep.order_by=caption_similarity desc,sample_id"
    config = config_for(model, shards, run_dir, "embed.text=true", order)
    shared_workers.run(config)
    rows = table(run_dir, "metadata").to_pylist()
    encoder = load_encoder(config.encoder, config.engine.device)
    vectors = np.concatenate([np.load(path) for path in sorted((run_dir / "embeddings" / "img_emb").glob("*.npy"))]).astype(np.float32)
    texts = encoder.encode_captions([row["caption"] for row in rows])
    np.testing.assert_allclose([row["caption_similarity"] for row in rows], (vectors * texts).sum(axis=1), atol=1e-3)
    component = {row["sample_id"]: row["component_id"] for row in table(run_dir, "groups").to_pylist()}
    for row in table(run_dir, "captions").to_pylist():
        of = [other for other in rows if other["caption"] == row["caption"] and component.get(other["sample_id"]) == row["component_id"]]
        assert row["n_samples"] == len(of)
        assert row["caption_similarity"] == pytest.approx(np.mean([other["caption_similarity"] for other in of]), abs=1e-6)
    best = {}
    for name in ("manifest", "duplicates"):
        for row in table(run_dir, name).to_pylist():
            best.setdefault(row["component_id"], []).append((row["caption_similarity"], name))
    assert all(max(members)[0] == next(near for near, name in members if name == "manifest") for members in best.values())
    assert rows_of(done, "edges") == rows_of(run_dir, "edges")


def test_what_text_needs_is_said(model, shards, tmp_path):
    with pytest.raises(ConfigError, match=r"embed\.text=true with encoder\.name=dct"):
        shared_workers.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={tmp_path}", "embed.text=true"]))
    with pytest.raises(ConfigError, match=r"caption_similarity, which is measured with embed\.text=true"):
        shared_workers.run(config_for(model, shards, tmp_path, "keep.order_by=caption_similarity desc"))
    with pytest.raises(ConfigError, match=r"encoder\.pretrained is not set"):
        shared_workers.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={tmp_path}", "encoder.name=clip"]))


def test_another_model_is_refused_by_what_differs(model, shards, done, tmp_path):
    other = write_model(tmp_path, seed=1)
    with pytest.raises(RunDirectoryError, match="weights: sha256 .* → sha256"):
        shared_workers.run(config_for(other, shards, done), ["embed"])
    with pytest.raises(RunDirectoryError, match="precision: fp16 on a GPU, fp32 on a CPU → bf16"):
        shared_workers.run(config_for(model, shards, done, "encoder.precision=bf16"), ["embed"])
    with pytest.raises(RunDirectoryError, match=r"encoder.*clip → dct"):
        shared_workers.run(load_config(None, [f"input.shards={shards}", f"output.run_dir={done}"]), ["embed"])


def test_a_run_that_was_stopped_goes_on_with_its_encoder_and_batch_size_only(model, shards, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    config = config_for(model, shards, run_dir)
    work = embed.embed_partition

    def stopping(task):
        if task.partition == 1:
            raise KeyboardInterrupt
        return work(task)

    monkeypatch.setattr(embed, "embed_partition", stopping)
    with pytest.raises(KeyboardInterrupt):
        shared_workers.run(config_for(model, shards, run_dir, "embed.batch_size=5"), ["embed"], engine=Here(1))
    monkeypatch.setattr(embed, "embed_partition", work)
    other = write_model(tmp_path, seed=1)
    with pytest.raises(RunDirectoryError, match="embedding was begun with another encoder: weights: sha256 .* → sha256"):
        shared_workers.run(config_for(other, shards, run_dir), ["embed"], engine=Here(1))
    stamp = (run_dir / "embeddings" / "img_emb" / "img_emb_00000.npy").stat().st_mtime_ns
    shared_workers.run(config, ["embed"], engine=Here(1))
    assert (run_dir / "embeddings" / "img_emb" / "img_emb_00000.npy").stat().st_mtime_ns == stamp
    markers = [read_json(str(path)) for path in sorted((run_dir / "embeddings" / "_done").glob("*.json"))]
    assert len(markers) > 1
    assert {marker["result"]["batch_size"] for marker in markers} == {5}
    assert {marker["result"]["device"] for marker in markers} == {"cpu"}
    # --redo embeds all again
    before = json.loads((run_dir / "embeddings" / "_encoder.json").read_text())["weights"]
    shared_workers.run(config_for(other, shards, run_dir), ["embed"], engine=Here(1), redo=True)
    assert json.loads((run_dir / "embeddings" / "_encoder.json").read_text())["weights"] != before
    again = [read_json(str(path)) for path in sorted((run_dir / "embeddings" / "_done").glob("*.json"))]
    assert all(one["identity"] != other["identity"] for one, other in zip(markers, again, strict=True))


def test_another_encoder_is_refused_though_shards_were_missing(model, shards, tmp_path):
    pattern, allowed = str(Path(shards).parent / "{00000..00009}.tar"), "input.allow_missing=true"
    first = shared_workers.run(config_for(model, pattern, tmp_path / "run", allowed), ["embed"])
    assert first.records["embed"].summary["n_unreachable"] > 0
    with pytest.raises(RunDirectoryError, match="precision"):
        shared_workers.run(config_for(model, pattern, tmp_path / "run", allowed, "encoder.precision=bf16"), ["embed"])
    assert not shared_workers.run(config_for(model, pattern, tmp_path / "run", allowed), ["embed"]).skipped


def test_a_worker_with_another_model_stops(model, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "encoder_fingerprint", lambda config: {"weights": "sha256 of another"})
    with pytest.raises(ConfigError, match="a worker's encoder is not the driver's: .*weights: sha256 .* there, sha256 of another here"):
        shared_workers.run(config_for(model, shards, tmp_path / "run"), ["embed"], engine=Here(1))


def test_what_the_encoder_has_to_say_reaches_the_user(model, shards, tmp_path, monkeypatch):
    from dedup.encoders import clip

    monkeypatch.setattr(clip.ClipEncoder, "notes", lambda self: ["cuda:0 ran out of memory at 512 images"])
    reporter = Notes()
    shared_workers.run(config_for(model, shards, tmp_path / "run"), ["embed"], engine=Here(1), reporter=reporter)
    assert "embed: cuda:0 ran out of memory at 512 images" in reporter.notes


def test_vectors_that_are_none_become_rejected_rows(model, shards, tmp_path, monkeypatch):
    config = config_for(model, shards, tmp_path / "run", "embed.decode_threads=2", "embed.batch_size=64")
    encoder = load_encoder(config.encoder, config.engine.device)
    embed_images = encoder.embed

    def poisoned(images):
        found = embed_images(images).clone()
        found[2] = np.nan
        return found

    monkeypatch.setattr(encoder, "embed", poisoned)
    shared_workers.run(config, engine=Here(1))
    reasons = table(tmp_path / "run", "rejected")["reason"].to_pylist()
    assert reasons.count("bad_embedding") == table(tmp_path / "run", "partitions").num_rows  # a batch a shard
    vectors = np.concatenate([np.load(path) for path in (tmp_path / "run" / "embeddings" / "img_emb").glob("*.npy")])
    assert np.isfinite(vectors).all()


def test_a_torchscript_file_runs(tmp_path, shards):
    own = [
        "encoder.name=torchscript",
        f"encoder.pretrained={write_script(tmp_path)}",
        "encoder.image_size=64",
        "embed.also=[]",
        "engine.workers=1",
    ]
    summary = shared_workers.run(load_config(None, [*own, f"input.shards={shards}", f"output.run_dir={tmp_path / 'run'}"]))
    assert summary.records["embed"].encoder["model"] == "TorchScript"
    assert table(tmp_path / "run", "duplicates").num_rows > 20


@pytest.mark.spark
def test_spark_gives_the_same_tables(model, shards, done, tmp_path, start_spark):
    engine = start_spark()
    try:
        shared_workers.run(config_for(model, shards, tmp_path / "run"), ["embed", "index", "pairs"], engine=engine)
    finally:
        engine.close()
    assert_same_tables(done, tmp_path / "run", TABLES[: TABLES.index("edges")])
