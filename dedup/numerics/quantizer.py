"""The coarse quantizer: which lists a vector goes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.numerics.distances import FLOAT32_BAND
from dedup.numerics.torch_ops import Device, best_lists, release, unless_full

_SPARE = 4  # lists beyond those asked for that are looked at, since the order of near ties is settled afterwards
_MAX_SCORES = 2**26  # scores a device computes at a time, 4 bytes each
_LEAST_ROWS = 64  # rows scored at a time below which a device is as good as full
_CHUNK = 65_536  # pairs of a vector and a list whose exact score is computed at a time
_BALANCE_STEPS = (1.0, 1.0, 0.7, 0.5, 0.35, 0.25)
_PLACES_PER_DOUBLING = 2.0  # how many places down the order of lists a list of twice the mean size is moved


@dataclass(frozen=True)
class Quantizer:
    """Centroids, and what each list's score is lowered by so that lists are of one size.

    Parameters
    ----------
    centroids : float32 array, shape (nlist, dim)
        Unit rows.
    offsets : float32 array, shape (nlist,)
    """

    centroids: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]

    def assign(self, rows: npt.NDArray[np.float32], nprobe: int, device: Device | None = None) -> npt.NDArray[np.int32]:
        """The lists of each vector, best first, by <row, centroid> - offset.

        Parameters
        ----------
        rows : float32 array, shape (n, dim)
            Of norm 1 at most.
        nprobe : int
        device : Device, optional
            Where scores are computed; None = the CPU. The lists are the same: where scores in float32 are too near each other to
            tell their order, float64 decides, and between equal ones the smaller number.

        Returns
        -------
        int32 array, shape (n, min(nprobe, nlist))
        """
        nprobe = min(nprobe, len(self.centroids))
        scores, lists = self.search(rows, min(nprobe + _SPARE, len(self.centroids)), device)
        return self._settled(rows, scores, lists, nprobe)[:, :nprobe].astype(np.int32)

    def search(
        self, rows: npt.NDArray[np.float32], n_best: int, device: Device | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and lists, best first by the score in float32, shapes (n, n_best)."""
        n_rows = max(_LEAST_ROWS, _MAX_SCORES // len(self.centroids))
        while device is not None and n_rows >= _LEAST_ROWS:
            found = unless_full(lambda n=n_rows: best_lists(device.name, rows, self.centroids, self.offsets, n_best, n))  # type: ignore[misc]
            if found is not None:
                return found
            release(device.name)
            n_rows //= 2
        from dedup.numerics.ann import search_flat

        return search_flat(rows, self.centroids, self.offsets, n_best)

    def balanced(self, rows: npt.NDArray[np.float32], nprobe: int, device: Device | None = None) -> Quantizer:
        """The same centroids with offsets under which lists of `nprobe` each are of about one size, learnt on some rows."""
        quantizer, nlist = self, len(self.centroids)
        if nprobe >= nlist:
            return self
        for step in _BALANCE_STEPS:
            scores, lists = quantizer.search(rows, min(nprobe + _SPARE, nlist), device)
            sizes = np.bincount(quantizer._settled(rows, scores, lists, nprobe)[:, :nprobe].ravel(), minlength=nlist)
            # the distance between neighbouring places in the order of lists is the natural unit of an offset; in a few bits, since the
            # last ones of a score depend on how many threads share a product
            unit = float(np.float16(np.mean(scores[:, 0] - scores[:, nprobe - 1], dtype=np.float64))) / max(1, nprobe - 1)
            change = step * unit * _PLACES_PER_DOUBLING * np.log2((sizes + 1.0) / (sizes.mean() + 1.0))
            quantizer = Quantizer(self.centroids, (quantizer.offsets + change).astype(np.float32))
        return quantizer

    def _settled(
        self, rows: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], lists: npt.NDArray[np.int64], nprobe: int
    ) -> npt.NDArray[np.int64]:
        """Put the first `nprobe` of the best lists into the order of their exact scores.

        A float32 score is within FLOAT32_BAND of the exact one, times the sizes of its summands, so that two scores further
        apart than twice that are in order. Lists in a row that are nearer form a run, which is sorted anew; where a run reaches
        from the lists wanted to the last one known, it may go on, and all lists of that row are scored.
        """
        margin = 2.0 * FLOAT32_BAND * (1.0 + float(np.abs(self.offsets).max(initial=0.0)))
        is_tied = scores[:, :-1] - scores[:, 1:] <= margin
        settled, unsure = lists.copy(), np.flatnonzero(is_tied.any(axis=1))
        tied = is_tied[unsure]
        run = np.concatenate([np.zeros((len(unsure), 1), np.int64), np.cumsum(~tied, axis=1)], axis=1)
        in_run = np.zeros(run.shape, dtype=bool)
        in_run[:, :-1] |= tied
        in_run[:, 1:] |= tied
        row, place = np.nonzero(in_run)
        number = lists[unsure[row], place]
        order = np.lexsort((number, -self._exact(rows, unsure[row], number), run[row, place], row))
        settled[unsure[row], place] = number[order]
        if lists.shape[1] < len(self.centroids):
            every = np.arange(len(self.centroids))
            for open_row in unsure[run[:, nprobe - 1] == run[:, -1]].tolist():
                exact = self._exact(rows, np.full(len(every), open_row), every)
                settled[open_row] = np.argsort(-exact, kind="stable")[: lists.shape[1]]
        return settled

    def _exact(self, rows: npt.NDArray[np.float32], places: npt.NDArray[np.int64], lists: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Scores of some rows for a list each, float64 (n,)."""
        exact = np.empty(len(places), dtype=np.float64)
        for start in range(0, len(places), _CHUNK):
            part = slice(start, start + _CHUNK)
            left, right = rows[places[part]].astype(np.float64), self.centroids[lists[part]].astype(np.float64)
            exact[part] = np.einsum("ij,ij->i", left, right) - self.offsets[lists[part]]
        return exact
