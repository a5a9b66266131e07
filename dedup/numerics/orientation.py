"""The canonical orientation of a picture: turned copies of it have one vector.

Of the eight symmetries of the square, one is chosen by three numbers of the low DCT coefficients: which of the two
directions has more energy decides whether the picture is transposed, and the signs of two weighted sums of its odd
coefficients whether rows and columns are reversed. Where such a number is near zero, a copy may decide otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dedup.numerics.descriptor import VARIANTS, square_map

SIDES = (10, 5, 5)  # squares of luma, Cb and Cr coefficients that a look holds
DIM = sum(side * side for side in SIDES)
# Copies whose looks are 0.82 or more alike decide otherwise than their picture in one of 200 cases beyond these.
SIGN_MARGIN = 0.007
ENERGY_MARGIN = 0.055
_NAMES = tuple(VARIANTS)


@lru_cache(maxsize=1)
def _weights() -> npt.NDArray[np.float32]:
    """Of signed squares for the sums that reversed columns and reversed rows negate, and of squares for the energy."""
    columns, rows, energy = [], [], []
    for side in SIDES:
        i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        frequency = np.maximum(i + j, 1).astype(np.float64)
        # low frequencies survive a crop, so they weigh more; even along the other axis: its reversal changes nothing
        column = ((j % 2 == 1) & (i % 2 == 0)) / frequency**2
        columns.append(column.ravel())
        rows.append(column.T.ravel())
        energy.append(((i - j) / frequency).ravel())
    return np.stack([np.concatenate(part) for part in (columns, rows, energy)]).astype(np.float32)


@lru_cache(maxsize=8)
def look_turn(name: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """How the look of a turned picture follows from its look; see `dedup.numerics.descriptor.square_map`."""
    return square_map(name, SIDES)


def orient(looks: npt.NDArray[np.float32], margin: float = 1.0) -> npt.NDArray[np.int8]:
    """Bring looks to their canonical orientation, and name the other orientations a copy may have.

    Parameters
    ----------
    looks : float32 array, shape (n, DIM)
        Unit rows.
    margin : float
        Factor on the margins within which a decision counts as open; 0 leaves none open.

    Returns
    -------
    int8 array, shape (n, 8)
        For each way to turn a look, in the order of `VARIANTS`: 2 if that makes it canonical (exactly one does), 1 if
        a near copy may find so, else 0.

    Notes
    -----
    Turning a look turns the answer with it: `looks` turned by g are canonical after h if and only if `looks` are
    after g followed by h, unless a number is exactly zero.
    """
    to_columns, to_rows, to_energy = _weights()
    signed = looks * np.abs(looks)
    columns, rows = signed @ to_columns, signed @ to_rows
    energy = np.square(looks) @ to_energy
    found = np.zeros((len(looks), len(_NAMES)), dtype=np.int8)
    for place, name in enumerate(_NAMES):
        is_transposed, rows_reversed, columns_reversed = VARIANTS[name]
        # transposing comes first and exchanges the two sums
        along_columns, along_rows = (rows, columns) if is_transposed else (columns, rows)
        canonical, possible = np.ones(len(looks), dtype=bool), np.ones(len(looks), dtype=bool)
        for number, is_turned, width in (
            (energy, is_transposed, ENERGY_MARGIN),
            (along_columns, columns_reversed, SIGN_MARGIN),
            (along_rows, rows_reversed, SIGN_MARGIN),
        ):
            right = (number < 0.0) == is_turned
            canonical &= right
            possible &= right | (np.abs(number) < margin * width)
        found[:, place] = possible
        found[canonical, place] = 2
    return found


@lru_cache(maxsize=1)
def relative_turns() -> npt.NDArray[np.int8]:
    """How one picture is turned to meet another, from how each is turned to meet the same look.

    Returns
    -------
    int8 array, shape (8, 8)
        Entry [a, b], all in the order of `VARIANTS`: turned by it, a picture that a makes canonical has the
        orientation of one that b makes canonical.
    """
    probe = np.arange(1, DIM + 1, dtype=np.float32)
    turned = np.stack([probe[source] * sign for source, sign in map(look_turn, _NAMES)])
    table = np.empty((len(_NAMES), len(_NAMES)), dtype=np.int8)
    for b, name in enumerate(_NAMES):
        source, sign = look_turn(name)
        # turned by g and then by b, a picture is what a makes of it
        for a in range(len(_NAMES)):
            table[a, b] = int(np.argmax((turned[:, source] * sign == turned[a]).all(axis=1)))
    return table
