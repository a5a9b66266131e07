"""The edge consistency score against its definition, pixel by pixel."""

import numpy as np
import pytest
from edge_oracle import score_by_definition, score_by_shifts
from shard_data import scene

from dedup.errors import ShapeError
from dedup.numerics.edges import edge_consistency, edge_masks


def pictures(seed, n, height, width):
    """Weak noise with a box of some strength in a part of the images: gradients on either side of the threshold."""
    rng = np.random.default_rng(seed)
    images = rng.integers(100, 112, (n, height, width, 3))
    images[:, 3:9, 4:11] += rng.integers(0, 60, (n, 1, 1, 3))
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("n", "height", "width"), [(1, 12, 15), (2, 12, 15), (4, 16, 13), (5, 12, 12)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_as_defined(seed, n, height, width):
    images = pictures(seed, n, height, width)
    score = edge_consistency(edge_masks(images))
    assert score == score_by_definition(images) == score_by_shifts(images)
    assert 0 < score < 1


def test_equal_pictures_share_all_edges_and_unrelated_ones_none():
    one = np.asarray(scene(1, (64, 64)).convert("RGB"))
    alone = edge_masks(one[None]).mean()
    assert edge_consistency(edge_masks(np.stack([one] * 4))) == alone > 0
    boxes = np.full((8, 64, 64, 3), 200, np.uint8)
    for number in range(8):
        boxes[number, 8 * number : 8 * number + 6, 10:20] = 30  # of each image elsewhere
    assert edge_masks(boxes).mean() > 0
    assert edge_consistency(edge_masks(boxes)) == 0.0
    assert edge_consistency(edge_masks(np.full((3, 8, 8, 3), 200, np.uint8))) == 0.0


def test_exactly_half_is_not_more_than_half():
    masks = np.zeros((4, 2, 2), bool)
    masks[:2, 0, 0] = masks[:3, 1, 1] = True
    assert edge_consistency(masks) == 0.25


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)])
def test_what_is_no_stack_of_images_is_refused(images):
    with pytest.raises(ShapeError, match="expected uint8 of shape"):
        edge_masks(images)


@pytest.mark.parametrize("shape", [(0, 8, 8), (8, 8), (2, 0, 8)])
def test_without_images_there_is_no_score(shape):
    with pytest.raises(ShapeError, match="at least one image"):
        edge_consistency(np.zeros(shape, bool))
