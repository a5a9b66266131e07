"""Canonical orientations and views against turned and cropped pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_data import scene

from dedup.numerics.image.descriptor import VARIANTS, describe, turn
from dedup.numerics.image.views import CROP, DISC, INNER, VIEW_DIM, WHOLE, centre, crop_views, orient, relative_turns, view_rows, view_turn
from dedup.numerics.similarity import exact_similarity

NAMES = list(VARIANTS)


def turned_pixels(pixels, name):
    """Pixels turned by plain numpy, transposing first."""
    is_transposed, rows_reversed, columns_reversed = VARIANTS[name]
    pixels = pixels.transpose(1, 0, 2) if is_transposed else pixels
    pixels = pixels[::-1] if rows_reversed else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if columns_reversed else pixels)


def turned(views, number):
    source, sign = view_turn(NAMES[number])
    return views[:, source] * sign


def canonical(views):
    """Each view in its canonical orientation, and which that is."""
    which = (orient(views) == 2).argmax(axis=1)
    return np.concatenate([turned(views[i : i + 1], number) for i, number in enumerate(which)]), which


def views_of(n):
    return crop_views(np.stack([describe(np.asarray(scene(seed)))[0] for seed in range(n)]))[0]


@given(st.integers(0, 2**32 - 1))
def test_turned_views_have_one_canonical_view(seed):
    view = np.random.default_rng(seed).standard_normal((1, VIEW_DIM)).astype(np.float32)
    view[0, 0] = 0.0
    view /= np.linalg.norm(view)
    expected, first = canonical(view)
    for number in range(8):
        copy = turned(view, number)
        assert ((orient(copy) == 2).sum(1) == 1).all()
        found, second = canonical(copy)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert relative_turns()[first[0], second[0]] == number


@pytest.mark.parametrize("name", NAMES)
def test_turned_pixels_are_told_by_their_orientations(name):
    for seed in range(20):
        pixels = np.asarray(scene(seed))
        pair = np.stack([describe(pixels)[0], describe(turned_pixels(pixels, name))[0]])
        found, which = canonical(crop_views(pair)[0])
        assert exact_similarity(found[:1], found[1:])[0] > 0.999
        assert NAMES[relative_turns()[which[0], which[1]]] == name
        # the same word turns the one vector into the other, as in `edges`
        assert exact_similarity(turn(pair[:1], name), pair[1:])[0] > 0.999


def test_relative_turns_are_a_group():
    table = relative_turns()
    assert (np.sort(table, axis=0) == np.arange(8)[:, None]).all()
    assert (np.diag(table) == 0).all()
    assert table[:, 0].tolist() == list(range(8))  # a picture met as it stands is met by what makes the other canonical


def test_margins_open_decisions_and_only_those():
    views = views_of(200)
    answer, closed, wide = orient(views), orient(views, 0.0), orient(views, 1e9)
    assert ((closed == 2) == (answer == 2)).all()
    assert (closed != 1).all()
    assert (wide > 0).all()
    assert 1.2 < (answer > 0).sum(1).mean() < 5.0
    # a slightly changed copy decides for an orientation that was thought possible
    noise = np.random.default_rng(0).standard_normal(views.shape).astype(np.float32) * np.float32(0.15 / np.sqrt(VIEW_DIM))
    copies = views + noise
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    decided = (orient(copies) == 2).argmax(1)
    assert (answer[np.arange(200), decided] > 0).mean() > 0.99


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), centre(0.87), centre(0.75), (0.0, 0.08, 0.92, 1.0)])
def test_crops_follow_from_the_descriptor(box):
    from PIL import Image, ImageFilter

    whole, cropped = [], []
    for seed in range(12):
        picture = scene(seed, (400, 320)).filter(ImageFilter.GaussianBlur(12))
        whole.append(describe(np.asarray(picture))[0])
        left, top, right, bottom = (round(share * side) for share, side in zip(box, (400, 320, 400, 320), strict=True))
        part = picture.crop((left, top, right, bottom)).resize((400, 320), Image.Resampling.BICUBIC)
        cropped.append(describe(np.asarray(part))[0])
    views, is_usable = crop_views(np.stack(whole), box)
    assert is_usable.all()
    assert exact_similarity(views, crop_views(np.stack(cropped))[0]).min() > 0.95


def test_rows_of_images_and_framed_pictures():
    whole = np.stack([describe(np.asarray(scene(seed)))[0] for seed in range(6)])
    inner = np.stack([describe(np.asarray(scene(50 + seed)))[0] for seed in range(2)])
    rows = view_rows(whole, inner, np.array([1, 4]), np.ones(len(whole)))
    assert (np.diff(rows.image) >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(rows.vectors, axis=1), 1.0, atol=1e-5)
    base = rows.is_base
    assert sorted(zip(rows.image[base].tolist(), rows.kind[base].tolist(), strict=True)) == [
        *((image, kind) for image in range(6) for kind in ((WHOLE, INNER, DISC) if image in (1, 4) else (WHOLE, DISC)))
    ]
    assert not base[rows.kind == CROP].any()
    assert set(rows.image[rows.kind == INNER].tolist()) == {1, 4}
    # two centred and four off-centred crops of each, two of what is framed
    n_crops = np.bincount(rows.image[rows.kind == CROP], minlength=6)
    assert (n_crops >= np.where(np.isin(np.arange(6), [1, 4]), 8, 6)).all()
    flat = np.zeros((1, whole.shape[1]), np.float32)
    flat[0, 0] = 1.0  # uniform grey
    assert len(view_rows(flat, inner[:0], np.zeros(0, np.int64), np.ones(len(flat))).image) == 0


def test_a_grey_copy_meets_a_colourful_picture():
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:32, :, 0], colours[32:, :, 2] = 200, 220
    colours[:, :20, 1] = np.asarray(scene(3))[:64, :20, 1]
    weights = np.array([0.299, 0.587, 0.114])
    grey = np.repeat(np.rint(colours @ weights).astype(np.uint8)[:, :, None], 3, axis=2)
    whole = np.stack([describe(colours)[0], describe(grey)[0]])
    assert whole[0] @ whole[1] < 0.7
    rows = view_rows(whole, whole[:0], np.zeros(0, np.int64), np.ones(2))
    coloured, base = rows.image == 0, (rows.image == 1) & rows.is_base & (rows.kind == WHOLE)
    best = (rows.vectors[coloured] @ rows.vectors[base].T).max()
    assert best > 0.99
