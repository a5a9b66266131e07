"""Patches of a generation in a training image, against every place of it."""

import numpy as np
import pytest
from shard_data import detailed

from dedup.errors import ShapeError
from dedup.numerics.judge.lay import laid_on
from dedup.numerics.patches import count_patches
from dedup.numerics.shared import has_texture

SIDE = 64


def picture(seed, side=SIDE):
    return np.asarray(detailed(seed, (side, side)))


def by_definition(image, target, side, max_distance):
    """Patches half a side apart: with texture, near the same place, near any place at all."""
    n, same, anywhere = 0, 0, 0
    places = np.lib.stride_tricks.sliding_window_view(target, (side, side), axis=(0, 1)).transpose(0, 1, 3, 4, 2).astype(np.float32) / 255
    for y in range(0, SIDE - side + 1, max(1, side // 2)):
        for x in range(0, SIDE - side + 1, max(1, side // 2)):
            if has_texture(image[y : y + side, x : x + side]):
                patch = image[y : y + side, x : x + side].astype(np.float32) / 255
                distances = np.sqrt(((places - patch) ** 2).mean(axis=(2, 3, 4)))
                n, same, anywhere = n + 1, same + (distances[y, x] <= max_distance), anywhere + (distances.min() <= max_distance)
    return n, same, anywhere


@pytest.mark.parametrize("side", [8, 16, 32])
@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (-6, 2)])
def test_counts_are_as_defined(side, shift):
    """At the same place exactly; anywhere at most, and all of what was moved."""
    target = picture(1)
    image = np.roll(target, shift, axis=(0, 1))
    image[: SIDE // 2, : SIDE // 2] = picture(2)[: SIDE // 2, : SIDE // 2]
    found = count_patches(image, target, side, 0.05)
    n, same, anywhere = by_definition(image, target, side, 0.05)
    assert (found.n_patches, found.n_same) == (n, same)
    assert same <= found.n_any <= anywhere
    assert found.n_any >= 0.9 * anywhere


def test_a_plain_picture_has_no_patches():
    plain = np.full((SIDE, SIDE, 3), 200, np.uint8)
    assert count_patches(plain, picture(1), 16, 0.15) == (0, 0, 0)
    edge = plain.copy()
    edge[SIDE // 2 + 3 :] = 40  # a wall and a table: an edge that many pictures have
    assert count_patches(edge, edge, 16, 0.15) == (0, 0, 0)


@pytest.mark.parametrize(("size", "side"), [((70, 70), 35), ((75, 100), 19), ((66, 96), 17), ((41, 64), 11)])
def test_sides_that_are_no_multiple_of_the_step(size, side):
    target = np.asarray(detailed(5, size[::-1]))
    found = count_patches(np.roll(target, 4, axis=1), target, side, 0.05)
    assert found.n_any <= found.n_patches


def test_sizes_must_agree():
    with pytest.raises(ShapeError, match="at least 128 pixels to a side"):
        count_patches(picture(1), picture(1), 128, 0.1)
    with pytest.raises(ShapeError, match="expected images of one size"):
        count_patches(picture(1), picture(1, 32), 16, 0.1)


def test_a_training_image_is_laid_on_its_crop():
    """Registered, patches of a crop are at the same place; as they are, only elsewhere."""
    target = np.asarray(detailed(3, (256, 256)))
    crop = np.asarray(detailed(3, (256, 256)).crop((20, 12, 236, 228)).resize((256, 256)))
    laid = laid_on(target, crop)
    assert laid.shape == crop.shape
    registered, plain = (count_patches(crop, target, 32, 0.15, pixels) for pixels in (laid, None))
    assert registered.n_same > 0.95 * registered.n_patches > 2 * plain.n_same
    # an unrelated picture is left where it is
    other = np.asarray(detailed(4, (256, 256)))
    assert np.array_equal(laid_on(other, crop), other)
