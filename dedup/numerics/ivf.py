"""The index that stays, searched where it lies."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.errors import MissingExtra, RunDirectoryError

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

faiss: Any = _faiss  # its type hints lack half of what there is

GPU_MOST = 2048  # neighbours that FAISS finds on a GPU


def open_merged(path: str) -> Any:
    """A merged index, its lists mapped from the file beside it."""
    # FAISS would find that file itself (IO_FLAG_ONDISK_SAME_DIR), and print a line about it each time
    index = faiss.read_index(path, faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists)
    beside = os.path.join(os.path.dirname(path), os.path.basename(lists.filename))
    n_bytes = os.path.getsize(beside) if os.path.exists(beside) else -1
    if n_bytes < lists.totsize:
        there = "is missing" if n_bytes < 0 else f"has {n_bytes:,} bytes"
        raise RunDirectoryError(f"{beside} {there}, expected {lists.totsize:,}; run: dedup index output.run_dir=… --redo")
    lists.filename, lists.read_only = beside, True
    if lists.totsize:
        lists.do_mmap()
    return index


class IvfIndex:
    """An index of `merge_parts`, its lists mapped into memory; for several threads at a time.

    Parameters
    ----------
    path : str
        The index; its lists lie beside it.
    n_gpus : int
        GPUs that hold a copy of it, if FAISS has any; 0 = it is searched where it lies.

    Raises
    ------
    RunDirectoryError
        If the file is no index, or is cut off.
    """

    def __init__(self, path: str, *, n_gpus: int = 0) -> None:
        try:
            self._cpu = open_merged(path)
            self._inner = faiss.extract_index_ivf(self._cpu)
        except RuntimeError as error:
            why = " ".join(str(error).split())[-200:]
            raise RunDirectoryError(f"{path} is no index that can be read ({why}); run: dedup index output.run_dir=… --redo") from error
        self._index = self._cpu
        self.on_gpu = n_gpus > 0
        if self.on_gpu:
            options = faiss.GpuMultipleClonerOptions()
            # codes of more than 48 bytes need half-precision tables
            options.useFloat16, options.usePrecomputed, options.shard = True, False, True
            self._index = faiss.index_cpu_to_all_gpus(self._cpu, co=options, ngpu=n_gpus)

    @property
    def n_vectors(self) -> int:
        """Vectors in the index."""
        return int(self._cpu.ntotal)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._cpu.d)

    @property
    def nlist(self) -> int:
        """Inverted lists."""
        return int(self._inner.nlist)

    @property
    def nprobe(self) -> int:
        """Lists that a search looks into by default."""
        return int(self._inner.nprobe)

    @property
    def code_bytes(self) -> int:
        """Bytes of a vector's code; its id takes 8 more."""
        return int(self._inner.code_size)

    @property
    def description(self) -> str:
        """Kind of index, as FAISS names it."""
        return type(faiss.downcast_index(self._inner)).__name__

    def list_sizes(self) -> npt.NDArray[np.int64]:
        """Vectors in each list, shape (nlist,)."""
        return np.array([self._inner.invlists.list_size(number) for number in range(self.nlist)], dtype=np.int64)

    def search(
        self, rows: npt.NDArray[np.float32], k: int, lists: npt.NDArray[np.int32] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Candidates near some vectors, by their codes; to be refined.

        Parameters
        ----------
        rows : float32 array, shape (n, dim)
            Unit rows.
        k : int
            Candidates for each.
        lists : int32 array, shape (n, nprobe), or None
            Lists looked into; None = the nearest `nprobe`, as the index finds them. A GPU always finds them itself.

        Returns
        -------
        ids : int64 array, shape (n, k)
            -1 where there are fewer.
        similarity : float32 array, shape (n, k)
            As the codes have it, largest first.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        if self.on_gpu:
            similarity, ids = self._index.search(rows, min(k, GPU_MOST))
            return ids, similarity
        if lists is None:
            similarity, ids = self._index.search(rows, k)
            return ids, similarity
        lists = np.ascontiguousarray(lists, np.int64)
        near = np.einsum("nd,npd->np", rows, self._centroids[lists]).astype(np.float32)
        similarity, ids = np.empty((len(rows), k), dtype=np.float32), np.empty((len(rows), k), dtype=np.int64)
        pointers = (faiss.swig_ptr(array) for array in (lists, near, similarity, ids))
        params = faiss.SearchParametersIVF(nprobe=lists.shape[1])
        self._inner.search_preassigned_c(len(rows), faiss.swig_ptr(rows), k, *pointers, False, params)
        return ids, similarity

    @cached_property
    def _centroids(self) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._inner.quantizer.reconstruct_n(0, self.nlist)
        return found
