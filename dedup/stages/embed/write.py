"""The vectors of one partition while they grow: of whole images, and of the pictures inside frames."""

from __future__ import annotations

import posixpath
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import pyarrow as pa

from dedup.config import Config, EncoderConfig
from dedup.encoders import load_encoder, view_maker
from dedup.encoders.encoder import Encoder
from dedup.errors import SampleError
from dedup.numerics.arraytypes import Ids, Mask, Rows32, Sims
from dedup.numerics.image.descriptor import detail
from dedup.numerics.similarity import exact_similarity
from dedup.runs.directory import Run
from dedup.runs.vectors import embedding_path, inner_paths
from dedup.schemas import REJECTED
from dedup.stages.embed.prepare import Preparation, PreparedSample, RejectedSample
from dedup.stages.embed.sources import ALSO
from dedup.stages.embed.texts import TextCounts
from dedup.storage.arrays import ArrayWriter
from dedup.storage.images.thumbnails import ThumbnailWriter, remove_thumbnails, thumbnail_paths
from dedup.storage.tables import FileWriter
from dedup.storage.urls import filesystem, join

LEAST_INNER_QUALITY = 10.0  # detail of a picture inside a frame that is worth a view of its own


class VectorFiles:
    """Files of one partition in one space of vectors.

    Parameters
    ----------
    folder : str
        The folder of the embeddings.
    partition : int
    dim : int
    prefix : str
        Begins the names that `close` returns.
    """

    def __init__(self, folder: str, partition: int, dim: int, prefix: str = "") -> None:
        whole, (inner, inner_ids) = embedding_path(folder, partition), inner_paths(folder, partition)
        self._whole = ArrayWriter(whole, (dim,), np.float16)
        self._inner = ArrayWriter(inner, (dim,), np.float16)
        self._ids = ArrayWriter(inner_ids, (1,), np.int64)
        self._named = {
            f"{prefix}img_emb/{posixpath.basename(whole)}": self._whole,
            f"{prefix}img_inner/{posixpath.basename(inner)}": self._inner,
            f"{prefix}img_inner/{posixpath.basename(inner_ids)}": self._ids,
        }

    def write(self, vectors: Rows32) -> None:
        """Append rows of whole images."""
        self._whole.write(vectors)

    def write_inner(self, vectors: Rows32, sample_ids: Ids) -> None:
        """Append rows of the pictures inside frames, with the samples they belong to."""
        self._inner.write(vectors)
        self._ids.write(sample_ids[:, None])

    def close(self) -> dict[str, int]:
        """Give the files their final names; returns these with their sizes in bytes."""
        return {name: writer.close() for name, writer in self._named.items()}

    def abort(self) -> None:
        """Leave nothing behind."""
        for writer in self._named.values():
            writer.abort()


_BATCHES_AHEAD = 2  # encoded while the next is filled: one on its way to the device, one computed
_Encoded = tuple[Rows32, Sims]


