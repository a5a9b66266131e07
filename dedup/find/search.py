"""Looking vectors up in the index of a run: candidates by their codes, refined with the stored vectors."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dedup.errors import RunDirectoryError, ShapeError
from dedup.numerics.arraytypes import Ids, ListIds, Rows32, Sims
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.image.views import CROP, DISC, INNER, WHOLE, ViewRows, relative_turns
from dedup.numerics.search.exhaustive import close_pairs
from dedup.numerics.search.faiss_index import search_all
from dedup.numerics.search.lists import Lists
from dedup.numerics.search.view_join import DISC_SIMILARITY, ROTATED
from dedup.numerics.similarity import exact_similarity, unit_rows
from dedup.runs.directory import Run
from dedup.runs.vectors import view_part, view_parts
from dedup.storage.arrays import array_shape, read_array
from dedup.storage.tables import read_table

if TYPE_CHECKING:
    from dedup.numerics.search.faiss_index import IvfIndex

_SPARE = (4, 64)  # candidates by code: so many for each neighbour wanted, and so many more
_NPROBE = 4  # lists that each view of an image is searched in; training views are in three each
_HALF_BAND = 1e-2  # by how much a product of rows rounded to float16 may lie below their cosine, and some more
_KINDS = {WHOLE: "", INNER: "inner", CROP: "crop", DISC: "rotated"}

_Hits = tuple[Ids, Sims, npt.NDArray[np.int8], npt.NDArray[np.int8]]  # image, similarity, kind, turn


class VectorSearch:
    """Searches the index of a run for vectors; safe to share between threads."""

    def __init__(self, run: Run, index: IvfIndex) -> None:
        self.run, self.index = run, index
        self._facts, self._lists = run.index_facts, run.lists()

    def search(self, vectors: npt.NDArray[np.floating], *, k: int = 10) -> tuple[Ids, Sims]:
        """The nearest distinct training images of some vectors.

        `vectors`: shape (n, dim).
        Returns `sample_ids`: shape (n, k); -1 where there are fewer.
        Returns `similarity`: shape (n, k); exact cosines with the stored vectors, largest first; -2 where there are fewer.
        Raises ShapeError if the vectors are not as long as the run's.
        """
        rows = self._rows(vectors)
        n_candidates = min(self.index.n_vectors, _SPARE[0] * k + _SPARE[1])
        ids, similarity = self._refined(rows, n_candidates)
        order = np.lexsort((ids, -similarity), axis=1)[:, :k]
        ids, similarity = np.take_along_axis(ids, order, 1), np.take_along_axis(similarity, order, 1)
        missing = max(0, k - ids.shape[1])
        return np.pad(ids, ((0, 0), (0, missing)), constant_values=-1), np.pad(similarity, ((0, 0), (0, missing)), constant_values=-2.0)

    def neighbors(self, vectors: npt.NDArray[np.floating], min_similarity: float) -> tuple[Ids, Ids, Sims]:
        """All training images within a similarity of some vectors, as far as the index finds them.

        `vectors`: shape (n, dim).
        Returns row of the vector, sample_id and similarity of each, by row and falling similarity.

        The number of neighbours is not limited: a search is repeated for twice as many until the last quarter of the candidates holds none.
        """
        rows = self._rows(vectors)
        thresholds = np.full(len(rows), min_similarity, dtype=np.float32)
        query, ids, similarity = search_all(lambda queries, k: self._refined(rows[queries], k), thresholds, self.index.n_vectors)
        order = np.lexsort((ids, -similarity, query))
        return query[order], ids[order], similarity[order]

    def _rows(self, vectors: npt.NDArray[np.floating]) -> Rows32:
        if vectors.ndim != 2 or vectors.shape[1] != self.index.dim:
            raise ShapeError(f"expected vectors of shape (n, {self.index.dim}), found {vectors.shape}")
        # rounded as the stored vectors are, so that similarities equal those in the tables
        return unit_rows(unit_rows(vectors).astype(np.float16))

    def _refined(self, rows: Rows32, k: int) -> tuple[Ids, Sims]:
        """Candidates ordered by their codes, with exact similarities; -1 and -2 where there are fewer."""
        lists = None
        if self._facts.get("codes") in ("pq", "fp16"):
            lists, _ = self._lists.place(rows, int(self._facts["nprobe"]))
        ids, _ = self.index.search(rows, k, lists)
        similarity = np.full(ids.shape, -2.0, dtype=np.float32)
        query, place = np.nonzero(ids >= 0)
        if len(query):
            distinct_ids, inverse = np.unique(ids[query, place], return_inverse=True)
            vectors = self.run.vectors().take(distinct_ids)
            similarity[query, place] = exact_similarity(rows[query].astype(np.float16), vectors[inverse])
        return ids, similarity


class ViewSearch:
    """Searches the views of a run, by inverted list.

    The first search sorts the views by list into a temporary file, 12 bytes a view: some 0.2 KB an image. Vectors are not copied.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._parts = run, view_parts(run.views_folder)
        self.has_views = bool(self._parts)

    def search(self, views: ViewRows, min_similarity: float) -> dict[int, tuple[float, str]]:
        """Training images with a view like one of those of an image: sample_id to (similarity, view) of its most similar pair of views.

        `min_similarity`: exact cosine from which two views are alike.
        """
        lists, store = self._lists, self._run.views()
        probed, _ = lists.place(views.vectors, min(_NPROBE, lists.nlist))
        projected = (views.vectors @ lists.axes).astype(np.float16)  # along the principal axes, as the stored ones
        hits: list[_Hits] = []
        starts, order = self._members
        for number in np.unique(probed).tolist():
            members = np.sort(order[starts[number] : starts[number + 1]]).astype(np.int64)
            if not len(members):
                continue
            queries = np.flatnonzero((probed == number).any(axis=1))
            stored, vectors = store.take("view", members), store.take("vector", members)
            query, hit = close_pairs(projected[queries].astype(np.float32), vectors.astype(np.float32), min_similarity - _HALF_BAND).pairs
            query = queries[query]
            is_pair = views.is_base[query] | stored["is_base"][hit]
            is_pair &= (views.kind[query] == DISC) == (stored["kind"][hit] == DISC)
            query, hit = query[is_pair], hit[is_pair]
            similarity = exact_similarity(projected[query], vectors[hit])
            thresholds = np.where(views.kind[query] == DISC, max(min_similarity, DISC_SIMILARITY), min_similarity).astype(np.float32)
            is_near = similarity >= thresholds
            query, hit, similarity = query[is_near], hit[is_near], similarity[is_near]
            kind = np.maximum(views.kind[query], stored["kind"][hit])
            turn = np.where(kind == DISC, ROTATED, relative_turns()[views.orientation[query], stored["orientation"][hit]])
            hits.append((stored["image"][hit].astype(np.int64), similarity, kind, turn.astype(np.int8)))
        return self._best(hits)

    def _best(self, hits: list[_Hits]) -> dict[int, tuple[float, str]]:
        """The most similar view of each image."""
        if not hits:
            return {}
        image, similarity, kind, turn = (np.concatenate(columns) for columns in zip(*hits, strict=True))
        order = np.lexsort((turn, kind, -similarity, image))
        _, first = np.unique(image[order], return_index=True)
        best = order[first]
        turn_words = ["", *list(VARIANTS)[1:], ""]  # the last: by an unknown angle
        words = [(_KINDS[k], turn_words[t]) for k, t in zip(kind[best].tolist(), turn[best].tolist(), strict=True)]
        names = [" ".join(filter(None, pair)) or "none" for pair in words]
        pairs = zip(similarity[best].tolist(), names, strict=True)
        return dict(zip(self._sample_ids[image[best]].tolist(), pairs, strict=True))

    @cached_property
    def _lists(self) -> Lists:
        return replace(self._run.view_lists(), n_filter=0)

    @cached_property
    def _sample_ids(self) -> Ids:
        ids: Ids = read_table(self._run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        return ids

    @cached_property
    def _members(self) -> tuple[Ids, npt.NDArray[np.uint32]]:
        """Where each list begins, and the numbers of the views in it, list after list."""
        nlist = self._lists.nlist
        sizes = np.zeros(nlist, dtype=np.int64)
        n_views = sum(array_shape(view_part(self._run.views_folder, "view", part))[0][0] for part in self._parts)
        if n_views >= 2**32:
            raise RunDirectoryError(f"{self._run.url} has {n_views:,} views, expected fewer than 2^32; query with --no-pixels")
        for part in self._parts:
            sizes += np.bincount(self._lists_of(part).ravel(), minlength=nlist)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        with tempfile.TemporaryFile(prefix="dedup-views-") as file:  # deleted with the map
            order = np.memmap(file, dtype=np.uint32, mode="w+", shape=(max(int(starts[-1]), 1),))
        ends, n_before = starts[:-1].copy(), 0
        for part in self._parts:
            lists = self._lists_of(part)
            flat = lists.ravel()
            by_list = np.argsort(flat, kind="stable")
            counts = np.bincount(flat, minlength=nlist)
            inside = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
            order[np.repeat(ends, counts) + inside] = n_before + by_list // lists.shape[1]
            ends, n_before = ends + counts, n_before + len(lists)
        return starts, np.asarray(order)

    def _lists_of(self, part: int) -> ListIds:
        lists: ListIds = np.ascontiguousarray(read_array(view_part(self._run.views_folder, "view", part))["lists"])
        return lists
