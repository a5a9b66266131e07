"""The FAISS index that lookups search: built in parts, merged on disk, mapped into memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.errors import ConfigError, MissingExtra, RunDirectoryError

FIRST = 128  # candidates that a search begins with
_TAIL = 0.25  # of the candidates, by their codes the farthest, that must hold no neighbour for a search to end
_AGAIN = "delete index/_stage.json of the run directory and run: dedup run --only index output.run_dir=… …"
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # ids and exact similarities, in the order of their codes


def search_all(
    search: Callable[[npt.NDArray[np.int64], int], Found], least: npt.NDArray[np.float32], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """All neighbours of some queries, as far as a search by codes finds them.

    Parameters
    ----------
    search : callable
        Takes rows of queries and k; gives ids (m, k), -1 where there are fewer, and exact similarities (m, k), the candidates in the order
        of their codes. Fewer than k columns mean that it gives no more.
    least : float32 array, shape (n_queries,)
        Similarity that each asks of a neighbour.
    n : int
        Vectors in the index.

    Returns
    -------
    query : int64 array, shape (n_found,)
    ids : int64 array, shape (n_found,)
    similarity : float32 array, shape (n_found,)

    Notes
    -----
    A query is asked for twice as many until the last quarter of its candidates holds no neighbour.
    """
    k, open_rows = min(FIRST, n), np.arange(len(least))
    queries, ids_found, similarities = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    while len(open_rows):
        ids, similarity = search(open_rows, k)
        is_near = (similarity >= least[open_rows, None]) & (ids >= 0)
        is_last = k >= n or ids.shape[1] < k
        is_done = np.logical_or(~np.any(is_near[:, -max(1, int(_TAIL * k)) :], axis=1), np.full(len(open_rows), is_last))
        row, place = np.nonzero(is_near & is_done[:, None])
        queries.append(open_rows[row])
        ids_found.append(ids[row, place])
        similarities.append(similarity[row, place])
        open_rows, k = open_rows[~is_done], min(2 * k, n)
    return np.concatenate(queries), np.concatenate(ids_found), np.concatenate(similarities)


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
        raise RunDirectoryError(f"{beside} {there}, expected {lists.totsize:,}; {_AGAIN}")
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
            raise RunDirectoryError(f"{path} can't be read as an index ({why}); {_AGAIN}") from error
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


_PQ_TRAIN = 10_000  # vectors; 39 for each of the 256 centroids, as FAISS asks
_PQ_ITERATIONS = 8
_LEAST_PER_LIST = 39  # training vectors that FAISS asks for each list, where it trains its own


def trained_index(centroids: npt.NDArray[np.float32], sample: npt.NDArray[np.float32], *, codes: str, nprobe: int) -> bytes:
    """An empty index over lists that are there already.

    Parameters
    ----------
    centroids : float32 array, shape (nlist, dim)
    sample : float32 array, shape (n, dim)
        Unit rows the product quantizer is trained on.
    codes : str
        ``pq`` (64 bytes a vector, or as many as divide dim) or ``fp16`` (2 * dim bytes).
    nprobe : int
        Lists that a search looks into, unless it says otherwise.

    Returns
    -------
    bytes
    """
    nlist, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    index: Any
    if codes == "pq":
        index = faiss.IndexIVFPQ(quantizer, dim, nlist, pq_bytes(dim), 8, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.niter = _PQ_ITERATIONS
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(sample[:_PQ_TRAIN])
    index.nprobe = min(nprobe, nlist)
    return bytes(faiss.serialize_index(index))


def trained_factory(factory: str, sample: npt.NDArray[np.float32], *, nlist: int, nprobe: int, seed: int) -> bytes:
    """An empty index as a FAISS factory string describes it, which trains lists of its own.

    Parameters
    ----------
    factory : str
        Such as ``IVF{nlist},Flat`` or ``OPQ64,IVF4096,PQ64``; ``{nlist}`` is replaced.
    sample : float32 array, shape (n, dim)
        Unit rows.
    nlist, nprobe, seed : int

    Returns
    -------
    bytes

    Raises
    ------
    ConfigError
        If FAISS knows no such index, it has no inverted lists, or the sample is too small for it.
    """
    text = factory.replace("{nlist}", str(nlist))
    try:
        index = faiss.index_factory(sample.shape[1], text, faiss.METRIC_INNER_PRODUCT)
        inner = faiss.extract_index_ivf(index)
    except RuntimeError as error:
        why = " ".join(str(error).split())[-160:]
        raise ConfigError(
            f"index.factory={factory}: expected a FAISS factory string with inverted lists for {sample.shape[1]} dimensions, such as "
            f"IVF{{nlist}},Flat ({why})"
        ) from error
    inner.cp.seed = seed
    inner.cp.spherical = True
    inner.cp.min_points_per_centroid = 1
    try:
        index.train(sample[: max(_LEAST_PER_LIST * inner.nlist, _PQ_TRAIN)])
    except RuntimeError as error:
        why = " ".join(str(error).split())[-160:]
        raise ConfigError(f"index.factory={factory} can't be trained on {len(sample)} vectors: fewer lists may do ({why})") from error
    inner.nprobe = min(nprobe, inner.nlist)
    return bytes(faiss.serialize_index(index))


def filled_part(trained: bytes, ids: npt.NDArray[np.int64], rows: npt.NDArray[np.float32], home: npt.NDArray[np.int32] | None) -> bytes:
    """A copy of an empty index with some vectors in it.

    Parameters
    ----------
    trained : bytes
    ids : int64 array, shape (n,)
    rows : float32 array, shape (n, dim)
        Unit rows.
    home : int32 array, shape (n,), or None
        The list of each; None = the index finds it.

    Returns
    -------
    bytes
    """
    index = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
    rows, ids = np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(ids, np.int64)
    if home is None:
        index.add_with_ids(rows, ids)
    else:
        lists = np.ascontiguousarray(home, np.int64)
        index.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    return bytes(faiss.serialize_index(index))


def merge_parts(trained: bytes, parts: Sequence[str], index_path: str, lists_path: str, *, base: str = "") -> int:
    """Merge filled parts into one index whose lists lie in a file of their own; never more than a list is in memory.

    Parameters
    ----------
    trained : bytes
    parts : sequence of str
        Files of `filled_part`.
    index_path, lists_path : str
        Files to write. The index finds its lists by their name in its own folder.
    base : str
        An index that was merged before: it comes first.

    Returns
    -------
    int
        Vectors in it.

    Notes
    -----
    As `faiss.contrib.ondisk.merge_ondisk` does it.
    """
    opened = [open_merged(base)] if base else []
    opened += [faiss.read_index(part, faiss.IO_FLAG_MMAP) for part in parts]
    index = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
    inner = faiss.extract_index_ivf(index)
    lists = faiss.OnDiskInvertedLists(inner.nlist, inner.code_size, lists_path)
    sources = faiss.InvertedListsPtrVector()
    for part in opened:
        sources.push_back(faiss.extract_index_ivf(part).invlists)
    with _without_its_prints():
        n = int(lists.merge_from_multiple(sources.data(), sources.size(), False)) if opened else 0
    index.ntotal = inner.ntotal = n
    inner.replace_invlists(lists, True)
    lists.this.disown()
    lists.filename = lists_path.rpartition("/")[2]  # whoever opens it looks beside the index
    faiss.write_index(index, index_path)
    return n


def emptied(path: str) -> bytes:
    """A merged index without its vectors, to be filled anew: its quantizers are those it has.

    Returns
    -------
    bytes
    """
    index = faiss.read_index(path, faiss.IO_FLAG_SKIP_IVF_DATA)
    inner = faiss.extract_index_ivf(index)
    lists = faiss.ArrayInvertedLists(inner.nlist, inner.code_size)
    inner.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = inner.ntotal = 0
    return bytes(faiss.serialize_index(index))


@contextmanager
def _without_its_prints() -> Iterator[None]:
    """FAISS prints to standard output what it does to the file, whoever may be reading that."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
        ctypes.CDLL(None).fflush(None)  # what C holds back goes nowhere too
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def pq_bytes(dim: int) -> int:
    """Bytes of a product-quantized vector: the largest divisor of `dim` up to 64.

    Examples
    --------
    >>> pq_bytes(512), pq_bytes(384)
    (64, 64)
    """
    return max(m for m in range(1, 65) if dim % m == 0)
