"""The join of one inverted list, strip by strip: what the joins of whole pictures and of views have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.numerics.arraytypes import Ids, Mask, Rows32
from dedup.numerics.search.exhaustive import ClosePairs, close_pairs
from dedup.numerics.search.gpu import TILING, Device, Grid, HalfProducts, Strip, Tiling
from dedup.numerics.search.project import PROJECTION_BAND
from dedup.numerics.similarity import FLOAT32_BAND, Rows, unit_rows

_CHUNK = 4_096  # pairs whose whole vectors are multiplied at a time


@dataclass(frozen=True)
class JoinSettings:
    """How a list is joined."""

    best: int = 8  # best edges kept for each row, or image, beside the maximum-similarity spanning forest
    # (int, int); which share of the comparisons is made, and of how many. The counts of all shares add up to those of the whole;
    # their edges, sparsified once more, are its edges.
    share: tuple[int, int] = (0, 1)
    # where the products are computed that propose pairs; None = the CPU. Edges and counts are the same: float64 on the CPU judges
    # what is proposed. What balls there are, and their rows' products with others, stay on the CPU.
    device: Device | None = None
    tiling: Tiling = TILING  # into what the products are cut up


DEFAULTS = JoinSettings()


class StripJoin:
    """The comparisons of one list: dealt out among its shares, and made by products, whose proposals a join judges.

    Parameters
    ----------
    vectors : Rows
        Unit rows up to float16 rounding.
    threshold : float
        Cosine from which a pair may be wanted.
    shortened : callable, optional
        Gives of some rows the shorter vectors whose products bound the similarities (`dedup.numerics.search.project`); None = whole
        vectors are multiplied.
    settings : JoinSettings
    """

    def __init__(self, vectors: Rows, threshold: float, shortened: Callable[[Ids], Rows32] | None, settings: JoinSettings) -> None:
        self._vectors, self._threshold, self._shortened = vectors, threshold, shortened
        self._device, self._tiling = settings.device, settings.tiling
        self._share, self._n_shares = settings.share
        self._n_dealt = 0
        # what products must reach: shorter vectors overestimate, and were rounded to float16
        self.limit = threshold - (FLOAT32_BAND if shortened is None else PROJECTION_BAND)

    def is_ours(self) -> bool:
        """Whether the next product is of the share that is joined here: they are dealt out in turn."""
        self._n_dealt += 1
        return (self._n_dealt - 1) % self._n_shares == self._share

    def columns(self, rows: Ids) -> Rows32:
        """What products are taken of: shorter vectors where there are any, else unit vectors."""
        return unit_rows(self._vectors[rows]) if self._shortened is None else self._shortened(rows)

    def pairs(self, rows: Ids, others: Ids) -> Iterator[tuple[Ids, Ids, bool]]:
        """Propose pairs of some rows with others; of the same rows twice each pair once.

        Parameters
        ----------
        rows, others : int64 array, shape (n,) and (m,)

        Yields
        ------
        a, b : int64 array, shape (n_pairs,)
            A row and another: all pairs within the threshold that are of this share, and some that are not.
        is_close : bool
            Whether few of them are proposed in vain, so that float64 may decide at once; else `close` leaves most of those out.
        """
        grid = Grid(len(rows), len(others), rows is others, self._tiling)
        strips = self._ours(grid)
        if self._device is not None and strips and len(others) >= self._device.least_columns:
            columns = None if grid.is_same else others
            products = HalfProducts(self._device, self._vectors, rows, columns, self._threshold, tiling=self._tiling)
            for i, j in products.pairs(strips):
                yield rows[i], others[j], True
            strips = strips[products.n_done :]
        for (left, top), close in self._close_strips(rows, others, strips):
            i, j = close.pairs
            i, j = i + top, j + left
            if grid.is_same:
                i, j = i[i < j], j[i < j]
            yield rows[i], others[j], self._shortened is None

    def strips(self, rows: Ids, others: Ids) -> Iterator[tuple[Ids, Ids, ClosePairs]]:
        """Strips of this share of some rows with others than those: rows, columns and what is close of them; on the CPU."""
        width, height = self._tiling.columns, self._tiling.strip
        for (left, top), close in self._close_strips(rows, others, self._ours(Grid(len(rows), len(others), False, self._tiling))):
            yield rows[top : top + height], others[left : left + width], close

    def _ours(self, grid: Grid) -> list[Strip]:
        return [strip for strip in grid.strips() if self.is_ours()]

    def _close_strips(self, rows: Ids, others: Ids, strips: Sequence[Strip]) -> Iterator[tuple[Strip, ClosePairs]]:
        """The first column and row of each product, and what is close in it; of the same rows twice only those not below the diagonal."""
        width, height = self._tiling.columns, self._tiling.strip
        held, columns = -1, self.columns(others[:0])
        for left, top in strips:
            if left != held:
                held, columns = left, self.columns(others[left : left + width])
            if rows is not others:
                yield (left, top), close_pairs(self.columns(rows[top : top + height]), columns, self.limit)
                continue
            first = max(top - left, 0)
            strip = columns[first : first + height] if top >= left else self.columns(rows[top : top + height])
            yield (left + first, top), close_pairs(strip, columns[first:], self.limit)

    def close(self, a: Ids, b: Ids) -> Mask:
        """Which pairs of rows whole vectors propose too, in float32."""
        is_close = np.empty(len(a), dtype=bool)
        for start in range(0, len(a), _CHUNK):
            part = slice(start, start + _CHUNK)
            product = np.einsum("ij,ij->i", unit_rows(self._vectors[a[part]]), unit_rows(self._vectors[b[part]]))
            is_close[part] = product >= self._threshold - FLOAT32_BAND
        return is_close


class EdgeBuffer:
    """Edges while they are found, as columns; thinned out whenever many have come.

    Parameters
    ----------
    thin : callable
        Gives of columns of edges those worth keeping; of parts and then of their union the same as of all at once.
    empty : tuple of arrays
        Columns of no edge.
    n_held : int
        Edges held before they are thinned out.
    """

    def __init__(self, thin: Callable[..., tuple[npt.NDArray[Any], ...]], empty: tuple[npt.NDArray[Any], ...], n_held: int) -> None:
        self._thin, self._n_held = thin, n_held
        self._parts, self._n_new = [empty], 0

    def add(self, *columns: npt.NDArray[Any]) -> None:
        """Further edges."""
        self._parts.append(columns)
        self._n_new += len(columns[0])
        if self._n_new > self._n_held:
            # what is left may be more than is to be held; the next pass waits until as much has come again
            self._parts, self._n_new = [self.thinned()], 0

    def thinned(self) -> tuple[npt.NDArray[Any], ...]:
        """The edges worth keeping."""
        return self._thin(*(np.concatenate(column) for column in zip(*self._parts, strict=True)))
