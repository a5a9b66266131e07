"""Arrays as .npy files on any fsspec URL, memory-mapped; remote ones through a copy that the processes of a machine share."""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dedup.errors import RunDirectoryError
from dedup.storage.atomic import AtomicFile, Replacement, close_or_abort
from dedup.storage.urls import filesystem, is_local, matching, read_range

_HEADER_BYTES = 4_096  # more than any header needs
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")


def save_array(url: str, array: npt.NDArray[Any]) -> None:
    """Write an array, whole or not at all."""
    with ArrayWriter(url, array.shape[1:], array.dtype) as writer:
        writer.write(array)


class ArrayWriter:
    """An array whose number of rows is not known beforehand, written in blocks of rows; whole or not at all.

    `row_shape`: shape of one row: (dim,) for vectors, () for numbers.
    """

    def __init__(self, url: str, row_shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self.n_rows = 0
        self._row_shape, self._dtype = tuple(row_shape), np.dtype(dtype)
        self._atomic = AtomicFile(url)
        self._atomic.file.write(self._header())

    def _header(self) -> bytes:
        """The header for the rows so far; numpy pads it so that its length does not depend on their number."""
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.n_rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def write(self, rows: npt.NDArray[np.generic]) -> None:
        """Append rows, rounded to the type of the file."""
        # not numpy's tofile, whose error on a full disk has no errno
        self._atomic.file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self.n_rows += len(rows)

    def close(self) -> int:
        """Write the header and give the file its name; returns its size in bytes."""
        self._atomic.file.seek(0)
        self._atomic.file.write(self._header())
        return self._atomic.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._atomic.abort()

    def __enter__(self) -> ArrayWriter:
        return self

    __exit__ = close_or_abort


def map_array(url: str) -> npt.NDArray[Any]:
    """Memory-map an array."""
    fs, path = filesystem(url)
    return _mapped(path if is_local(url) else _fetched(fs, fs.info(path)))


def map_arrays(folder: str, prefix: str) -> dict[int, npt.NDArray[Any]]:
    """Memory-map the arrays ``{prefix}NNNNN.npy`` of a folder, by their number.

    Raises RunDirectoryError if there are none.
    """
    fs, _ = filesystem(folder)
    if is_local(folder):
        paths = {name: name for name in matching(folder, f"{prefix}*.npy")}
    else:
        infos = {name: info for name, info in _listed(folder).items() if name.rpartition("/")[2].startswith(prefix)}
        paths = {name: _fetched(fs, info) for name, info in infos.items() if name.endswith(".npy")}
    if not paths:
        raise RunDirectoryError(f"{folder} holds no {prefix}NNNNN.npy; run the stage that writes it first (dedup status shows which)")
    return {int(re.findall(r"(\d+)\.npy$", name)[0]): _mapped(local) for name, local in paths.items()}


def read_array(url: str) -> npt.NDArray[Any]:
    """An array to be read once: mapped if local, else fetched into memory."""
    return map_array(url) if is_local(url) else np.load(io.BytesIO(read_range(url)), allow_pickle=False)


def read_rows(url: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Consecutive rows of an array; of a remote one only these are fetched, unless columns lie together in it (Fortran's order)."""
    if is_local(url):
        return map_array(url)[start:stop]
    shape, dtype, header_bytes, is_fortran = _read_header(url)
    if is_fortran:
        return map_array(url)[start:stop]
    size = dtype.itemsize * int(np.prod(shape[1:]))
    stop = min(stop, shape[0])
    data = read_range(url, header_bytes + start * size, header_bytes + stop * size) if stop > start else b""
    return np.frombuffer(data, dtype).reshape(-1, *shape[1:])


def array_shape(url: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, from its header."""
    shape, dtype, _, _ = _read_header(url)
    return shape, dtype


def is_laid_out_as(url: str, dtype: npt.DTypeLike) -> bool:
    """Whether an array has this type, in the byte order of this machine, and rows that lie together."""
    _, found, _, is_fortran = _read_header(url)
    return found == np.dtype(dtype) and not is_fortran


def missing_bytes(url: str) -> int:
    """Bytes that a file lacks of the array that its header announces: of a transfer that broke off; 0 if it is whole."""
    shape, dtype, header_bytes, _ = _read_header(url)
    fs, path = filesystem(url)
    return max(0, header_bytes + dtype.itemsize * int(np.prod(shape)) - int(fs.size(path)))


def _read_header(url: str) -> tuple[tuple[int, ...], np.dtype[Any], int, bool]:
    """Shape, type, bytes of the header, and whether columns lie together."""
    header = io.BytesIO(read_range(url, 0, _HEADER_BYTES))
    shape, dtype, is_fortran = header_of(header)
    return shape, dtype, header.tell(), is_fortran


def header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape and type of an array from the beginning of its file, and whether columns lie together (Fortran's order)."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    return shape, dtype, is_fortran and len(shape) > 1


def folder_state(folder: str) -> str:
    """A text that changes when files of a folder are replaced, so that caches of the old ones are dropped."""
    if is_local(folder):
        path = filesystem(folder)[1]
        return str(os.stat(path).st_mtime_ns) if os.path.isdir(path) else ""
    return hashlib.sha256(repr([_identity(info) for info in _listed(folder).values()]).encode()).hexdigest()


def clear_files(folder: str, pattern: str) -> None:
    """Delete files of a folder."""
    fs, _ = filesystem(folder)
    for name in matching(folder, pattern):
        fs.rm_file(name)


def _mapped(path: str) -> npt.NDArray[Any]:
    try:
        # a plain array over the map: memmap's own indexing costs more than the gather
        return np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError:
        if os.path.islink(path):
            raise RunDirectoryError(
                f"{path} leads to {os.readlink(path)}, which is gone: published embeddings are read where they lie; put the file back, or "
                "make the run again with embed.copy_vectors=true, which keeps a copy"
            ) from None
        raise


def _listed(folder: str) -> dict[str, dict[str, Any]]:
    """Files of a remote folder as they are now, with the file system's information on each."""
    fs, path = filesystem(folder)
    fs.invalidate_cache(path)
    with suppress(FileNotFoundError):
        return {str(info["name"]): info for info in sorted(fs.ls(path, detail=True), key=lambda info: str(info["name"]))}
    return {}


def _identity(info: dict[str, Any]) -> tuple[str, ...]:
    return (str(info["name"]), str(info.get("size")), *(str(info[name]) for name in _STAMPS if name in info))


def _fetched(fs: Any, info: dict[str, Any]) -> str:
    """A local copy of a remote file, shared by all processes of this user and deleted when the one that fetched it ends."""
    folder = os.path.join(tempfile.gettempdir(), f"dedup-arrays-{os.getuid() if hasattr(os, 'getuid') else 0}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    key = hashlib.sha256(repr((fs.protocol, _identity(info))).encode()).hexdigest()
    target = os.path.join(folder, f"{key}.npy")
    if not os.path.exists(target):
        with Replacement(target) as partial:
            fs.get_file(str(info["name"]), partial)
        atexit.register(_unlink, target)  # processes that have mapped it keep their map
    return target


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
