"""Vectors stored as bare bytes, whose type and width nothing tells but the user: raw arrays, and columns of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dedup.errors import ConfigError
from dedup.storage.urls import filesystem, is_local, local_path, read_range

RAW_SUFFIXES: Final = (".bin", ".dat", ".data", ".raw", ".mmap", ".memmap", ".vec", ".f16", ".f32", ".fp16", ".fp32")
_SPEC: Final = re.compile(r"([<>]?f[248]|float(?:16|32|64))\s*x\s*(\d+)")


@dataclass(frozen=True)
class RawRows:
    """Type and width of rows."""

    dtype: np.dtype[Any]
    dim: int

    @property
    def n_bytes(self) -> int:
        """Of a row."""
        return int(self.dtype.itemsize * self.dim)


def raw_rows(spec: str) -> RawRows | None:
    """What `input.raw` says; None for ''.

    Raises ConfigError if it is no TYPExWIDTH.

    Examples
    --------
    >>> raw_rows("float16x512"), raw_rows(">f4x768").n_bytes
    (RawRows(dtype=dtype('float16'), dim=512), 3072)
    """
    if not spec:
        return None
    found = _SPEC.fullmatch(spec.strip())
    if found is None or not int(found[2]):
        raise ConfigError(f"input.raw={spec}: expected TYPExWIDTH with float16, float32 or float64, such as float16x512")
    return RawRows(np.dtype(found[1]), int(found[2]))


def raw_length(url: str, raw: RawRows) -> tuple[int, int]:
    """Whole rows of a raw array, and the bytes after them: more than none if type or width are others, or it is cut off."""
    fs, path = filesystem(url)
    n_rows, rest = divmod(int(fs.size(path)), raw.n_bytes)
    return n_rows, rest


def read_raw(url: str, raw: RawRows, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows of a raw array, shape (stop - start, dim); of a remote one only these are fetched."""
    if is_local(url):
        n_rows, _ = raw_length(url, raw)
        return np.asarray(np.memmap(local_path(url), raw.dtype, "r", shape=(n_rows, raw.dim)))[start:stop]
    data = read_range(url, start * raw.n_bytes, stop * raw.n_bytes) if stop > start else b""
    return np.frombuffer(data, raw.dtype).reshape(-1, raw.dim)
