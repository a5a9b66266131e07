"""The vectors of a run: of whole images, of pictures inside a frame, and of views."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache, cached

from dedup.contracts import Gathered
from dedup.errors import RunDirectoryError
from dedup.numerics.image.views import ViewRows
from dedup.schemas.fields import ROW_MASK
from dedup.storage.arrays import folder_state, map_arrays, read_rows, save_array
from dedup.storage.urls import is_local, join, matching

_GAP = 256  # rows not needed that are read rather than starting another request, which costs about as much as some hundred rows


def embedding_path(folder: str, partition: int) -> str:
    """The file of a partition's vectors in the folder of embeddings."""
    return join(folder, "img_emb", f"img_emb_{partition:05d}.npy")


class EmbeddingStore:
    """Random access to the vectors of a run by sample_id.

    `folder`: of the run's embeddings.
    Raises RunDirectoryError if there are no arrays, or their widths differ.
    """

    def __init__(self, folder: str) -> None:
        self._rows = map_arrays(join(folder, "img_emb"), "img_emb_")
        widths = {rows.shape[1] for rows in self._rows.values()}
        if len(widths) != 1:
            raise RunDirectoryError(
                f"{folder}: embeddings of different widths, {', '.join(map(str, sorted(widths)))}; expected one encoder per run"
            )
        self.dim = widths.pop()

    def take(self, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Vectors of the given samples.

        `sample_ids`: shape (n,); any order; ascending is fastest.
        Returns shape (n, dim).
        """
        partition = sample_ids >> 32
        row = sample_ids & ROW_MASK
        if not len(sample_ids):
            return np.empty((0, self.dim), dtype=np.float16)
        if partition[0] == partition[-1] and bool((partition == partition[0]).all()):
            vectors: npt.NDArray[np.float16] = self._rows[int(partition[0])][row]
            return vectors
        out = np.empty((len(sample_ids), self.dim), dtype=np.float16)
        order = None if bool((np.diff(partition) >= 0).all()) else np.argsort(partition, kind="stable")
        if order is not None:
            partition, row = partition[order], row[order]
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(partition)) + 1, [len(partition)]])
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
            place = slice(start, stop) if order is None else order[start:stop]
            out[place] = self._rows[int(partition[start])][row[start:stop]]
        return out

    def view(self, sample_ids: npt.NDArray[np.int64]) -> Gathered:
        """The vectors of the given samples, read when indexed."""
        return Gathered(self.take, sample_ids)

    def blocks(self, sample_ids: npt.NDArray[np.int64], size: int = 16_384) -> Iterator[tuple[slice, npt.NDArray[np.float16]]]:
        """The vectors of the given samples in blocks: (slice of `sample_ids`, rows)."""
        for start in range(0, len(sample_ids), size):
            part = slice(start, min(start + size, len(sample_ids)))
            yield part, self.take(sample_ids[part])


def inner_paths(folder: str, partition: int) -> tuple[str, str]:
    """The files of a partition's vectors of pictures inside a frame, and of the sample_ids of their rows."""
    folder = join(folder, "img_inner")
    return join(folder, f"img_inner_{partition:05d}.npy"), join(folder, f"sample_id_{partition:05d}.npy")


class InnerStore:
    """Vectors of the pictures inside others, of the samples that hold some; `folder` is that of the run's embeddings."""

    def __init__(self, folder: str) -> None:
        folder = join(folder, "img_inner")
        self._rows, ids = map_arrays(folder, "img_inner_"), map_arrays(folder, "sample_id_")
        self._ids = {number: part.ravel().view(np.int64) for number, part in ids.items()}

    def take(self, sample_ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
        """Vectors of the pictures inside those samples that hold some.

        `sample_ids`: shape (n,); ascending.
        Returns `rows`: shape (m, dim).
        Returns `places`: shape (m,); positions in `sample_ids`, ascending; a sample may hold several.
        """
        dim = next(iter(self._rows.values())).shape[1]
        rows, places = [np.empty((0, dim), dtype=np.float16)], [np.empty(0, dtype=np.int64)]
        for number in np.unique(sample_ids >> 32).tolist():
            first, last = np.searchsorted(sample_ids, [number << 32, (number + 1) << 32])
            starts, stops = (np.searchsorted(self._ids[number], sample_ids[first:last], side=side) for side in ("left", "right"))
            place = np.repeat(np.arange(first, last), stops - starts)
            # the rows of each sample lie side by side
            offsets = np.arange(len(place)) - np.repeat(np.cumsum(stops - starts) - (stops - starts), stops - starts)
            rows.append(self._rows[number][np.repeat(starts, stops - starts) + offsets])
            places.append(place.astype(np.int64))
        return np.concatenate(rows), np.concatenate(places)


def read_vectors(folder: str, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Vectors of samples with ascending ids; from a remote store only the ranges that hold them are read.

    Returns shape (n, dim).
    """
    if is_local(folder) or not len(sample_ids):
        return open_store(folder).take(sample_ids)
    partition, row = sample_ids >> 32, sample_ids & ROW_MASK
    parts = []
    cuts = np.flatnonzero((np.diff(partition) != 0) | (np.diff(row) > _GAP)) + 1
    for rows in np.split(np.arange(len(row)), cuts):
        first, last = int(row[rows[0]]), int(row[rows[-1]])
        parts.append(read_rows(embedding_path(folder, int(partition[rows[0]])), first, last + 1)[row[rows] - first])
    return np.concatenate(parts)


# two, since a run may have two sources of candidates
@cached(LRUCache(2), key=lambda folder: (folder, folder_state(join(folder, "img_emb"))), lock=Lock())
def open_store(folder: str) -> EmbeddingStore:
    """The store of a run, opened once per process, and again if its files are replaced; workers call it for every task."""
    return EmbeddingStore(folder)


def view_dtype(nprobe: int) -> np.dtype[np.void]:
    """The row of a view, without its vector; `image` is a position among the representatives."""
    fields = [("image", np.int32), ("kind", np.int8), ("orientation", np.int8), ("is_base", np.bool_), ("lists", np.int32, (nprobe,))]
    return np.dtype(fields)


def view_part(folder: str, name: str, number: int) -> str:
    """The file of one part: `view` or `vector`."""
    return join(folder, f"{name}-{number:05d}.npy")


def view_parts(folder: str) -> tuple[int, ...]:
    """Numbers of the parts, ascending; empty if the run has no views."""
    return tuple(sorted(int(name.rpartition("-")[2].partition(".")[0]) for name in matching(folder, "view-*.npy")))


def write_views(folder: str, number: int, rows: ViewRows, vectors: npt.NDArray[np.float32], lists: npt.NDArray[np.int32]) -> None:
    """Write one part.

    `rows`: with positions among the representatives; its vectors are left out.
    `vectors`: shape (n, dim); along the principal axes.
    `lists`: shape (n, nprobe).
    """
    table = np.empty(len(rows.image), dtype=view_dtype(lists.shape[1]))
    for name in ("image", "kind", "orientation", "is_base"):
        table[name] = getattr(rows, name)
    table["lists"] = lists
    for name, array in (("view", table), ("vector", vectors.astype(np.float16))):
        save_array(view_part(folder, name, number), array)


class ViewStore:
    """Random access to the views of a run by number: rows are counted part after part."""

    def __init__(self, folder: str) -> None:
        views, vectors = map_arrays(folder, "view-"), map_arrays(folder, "vector-")
        self._views, self._vectors = [views[number] for number in sorted(views)], [vectors[number] for number in sorted(vectors)]
        self._starts = np.cumsum([0, *(len(part) for part in self._views)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, name: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Views by ascending numbers: their rows of `view_dtype` (`view`) or their vectors (`vector`)."""
        parts = self._views if name == "view" else self._vectors
        bounds = np.searchsorted(numbers, self._starts)
        pieces = [parts[k][numbers[bounds[k] : bounds[k + 1]] - self._starts[k]] for k in range(len(parts)) if bounds[k] < bounds[k + 1]]
        return np.concatenate(pieces) if pieces else parts[0][:0]


@cached(LRUCache(1), key=lambda folder: (folder, folder_state(folder)), lock=Lock())
def open_views(folder: str) -> ViewStore:
    """The views of a run, opened once per process, and again if its files are replaced."""
    return ViewStore(folder)
