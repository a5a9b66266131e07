"""Second looks at an image against those of the training images: crops, frames, mirrored and turned copies."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dedup.errors import RunDirectoryError
from dedup.numerics.descriptor import VARIANTS
from dedup.numerics.distances import exact_similarity
from dedup.numerics.lists import Lists
from dedup.numerics.lookjoin import DISC_SIMILARITY, ROTATED
from dedup.numerics.looks import CROP, DISC, INNER, WHOLE, LookRows
from dedup.numerics.orientation import relative_turns
from dedup.storage.arrays import array_shape, read_array
from dedup.storage.layout import RunLayout
from dedup.storage.lists import load_lists
from dedup.storage.looks import look_part, look_parts, looks_folder, open_looks
from dedup.storage.tables import read_table

_NPROBE = 4  # lists that each look of an image is searched in; training looks are in three each
_KINDS = {WHOLE: "", INNER: "inner", CROP: "crop", DISC: "rotated"}


@dataclass(frozen=True)
class LookHits:
    """Training images of which a look is like a look at the image; a row for each, the most similar.

    Parameters
    ----------
    sample_ids : int64 array, shape (n,)
    similarity : float32 array, shape (n,)
        Exact cosine of the looks.
    views : list of str
        See `dedup.lookup.answers.Match`.
    """

    sample_ids: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    views: list[str]


class LookSearch:
    """The looks of a run by inverted list.

    Parameters
    ----------
    run_dir : str

    Notes
    -----
    Which looks are in which list is sorted out when the first image is asked about, into a temporary file of 12 bytes a look: some
    0.2 KB an image. The looks' vectors stay where they are.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir, self._parts = run_dir, look_parts(run_dir)
        self.is_there = bool(self._parts)

    def search(self, asked: LookRows, min_similarity: float) -> LookHits:
        """Find training images of which a look is like one of the image's.

        Parameters
        ----------
        asked : LookRows
            Of one image.
        min_similarity : float
            Cosine from which two looks are alike.
        """
        lists, store = self._lists, open_looks(self._run_dir)
        chosen, _ = lists.place(asked.vectors, min(_NPROBE, lists.nlist))
        along = (asked.vectors @ lists.axes).astype(np.float16)
        found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int8], npt.NDArray[np.int8]]] = []
        starts, order = self._members
        for number in np.unique(chosen).tolist():
            rows = np.sort(order[starts[number] : starts[number + 1]]).astype(np.int64)
            if not len(rows):
                continue
            looks = np.flatnonzero((chosen == number).any(axis=1))
            known, vectors = store.take("look", rows), store.take("vector", rows)
            product = along[looks].astype(np.float32) @ vectors.astype(np.float32).T
            one, other = np.nonzero(product >= min_similarity - 1e-2)
            one = looks[one]
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
    ) -> LookHits:
        if not found:
            return LookHits(np.zeros(0, np.int64), np.zeros(0, np.float32), [])
        image, similarity, kind, turn = (np.concatenate([part[column] for part in found]) for column in range(4))
        order = np.lexsort((turn, kind, -similarity, image))
        _, first = np.unique(image[order], return_index=True)
        chosen = order[first]
        names = ["", *list(VARIANTS)[1:], ""]  # the last: by an unknown angle
        ways = [(_KINDS[of], names[way]) for of, way in zip(kind[chosen].tolist(), turn[chosen].tolist(), strict=True)]
        views = [" ".join(word for word in way if word) or "none" for way in ways]
        return LookHits(self._sample_ids[image[chosen]], similarity[chosen], views)

    @cached_property
    def _lists(self) -> Lists:
        return replace(load_lists(looks_folder(self._run_dir)), n_filter=0)

    @cached_property
    def _sample_ids(self) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = read_table(RunLayout(self._run_dir).table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        return ids

    @cached_property
    def _members(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Where each list begins, and the numbers of its looks."""
        nlist = self._lists.nlist
        sizes = np.zeros(nlist, dtype=np.int64)
        shapes = [array_shape(look_part(self._run_dir, "look", part))[0][0] for part in self._parts]
        if sum(shapes) >= 2**32:
            raise RunDirectoryError(f"{self._run_dir} has {sum(shapes):,} looks, expected fewer than 2^32; query with --only-vectors")
        for part in self._parts:
            sizes += np.bincount(self._lists_of(part).ravel(), minlength=nlist)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        with tempfile.TemporaryFile(prefix="dedup-looks-") as file:  # gone with the map
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
        lists: npt.NDArray[np.int32] = np.ascontiguousarray(read_array(look_part(self._run_dir, "look", part))["lists"])
        return lists
