"""The descriptor against a slow, plain reading of its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.fft import dctn

from dedup.errors import ShapeError
from dedup.numerics.image import descriptor as d


def plain_descriptor(pixels):
    """Definition: repeat pixels to a common multiple, average, convert, DCT, signed square roots, unit norm."""
    height, width, _ = pixels.shape
    rows = np.repeat(pixels.astype(np.float64), 64, axis=0).reshape(64, height, width, 3).mean(1)
    grid = np.repeat(rows, 64, axis=1).reshape(64, 64, width, 3).mean(2)
    r, g, b = np.moveaxis(grid, 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = [y, (b - y) * 0.564, (r - y) * 0.713]
    parts = [dctn(plane, norm="ortho")[:n, :n].ravel() for plane, n in zip(planes, (16, 8, 8), strict=True)]
    vector = np.concatenate(parts)
    vector[0] = 0
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("shape", [(64, 64), (48, 100), (7, 33), (1, 1), (350, 401)])
def test_equals_its_definition(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    vector, _ = d.describe(pixels)
    assert vector.shape == (d.DIM,)
    assert np.dot(vector, plain_descriptor(pixels)) > 0.9995


@pytest.mark.parametrize("name", list(d.VARIANTS))
def test_turning_the_vector_is_turning_the_image(name):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    transpose, reverse_rows, reverse_columns = d.VARIANTS[name]
    turned = pixels.transpose(1, 0, 2) if transpose else pixels
    turned = turned[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1]
    expected, _ = d.describe(np.ascontiguousarray(turned))
    vector, _ = d.describe(pixels)
    assert np.allclose(d.turn(vector[None], name)[0], expected, atol=2e-2)
    assert np.dot(d.turn(vector[None], name)[0], expected) > 0.9999


def test_names_of_the_quarter_turns():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    vector, _ = d.describe(pixels)
    for name, k in (("rotate90", 1), ("rotate180", 2), ("rotate270", 3)):
        expected, _ = d.describe(np.ascontiguousarray(np.rot90(pixels, k)))
        assert np.dot(d.turn(vector[None], name)[0], expected) > 0.9999, name


@given(st.integers(1, 90), st.integers(1, 90))
def test_grid_matrix_averages(a, b):
    for n in (a, b):
        matrix = d.grid_matrix(n)
        assert np.allclose(matrix.sum(1), 1, atol=1e-5)
        assert np.allclose(matrix.sum(0), d.GRID / n, atol=1e-4)


def test_low_detail_images_have_low_quality():
    x = np.mgrid[0:300, 0:400][1]
    uniform = np.full((300, 400, 3), (200, 30, 90), np.uint8)
    gradient = np.repeat((x * 255 / 399)[..., None], 3, 2).astype(np.uint8)
    moon = Image.new("RGB", (400, 300))
    ImageDraw.Draw(moon).ellipse((160, 110, 240, 190), fill=(220, 220, 210))
    busy = np.repeat(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8), 10, axis=0).repeat(10, axis=1)
    qualities = [d.describe(pixels)[1] for pixels in (uniform, gradient, np.asarray(moon), busy)]
    assert qualities[0] == 0
    assert qualities[1] == 0
    assert 1 < qualities[2] < 8
    assert qualities[3] > 20


def test_uniform_grey_has_a_unit_vector():
    vector, quality = d.describe(np.full((9, 9, 3), 128, np.uint8))
    assert np.isclose(np.linalg.norm(vector), 1)
    assert quality == 0


@pytest.mark.parametrize("pixels", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_wrong_arrays_are_refused(pixels):
    with pytest.raises(ShapeError, match="expected non-empty uint8"):
        d.ycbcr_grid(pixels)
