"""The vectors of one partition while they grow: of whole images, and of the pictures inside frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.storage.arrays import ArrayWriter
from dedup.storage.embeddings import embedding_path, inner_paths
from dedup.storage.urls import filesystem

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
        Of the names that `sizes` gives.
    """

    def __init__(self, run_dir: str, partition: int, dim: int, prefix: str = "") -> None:
        whole, (inner, inner_ids) = embedding_path(run_dir, partition), inner_paths(run_dir, partition)
        self._urls = {f"{prefix}img_emb/{whole.rpartition('/')[2]}": whole}
        self._urls |= {f"{prefix}img_inner/{url.rpartition('/')[2]}": url for url in (inner, inner_ids)}
        self._whole, self._inner, self._ids = (
            ArrayWriter(whole, (dim,), np.float16),
            ArrayWriter(inner, (dim,), np.float16),
            ArrayWriter(inner_ids, (1,), np.int64),
        )

    def write(self, vectors: npt.NDArray[np.float32]) -> None:
        """Append rows of whole images."""
        self._whole.write(vectors)

    def write_inner(self, vectors: npt.NDArray[np.float32], sample_ids: npt.NDArray[np.int64]) -> None:
        """Append rows of the pictures inside frames, with the samples they belong to."""
        self._inner.write(vectors)
        self._ids.write(sample_ids[:, None])

    def close(self) -> None:
        """Give the files their names."""
        for writer in (self._whole, self._inner, self._ids):
            writer.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        for writer in (self._whole, self._inner, self._ids):
            writer.abort()

    def sizes(self) -> dict[str, int]:
        """Names of the finished files with their bytes."""
        found = {}
        for name, url in self._urls.items():
            fs, path = filesystem(url)
            found[name] = int(fs.size(path))
        return found
