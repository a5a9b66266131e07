"""The vectors of one partition while they grow: of whole images, and of the pictures inside frames."""

from __future__ import annotations

import posixpath

import numpy as np
import numpy.typing as npt

from dedup.storage.arrays import ArrayWriter
from dedup.storage.embeddings import embedding_path, inner_paths

LEAST_INNER_QUALITY = 10.0  # detail of a picture inside a frame that is worth a second look


class VectorFiles:
    """Files of one partition in one space of vectors.

    Parameters
    ----------
    run_dir : str
        Where `embeddings/img_emb` lies.
    partition : int
    dim : int
    prefix : str
        Of the names that `close` gives.
    """

    def __init__(self, run_dir: str, partition: int, dim: int, prefix: str = "") -> None:
        whole, (inner, inner_ids) = embedding_path(run_dir, partition), inner_paths(run_dir, partition)
        self._whole = ArrayWriter(whole, (dim,), np.float16)
        self._inner = ArrayWriter(inner, (dim,), np.float16)
        self._ids = ArrayWriter(inner_ids, (1,), np.int64)
        self._named = {
            f"{prefix}img_emb/{posixpath.basename(whole)}": self._whole,
            f"{prefix}img_inner/{posixpath.basename(inner)}": self._inner,
            f"{prefix}img_inner/{posixpath.basename(inner_ids)}": self._ids,
        }

    def write(self, vectors: npt.NDArray[np.float32]) -> None:
        """Append rows of whole images."""
        self._whole.write(vectors)

    def write_inner(self, vectors: npt.NDArray[np.float32], sample_ids: npt.NDArray[np.int64]) -> None:
        """Append rows of the pictures inside frames, with the samples they belong to."""
        self._inner.write(vectors)
        self._ids.write(sample_ids[:, None])

    def close(self) -> dict[str, int]:
        """Give the files their names; returns these, with the bytes of each."""
        return {name: writer.close() for name, writer in self._named.items()}

    def abort(self) -> None:
        """Leave nothing behind."""
        for writer in self._named.values():
            writer.abort()
