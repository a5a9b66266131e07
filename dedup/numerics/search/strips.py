"""The join of one inverted list, strip by strip: what joining whole pictures and joining views have in common."""

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
    # the number of the share of the comparisons that is made, and the number of shares. The counts of all shares add up to those of
    # the whole; their edges, sparsified once more, are its edges.
    share: tuple[int, int] = (0, 1)
    # where the products that propose pairs are computed; None = the CPU. Edges and counts are the same: float64 on the CPU judges
    # the proposals. Balls, and the products of their rows with others, stay on the CPU.
    device: Device | None = None
    tiling: Tiling = TILING


DEFAULTS = JoinSettings()


class StripJoin:
    """The comparisons of one list, dealt out among its shares: products propose pairs, which a join judges.

    `vectors`: unit rows up to float16 rounding.
    `threshold`: least cosine at which a pair may be of interest.
    `shortened`: from rows to the shorter vectors whose products bound the similarities (`dedup.numerics.search.project`); None = whole
    vectors are multiplied.
    """

    def __init__(self, vectors: Rows, threshold: float, shortened: Callable[[Ids], Rows32] | None, settings: JoinSettings) -> None:
        self._vectors, self._threshold, self._shortened = vectors, threshold, shortened
        self._device, self._tiling = settings.device, settings.tiling
        self._share, self._n_shares = settings.share
        self._n_dealt = 0
        # what products must reach: shorter vectors overestimate, and were rounded to float16
        self.limit = threshold - (FLOAT32_BAND if shortened is None else PROJECTION_BAND)

    def takes_next(self) -> bool:
        """Whether the next product is of the share that is joined here: products are dealt out in turn."""
        self._n_dealt += 1
        return (self._n_dealt - 1) % self._n_shares == self._share

    def columns(self, rows: Ids) -> Rows32:
        """The vectors to multiply: shorter ones where there are any, else unit vectors."""
        return unit_rows(self._vectors[rows]) if self._shortened is None else self._shortened(rows)

    def pairs(self, rows: Ids, others: Ids) -> Iterator[tuple[Ids, Ids, bool]]:
        """Propose pairs of some rows with others; each pair once if both are the same rows.

        Yields `a`, `b`: all pairs of this share within the threshold, and some beyond it.
        Yields `is_close`: whether most of them are within it, so that float64 may decide at once; if not, `close` drops most of the
        others.
        """
        grid = Grid(len(rows), len(others), rows is others, self._tiling)
        strips = self._strips_of_share(grid)
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
        """Strips of this share, of some rows with different ones: rows, columns and the close pairs; on the CPU."""
        width, height = self._tiling.columns, self._tiling.strip
        strips = self._strips_of_share(Grid(len(rows), len(others), False, self._tiling))
        for (left, top), close in self._close_strips(rows, others, strips):
            yield rows[top : top + height], others[left : left + width], close

    def _strips_of_share(self, grid: Grid) -> list[Strip]:
        return [strip for strip in grid.strips() if self.takes_next()]

    def _close_strips(self, rows: Ids, others: Ids, strips: Sequence[Strip]) -> Iterator[tuple[Strip, ClosePairs]]:
        """First column and row of each product, and its close pairs; if both are the same rows, without what is below the diagonal."""
        width, height = self._tiling.columns, self._tiling.strip
        loaded, columns = -1, self.columns(others[:0])  # first column of the block in memory
        for left, top in strips:
            if left != loaded:
                loaded, columns = left, self.columns(others[left : left + width])
            if rows is not others:
                yield (left, top), close_pairs(self.columns(rows[top : top + height]), columns, self.limit)
                continue
            first = max(top - left, 0)
            strip = columns[first : first + height] if top >= left else self.columns(rows[top : top + height])
            yield (left + first, top), close_pairs(strip, columns[first:], self.limit)

    def close(self, a: Ids, b: Ids) -> Mask:
        """Which pairs of rows are also proposed by whole vectors, in float32."""
        is_close = np.empty(len(a), dtype=bool)
        for start in range(0, len(a), _CHUNK):
            part = slice(start, start + _CHUNK)
            product = np.einsum("ij,ij->i", unit_rows(self._vectors[a[part]]), unit_rows(self._vectors[b[part]]))
            is_close[part] = product >= self._threshold - FLOAT32_BAND
        return is_close


class EdgeBuffer:
    """Edges as they are found, in columns; thinned out whenever many have been added.

    `thin`: from columns of edges to those worth keeping; thinning parts and then their union is the same as thinning all at once.
    `empty`: columns without an edge.
    `n_held`: edges held before they are thinned out.
    """

    def __init__(self, thin: Callable[..., tuple[npt.NDArray[Any], ...]], empty: tuple[npt.NDArray[Any], ...], n_held: int) -> None:
        self._thin, self._n_held = thin, n_held
        self._parts, self._n_new = [empty], 0

    def add(self, *columns: npt.NDArray[Any]) -> None:
        """Further edges."""
        self._parts.append(columns)
        self._n_new += len(columns[0])
        if self._n_new > self._n_held:
            # more than `n_held` may remain; the next pass still waits for that many new ones
            self._parts, self._n_new = [self.thinned()], 0

    def thinned(self) -> tuple[npt.NDArray[Any], ...]:
        """The edges worth keeping."""
        return self._thin(*(np.concatenate(column) for column in zip(*self._parts, strict=True)))
