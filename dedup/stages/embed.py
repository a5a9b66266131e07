"""Stage `embed`: shards are streamed through the encoder, one partition a task; resumable by partition."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from dedup.config import Config
from dedup.contracts import JsonDict, Progress
from dedup.devices import task_cores
from dedup.encoders import encoder_fingerprint, load_encoder, n_gpus
from dedup.errors import ConfigError, InputError
from dedup.schemas import PARTITIONS
from dedup.stages.context import StageContext, StageResult
from dedup.stages.decoding import in_order
from dedup.stages.inherit import GONE, has_files, inherit_partitions, marker_path, read_plan
from dedup.stages.partition import PartitionWriter
from dedup.stages.precomputed import copy_embeddings
from dedup.storage.folders import read_folder_part
from dedup.storage.layout import RunLayout, also_dir
from dedup.storage.locations import is_local
from dedup.storage.precomputed import EmbeddingFile
from dedup.storage.provenance import digest, read_record
from dedup.storage.samples import RawSample, SampleReader
from dedup.storage.shards import read_shard
from dedup.storage.sources import FolderPart
from dedup.storage.tables import clear, filesystem, join, read_json, write_json, write_table

OUTPUT_VERSION = 3
Source = str | FolderPart | EmbeddingFile  # a tar, some images of a folder, or rows of embeddings


def source_url(source: Source) -> str:
    """The name a source has in `partitions`."""
    return source if isinstance(source, str) else source.url


@dataclass(frozen=True)
class EmbedTask:
    """One partition: its number, its shards, and what identifies a finished result."""

    config: Config
    partition: int
    sources: tuple[Source, ...]
    identity: str
    by_bytes: bool = True
    batch_size: int = 0  # 0 = what suits the encoder
    encoder: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)  # URL to fingerprint


@dataclass(frozen=True)
class EmbedResult:
    """What became of a partition; seconds are those of its worker, notes what a person should know of it."""

    partition: int
    n_samples: int
    n_rejected: int
    shards: list[JsonDict] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    batch_size: int = 0
    device: str = ""
    notes: list[str] = field(default_factory=list)


def begun_with(run_dir: str) -> dict[str, str]:
    """The encoder that the finished partitions of a run were embedded with; empty where there are none."""
    fs, root = filesystem(join(run_dir, "embeddings", "_done"))
    return dict(read_json(join(run_dir, "embeddings", "_encoder.json")) or {}) if fs.glob(join(root, "*.json")) else {}


def embed_partition(task: EmbedTask) -> EmbedResult:
    """Embed the shards of one partition and write its files, the marker last.

    A shard that can't be reached leaves the partition without a marker, so that the next run tries it again.
    """
    started = time.perf_counter()
    marker_file = marker_path(task.config.output.run_dir, task.partition)
    if (result := finished(task.config.output.run_dir, task)) is not None:
        return result  # by a twin: a scheduler may start a slow task a second time
    if read_json(marker_file) is not None:
        write_json(marker_file, {})  # from here on the partition is not done
    found, files = _copy_sources(task) if task.config.encoder.name == "precomputed" else _embed_sources(task)
    result = dataclasses.replace(found, seconds=time.perf_counter() - started)
    if all(outcome["is_reachable"] for outcome in result.shards):
        marker = {"identity": task.identity, "files": files, "result": result.__dict__, "stamps": task.stamps}
        write_json(marker_file, marker)
    return result


def _embed_sources(task: EmbedTask) -> tuple[EmbedResult, dict[str, int]]:
    """Decode and encode; the result, and the files written with their sizes."""
    config = task.config
    _check_encoder(task)
    encoder = load_encoder(config.encoder)
    if config.embed.text:
        encoder.encode_captions([""])  # what it lacks is said before hours of work
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
        for sample in in_order(writer.preparation, samples(), n_threads):
            writer.add(sample)
        files = writer.close()
    outcomes: list[JsonDict] = [
        {
            "shard": source_url(source),
            "status": reader.status,
            "error": reader.error,
            "is_reachable": reader.is_reachable,
            "n_samples": writer.n_samples[number],
            "n_rejected": writer.n_rejected[number],
        }
        for number, (source, reader) in enumerate(zip(task.sources, readers, strict=True))
    ]
    found = EmbedResult(
        task.partition,
        writer.n_samples.total(),
        writer.n_rejected.total(),
        outcomes,
        dict(writer.reasons),
        batch_size=min(batch_size, encoder.limit or batch_size),
        device=encoder.device,
        notes=encoder.notes(),
    )
    return found, files


def _check_encoder(task: EmbedTask) -> None:
    """Stop where this worker has another model, or decoder, than the driver: vectors of both must not lie in one run."""
    own = encoder_fingerprint(task.config.encoder)
    different = [f"{key}: {task.encoder[key]} there, {own.get(key)} here" for key in task.encoder if own.get(key) != task.encoder[key]]
    if different:
        raise ConfigError(f"a worker's encoder is not the driver's: {'; '.join(different)}; give both the same files and packages")


def _copy_sources(task: EmbedTask) -> tuple[EmbedResult, dict[str, int]]:
    """Copy precomputed embeddings; the result, and the files written with their sizes."""
    layout = RunLayout(task.config.output.run_dir, tuple(task.config.input.carry))
    sources = [source for source in task.sources if isinstance(source, EmbeddingFile)]
    copied, files = copy_embeddings(layout, task.partition, sources, by_bytes=task.by_bytes)
    shards: list[JsonDict] = [
        {
            "shard": source.url,
            "status": rows.status,
            "error": rows.error,
            "is_reachable": rows.is_reachable,
            "n_samples": rows.n_samples,
            "n_rejected": rows.n_rejected,
        }
        for source, rows in zip(sources, copied, strict=True)
    ]
    n_samples, n_rejected = sum(rows.n_samples for rows in copied), sum(rows.n_rejected for rows in copied)
    return EmbedResult(task.partition, n_samples, n_rejected, shards, {"bad_embedding": n_rejected} if n_rejected else {}), files


def keeps_thumbnails(config: Config, sources: Sequence[Source]) -> bool:
    """Whether a partition of these sources gets thumbnails: by default where a later look at an image costs a request."""
    setting = config.embed.thumbnails
    return setting == "true" or (setting == "auto" and any(not is_local(source_url(source)) for source in sources))


def open_source(config: Config, source: Source) -> SampleReader:
    """A reader for a shard or a part of a folder."""
    options = config.input
    if isinstance(source, EmbeddingFile):
        raise AssertionError(f"{source.url} holds no images")
    if isinstance(source, FolderPart):
        return read_folder_part(source, carry=options.carry, max_image_bytes=options.max_image_bytes)
    return read_shard(source, carry=options.carry, sidecar=options.sidecar, max_image_bytes=options.max_image_bytes)


def finished(run_dir: str, task: EmbedTask) -> EmbedResult | None:
    """The result of a partition that is done as this task would do it, its files there with their sizes."""
    marker = read_json(marker_path(run_dir, task.partition))
    if marker is None or marker.get("identity") != task.identity:
        return None
    return EmbedResult(**marker["result"]) if has_files(run_dir, tuple(task.config.embed.also), marker["files"]) else None


def plan(context: StageContext, shards: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Give each shard a partition: known ones keep their number, new ones are appended in order of their URL.

    Numbers go on after those of the run that this one adds to, whose partitions stay as they are.

    Returns
    -------
    list of (partition, shards)
        Of the shards given.
    """
    path = context.layout.path("embeddings", "_plan.json")
    saved, size = read_json(path) or {}, context.config.embed.shards_per_partition
    base = None if context.base is None else read_plan(context.base.run_dir)
    first, inherited = (0, {}) if base is None else (base.next, base.partitions)
    known = {int(number): urls for number, urls in saved.get("partitions", {}).items() if int(number) >= first}
    there = set(shards)
    is_same_size = saved.get("shards_per_partition") == size
    kept = {number: urls for number, urls in known.items() if is_same_size and all(url in there for url in urls)}
    placed = {url for urls in kept.values() for url in urls}
    new = [url for url in shards if url not in placed]
    following = max(int(saved.get("next", 0)), first)  # a number is given once, even if its shards are gone
    for start in range(0, len(new), size):
        kept[following] = new[start : start + size]
        following += 1
    partitions = {str(number): urls for number, urls in sorted((inherited | kept).items())}
    write_json(path, {"next": following, "shards_per_partition": size, "partitions": partitions})
    return sorted(kept.items())


