"""The files of one partition while they grow: vectors, metadata, rejected samples, thumbnails."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import Config
from dedup.contracts import Encoder
from dedup.encoders import look_maker
from dedup.errors import SampleError
from dedup.numerics.trimming import picture_box
from dedup.schemas import REJECTED
from dedup.storage.embeddings import EmbeddingWriter, embedding_path, inner_paths
from dedup.storage.images import DecodedImage, decode_image
from dedup.storage.layout import RunLayout
from dedup.storage.samples import RawSample
from dedup.storage.tables import FileWriter, filesystem, join
from dedup.storage.thumbnails import ThumbnailWriter, make_thumbnail, remove_thumbnails, thumbnail_paths

_LEAST_INNER_QUALITY = 10.0  # detail of a picture inside a frame that is worth a second look


class PartitionWriter:
    """Decodes, encodes and writes samples in batches; row i of the vectors is row i of the metadata and of the thumbnails.

    Parameters
    ----------
    config : Config
    encoder : Encoder
    partition : int
    keep_thumbnails : bool
        Else those that an earlier run kept of this partition are deleted.
    """

    def __init__(self, config: Config, encoder: Encoder, partition: int, *, keep_thumbnails: bool = False) -> None:
        self._config, self._encoder, self._partition = config, encoder, partition
        self._layout = RunLayout(config.output.run_dir, tuple(config.input.carry))
        run_dir = config.output.run_dir
        self._metadata_table = self._layout.table("metadata")
        self._paths = {
            f"img_emb/img_emb_{partition:05d}.npy": embedding_path(run_dir, partition),
            f"metadata/metadata_{partition:05d}.parquet": join(self._metadata_table.path, f"metadata_{partition:05d}.parquet"),
            f"rejected/rejected_{partition:05d}.parquet": join(self._layout.table("rejected").path, f"rejected_{partition:05d}.parquet"),
        }
        vectors, metadata, rejected = self._paths.values()
        inner, inner_ids = inner_paths(run_dir, partition)
        self._paths |= {f"img_inner/{url.rpartition('/')[2]}": url for url in (inner, inner_ids)}
        self._has_looks = look_maker(config.encoder) is not None
        self._inner, self._inner_ids = EmbeddingWriter(inner, encoder.dim), EmbeddingWriter(inner_ids, 1, np.int64)
        self._vectors = EmbeddingWriter(vectors, encoder.dim)
        self._metadata = FileWriter(metadata, self._metadata_table.schema)
        self._rejected = FileWriter(rejected, REJECTED)
        self._thumbnails: ThumbnailWriter | None = None
        if keep_thumbnails:
            self._thumbnails = ThumbnailWriter(run_dir, partition)
            self._paths |= {name: self._layout.path("embeddings", name) for name in thumbnail_paths(partition)}
        else:
            remove_thumbnails(run_dir, partition)
        self._small: list[bytes] = []
        self._prepared: list[npt.NDArray[np.float32]] = []
        self._framed: dict[int, npt.NDArray[np.float32]] = {}  # by row of the batch: the picture inside a frame
        self._rows: list[dict[str, Any]] = []
        self._rejects: list[dict[str, str]] = []
        self.n_samples = 0
        self.n_rejected = 0
        self.reasons: Counter[str] = Counter()

    def add(self, sample: RawSample) -> None:
        """Take one sample: it ends in the metadata or among the rejected."""
        try:
            if sample.error is not None or sample.image is None:
                raise sample.error or SampleError("no_image")
            image = decode_image(sample.image, max_pixels=self._config.input.max_pixels, min_side=self._encoder.min_side)
            prepared = self._encoder.prepare(image.pixels, image.box)
            inner = self._prepare_inner(image) if self._has_looks else None
            if self._thumbnails is not None:
                self._small.append(make_thumbnail(image.pixels, image.box))
        except SampleError as error:
            self._reject(sample.shard, sample.key, error)
            return
        if inner is not None:
            self._framed[len(self._rows)] = inner
        self._prepared.append(prepared)
        self._rows.append(
            {
                "shard": sample.shard,
                "key": sample.key,
                "url": sample.url,
                "caption": sample.caption,
                "sha256": hashlib.sha256(sample.image).hexdigest(),
                "width": image.width,
                "height": image.height,
                "n_bytes": sample.n_bytes,
                "byte_offset": sample.byte_offset,
                **sample.carried,
            }
        )
        if len(self._rows) >= self._config.embed.batch_size:
            self.flush()

    def flush(self) -> None:
        """Encode and write what is held."""
        if self._rows:
            vectors, quality = self._encoder.encode(np.stack(self._prepared))
            finite = np.asarray(np.isfinite(vectors).all(axis=1))
            for place in np.flatnonzero(~finite).tolist():
                row = self._rows[place]
                self._reject(row["shard"], row["key"], SampleError("bad_embedding", "the encoder's vector is not finite"))
            rows = [row for row, good in zip(self._rows, finite, strict=True) if good]
            first = (self._partition << 32) + self.n_samples
            for number, (row, value) in enumerate(zip(rows, quality[finite].tolist(), strict=True)):
                row["sample_id"], row["quality"] = first + number, value
            self._vectors.write(vectors[finite])
            self._write_inner(finite, first)
            self._metadata.write(pa.Table.from_pylist(rows, schema=self._metadata_table.schema))
            if self._thumbnails is not None:
                self._thumbnails.write([small for small, good in zip(self._small, finite, strict=True) if good])
            self.n_samples += len(rows)
            self._prepared.clear()
            self._small.clear()
            self._framed.clear()
            self._rows.clear()
        if self._rejects:
            self._rejected.write(pa.Table.from_pylist(self._rejects, schema=REJECTED))
            self._rejects.clear()

    def _prepare_inner(self, image: DecodedImage) -> npt.NDArray[np.float32] | None:
        """The picture inside a frame, if there is one, prepared."""
        found = picture_box(image.pixels)
        if found is None:
            return None
        # a reduced image ends inside its last column and row
        left, top, right, bottom = image.box
        box = (max(left, found[0]), max(top, found[1]), min(right, found[2]), min(bottom, found[3]))
        return self._encoder.prepare(image.pixels, box)

    def _write_inner(self, is_kept: npt.NDArray[np.bool_], first: int) -> None:
        """Encode and write the pictures inside frames; `first` is the sample_id of the batch's first row that is kept."""
        rows = np.array([row for row in self._framed if is_kept[row]], dtype=np.int64)
        if len(rows):
            vectors, quality = self._encoder.encode(np.stack([self._framed[row] for row in rows.tolist()]))
            good = np.isfinite(vectors).all(axis=1) & (quality >= _LEAST_INNER_QUALITY)
            sample_ids = first + np.cumsum(is_kept)[rows] - 1
            self._inner.write(vectors[good])
            self._inner_ids.write(sample_ids[good][:, None])

    def close(self) -> dict[str, int]:
        """Finish the files; returns their names under `embeddings/` with their sizes in bytes."""
        self.flush()
        self._vectors.close()
        self._inner.close()
        self._inner_ids.close()
        self._metadata.close()
        self._rejected.close()
        if self._thumbnails is not None:
            self._thumbnails.close()
        sizes = {}
        for name, url in self._paths.items():
            fs, path = filesystem(url)
            sizes[name] = int(fs.size(path))
        return sizes

    def _reject(self, shard: str, key: str, error: SampleError) -> None:
        self._rejects.append({"shard": shard, "key": key, "reason": error.reason, "detail": error.detail})
        self.n_rejected += 1
        self.reasons[error.reason] += 1

    def __enter__(self) -> PartitionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._vectors.abort()
            self._inner.abort()
            self._inner_ids.abort()
            self._metadata.abort()
            self._rejected.abort()
            if self._thumbnails is not None:
                self._thumbnails.abort()
