"""One partition of the stage `embed`: its shards through the encoder into files, or published embeddings as they are; the marker last."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.contracts import JsonDict
from dedup.encoders import encoder_fingerprint, load_encoder
from dedup.errors import ConfigError
from dedup.machine import task_cores
from dedup.runs.directory import Run
from dedup.stages.embed.copy import CopiedRows, copy_embeddings
from dedup.stages.embed.late import join_late
from dedup.stages.embed.moved import Source
from dedup.stages.embed.prepare import in_chunks, in_order
from dedup.stages.embed.sources import has_files, marker_path, source_url
from dedup.stages.embed.texts import TextCounts
from dedup.stages.embed.write import PartitionWriter
from dedup.storage.atomic import write_json
from dedup.storage.images.isolated import why_not_isolated
from dedup.storage.input.content import content_stamp
from dedup.storage.input.folders import read_folder_part
from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.rows import sidecar_url
from dedup.storage.input.samples import RawSample, SampleReader
from dedup.storage.input.shards import read_shard
from dedup.storage.input.sources import FolderPart
from dedup.storage.input.stamps import stamp
from dedup.storage.urls import is_local, read_json


@dataclass(frozen=True)
class EmbedTask:
    """One partition: its number, its shards, and what identifies a finished result."""

    config: Config
    partition: int
    sources: tuple[Source, ...]
    identity: str
    by_bytes: bool = True
    batch_size: int = 0  # 0 = the encoder's own
    encoder: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)  # URL to fingerprint

    @property
    def run(self) -> Run:
        """The run directory that is written."""
        return Run(self.config.output.run_dir, self.config)


@dataclass(frozen=True)
class EmbedResult:
    """The outcome of a partition; seconds are its worker's, notes are for the user."""

    partition: int
    n_samples: int
    n_rejected: int
    shards: list[JsonDict] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    batch_size: int = 0
    device: str = ""
    notes: list[str] = field(default_factory=list)
    n_keys: int = 0  # samples, whose images are counted one by one otherwise
    passed_over: dict[str, int] = field(default_factory=dict)  # members and files that were not looked at, by reason
    texts: JsonDict = field(default_factory=dict)  # `TextCounts` as a dictionary


def embed_partition(task: EmbedTask) -> EmbedResult:
    """Embed the shards of one partition and write its files, the marker last.

    A shard that can't be reached leaves the partition without a marker, so that the next run tries it again.
    """
    started = time.perf_counter()
    marker_file = marker_path(task.run, task.partition)
    if (result := finished(task)) is not None:
        return result  # done by a twin: a scheduler may start a slow task a second time
    if read_json(marker_file) is not None:
        write_json(marker_file, {})  # from here on the partition is not done
    result, files = _embed_sources(task) if encoder_kind(task.config.encoder.name).has_images else _copy_sources(task)
    result = dataclasses.replace(result, seconds=time.perf_counter() - started)
    if all(shard["is_reachable"] for shard in result.shards):
        contents = {source_url(source): content_stamp(source) for source in task.sources}
        marker = {"identity": task.identity, "files": files, "result": result.__dict__, "stamps": task.stamps, "contents": contents}
        write_json(marker_file, marker)
    return result


def _embed_sources(task: EmbedTask) -> tuple[EmbedResult, dict[str, int]]:
    """Decode and encode; the result, and the files written with their sizes."""
    config = task.config
    _check_encoder(task)
    encoder = load_encoder(config.encoder, config.engine.device)
    if config.embed.text:
        encoder.encode_captions([""])  # fails now, not after hours of work, if something is missing
    batch_size = task.batch_size or encoder.batch_size
    n_threads = config.embed.decode_threads or (task_cores() if encoder.device != "cpu" else 0)
    readers: list[SampleReader] = []

    def samples() -> Iterator[tuple[int, RawSample]]:
        for number, source in enumerate(task.sources):
            readers.append(open_source(config, source))
            for sample in readers[-1]:
                yield number, sample

    keeps = keeps_thumbnails(config, task.sources)
    with PartitionWriter(config, encoder, task.partition, batch_size=batch_size, keep_thumbnails=keeps, overlaps=n_threads > 0) as writer:
        for sample in in_order(writer.preparation.each, in_chunks(samples()), n_threads):
            writer.add(sample)
        files = writer.close()
    for source, reader in zip(task.sources, readers, strict=True):
        reader.passed_over.update(_unread_sidecar(config, source))
    late = {source_url(source): reader.late for source, reader in zip(task.sources, readers, strict=True) if reader.late}
    if late:
        files |= join_late(task.run, task.partition, late, writer.texts, config, encoder)
    for reader in readers:
        writer.texts.add_sources(reader.found)
    shards = [
        _shard(source, reader, writer.n_samples[number], writer.n_rejected[number])
        for number, (source, reader) in enumerate(zip(task.sources, readers, strict=True))
    ]
    result = EmbedResult(
        task.partition,
        writer.n_samples.total(),
        writer.n_rejected.total(),
        shards,
        dict(writer.reasons),
        batch_size=min(batch_size, encoder.limit or batch_size),
        device=encoder.device,
        notes=[*encoder.notes(), *([f"images are decoded in the worker itself: {why}"] if (why := why_not_isolated()) else [])],
        n_keys=sum(reader.n_samples for reader in readers),
        passed_over=dict(sum((reader.passed_over for reader in readers), Counter())),
        texts=writer.texts.as_dict(),
    )
    return result, files


