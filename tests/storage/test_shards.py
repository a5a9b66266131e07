"""A tar becomes samples; whatever is wrong with it becomes a sample with an error, or a status."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.errors import InputError
from dedup.storage.input.folders import read_folder_part
from dedup.storage.input.samples import RawSample
from dedup.storage.input.shards import read_image_bytes, read_shard
from dedup.storage.input.sources import folder_parts

Member = tuple[str, bytes]
JPG = b"\xff\xd8\xff" + bytes(range(256)) * 3


def tar_bytes(members: Iterable[Member], *, format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read(url: str, **options: Any) -> tuple[list[RawSample], str, str | None]:
    reader = read_shard(url, **options)
    samples = list(reader)
    return samples, reader.status, reader.error


def reasons(samples: list[RawSample]) -> list[tuple[str, str | None]]:
    return [(sample.key, sample.error.reason if sample.error else None) for sample in samples]


PLAIN: list[Member] = [
    ("000.jpg", JPG + b"0"),
    ("000.txt", b"  a cat \n"),
    ("000.json", json.dumps({"url": "http://h/0", "similarity": "0.25", "LICENSE": "?"}).encode()),
    ("sub.dir/001.PNG", JPG + b"1" * 600),
    ("sub.dir/001.json", b'{"TEXT": "a dog", "URL": "http://h/1", "similarity": NaN, "original_width": 12.0}'),
    ("002.cls", b"3"),
    ("002.webp", JPG + b"2"),
    ("002.jpg", JPG + b"the second image of a sample"),
]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, partial(pa.compress, codec="zstd", asbytes=True)])
def test_samples_of_every_kind_of_tar(tmp_path: Path, format: int, pack: Callable[[bytes], bytes]) -> None:
    long = "long/" * 30 + "ü" * 40
    url = write(
        tmp_path / "a.tar",
        pack(tar_bytes([*PLAIN, (long + ".jpg", JPG)], format=format if format != tarfile.USTAR_FORMAT else tarfile.PAX_FORMAT)),
    )
    samples, status, error = read(url, carry=["similarity", "license", "original_width"])
    assert (status, error) == ("ok", None)
    assert reasons(samples) == [("000", None), ("sub.dir/001", None), ("002", None), ("002", None), (long, None)]
    assert [sample.image for sample in samples] == [JPG + b"0", JPG + b"1" * 600, JPG + b"2", PLAIN[-1][1], JPG]
    assert [sample.caption for sample in samples] == ["a cat", "a dog", None, None, None]
    assert [sample.url for sample in samples] == ["http://h/0", "http://h/1", None, None, None]
    assert [(sample.member, sample.n_images) for sample in samples] == [("jpg", 1), ("png", 1), ("webp", 2), ("jpg", 2), ("jpg", 1)]
    assert samples[0].carried == {"similarity": 0.25, "license": "?", "original_width": None}
    assert str(samples[1].carried["similarity"]) == "nan"
    assert samples[1].carried["original_width"] == 12
    assert [sample.image_name for sample in samples] == ["000.jpg", "sub.dir/001.PNG", "002.webp", "002.jpg", long + ".jpg"]
    for sample in samples:
        assert sample.shard == url
        assert sample.image is not None
        assert (sample.byte_offset is None) == (pack is not bytes)
        assert read_image_bytes(url, sample.key, sample.byte_offset, sample.n_bytes, sample.member) == sample.image


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_images_of_one_size_under_one_key_are_told_apart(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    url = write(tmp_path / "a.tar", pack(tar_bytes([("0.input.jpg", JPG + b"a"), ("0.output.jpg", JPG + b"b"), ("0.txt", b"edit")])))
    samples = read(url)[0]
    assert [(sample.member, sample.caption, sample.n_images) for sample in samples] == [("input.jpg", "edit", 2), ("output.jpg", "edit", 2)]
    for sample in samples:
        assert read_image_bytes(url, "0", sample.byte_offset, sample.n_bytes, sample.member) == sample.image


@pytest.mark.parametrize(
    ("images", "expected", "n_left_out"),
    [("all", ["mask.png", "jpg", "png"], 0), ("first", ["jpg"], 2), ("mask.png", ["mask.png"], 2), ("depth.png", [None], 3)],
)
def test_which_images_of_a_sample_count(tmp_path: Path, images: str, expected: list[str | None], n_left_out: int) -> None:
    url = write(tmp_path / "a.tar", tar_bytes([("0.mask.png", JPG), ("0.jpg", JPG), ("0.png", JPG), ("0.npy", b"x" * 9)]))
    reader = read_shard(url, images=images)
    samples = list(reader)
    assert [sample.member for sample in samples] == expected
    assert [sample.error.reason for sample in samples if sample.error] == (["no_image"] if expected == [None] else [])
    assert reader.n_samples == 1
    assert reader.passed_over["images that input.images_per_sample leaves out"] == n_left_out
    assert reader.passed_over["members .npy"] == 1


def test_members_that_stand_apart_are_joined(tmp_path: Path) -> None:
    keys = [f"{number:02}" for number in range(5)]
    late = [(f"{key}.jpg", JPG + key.encode()) for key in keys] + [(f"{key}.txt", key.encode()) for key in keys]
    late += [(f"{key}.b.jpg", JPG + b"b" + key.encode()) for key in keys[:2]] + [("03.jpg", JPG + b"another"), ("03.txt", b"another")]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(late)))
    samples = list(reader)
    assert [(sample.key, sample.member) for sample in samples if not sample.error] == [(key, "jpg") for key in keys] + [
        ("00", "b.jpg"),
        ("01", "b.jpg"),
    ]
    assert [(sample.key, sample.error.reason) for sample in samples if sample.error] == [("03", "duplicate_key")]
    expected = {(key, "jpg"): ((key,), 2 if key in keys[:2] else 1) for key in keys}
    expected |= {(key, "b.jpg"): ((key,), 2) for key in keys[:2]}
    assert {place: (members.captions, members.n_images) for place, members in reader.late.items()} == expected
    first = [(f"{key}.txt", key.encode()) for key in keys] + [(f"{key}.jpg", JPG) for key in keys[:4]]
    reader = read_shard(write(tmp_path / "b.tar", tar_bytes(first)))
    samples = list(reader)
    assert [(sample.key, sample.caption, sample.error and sample.error.reason) for sample in samples] == [
        *((key, key, None) for key in keys[:4]),
        ("04", "04", "no_image"),
    ]
    assert (reader.n_samples, reader.n_late) == (5, 4)


def test_bytes_decide_what_is_an_image(tmp_path: Path) -> None:
    members = [
        ("0.heic", JPG),
        ("1.jpg!large", JPG),
        ("2.weird", JPG),
        ("3.weird", b"no image"),
        ("4.npy", b"\x93NUMPY"),
        ("5.mp4", b"x"),
        ("6.jpg", b"x"),
        *((f"{number}.{suffix}", JPG) for number, suffix in enumerate(("bin", "txt", "json", "npy", "part", "html"), 7)),
        ("7.txt", b"BMW 320i"),  # begins like a BMP
        ("folder/no_suffix", JPG),
        ("README", b"no image"),
    ]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    samples = list(reader)
    assert [sample.key for sample in samples if sample.image is not None] == [*map(str, (0, 1, 2, *range(6, 13))), "folder/no_suffix"]
    assert all(sample.image == JPG for sample in samples if sample.image is not None and sample.key != "6")
    assert [sample.key for sample in samples if sample.error] == ["README", "3", "4", "5"]
    assert reader.late["7", "bin"].captions == ("BMW 320i",)
    assert reader.passed_over == {"members .weird": 1, "members .npy": 1, "members .mp4": 1}


ORDERS = [
    "p0.txt p1.txt p0.in p1.in p0.out p1.out",
    "p0.in p1.in p0.out p1.out p1.txt p0.txt",
    "p0.in p0.txt p1.in p1.txt p1.out p0.out",
    "p0.in p1.in p0.txt p1.txt p0.out p1.out",
]


@pytest.mark.parametrize(
    "order", ["a.1.jpg a.1.txt b.jpg a.2.jpg", "a.1.jpg b.1.jpg a.1.txt b.1.txt a.2.jpg b.2.jpg", "a.1.txt b.jpg a.1.jpg b.txt a.2.jpg"]
)
def test_an_image_that_stands_apart_gets_no_other_s_text(tmp_path: Path, order: str) -> None:
    members = [(name, JPG + name.encode() if name.endswith("jpg") else name.encode()) for name in order.split()]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    captions = {(sample.key, sample.member): sample.captions for sample in reader}
    for place, late in reader.late.items():
        assert not late.shares
        assert late.n_images == sum(key == place[0] for key, _ in captions)
        captions[place] += late.captions
    assert captions["a", "1.jpg"] == ("a.1.txt",)
    assert captions["a", "2.jpg"] == ()


def test_very_many_images_of_one_key(tmp_path: Path) -> None:
    """Names with a version in front put a whole tar under one key: each still has its own text, at a cost that grows with their number."""
    n = 3_000
    members = [
        (f"v1.{number:06d}.{suffix}", JPG if suffix == "jpg" else b"%d" % number) for number in range(n) for suffix in ("jpg", "txt")
    ]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    assert [sample.captions for sample in reader] == [(str(number),) for number in range(n)]
    apart = [
        member for pair in zip(members[::2], members[1::2], strict=True) for member in (pair[0], (f"{pair[0][0][3:9]}.cls", b"x"), pair[1])
    ]
    reader = read_shard(write(tmp_path / "b.tar", tar_bytes(apart)))
    captions = {sample.member: sample.captions for sample in reader if sample.key == "v1"}
    assert len(captions) == n
    assert all(captions[member] + late.captions == (str(int(member[:6])),) for (_, member), late in reader.late.items())


def test_suffixes_without_number_are_counted_together(tmp_path: Path) -> None:
    members = [(f"doc.{number:06d}", b"no image") for number in range(50)] + [("a.jpg", JPG), ("a.npy", b"x")]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    assert len(list(reader)) == 2
    assert reader.passed_over == {"members of other names": 50, "members .npy": 1}


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_image_of_samples_that_stand_apart(tmp_path: Path, order: str) -> None:
    members = [(name, name.encode()) if name.endswith("txt") else (f"{name}.jpg", JPG + name.encode()) for name in order.split()]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)), images="first")
    assert sorted((sample.key, sample.member) for sample in reader) == [("p0", "in.jpg"), ("p1", "in.jpg")]
    assert reader.passed_over == {"images that input.images_per_sample leaves out": 2}


def test_a_member_that_nobody_has(tmp_path: Path) -> None:
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes([("0.in.jpg", JPG), ("0.txt", b"x")])), images="zzz.jpg")
    (sample,) = reader
    assert str(sample.error) == "no_image: no member is zzz.jpg, which input.images_per_sample asks for; found in.jpg, txt"


def test_one_name_in_two_forms_of_unicode(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    members = [(f"{nfd}.jpg", JPG), (f"{nfc}.txt", b"coffee"), ("b.jpg", JPG), (f"{nfc}.json", b'{"caption": "late"}')]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    assert [(sample.key, sample.captions) for sample in reader] == [(nfd, ("coffee",)), ("b", ())]
    assert [late.captions for late in reader.late.values()] == [("late",)]


def test_links_inside_a_tar_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.REGTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "" if kind == tarfile.REGTYPE else "a.jpg"
            info.size = len(JPG) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(JPG))
    reader = read_shard(str(tmp_path / "a.tar"))
    assert [sample.key for sample in reader] == ["a"]
    assert reader.passed_over == {"links inside tars, which are not followed": 2}


def test_a_packed_tar_that_is_cut_off_early(tmp_path: Path) -> None:
    packed = gzip.compress(tar_bytes([("0.jpg", JPG + np.random.default_rng(0).bytes(6_000))]))
    reader = read_shard(write(tmp_path / "a.tar.gz", packed[:3_000]))
    assert not list(reader)
    assert reader.status == "truncated"
    assert "breaks off after 3000 bytes" in str(reader.error)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_each_of_several_images_has_the_texts_of_its_name(tmp_path: Path, *, is_sorted: bool) -> None:
    texts = [
        ("05.txt", "five"),
        ("06.png.caption", "six"),
        ("06.json", '{"caption": "six too"}'),
        ("txt", "of both"),
        ("en.txt", "English"),
    ]
    members = [("22.05.png", JPG), ("22.06.png", JPG + b"6"), ("22.07.png", JPG + b"7"), ("22.08.png", JPG + b"8"), ("22.08.txt", b"eight")]
    members += [] if is_sorted else [("another.jpg", JPG)]
    members += [(f"22.{suffix}", text.encode()) for suffix, text in texts]
    reader = read_shard(write(tmp_path / "a.tar", tar_bytes(members)))
    captions = {sample.member: sample.captions for sample in reader if sample.key == "22"}
    for (key, member), late in reader.late.items():
        assert (key, late.n_images) == ("22", 4)
        captions[member] += late.captions
    both = ("of both", "English")
    assert captions == {
        "05.png": ("five", *both),
        "06.png": ("six", *both, "six too"),
        "07.png": both,
        "08.png": ("eight", *both),
    }


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "d/a", "c.d/a"]), st.sampled_from(["jpg", "txt", "a.png", "JSON", "cls"])),
        max_size=12,
        unique=True,
    )
)
def test_groups_as_webdataset_does(tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]) -> None:
    names.sort(key=lambda name: name[0])  # consecutive and no suffix twice: where webdataset does not lose samples
    url = write(
        tmp_path_factory.getbasetemp() / "wds.tar",
        tar_bytes([("__meta__/x.jpg", b"m"), *((f"{key}.{suffix}", b"{}") for key, suffix in names)]),
    )
    with open(url, "rb") as stream:
        files = webdataset.tariterators.tar_file_expander([{"url": url, "stream": stream}])
        expected = [sample for sample in webdataset.tariterators.group_by_keys(files) if sample]
    samples, status, _ = read(url)
    assert status == "ok"
    images = {sample["__key__"]: [name for name in sample if name in ("jpg", "a.png")] for sample in expected}
    assert {sample.key for sample in samples} == {sample["__key__"] for sample in expected}
    assert [(sample.key, sample.member) for sample in samples if sample.image is not None] == [
        (key, name) for key, names in images.items() for name in names
    ]
    assert [sample.key for sample in samples if sample.image is None] == [key for key, names in images.items() if not names]


def test_lost_samples_have_a_reason(tmp_path: Path) -> None:
    members = [
        ("0.jpg", JPG),
        ("README", b"no suffix"),
        (".hidden.jpg", JPG),
        ("0.txt", b"still of sample 0"),
        ("1.txt", b"no image"),
        ("2.psd", b"...."),
        ("3.heic", b"...."),
        ("3.jpg", JPG),
        ("4.jpg", b""),
        ("5.jpg", JPG * 2),
        ("0.jpg", b"again"),
        ("0.json", b"{}"),
        ("6.jpg", JPG),
        ("6.jpg", b"twice"),
        ("__index__", b"meta"),
        ("__meta__/7.jpg", b"meta"),
    ]
    samples, status, _ = read(write(tmp_path / "a.tar", tar_bytes(members)), max_image_bytes=len(JPG))
    assert status == "ok"
    assert reasons(samples) == [
        ("README", "no_key"),
        (".hidden.jpg", "no_key"),
        ("0", None),
        ("2", None),  # what it is, the decoder says
        ("3", None),
        ("3", None),
        ("4", "empty_image"),
        ("5", "too_many_bytes"),
        ("0", "duplicate_key"),
        ("6", None),
        ("6", "duplicate_key"),
        ("1", "no_image"),  # at the end: its image might have come
    ]
    assert samples[2].caption == "still of sample 0"
    assert samples[2].image == JPG
    assert all(sample.image is None for sample in samples if sample.error)


def test_links_and_folders_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.DIRTYPE), ("b.jpg", tarfile.SYMTYPE), ("c.jpg", tarfile.LNKTYPE), ("d.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("e.jpg")
        info.size = len(JPG)
        tar.addfile(info, io.BytesIO(JPG))
    assert reasons(read(str(tmp_path / "a.tar"))[0]) == [("e", None)]


@pytest.mark.parametrize(
    ("members", "caption"),
    [
        ([("0.txt", b"caf\xff\x00e")], "caf\ufffd\ufffde"),
        ([("0.txt", b" \n"), ("0.json", b'{"caption": "from json"}')], "from json"),
        ([("0.json", b'{"caption": "\\ud800x", "text": "later"}')], "\ufffdx"),
        ([("0.json", b'{"caption": null, "text": "", "TEXT": 3, "Caption": "\\ud83d\\ude00"}')], "\U0001f600"),
        ([("0.json", b'\xef\xbb\xbf{"text": "bom"}')], "bom"),
        ([("0.json", b'{"text": "caf\xe9"}')], "café"),
        ([("0.json", b'{"text": "inv\xffalid"}')], "inv\ufffdalid"),
        ([("0.json", b'{"text": "caf\xc3\xa9, cr\xe8me, \xe2\x80\xa6"}')], "café, cr\ufffdme, …"),
        ([("0.json", b'{"text": "broken')], None),
        ([("0.json", b"[1, 2]")], None),
        ([("0.json", b"[" * 100_000)], None),
        ([("0.json", b'{"a": ' + b"9" * 10_000 + b"}")], None),
        ([("0.pyd", b"cos\nsystem\n(S'false'\ntR."), ("0.pickle", b"\x80")], None),
    ],
)
def test_captions(tmp_path: Path, members: list[Member], caption: str | None) -> None:
    (sample,), status, _ = read(write(tmp_path / "a.tar", tar_bytes([("0.jpg", JPG), *members])), carry=["a"])
    assert (status, sample.caption, sample.error) == ("ok", caption, None)
    pa.array([sample.caption, sample.url, *map(str, sample.carried.values())], pa.string()).validate(full=True)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    url = write(tmp_path / "a.tar", tar_bytes([("a\udcff.jpg", JPG), ("a\udcfe.jpg", JPG)], format=tarfile.GNU_FORMAT))
    samples, _, _ = read(url)
    assert reasons(samples) == [("a\\xff", None), ("a\\xfe", None)]
    assert read_image_bytes(url, "a\\xfe", None, len(JPG)) == JPG


def test_sidecar_is_joined_by_key_and_fills_gaps(tmp_path: Path) -> None:
    url = write(
        tmp_path / "00000.tar",
        tar_bytes([("d/1.jpg", JPG), ("2.jpg", JPG), ("2.txt", b"txt"), ("2.json", b'{"punsafe": null}'), ("3.jpg", JPG)]),
    )
    table = pa.table(
        {
            "key": ["0", "2", "1", None],
            "TEXT": pa.array([b"failed", b"parquet", b"inv\xff", b""], pa.binary()),
            "url": ["u0", "u2", "u1", "u"],
            "punsafe": [0.0, 0.5, None, 1.0],
            "status": ["failed", "success", "success", "failed"],
        }
    )
    pq.write_table(table, tmp_path / "00000.parquet")
    samples, status, error = read(url, sidecar=True, carry=["punsafe", "status"])
    assert (status, error) == ("ok", None)
    assert [(sample.caption, sample.url, sample.carried["punsafe"], sample.carried["status"]) for sample in samples] == [
        ("inv\ufffd", "u1", None, "success"),
        ("txt", "u2", 0.5, "success"),
        (None, None, None, None),
    ]
    assert read(url)[0][0].url is None


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no parquet PAR1", "keyless"])
def test_a_missing_or_broken_sidecar_is_noted(tmp_path: Path, content: bytes | str | None) -> None:
    url = write(tmp_path / "a.tar", tar_bytes(PLAIN))
    if isinstance(content, bytes):
        (tmp_path / "a.parquet").write_bytes(content)
    elif content:
        pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "a.parquet")
    samples, status, error = read(url, sidecar=True)
    assert (len(samples), status) == (4, "ok")
    assert error is not None
    assert "a.parquet" in error


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_truncation_keeps_what_stood_before(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    members = [
        (f"{number:03d}.{suffix}", b"%d" % number if suffix == "txt" else JPG * (number + 1))
        for number in range(4)
        for suffix in ("jpg", "txt")
    ]
    whole = tar_bytes(members)
    end = len(whole.rstrip(b"\0"))
    ends = {}  # where each image lies, by the standard library
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        for info in tar:
            ends[info.name] = (info.offset, info.offset_data, info.offset_data + info.size)
            end = max(end, info.offset_data + -(-info.size // 512) * 512)
    cut = data.draw(st.integers(0, end))
    url = write(tmp_path_factory.getbasetemp() / "cut.tar", whole[:cut])
    samples, status, error = read(url)
    assert status == ("unreadable" if 0 < cut < 512 else "truncated")
    assert error is not None
    assert "cut.tar" in error
    assert "\n" not in error
    complete = [name for name, (_, _, stop) in ends.items() if name.endswith("jpg") and stop <= cut]
    broken = [name for name, (_, start, stop) in ends.items() if name.endswith("jpg") and start <= cut < stop]
    assert [sample.image_name for sample in samples if not sample.error] == complete
    assert [(sample.image_name, sample.error.reason) for sample in samples if sample.error] == [
        (name, "truncated_image") for name in broken
    ]
    assert all(sample.image == dict(members)[sample.image_name or ""] for sample in samples if not sample.error)


def test_a_break_before_the_image_is_a_lost_sample(tmp_path: Path) -> None:
    whole = tar_bytes([("0.txt", b"x"), ("0.jpg", JPG)])
    assert reasons(read(write(tmp_path / "a.tar", whole[:1024]))[0]) == [("0", "truncated_image")]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    packs: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, lzma.compress, bz2.compress]
    pack = data.draw(st.sampled_from(packs))
    format = data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    content = bytearray(pack(tar_bytes([("ä" * 120 + ".jpg", JPG), *PLAIN], format=format)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    url = write(tmp_path_factory.getbasetemp() / "flipped.tar", bytes(content[:cut]))
    samples, status, error = read(url, carry=["similarity"])
    assert status in ("ok", "truncated", "unreadable")
    assert status == "ok" or error
    pa.array([text for sample in samples for text in (sample.key, sample.caption, sample.url, sample.image_name)], pa.string()).validate(
        full=True
    )


def test_a_damaged_header_is_a_break(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes([("0.jpg", b"x"), ("1.jpg", b"y"), ("2.jpg", b"z")]))
    whole[1024] ^= 1
    samples, status, error = read(write(tmp_path / "a.tar", bytes(whole)))
    assert (reasons(samples), status) == ([("0", None)], "truncated")
    assert "checksum" in str(error)


def test_sizes_that_headers_only_claim_are_not_believed(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    claim = tar_bytes([("0.jpg", JPG)])[: 512 * 3] + info.tobuf(tarfile.GNU_FORMAT)
    samples, status, error = read(write(tmp_path / "a.tar", claim + b"\0" * 4096))
    assert (reasons(samples), status) == ([("0", None)], "truncated")
    assert "impossible size" in str(error)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"\0" * 1024, "ok", None),
        (tar_bytes([]), "ok", None),
        (b"", "truncated", "breaks off after 0 bytes"),
        (b"I am a text file that someone called .tar\n" * 100, "unreadable", "is not a tar"),
        (b"short", "unreadable", "is not a tar"),
        (gzip.compress(b"no tar inside" * 100, mtime=0), "unreadable", "is not a tar"),
        (b"\x1f\x8b\x08 not gzip", "unreadable", "is not a tar"),
    ],
)
def test_files_without_samples(tmp_path: Path, content: bytes, status: str, message: str | None) -> None:
    samples, found, error = read(write(tmp_path / "a.tar", content))
    assert (samples, found) == ([], status)
    assert error is None if message is None else message in str(error)


@pytest.mark.parametrize("suffix", ["jpg", "txt", "bin"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_claims_more_than_there_can_be(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """It was skipped block by block, for ever, behind the end of the file."""
    for size in (2**40, 2**87):
        info = tarfile.TarInfo(f"b.{suffix}")
        info.size = size
        whole = tar_bytes([("a.jpg", JPG)]).rstrip(b"\0")
        content = whole + bytes(-len(whole) % 512) + info.tobuf(tarfile.GNU_FORMAT) + bytes(5_000)
        samples, status, error = read(write(tmp_path / "huge.tar", pack(content)))
        assert [sample.key for sample in samples if sample.error is None] == ["a"]
        assert status == "truncated"
        assert error is not None
        assert "breaks off" in error


def test_what_cannot_be_reached_is_told_from_what_is_broken(tmp_path: Path) -> None:
    for url in (
        str(tmp_path / "nothing.tar"),
        str(tmp_path),
        "memory://nowhere/a.tar",
        "nosuchscheme://a/b.tar",
        "http://127.0.0.1:9/a.tar",
    ):
        reader = read_shard(url)
        assert (list(reader), reader.status, reader.is_reachable) == ([], "unreadable", False)
        assert url in str(reader.error)
    reader = read_shard(write(tmp_path / "a.tar", b"text" * 1000))
    assert list(reader) == []
    assert reader.status == "unreadable"
    assert reader.is_reachable


def test_a_connection_that_breaks_is_no_truncated_tar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 20_000:
                raise ConnectionResetError("peer went away")
            return super().read(size)

    content = tar_bytes([(f"{number}.jpg", JPG * 10) for number in range(20)])
    monkeypatch.setattr("dedup.storage.input.tars.open_binary", lambda url: Breaking(content))
    reader = read_shard("s3://bucket/a.tar")
    samples = list(reader)
    assert len(samples) > 1
    assert reader.status == "unreadable"
    assert not reader.is_reachable
    assert "peer went away" in str(reader.error)


def test_remote_shards_and_ranges() -> None:
    fsspec.filesystem("memory").pipe_file("/shards/a.tar", tar_bytes(PLAIN))
    samples, status, _ = read("memory://shards/a.tar")
    assert status == "ok"
    assert len(samples) == 4
    for sample in samples:
        assert read_image_bytes(sample.shard, sample.key, sample.byte_offset, sample.n_bytes) == sample.image


def test_images_that_are_gone(tmp_path: Path) -> None:
    url = write(tmp_path / "a.tar.gz", gzip.compress(tar_bytes(PLAIN)))
    for shard, key, offset, n_bytes in (
        (url, "nothing", None, 10),
        (url, "000", None, 10),
        (url, "000", 10_000, 10),
        (str(tmp_path / "nothing.tar"), "000", 0, 10),
        (str(tmp_path / "nothing.tar"), "000", None, 10),
        (f"{tmp_path}/", "nothing.jpg", 0, 10),
        ("memory://nowhere/a.tar", "000", 0, 10),
    ):
        with pytest.raises(InputError):
            read_image_bytes(shard, key, offset, n_bytes)


def test_breaking_off_early_closes_the_file(tmp_path: Path) -> None:
    url = write(tmp_path / "a.tar", tar_bytes(PLAIN))
    for sample in read_shard(url):
        assert sample.key == "000"
        break


def test_folder_with_txt(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/1.jpg", JPG)
    write(tmp_path / "a/1.txt", b" one\xff\n")
    write(tmp_path / "0.v2.png", JPG * 2)
    write(tmp_path / "2.jpg", b"")
    write(tmp_path / "3.psd", b"x")
    write(tmp_path / "4.jpg", JPG * 3)
    (part,) = folder_parts(str(tmp_path), "", 10)
    write(tmp_path / "5.jpg", JPG)
    reader = read_folder_part(part, carry=["x"], max_image_bytes=len(JPG) * 2)
    samples = list(reader)
    assert reader.status == "ok"
    assert reasons(samples) == [
        ("0.v2.png", None),
        ("2.jpg", "empty_image"),
        ("3.psd", None),  # what it is, the decoder says
        ("4.jpg", "too_many_bytes"),
        ("a/1.jpg", None),
    ]
    assert samples[4].caption == "one\ufffd"
    assert samples[0].caption is None
    assert samples[0].carried == {"x": None}
    for sample in (samples[0], samples[4]):
        assert sample.shard == f"{tmp_path}/"
        assert read_image_bytes(sample.shard, sample.key, sample.byte_offset, sample.n_bytes) == sample.image
    (tmp_path / "0.v2.png").unlink()
    again = read_folder_part(part)
    assert reasons(list(again))[0] == ("0.v2.png", "undecodable_image")
    assert again.status == "ok"


CSV = b'\xef\xbb\xbffile,caption,url,similarity\na/1.jpg,"two\nlines",http://h/1,0.5\n2.jpg,007,,\nROOT/3.jpg,inv\xffalid,http://h/3,x\na/1.jpg,again,,\nother/4.jpg,no,,\n'


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_folder_with_a_table_of_captions(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/1.jpg", "a/b/2.jpg", "3.jpg", "4.jpg"):
        write(tmp_path / name, JPG)
    content = CSV.replace(b"ROOT", str(tmp_path).encode())
    table = tmp_path / f"captions.{kind}"
    if kind == "parquet":
        rows = pa.table(
            {
                "file": ["a/1.jpg", "2.jpg", f"{tmp_path}/3.jpg", "x/4.jpg"],
                "caption": [b"two\nlines", b"007", b"inv\xffalid", b"no"],
                "url": ["http://h/1", None, "http://h/3", None],
                "similarity": [0.5, None, None, 1.0],
            }
        )
        pq.write_table(rows, table)
    else:
        table.write_bytes(content if kind == "csv" else content.replace(b",", b"\t"))
    samples = list(read_folder_part(folder_parts(str(tmp_path), str(table), 10)[0], carry=["similarity"]))
    assert [(sample.key, sample.caption, sample.url, sample.carried["similarity"]) for sample in samples] == [
        ("3.jpg", "inv\ufffdalid", "http://h/3", None),
        ("4.jpg", None, None, None),
        ("a/1.jpg", "two\nlines", "http://h/1", 0.5),
        ("a/b/2.jpg", "007", None, None),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.csv", b"caption,url\nx,y\n"), ("c.csv", b""), ("c.parquet", b"no parquet"), ("c.csv", b"file,caption\na,b,c,d\n")],
)
def test_a_table_of_captions_that_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path / "1.jpg", JPG)
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=name):
        folder_parts(str(tmp_path), str(tmp_path / name), 10)


def _tar(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 600
            tar.addfile(info, io.BytesIO(name.encode().ljust(600, b".")))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("at_once", [True, False])
def test_tars_put_together_are_read_to_the_last(tmp_path: Path, pack: Callable[[bytes], bytes], at_once: bool) -> None:
    parts = [_tar(["a.jpg", "b.jpg"]), _tar([]), _tar(["c.jpg"]), b"\0" * 512, _tar(["d.jpg", "a.jpg"])]
    (tmp_path / "x.tar").write_bytes(pack(b"".join(parts)) if at_once else b"".join(pack(part) for part in parts))
    reader = read_shard(str(tmp_path / "x.tar"))
    samples = list(reader)
    assert reader.status == "ok"
    assert reader.error is None
    assert [(sample.key, sample.error and sample.error.reason) for sample in samples] == [
        ("a", None), ("b", None), ("c", None), ("d", None), ("a", "duplicate_key")
    ]  # fmt: skip
    for sample in samples[:4]:
        assert sample.image is not None
        assert sample.image.rstrip(b".") == f"{sample.key}.jpg".encode()
        assert (sample.byte_offset is not None) == (pack is bytes)
        if sample.byte_offset is not None:
            assert read_image_bytes(str(tmp_path / "x.tar"), sample.key, sample.byte_offset, 600) == sample.image


def test_what_follows_the_end_of_a_tar_and_is_none_is_noted(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(_tar(["a.jpg"]) + b"no tar at all" * 100)
    reader = read_shard(str(tmp_path / "x.tar"))
    assert [sample.key for sample in reader] == ["a"]
    assert reader.status == "ok"
    assert reader.error is not None
    assert "has data after the end of the tar" in reader.error


def test_endless_zeros_end(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(_tar(["a.jpg"]) + bytes(300_000_000), 9))
    reader = read_shard(str(tmp_path / "x.tar.gz"))
    assert [sample.key for sample in reader] == ["a"]
    assert reader.status == "ok"
