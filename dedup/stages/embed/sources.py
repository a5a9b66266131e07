"""What the stage `embed` reads: shards, parts of a folder or files of embeddings, with what tells whether one has changed."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from dedup.config import Config
from dedup.encoders import encoder_fingerprint
from dedup.errors import InputError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.runs.record import StageRecord, differences_of, digest
from dedup.stages.embed.inherit import GONE, without_embedded
from dedup.stages.stage import StageInputs
from dedup.storage.input.published import EmbeddingFile, find_embeddings
from dedup.storage.input.sources import FolderPart, expand_shards, fingerprint, folder_parts
from dedup.storage.urls import filesystem, join, read_json

Source = str | FolderPart | EmbeddingFile  # a tar, some images of a folder, or rows of embeddings
Sources = Mapping[str, tuple[Source, str]]  # URL to the source and its fingerprint, in order of the URL


def source_url(source: Source) -> str:
    """The name a source has in `partitions`."""
    return source if isinstance(source, str) else source.url


def find_sources(config: Config) -> StageInputs:
    """The input, expanded, with the fingerprint of each source; without those that the run in `base.run_dir` has embedded.

    Raises InputError if nothing matches, or if a source that was embedded there has changed.
    """
    if config.input.images:
        sources: list[Source] = [*folder_parts(config.input.images, config.input.captions, config.embed.images_per_partition)]
    elif config.input.embeddings:
        sources = [*find_embeddings(config.input.embeddings)]
    else:
        sources = [*expand_shards(config.input.shards)]
    with ThreadPoolExecutor(32) as pool:  # a remote file system answers slowly, and many at a time
        stamps = list(pool.map(lambda source: fingerprint(source, sidecar=config.input.sidecar), sources))
    found = {source_url(source): (source, stamp) for source, stamp in zip(sources, stamps, strict=True)}
    if config.base.run_dir:
        found = without_embedded(Run(config.base.run_dir), found)
    listed = digest([[url, stamp] for url, (_, stamp) in found.items()])
    return StageInputs({"input": f"{len(found)} shards, {listed}"}, found, encoder_fingerprint(config.encoder))


def refuse_to_embed(config: Config, inputs: StageInputs, record: StageRecord | None, *, redo: bool) -> None:
    """Stop before what was embedded is lost: to another encoder, or to shards that are gone for now.

    Raises InputError if a finished run's shard is gone for now: what was made from it stands.
    Raises RunDirectoryError if an embedding that was stopped was begun with another encoder, unless `redo`.
    """
    if record is None:
        if not redo:
            _refuse_another_encoder(Run(config.output.run_dir), inputs.encoder)
        return
    gone = [url for url, (_, stamp) in inputs.sources.items() if stamp in GONE]
    if gone and not config.input.allow_missing:
        raise InputError(
            f"{len(gone)} of {len(inputs.sources)} shards can't be reached, the first {gone[0]}; nothing was changed: "
            "mend the input and run the same command again, or set input.allow_missing=true to go on without"
        )


def _refuse_another_encoder(run: Run, wanted: Mapping[str, str]) -> None:
    fs, root = filesystem(run.path("embeddings", "_done"))
    begun = read_json(run.path("embeddings", "_encoder.json")) or {}
    differences = differences_of(begun, wanted)
    if begun and differences and fs.glob(join(root, "*.json")):
        raise RunDirectoryError(
            f"{run.url}: embedding was begun with another encoder: {'; '.join(map(str, differences))}. Choose another output.run_dir, "
            "or add --redo to embed all again"
        )
