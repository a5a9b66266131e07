"""Images in parquet and Arrow files: which columns hold them, what becomes of each row, and their bytes again by their place."""

import json

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import encode, scene

from dedup.errors import InputError
from dedup.storage.images.decode import decode_image
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.input.row_files import RowFile
from dedup.storage.input.row_images import holds_images
from dedup.storage.input.shards import read_image_bytes, read_shard

IMAGES = [encode(scene(i), "PNG" if i % 2 else "JPEG") for i in range(40)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def as_structs(images, paths=None):
    paths = paths or [None] * len(images)
    return pa.array([None if image is None else {"bytes": image, "path": path} for image, path in zip(images, paths, strict=True)], STRUCT)


def write(path, table, **options):
    """As parquet, an Arrow file or an Arrow stream."""
    path = str(path)
    if path.endswith(".parquet"):
        pq.write_table(table, path, **options)
    else:
        make = pa.ipc.new_file if path.endswith(".feather") else pa.ipc.new_stream
        with make(path, table.schema) as file:
            for batch in table.to_batches(max_chunksize=7):
                file.write_batch(batch)
    return path


def read(path, **options):
    reader = read_shard(str(path), **options)
    return list(reader), reader


@pytest.fixture(params=["a.parquet", "a.arrow", "a.feather"])
def name(request, tmp_path):
    return tmp_path / request.param


def test_every_image_comes_and_is_read_again(name):
    table = pa.table({"id": range(40), "image": as_structs(IMAGES), "text": [f"t{i}" for i in range(40)]})
    url = write(name, table, **({"row_group_size": 9} if name.suffix == ".parquet" else {}))
    samples, reader = read(url, carry=["id"])
    assert (reader.status, reader.n_samples, reader.error) == ("ok", 40, None)
    assert [sample.image for sample in samples] == IMAGES
    assert [(sample.key, sample.byte_offset, sample.member) for sample in samples[:2]] == [
        ("000000000", 0, "image"),
        ("000000001", 1, "image"),
    ]
    assert [sample.captions for sample in samples] == [(f"t{i}",) for i in range(40)]
    assert [sample.carried["id"] for sample in samples] == [str(i) for i in range(40)]
    for number in (0, 8, 9, 39):
        assert read_image_bytes(url, "", number, len(IMAGES[number]), "image") == IMAGES[number]
        assert read_image_bytes(url, "", number, len(IMAGES[number])) == IMAGES[number]
    with pytest.raises(InputError, match="no image of 1 bytes in row 3"):
        read_image_bytes(url, "", 3, 1)
    with pytest.raises(InputError, match="in row 99"):
        read_image_bytes(url, "", 99, 1)
    with pytest.raises(InputError, match="was read as embeddings"):
        read_image_bytes(url, "x", None, 0)
    with RowFile(url) as file:
        assert file.n_rows() == 40


def test_announced_images_are_read_in_one_pass(name, monkeypatch):
    url = write(name, pa.table({"image": as_structs(IMAGES)}))
    places = [Place(i, url, f"{i:09d}", i, len(IMAGES[i]), "image" if i % 3 else None) for i in (3, 4, 17, 38)]
    with PictureReader(str(name.parent), None) as reader:
        expected = [decode_image(IMAGES[place.byte_offset], max_pixels=10**8).pixels for place in places]
        for place, pixels in zip(places, expected, strict=True):  # one by one
            assert np.array_equal(reader.read(place), pixels)
        reader.prefetch(places)
        reader.read(places[0])
        name.unlink()
        for place, pixels in zip(places, expected, strict=True):
            assert np.array_equal(reader.read(place), pixels)
        reader.prefetch([places[0]])
        with pytest.raises(InputError, match="gave no image"):
            reader.read(places[0])


def test_on_a_store():
    url = "memory://rows/a.parquet"
    with fsspec.open(url, "wb") as file:
        pq.write_table(pa.table({"jpg": IMAGES}), file, row_group_size=5)
    samples, reader = read(url)
    assert [sample.image for sample in samples] == IMAGES
    assert read_image_bytes(url, "", 33, len(IMAGES[33])) == IMAGES[33]
    samples, reader = read("memory://rows/none.parquet")
    assert (samples, reader.status, reader.is_reachable) == ([], "unreadable", False)
    with fsspec.open("memory://rows/b.arrow", "wb") as file, pa.ipc.new_stream(file, pa.schema([("jpg", pa.binary())])) as stream:
        stream.write_table(pa.table({"jpg": IMAGES}))
    assert [sample.image for sample in read("memory://rows/b.arrow")[0]] == IMAGES


def test_files_as_datasets_writes_them(tmp_path):
    features = datasets.Features({
        "image": datasets.Image(), "more": datasets.Sequence(datasets.Image()), "sound": {"bytes": datasets.Value("binary")}, "label": datasets.ClassLabel(2)
    })  # fmt: skip
    rows = {
        "image": [{"bytes": IMAGES[0], "path": "first.jpg"}, {"bytes": None, "path": "elsewhere.jpg"}],
        "more": [[{"bytes": IMAGES[1], "path": None}, {"bytes": IMAGES[2], "path": None}], []],
        "sound": [{"bytes": IMAGES[3]}, {"bytes": b""}],
        "label": [0, 1],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    data.select([0]).save_to_disk(str(tmp_path / "disk"))
    with fsspec.open(str(tmp_path / "a.parquet"), "wb") as file:
        pq.write_table(data.data.table, file)  # to_parquet would embed files
    for url in (tmp_path / "a.parquet", *(tmp_path / "disk").glob("*.arrow")):
        samples, reader = read(url, carry=["label"])
        assert reader.status == "ok"
        found = [(sample.key, sample.member, sample.image, sample.n_images) for sample in samples if sample.image]
        assert found[:3] == [
            ("000000000", "image", IMAGES[0], 4),
            ("000000000", "more.0", IMAGES[1], 4),
            ("000000000", "more.1", IMAGES[2], 4),
        ]
        assert found[3][1:3] == ("sound", IMAGES[3])  # which `datasets` gives no name, and which is an image by its bytes
        assert samples[0].image_name == "first.jpg"
        assert [sample.carried["label"] for sample in samples[:4]] == ["0"] * 4
        if url.suffix == ".parquet":
            assert [sample.error.reason for sample in samples[4:]] == ["no_image", "empty_image"]
            assert "elsewhere.jpg without the bytes" in samples[4].error.detail


def test_features_say_what_is_no_image(tmp_path):
    features = {
        "info": {"features": {"a": {"_type": "Audio"}, "b": {"feature": {"_type": "Image"}, "_type": "List"}, "c": [{"_type": "Image"}]}}
    }
    schema = pa.schema([("a", STRUCT), ("b", pa.list_(STRUCT)), ("c", pa.list_(STRUCT))], metadata={"huggingface": json.dumps(features)})
    image = {"bytes": IMAGES[0], "path": None}
    url = write(tmp_path / "a.parquet", pa.table([[image], [[image]], [[image, None, image]]], schema=schema))
    samples, reader = read(url)
    assert [sample.member for sample in samples] == ["b.0", "c.0", "c.2"]
    assert reader.passed_over == {"values of column a, which are no images": 1}


def test_parquet_of_img2dataset(tmp_path):
    table = pa.table({
        "key": ["000000", "000001", "000002"], "caption": ["a", "b", None], "url": ["http://u/0", "http://u/1", "http://u/2"],
        "status": ["success", "failed_to_download", "success"], "exif": ["{}", None, "{}"], "jpg": [IMAGES[0], None, b""],
    })  # fmt: skip
    samples, _ = read(write(tmp_path / "00000.parquet", table), carry=["status"])
    assert [(sample.key, sample.captions, sample.url) for sample in samples[:2]] == [
        ("000000", ("a",), "http://u/0"),
        ("000001", ("b",), "http://u/1"),
    ]
    assert [sample.error and sample.error.reason for sample in samples] == [None, "no_image", "empty_image"]
    assert samples[1].error.detail == "row 1 is empty in jpg (status failed_to_download)"
    assert [sample.carried["status"] for sample in samples] == ["success", "failed_to_download", "success"]


@pytest.mark.parametrize(("wanted", "members"), [("all", ["input.0", "input.1", "edited"]), ("first", ["input.0"]), ("edited", ["edited"]), ("input", ["input.0", "input.1"])])  # fmt: skip
def test_several_images_in_a_row(tmp_path, wanted, members):
    table = pa.table({"input": [IMAGES[:2]], "edited": [IMAGES[2]]})
    samples, reader = read(write(tmp_path / "a.parquet", table), images=wanted)
    assert [sample.member for sample in samples] == members
    assert all(sample.n_images == len(members) for sample in samples)
    assert sum(reader.passed_over.values()) == 3 - len(members)
    assert reader.n_samples == 1


def test_a_member_that_no_row_has(tmp_path):
    samples, _ = read(write(tmp_path / "a.parquet", pa.table({"image": IMAGES[:1]})), images="depth")
    assert samples[0].error.detail == "row 0 has no depth, which input.images_per_sample asks for; found image"


def test_bytes_decide_which_columns_hold_images(tmp_path):
    table = pa.table({"vector": [b"\0" * 64] * 3, "picture": [None, IMAGES[0], b"no image"], "png": [b"broken"] * 3})
    url = write(tmp_path / "a.parquet", table)
    samples, reader = read(url)
    assert [sample.member for sample in samples] == ["png", "picture", "png", "picture", "png"]  # what is called an image counts as one
    assert reader.passed_over == {"values of column vector, which are no images": 3}


def test_keys(tmp_path):
    table = pa.table({"__key__": ["a", None, "a", "b"], "image": IMAGES[:4]})
    samples, reader = read(write(tmp_path / "a.parquet", table))
    assert [(sample.key, sample.error and sample.error.reason) for sample in samples] == [
        ("a", None), ("000000001", None), ("a", "duplicate_key"), ("b", None)
    ]  # fmt: skip
    assert reader.n_samples == 4
    samples, _ = read(write(tmp_path / "b.parquet", pa.table({"key": [7, 8], "image": IMAGES[:2]})))
    assert [sample.key for sample in samples] == ["7", "8"]


def test_too_many_bytes(tmp_path):
    samples, _ = read(write(tmp_path / "a.parquet", pa.table({"image": [b"x" * 100]})), max_image_bytes=99)
    assert samples[0].error.reason == "too_many_bytes"
    assert (samples[0].image, samples[0].n_bytes) == (None, 100)


def test_text_that_is_no_utf8(name):
    raw = pa.array([b"caf\xe9", b"\xfcber", b"plain"] * 8)
    paths = pa.array([b"\xff.jpg"] * 24).view(pa.string())
    images = pa.StructArray.from_arrays([pa.array(IMAGES[:24]), paths], fields=[*STRUCT])
    url = write(name, pa.table({"image": images, "caption": raw.view(pa.string())}))
    samples, reader = read(url)
    assert reader.status == "ok"
    assert [sample.image for sample in samples] == IMAGES[:24]
    assert samples[2].captions == ("plain",)
    assert all(sample.captions and "\0" not in sample.caption for sample in samples)
    assert read_image_bytes(url, "", 5, len(IMAGES[5])) == IMAGES[5]


# ---- files that are not right


def test_no_column_of_images(tmp_path):
    url = write(tmp_path / "a.parquet", pa.table({"url": ["a"], "n": [1]}))
    samples, reader = read(url)
    assert (samples, reader.status, reader.is_reachable) == ([], "unreadable", True)
    assert "no column of images" in reader.error
    assert "found url: string, n: int64" in reader.error
    assert not holds_images(url)
    assert holds_images(write(tmp_path / "b.parquet", pa.table({"x": IMAGES[:1]})))


def test_damaged_files(name):
    url = write(name, pa.table({"image": as_structs(IMAGES)}), **({"row_group_size": 5} if name.suffix == ".parquet" else {}))
    whole = name.read_bytes()
    name.write_bytes(whole[: len(whole) // 2])
    samples, reader = read(url)
    assert reader.status != "ok"
    assert reader.is_reachable
    assert [sample.image for sample in samples] == IMAGES[: len(samples)]
    assert bool(samples) == (name.suffix == ".arrow")  # the others say at their end where all is
    assert not holds_images(url) or samples
    rng = np.random.default_rng(0)
    for _ in range(60):  # nothing raises, and nothing reads strange memory
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            changed[place] = rng.integers(256)
        name.write_bytes(changed)
        samples, reader = read(url)
        assert len(samples) <= 40
        assert len(samples) == 40 or reader.status != "ok"
    for content in (b"", b"PAR1", b"ARROW1\0\0", b"\xff" * 100):
        name.write_bytes(content)
        samples, reader = read(url)
        assert (samples, reader.status, reader.is_reachable) == ([], "unreadable", True), content


def test_offsets_that_point_elsewhere(tmp_path):
    offsets = np.array([0, 10, 2**31 - 1], np.int32)
    path = tmp_path / "a.feather"
    with pa.ipc.new_file(str(path), pa.schema([("image", pa.binary())])) as file:
        good = pa.record_batch([pa.array([b"x" * 10, b"y" * 54])], names=["image"])
        file.write_batch(good)
    path.write_bytes(path.read_bytes().replace(np.array([0, 10, 64], np.int32).tobytes(), offsets.tobytes()))
    samples, reader = read(path)
    assert samples == []
    assert reader.status == "unreadable"
    assert "damaged after 0 rows" in reader.error


def test_no_rows(name):
    samples, reader = read(write(name, pa.table({"image": pa.array([], STRUCT)})))
    assert (samples, reader.status) == ([], "ok")
