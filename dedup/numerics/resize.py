"""Area-resizing of pictures to any size: each new pixel is the exact mean of what it covers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dedup.errors import ShapeError


@lru_cache(maxsize=512)
def area_matrix(n_pixels: int, start: float, stop: float, n_cells: int) -> sparse.csr_array[np.float32]:
    """Area-resize a part of an axis, as a matrix: exact means, no rounding.

    Parameters
    ----------
    n_pixels : int
        Length of the axis.
    start, stop : float
        The part, in pixels.
    n_cells : int
        Equal parts that it is cut into.

    Returns
    -------
    sparse float32 array, shape (n_cells, n_pixels)
        Rows sum to 1.
    """
    edges = np.linspace(start, stop, n_cells + 1)
    # one weight for each stretch between two edges of cells or pixels; a dense matrix would cost ten times the work
    cuts = np.union1d(edges, np.arange(np.ceil(start), np.floor(stop) + 1))
    cuts = cuts[(cuts >= start) & (cuts <= stop)]
    middle = (cuts[1:] + cuts[:-1]) / 2
    cell = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, n_cells - 1)
    pixel = np.clip(middle.astype(np.int64), 0, n_pixels - 1)
    weights = (np.diff(cuts) * (n_cells / (stop - start))).astype(np.float32)
    return sparse.csr_array((weights, (cell, pixel)), shape=(n_cells, n_pixels))


def area_resize(
    pixels: npt.NDArray[np.uint8], width: int, height: int, box: tuple[float, float, float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """Area-resize an image, or the part of it inside a box.

    Pillow's BOX filter takes whole pixels only, which shifts details by up to half a pixel where the factor is no whole
    number; its other filters reach beyond the area and blur.

    Parameters
    ----------
    pixels : uint8 array, shape (h, w, 3)
    width, height : int
        Of the result, in pixels, 1 or more.
    box : tuple of float, optional
        Left, top, right, bottom in pixels; by default all of the image.

    Returns
    -------
    uint8 array, shape (height, width, 3)
        C-contiguous.

    Raises
    ------
    ShapeError
        If `pixels` is not a non-empty uint8 RGB array.

    Examples
    --------
    >>> area_resize(np.array([[[0] * 3, [90] * 3, [30] * 3]], np.uint8), 2, 1)[0, :, 0].tolist()
    [30, 50]
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ShapeError(f"expected non-empty uint8 (height, width, 3), found {pixels.dtype} {pixels.shape}")
    n_rows, n_columns, _ = pixels.shape
    left, top, right, bottom = box or (0.0, 0.0, float(n_columns), float(n_rows))
    rows = area_matrix(n_rows, top, bottom, height) @ pixels.reshape(n_rows, n_columns * 3).astype(np.float32)
    turned = np.ascontiguousarray(rows.reshape(height, n_columns, 3).transpose(1, 0, 2)).reshape(n_columns, height * 3)
    columns = area_matrix(n_columns, left, right, width) @ turned
    columns += 0.5  # astype cuts off; means of 0..255 can't leave the range by more than rounding
    found: npt.NDArray[np.uint8] = columns.astype(np.uint8).reshape(width, height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(found)
