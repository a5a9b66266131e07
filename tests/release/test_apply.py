"""Acting on copies: nothing is lost, and everything can be taken back."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import dedup
from in_process import InProcess
from patience import HANGS_S
from shard_data import detailed, encode, make_samples, scene, write_shards

import dedup as package
from dedup.errors import ConfigError, InputError
from dedup.release.apply import apply, copies_to_act_on, take_back

SETTINGS = {"report.enabled": False}
NAME = os.fsdecode(b"odd \xff\nname.jpg")


def state(folder):
    """Bytes and time of every file, and where links lead."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns, path.is_symlink())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run over photos: two with an equal and a smaller copy each, one alone; and the photos once more."""
    root = tmp_path_factory.mktemp("apply")
    photos = root / "photos"
    (photos / "deep").mkdir(parents=True)
    for number in range(2):
        data = encode(detailed(number, (320, 240)))
        (photos / f"a{number}.jpg").write_bytes(data)
        (photos / f"deep/equal{number}.jpg").write_bytes(data)
        (photos / f"small{number}.jpg").write_bytes(encode(detailed(number, (320, 240)).resize((160, 120)), quality=60))
    (photos / NAME).write_bytes((photos / "a0.jpg").read_bytes())
    (photos / "alone.jpg").write_bytes(encode(scene(7)))
    for name in ("deep/equal0.txt", "deep/equal0.jpg.json", "small0.txt", "a0.txt", "small1.TXT"):
        (photos / name).write_text(name)
    (photos / "small0.png").write_bytes(encode(scene(8), "PNG"))  # so small0.txt is not small0.jpg's alone
    for number, path in enumerate(sorted(photos.rglob("*"))):
        if path.is_file():
            os.utime(path, ns=(10**18 + number, 10**18 + 1_000 * number))
    package.run(photos, out=root / "run", settings=SETTINGS, engine=InProcess())
    shutil.copytree(photos, root / "again")
    return root


@pytest.fixture
def root(made):
    shutil.rmtree(made / "photos")
    shutil.copytree(made / "again", made / "photos")
    for name in ("moved", "run/_apply"):
        shutil.rmtree(made / name, ignore_errors=True)
    return made


def dropped(root):
    return {Path(path).relative_to(root / "photos").as_posix() for path in copies_to_act_on(str(root / "run"))}


