"""Pixels fetched again: from plain and compressed tars, from folders, and from those that are no longer what they were."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import fsspec
import numpy as np
import pytest
from shard_data import Sample, encode, scene, write_tar

from dedup.errors import InputError, RunDirectoryError, SampleError
from dedup.storage.images import reader as pictures
from dedup.storage.images.decode import decode_image
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.images.thumbnails import ThumbnailWriter, make_thumbnail
from dedup.storage.input.shards import read_shard
from dedup.storage.urls import RangeReader

SAMPLES = [Sample(f"{i:03d}", encode(scene(i, (300, 260))), "c") for i in range(12)]


@pytest.fixture
def tar(tmp_path):
    write_tar(tmp_path / "a.tar", SAMPLES)
    return tmp_path / "a.tar"


def places(url, partition=0):
    found = [sample for sample in read_shard(str(url)) if sample.image is not None]
    return [Place((partition << 32) + i, s.shard, s.key, s.byte_offset, s.n_bytes) for i, s in enumerate(found)]


def pixels(i, min_side=None):
    return decode_image(SAMPLES[i].image, max_pixels=10**6, min_side=min_side).pixels


def test_plain_tars(tar, tmp_path):
    fsspec.filesystem("memory").pipe_file("/pictures/a.tar", tar.read_bytes())
    for url in (str(tar), "memory://pictures/a.tar"):
        for min_side in (None, 64):
            with PictureReader(f"{tmp_path}/run/embeddings", min_side) as reader:
                found = places(url)
                reader.prefetch(found)
                for i in (11, 0, 5):
                    picture = reader.read(found[i])
                    assert np.array_equal(picture, pixels(i, min_side))
                    assert picture.flags.c_contiguous
    assert pixels(0, 64).shape < pixels(0).shape


def test_folders_of_images(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "images" / "sub" / "a.jpg").write_bytes(SAMPLES[3].image)
    place = Place(0, f"{tmp_path}/images/", "sub/a.jpg", 0, len(SAMPLES[3].image))
    with PictureReader(f"{tmp_path}/embeddings", None) as reader:
        assert np.array_equal(reader.read(place), pixels(3))
        (tmp_path / "images" / "sub" / "a.jpg").unlink()
        with pytest.raises(InputError, match=r"sub/a.jpg can't be read"):
            reader.read(place)


def test_thumbnails_come_first(tar, tmp_path):
    run_dir, found = str(tmp_path / "run"), places(tar, partition=3)
    writer = ThumbnailWriter(f"{run_dir}/embeddings", 3)
    for i in range(len(SAMPLES)):
        picture = pixels(i)
        writer.write([make_thumbnail(picture, (0.0, 0.0, 300.0, 260.0)) if i != 4 else b"\xff\xd8\xffno JPEG"])
    writer.close()
    other = Place(0, *[getattr(found[7], name) for name in ("shard", "key", "byte_offset", "n_bytes")])
    with PictureReader(f"{run_dir}/embeddings", 64) as reader:
        assert np.array_equal(reader.read(other), pixels(7, 64))  # a partition that kept none
        tar.unlink()
        assert reader.read(found[5]).shape == (139, 160, 3)
        with pytest.raises(RunDirectoryError, match=f"thumbnail of sample {found[4].sample_id} is damaged"):
            reader.read(found[4])


def test_a_tar_that_is_gone_or_was_changed(tar, tmp_path):
    found = places(tar)
    content = tar.read_bytes()
    tar.unlink()
    with PictureReader(f"{tmp_path}/embeddings", None) as reader:
        with pytest.raises(InputError, match=r"a.tar can't be read .*was it moved"):
            reader.read(found[0])
        tar.write_bytes(content[: found[5].byte_offset + 100])
        assert np.array_equal(reader.read(found[4]), pixels(4))
        with pytest.raises(InputError, match=r"ends inside the image '005': expected \d+ bytes at \d+, found 100; it has changed"):
            reader.read(found[5])
        with pytest.raises(InputError, match="found 0; it has changed"):
            reader.read(found[6])
        tar.write_bytes(content[512:])
        with pytest.raises(SampleError, match=r"a.tar, key '003'.*the shard has changed since: run embed again") as caught:
            reader.read(found[3])
        assert caught.value.reason == "undecodable_image"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
@pytest.mark.parametrize("max_held_bytes", [10**9, 20_000])
def test_compressed_tars_are_read_once(tar, tmp_path, monkeypatch, pack, max_held_bytes):
    packed = tmp_path / "b.tar.z"
    packed.write_bytes(pack(tar.read_bytes()))
    found = places(packed)
    assert {place.byte_offset for place in found} == {None}
    reads = []
    monkeypatch.setattr(pictures, "read_shard", lambda url, **options: reads.append(url) or read_shard(url, **options))
    with PictureReader(f"{tmp_path}/embeddings", None, max_held_bytes=max_held_bytes) as reader:
        reader.prefetch(found[2:10])
        assert reads == []
        for i in (9, 2, 5, 2):
            assert np.array_equal(reader.read(found[i]), pixels(i))
        assert reads == [str(packed)]
        assert np.array_equal(reader.read(found[11]), pixels(11))  # not named before: looked for on its own
        reader.prefetch(found[:1])
        assert np.array_equal(reader.read(found[0]), pixels(0))
        assert reads == [str(packed)] * 2


def test_compressed_tars_that_are_gone_or_break_off(tar, tmp_path):
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    found = places(packed)
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    gone = [Place(99, str(tmp_path / "c.tar.gz"), "000", None, 10)]
    changed = [Place(98, str(packed), "001", None, 10)]
    with PictureReader(f"{tmp_path}/embeddings", None) as reader:
        reader.prefetch(found + gone)
        assert np.array_equal(reader.read(found[0]), pixels(0))
        for _ in range(2):
            with pytest.raises(InputError, match="key '011': .*b.tar.gz breaks off.*run embed again"):
                reader.read(found[11])
            with pytest.raises(InputError, match="c.tar.gz can't be opened"):
                reader.read(gone[0])
        packed.write_bytes(gzip.compress(tar.read_bytes()))
        reader.prefetch(changed)
        with pytest.raises(InputError, match="no image of 10 bytes under the key '001': it has changed"):
            reader.read(changed[0])


def test_a_full_disk_is_named(tar, tmp_path, monkeypatch):
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    found = places(packed)

    class Full:
        def __init__(self, max_size):
            pass

        def seek(self, place):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(pictures.tempfile, "SpooledTemporaryFile", Full)
    with PictureReader(f"{tmp_path}/embeddings", None) as reader:
        reader.prefetch(found)
        with pytest.raises(InputError, match="no room in .*No space left on device.*TMPDIR"):
            reader.read(found[0])


def test_few_files_stay_open(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.bin").write_bytes(b"%d" % i * 10)
    reader = RangeReader(max_open=3)

    def n_open():
        return sum(str(path.resolve()).startswith(str(tmp_path)) for path in Path("/proc/self/fd").iterdir())

    for i in [0, 1, 2, 0, 3, 4, 0, 5] * 3:
        assert reader.read(str(tmp_path / f"{i}.bin"), 2, 4) == b"%d" % i * 4
    assert reader.read(str(tmp_path / "0.bin"), 8, 4) == b"00"
    if Path("/proc/self/fd").is_dir():
        assert n_open() == 3
        reader.close()
        assert n_open() == 0
    reader.close()
    with pytest.raises(FileNotFoundError):
        reader.read(str(tmp_path / "none"), 0, 1)
