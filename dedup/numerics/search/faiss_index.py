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

from dedup.errors import ConfigError, MissingExtra, RunDirectoryError
from dedup.numerics.arraytypes import Ids, ListIds, Rows32, Sims

FIRST = 128  # candidates that a search begins with
_TAIL = 0.25  # of the candidates, the farthest by their codes, that must hold no neighbour for a search to end
_AGAIN = "delete _stages/index.json of the run directory and run: dedup run --only index output.run_dir=… …"
Candidates = tuple[Ids, Sims]  # ids and exact similarities, in the order of their codes


def search_all(search: Callable[[Ids, int], Candidates], least: Sims, n: int) -> tuple[Ids, Ids, Sims]:
    """All neighbours of some queries, as far as a search by codes finds them.

    `search`: from rows of queries and k to ids (m, k), -1 where there are fewer, and exact similarities (m, k) of the candidates, in the
    order of their codes. With fewer than k columns there are no more candidates.
    `least`: shape (n_queries,); similarity that each requires of a neighbour.
    `n`: vectors in the index.
    Returns `query`, `ids`, `similarity`: shape (n_neighbors,).

    A query is searched again for twice as many until the last quarter of its candidates holds no neighbour.
    """
    k, queries = min(FIRST, n), np.arange(len(least))
    parts: list[tuple[Ids, Ids, Sims]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    while len(queries):
        ids, similarity = search(queries, k)
        is_near = (similarity >= least[queries, None]) & (ids >= 0)
        is_last = k >= n or ids.shape[1] < k
        is_done = np.logical_or(~np.any(is_near[:, -max(1, int(_TAIL * k)) :], axis=1), np.full(len(queries), is_last))
        row, place = np.nonzero(is_near & is_done[:, None])
        parts.append((queries[row], ids[row, place], similarity[row, place]))
        queries, k = queries[~is_done], min(2 * k, n)
    query, neighbors, similarities = (np.concatenate(column) for column in zip(*parts, strict=True))
    return query, neighbors, similarities


try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

faiss: Any = _faiss  # its type hints are incomplete
GPU_MOST = 2048  # neighbours that FAISS can find on a GPU


def open_merged(path: str) -> Any:
    """A merged index, its lists mapped from the file beside it."""
    # FAISS would find that file itself (IO_FLAG_ONDISK_SAME_DIR), and print a line about it each time
    index = faiss.read_index(path, faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists)
    beside = os.path.join(os.path.dirname(path), os.path.basename(lists.filename))
    n_bytes = os.path.getsize(beside) if os.path.exists(beside) else -1
    if n_bytes < lists.totsize:
        state = "is missing" if n_bytes < 0 else f"has {n_bytes:,} bytes"
        raise RunDirectoryError(f"{beside} {state}, expected {lists.totsize:,}; {_AGAIN}")
    lists.filename, lists.read_only = beside, True
    if lists.totsize:
        lists.do_mmap()
    return index


class IvfIndex:
    """An index of `merge_parts`, its lists mapped into memory; thread-safe.

    `path`: the index; its lists lie beside it.
    `n_gpus`: GPUs that share a copy of it; 0 = it is searched on the CPU.
    Raises RunDirectoryError if the file is not an index, or is truncated.
    """

    def __init__(self, path: str, *, n_gpus: int = 0) -> None:
        try:
            self._cpu = open_merged(path)
            self._inner = faiss.extract_index_ivf(self._cpu)
        except RuntimeError as error:
            why = " ".join(str(error).split())[-200:]
            raise RunDirectoryError(f"{path} can't be read as an index ({why}); {_AGAIN}") from error
        self._index = self._cpu
        self.n_vectors, self.dim = int(self._cpu.ntotal), int(self._cpu.d)
        self.nlist, self.nprobe = int(self._inner.nlist), int(self._inner.nprobe)  # inverted lists, and how many a search visits by default
        self.code_bytes = int(self._inner.code_size)  # of a vector; its id takes 8 more
        self.description = type(faiss.downcast_index(self._inner)).__name__  # FAISS's name of this kind of index
        self.on_gpu = n_gpus > 0
        if self.on_gpu:
            options = faiss.GpuMultipleClonerOptions()
            # codes of more than 48 bytes need half-precision tables
            options.useFloat16, options.usePrecomputed, options.shard = True, False, True
            self._index = faiss.index_cpu_to_all_gpus(self._cpu, co=options, ngpu=n_gpus)

    def list_sizes(self) -> Ids:
        """Vectors in each list, shape (nlist,)."""
        return np.array([self._inner.invlists.list_size(number) for number in range(self.nlist)], dtype=np.int64)

    def search(self, rows: Rows32, k: int, lists: ListIds | None = None) -> tuple[Ids, Sims]:
        """Candidates near some vectors, by their codes; to be refined.

        `rows`: shape (n, dim); unit rows.
        `k`: candidates for each.
        `lists`: shape (n, nprobe); lists to search; None = the `nprobe` nearest, as the index finds them. A GPU always finds them itself.
        Returns `ids`: shape (n, k); -1 where there are fewer.
        Returns `similarity`: shape (n, k); computed from the codes, largest first.
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
    def _centroids(self) -> Rows32:
        centroids: Rows32 = self._inner.quantizer.reconstruct_n(0, self.nlist)
        return centroids


_PQ_TRAIN = 10_000  # vectors; 39 for each of the 256 centroids, as FAISS requires
_PQ_ITERATIONS = 8
_LEAST_PER_LIST = 39  # training vectors that FAISS requires for each list it trains


def trained_index(centroids: Rows32, sample: Rows32, *, codes: str, nprobe: int) -> bytes:
    """An empty index over existing lists.

    `centroids`: shape (nlist, dim).
    `sample`: shape (n, dim); unit rows the product quantizer is trained on.
    `codes`: ``pq`` (`pq_bytes` a vector) or ``fp16`` (2 * dim bytes a vector).
    `nprobe`: lists searched by default.
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


def trained_factory(factory: str, sample: Rows32, *, nlist: int, nprobe: int, seed: int) -> bytes:
    """An empty index that a FAISS factory string describes, which trains its own lists.

    `factory`: such as ``IVF{nlist},Flat`` or ``OPQ64,IVF4096,PQ64``; ``{nlist}`` is replaced.
    `sample`: shape (n, dim); unit rows.
    Raises ConfigError if FAISS knows no such index, it has no inverted lists, or the sample is too small.
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


def filled_part(trained: bytes, ids: Ids, rows: Rows32, home: ListIds | None) -> bytes:
    """A copy of an empty index with some vectors in it.

    `rows`: shape (n, dim); unit rows.
    `home`: shape (n,); the list of each vector; None = the index finds it.
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
    """Merge filled parts into one index with its lists in a separate file; at most one list is in memory.

    `parts`: files of `filled_part`.
    `index_path`, `lists_path`: files to write. The index finds its lists by their name in its folder.
    `base`: an index that was merged before; its vectors come first.
    Returns the number of vectors in the index.

    The same as `faiss.contrib.ondisk.merge_ondisk`.
    """
    opened = [open_merged(base)] if base else []
    opened += [faiss.read_index(part, faiss.IO_FLAG_MMAP) for part in parts]
    index = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
    inner = faiss.extract_index_ivf(index)
    lists = faiss.OnDiskInvertedLists(inner.nlist, inner.code_size, lists_path)
    sources = faiss.InvertedListsPtrVector()
    for part in opened:
        sources.push_back(faiss.extract_index_ivf(part).invlists)
    with _silent():
        n = int(lists.merge_from_multiple(sources.data(), sources.size(), False)) if opened else 0
    index.ntotal = inner.ntotal = n
    inner.replace_invlists(lists, True)
    lists.this.disown()
    lists.filename = lists_path.rpartition("/")[2]  # `open_merged` expects it beside the index
    faiss.write_index(index, index_path)
    return n


def emptied(path: str) -> bytes:
    """A merged index without its vectors, to be filled anew; it keeps its quantizers."""
    index = faiss.read_index(path, faiss.IO_FLAG_SKIP_IVF_DATA)
    inner = faiss.extract_index_ivf(index)
    lists = faiss.ArrayInvertedLists(inner.nlist, inner.code_size)
    inner.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = inner.ntotal = 0
    return bytes(faiss.serialize_index(index))


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what FAISS prints to standard output, which may be read by another program."""
    sys.stdout.flush()
    stdout, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
        ctypes.CDLL(None).fflush(None)  # C's buffer is discarded too
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


def pq_bytes(dim: int) -> int:
    """Bytes of a product-quantized vector: the largest divisor of `dim` up to 64.

    >>> pq_bytes(512), pq_bytes(384)
    (64, 64)
    """
    return max(m for m in range(1, 65) if dim % m == 0)
