"""Of the copies of a photo the one is kept that has lost least, and the tables say what was done to the others."""

import io

import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image

from dedup.config.key import STAGE_NAMES
from dedup.config.load import load_config
from dedup.demo.pictures import photo_scenes
from dedup.explanation.explain import explain


def saved(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}) | options)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photos with their edits, most of which are larger files than the originals."""
    folder = tmp_path_factory.mktemp("edits")
    (folder / "images").mkdir()
    for number, scene in enumerate(photo_scenes()[:3]):
        photo = Image.fromarray(scene.pixels)
        photo.thumbnail((480, 480))
        original = saved(photo, quality=88)
        photo = Image.open(io.BytesIO(original)).convert("RGB")
        framed = Image.new("RGB", (photo.width + 60, photo.height + 60), "white")
        framed.paste(photo, (30, 30))
        files = {
            "original.jpg": original,
            "again.jpg": original,
            "framed.jpg": saved(framed, quality=95),
            "enlarged.jpg": saved(photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.BICUBIC)),
            "grey.jpg": saved(photo.convert("L").convert("RGB"), quality=96),
            "resaved.png": saved(photo, "PNG"),
            "coarse.jpg": saved(photo, quality=30),
        }
        for name, data in files.items():
            (folder / "images" / f"{number}-{name}").write_bytes(data)
    run(folder, "run")
    return folder


def run(folder, name, *settings):
    words = [f"input.images={folder}/images", f"output.run_dir={folder}/{name}", "engine.workers=1", *settings]
    shared_workers.run(load_config(None, words))


def table(folder, name, run_dir="run"):
    return {row["key"] if "key" in row else row["sample_id"]: row for row in pq.read_table(folder / run_dir / name).to_pylist()}


def test_the_originals_are_kept(folder):
    assert {key.partition("-")[2] for key in table(folder, "manifest")} <= {"original.jpg", "again.jpg"}
    assert len(table(folder, "manifest")) == 3


def test_what_was_done_to_the_others_is_told(folder):
    dropped = table(folder, "duplicates")
    expected = {
        "framed.jpg": "framed",
        "enlarged.jpg": "enlarged",
        "grey.jpg": "decoloured",
        "resaved.png": "resaved",
        "coarse.jpg": "compressed",
    }
    for number in range(3):
        for name, edit in expected.items():
            row = dropped[f"{number}-{name}"]
            assert edit in row["edits"], row
            assert row["originality"] < 1.0
    for row in table(folder, "manifest").values():
        others = [other for other in dropped.values() if other["component_id"] == row["component_id"]]
        assert row["originality"] == max(other["originality"] for other in others)


def test_distinct_images_of_groups_have_a_row(folder):
    edits = table(folder, "edits")
    assert len(edits) == 18  # of seven files two are the same
    groups = table(folder, "groups")
    assert all(groups[sample]["component_id"] == row["component_id"] for sample, row in edits.items())


def test_another_order_is_followed(folder):
    run(folder, "largest", "keep.order_by=[width*height desc,n_bytes desc,sample_id]")
    assert {key.partition("-")[2] for key in table(folder, "manifest", "largest")} == {"enlarged.jpg"}


def test_without_pixels_the_order_goes_on(folder):
    run(folder, "vectors", "confirm.enabled=false")
    assert table(folder, "edits", "vectors") == {}
    kept = table(folder, "manifest", "vectors")
    assert all(row["originality"] is None and row["edits"] is None for row in kept.values())
    assert {key.partition("-")[2] for key in kept} >= {"enlarged.jpg"}


def test_the_rule_is_explained(folder):
    dropped = table(folder, "duplicates")["0-framed.jpg"]
    found = explain(str(folder / "run"), sample_id=dropped["sample_id"])
    assert "originality desc" in repr(found)


@pytest.mark.spark
def test_spark_gives_the_same_edits(folder, start_spark):
    from dedup.pipeline import run as pipeline

    config = load_config(None, [f"input.images={folder}/images", f"output.run_dir={folder}/spark", "report.enabled=false"])
    pipeline.run(config, STAGE_NAMES[: STAGE_NAMES.index("manifest")])
    engine = start_spark()
    pipeline.run(config, ["manifest"], engine=engine)
    assert table(folder, "edits", "spark") == table(folder, "edits")
