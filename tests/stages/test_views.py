"""Second views through the whole job: crops, frames, turned copies, and the switches."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import shared_workers
from PIL import Image, ImageFilter, ImageOps
from shard_data import Sample, encode, scene, write_tar

from dedup.config import Config, EngineConfig, InputConfig, OutputConfig, SearchConfig
from dedup.errors import ConfigError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.storage.tables import read_table

SIZE = (240, 200)


def picture(seed):
    return scene(seed, SIZE).filter(ImageFilter.GaussianBlur(6))


def centre_crop(image, share):
    width, height = (round(side * share) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


# what is done to a picture, and the word for it, which turns the picture into the copy
COPIES = {
    "mirrored": (ImageOps.mirror, "mirror"),
    "flipped": (ImageOps.flip, "flip"),
    "quarter": (lambda image: image.transpose(Image.Transpose.ROTATE_90), None),
    "framed": (lambda image: ImageOps.expand(image, 20, (255, 255, 255)), "none"),
    "cropped": (lambda image: centre_crop(image, 0.85), "none"),
    "corner": (lambda image: image.crop((0, 0, round(image.width * 0.92), round(image.height * 0.92))), "none"),
    "mirrored_cropped": (lambda image: ImageOps.mirror(centre_crop(image, 0.85)), "mirror"),
    "mirrored_framed": (lambda image: ImageOps.expand(ImageOps.mirror(image), 16, (0, 0, 0)), "mirror"),
}


def quarter_name():
    """The word for Pillow's quarter turn, told by numpy: transposing, then reversing rows or columns."""
    pixels = np.arange(6).reshape(2, 3)
    turned = np.asarray(Image.fromarray(pixels.astype(np.uint8)).transpose(Image.Transpose.ROTATE_90))
    return "rotate90" if np.array_equal(turned, pixels.T[::-1]) else "rotate270"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    names = list(COPIES)
    samples = [Sample(f"{i:03d}", encode(picture(i)), "c", i) for i in range(24)]
    for i in range(16):
        name = names[i % len(names)]
        samples.append(Sample(f"{i:03d}-{name}", encode(COPIES[name][0](picture(i))), "c", i))
    write_tar(folder / "a.tar", samples[:25])
    write_tar(folder / "b.tar", samples[25:])
    return str(folder / "*.tar")


def run(shards, out, stages=("embed", "index", "pairs"), **search):
    config = Config(input=InputConfig(shards=[shards]), output=OutputConfig(str(out)), engine=EngineConfig(workers=1))
    config = replace(config, search=SearchConfig(**search))
    shared_workers.run(config, stages, redo=True)
    return config


def view_edges(out):
    """Edges of views as (key of src, key of dst): row."""
    layout = Run(str(out))
    keys = dict(zip(*(read_table(layout.table("metadata"))[name].to_pylist() for name in ("sample_id", "key")), strict=True))
    edges = read_table(layout.table("candidates")).to_pylist()
    return {(keys[row["src"]], keys[row["dst"]]): row for row in edges if row["source"] == "look"}


@pytest.mark.parametrize("search", [{}, {"exhaustive_below": 0}])
def test_copies_that_whole_pictures_miss_are_candidates(shards, tmp_path, search):
    run(shards, tmp_path, **search)
    edges = view_edges(tmp_path)
    for i in range(16):
        name = list(COPIES)[i % len(COPIES)]
        row = edges[f"{i:03d}", f"{i:03d}-{name}"]
        assert row["variant"] == (COPIES[name][1] or quarter_name()), name
        assert (row["kind"], row["src"] < row["dst"]) == ("near", True)
        assert np.float32(0.8) <= row["similarity"] <= 1.0
    assert all(src[:3] == dst[:3] for src, dst in edges)


def test_the_relative_turn_leads_from_src_to_dst(tmp_path):
    # a copy that comes first is turned the other way
    quarter = picture(3).transpose(Image.Transpose.ROTATE_90)
    write_tar(
        tmp_path / "a.tar", [Sample("a", encode(quarter), "c"), Sample("b", encode(picture(3)), "c"), Sample("c", encode(picture(4)), "c")]
    )
    run(str(tmp_path / "a.tar"), tmp_path / "out")
    there = quarter_name()
    assert {pair: row["variant"] for pair, row in view_edges(tmp_path / "out").items()} == {
        ("a", "b"): {"rotate90": "rotate270", "rotate270": "rotate90"}[there]
    }


def test_switches(shards, tmp_path):
    config = run(shards, tmp_path)
    found = view_edges(tmp_path)
    assert len(Run(str(tmp_path)).views()) > 40
    with pytest.raises(RunDirectoryError, match=r"stage 'index' was made with another configuration: search.views: true → false"):
        shared_workers.run(replace(config, search=SearchConfig(views=False)))
    run(shards, tmp_path, views=False)
    assert view_edges(tmp_path) == {}
    assert not list((tmp_path / "index" / "views").glob("*.npy"))
    run(shards, tmp_path, view_min_similarity=0.995)
    strict = view_edges(tmp_path)
    assert 0 < len(strict) < len(found)
    assert all(row["similarity"] >= np.float32(0.995) for row in strict.values())
    with pytest.raises(ConfigError, match="search.view_min_similarity=1.5 is not a similarity"):
        run(shards, tmp_path, view_min_similarity=1.5)


def test_pictures_inside_frames_are_embedded(shards, tmp_path):
    run(shards, tmp_path, ("embed",))
    metadata = read_table(Run(str(tmp_path)).table("metadata")).to_pylist()
    by_key = {row["key"]: row["sample_id"] for row in metadata}
    ids = np.array(sorted(by_key.values()))
    rows, places = Run(str(tmp_path)).inner_vectors().take(ids)
    framed = {key for key in by_key if key.endswith("framed")}
    assert {row["key"] for row in metadata if row["sample_id"] in ids[places].tolist()} >= framed
    store = Run(str(tmp_path)).vectors()
    for key in sorted(framed):
        if "mirrored" not in key:
            inner = rows[places.tolist().index(ids.tolist().index(by_key[key]))].astype(np.float64)
            assert inner @ store.take(np.array([by_key[key[:3]]]))[0].astype(np.float64) > 0.95


def test_low_detail_images_have_no_views(tmp_path):
    ramp = np.linspace(0, 200, 90)[None, :, None].repeat(60, 0).repeat(3, 2).astype(np.uint8)
    samples = [
        Sample("a", encode(Image.fromarray(ramp), "PNG"), "c", suffix="png"),
        Sample("b", encode(Image.fromarray(ramp[:, ::-1].copy()), "PNG"), "c", suffix="png"),
    ]
    write_tar(tmp_path / "a.tar", samples)
    run(str(tmp_path / "a.tar"), tmp_path / "out")
    assert view_edges(tmp_path / "out") == {}
    layout = Run(str(tmp_path / "out")).table("candidates")
    assert all(pq.read_schema(path).equals(layout.schema) for path in (tmp_path / "out" / "candidates").glob("part-*.parquet"))


def test_workers_do_not_matter(shards, tmp_path):
    run(shards, tmp_path / "one", exhaustive_below=0)
    config = Config(input=InputConfig(shards=[shards]), output=OutputConfig(str(tmp_path / "two")), engine=EngineConfig(workers=2))
    shared_workers.run(replace(config, search=SearchConfig(exhaustive_below=0)), ("embed", "index", "pairs"))
    assert view_edges(tmp_path / "one") == view_edges(tmp_path / "two")
