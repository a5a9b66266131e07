"""Looking vectors up in the index of a run: candidates by their codes, refined with the stored vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.lookup.opening import OpenedRun
from dedup.numerics.distances import exact_similarity, unit_rows
from dedup.numerics.widening import search_all
from dedup.storage.embeddings import open_store

if TYPE_CHECKING:
    from dedup.numerics.ivf import IvfIndex

_SPARE = (4, 64)  # candidates by their codes for each neighbour that is wanted, and beside them


class VectorSearch:
    """Searches the index of a run for vectors; for several threads at a time.

    Parameters
    ----------
    opened : OpenedRun
    index : IvfIndex
    """

    def __init__(self, opened: OpenedRun, index: IvfIndex) -> None:
        self.opened, self.index = opened, index

    @property
    def run_dir(self) -> str:
        """The run."""
        return self.opened.config.output.run_dir

    @property
    def n_images(self) -> int:
        """Distinct training images."""
        return self.index.n_vectors

    def search(self, vectors: npt.NDArray[np.floating], *, k: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The nearest distinct training images of some vectors.

        Parameters
        ----------
        vectors : float array, shape (n, dim)
        k : int

        Returns
        -------
        sample_ids : int64 array, shape (n, k)
            -1 where there are fewer.
        similarity : float32 array, shape (n, k)
            Exact cosines with the stored vectors, largest first; -2 where there are fewer.

        Raises
        ------
        ShapeError
            If vectors are of another length than the run's.
        """
        rows = self._rows(vectors)
        n_candidates = min(self.n_images, _SPARE[0] * k + _SPARE[1])
        ids, similarity = self._refined(rows, n_candidates)
        order = np.lexsort((ids, -similarity), axis=1)[:, :k]
        ids, similarity = np.take_along_axis(ids, order, 1), np.take_along_axis(similarity, order, 1)
        missing = max(0, k - ids.shape[1])
        return np.pad(ids, ((0, 0), (0, missing)), constant_values=-1), np.pad(similarity, ((0, 0), (0, missing)), constant_values=-2.0)

    def neighbors(
        self, vectors: npt.NDArray[np.floating], min_similarity: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """All training images within a similarity of some vectors, as far as the index finds them.

        Parameters
        ----------
        vectors : float array, shape (n, dim)
        min_similarity : float

        Returns
        -------
        query : int64 array, shape (n_found,)
            Row of the vector, ascending.
        sample_ids : int64 array, shape (n_found,)
        similarity : float32 array, shape (n_found,)
            Largest first for each query.

        Notes
        -----
        No number of neighbours cuts a query off: it is asked for twice as many until the last quarter of its candidates holds none.
        """
        rows = self._rows(vectors)
        least = np.full(len(rows), min_similarity, dtype=np.float32)
        query, ids, similarity = search_all(lambda asked, k: self._refined(rows[asked], k), least, self.n_images)
        order = np.lexsort((ids, -similarity, query))
        return query[order], ids[order], similarity[order]

    def _rows(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        if vectors.ndim != 2 or vectors.shape[1] != self.index.dim:
            raise ShapeError(f"expected vectors of shape (n, {self.index.dim}), found {vectors.shape}")
        # rounded as the stored ones, so that similarities are those of tables
        return unit_rows(unit_rows(vectors).astype(np.float16))

    def _refined(self, rows: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Candidates in the order of their codes, with exact similarities; -1 and -2 where there are fewer."""
        lists = None
        if self.opened.index.get("codes") in ("pq", "fp16"):
            lists, _ = self.opened.lists.place(rows, int(self.opened.index["nprobe"]))
        ids, _ = self.index.search(rows, k, lists)
        similarity = np.full(ids.shape, -2.0, dtype=np.float32)
        query, place = np.nonzero(ids >= 0)
        if len(query):
            wanted, inverse = np.unique(ids[query, place], return_inverse=True)
            vectors = open_store(self.run_dir).take(wanted)
            similarity[query, place] = exact_similarity(rows[query].astype(np.float16), vectors[inverse])
        return ids, similarity
