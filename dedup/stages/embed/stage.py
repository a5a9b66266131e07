"""Stage `embed`: shards are streamed through the encoder, one partition a task (`partition.py`); resumable by partition."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from dedup.config import InputConfig
from dedup.config.encoders import encoder_kind
from dedup.contracts import JsonDict, Progress
from dedup.errors import InputError
from dedup.runs.record import digest
from dedup.schemas import PARTITIONS, WITHOUT_IMAGE
from dedup.stages.embed.partition import EmbedResult, EmbedTask, embed_partition, finished
from dedup.stages.embed.sources import (
    GONE,
    Sources,
    changed_sources,
    find_sources,
    inherit_partitions,
    marker_path,
    read_plan,
    refuse_to_embed,
    source_url,
)
from dedup.stages.embed.texts import merged, missing_columns, refusal
from dedup.stages.stage import Stage, StageContext, StageResult, always
from dedup.storage.atomic import write_json
from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.sources import FolderPart
from dedup.storage.tables import clear, write_table
from dedup.storage.urls import filesystem, join, matching, read_json
from dedup.text import counted


def plan_partitions(context: StageContext, shards: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Assign shards to partitions: partitions planned before keep their number, new ones are appended in order of their URLs.

    Numbers continue after those of the run that this one adds to, whose partitions do not change.

    Returns a list of (partition, shards), of the shards given.
    """
    path = context.run.path("embeddings", "_plan.json")
    saved, size = read_json(path) or {}, context.config.embed.shards_per_partition
    base = None if context.base is None else read_plan(context.base)
    first, inherited = (0, {}) if base is None else (base.next, base.urls)
    planned = {int(number): urls for number, urls in saved.get("partitions", {}).items() if int(number) >= first}
    given, is_same_size = set(shards), saved.get("shards_per_partition") == size
    kept = {number: urls for number, urls in planned.items() if is_same_size and given.issuperset(urls)}
    placed = {url for urls in kept.values() for url in urls}
    new = [url for url in shards if url not in placed]
    following = max(int(saved.get("next", 0)), first)  # a number is given once, even if its shards are gone
    for start in range(0, len(new), size):
        kept[following] = new[start : start + size]
        following += 1
    partitions = {str(number): urls for number, urls in sorted((inherited | kept).items())}
    parts = [source for source, _ in context.inputs.sources.values() if isinstance(source, FolderPart)]
    grain = max((part.grain for part in parts), default=saved.get("grain", 0))
    write_json(path, {"next": following, "shards_per_partition": size, "grain": grain, "partitions": partitions})
    return sorted(kept.items())


