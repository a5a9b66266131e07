"""What paths hold is recognised by the files, never guessed where there are two answers."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dedup.config.load import load_config
from dedup.errors import ConfigError, InputError
from dedup.pipeline.paths import config_for, paths_and_settings
from dedup.storage.input.recognise import recognise


def jpeg():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_tar(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))


def write_rows(path: Path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_photos(here):
    write(here / "photos/a.jpg")
    write(here / "photos/b/c.PNG")
    write(here / "photos/a.txt")
    write_rows(here / "photos/metadata.parquet", file_name=["a.jpg"], text=["words"])
    found = recognise(["photos/"])
    assert found.overrides == ("input.images=photos/",) and found.name == "photos"
    assert found.said == ("2 images (1 .jpg, 1 .png) in 2 folders",)


def test_files_without_a_suffix_may_be_photos(here):
    write(here / "cache/0a1b2c", jpeg())
    assert recognise(["cache"]).overrides == ("input.images=cache",)


def test_tars_with_what_img2dataset_leaves_beside_them(here):
    for number in range(3):
        write_tar(here / f"laion [1]/{number:05}.tar")
        write(here / f"laion [1]/{number:05}_stats.json")
        write_rows(here / f"laion [1]/{number:05}.parquet", key=["a"], url=["http://x"])
    write_tar(here / "laion [1]/_00003.tar")  # something still writes it
    found = recognise(["laion [1]"])
    assert found.overrides == ("input.shards=laion [[]1]/*.tar",) and found.said == ("3 tars (3 .tar)",)
    write_tar(here / "laion [1]/deeper/x.tar.gz")
    assert recognise(["laion [1]"]).overrides == ("input.shards=laion [[]1]/**/*.tar", "input.shards=laion [[]1]/**/*.tar.gz")
    assert load_config(None, found.overrides).input.shards == ["laion [[]1]/*.tar"]


def test_rows_with_images_and_without(here):
    write_rows(here / "hf/train-0.parquet", image=[{"bytes": jpeg(), "path": "a.jpg"}])
    assert recognise(["hf"]).overrides == ("input.shards=hf/*.parquet",)
    assert recognise(["hf/train-0.parquet"]).overrides == ("input.shards=hf/train-0.parquet",)
    write_rows(here / "vectors/a.parquet", id=[1], embedding=[[0.0, 1.0]])
    assert recognise(["vectors"]).overrides == ("input.embeddings=vectors", "encoder.name=precomputed")
    with pytest.raises(InputError, match="has no column of images; embeddings are given as the folder"):
        recognise(["vectors/a.parquet"])


def test_published_embeddings(here):
    (here / "laion/img_emb").mkdir(parents=True)
    np.save(here / "laion/img_emb/img_emb_0.npy", np.zeros((2, 4), np.float16))
    write_rows(here / "laion/metadata/metadata_0.parquet", url=["a", "b"])
    found = recognise(["laion"])
    assert found.overrides == ("input.embeddings=laion", "encoder.name=precomputed") and "1 file of embeddings" in found.said[0]


def test_several_paths_of_one_kind(here):
    for name in ("a.tar", "b.tar.gz"):
        write_tar(here / name)
    write(here / "list.txt", b"a.tar\n")
    found = recognise(["a.tar", "b.tar.gz", "c/{0..3}.tar", "@list.txt"])
    assert (
        found.overrides == tuple(f"input.shards={path}" for path in ("a.tar", "b.tar.gz", "c/{0..3}.tar", "@list.txt"))
        and found.name == "a"
    )
    assert recognise(["c/{0..3}.tar"]).name == "c"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "nowhere does not exist; expected a folder, a tar"),
        (["photos/a.jpg"], "photos/a.jpg is one file; give the folder that holds it and the others: photos"),
        (["both"], "both holds 1 tar and 1 image; say which to read: input.shards='both/"),
        (["photos", "a.tar"], "photos holds 1 image .* a.tar holds a shard; one run reads one kind"),
        (["empty"], "empty holds no file; expected photos"),
        (["texts"], "texts holds 2 .txt; expected photos"),
        (["notes.txt"], "notes.txt is no tar, parquet or Arrow file; a list of shards is given as @notes.txt"),
        (["out"], "out is a run directory; see `dedup status out`"),
    ],
)
def test_what_can_not_be_read(here, paths, message):
    write(here / "photos/a.jpg")
    write(here / "more/a.jpg")
    write(here / "both/a.jpg")
    write_tar(here / "both/a.tar")
    write_tar(here / "a.tar")
    (here / "empty").mkdir()
    write(here / "texts/a.txt")
    write(here / "texts/b.txt")
    write(here / "notes.txt")
    write(here / "out/_config.json", b"{}")
    (here / "out/embeddings").mkdir()
    with pytest.raises((InputError, ConfigError), match=message):
        recognise(paths)


def test_words_are_settings_or_paths(here):
    write(here / "a=b.jpg")
    words = ["photos", "search.nprobe=8", "a=b.jpg", "s3://bucket/{0..9}.tar?v=1", "input.shards=s3://bucket/x.tar"]
    assert paths_and_settings(words) == (
        ["photos", "a=b.jpg", "s3://bucket/{0..9}.tar?v=1"],
        ["search.nprobe=8", "input.shards=s3://bucket/x.tar"],
    )


def test_the_run_directory_is_named_after_the_first_path(here):
    write(here / "photos/a.jpg")
    config, found = config_for(["photos"])
    assert config.output.run_dir == "photos-dedup" and config.input.images == ["photos"] and found is not None
    assert config_for(["photos"], None, ["output.run_dir=x"])[0].output.run_dir == "x"
    os.chdir("photos")
    assert config_for(["."])[0].output.run_dir == "photos-dedup"
    assert config_for([], None, ["input.images=a"]) == (load_config(None, ["input.images=a"]), None)


def test_a_data_set_of_lance(here):
    for name in ("data/0.lance", "_versions/1.manifest"):
        write(here / "vectors/a.lance" / name)
    assert recognise(["vectors"]).overrides == ("input.embeddings=vectors", "encoder.name=precomputed")
    assert recognise(["vectors"]).said == ("1 file of embeddings (1 .lance)",)
    assert recognise(["vectors/a.lance"]).overrides == ("input.embeddings=vectors/a.lance", "encoder.name=precomputed")
