"""Building the index that stays: trained once, filled in parts, merged on disk."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.errors import ConfigError, MissingExtra
from dedup.numerics.ivf import open_merged

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtra("faiss", "cpu") from error

faiss: Any = _faiss  # its type hints lack half of what there is

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