def embed(context: StageContext) -> StageResult:
    """Embed what is not embedded yet.

    Raises InputError if a shard can't be reached, after embedding the others.
    """
    sources: Sources = context.inputs.sources
    embeddings = [source for source, _ in sources.values() if isinstance(source, EmbeddingFile)]
    inherited = inherit_partitions(context)
    base_summary = _summary_of_base(context)
    if n_bare := sum(not source.metadata for source in embeddings):
        context.reporter.note(
            f"embed: {counted(n_bare, 'array')} without metadata: the rows are named by their numbers, and have no captions or addresses"
        )
    by_bytes = _by_bytes(embeddings, base_summary)
    tasks = _tasks(context, sources, by_bytes)
    _remove_others(context, {*inherited, *(task.partition for task in tasks)})
    write_json(context.run.path("embeddings", "_encoder.json"), context.inputs.encoder)
    results = {number: EmbedResult(**marker["result"]) for number, marker in inherited.items()}
    _embed(context, tasks, results)
    _note_devices(context, results)
    rows = _write_partitions(context, [results[number] for number in sorted(results)])
    _note_broken(context, [results[task.partition] for task in tasks])
    _note_crashes(context, [results[task.partition] for task in tasks])
    unreadable = _refuse_unreadable(context, list(results.values()), len(sources))
    texts = merged(result.texts for result in results.values())
    _refuse_missing_columns(context, [result.texts for result in results.values()])
    rows["metadata"] = sum(result.n_samples for result in results.values())
    rows["rejected"] = sum(result.n_rejected for result in results.values())
    reasons: Counter[str] = Counter()
    for result in results.values():
        reasons.update(result.reasons)
    seconds = sum(results[task.partition].seconds for task in tasks)
    del texts["columns"]
    texts["n_rows"] += sum(texts.pop("tables").values())
    texts["carried"] = {name: texts["carried"].get(name, 0) for name in context.config.input.carry}
    summary: JsonDict = {"rejected": dict(sorted(reasons.items())), "worker_seconds": round(seconds, 3), "texts": texts}
    if not encoder_kind(context.config.encoder.name).has_images:
        has_pixels = all(source.has_places for source in embeddings) and bool(base_summary.get("has_pixels", True))
        summary |= {"exact_by": "sha256" if by_bytes else "embedding", "has_pixels": has_pixels}
    if inherited:
        summary["n_base_samples"] = sum(results[number].n_samples for number in inherited)
    summary["n_late"] = sum(shard.get("n_late", 0) for result in results.values() for shard in result.shards)
    summary["n_without_image"] = sum(reasons[reason] for reason in WITHOUT_IMAGE)
    summary["n_images"] = rows["metadata"] + rows["rejected"] - summary["n_without_image"]
    summary |= {"n_keys": sum(result.n_keys for result in results.values()), "passed_over": _passed_over(context, results)}
    n_unreachable = sum(not shard["is_reachable"] for shard in unreadable)
    shards = [shard for result in results.values() for shard in result.shards]
    summary["n_broken_off"] = sum(shard["status"] == "truncated" and not _gave_nothing(shard) for shard in shards)
    return StageResult(rows, summary | {"n_shards": rows["partitions"], "n_unreachable": n_unreachable, "n_unreadable": len(unreadable)})


def _refuse_unreadable(context: StageContext, results: Sequence[EmbedResult], n_sources: int) -> list[JsonDict]:
    """The shards that can't be reached or read.

    Raises InputError if there are any and `input.allow_missing` is not set, or if no shard gave an image.
    """
    given = context.config.input
    unreadable = [shard for result in results for shard in result.shards if _gave_nothing(shard)]
    if unreadable and not context.config.input.allow_missing:
        first = min(unreadable, key=lambda shard: shard["is_reachable"])
        lost = "read" if first["is_reachable"] else "reached"
        others = "the others are embedded: " if len(unreadable) < n_sources else ""
        raise InputError(
            f"{len(unreadable)} of {counted(n_sources, given.source_noun)} can't be {lost}, the first: {_trouble(first)}; "
            f"{others}fix the input and run the same command again, or set input.allow_missing=true"
        )
    if not any(result.n_samples for result in results):
        where = ", ".join(given.images) or given.embeddings or counted(n_sources, "shard")
        expected = "vectors of finite numbers" if given.embeddings else "JPEG, PNG, WebP or other images"
        raise InputError(f"nothing could be read from {where}: {_why_nothing(context, results)}; expected {expected}")
    return unreadable


def _gave_nothing(shard: JsonDict) -> bool:
    """Whether a shard could not be reached or read, or breaks off before its first sample."""
    is_empty = shard["status"] == "truncated" and not shard["n_samples"] + shard["n_rejected"]
    return not shard["is_reachable"] or shard["status"] == "unreadable" or is_empty


def _why_nothing(context: StageContext, results: Sequence[EmbedResult]) -> str:
    """Why no shard gave an image."""
    reasons = sum((Counter(result.reasons) for result in results), Counter[str]()).most_common(3)
    if reasons:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
        wanted = context.config.input.images_per_sample
        is_unmet = set(dict(reasons)) == {"no_image"} and wanted not in ("all", "first")
        which = f" none has {wanted}, which input.images_per_sample asks for;" if is_unmet else ""
        return f"all samples were rejected ({listed};{which} {context.run.table('rejected').path} says more)"
    return next((_trouble(shard) for result in results for shard in result.shards if shard["error"]), "nothing in it may be an image")


def _trouble(shard: JsonDict) -> str:
    """What is wrong with a shard; errors of readers mostly begin with its URL."""
    return str(shard["error"]) if shard["shard"] in str(shard["error"]) else f"{shard['shard']}: {shard['error']}"