def run(context: StageContext, sources: Mapping[str, tuple[Source, str]], identity: str, encoder: dict[str, str]) -> StageResult:
    """Embed what is not embedded yet.

    Parameters
    ----------
    sources : mapping
        URL to (source, fingerprint), in order of the URL.
    identity : str
        Digest of the configuration and encoder the vectors depend on.
    encoder : dict
        The encoder's fingerprint.

    Raises
    ------
    InputError
        If a shard can't be reached; the others are embedded and stay.
    """
    run_dir = context.layout.run_dir
    copied = [source for source, _ in sources.values() if isinstance(source, EmbeddingFile)]
    inherited = inherit_partitions(context)
    before = _summary_of_base(context)
    by_bytes = _by_bytes(copied, before)
    tasks = []
    for number, urls in plan(context, list(sources)):
        members = tuple(sources[url][0] for url in urls)
        tasks.append(
            EmbedTask(
                context.config,
                number,
                members,
                digest([identity, by_bytes, [[url, sources[url][1]] for url in urls]]),
                by_bytes,
                stamps={url: sources[url][1] for url in urls},
            )
        )
    _remove_others(run_dir, context.config.embed.also, {*inherited, *(task.partition for task in tasks)})
    write_json(join(run_dir, "embeddings", "_encoder.json"), encoder)
    results: dict[int, EmbedResult] = {number: EmbedResult(**marker["result"]) for number, marker in inherited.items()}
    for task in tasks:
        if (result := finished(run_dir, task)) is not None:
            results[task.partition] = result
    missing = [task for task in tasks if task.partition not in results]
    if not context.config.input.allow_missing:
        _refuse_to_lose(run_dir, missing, sources)
    # vectors round by the size of their batch, so that a run that is resumed goes on with the one it has
    batch_size = context.config.embed.batch_size or min((result.batch_size for result in results.values()), default=0)
    missing = [dataclasses.replace(task, batch_size=batch_size, encoder=encoder) for task in missing]
    n_done = len(results) - len(inherited)
    if inherited:
        context.reporter.note(f"embed: {len(inherited):,} partitions are those of {context.config.base.run_dir}")
    if n_done and missing:
        context.reporter.note(f"embed: {n_done} of {len(tasks)} partitions are done already")
    n_shards, done, n_images, started = sum(len(task.sources) for task in missing), 0, 0, time.perf_counter()
    if missing:
        context.reporter.progress(Progress("embed", 0, n_shards, "shards"))
    found_gpus = n_gpus(context.config.encoder) if missing else 0
    for _, result in context.engine.map_partitions(embed_partition, missing, uses_gpu=True, n_gpus=found_gpus):
        results[result.partition] = result
        for note in result.notes:
            context.reporter.note(f"embed: {note}")
        done += len(result.shards)
        n_images += result.n_samples + result.n_rejected
        detail = f", {n_images / (time.perf_counter() - started):,.0f} images/s"
        context.reporter.progress(Progress("embed", done, n_shards, "shards", detail))
    devices = sorted({result.device.partition(":")[0] for result in results.values() if result.device})
    if len(devices) > 1 and context.config.encoder.precision == "auto":
        context.reporter.note(
            "embed: some partitions were embedded on a GPU in fp16, others on a CPU in fp32; encoder.precision makes them equal"
        )
    rows = _write_partitions(context, [results[number] for number in sorted(results)])
    unreachable = [shard for result in results.values() for shard in result.shards if not shard["is_reachable"]]
    _report(context, [results[task.partition] for task in tasks])
    if unreachable and not context.config.input.allow_missing:
        first = unreachable[0]
        raise InputError(
            f"{len(unreachable)} of {len(sources)} shards can't be reached, the first {first['shard']} ({first['error']}); "
            "the others are embedded: mend the input and run the same command again, or set input.allow_missing=true"
        )
    reasons: dict[str, int] = {}
    for result in results.values():
        for reason, count in result.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    rows |= {
        "metadata": sum(result.n_samples for result in results.values()),
        "rejected": sum(result.n_rejected for result in results.values()),
    }
    seconds = sum(results[task.partition].seconds for task in tasks)
    summary: JsonDict = {"rejected": dict(sorted(reasons.items())), "worker_seconds": round(seconds, 3)}
    if context.config.encoder.name == "precomputed":
        has_pixels = all(source.has_places for source in copied) and bool(before.get("has_pixels", True))
        summary |= {"exact_by": "sha256" if by_bytes else "embedding", "has_pixels": has_pixels}
    if inherited:
        summary |= {"n_base_samples": sum(results[number].n_samples for number in inherited)}
    return StageResult(rows, summary | {"n_shards": rows["partitions"], "n_unreachable": len(unreachable)})


