"""The weights-free image descriptor: low DCT coefficients of luma and chroma.

Based on the perceptual hashes of Zauner (2010) and PDQ (Facebook, 2019), with real numbers instead of bits: a
cosine between two descriptors ranks pairs more finely than a Hamming distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dedup.errors import ShapeError
from dedup.numerics.arraytypes import Pixels, Vectors

DIM = 384
GRID = 64  # side of the area-resized image
LUMA_SIDE = 16  # low luma coefficients per axis
CHROMA_SIDE = 8  # low chroma coefficients per axis
DETAIL_STEP = 4.0  # grey levels of second difference that count as detail
_NOISE_FLOOR = 0.064  # of a DCT coefficient: a thousandth of a grey level over the whole grid

# rows: luma, blue and red difference, of RGB; ITU-R BT.601, full range, as JPEG has it
BT601 = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float32)

# The symmetries of the square as (transpose, reverse rows, reverse columns), transposing first.
VARIANTS: dict[str, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "mirror": (False, False, True),
    "flip": (False, True, False),
    "rotate180": (False, True, True),
    "transpose": (True, False, False),
    "rotate90": (True, True, False),
    "rotate270": (True, False, True),
    "transverse": (True, True, True),
}


def describe(pixels: Pixels) -> tuple[npt.NDArray[np.float32], float]:
    """Describe one image.

    `pixels`: shape (height, width, 3); RGB.
    Returns `descriptor`: shape (DIM,); unit norm.
    Returns `quality`: amount of detail, see `detail`.

    >>> image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    >>> descriptor, quality = describe(image)
    >>> mirrored, _ = describe(image[:, ::-1])
    >>> bool(np.allclose(turn(descriptor[None], "mirror")[0], mirrored, atol=1e-3))
    True
    """
    grids = ycbcr_grid(pixels)[None]
    return describe_grids(grids)[0], float(detail(grids)[0])


def ycbcr_grid(pixels: Pixels, box: tuple[float, float, float, float] | None = None) -> npt.NDArray[np.float32]:
    """Area-resize an image to `GRID` x `GRID` and convert it to luma and chroma.

    `pixels`: shape (height, width, 3); RGB.
    `box`: left, top, right, bottom of the part to resize; by default the whole image.
    Returns shape (3, GRID, GRID); Y in 0..255, Cb and Cr in -128..127.
    Raises ShapeError if `pixels` is not a non-empty uint8 RGB array.
    """
    check_rgb(pixels)
    height, width, _ = pixels.shape
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    # (GRID, width * 3): rows are averaged first, so that the large array is read once
    rows = grid_matrix(height, top, bottom) @ pixels.reshape(height, width * 3).astype(np.float32)
    columns = grid_matrix(width, left, right) @ rows.reshape(GRID, width, 3)
    grid: npt.NDArray[np.float32] = np.ascontiguousarray((columns @ BT601.T).transpose(2, 0, 1))
    return grid


@dataclass(frozen=True)
class Crop:
    """A picture as encoders get it: the part of some pixels inside a box."""

    pixels: Pixels  # shape (height, width, 3); RGB
    box: tuple[float, float, float, float]  # left, top, right, bottom

    @cached_property
    def grid(self) -> npt.NDArray[np.float32]:
        """As `ycbcr_grid` gives it."""
        return ycbcr_grid(self.pixels, self.box)


def describe_grids(grids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn area-resized images into unit descriptors.

    `grids`: shape (n, 3, GRID, GRID); as `ycbcr_grid` gives them.
    Returns shape (n, DIM); unit rows: signed square roots of 256 low luma coefficients (without the constant one, so that brightness does
    not matter), 64 Cb, 64 Cr. An image where all of these are 0 (uniform grey) gets the unit vector of the unused first place.
    Raises ShapeError if the shape differs.
    """
    if grids.ndim != 4 or grids.shape[1:] != (3, GRID, GRID):
        raise ShapeError(f"expected (n, 3, {GRID}, {GRID}), found {grids.shape}")
    n = len(grids)
    dct = dct_matrix()
    coefficients = dct @ grids @ dct.T
    luma = coefficients[:, 0].reshape(n, -1)
    chroma = coefficients[:, 1:, :CHROMA_SIDE, :CHROMA_SIDE].reshape(n, -1)
    flat = np.concatenate([luma, chroma], axis=1)
    flat[:, 0] = 0.0
    # smaller coefficients are rounding noise of the decoder, which the square root would amplify
    flat[np.abs(flat) < _NOISE_FLOOR] = 0.0
    vectors: npt.NDArray[np.float32] = np.sign(flat) * np.sqrt(np.abs(flat))
    norms = np.linalg.norm(vectors, axis=1)
    vectors[norms == 0.0, 0] = 1.0
    norms[norms == 0.0] = 1.0
    vectors /= norms[:, None]
    return vectors


