"""What a user writes becomes the shards that are there."""

import os
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from dedup.errors import ConfigError, InputError
from dedup.storage.input.sources import FolderPart, expand_shards, fingerprint, folder_parts


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number:05d}.tar").write_bytes(b"x" * number)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "00009.tar").write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()
    return tmp_path


def names(shards: list[str], folder: Path) -> list[str]:
    return [os.path.relpath(shard, folder) for shard in shards]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{}/*.tar", ["00000.tar", "00001.tar", "00002.tar", "00003.tar", "00004.tar"]),
        ("{}/**/*9.tar", ["sub/00009.tar"]),
        ("{}/0000[13].tar", ["00001.tar", "00003.tar"]),
        ("{}/{{00001..00003}}.tar", ["00001.tar", "00002.tar", "00003.tar"]),
        ("{}/{{00000,sub/00009}}.tar", ["00000.tar", "sub/00009.tar"]),
        ("{}/{{00003..00006}}.tar", ["00003.tar", "00004.tar", "00005.tar", "00006.tar"]),  # missing ones are kept
        ("{}/{{0000[12],sub/*}}.tar", ["00001.tar", "00002.tar", "sub/00009.tar"]),
        ("file://{}/00001.tar", ["00001.tar"]),
        ("local://{}/00001.tar", ["00001.tar"]),
        ("{}/sub/../00001.tar", ["00001.tar"]),
    ],
)
def test_patterns(tars: Path, pattern: str, expected: list[str]) -> None:
    assert names(expand_shards([pattern.format(tars)]), tars) == expected


def test_order_and_repetition_do_not_matter(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tars)
    forwards = expand_shards(["00001.tar", f"{tars}/00000.tar", "*.tar"])
    assert forwards == expand_shards(["*.tar", "00000.tar"]) == [f"{tars}/{number:05d}.tar" for number in range(5)]


def test_lists_may_hold_patterns_and_lists(tars: Path) -> None:
    inner = tars / "inner.txt"
    inner.write_text(f"\ufeff{tars}/00004.tar\r\n", encoding="utf-8")
    outer = tars / "outer.txt"
    outer.write_text(f"# shards\n\n  {tars}/{{00000..00001}}.tar  \n@{inner}\nhttps://host/a.tar?version=1\n")
    local = [f"{tars}/{name}.tar" for name in ("00000", "00001", "00004")]
    assert expand_shards([f"@{outer}"]) == [*local, "https://host/a.tar?version=1"]
    outer.write_text(f"@{outer}\n")
    with pytest.raises(InputError, match="does it name itself"):
        expand_shards([f"@{outer}"])


def test_a_file_of_that_very_name_is_taken_as_it_is(tars: Path) -> None:
    odd = tars / "odd{a,b}[1]*.tar"
    odd.write_bytes(b"")
    assert expand_shards([str(odd)]) == [str(odd)]


def test_remote_file_systems() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b", "a", "c"):
        memory.pipe_file(f"/bucket/{name}.tar", b"x")
    memory.pipe_file("/bucket/list.txt", b"memory:///bucket/a.tar\nmemory:///bucket/?.tar\n")
    memory.makedirs("/bucket/folder.tar", exist_ok=True)
    found = expand_shards(["memory:///bucket/*.tar"])
    assert found == ["memory:///bucket/a.tar", "memory:///bucket/b.tar", "memory:///bucket/c.tar"]
    assert expand_shards(["@memory://bucket/list.txt"]) == found
    for url in found:
        with fsspec.open(url) as file:
            assert file.read() == b"x"
    chained = expand_shards(["simplecache::memory://bucket/*.tar"])
    assert len(chained) == 3
    assert all(url.startswith("simplecache::memory://") for url in chained)
    assert expand_shards(["https://host/{0..1}.tar?a=[1]"]) == ["https://host/0.tar?a=[1]", "https://host/1.tar?a=[1]"]
    with pytest.raises(InputError, match="matches no file"):
        expand_shards(["memory://bucket/*.tgz"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{}/*.tgz", "matches no file"),
        ("{}/nothing.tar", "does not exist"),
        ("{}/{{00007..00009}}.tar", "none of the 3 files exists"),
        ("{}/sub", r"is a folder; give its tars as '.*/\*.tar'"),
        ("{}/{{00000..00001.tar", "braces"),
        ("@{}/nothing.txt", "list can't be read"),
        ("  ", "names no shard"),
        ("nosuchscheme://bucket/*.tar", "can't be listed"),
    ],
)
def test_refusals_name_pattern_and_next_step(tars: Path, pattern: str, message: str) -> None:
    pattern = pattern.format(tars)
    with pytest.raises(InputError, match=message) as caught:
        expand_shards([pattern])
    assert pattern.strip().lstrip("@") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprints_follow_the_file(tars: Path) -> None:
    shard = tars / "00001.tar"
    first = fingerprint(str(shard))
    assert len(first) == 32
    assert first == fingerprint(str(shard)) != fingerprint(str(tars / "00002.tar"))
    shard.write_bytes(b"yy")
    changed = fingerprint(str(shard))
    os.utime(shard, ns=(1, 1))
    assert len({first, changed, fingerprint(str(shard))}) == 3
    assert fingerprint(str(tars / "nothing.tar")) == "absent"
    assert fingerprint("nosuchscheme://bucket/a.tar") == "unreachable"
    fsspec.filesystem("memory").pipe_file("/fingerprints/a.tar", b"x")
    assert len(fingerprint("memory://fingerprints/a.tar")) == 32