def _passed_over(context: StageContext, results: Mapping[int, EmbedResult]) -> dict[str, int]:
    """What was not looked at, by reason."""
    counts = Counter(context.inputs.passed_over)
    for result in results.values():
        counts.update(result.passed_over)
    return dict(sorted(counts.items()))


def _tasks(context: StageContext, sources: Sources, by_bytes: bool) -> list[EmbedTask]:
    """A task for each partition of the sources."""
    tasks = []
    for number, urls in plan_partitions(context, list(sources)):
        stamps = {url: sources[url][1] for url in urls}
        identity = digest([context.identity, by_bytes, [[url, stamp] for url, stamp in stamps.items()]])
        tasks.append(EmbedTask(context.config, number, tuple(sources[url][0] for url in urls), identity, by_bytes, stamps=stamps))
    return tasks


def _embed(context: StageContext, tasks: Sequence[EmbedTask], results: dict[int, EmbedResult]) -> None:
    """Run the tasks that are not done; `results`, by partition, hold the inherited ones and gain those of all tasks."""
    n_inherited, reporter = len(results), context.reporter
    results |= {task.partition: result for task in tasks if (result := finished(task)) is not None}
    n_done = len(results) - n_inherited
    missing = [task for task in tasks if task.partition not in results]
    if not context.config.input.allow_missing:
        _refuse_to_lose(missing)
    # the size of a batch changes how vectors round, so a resumed run continues with the size it began with
    batch_size = context.config.embed.batch_size or min((result.batch_size for result in results.values()), default=0)
    missing = [replace(task, batch_size=batch_size, encoder=context.inputs.encoder) for task in missing]
    if n_inherited:
        reporter.note(f"embed: {n_inherited:,} partitions are taken from {context.config.base.run_dir}")
    if n_done and missing:
        reporter.note(f"embed: {n_done} of {len(tasks)} partitions are done already")
    unit = f"{context.config.input.source_noun}s"
    n_shards, done, n_images, started = sum(len(task.sources) for task in missing), 0, 0, time.perf_counter()
    if missing:
        reporter.progress(Progress("embed", 0, n_shards, unit))
    for number, (_, result) in enumerate(context.engine.map_partitions(embed_partition, missing, uses_gpu="alone")):
        results[result.partition] = result
        for note in result.notes:
            reporter.note(f"embed: {note}")
        if number == 0:
            _note_missing_columns(context, result)
        done += len(result.shards)
        n_images += result.n_samples + result.n_rejected
        reporter.progress(Progress("embed", done, n_shards, unit, f", {n_images / (time.perf_counter() - started):,.0f} images/s"))


def _note_missing_columns(context: StageContext, result: EmbedResult) -> None:
    """Tell of a mistyped column as soon as it shows; it is an error only if no partition has it."""
    missing = missing_columns(merged([result.texts]), context.config.input.carry)
    if missing and result.n_samples:
        text = refusal(missing, result.texts["columns"], "is nowhere in the first partition")
        context.reporter.note(f"embed: {text}; if no other has it, the run will end with an error: if it is mistyped, stop it now")


def _refuse_missing_columns(context: StageContext, parts: Sequence[JsonDict]) -> None:
    """A carried column that nothing in the input has is mistyped; partitions of older versions did not note what they found.

    Raises InputError.
    """
    whole = merged(parts)
    missing = missing_columns(whole, context.config.input.carry)
    if missing and whole["n_samples"] and all(parts):
        text = refusal(missing, whole["columns"], _looked_in(context.config.input))
        raise InputError(f"{text}; correct input.carry and run again: all samples are then read and embedded again")


def _looked_in(given: InputConfig) -> str:
    """Where carried columns are looked for."""
    if given.embeddings or given.captions:
        return f"is no column of {given.embeddings or given.captions}"
    if given.images:
        return f"is in no json file and no table metadata.* beside an image of {', '.join(given.images)}"
    beside = ", in no parquet beside them" if given.sidecar else " (the parquet beside them is read with input.sidecar=true)"
    return f"is in no json member of the tars{beside}, and no column of the parquet or Arrow files"


