"""Captions as people store them: each layout is joined right, or counted as missing; none is another image's."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import encode, scene

from dedup.errors import InputError
from dedup.storage.input.folders import read_folder_part
from dedup.storage.input.samples import RawSample, SampleReader
from dedup.storage.input.shards import read_shard
from dedup.storage.input.sources import fingerprint, folder_parts

JPG = b"\xff\xd8\xff" + bytes(range(256))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def samples_of_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> tuple[list[RawSample], SampleReader]:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    reader = read_shard(str(path), **options)
    samples = list(reader)
    assert reader.status == "ok"
    return samples, reader


def samples_of_folder(
    folder: Path, files: dict[str, bytes], table: str = "", per_part: int = 100, **options: Any
) -> tuple[dict[str, RawSample], list[SampleReader]]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    samples, readers = {}, []
    for part in folder_parts(str(folder), str(folder / table) if table else "", per_part):
        reader = read_folder_part(part, **options)
        samples |= {sample.key: sample for sample in reader}
        assert reader.status == "ok", reader.error
        readers.append(reader)
    return samples, readers


IN_TARS: list[tuple[str, bytes, list[str]]] = [
    ("txt", b"a cat\n", ["a cat"]),
    ("TXT", b"a cat", ["a cat"]),
    ("caption", b"a cat", ["a cat"]),
    ("captions", b"a cat\na dog\n", ["a cat", "a dog"]),
    ("text", b"a cat", ["a cat"]),
    ("cap", b"a cat", ["a cat"]),
    ("jpg.txt", b"a cat", ["a cat"]),
    ("outputs.txt", b"a cat", ["a cat"]),
    ("json", as_json({"caption": "a cat"}), ["a cat"]),
    ("json", as_json({"text": "a cat"}), ["a cat"]),
    ("json", as_json({"TEXT": "a cat"}), ["a cat"]),
    ("json", as_json({"caption": ["a cat", "a dog", "a cat"]}), ["a cat", "a dog"]),
    ("json", as_json({"captions": ["a cat", "a dog"]}), ["a cat", "a dog"]),
    ("json", as_json(["a cat", "a dog"]), ["a cat", "a dog"]),
    ("json", as_json("a cat"), ["a cat"]),
    ("json", as_json({"caption": {"en": "a cat", "de": "eine Katze"}}), ["a cat", "eine Katze"]),
    ("json", as_json({"en": "a cat", "de": "eine Katze"}), ["a cat", "eine Katze"]),
    ("json", as_json({"captions": {"en": ["a cat"]}}), ["a cat"]),
    ("json", as_json({"captions": [{"lang": "en", "text": "a cat"}, {"lang": "de", "text": "eine Katze"}]}), ["a cat", "eine Katze"]),
    ("json", as_json({"prompt": "a cat", "seed": 3}), ["a cat"]),
    ("json", as_json({"alt_text": "a cat"}), ["a cat"]),
    ("json", as_json({"alt": "a cat"}), ["a cat"]),
    ("json", as_json({"description": "a cat"}), ["a cat"]),
    ("json", as_json({"title": "a cat"}), ["a cat"]),
    ("json", as_json({"label": "a cat"}), ["a cat"]),
    ("json", as_json({"title": "IMG 3", "caption": "a cat"}), ["a cat"]),
    ("json", as_json({"caption_1": "a cat", "caption_0": "a dog", "caption_similarity": "0.3"}), ["a cat", "a dog"]),
    ("json", as_json({"annotations": [{"image_id": 1, "caption": "a cat"}, {"image_id": 1, "caption": "a dog"}]}), ["a cat", "a dog"]),
    ("json", as_json({"annotations": [{"image_id": 1, "caption": "a cat"}, {"image_id": 2, "caption": "a dog"}]}), []),
    ("json", as_json({"sentences": [{"raw": "a cat"}, {"raw": "a dog"}]}), ["a cat", "a dog"]),
    ("json", as_json({"meta": {"caption": "a cat"}}), ["a cat"]),
    ("json", as_json({"before": {"caption": "a cat"}, "after": {"caption": "a dog"}}), []),
    ("json", as_json({"label": 3, "caption_length": "12", "id": "a"}), []),
    ("jsonl", b'{"caption": "a cat"}\n{"caption": "a dog"}\n', ["a cat", "a dog"]),
    ("cls", b"3", []),
]


@pytest.mark.parametrize(("suffix", "data", "expected"), IN_TARS)
def test_layouts_in_tars(tmp_path: Path, suffix: str, data: bytes, expected: list[str]) -> None:
    (sample, other), _ = samples_of_tar(tmp_path / "a.tar", [("0.jpg", JPG), (f"0.{suffix}", data), ("1.jpg", JPG)])
    assert list(sample.captions) == expected
    assert sample.caption == (expected[0] if expected else None)
    assert sample.text.source == ("" if not expected else suffix.rpartition(".")[2].lower().replace("jsonl", "json"))
    assert other.captions == ()


def test_all_text_members_count_plain_ones_first(tmp_path: Path) -> None:
    members = [
        ("0.json", as_json({"caption": "from json", "title": "not wanted"})), ("0.en.txt", b"compound"), ("0.caption", b"second"),
        ("0.jpg", JPG), ("0.txt", b"first"), ("0.TEXT", b"first"),
    ]  # fmt: skip
    (sample,), _ = samples_of_tar(tmp_path / "a.tar", members)
    assert sample.captions == ("first", "second", "compound", "from json")
    assert sample.text.source == "txt"


def test_what_can_not_be_read_is_counted(tmp_path: Path) -> None:
    members = [("0.jpg", JPG), ("0.json", b'{"caption": "a'), ("1.jpg", JPG), ("1.txt", "Käse für alle".encode() + b" \xe2\x82")]
    (broken, damaged), _ = samples_of_tar(tmp_path / "a.tar", members)
    assert (broken.captions, broken.text.n_broken) == ((), 1)
    assert damaged.text.is_damaged


ENCODED = [
    ("utf-8-sig", "ein Käse", ""),
    ("utf-16", "ein Käse", ""),
    ("utf-32", "猫", ""),
    ("utf-16-le", "a plain text", "utf-16-le"),
    ("cp1252", "Crème brûlée – 5 €", "cp1252"),
    ("latin-1", "Größe XL, grün", "cp1252"),
    ("gbk", "一只猫坐在沙发上", "gb18030"),
    ("shift_jis", "猫がソファに座っている", "cp932"),
    ("cp1251", "Кошка сидит на диване", "cp1251"),
    ("euc_kr", "고양이가 소파에 앉아 있다", "cp949"),
]


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_encodings_side_by_side(tmp_path: Path, kind: str) -> None:
    members = []
    for number, (encoding, text, _) in enumerate(ENCODED):
        data = text if kind == "txt" else json.dumps({"caption": text}, ensure_ascii=False)
        members += [(f"{number}.jpg", JPG), (f"{number}.{kind}", data.encode(encoding))]
    samples, _ = samples_of_tar(tmp_path / "a.tar", members)
    assert [sample.caption for sample in samples] == [text for _, text, _ in ENCODED]
    assert [",".join(sample.text.guessed) for sample in samples] == [guessed for *_, guessed in ENCODED]


def test_short_texts_are_read_as_those_beside_them(tmp_path: Path) -> None:
    texts = ["Осенний лес", "Кот", "Дом у реки зимой", "закат на море", "a plain text", "Красная машина"]
    members = [each for n, text in enumerate(texts) for each in ((f"{n}.jpg", JPG), (f"{n}.txt", text.encode("koi8-r")))]
    samples, _ = samples_of_tar(tmp_path / "a.tar", members)
    assert [sample.caption for sample in samples] == texts
    assert [sample.key for sample in samples] == [str(n) for n in range(6)]


def test_layouts_in_folders(tmp_path: Path) -> None:
    record = {"caption": "img2dataset", "url": "http://h/", "punsafe": 0.1, "key": "d"}
    files = {
        "IMG.JPG": JPG, "IMG.TXT": b"upper case", "b.jpg": JPG, "b.jpg.txt": b"with the image's suffix", "c.jpg": JPG, "c.caption": b"kohya",
        "d.jpg": JPG, "d.json": as_json(record), "e.jpg": JPG, "f.v2.jpg": JPG, "f.v2.txt": b"of f.v2", "f.jpg": JPG, "sub/e.txt": b"of none",
        unicodedata.normalize("NFD", "é.jpg"): JPG, unicodedata.normalize("NFC", "é.txt"): b"accent",
    }  # fmt: skip
    samples, _ = samples_of_folder(tmp_path, files, carry=["punsafe"])
    assert {unicodedata.normalize("NFC", key): sample.caption for key, sample in samples.items()} == {
        "IMG.JPG": "upper case", "b.jpg": "with the image's suffix", "c.jpg": "kohya", "d.jpg": "img2dataset", "e.jpg": None, "f.jpg": None,
        "f.v2.jpg": "of f.v2", "é.jpg": "accent",
    }  # fmt: skip
    assert (samples["d.jpg"].url, samples["d.jpg"].carried) == ("http://h/", {"punsafe": 0.1})


def test_a_remote_folder_is_listed_once() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.jpg", "sub/b.jpg", "sub/b.JSON"):
        memory.pipe_file(f"/captioned/{name}", JPG if name.endswith("jpg") else as_json({"caption": "b"}))
    (part,) = folder_parts("memory://captioned", "", 10)
    assert part.texts == ((), ("sub/b.JSON",))
    assert [sample.caption for sample in read_folder_part(part)] == [None, "b"]


TWO = ("sub/a.jpg", "sub/b.jpg")
TABLES: list[tuple[str, str, bytes, dict[str, list[str]]]] = [
    ("CSV", "m.csv", b"file,caption\nsub/a.jpg,one\nsub/b.jpg,two\n", {"sub/a.jpg": ["one"], "sub/b.jpg": ["two"]}),
    ("other names", "m.csv", b"filename,text\nsub/a.jpg,one\n", {"sub/a.jpg": ["one"]}),
    ("Hugging Face", "metadata.csv", b"file_name,text\nsub/a.jpg,one\n", {"sub/a.jpg": ["one"]}),
    ("open_clip", "m.csv", b"filepath\ttitle\nsub/a.jpg\tone, two\n", {"sub/a.jpg": ["one, two"]}),
    ("semicolons", "m.csv", b"File Name;Caption\nsub/a.jpg;one, two\n", {"sub/a.jpg": ["one, two"]}),
    ("pipes", "m.csv", b"image_name| comment_number| comment\na.jpg| 0| one\na.jpg| 1| two\n", {"sub/a.jpg": ["one", "two"]}),
    ("several rows", "m.csv", b"file,caption\nsub/a.jpg,one\nsub/b.jpg,x\nsub/a.jpg,two\n", {"sub/a.jpg": ["one", "two"], "sub/b.jpg": ["x"]}),
    ("backslashes", "m.csv", b"file,caption\r\nsub\\a.jpg,one\r\n.\\sub\\b.jpg,two\r\n", {"sub/a.jpg": ["one"], "sub/b.jpg": ["two"]}),
    ("another root", "m.csv", b"file,caption\nC:\\pics\\sub\\a.jpg,one\nC:\\pics\\sub\\b.jpg,two\n", {"sub/a.jpg": ["one"], "sub/b.jpg": ["two"]}),
    ("a folder above", "m.csv", b"file,caption\nimages/sub/a.jpg,one\n", {"sub/a.jpg": ["one"]}),
    ("two other roots", "m.csv", b"file,caption\nx/sub/a.jpg,one\ny/sub/a.jpg,two\n", {}),
    ("base names", "m.csv", b"file,caption\na.jpg,one\n", {"sub/a.jpg": ["one"]}),
    ("another folder", "m.csv", b"file,caption\nelsewhere/a.jpg,no\n", {}),
    ("keys", "m.csv", b"key,caption\na,one\nsub/b,two\n", {"sub/a.jpg": ["one"], "sub/b.jpg": ["two"]}),
    ("another suffix", "m.csv", b"key,caption\na.png,no\n", {}),
    ("JSON lines", "metadata.jsonl", b'{"file_name":"sub/a.jpg","text":"one"}\n\n{"file_name":"sub/b.jpg","text":["x","y"]}\n', {"sub/a.jpg": ["one"], "sub/b.jpg": ["x", "y"]}),
    ("JSON", "m.json", b'[{"image": "a.jpg", "caption": "one"}]', {"sub/a.jpg": ["one"]}),
    ("JSON by name", "m.json", b'{"sub/a.jpg": "one", "sub/b.jpg": ["x", "y"]}', {"sub/a.jpg": ["one"], "sub/b.jpg": ["x", "y"]}),
    ("COCO", "m.json", as_json({"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"}]}), {"sub/a.jpg": ["one", "two"]}),
    ("CP1252", "m.csv", "file,caption\nsub/a.jpg,Größe XL\nsub/b.jpg,Käse für alle\n".encode("cp1252"), {"sub/a.jpg": ["Größe XL"], "sub/b.jpg": ["Käse für alle"]}),
    ("GBK", "m.csv", "file,caption\nsub/a.jpg,一只猫坐在沙发上\n".encode("gbk"), {"sub/a.jpg": ["一只猫坐在沙发上"]}),
    ("UTF-16", "m.csv", "file,caption\nsub/a.jpg,一只猫\n".encode("utf-16"), {"sub/a.jpg": ["一只猫"]}),
    ("digits", "m.csv", b"file,caption\nsub/a.jpg,007\n", {"sub/a.jpg": ["007"]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "expected"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES])
def test_tables(tmp_path: Path, name: str, data: bytes, expected: dict[str, list[str]]) -> None:
    samples, (reader,) = samples_of_folder(tmp_path, dict.fromkeys(TWO, JPG) | {name: data}, name)
    assert {key: list(sample.captions) for key, sample in samples.items() if sample.captions} == expected
    assert (reader.found.n_images, reader.found.n_joined_images) == (2, len(expected))
    assert reader.found.n_joined_rows <= sum(reader.found.tables.values())
    assert all(sample.text.source == "table" for key, sample in samples.items() if key in expected)


@pytest.mark.parametrize(
    ("name", "data"), [("metadata.jsonl", b'{"file_name":"sub/a.jpg","text":"one"}'), ("metadata.csv", b"file_name,text\nsub/a.jpg,one\n")]
)
def test_the_table_that_a_folder_brings_with_it(tmp_path: Path, name: str, data: bytes) -> None:
    files = dict.fromkeys(TWO, JPG) | {name: data}
    samples, _ = samples_of_folder(tmp_path / "alone", files)
    assert {key: sample.captions for key, sample in samples.items()} == {"sub/a.jpg": ("one",), "sub/b.jpg": ()}
    beside = {"sub/b.txt": b"two", "sub/a.caption": b"first"}  # files beside the images come first
    samples, _ = samples_of_folder(tmp_path / "beside", files | beside)
    assert {key: sample.captions for key, sample in samples.items()} == {"sub/a.jpg": ("first", "one"), "sub/b.jpg": ("two",)}
    samples, _ = samples_of_folder(tmp_path / "other", files | {name: b"model,date\nx,y\n"})  # no table of captions
    assert not any(sample.captions for sample in samples.values())


def test_the_tables_that_subfolders_bring_with_them(tmp_path: Path) -> None:
    """As image folders of `datasets` have them: a table for each split, with names relative to it."""
    images = ["train/1.jpg", "train/x/2.jpg", "test/1.jpg", "test/y/1.jpg", "0.jpg", "other/1.jpg"]
    tables = {
        "metadata.csv": b"file_name,text\n0.jpg,root\ntest/1.jpg,not asked\n",
        "train/metadata.jsonl": b'{"file_name":"1.jpg","text":"train 1"}\n{"file_name":"x/2.jpg","text":"train 2"}\n',
        "train/metadata.csv": b"file_name,text\n1.jpg,the second table\n",
        "test/metadata.jsonl": b'{"file_name":"1.jpg","text":"test 1"}\n{"file_name":"gone.jpg","text":"?"}\n',
        "test/y/metadata.csv": b"model,date\nx,y\n",
    }
    texts = {"train/1.txt": b"plain", "test/orphan.txt": b"?", "other/2.json": b"{}"}
    samples, (reader,) = samples_of_folder(tmp_path, dict.fromkeys(images, JPG) | tables | texts)
    assert {key: sample.captions for key, sample in samples.items() if sample.captions} == {
        "0.jpg": ("root",),
        "train/1.jpg": ("plain", "train 1"),
        "train/x/2.jpg": ("train 2",),
        "test/1.jpg": ("test 1",),
    }
    none = "tables metadata.* that are none of captions (the first, test/y/metadata.csv: begins with the line 'model,date')"
    assert reader.passed_over == {"files .csv": 1, none: 1, "texts that belong to no image": 2}
    assert sum(reader.found.tables.values()) == 6
    assert (reader.found.n_joined_rows, reader.found.n_joined_images, reader.found.n_images) == (4, 4, 6)
    (tmp_path / "all.csv").write_bytes(b"file,caption\ntest/1.jpg,given\n")
    (part,) = folder_parts(str(tmp_path), str(tmp_path / "all.csv"), 1_000)
    given = {sample.key: sample.captions for sample in read_folder_part(part)}
    assert given == {key: ("given",) if key == "test/1.jpg" else () for key in images}
    assert dict(part.passed_over) == {"texts and tables instead of which input.captions is read": 8}


def test_a_changed_table_of_a_subfolder_changes_its_parts_alone(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(JPG)
        (tmp_path / name).with_name("metadata.csv").write_bytes(b"file_name,text\n1.jpg,before\n")
    before = [fingerprint(part) for part in folder_parts(str(tmp_path), "", 1)]
    (tmp_path / "b" / "metadata.csv").write_bytes(b"file_name,text\n1.jpg,afterwards\n")
    parts = folder_parts(str(tmp_path), "", 1)
    assert [stamp == fingerprint(part) for stamp, part in zip(before, parts, strict=True)] == [True, False]
    assert [sample.caption for part in parts for sample in read_folder_part(part)] == ["before", "afterwards"]


def test_parquet_tables(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    table = pa.table({"image_id": [1, 2], "Captions": [["one", "two"], []], "punsafe": [0.5, None]})
    pq.write_table(table, tmp_path / "m.parquet")
    samples, _ = samples_of_folder(tmp_path, {"1.jpg": JPG, "sub/2.jpg": JPG}, "m.parquet", carry=["punsafe"])
    assert (samples["1.jpg"].captions, samples["1.jpg"].carried) == (("one", "two"), {"punsafe": 0.5})
    assert (samples["sub/2.jpg"].captions, samples["sub/2.jpg"].carried) == ((), {"punsafe": None})


@pytest.mark.parametrize("per_part", [1, 10])
def test_a_base_name_that_occurs_twice_gets_no_caption(tmp_path: Path, per_part: int) -> None:
    files = {"train/a.jpg": JPG, "val/a.jpg": JPG, "m.csv": b"file,caption\na.jpg,whose?\na,whose?\nold/val/a.jpg,of val\n"}
    samples, _ = samples_of_folder(tmp_path, files, "m.csv", per_part)
    assert {key: sample.captions for key, sample in samples.items()} == {"train/a.jpg": (), "val/a.jpg": ("of val",)}


@pytest.mark.parametrize("per_part", [1, 10])
def test_a_table_of_this_folder_names_no_image_by_another_folder(tmp_path: Path, per_part: int) -> None:
    files = {"a.jpg": JPG, "b.jpg": JPG, "m.csv": b"file,caption\na.jpg,of a\nother/b.jpg,of another\n"}
    samples, _ = samples_of_folder(tmp_path, files, "m.csv", per_part)
    assert {key: sample.caption for key, sample in samples.items()} == {"a.jpg": "of a", "b.jpg": None}


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_two_forms_of_unicode(tmp_path: Path, forms: tuple[str, str]) -> None:
    on_disk, in_table = (unicodedata.normalize(form, "Müller.jpg") for form in forms)
    samples, _ = samples_of_folder(tmp_path, {on_disk: JPG, "m.csv": f"file,caption\n{in_table},one\n".encode()}, "m.csv")
    assert {key: sample.caption for key, sample in samples.items()} == {on_disk: "one"}


def test_a_sidecar_row_goes_to_one_sample(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["0", "0"], "caption": ["one", "two"]}), tmp_path / "a.parquet")
    members = [("x/0.jpg", JPG), ("y/0.jpg", JPG)]
    samples, reader = samples_of_tar(tmp_path / "a.tar", members, sidecar=True)
    assert [sample.captions for sample in samples] == [("one", "two"), ()]
    assert (reader.found.n_rows, reader.found.n_joined_rows, reader.found.n_joined_images) == (2, 2, 1)


@pytest.mark.parametrize("data", [b"caption,url\nx,y\n", b"", b"{}\n", b"a.jpg,no header\n"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_table_without_files_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(JPG)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"input\.captions=.*/m\."):
        folder_parts(str(tmp_path), str(tmp_path / name), 10)


def test_a_table_of_nothing_that_is_asked_for(tmp_path: Path) -> None:
    """Which depends on what is carried."""
    (tmp_path / "a.jpg").write_bytes(JPG)
    (tmp_path / "m.csv").write_bytes(b"file,else\na.jpg,x\n")
    (part,) = folder_parts(str(tmp_path), str(tmp_path / "m.csv"), 10)
    assert [sample.carried for sample in read_folder_part(part, carry=["else"])] == [{"else": "x"}]
    reader = read_folder_part(part)
    assert list(reader) == []
    assert reader.status == "unreadable"
    assert "has the columns file, else; expected" in str(reader.error)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.jsonl", b'{"file": "a.jpg", "text": "one"}\n{"file": "b.jpg",\n', "line 2, column"),
        ("m.jsonl", b'{"fil": "a.jpg", "text": "one"}\n', "has no record with a file, but fil, text"),
        ("m.csv", b"foo,bar\nx,y\n", "begins with the line 'foo,bar'; expected a header with a column of files"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_where_it_is(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(JPG)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        folder_parts(str(tmp_path), str(tmp_path / name), 10)
    own = f"metadata{Path(name).suffix}"
    (tmp_path / name).rename(tmp_path / own)
    (part,) = folder_parts(str(tmp_path), "", 10)
    ((reason, n),) = part.passed_over
    assert n == 1
    assert reason.startswith(f"tables metadata.* that are none of captions (the first, {own}: ")
    assert message.partition(";")[0] in reason


def test_the_text_of_the_whole_name_comes_first(tmp_path: Path) -> None:
    """Two images of one stem: the caption that names one of them is no other's, and comes before the one they share."""
    for name in ("x.jpg", "x.jpeg", "y.webp", "y.png"):
        (tmp_path / name).write_bytes(encode(scene(len(name) + ord(name[-1]))))
    for name, text in (("x.txt", "shared"), ("x.jpeg.txt", "the jpeg's"), ("y.txt", "both"), ("y.webp.txt", "the webp's")):
        (tmp_path / name).write_text(text)
    (part,) = folder_parts(str(tmp_path), "", 10)
    found = {sample.key: sample.captions for sample in read_folder_part(part)}
    assert found == {"x.jpg": ("shared",), "x.jpeg": ("the jpeg's", "shared"), "y.webp": ("the webp's", "both"), "y.png": ("both",)}