def test_folder_parts(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/y.tiff", "c.avif", "notes.txt", ".hidden.jpg", ".git/x.jpg", "a/b/c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    parts = folder_parts(f"{tmp_path}/", "", per_part=2)
    everything = ("a/b/c.webp", "a/y.tiff", "a/z.PNG", "b.jpg", "c.avif")
    assert [part.url for part in parts] == [f"{tmp_path}/#0000{number}" for number in range(3)]
    assert tuple(name for part in parts for name in part.images) == everything
    assert all(part.folder == str(tmp_path) for part in parts)
    first = [fingerprint(part) for part in parts]
    (tmp_path / "b.jpg").write_bytes(b"yy")
    second = [fingerprint(part) for part in parts]
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
    assert fingerprint(FolderPart("u", str(tmp_path), ("gone.jpg",))) == "absent"


def test_remote_folder() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/images/a/1.jpg", b"x")
    memory.pipe_file("/images/0.png", b"x")
    memory.pipe_file("/images/.cache/0.png", b"x")
    (part,) = folder_parts("memory://images", "", per_part=10)
    passed_over = (("hidden files", 1),)
    assert part == FolderPart("memory://images/#00000", "memory://images", ("0.png", "a/1.jpg"), passed_over=passed_over)
    assert len(fingerprint(part)) == 32


def test_each_file_of_a_folder_is_there_once(tmp_path: Path) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for path in (
        images / "real" / "b.jpg",
        elsewhere / "z.jpg",
        elsewhere / "deep" / "y.jpg",
        images / "notes.csv",
        images / ".hidden" / "a.jpg",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff")
    (images / "a_link.jpg").symlink_to("real/b.jpg")
    (images / "a_twin.jpg").hardlink_to(images / "real" / "b.jpg")
    (images / "gone.jpg").symlink_to("nowhere.jpg")
    (images / "linked").symlink_to(elsewhere)
    (elsewhere / "deep" / "round").symlink_to(images)
    (part,) = folder_parts(str(images), "", 10)
    assert part.images == ("a_twin.jpg", "linked/deep/y.jpg", "linked/z.jpg")
    assert dict(part.passed_over) == {
        "broken links": 1,
        "files .csv": 1,
        "hidden folders": 1,
        "links to a file that is looked at already": 2,
        "links to a folder that is looked at already": 1,
    }


def test_files_that_are_still_written_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("00000.tar", "_00001.tar", ".00002.tar", ".cache/00003.tar"):
        (tmp_path / name).write_bytes(b"x")
    for pattern, n_hidden in (("*.tar", 2), ("**/*.tar", 3)):
        passed_over: Counter[str] = Counter()
        assert expand_shards([f"{tmp_path}/{pattern}"], passed_over) == [f"{tmp_path}/00000.tar"]
        assert passed_over == {"files whose names begin with _ or a dot": n_hidden}
    with pytest.raises(InputError, match=r"names no shard but 1 file that _ or a dot hides: is something still writing\?"):
        expand_shards([f"{tmp_path}/*2.tar"])
    assert expand_shards([f"{tmp_path}/_*.tar"]) == [f"{tmp_path}/_00001.tar"]
    assert expand_shards([f"{tmp_path}/_00001.tar"]) == [f"{tmp_path}/_00001.tar"]


def test_a_shard_of_several_names_is_read_once(tmp_path: Path) -> None:
    for folder in ("a", "z"):
        (tmp_path / folder).mkdir()
    (tmp_path / "z" / "real.tar").write_bytes(b"x")
    (tmp_path / "z" / "twin.tar").hardlink_to(tmp_path / "z" / "real.tar")
    (tmp_path / "a" / "link.tar").symlink_to("../z/real.tar")
    (tmp_path / "a" / "folder").symlink_to("../z")
    (tmp_path / "a" / "gone.tar").symlink_to("nowhere.tar")
    passed_over: Counter[str] = Counter()
    assert expand_shards([f"{tmp_path}/*/*.tar", f"{tmp_path}/a/folder/*.tar"], passed_over) == [f"{tmp_path}/z/real.tar"]
    assert passed_over == {"links to a file that is looked at already": 4}
    assert expand_shards([f"{tmp_path}/a/link.tar"]) == [f"{tmp_path}/a/link.tar"]


def test_folder_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        folder_parts(str(tmp_path), "", 10)
    with pytest.raises(InputError, match="nothing does not exist; expected a folder of images"):
        folder_parts(str(tmp_path / "nothing"), "", 10)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"input\.captions=.*does not exist"):
        folder_parts(str(tmp_path), str(tmp_path / "captions.csv"), 10)
    with pytest.raises(ConfigError, match="images_per_partition=-1"):
        folder_parts(str(tmp_path), "", -1)


def test_a_folder_is_cut_by_the_number_and_the_names_of_its_images(tmp_path: Path) -> None:
    for number in range(1_000):
        (tmp_path / f"{number:04}.jpg").write_bytes(b"x")
    parts = folder_parts(str(tmp_path), "", 0)
    assert all(64 <= len(part.images) <= 256 for part in parts[:-1])
    assert 5 <= len(parts) <= 14
    assert [image for part in parts for image in part.images] == sorted(path.name for path in tmp_path.iterdir())
    assert len({part.url for part in parts}) == len(parts)
    assert [len(part.images) for part in folder_parts(str(tmp_path), "", 0, grain=4_096)] == [1_000]
    (tmp_path / "more.jpg").write_bytes(b"x")
    assert [part.images for part in folder_parts(str(tmp_path), "", 0)][:-1] == [part.images for part in parts][:-1]
