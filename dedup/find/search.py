"""Looking vectors up in the index of a run: candidates by their codes, refined with the stored vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dedup.errors import ShapeError
from dedup.numerics.search.faiss_index import search_all
from dedup.numerics.similarity import exact_similarity, unit_rows
from dedup.runs.directory import Run

if TYPE_CHECKING:
    from dedup.numerics.search.faiss_index import IvfIndex
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

from dedup.errors import RunDirectoryError
from dedup.numerics.image.descriptor import VARIANTS
from dedup.numerics.image.views import CROP, DISC, INNER, WHOLE, ViewRows, relative_turns
from dedup.numerics.search.exhaustive import close_pairs
from dedup.numerics.search.lists import Lists
from dedup.numerics.search.viewjoin import DISC_SIMILARITY, ROTATED
from dedup.runs.vectors import view_part, view_parts
from dedup.storage.arrays import array_shape, read_array
from dedup.storage.tables import read_table

_SPARE = (4, 64)  # candidates by their codes for each neighbour that is wanted, and beside them


class VectorSearch:
    """Searches the index of a run for vectors; for several threads at a time.

    Parameters
    ----------
    run : Run
    index : IvfIndex
    """

    def __init__(self, run: Run, index: IvfIndex) -> None:
        self.run, self.index = run, index
        self._facts, self._lists = run.index_facts, run.lists()

    @property
    def n_images(self) -> int:
        """Distinct training images."""
        return self.index.n_vectors

    def search(self, vectors: npt.NDArray[np.floating], *, k: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The nearest distinct training images of some vectors.

        `vectors`: shape (n, dim).
        Returns `sample_ids`: shape (n, k); -1 where there are fewer.
        Returns `similarity`: shape (n, k); exact cosines with the stored vectors, largest first; -2 where there are fewer.
        Raises ShapeError if vectors are of another length than the run's.
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

        `vectors`: shape (n, dim).
        Returns `query`: shape (n_found,); row of the vector, ascending.
        Returns `sample_ids`: shape (n_found,).
        Returns `similarity`: shape (n_found,); largest first for each query.

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
        if self._facts.get("codes") in ("pq", "fp16"):
            lists, _ = self._lists.place(rows, int(self._facts["nprobe"]))
        ids, _ = self.index.search(rows, k, lists)
        similarity = np.full(ids.shape, -2.0, dtype=np.float32)
        query, place = np.nonzero(ids >= 0)
        if len(query):
            wanted, inverse = np.unique(ids[query, place], return_inverse=True)
            vectors = self.run.vectors().take(wanted)
            similarity[query, place] = exact_similarity(rows[query].astype(np.float16), vectors[inverse])
        return ids, similarity


_NPROBE = 4  # lists that each view of an image is searched in; training views are in three each
_HALF_BAND = 1e-2  # by how much a product of rows rounded to float16 may lie below their cosine, and some more
_KINDS = {WHOLE: "", INNER: "inner", CROP: "crop", DISC: "rotated"}


@dataclass(frozen=True)
class ViewHits:
    """Training images of which a view is like a view of the image; a row for each, the most similar."""

    sample_ids: npt.NDArray[np.int64]  # shape (n,)
    similarity: npt.NDArray[np.float32]  # shape (n,); exact cosine of the views
    views: list[str]  # see `dedup.find.answers.Match`


class ViewSearch:
    """The views of a run by inverted list.

    Parameters
    ----------
    run : Run

    Notes
    -----
    Which views are in which list is sorted out when the first image is asked about, into a temporary file of 12 bytes a view: some
    0.2 KB an image. The views' vectors stay where they are.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._parts = run, view_parts(run.views_folder)
        self.is_there = bool(self._parts)

    def search(self, asked: ViewRows, min_similarity: float) -> ViewHits:
        """Find training images of which a view is like one of the image's.

        `asked`: of one image.
        `min_similarity`: cosine from which two views are alike.
        """
        lists, store = self._lists, self._run.views()
        chosen, _ = lists.place(asked.vectors, min(_NPROBE, lists.nlist))
        along = (asked.vectors @ lists.axes).astype(np.float16)
        found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int8], npt.NDArray[np.int8]]] = []
        starts, order = self._members
        for number in np.unique(chosen).tolist():
            rows = np.sort(order[starts[number] : starts[number + 1]]).astype(np.int64)
            if not len(rows):
                continue
            views = np.flatnonzero((chosen == number).any(axis=1))
            known, vectors = store.take("view", rows), store.take("vector", rows)
            one, other = close_pairs(along[views].astype(np.float32), vectors.astype(np.float32), min_similarity - _HALF_BAND).pairs
            one = views[one]
            is_pair = asked.is_base[one] | known["is_base"][other]
            is_pair &= (asked.kind[one] == DISC) == (known["kind"][other] == DISC)
            one, other = one[is_pair], other[is_pair]
            similarity = exact_similarity(along[one], vectors[other])
            least = np.where(asked.kind[one] == DISC, max(min_similarity, DISC_SIMILARITY), min_similarity).astype(np.float32)
            near = similarity >= least
            one, other, similarity = one[near], other[near], similarity[near]
            kind = np.maximum(asked.kind[one], known["kind"][other])
            turn = np.where(kind == DISC, ROTATED, relative_turns()[asked.orientation[one], known["orientation"][other]])
            found.append((known["image"][other].astype(np.int64), similarity, kind, turn.astype(np.int8)))
        return self._best(found)

    def _best(
        self, found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int8], npt.NDArray[np.int8]]]
    ) -> ViewHits:
        if not found:
            return ViewHits(np.zeros(0, np.int64), np.zeros(0, np.float32), [])
        image, similarity, kind, turn = (np.concatenate([part[column] for part in found]) for column in range(4))
        order = np.lexsort((turn, kind, -similarity, image))
        _, first = np.unique(image[order], return_index=True)
        chosen = order[first]
        names = ["", *list(VARIANTS)[1:], ""]  # the last: by an unknown angle
        ways = [(_KINDS[of], names[way]) for of, way in zip(kind[chosen].tolist(), turn[chosen].tolist(), strict=True)]
        names = [" ".join(word for word in way if word) or "none" for way in ways]
        return ViewHits(self._sample_ids[image[chosen]], similarity[chosen], names)

    @cached_property
    def _lists(self) -> Lists:
        return replace(self._run.view_lists(), n_filter=0)

    @cached_property
    def _sample_ids(self) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = read_table(self._run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        return ids

    @cached_property
    def _members(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Where each list begins, and the numbers of its views."""
        nlist = self._lists.nlist
        sizes = np.zeros(nlist, dtype=np.int64)
        shapes = [array_shape(view_part(self._run.views_folder, "view", part))[0][0] for part in self._parts]
        if sum(shapes) >= 2**32:
            raise RunDirectoryError(f"{self._run.url} has {sum(shapes):,} views, expected fewer than 2^32; query with --no-pixels")
        for part in self._parts:
            sizes += np.bincount(self._lists_of(part).ravel(), minlength=nlist)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        with tempfile.TemporaryFile(prefix="dedup-views-") as file:  # gone with the map
            order = np.memmap(file, dtype=np.uint32, mode="w+", shape=(max(int(starts[-1]), 1),))
        place, base = starts[:-1].copy(), 0
        for part in self._parts:
            lists = self._lists_of(part)
            flat = lists.ravel()
            by_list = np.argsort(flat, kind="stable")
            counts = np.bincount(flat, minlength=nlist)
            inside = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
            order[np.repeat(place, counts) + inside] = base + by_list // lists.shape[1]
            place, base = place + counts, base + len(lists)
        return starts, np.asarray(order)

    def _lists_of(self, part: int) -> npt.NDArray[np.int32]:
        lists: npt.NDArray[np.int32] = np.ascontiguousarray(read_array(view_part(self._run.views_folder, "view", part))["lists"])
        return lists