class PartitionWriter:
    """Encodes and writes prepared samples in batches; row i of the vectors is row i of the metadata and of the thumbnails.

    Parameters
    ----------
    config : Config
    encoder : Encoder
    partition : int
    batch_size : int
        Images per batch.
    keep_thumbnails : bool
        If not, thumbnails that an earlier run kept for this partition are deleted.
    overlaps : bool
        Encode in threads while the next batch is filled.
    """

    def __init__(
        self, config: Config, encoder: Encoder, partition: int, *, batch_size: int, keep_thumbnails: bool = False, overlaps: bool = False
    ) -> None:
        self._encoder, self._partition, self._batch_size = encoder, partition, batch_size
        run = Run(config.output.run_dir, config)
        folder = run.path("embeddings")
        self._metadata_table = run.table("metadata")
        self._paths = {
            f"metadata/metadata_{partition:05d}.parquet": join(self._metadata_table.path, f"metadata_{partition:05d}.parquet"),
            f"rejected/rejected_{partition:05d}.parquet": join(run.table("rejected").path, f"rejected_{partition:05d}.parquet"),
        }
        metadata, rejected = self._paths.values()
        self._vectors = VectorFiles(folder, partition, encoder.dim)
        # the encoder that takes grids: this one, or that of the second source of candidates
        name = next(iter(config.embed.also), "")
        self._of_grids = encoder if view_maker(config.encoder) else None
        if name:
            self._of_grids = load_encoder(EncoderConfig(name=name), config.engine.device)
        self._also: VectorFiles | None = None
        if name and self._of_grids:
            self._also = VectorFiles(run.second(name).path("embeddings"), partition, self._of_grids.dim, ALSO)
        self._metadata = FileWriter(metadata, self._metadata_table.schema)
        self._rejected = FileWriter(rejected, REJECTED)
        self._thumbnails: ThumbnailWriter | None = None
        if keep_thumbnails:
            self._thumbnails = ThumbnailWriter(folder, partition)
            self._paths |= {name: join(folder, name) for name in thumbnail_paths(partition)}
        else:
            remove_thumbnails(folder, partition)
        self.preparation = Preparation(
            encoder, config.input.max_pixels, finds_inner=self._of_grids is not None, keeps_thumbnails=keep_thumbnails
        )
        self._with_text, self._carry = config.embed.text, config.input.carry
        self._held: list[PreparedSample] = []
        self._rejects: list[dict[str, str | None]] = []
        self._last_sample = ("", "", 0)  # shard, key, sample_id of its first row
        self._pool = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="encode") if overlaps else None
        self._encoding: deque[tuple[list[PreparedSample], Future[_Encoded]]] = deque()
        self.n_samples: Counter[int] = Counter()  # by source
        self.n_rejected: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.texts = TextCounts()  # of the samples that are written

    def add(self, sample: PreparedSample | RejectedSample) -> None:
        """Take one sample: it goes to the metadata or to the rejected."""
        if isinstance(sample, RejectedSample):
            self._reject(sample)
            return
        self._held.append(sample)
        if len(self._held) >= self._batch_size:
            self._send()

    def flush(self) -> None:
        """Encode and write what is held."""
        if self._held:
            self._send()
        while self._encoding:
            batch, future = self._encoding.popleft()
            self._write(batch, *future.result())
        self._write_rejects()

    def _send(self) -> None:
        """Encode what is held, now or in a thread; write the oldest batch once enough are on their way."""
        batch, self._held = self._held, []
        if self._pool is None:
            self._write(batch, *self._encode(batch))
        else:
            self._encoding.append((batch, self._pool.submit(self._encode, batch)))
            while len(self._encoding) > _BATCHES_AHEAD:
                first, future = self._encoding.popleft()
                self._write(first, *future.result())
        self._write_rejects()

    def _encode(self, batch: list[PreparedSample]) -> _Encoded:
        """Vectors (n, dim), and the similarity of each to its caption (n,), NaN where there is none."""
        vectors = self._encoder.encode(np.stack([sample.prepared for sample in batch]))
        similarity = np.full(len(batch), np.nan, dtype=np.float32)
        captioned = [row for row, sample in enumerate(batch) if self._with_text and sample.row["caption"]]
        if captioned:
            caption_vectors = self._encoder.encode_captions([batch[row].row["caption"] for row in captioned])
            if caption_vectors is not None:
                similarity[captioned] = exact_similarity(vectors[captioned], caption_vectors)
        return vectors, similarity

    def _write(self, batch: list[PreparedSample], vectors: Rows32, similarity: Sims) -> None:
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        for place in np.flatnonzero(~finite).tolist():
            sample = batch[place]
            error = SampleError("bad_embedding", "the encoder's vector is not finite")
            self._reject(RejectedSample(sample.source, sample.row["shard"], sample.row["key"], error, sample.row["member"]))
        quality = detail(np.stack([sample.grid for sample in batch]))
        first = (self._partition << 32) + self.n_samples.total()
        kept = np.flatnonzero(finite).tolist()
        rows = []
        for number, place in enumerate(kept):
            to_caption = None if np.isnan(similarity[place]) else float(similarity[place])
            row = batch[place].row
            rows.append(
                row
                | {
                    "sample_id": first + number,
                    "first_image_id": self._first_image(row["shard"], row["key"], first + number),
                    "quality": float(quality[place]),
                    "caption_similarity": to_caption,
                }
            )
            self.n_samples[batch[place].source] += 1
            self.texts.add(batch[place].row, batch[place].text, self._carry)
        self._vectors.write(vectors[finite])
        if self._also is not None and self._of_grids is not None and kept:
            self._also.write(self._of_grids.encode(np.stack([batch[place].grid for place in kept])))
        self._write_inner(batch, finite, first)
        self._metadata.write(pa.Table.from_pylist(rows, schema=self._metadata_table.schema))
        if self._thumbnails is not None:
            self._thumbnails.write([batch[place].thumbnail for place in kept])

    def _first_image(self, shard: str, key: str, sample_id: int) -> int:
        """The first row of a sample, whose images come one after another; `sample_id` if this is it."""
        if self._last_sample[:2] != (shard, key):
            self._last_sample = (shard, key, sample_id)
        return self._last_sample[2]

    def _write_inner(self, batch: list[PreparedSample], is_kept: Mask, first: int) -> None:
        """Encode and write the pictures inside others; `first` is the sample_id of the batch's first kept row."""
        inner = [(row, grid) for row, sample in enumerate(batch) for grid in sample.inner if is_kept[row]]
        if inner and self._of_grids is not None:
            rows, grids = np.array([row for row, _ in inner]), np.stack([grid for _, grid in inner])
            vectors = self._of_grids.encode(grids)
            good = np.isfinite(vectors).all(axis=1) & (detail(grids) >= LEAST_INNER_QUALITY)
            sample_ids = first + np.cumsum(is_kept)[rows] - 1
            (self._also or self._vectors).write_inner(vectors[good], sample_ids[good])

    def _write_rejects(self) -> None:
        if self._rejects:
            self._rejected.write(pa.Table.from_pylist(self._rejects, schema=REJECTED))
            self._rejects.clear()

    def close(self) -> dict[str, int]:
        """Finish the files; returns their names under `embeddings/` with their sizes in bytes."""
        self.flush()
        self._stop()
        sizes: dict[str, int] = {}
        for vectors in self._files():
            sizes |= vectors.close()
        self._metadata.close()
        self._rejected.close()
        if self._thumbnails is not None:
            self._thumbnails.close()
        for name, url in self._paths.items():
            fs, path = filesystem(url)
            sizes[name] = int(fs.size(path))
        return sizes

    def _files(self) -> list[VectorFiles]:
        return [self._vectors] if self._also is None else [self._vectors, self._also]

    def _reject(self, sample: RejectedSample) -> None:
        error = sample.error
        self._rejects.append(
            {"shard": sample.shard, "key": sample.key, "member": sample.member, "reason": error.reason, "detail": error.detail}
        )
        self.n_rejected[sample.source] += 1
        self.reasons[error.reason] += 1

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PartitionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._stop()
            for vectors in self._files():
                vectors.abort()
            self._metadata.abort()
            self._rejected.abort()
            if self._thumbnails is not None:
                self._thumbnails.abort()