def _summary_of_base(context: StageContext) -> JsonDict:
    """Figures of the embedding that this one adds to; empty where it adds to none."""
    record = None if context.base is None else read_record(context.base.run_dir, "embeddings")
    return {} if record is None else record.summary


def _by_bytes(copied: Sequence[EmbeddingFile], before: JsonDict) -> bool:
    """Whether equal images are known by their bytes: of all or of none, or equal images would be two.

    Raises
    ------
    InputError
        If the run that this one adds to knows them by bytes, and not all files have these.
    """
    without = [source.url for source in copied if not source.has_sha256]
    if without and before.get("exact_by") == "sha256":
        raise InputError(
            f"{without[0]} has no column sha256, by which the run in base.run_dir knows equal images; "
            "expected it of all embeddings or of none: add it, or run without base.run_dir"
        )
    return not without and before.get("exact_by") != "embedding"


def _refuse_to_lose(run_dir: str, missing: Sequence[EmbedTask], sources: Mapping[str, tuple[Source, str]]) -> None:
    """Stop before a shard that is gone for now replaces its own earlier embeddings by nothing."""
    for task in missing:
        gone = [url for url in map(source_url, task.sources) if sources[url][1] in GONE]
        if gone and read_json(marker_path(run_dir, task.partition)):
            raise InputError(
                f"{gone[0]} can't be reached, but was embedded before; what was made from it stands: "
                "mend the input and run the same command again, or set input.allow_missing=true to go on without it"
            )