def _note_devices(context: StageContext, results: Mapping[int, EmbedResult]) -> None:
    devices = {result.device.partition(":")[0] for result in results.values() if result.device}
    if len(devices) > 1 and context.config.encoder.precision == "auto":
        context.reporter.note(
            "embed: some partitions were embedded on a GPU in fp16, others on a CPU in fp32; encoder.precision makes them equal"
        )


def _summary_of_base(context: StageContext) -> JsonDict:
    """The embed summary of the run that this one adds to; empty where it adds to none."""
    record = None if context.base is None else context.base.record("embed")
    return {} if record is None else record.summary


def _by_bytes(embeddings: Sequence[EmbeddingFile], base_summary: JsonDict) -> bool:
    """Whether equal images are identified by their bytes: in all files or in none, or equal images would count as two.

    Raises InputError if the run that this one adds to identifies them by bytes, and a file lacks the digests.
    """
    without = [source.url for source in embeddings if not source.has_sha256]
    if without and base_summary.get("exact_by") == "sha256":
        raise InputError(
            f"{without[0]} has no column sha256, by which the run in base.run_dir identifies equal images; "
            "expected it in all embeddings or in none: add it, or run without base.run_dir"
        )
    return not without and base_summary.get("exact_by") != "embedding"


def _refuse_to_lose(missing: Sequence[EmbedTask]) -> None:
    """Stop before a shard that is gone for now loses the embeddings it has."""
    for task in missing:
        gone = [url for url in map(source_url, task.sources) if task.stamps[url] in GONE]
        if gone and read_json(marker_path(task.run, task.partition)):
            raise InputError(
                f"{gone[0]} can't be reached, but was embedded before, and its results are still there: "
                "fix the input and run the same command again, or set input.allow_missing=true to continue without it"
            )


def _write_partitions(context: StageContext, results: list[EmbedResult]) -> dict[str, int]:
    table = context.run.table("partitions")
    rows = [
        {"partition": result.partition, **{name: shard[name] for name in PARTITIONS.names[1:]}}
        for result in results
        for shard in result.shards
    ]
    clear(table)
    return {"partitions": write_table(table, [pa.Table.from_pylist(rows, schema=PARTITIONS)])}


def _remove_others(context: StageContext, partitions: set[int]) -> None:
    """Delete the files of partitions that are no longer part of the input."""
    for run in (context.run, *(context.run.second(name) for name in context.config.embed.also)):
        _remove_other_files(run.path("embeddings"), partitions)


def _remove_other_files(folder: str, partitions: set[int]) -> None:
    fs, _ = filesystem(folder)
    tables = ("img_emb/img_emb_*.npy", "img_inner/*.npy", "metadata/metadata_*.parquet", "rejected/rejected_*.parquet")
    for pattern in (*tables, "thumbnails/thumbnails_*.bin", "thumbnails/offsets_*.npy", "_done/*.json"):
        inner, _, names = pattern.rpartition("/")
        for name in matching(join(folder, inner), names):
            digits = name.rpartition("/")[2].rpartition(".")[0].rpartition("_")[2]
            if digits.isdigit() and int(digits) not in partitions:
                fs.rm_file(name)


def _note_broken(context: StageContext, results: list[EmbedResult]) -> None:
    for result in results:
        for shard in result.shards:
            if shard["status"] != "ok" or shard["error"]:
                status = "" if shard["status"] == "ok" else f"{shard['status']}: "
                used = "" if shard["status"] == "ok" else f" ({counted(shard['n_samples'], 'image')} before that are used)"
                context.reporter.note(f"{shard['shard']}: {status}{shard['error']}{used}")


def _note_crashes(context: StageContext, results: list[EmbedResult]) -> None:
    n_crashed = sum(result.reasons.get("decoder_crashed", 0) for result in results)
    if n_crashed:
        context.reporter.note(
            f"embed: {n_crashed:,} images crashed the process that decodes, or took too much of its time or memory; "
            f"they are in {context.run.table('rejected').path} as decoder_crashed"
        )


STAGE = Stage(
    "embed",
    reads=(),
    output_version=8,
    run=embed,
    inputs=find_sources,
    refuse=refuse_to_embed,
    changed_inputs=changed_sources,
    takes_changes=lambda config: bool(config.input.images),
    reads_samples=True,
    reads_base=always,
    told_again=("input.carry", "encoder.name", "embed.also"),
)
