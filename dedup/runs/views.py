"""The views of a run: rows along their principal axes, with what each is a view of and its inverted lists."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.numerics.image.views import ViewRows
from dedup.storage.arrays import clear_files, folder_state, map_arrays, save_array
from dedup.storage.urls import filesystem, join


def view_dtype(nprobe: int) -> np.dtype[np.void]:
    """What is known of a view besides its vector; `image` is a position among the representatives."""
    fields = [("image", np.int32), ("kind", np.int8), ("orientation", np.int8), ("is_base", np.bool_), ("lists", np.int32, (nprobe,))]
    return np.dtype(fields)


def view_part(folder: str, name: str, number: int) -> str:
    """The file of one part: `view` or `vector`."""
    return join(folder, f"{name}-{number:05d}.npy")


def view_parts(folder: str) -> tuple[int, ...]:
    """Numbers of the parts, ascending; none where the run has no views."""
    fs, root = filesystem(folder)
    fs.invalidate_cache(root)
    return tuple(sorted(int(str(name).rpartition("-")[2].partition(".")[0]) for name in fs.glob(join(root, "view-*.npy"))))


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


def clear_views(folder: str) -> None:
    """Delete the views."""
    clear_files(folder, "*.npy")


class ViewStore:
    """Random access to the views of a run by their number: that of the row, part after part.

    Parameters
    ----------
    folder : str
    """

    def __init__(self, folder: str) -> None:
        views, vectors = map_arrays(folder, "view-"), map_arrays(folder, "vector-")
        self._views, self._vectors = [views[number] for number in sorted(views)], [vectors[number] for number in sorted(vectors)]
        self._starts = np.cumsum([0, *(len(part) for part in self._views)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, name: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some views, by ascending numbers: what is known of them (`view`), or their vectors (`vector`)."""
        parts = self._views if name == "view" else self._vectors
        bounds = np.searchsorted(numbers, self._starts)
        found = [parts[k][numbers[bounds[k] : bounds[k + 1]] - self._starts[k]] for k in range(len(parts)) if bounds[k] < bounds[k + 1]]
        return np.concatenate(found) if found else parts[0][:0]


def open_views(folder: str) -> ViewStore:
    """The views of a run, opened once per process and again when its files were replaced."""
    return _open_views(folder, folder_state(folder))


@lru_cache(maxsize=1)
def _open_views(folder: str, state: str) -> ViewStore:
    return ViewStore(folder)
