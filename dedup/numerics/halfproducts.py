"""Pairs proposed by float16 products on a GPU, and how they make do with its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dedup.numerics.collapse import Rows
from dedup.numerics.distances import half_limit
from dedup.numerics.strips import COLUMNS, Grid, Piece, Strip
from dedup.numerics.torch_ops import Device, LoadedRows, Tensor, blocks_above, multiply, places_above, release, unless_full

_LEAST_PRODUCTS = 2**20  # products at a time below which a device is as good as full
_BLOCKS = 2**14  # blocks of products whose pairs are looked for at a time


class HalfProducts:
    """Pairs whose product in float16 may reach a threshold; see `half_limit`.

    Products are those of whole vectors, not of the projections that propose pairs on a CPU. On a GPU to write a product and read
    it once takes as long as some 400 multiply-adds, so that shorter vectors save little, and what they propose in vain has
    to be judged on the CPU.

    Parameters
    ----------
    device : Device
    vectors : float16 array, shape (n_all, dim), or Rows
    rows : int64 array, shape (n,)
    others : int64 array, shape (m,), or None
        The columns; None = the rows themselves, each pair once.
    threshold : float
        Cosine, in (0, 1].
    """

    def __init__(
        self, device: Device, vectors: Rows, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64] | None, threshold: float
    ) -> None:
        self.device, self.vectors, self.rows, self.threshold = device, vectors, rows, threshold
        self.others = rows if others is None else others
        self.grid = Grid(len(rows), len(self.others), others is None)
        self.n_done = 0  # strips
        self._max_products = device.max_products
        self._loaded: dict[int, LoadedRows] = {}  # columns by the first; those of all rows by -1
        n_kept = len(self.others) + (0 if others is None else len(rows))
        self._keeps_rows = n_kept > 0 and 2 * n_kept * vectors[rows[:1]].shape[1] <= device.max_row_bytes

    def pairs(self, strips: Sequence[Strip]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Propose the pairs of strips, many strips at a time.

        Parameters
        ----------
        strips : sequence of Strip
            Of `grid.strips()`, in their order.

        Yields
        ------
        i, j : int64 array, shape (n_pairs,)
            Places in `rows` and `others`: all pairs with a cosine of at least the threshold, and others below it, each once.

        Notes
        -----
        Where memory does not suffice, fewer strips are taken at a time; where it does not for one, this ends after `n_done`.
        """
        while self.n_done < len(strips):
            pieces = self.grid.cut(strips[self.n_done :], self._max_products)
            found = unless_full(lambda pieces=pieces: self.compute(pieces))  # type: ignore[misc]
            if found is None:
                if not self._retreat():
                    self.device.n_left += len(strips) - self.n_done
                    return
                continue
            products, limit, blocks = found
            for part in blocks.split(_BLOCKS):
                for places in self._places(products, part, limit):
                    yield self.grid.decode(pieces, places)
            self.n_done += sum(piece.n_strips for piece in pieces)

    def compute(self, pieces: Sequence[Piece]) -> tuple[Tensor, float, Tensor]:
        """Products of pieces, what they must reach, and the blocks in which some do."""
        operands, limits = [], []
        for piece in pieces:
            if self._keeps_rows:
                columns = self._load(0, self.others)
                every = columns if self.grid.is_same else self._load(-1, self.rows)
                rows, start = every.take(piece.rows), piece.first
            else:
                columns = self._load(piece.left, self.others[piece.left : piece.left + COLUMNS])
                every = LoadedRows.of(self.device.name, self.vectors, self.rows[piece.rows])
                rows, start = every.tensor[: len(piece.rows)], piece.first - piece.left
            operands.append((rows, columns.tensor[start : start + piece.width]))
            norms = min(every.least_norm, columns.least_norm), max(every.largest_norm, columns.largest_norm)
            limits.append(half_limit(self.threshold, *norms, rows.shape[1]))
        products, limit = multiply(self.device.name, operands), min(limits)
        return products, limit, blocks_above(products, limit)

    def _load(self, first: int, rows: npt.NDArray[np.int64]) -> LoadedRows:
        if first not in self._loaded:
            if not self._keeps_rows:
                self._loaded.clear()
            self._loaded[first] = LoadedRows.of(self.device.name, self.vectors, rows)
        return self._loaded[first]

    def _places(self, products: Tensor, blocks: Tensor, limit: float) -> Iterator[npt.NDArray[np.int64]]:
        """Products that reach the limit, in smaller parts where memory has become short since they were made."""
        found = unless_full(lambda: places_above(products, blocks, limit)) if len(blocks) > 1 else places_above(products, blocks, limit)
        if found is not None:
            yield found
            return
        release(self.device.name)
        middle = len(blocks) // 2
        for half in (blocks[:middle], blocks[middle:]):
            yield from self._places(products, half, limit)

    def _retreat(self) -> bool:
        """Take less of the device's memory; whether it can be less."""
        self._loaded.clear()
        release(self.device.name)
        if self._max_products > _LEAST_PRODUCTS:
            self._max_products //= 2
            return True
        could_be_less, self._keeps_rows = self._keeps_rows, False
        return could_be_less
