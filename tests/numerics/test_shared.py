"""The area that generations share with a training image: against definitions pixel by pixel, and against what was planted."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from shard_data import detailed, scene

from dedup.numerics.pixels import l2_distances, pairwise_tiled_distances, tiled_distances
from dedup.numerics.shared import Known, Limits, cells_to_a_side, compare, find_shared, masked_distances, masked_pairwise, shows_detail

SIDE = 128
CELLS = cells_to_a_side(SIDE, SIDE)


def picture(seed):
    return np.asarray(detailed(seed, (SIDE, SIDE)))


def altered(rng, pixels):
    """A blurred, a noisy or a JPEG copy."""
    image = Image.fromarray(pixels)
    match rng.integers(3):
        case 0:
            return np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)))
        case 1:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=70)
            return np.asarray(Image.open(buffer))
        case _:
            return np.clip(np.rint(pixels + rng.normal(0, 6, pixels.shape)), 0, 255).astype(np.uint8)


def region(rng, area, kind):
    """Where the pictures of a template differ: a rectangle, a side, the middle; `area` is what remains."""
    free, differs = 1.0 - area, np.zeros((SIDE, SIDE), dtype=bool)
    if kind == 0:
        side = round(SIDE * free**0.5)
        top, left = rng.integers(0, SIDE - side + 1, 2)
        differs[top : top + side, left : left + side] = True
    elif kind == 1:
        differs[:, : round(SIDE * free)] = True
    else:
        y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
        distance = y**2 + x**2
        differs = distance < np.sort(distance.ravel())[round(free * SIDE**2)]
    return differs


def template(rng, area, kind, n=12, n_others=8):
    """A training image, generations of its template and others, and where it differs."""
    differs, base = region(rng, area, kind), picture(int(rng.integers(1 << 40)))

    def filled():
        return np.where(differs[..., None], picture(int(rng.integers(1 << 40))), base)

    generations = [altered(rng, filled()) for _ in range(n)] + [picture(int(rng.integers(1 << 40))) for _ in range(n_others)]
    return filled(), np.stack(generations), differs


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("area", [0.4, 0.6, 0.75, 0.9])
def test_a_planted_area_is_found_with_its_generations(area, kind):
    rng = np.random.default_rng(int(100 * area) + kind)
    target, images, differs = template(rng, area, kind)
    shared = find_shared(images, target, Limits())
    assert len(shared.members) >= 11  # blur may take one of them out of reach
    assert set(shared.members.tolist()) <= set(range(12))
    assert area - 0.16 <= shared.area <= area + 0.02  # cells at the rim are left out
    in_pixels = np.kron(shared.cells, np.ones((SIDE // CELLS,) * 2, dtype=bool))
    assert (in_pixels & differs).sum() <= 0.03 * in_pixels.sum()


def test_equal_generations_are_all_in_the_clique():
    """Twelve generations equal to the training image on three quarters of its area."""
    rng = np.random.default_rng(5)
    target, _, _ = template(rng, 0.75, 0)
    images = np.repeat(target[None], 12, axis=0)
    images[:, : SIDE // 2, : SIDE // 2] = [picture(900 + number)[: SIDE // 2, : SIDE // 2] for number in range(12)]
    shared = find_shared(images, target, Limits())
    assert shared.members.tolist() == list(range(12))
    assert shared.area == 0.75
    assert shared.l2.max() == shared.tiled.max() == shared.mean_distance == 0.0


def ground(kind):
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    plain = np.ones(3)
    return {
        "white": np.full((SIDE, SIDE, 3), 255.0),
        "gradient": (180 + 60 * y)[..., None] * plain,
        "vignette": (235 - 120 * ((y - 0.5) ** 2 + (x - 0.5) ** 2))[..., None] * plain,
        "table": np.where((y > 0.6)[..., None], [180.0, 150.0, 120.0], [230.0, 230.0, 235.0]),
        "grey": np.full((SIDE, SIDE, 3), 128.0),
    }[kind]


def on_ground(rng, kind):
    pixels = ground(kind)
    height, width = rng.integers(SIDE // 6, SIDE // 2, 2)
    top, left = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    pixels[top : top + height, left : left + width] = np.asarray(scene(int(rng.integers(1 << 40)), (int(width), int(height))))
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("kind", ["white", "gradient", "vignette", "table", "grey"])
def test_equal_grounds_are_no_template(kind):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        target = on_ground(rng, kind)
        images = np.stack([altered(rng, on_ground(rng, kind)) for _ in range(20)])
        assert find_shared(images, target, Limits()) is None
        assert not shows_detail(images, target, Limits()).any()


def test_unrelated_pictures_share_nothing():
    for seed in range(5):
        images = np.stack([picture(1000 * seed + number) for number in range(21)])
        assert find_shared(images[1:], images[0], Limits()) is None


def test_a_known_area_needs_one_generation():
    rng = np.random.default_rng(3)
    target, images, differs = template(rng, 0.75, 0, n=1, n_others=4)
    assert find_shared(images, target, Limits()) is None
    shared = find_shared(images, target, Limits(), Known(~differs[::2, ::2], differs[::2, ::2]))
    assert shared.members.tolist() == [0]
    assert shared.mean_distance is None
    assert shared.area == pytest.approx(0.75, abs=0.1)
    # an area that is not what the generations share doesn't count
    assert find_shared(images, target, Limits(), Known(differs[::2, ::2], ~differs[::2, ::2])) is None
    nothing = np.zeros((64, 64), dtype=bool)
    assert find_shared(images, target, Limits(), Known(nothing, nothing)) is None


def by_definition(a, b, cells):
    """The largest over tiles, and the whole, of the root of the mean squared difference inside an area."""
    difference = ((a.astype(np.float64) - b.astype(np.float64)) / 255.0) ** 2
    inside = np.kron(cells, np.ones((SIDE // len(cells),) * 2, dtype=bool))
    tiles, step = [], SIDE // 4
    for y in range(0, SIDE, step):
        for x in range(0, SIDE, step):
            part = inside[y : y + step, x : x + step]
            if part.mean() >= 0.25:
                tiles.append(np.sqrt(difference[y : y + step, x : x + step][part].mean()))
    return max(tiles), np.sqrt(difference[inside].mean())


def test_masked_distances_are_as_defined():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    cells = rng.random((CELLS, CELLS)) < 0.5
    tiled, l2 = masked_distances(images, images[0], cells)
    pairs = masked_pairwise(images, cells)
    for number, image in enumerate(images):
        expected = by_definition(image, images[0], cells)
        assert (tiled[number], l2[number]) == pytest.approx(expected, abs=1e-12)
        assert pairs[number, 0] == pytest.approx(expected[0], abs=1e-6)
    everything = np.ones((CELLS, CELLS), dtype=bool)
    assert np.allclose(masked_distances(images, images[0], everything)[0], tiled_distances(images, images[0]), atol=1e-12)
    assert np.allclose(masked_distances(images, images[0], everything)[1], l2_distances(images, images[0]), atol=1e-12)
    assert np.allclose(masked_pairwise(images, everything), pairwise_tiled_distances(images), atol=1e-6)
    # of an area that fills no tile, the whole is one
    few = np.zeros((CELLS, CELLS), dtype=bool)
    few[::4, ::4] = True
    tiled, l2 = masked_distances(images, images[0], few)
    assert np.array_equal(tiled, l2)


def test_cells_are_near_by_colour_and_detail():
    """Each cell's rule, by the definition of correlation."""
    rng = np.random.default_rng(1)
    target = picture(1)
    images = np.stack([altered(rng, target), picture(2), np.roll(target, 3, axis=1), np.full_like(target, 128)])
    compared = compare(images, target, Limits())
    step = SIDE // CELLS
    for cell in range(CELLS**2):
        y, x = (place * step for place in divmod(cell, CELLS))
        wanted = target[y : y + step, x : x + step].astype(np.float64)
        spread = wanted - wanted.mean(axis=(0, 1))
        assert compared.is_detailed[cell] == (np.sqrt((spread**2).mean()) >= 8)
        for number, image in enumerate(images):
            values = image[y : y + step, x : x + step].astype(np.float64)
            own = values - values.mean(axis=(0, 1))
            is_near = np.sqrt(((values - wanted) ** 2).mean()) / 255 <= 0.15
            if compared.is_detailed[cell]:
                is_near &= (own * spread).sum() >= 0.5 * np.sqrt((own**2).sum() * (spread**2).sum())
            assert compared.is_near[number, cell] == is_near


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (4, 4), (9, 300), (40, 41)])
def test_any_size(size):
    rng = np.random.default_rng(0)
    with np.errstate(all="raise"):
        for low, high in ((0, 1), (255, 256), (0, 256)):
            images = rng.integers(low, high, (12, *size, 3), dtype=np.uint8)
            shows_detail(images, images[0], Limits())
            if min(size) >= 4:
                find_shared(images, images[0], Limits())
