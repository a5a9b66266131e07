"""A look-alike made of a picture differs in one part, and only there."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dedup.demo.pictures import procedural_scene
from dedup.errors import ShapeError
from dedup.numerics.image.exchange import LARGE_PART, SMALL_PART, exchange_part


def page(seed, size=(320, 240)):
    """Words on white."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for line in range(10):
        words = "".join(chr(97 + int(letter)) for letter in rng.integers(0, 26, 24))
        draw.text((12, 8 + 23 * line), words, "black", ImageFont.load_default(18))
    return np.array(image)


@pytest.mark.parametrize("sides", [SMALL_PART, LARGE_PART])
@pytest.mark.parametrize("seed", range(8))
def test_one_part_of_the_asked_size_changes(seed, sides):
    a, b = page(seed), page(seed + 100)
    changed = exchange_part(a, b, np.random.default_rng(seed), sides)
    assert changed is not None
    assert changed.shape == a.shape
    assert changed.dtype == np.uint8
    differs = np.abs(changed.astype(int) - a).max(axis=2) > 0
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height <= np.ceil(sides[1] * a.shape[0])
    assert width <= np.ceil(sides[1] * a.shape[1])
    assert differs[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.1


def test_the_ground_stays():
    """Words on grey paper come to white paper as words on white."""
    a, b = page(1), (page(2) * 0.8).astype(np.uint8)
    changed = exchange_part(a, b, np.random.default_rng(0))
    differs = np.abs(changed.astype(int) - a).max(axis=2) > 8
    assert np.median(changed[differs].max(axis=1)) > 60 or differs.mean() < 0.1
    assert (changed >= 250).all(axis=2).mean() > 0.6


def test_a_picture_can_lend_itself_a_part():
    a = page(5)
    assert exchange_part(a, a, np.random.default_rng(0)) is not None


def test_what_shows_nothing_has_no_lookalike():
    flat = np.full((200, 200, 3), 240, np.uint8)
    rng = np.random.default_rng(0)
    assert exchange_part(flat, page(1), rng) is None
    assert exchange_part(page(1), flat, rng) is None
    assert exchange_part(np.zeros((1, 1, 3), np.uint8), page(1), rng) is None
    assert exchange_part(page(1), np.zeros((1, 1, 3), np.uint8), rng) is None


def test_equal_seeds_give_equal_lookalikes():
    a, b = procedural_scene(np.random.default_rng(1), (300, 200)), procedural_scene(np.random.default_rng(2), (180, 320))
    first, second = (exchange_part(a, b, np.random.default_rng(3), LARGE_PART) for _ in range(2))
    assert np.array_equal(first, second)
    with pytest.raises(ShapeError):
        exchange_part(a[:, :, 0], b, np.random.default_rng(0))
