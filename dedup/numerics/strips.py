"""How the products of a list are cut: into strips that are dealt out to tasks, and into pieces that a device computes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STRIP = 256  # rows of one product: wide enough for the matrix unit, narrow enough to skip half the square
COLUMNS = 8_192  # columns of one product: bounds the float32 copies
BLOCK = 64  # products that a device looks at together first; rows and columns of strips are multiples of it
_DIAGONAL = 2_048  # rows of a piece on the diagonal, where the upper triangle is wanted and a square is computed

Strip = tuple[int, int]  # first column of a block of columns, first row


@dataclass(frozen=True)
class Grid:
    """The products of some rows with some columns.

    Parameters
    ----------
    n_rows, n_columns : int
    is_same : bool
        Whether rows and columns are the same, and each pair is wanted once.
    """

    n_rows: int
    n_columns: int
    is_same: bool

    def strips(self) -> list[Strip]:
        """All strips: of each block of columns those that lie, or begin, above the diagonal."""
        return [
            (left, top)
            for left in range(0, self.n_columns, COLUMNS)
            for top in range(0, min(left + COLUMNS, self.n_rows) if self.is_same else self.n_rows, STRIP)
        ]

    def cut(self, strips: Sequence[Strip], max_products: int) -> list[Piece]:
        """The first of the strips, as many as have `max_products` products and at least one, as pieces.

        Parameters
        ----------
        strips : sequence of Strip
            In the order of `strips`, some left out.
        max_products : int

        Returns
        -------
        list of Piece
        """
        pieces: list[Piece] = []
        offset = start = 0
        while start < len(strips):
            left, top = strips[start]
            is_diagonal = self.is_same and top >= left
            first = top if is_diagonal else left
            width = padded(min(left + COLUMNS, self.n_columns) - first)
            room = (max_products - offset) // (width * STRIP) or (0 if pieces else 1)
            stop = start
            while stop < min(start + room, len(strips)) and self._may_share(strips[start], strips[stop]):
                stop += 1
            if stop == start:
                break
            tops = np.array([strip[1] for strip in strips[start:stop]], dtype=np.int64)
            rows = (tops[:, None] + np.arange(STRIP)).ravel()
            pieces.append(Piece(left, first, width, rows[rows < self.n_rows], offset, stop - start))
            offset, start = pieces[-1].end, stop
        return pieces

    def _may_share(self, strip: Strip, later: Strip) -> bool:
        """Whether two strips may be in one piece: of one block of columns, and on the diagonal near each other."""
        (left, top), (other_left, other_top) = strip, later
        if left != other_left:
            return False
        return not self.is_same or other_top < left or (top >= left and other_top < top + _DIAGONAL)

    def decode(self, pieces: Sequence[Piece], places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and columns of products by their place among those of all pieces, the wanted ones.

        Parameters
        ----------
        pieces : sequence of Piece
        places : int64 array, shape (n,)

        Returns
        -------
        i, j : int64 array, shape (n_wanted,)
        """
        ends = np.array([piece.end for piece in pieces], dtype=np.int64)
        number = np.searchsorted(ends, places, side="right")
        i, j = np.empty_like(places), np.empty_like(places)
        for k in np.unique(number).tolist():
            piece, here = pieces[k], np.flatnonzero(number == k)
            row, column = np.divmod(places[here] - piece.offset, piece.width)
            i[here], j[here] = piece.rows[row], piece.first + column
        wanted = j < self.n_columns
        if self.is_same:
            wanted &= i < j
        return i[wanted], j[wanted]


@dataclass(frozen=True)
class Piece:
    """Some strips of one block of columns, whose products lie one after another.

    Parameters
    ----------
    left : int
        First column of the block.
    first, width : int
        Columns of the piece, some of them past the last one: the width is a multiple of `BLOCK`.
    rows : int64 array, shape (n,)
        Its rows, strip after strip.
    offset : int
        Products before its own.
    n_strips : int
    """

    left: int
    first: int
    width: int
    rows: npt.NDArray[np.int64]
    offset: int
    n_strips: int

    @property
    def end(self) -> int:
        """Products up to its last."""
        return self.offset + len(self.rows) * self.width


def padded(n: int, multiple: int = BLOCK) -> int:
    """The next multiple.

    Examples
    --------
    >>> padded(65), padded(150, 8)
    (128, 152)
    """
    return -(-n // multiple) * multiple
