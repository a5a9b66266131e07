"""Thumbnails in a run: when they are kept, in which order, and what a changed setting does."""

from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import shared_workers
from shard_data import Sample, encode, scene, write_tar

from dedup.config import Config, EmbedConfig, EngineConfig, InputConfig, OutputConfig
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.stages.embed import write as partition
from dedup.storage.images.decode import decode_image
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.images.thumbnails import THUMBNAIL_SIDE, open_thumbnails
from dedup.storage.tables import read_table

SAMPLES = [Sample(f"{i:03d}", encode(scene(i, (400, 330))), "c", i) for i in range(20)]
BROKEN = [Sample("x00", b"no image"), Sample("x01", SAMPLES[0].image[:300])]


class Here(LocalEngine):
    """Runs tasks in this process, the only one that sees its memory."""

    def map_partitions(self, work, tasks, *, uses_gpu=False):
        return ((number, work(task)) for number, task in enumerate(tasks))


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    for folder in ("/thumbs-in", "/thumbs-out"):
        if fs.exists(folder):
            fs.rm(folder, recursive=True)


def config_for(shards, out, **embed):
    return Config(
        input=InputConfig(shards=[shards]), output=OutputConfig(str(out)), engine=EngineConfig(workers=1), embed=EmbedConfig(**embed)
    )


def metadata(out):
    return read_table(Run(str(out)).table("metadata")).to_pylist()


def place(row):
    return Place(*[row[name] for name in ("sample_id", "shard", "key", "byte_offset", "n_bytes")])


def check(out, rows):
    """Every row's thumbnail shows the row's image."""
    by_key, store = {sample.key: sample for sample in SAMPLES}, open_thumbnails(f"{out}/embeddings")
    assert store is not None
    for row in rows:
        small = decode_image(store.get(row["sample_id"]), max_pixels=10**6).pixels
        assert max(small.shape) == THUMBNAIL_SIDE
        expected = np.asarray(scene(by_key[row["key"]].source, (small.shape[1], small.shape[0]))).astype(int)
        assert np.abs(small - expected).mean() < 6
        # another scene is 40 and more away


def test_auto_keeps_them_for_remote_shards(tmp_path, memory):
    write_tar(tmp_path / "a.tar", [*BROKEN, *SAMPLES])
    memory.pipe_file("/thumbs-in/a.tar", (tmp_path / "a.tar").read_bytes())
    for out in (str(tmp_path / "out"), "memory://thumbs-out/run"):
        config = config_for("memory://thumbs-in/a.tar", out, batch_size=7)
        shared_workers.run(config, ["embed"], engine=Here(1))
        rows = metadata(out)
        assert len(rows) == len(SAMPLES)
        check(out, rows)
        assert shared_workers.run(config, ["embed"], engine=Here(1)).skipped == ("embed",)
        memory.mv("/thumbs-in/a.tar", "/thumbs-in/away")
        with PictureReader(f"{out}/embeddings", 64) as reader:
            assert reader.read(place(rows[3])).shape == (132, 160, 3)
        memory.mv("/thumbs-in/away", "/thumbs-in/a.tar")
    shared_workers.run(config_for(str(tmp_path / "a.tar"), tmp_path / "local"), ["embed"])
    assert open_thumbnails(f"{tmp_path}/local/embeddings") is None
    with PictureReader(f"{tmp_path}/local/embeddings", 64) as reader:
        assert reader.read(place(metadata(tmp_path / "local")[3])).shape == (83, 100, 3)