def detail(grids: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How much of each image holds detail.

    PDQ sums gradients, so one strong edge counts like a full picture; here each cell counts once: a moon on
    black has a sharp edge, yet little to tell it from another moon. Second differences are used, since a smooth
    gradient is not detail.

    `grids`: shape (n, 3, GRID, GRID).
    Returns shape (n,); per cent of the inner cells whose luma differs from the mean of two opposite neighbours by half of `DETAIL_STEP` or
    more; 0 for uniform images and gradients, 30 to 95 for most photos.
    """
    luma = grids[:, 0]
    across = np.abs(np.diff(luma, n=2, axis=2))[:, 1:-1, :] >= DETAIL_STEP
    down = np.abs(np.diff(luma, n=2, axis=1))[:, :, 1:-1] >= DETAIL_STEP
    share: npt.NDArray[np.float32] = (across | down).mean(axis=(1, 2), dtype=np.float32) * np.float32(100.0)
    return share


@lru_cache(maxsize=1)
def dct_matrix() -> npt.NDArray[np.float32]:
    """First `LUMA_SIDE` rows of the orthonormal DCT-II of `GRID` values, shape (LUMA_SIDE, GRID)."""
    cells = np.arange(GRID) + 0.5
    dct = np.cos(np.pi / GRID * np.arange(LUMA_SIDE)[:, None] * cells) * np.sqrt(2.0 / GRID)
    dct[0] /= np.sqrt(2.0)
    return np.ascontiguousarray(dct, dtype=np.float32)


@lru_cache(maxsize=2048)
def grid_matrix(n_pixels: int, start: float = 0.0, stop: float | None = None) -> npt.NDArray[np.float32]:
    """Area-resize a part of an axis, by default all of it, to `GRID` cells: a dense `area_matrix`, shape (GRID, n_pixels)."""
    dense: npt.NDArray[np.float32] = area_matrix(n_pixels, start, float(n_pixels) if stop is None else stop, GRID).toarray()
    return dense


def area_resize(pixels: Pixels, width: int, height: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """Area-resize an image, or the part of it inside a box.

    Pillow's BOX filter takes whole pixels only, which shifts details by up to half a pixel unless the factor is a whole
    number; its other filters reach beyond the area and blur.

    `pixels`: shape (h, w, 3).
    `width`, `height`: of the result, in pixels, 1 or more.
    `box`: left, top, right, bottom in pixels; by default all of the image.
    Returns shape (height, width, 3); C-contiguous.
    Raises ShapeError if `pixels` is not a non-empty uint8 RGB array.

    >>> area_resize(np.array([[[0] * 3, [90] * 3, [30] * 3]], np.uint8), 2, 1)[0, :, 0].tolist()
    [30, 50]
    """
    check_rgb(pixels)
    n_rows, n_columns, _ = pixels.shape
    left, top, right, bottom = box or (0.0, 0.0, float(n_columns), float(n_rows))
    rows = area_matrix(n_rows, top, bottom, height) @ pixels.reshape(n_rows, n_columns * 3).astype(np.float32)
    turned = np.ascontiguousarray(rows.reshape(height, n_columns, 3).transpose(1, 0, 2)).reshape(n_columns, height * 3)
    columns = area_matrix(n_columns, left, right, width) @ turned
    columns += 0.5  # astype truncates; means of 0..255 can't leave the range by more than rounding
    resized: Pixels = columns.astype(np.uint8).reshape(width, height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(resized)


def check_rgb(pixels: Pixels) -> None:
    """Raise ShapeError unless pixels are a non-empty RGB image."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ShapeError(f"expected non-empty uint8 (height, width, 3), found {pixels.dtype} {pixels.shape}")


@lru_cache(maxsize=512)
def area_matrix(n_pixels: int, start: float, stop: float, n_cells: int) -> sparse.csr_array[np.float32]:
    """Area-resize the part from `start` to `stop` of an axis, in pixels, to equal cells: exact means, no rounding.

    Returns shape (n_cells, n_pixels); rows sum to 1.
    """
    edges = np.linspace(start, stop, n_cells + 1)
    # one weight for each stretch between two edges of cells or pixels; a dense matrix would be ten times the work
    cuts = np.union1d(edges, np.arange(np.ceil(start), np.floor(stop) + 1))
    cuts = cuts[(cuts >= start) & (cuts <= stop)]
    middle = (cuts[1:] + cuts[:-1]) / 2
    cell = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, n_cells - 1)
    pixel = np.clip(middle.astype(np.int64), 0, n_pixels - 1)
    weights = (np.diff(cuts) * (n_cells / (stop - start))).astype(np.float32)
    return sparse.csr_array((weights, (cell, pixel)), shape=(n_cells, n_pixels))


def turn(descriptors: Vectors, name: str) -> Vectors:
    """Descriptors of the turned images, without the images.

    `descriptors`: shape (n, DIM).
    `name`: a key of `VARIANTS`.
    Returns shape (n, DIM), of the same dtype.
    """
    source, sign = variant_map(name)
    turned: Vectors = descriptors[:, source] * sign.astype(descriptors.dtype)
    return turned


@lru_cache(maxsize=16)
def variant_map(name: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """How the descriptor of a turned image follows from that of the image; see `square_map`."""
    return square_map(name, (LUMA_SIDE, CHROMA_SIDE, CHROMA_SIDE))


def square_map(name: str, sides: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """How squares of DCT coefficients of a turned image follow from those of the image.

    Reversing an axis changes the sign of its odd coefficients; transposing the image transposes them.

    `name`: a key of `VARIANTS`.
    `sides`: of the squares that a vector consists of, one after another.
    Returns `source`: shape (dim,); the place that each place of the turned vector comes from.
    Returns `sign`: shape (dim,).
    """
    transpose, reverse_rows, reverse_columns = VARIANTS[name]
    sources, signs = [], []
    start = 0
    for side in sides:
        places = np.arange(start, start + side * side).reshape(side, side)
        alternate = np.where(np.arange(side) % 2, -1.0, 1.0)
        sign = np.ones((side, side))
        sources.append((places.T if transpose else places).ravel())
        if reverse_rows:
            sign = sign * alternate[:, None]
        if reverse_columns:
            sign = sign * alternate[None, :]
        signs.append(sign.ravel())
        start += side * side
    return np.concatenate(sources), np.concatenate(signs).astype(np.float32)
