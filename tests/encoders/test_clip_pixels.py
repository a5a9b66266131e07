"""Images as open_clip's own transform has them, and how far the faster way is from it."""

import dataclasses

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from shard_data import encode, scene

from dedup.encoders.clip_models import Preprocessing
from dedup.storage.images.decode import decode_image

MEAN, STD = (0.481, 0.457, 0.408), (0.268, 0.261, 0.275)
SIZES = [(96, 80), (80, 96), (64, 64), (500, 333), (333, 500), (40, 31), (1, 1), (3, 200), (641, 64), (65, 1000)]


def preprocessing(size=64, mode="shortest", interpolation="bicubic", is_exact=True):
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocessing(height, width, MEAN, STD, interpolation, mode, 127, is_exact)


def pixels_of(size):
    return np.asarray(scene(sum(size), size))


def whole(pixels):
    return 0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])


def detailed(seed, size):
    """Fine and coarse detail, as photographs have it."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC), np.float32
        )
        for side in (6, 24, 96, 384)
    ]
    return np.clip(sum(weight * layer for weight, layer in zip((0.5, 0.25, 0.15, 0.1), layers, strict=True)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("target", [64, 57, (64, 48), (48, 64)])
@pytest.mark.parametrize("size", SIZES)
def test_exact_preprocessing_equals_open_clips_transform(size, target, mode):
    theirs = image_transform_v2(
        PreprocessCfg(size=target, mean=MEAN, std=STD, interpolation="bicubic", resize_mode=mode, fill_color=127), is_train=False
    )
    pixels = pixels_of(size)
    ours = preprocessing(target, mode)(pixels, whole(pixels))
    expected = theirs(Image.fromarray(pixels))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    found = torch.from_numpy(ours.copy()).permute(2, 0, 1).to(torch.float32).div_(255.0).sub_(mean).div_(std)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (9_000, 10), (1, 1), (2, 3)])
@pytest.mark.parametrize("is_exact", [True, False])
def test_extreme_aspect_ratios_stay_small(size, mode, is_exact):
    pixels = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
    found = preprocessing(64, mode, is_exact=is_exact)(pixels, whole(pixels))
    assert found.shape == (64, 64, 3)
    assert [90, 90, 90] in found[31:33, 31:33].reshape(-1, 3).tolist()


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(1600, 1200), (900, 1400), (640, 480), (460, 900), (300, 200), (150, 100)])
def test_scaled_decoding_stays_near_the_exact_way(size, mode):
    """The tolerance that docs/results.md states: mean difference below 1 grey level, 99% of the values within 4."""
    data = encode(Image.fromarray(detailed(sum(size), size)), quality=90)
    exact, fast = preprocessing(224, mode), preprocessing(224, mode, is_exact=False)
    full = decode_image(data, max_pixels=10**8, min_side=exact.min_side)
    small = decode_image(data, max_pixels=10**8, min_side=fast.min_side)
    difference = np.abs(exact(full.pixels, full.box).astype(float) - fast(small.pixels, small.box))
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) <= 4.0


def test_scaled_decoding_is_used_and_the_exact_way_decodes_in_full():
    data = encode(scene(0, (2000, 1600)), quality=90)
    exact, fast = preprocessing(224), preprocessing(224, is_exact=False)
    assert decode_image(data, max_pixels=10**8, min_side=exact.min_side).pixels.shape == (1600, 2000, 3)
    assert decode_image(data, max_pixels=10**8, min_side=fast.min_side).pixels.shape == (600, 750, 3)


def test_what_changes_the_pixels_is_in_its_name():
    names = {
        str(preprocessing(**changed))
        for changed in ({}, {"size": 32}, {"mode": "squash"}, {"interpolation": "bilinear"}, {"is_exact": False})
    }
    names.add(str(dataclasses.replace(preprocessing(), mean=(0.5, 0.5, 0.5))))
    assert len(names) == 6