def test_rows_that_the_encoder_refuses_get_none(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", [*SAMPLES[:9], BROKEN[0], *SAMPLES[9:]])
    load = partition.PartitionWriter.__init__

    class Refusing:
        """Every fifth picture gets a vector that is no vector."""

        def __init__(self, encoder):
            self._encoder, self._n = encoder, 0

        def __getattr__(self, name):
            return getattr(self._encoder, name)

        def encode(self, batch):
            vectors = self._encoder.encode(batch)
            for row in range(len(batch)):
                if (self._n + row) % 5 == 2:
                    vectors[row, 0] = np.nan
            self._n += len(batch)
            return vectors

    def refusing(self, config, encoder, *rest, **options):
        load(self, config, Refusing(encoder), *rest, **options)
        self._of_grids = encoder  # pictures inside others are not counted

    monkeypatch.setattr(partition.PartitionWriter, "__init__", refusing)
    shared_workers.run(config_for(str(tmp_path / "a.tar"), tmp_path / "out", thumbnails="true", batch_size=6), ["embed"], engine=Here(1))
    rows = metadata(tmp_path / "out")
    assert [row["key"] for row in rows] == [sample.key for i, sample in enumerate(SAMPLES) if i % 5 != 2]
    check(tmp_path / "out", rows)
    offsets = np.load(tmp_path / "out" / "embeddings" / "thumbnails" / "offsets_00000.npy")
    assert offsets.dtype == np.int64
    assert offsets.shape == (len(rows) + 1,)


def test_a_changed_setting_stops_or_redoes(tmp_path):
    for i in range(2):
        write_tar(tmp_path / "shards" / f"{i}.tar", SAMPLES[10 * i : 10 * i + 10])
    on, off = (config_for(str(tmp_path / "shards" / "*.tar"), tmp_path / "out", thumbnails=text) for text in ("true", "false"))
    shared_workers.run(on, ["embed"])
    folder = tmp_path / "out" / "embeddings" / "thumbnails"
    assert len(list(folder.iterdir())) == 4
    with pytest.raises(
        RunDirectoryError, match=r"stage 'embed' was made with another configuration: embed.thumbnails: true → false.*--redo"
    ):
        shared_workers.run(off, ["embed"])
    check(tmp_path / "out", metadata(tmp_path / "out"))
    shared_workers.run(off, ["embed"], redo=True)
    assert list(folder.iterdir()) == []
    assert open_thumbnails(f"{tmp_path}/out/embeddings") is None
    shared_workers.run(on, ["embed"], redo=True)
    check(tmp_path / "out", metadata(tmp_path / "out"))


def test_lost_thumbnails_are_made_again_and_those_of_lost_shards_go(tmp_path):
    for i in range(2):
        write_tar(tmp_path / "shards" / f"{i}.tar", SAMPLES[10 * i : 10 * i + 10])
    config = config_for(str(tmp_path / "shards" / "*.tar"), tmp_path / "out", thumbnails="true")
    shared_workers.run(config, ["embed"])
    folder = tmp_path / "out" / "embeddings" / "thumbnails"
    (folder / "thumbnails_00001.bin").unlink()
    (folder / "_0123456789ab-thumbnails_00001.bin").write_bytes(b"half")
    (tmp_path / "out" / "_stages" / "embed.json").unlink()
    before = (folder / "thumbnails_00000.bin").stat().st_mtime_ns
    shared_workers.run(config, ["embed"])
    check(tmp_path / "out", metadata(tmp_path / "out"))
    assert (folder / "thumbnails_00000.bin").stat().st_mtime_ns == before
    Path(tmp_path / "shards" / "1.tar").unlink()
    shared_workers.run(config, ["embed"], redo=True)
    assert {path.name for path in folder.iterdir()} == {"thumbnails_00000.bin", "offsets_00000.npy"}


def test_an_embedding_that_fails_leaves_no_half_files(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", SAMPLES)
    config = config_for(str(tmp_path / "a.tar"), tmp_path / "out", thumbnails="true", batch_size=4)
    write, calls = partition.ThumbnailWriter.write, []

    def fail(self, thumbnails):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(self, thumbnails)

    monkeypatch.setattr(partition.ThumbnailWriter, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        shared_workers.run(config, ["embed"], engine=Here(1))
    assert not list((tmp_path / "out" / "embeddings" / "thumbnails").iterdir())
    monkeypatch.undo()
    shared_workers.run(replace(config), ["embed"], engine=Here(1))
    check(tmp_path / "out", metadata(tmp_path / "out"))


def test_values_that_are_no_setting(tmp_path):
    for value in ("sometimes", True):
        with pytest.raises(ConfigError, match=f"embed.thumbnails={value} is unknown; expected one of auto, true, false"):
            shared_workers.run(config_for("a.tar", tmp_path, thumbnails=value))
