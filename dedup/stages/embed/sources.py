"""What the stage `embed` reads (shards, folders or files of embeddings) and takes over: the partitions of the run it adds to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from dedup.config import Config
from dedup.contracts import JsonDict
from dedup.encoders import encoder_fingerprint
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.runs.directory import Run
from dedup.runs.record import StageRecord, differences_of, digest
from dedup.stages.embed.moved import Moves, Source, find_moved, prefixes_of, relocated, relocated_marker
from dedup.stages.embed.new_files import only_new_files
from dedup.stages.embed.texts import missing_columns, refusal
from dedup.stages.stage import StageContext, StageInputs
from dedup.storage.atomic import link_or_copy, link_to, linked_place, write_json
from dedup.storage.images.thumbnails import remove_thumbnails, thumbnail_paths
from dedup.storage.input.content import content_stamp
from dedup.storage.input.published import find_embeddings
from dedup.storage.input.row_files import columns_of, is_row_file
from dedup.storage.input.sources import FolderPart, expand_shards, fingerprint, several_folders
from dedup.storage.input.tables import table_columns
from dedup.storage.tables import FileWriter
from dedup.storage.urls import absolute, filesystem, is_local, matching, read_json
from dedup.text import counted

ALSO = "also/"  # prefix of the names of the second source's files
GONE = ("absent", "unreachable")  # fingerprints of sources that can't be reached
_THREADS = 32  # a remote file system answers slowly, but many requests at a time
_SCHEMAS = 2_000  # files of rows whose columns are looked up before any work; of more the first partition tells
_PLACES = ("shard", "file")  # columns of samples that hold URLs of the input

Sources = Mapping[str, tuple[Source, str]]  # URL to the source and its fingerprint, in order of the URL


@dataclass(frozen=True)
class Partitions:
    """Which shards are in which partition."""

    next: int  # the first number never given
    urls: dict[int, list[str]]  # number to the URLs of its shards


@dataclass(frozen=True)
class InheritTask:
    """One partition to take over unchanged."""

    base: Run
    run: Run
    also: tuple[str, ...]
    partition: int
    moves: Moves


def marker_path(run: Run, partition: int) -> str:
    """The file whose presence means that a partition is done."""
    return run.path("embeddings", "_done", f"{partition:05d}.json")


def file_url(run: Run, also: tuple[str, ...], name: str) -> str:
    """URL of a file that a marker names."""
    if also and name.startswith(ALSO):
        return run.second(also[0]).path("embeddings", name.removeprefix(ALSO))
    return run.path("embeddings", name)


def has_files(run: Run, also: tuple[str, ...], files: Mapping[str, int]) -> bool:
    """Whether files exist with their sizes."""
    fs, _ = filesystem(run.url)
    for name, n_bytes in files.items():
        path = filesystem(file_url(run, also, name))[1]
        if not fs.exists(path) or fs.size(path) != n_bytes:
            return False
    return True


def read_plan(run: Run) -> Partitions:
    """The plan of a run that has embedded.

    Raises RunDirectoryError if there is none.
    """
    saved = read_json(run.path("embeddings", "_plan.json"))
    if saved is None:
        raise RunDirectoryError(
            f"{run.url} holds no run: expected embeddings/_plan.json; give the output.run_dir of a finished run as base.run_dir"
        )
    return Partitions(int(saved["next"]), {int(number): urls for number, urls in saved["partitions"].items()})


def embedded_stamps(run: Run) -> tuple[dict[str, str], dict[str, str]]:
    """Fingerprint and content stamp of every shard at the time a run embedded it; '' if its partition is not finished."""
    stamps: dict[str, str] = {}
    contents: dict[str, str] = {}
    for number, urls in read_plan(run).urls.items():
        marker = read_json(marker_path(run, number)) or {}
        for found, name in ((stamps, "stamps"), (contents, "contents")):
            found |= {url: marker.get(name, {}).get(url, "") for url in urls}
    return stamps, contents


def without_embedded(base: Run, sources: Sources, prefixes: Sequence[tuple[str, str]] = ()) -> tuple[dict[str, tuple[Source, str]], Moves]:
    """The sources, by URL with their fingerprints, that the base has not embedded; and which of those it has lie elsewhere now.

    `prefixes`: see `moved.prefixes_of`.
    Raises InputError if one that it has embedded has changed; one that can't be reached counts as unchanged.
    """
    stamps, contents = embedded_stamps(base)
    moves = find_moved(stamps, contents, {url: source for url, (source, _) in sources.items()}, prefixes)
    embedded = {moves.place(url): stamp for url, stamp in stamps.items()}
    held = {moves.place(url): stamp for url, stamp in contents.items() if moves.place(url) != url}
    changed = [url for url, (_, stamp) in sources.items() if embedded.get(url) and stamp not in (*GONE, embedded[url])]
    # a copy has its own time of modification
    changed = [url for url in changed if not held.get(url) or content_stamp(sources[url][0]) != held[url]]
    is_part = {url for url in changed if isinstance(sources[url][0], FolderPart)}  # a file more or less: which, is looked up
    changed = [url for url in changed if url not in is_part]
    if changed:
        raise InputError(
            f"{counted(len(changed), 'source')} changed since {base.url} embedded them, the first {changed[0]}; "
            "expected them unchanged: give the changed ones another name, or run without base.run_dir"
        )
    return only_new_files(base, {url: source for url, source in sources.items() if url not in embedded or url in is_part}, moves), moves


def inherit_partition(task: InheritTask) -> JsonDict:
    """Link or copy the files of one partition, with the present places of its sources, its marker last; returns the marker."""
    marker = read_json(marker_path(task.base, task.partition))
    if marker is None:
        raise RunDirectoryError(f"{task.base.url}: partition {task.partition} is not finished; run it again, then this")
    if not marker["files"].keys() >= {*thumbnail_paths(task.partition)}:
        remove_thumbnails(task.run.path("embeddings"), task.partition)
    own_marker = marker_path(task.run, task.partition)
    if any(task.moves.place(url) != url for url in marker["stamps"]) or task.moves.prefixes:
        return _inherit_moved(task, marker)
    if read_json(own_marker) == marker and has_files(task.run, task.also, marker["files"]):
        return marker
    for name in marker["files"]:
        link_or_copy(file_url(task.base, task.also, name), file_url(task.run, task.also, name))
    if not has_files(task.run, task.also, marker["files"]):
        raise RunDirectoryError(
            f"{task.base.url}: files of partition {task.partition} are not those of its marker; run it again with --redo"
        )
    write_json(own_marker, marker)
    return marker


def _inherit_moved(task: InheritTask, marker: JsonDict) -> JsonDict:
    """Take over a partition whose sources lie elsewhere now: its tables are written again."""
    own_marker, moved = marker_path(task.run, task.partition), relocated_marker(marker, task.moves)
    moved["moved"] = digest([marker, task.moves.as_dict()])
    found = read_json(own_marker) or {}
    if found.get("moved") == moved["moved"] and has_files(task.run, task.also, found["files"]):
        return found
    sizes = dict(marker["files"])
    for name in marker["files"]:
        source, target = file_url(task.base, task.also, name), file_url(task.run, task.also, name)
        if not name.endswith(".parquet"):
            place = task.moves.place(linked_place(source))
            if place and is_local(place) and is_local(target):
                link_to(place, target)
            else:
                link_or_copy(place or source, target)
            continue
        table = task.run.table("rejected" if name.startswith("rejected") else "metadata")
        with FileWriter(target, table.schema) as writer:
            writer.write(relocated(source, _PLACES, task.moves))
        fs, path = filesystem(target)
        sizes[name] = int(fs.size(path))
    moved["files"] = sizes
    if not has_files(task.run, task.also, sizes):
        raise RunDirectoryError(
            f"{task.base.url}: files of partition {task.partition} are not where base.moved or their names say; expected them unchanged: "
            "correct base.moved, or run without base.run_dir"
        )
    write_json(own_marker, moved)
    return moved


def inherit_partitions(context: StageContext) -> dict[int, JsonDict]:
    """Take over all partitions of the base; returns their markers by number."""
    if context.base is None:
        return {}
    moves: Moves = context.inputs.moved or Moves()
    if moves.exact:
        old = min(moves.exact)
        n_moved = len(moves.exact)
        context.reporter.note(f"embed: {counted(n_moved, 'source')} of the base lie elsewhere now, the first {old} at {moves.exact[old]}")
    if moves.namesakes:
        context.reporter.note(
            f"embed: {counted(len(moves.namesakes), 'source')} have the names of sources of the base that are gone, and other contents: "
            f"they count as new, the first {moves.namesakes[0]}; if it is the base's, changed, make the run again without base.run_dir"
        )
    base, also = context.base, tuple(context.config.embed.also)
    numbers = sorted(read_plan(base).urls)
    tasks = [InheritTask(base, context.run, also, number, moves) for number in numbers]
    return {numbers[place]: marker for place, marker in context.engine.map_partitions(inherit_partition, tasks)}


def source_url(source: Source) -> str:
    """The name a source has in `partitions`."""
    return source if isinstance(source, str) else source.url


def find_sources(config: Config) -> StageInputs:
    """The input, expanded, with the fingerprint of each source, without sources that the run in `base.run_dir` has embedded.

    Sources of that run that lie elsewhere now are not new; `moved` tells where they are.
    Raises InputError if nothing matches, or if a source embedded there has changed.
    """
    passed_over: Counter[str] = Counter()
    _refuse_missing_columns(config)
    if config.input.images:
        begun = read_json(Run(config.output.run_dir).path("embeddings", "_plan.json")) or {}
        cut = config.embed.images_per_partition, int(begun.get("grain", 0))
        sources: list[Source] = [*several_folders(config.input.images, config.input.captions, *cut)]
    elif config.input.embeddings:
        given = config.input
        files = find_embeddings(given.embeddings, passed_over, allow_missing=given.allow_missing, columns=given.columns, raw=given.raw)
        _refuse_carry(
            config, [name for file in files for name in file.columns], f"is no column of input.embeddings={config.input.embeddings}"
        )
        sources = [*files]
    else:
        shards = expand_shards(config.input.shards, passed_over)
        _refuse_carry_of_rows(config, shards)
        sources = [*shards]
    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = list(pool.map(lambda source: fingerprint(source, sidecar=config.input.sidecar), sources))
    by_url = {source_url(source): (source, stamp) for source, stamp in zip(sources, stamps, strict=True)}
    moves = Moves()
    if config.base.run_dir:
        by_url, moves = without_embedded(Run(config.base.run_dir), by_url, prefixes_of(config.base.moved))
    listed = digest([[url, stamp] for url, (_, stamp) in by_url.items()] + ([moves.as_dict()] if moves else []))
    return StageInputs({"input": f"{len(by_url)} shards, {listed}"}, by_url, encoder_fingerprint(config.encoder), passed_over, moves)


def _refuse_missing_columns(config: Config) -> None:
    """Stop before any work if the table of captions lacks a carried column, where its header tells.

    Raises ConfigError.
    """
    given = config.input
    if given.images and given.captions and given.carry:
        with suppress(InputError, FileNotFoundError):  # reading it will report that
            columns = table_columns(absolute(given.captions))
            _refuse_carry(config, columns, f"is no column of input.captions={given.captions}")


def _refuse_carry_of_rows(config: Config, shards: Sequence[str]) -> None:
    """Stop before any work if all shards are files of rows, and none has a carried column.

    Raises ConfigError.
    """
    missing = config.input.carry if len(shards) <= _SCHEMAS and all(map(is_row_file, shards)) else []
    columns: set[str] = set()
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(shards), _THREADS):
            if not missing:  # the first mostly have them
                return
            try:
                columns.update(name for names in pool.map(columns_of, shards[start : start + _THREADS]) for name in names)
            except Exception:  # each file system has its own; reading the file will report it
                return
            missing = missing_columns({"columns": columns, "carried": {}}, missing)
    if missing:
        _refuse_carry(config, sorted(columns), _nowhere(shards))


def _nowhere(shards: Sequence[str]) -> str:
    return f"is no column of {shards[0]}{f', nor of the other {len(shards) - 1:,}' if len(shards) > 1 else ''}"


def _refuse_carry(config: Config, columns: Sequence[str] | None, where: str) -> None:
    carry = config.input.carry
    if columns is not None and (missing := missing_columns({"columns": columns, "carried": {}}, carry)):
        raise ConfigError(refusal(missing, columns, where))


def refuse_to_embed(config: Config, inputs: StageInputs, record: StageRecord | None, *, redo: bool) -> None:
    """Stop before embeddings are lost to another encoder, or to shards that are gone for now.

    Raises InputError if a shard of a finished run is gone for now; its embeddings are kept.
    Raises RunDirectoryError if an unfinished embedding was begun with another encoder, unless `redo`.
    """
    if record is None:
        if not redo:
            _refuse_another_encoder(Run(config.output.run_dir), inputs.encoder)
        return
    gone = [url for url, (_, stamp) in inputs.sources.items() if stamp in GONE]
    if gone and not config.input.allow_missing:
        raise InputError(
            f"{len(gone)} of {counted(len(inputs.sources), config.input.source_noun)} can't be reached, the first {gone[0]}; "
            "nothing was changed: fix the input and run the same command again, or set input.allow_missing=true to continue without them"
        )


def changed_sources(config: Config, inputs: StageInputs) -> str:
    """Which sources are new, changed or gone since the run embedded, each kind with its first; '' if the run has no plan."""
    try:
        before = embedded_stamps(Run(config.output.run_dir))[0]
        base = {inputs.moved.place(url) for url in embedded_stamps(Run(config.base.run_dir))[0]} if config.base.run_dir else set()
    except RunDirectoryError:
        return ""
    before = {url: stamp for url, stamp in before.items() if url not in base}
    now = {url: stamp for url, (_, stamp) in inputs.sources.items()}
    new, gone = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    changed = sorted(url for url in now.keys() & before.keys() if before[url] and now[url] not in (*GONE, before[url]))
    words = (("new", new), ("changed", changed), ("gone", gone))
    return "; ".join(f"{counted(len(urls), 'file')} {word}{f' ({urls[0]})' if urls else ''}" for word, urls in words)


def _refuse_another_encoder(run: Run, wanted: Mapping[str, str]) -> None:
    begun = read_json(run.path("embeddings", "_encoder.json")) or {}
    differences = differences_of(begun, wanted)
    if begun and differences and matching(run.path("embeddings", "_done"), "*.json"):
        raise RunDirectoryError(
            f"{run.url}: embedding was begun with another encoder: {'; '.join(map(str, differences))}. Choose another output.run_dir, "
            "or add --redo to embed everything again"
        )