def test_what_could_be_done(root):
    before = state(root / "photos")
    done = dedup("apply", root / "run")
    assert done.returncode == 0 and "5 copies" in done.stdout and "can be acted on" in done.stdout and "--move DIR" in done.stdout
    done = dedup("apply", root / "run", "--move", root / "moved", "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert (said["n_files"], said["n_sidecars"], said["is_dry_run"], said["journal"], said["left"]) == (5, 3, True, "", {})
    assert state(root / "photos") == before and not (root / "moved").exists() and not (root / "run/_apply").exists()


def test_a_list_for_other_tools(root):
    """Names are bytes, and may hold a line break."""
    done = subprocess.run(
        [sys.executable, "-m", "dedup", "apply", root / "run", "--list"], capture_output=True, check=True, timeout=HANGS_S
    )
    assert done.stdout == b"".join(os.fsencode(root / "photos" / name) + b"\n" for name in copies_to_act_on(str(root / "run")))
    assert len(dropped(root)) == 5 and dropped(root) & {NAME, "a0.jpg", "deep/equal0.jpg"}


def test_move_and_back(root):
    before = state(root / "photos")
    done = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert (done.n_files, done.n_sidecars, dict(done.left)) == (5, 3, {})
    left, moved = state(root / "photos"), state(root / "moved")
    assert left.keys() | moved.keys() == before.keys() and not left.keys() & moved.keys() and before == left | moved
    assert {"alone.jpg", "a0.txt", "small0.txt", "small0.png"} <= left.keys()
    assert {"small0.jpg", "small1.jpg", "small1.TXT"} <= moved.keys()
    pictures = {name for name in left if name.endswith(".jpg")}
    assert len(pictures) == 3  # one of each
    again = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert again.n_files == 0 and dict(again.left) == {"it is not there any more": 5} and again.journal == ""
    back = take_back(str(root / "run"))
    assert back.n_files == 8 and not back.left and state(root / "photos") == before
    with pytest.raises(InputError, match="nothing to take back"):
        take_back(str(root / "run"))


def test_trash_and_back(root, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(root / "data"))
    before = state(root / "photos")
    for _ in range(2):  # names that are taken in the trash get a number
        assert apply(str(root / "run"), "trash").n_files == 5
        notes = sorted((root / "data/Trash/info").iterdir())
        assert len(notes) == len(list((root / "data/Trash/files").iterdir())) == 8
        assert all(note.read_text().startswith(f"[Trash Info]\nPath={root}/photos/") for note in notes)
        assert not take_back(str(root / "run")).left and state(root / "photos") == before
    assert list((root / "data/Trash/info").iterdir()) == [] == list((root / "data/Trash/files").iterdir())


def test_delete_and_what_can_be_taken_back(root):
    before = state(root / "photos")
    asked = dedup("apply", root / "run", "--delete")
    assert asked.returncode == 2 and "add --yes, or use --trash" in asked.stderr and state(root / "photos") == before
    assert dedup("apply", root / "run", "--delete", "--yes").returncode == 0
    assert len(state(root / "photos")) == len(before) - 8
    back = take_back(str(root / "run"))  # equal copies from the kept file, texts from the journal
    assert back.n_files == 6 and dict(back.left) == {"it was deleted, and no file with its bytes is left": 2}
    assert {name: value for name, value in before.items() if not (name.startswith("small") and name.endswith(".jpg"))} == state(
        root / "photos"
    )


@pytest.mark.parametrize("kind", ["hard", "sym"])
def test_links_replace_equal_copies_only(root, kind):
    before = state(root / "photos")
    done = apply(str(root / "run"), kind)
    assert done.n_files == 3 and dict(done.left) == {"not equal byte for byte: a link would lose it": 2} and done.n_sidecars == 0
    after = state(root / "photos")
    assert after.keys() == before.keys() and all(after[name][0] == before[name][0] for name in before)
    links = [path for path in (root / "photos").rglob("*.jpg") if (path.is_symlink() if kind == "sym" else path.stat().st_nlink > 1)]
    assert len(links) == (3 if kind == "sym" else 5)
    again = apply(str(root / "run"), kind)
    assert again.n_files == 0 and again.left["it is the kept file under another name"] == 3
    assert not take_back(str(root / "run")).left and state(root / "photos") == before


def test_clones_or_a_word(root):
    before = state(root / "photos")
    try:
        done = apply(str(root / "run"), "reflink")
    except InputError as error:
        assert "can't be linked" in str(error) and "nothing was touched" in str(error)
    else:
        assert done.n_files == 3
        take_back(str(root / "run"))
    assert state(root / "photos") == before


def test_what_has_changed_is_left_alone(root):
    photos = root / "photos"
    changed, kept = "small1.jpg", next(name for name in ("a1.jpg", "deep/equal1.jpg") if name not in dropped(root))
    (photos / changed).write_bytes(b"another picture")
    (photos / "small0.jpg").unlink()
    before = state(photos)
    done = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert done.left == {"it has changed since the run": 1, "it is not there any more": 1} and done.n_files == 3
    take_back(str(root / "run"))
    (photos / kept).unlink()
    done = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert done.left["the kept file is not there any more"] == 1 and done.n_files == 2  # never the last copy
    take_back(str(root / "run"))
    (photos / kept).write_bytes(b"another picture")
    assert apply(str(root / "run"), "move", target=str(root / "moved")).left["the kept file has changed since the run"] == 1
    take_back(str(root / "run"))
    assert state(photos).keys() == before.keys()


def test_links_that_the_user_made_are_left_alone(root):
    (root / "photos/small1.jpg").rename(root / "elsewhere.jpg")
    (root / "photos/small1.jpg").symlink_to(root / "elsewhere.jpg")
    done = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert dict(done.left) == {"it is a symbolic link": 1} and done.n_files == 4 and (root / "photos/small1.jpg").is_symlink()
    (root / "elsewhere.jpg").unlink()


def test_protected_folders_and_places_that_are_taken(root):
    done = apply(str(root / "run"), "move", target=str(root / "moved"), protect=[str(root / "photos")], is_dry_run=True)
    assert done.n_files == 0 and dict(done.left) == {"in a protected folder": 5}
    done = dedup("apply", root / "run", "--trash", "--protect", root / "photos/deep", "--dry-run", "--json")
    assert json.loads(done.stdout)["left"] == {"in a protected folder": sum("deep" in name for name in dropped(root))}
    (root / "moved").mkdir()
    (root / "moved" / "small0.jpg").write_bytes(b"there already")
    done = apply(str(root / "run"), "move", target=str(root / "moved"))
    assert dict(done.left) == {"the place where it would go is taken": 1} and (root / "moved/small0.jpg").read_bytes() == b"there already"


def test_refusals(root, tmp_path):
    run = str(root / "run")
    for words, message in (
        (["--move", "x", "--trash"], "--move and --trash can't be combined"),
        (["--move", root / "photos/deep"], "lies in .*photos, which the run read"),
    ):
        done = dedup("apply", run, *words)
        assert done.returncode in (1, 2) and len(done.stderr.strip().splitlines()) == 1
        assert re.search(message, done.stderr)
    with pytest.raises(ConfigError, match="expected a folder with move"):
        apply(run, "move")
    write_shards(tmp_path / "tars", make_samples(6))
    package.run(tmp_path / "tars", out=tmp_path / "tars-run", settings=SETTINGS, engine=InProcess())
    with pytest.raises(InputError, match=r"read tars, .* `dedup rewrite .*tars-run OUT` writes clean data"):
        apply(str(tmp_path / "tars-run"), "list")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    data = encode(scene(1))
    for number in range(120):
        (photos / f"{number:03}.jpg").write_bytes(data)
        os.utime(photos / f"{number:03}.jpg", ns=(10**18, 10**18 + number))
    package.run(photos, out=tmp_path / "run", settings=SETTINGS, engine=InProcess())
    words = [sys.executable, str(Path(__file__).with_name("killed_apply.py")), str(tmp_path / "run"), str(photos), "20", "7"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3  # on a busy machine others have ended before