def _write_partitions(context: StageContext, results: list[EmbedResult]) -> dict[str, int]:
    table = context.layout.table("partitions")
    rows = [
        {"partition": result.partition, **{name: shard[name] for name in PARTITIONS.names[1:]}}
        for result in results
        for shard in result.shards
    ]
    clear(table)
    return {"partitions": write_table(table, [pa.Table.from_pylist(rows, schema=PARTITIONS)])}


def _remove_others(run_dir: str, also: Sequence[str], partitions: set[int]) -> None:
    """Delete the files of partitions that are no longer part of the input."""
    for home in (run_dir, *(also_dir(run_dir, name) for name in also)):
        _remove_other_files(join(home, "embeddings"), partitions)


def _remove_other_files(folder: str, partitions: set[int]) -> None:
    fs, root = filesystem(folder)
    tables = ("img_emb/img_emb_*.npy", "img_inner/*.npy", "metadata/metadata_*.parquet", "rejected/rejected_*.parquet")
    for pattern in (*tables, "thumbnails/thumbnails_*.bin", "thumbnails/offsets_*.npy", "_done/*.json"):
        for name in fs.glob(join(root, pattern)):
            digits = str(name).rpartition("/")[2].rpartition(".")[0].rpartition("_")[2]
            if digits.isdigit() and int(digits) not in partitions:
                fs.rm_file(str(name))


def _report(context: StageContext, results: list[EmbedResult]) -> None:
    for result in results:
        for shard in result.shards:
            if shard["status"] != "ok" or shard["error"]:
                context.reporter.note(f"{shard['shard']}: {shard['status']}: {shard['error']} ({shard['n_samples']} samples kept)")