def _unread_sidecar(config: Config, source: Source) -> list[str]:
    """The parquet beside a tar, if it is there and not asked for: in the words of the accounts."""
    if config.input.sidecar or not isinstance(source, str) or is_row_file(source):
        return []
    with suppress(Exception):  # each file system has its own; and it was not asked for
        return ["parquet files beside tars, which input.sidecar=true reads"] if stamp(sidecar_url(source)) else []
    return []


def _shard(source: Source, outcome: SampleReader | CopiedRows, n_samples: int, n_rejected: int) -> JsonDict:
    return {
        "shard": source_url(source),
        "status": outcome.status,
        "error": outcome.error,
        "is_reachable": outcome.is_reachable,
        "n_samples": n_samples,
        "n_rejected": n_rejected,
        "n_late": outcome.n_late,
    }


def _check_encoder(task: EmbedTask) -> None:
    """Stop if this worker's model or decoder differs from the driver's: one run must not mix vectors of both."""
    here = encoder_fingerprint(task.config.encoder)
    different = [f"{key}: {there} there, {here.get(key)} here" for key, there in task.encoder.items() if here.get(key) != there]
    if different:
        raise ConfigError(f"a worker's encoder is not the driver's: {'; '.join(different)}; give both the same files and packages")


def _copy_sources(task: EmbedTask) -> tuple[EmbedResult, dict[str, int]]:
    """Copy precomputed embeddings; the result, and the files written with their sizes."""
    sources = [source for source in task.sources if isinstance(source, EmbeddingFile)]
    texts = TextCounts(columns={name for source in sources for name in source.columns})
    outcomes, files = copy_embeddings(task.run, task.partition, sources, texts, by_bytes=task.by_bytes)
    shards = [_shard(source, rows, rows.n_samples, rows.n_rejected) for source, rows in zip(sources, outcomes, strict=True)]
    n_samples, n_rejected = sum(rows.n_samples for rows in outcomes), sum(rows.n_rejected for rows in outcomes)
    reasons = {"bad_embedding": n_rejected} if n_rejected else {}
    result = EmbedResult(task.partition, n_samples, n_rejected, shards, reasons, n_keys=n_samples + n_rejected, texts=texts.as_dict())
    return result, files


def keeps_thumbnails(config: Config, sources: Sequence[Source]) -> bool:
    """Whether a partition of these sources gets thumbnails: by default where reading an image again costs a request."""
    setting = config.embed.thumbnails
    return setting == "true" or (setting == "auto" and any(not is_local(source_url(source)) for source in sources))


def open_source(config: Config, source: Source) -> SampleReader:
    """A reader for a shard or a part of a folder."""
    options = config.input
    if isinstance(source, EmbeddingFile):
        raise AssertionError(f"{source.url} holds no images")
    if isinstance(source, FolderPart):
        return read_folder_part(source, carry=options.carry, max_image_bytes=options.max_image_bytes)
    return read_shard(
        source,
        carry=options.carry,
        sidecar=options.sidecar,
        max_image_bytes=options.max_image_bytes,
        images=options.images_per_sample,
    )


def finished(task: EmbedTask) -> EmbedResult | None:
    """The result of a partition that is already done as this task would do it, if its files exist with their sizes."""
    marker = read_json(marker_path(task.run, task.partition))
    if marker is None or marker.get("identity") != task.identity:
        return None
    return EmbedResult(**marker["result"]) if has_files(task.run, tuple(task.config.embed.also), marker["files"]) else None
