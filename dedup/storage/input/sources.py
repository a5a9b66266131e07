"""From the user's input settings to a list of shards: globs, brace ranges, lists of URLs, folders of images."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import fsspec
from braceexpand import braceexpand

from dedup.errors import ConfigError, InputError, MissingExtra
from dedup.storage.input.beside import texts_beside
from dedup.storage.input.folder_tables import FolderTable, by_table, depths_of, given_table, own_tables
from dedup.storage.input.kinds import HEAD_BYTES, is_surely_image
from dedup.storage.input.listing import Listing, list_files
from dedup.storage.input.published_rows import EmbeddingFile
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.row_tables import LANCE
from dedup.storage.input.rows import TAR_ENDINGS, sidecar_url
from dedup.storage.input.samples import file_suffix, one_line
from dedup.storage.input.stamps import stamp, stamp_of
from dedup.storage.input.walk import ELSEWHERE, SEEN, Inode
from dedup.storage.urls import absolute, filesystem, is_local, matching, open_binary
from dedup.text import counted

NO_IMAGES_TEXT: Final = "texts that belong to no image"
_PARTS, _LEAST_PER_PART, _MOST_PER_PART = 64, 128, 8_192  # parts of a folder, and images of each, about
_DIGEST_BYTES: Final = 5  # of the name of a part


@dataclass(frozen=True)
class FolderPart:
    """Some of the images of a folder: its counterpart of a tar."""

    url: str  # ``{folder}/#{number:05d}``, or ``{folder}/#`` with a digest of its first image's name
    folder: str  # absolute path or URL, without a '/' at its end
    images: tuple[str, ...]  # relative paths, sorted
    tables: tuple[FolderTable, ...] = ()  # of captions, that may name one of the images
    texts: tuple[tuple[str, ...], ...] = ()  # relative paths of the files beside each image that may hold captions; empty if there are none
    depths: tuple[tuple[int, int], ...] = ()  # of each image, see `depths_of`; empty without tables
    grain: int = 0  # images of a part, about, where the names of images tell where parts begin
    passed_over: tuple[tuple[str, int], ...] = ()  # how many files of the folder are in no part, by reason; with its first part


def expand_shards(patterns: Sequence[str], passed_over: Counter[str] | None = None) -> list[str]:
    """Expand `input.shards` into shards.

    `patterns`: each a path or any fsspec URL, in which ``*``, ``?``, ``[…]`` and ``**`` are globs (in http URLs only ``*``, since ``?``
    begins their query) and ``{a,b}``, ``{00000..00999}`` are expanded; or ``@list.txt``, a file (a path or any URL) with one of these per
    line, where empty lines and lines that begin with # are skipped. Relative paths, also in a list, start from the working directory. A
    local file with exactly the given name is taken literally, whatever characters are in it. A glob leaves out files whose names begin
    with _ or a dot, unless its own does: something is still writing them.
    `passed_over`: counts these.
    Returns without repetitions, sorted; local paths absolute and without ``file://``; of several names of one local file, links among them,
    the file's own, or the first. A shard missing from a brace range, or a remote one
    named outright, is kept: reading it reports that it can't be reached.
    Raises InputError if a glob matches no file, a local path does not exist, nor any file of a local brace range, a list can't be read,
    braces don't match, or nothing is given.
    Raises MissingExtra if an s3:// address is given and s3fs is not installed.

    Examples
    --------
    >>> expand_shards(["gs://bucket/{0..1}.tar", "gs://bucket/1.tar"])
    ['gs://bucket/0.tar', 'gs://bucket/1.tar']
    """
    if any(pattern.strip().lstrip("@").startswith("s3://") for pattern in patterns) and importlib.util.find_spec("s3fs") is None:
        raise MissingExtra("s3fs", "s3")
    found = [shard for pattern in patterns for shard in _expand(pattern.strip(), depth=0)]
    hidden = {shard for shard, is_hidden in found if is_hidden}
    shards = {shard for shard, is_hidden in found if not is_hidden}
    if passed_over is not None and hidden - shards:
        passed_over["files whose names begin with _ or a dot"] += len(hidden - shards)
    if not shards:
        only = f" but {counted(len(hidden), 'file')} that _ or a dot hides: is something still writing?" if hidden else ""
        raise InputError(f"input.shards={list(patterns)} names no shard{only or '; expected paths, globs, brace ranges or @list.txt'}")
    once = _each_file_once(sorted(shards))
    if passed_over is not None and len(once) < len(shards):
        passed_over[SEEN] += len(shards) - len(once)
    return once


def _each_file_once(shards: Sequence[str]) -> list[str]:
    """Shards without other names of local files."""
    chosen: dict[object, str] = {}
    for shard in shards:
        place: object = shard
        if is_local(shard):
            with suppress(OSError):  # reading it will report that
                status = os.stat(shard)
                place = status.st_dev, status.st_ino
        if place not in chosen or (os.path.realpath(chosen[place]) != chosen[place] and os.path.realpath(shard) == shard):
            chosen[place] = shard
    return sorted(chosen.values())


def _expand(pattern: str, depth: int) -> Iterator[tuple[str, bool]]:
    """The shards that a pattern names, each with whether it is hidden."""
    if not pattern:
        return
    if pattern.startswith("@"):
        if depth > 8:
            raise InputError(f"the list {pattern[1:]} is nested more than 8 deep; does it name itself?")
        for line in _read_lines(pattern[1:]):
            yield from _expand(line, depth + 1)
        return
    path = absolute(pattern)
    if is_local(path) and os.path.isfile(path):
        yield path, False
        return
    try:
        names = list(dict.fromkeys(braceexpand(path, escape=False))) if "{" in path else [path]
    except ValueError as error:
        raise InputError(f"{pattern!r} has braces that don't match ({one_line(error)}); expected {{00000..00999}} or {{a,b}}") from error
    for name in filter(_is_glob, names):
        yield from _glob(name)
    plain = [name for name in names if not _is_glob(name)]
    local = [name for name in plain if is_local(name)]
    if local and not any(os.path.isfile(name) for name in local):
        _refuse(pattern, local)
    yield from ((name, False) for name in plain)


def _refuse(pattern: str, names: list[str]) -> None:
    first, what = names[0], f"input.shards={pattern}"
    if os.path.isdir(first):
        names = sorted(os.listdir(first))
        endings = [ending for ending in TAR_ENDINGS if any(name.endswith(ending) for name in names)]
        rows = [] if endings else [name for name in names if is_row_file(name)]
        files = f"files as '{first}/*{posixpath.splitext(rows[0])[1]}'" if rows else f"tars as '{first}/*{[*endings, '.tar'][0]}'"
        raise InputError(f"{what} is a folder; give its {files}, or a folder of images as input.images={first}")
    if len(names) > 1:
        raise InputError(f"{what}: none of the {len(names)} files exists, the first is {first}; check folder and number of digits")
    raise InputError(f"{what}: the file {first} does not exist; check the path")


def _read_lines(url: str) -> list[str]:
    path = absolute(url)
    try:
        with fsspec.open(path, "r", encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except Exception as error:  # each file system has its own
        raise InputError(f"input.shards=@{url}: the list can't be read ({one_line(error)}); expected a shard per line") from error
    return [line for line in lines if line and not line.startswith("#")]


def _glob(pattern: str) -> list[tuple[str, bool]]:
    if is_local(pattern):
        shards = [path for path in glob.iglob(pattern, recursive=True, include_hidden=True) if os.path.isfile(path)]
        visible = set(glob.iglob(pattern, recursive=True))  # without what a dot hides, files and folders
    else:
        chain, arrow, last = pattern.rpartition("::")
        prefix = chain + arrow + last.partition("://")[0]  # the scheme as the user wrote it: s3a stays s3a
        try:
            files, path = filesystem(last)
            names = [name for name, info in files.glob(path, detail=True).items() if info["type"] == "file"]
            shards = [f"{prefix}://{files.unstrip_protocol(name).partition('://')[2]}" for name in names]
            visible = set(shards)
        except Exception as error:  # each file system has its own
            raise InputError(f"input.shards={pattern} can't be listed ({one_line(error)}); check address and credentials") from error
    if not shards:
        raise InputError(f"input.shards={pattern} matches no file; check the path, and quote it so that the shell leaves it alone")
    is_asked = posixpath.basename(pattern).startswith(("_", "."))
    return [(shard, not is_asked and (shard not in visible or posixpath.basename(shard).startswith(("_", ".")))) for shard in shards]


def _is_glob(url: str) -> bool:
    return "*" in url if url.startswith(("http://", "https://")) else any(character in url for character in "*?[")


def folder_parts(images_dir: str, captions: str, per_part: int, grain: int = 0, known: set[Inode] | None = None) -> list[FolderPart]:
    """Cut a folder of images into parts.

    `images_dir`: a folder, searched with its subfolders; a path or any fsspec URL. Hidden files and folders are passed over. Links to
    folders are followed, once; a file that several links or names lead to is one image.
    `captions`: the table of captions, or ''; then they are in text files beside the images, and in the tables that `datasets` knows, in the
    folder or a subfolder: ``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet``.
    `per_part`: images per part; 0 = where the names of images say (content-defined chunking, as of Muthitacharoen et al. 2001, "A
    low-bandwidth network file system"): the same folder is cut alike on every machine, and a file more or less changes its own part only.
    `grain`: then images per part, about, as the folder was cut before; 0 = by their number.
    `known`: see `files_below`.
    Returns images in the order of their relative paths, including files in formats that are not read: they are rejected with
    that reason rather than skipped. Files whose suffix tells nothing are included too: their bytes tell.
    Raises InputError if the folder or the file of captions does not exist, or the folder holds no image.
    Raises ConfigError if per_part is below 0.
    """
    if per_part < 0:
        raise ConfigError(f"embed.images_per_partition={per_part} is below 0; expected a number of images, or 0")
    folder = absolute(images_dir).rstrip("/")
    listing = list_files(folder, known)
    whole = FolderPart("", folder, ()) if captions else _with_what_it_holds(folder, listing)
    images, passed_over = listing.images, listing.passed_over
    if not images and passed_over[ELSEWHERE]:
        return []
    if not images:
        held = ", ".join(f"{reason} {count:,}" for reason, count in passed_over.most_common(4)) or "no files"
        raise InputError(f"input.images={images_dir} holds no image, but {held}; expected JPEG, PNG, WebP or other images: check the path")
    if captions:
        files, path = filesystem(absolute(captions))
        if not files.isfile(path):
            raise InputError(f"input.captions={captions} does not exist; expected a CSV or parquet with the columns file, caption")
        whole = _with_given_table(folder, listing, absolute(captions))
    if per_part:
        starts = {f"{number:05d}": start for number, start in enumerate(range(0, len(images), per_part))}
    else:
        grain = grain or min(_MOST_PER_PART, max(_LEAST_PER_PART, 1 << round(math.log2(max(1, len(images) // _PARTS)))))
        whole, starts = replace(whole, grain=grain), _starts_by_name(images, grain)
    ends = [*starts.values(), len(images)][1:]
    parts = [part_of(whole, name, range(start, end)) for (name, start), end in zip(starts.items(), ends, strict=True)]
    return [replace(parts[0], passed_over=tuple(sorted(passed_over.items()))), *parts[1:]]


def several_folders(folders: Sequence[str], captions: str, per_part: int, grain: int = 0) -> list[FolderPart]:
    """Cut folders of images into parts; one all of whose files another has, since it lies in it or a link leads to it, is left out.

    For the arguments and what is raised see `folder_parts`.
    """
    places = {folder: os.path.realpath(absolute(folder)) if is_local(folder) else folder.rstrip("/") for folder in folders}
    outermost: dict[str, str] = {}
    for folder, place in places.items():
        if not any(place.startswith(f"{other.rstrip('/')}/") for other in places.values()):
            outermost.setdefault(place, folder)
    known: set[Inode] | None = set() if len(outermost) > 1 else None
    parts = [folder_parts(folder, captions, per_part, grain, known) for folder in outermost.values()]
    parts = [of_folder for of_folder in parts if of_folder]
    n_inside = len(folders) - len(parts)
    if n_inside:
        passed_over = (*parts[0][0].passed_over, ("folders that are given twice, or lie in another", n_inside))
        parts[0][0] = replace(parts[0][0], passed_over=passed_over)
    return [part for of_folder in parts for part in of_folder]


def _starts_by_name(images: Sequence[str], grain: int) -> dict[str, int]:
    """Where parts begin, by their names: from half to twice the grain apart, wherever a digest of a name is round."""
    starts, last = {"0" * 2 * _DIGEST_BYTES: 0}, 0
    for place, name in enumerate(images):
        size = place - last
        if size < grain // 2:
            continue
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES)
        if size >= 2 * grain or int.from_bytes(digest.digest(), "big") % (grain // 2) == 0:
            starts[digest.hexdigest()] = last = place
    return starts


def _with_given_table(folder: str, listing: Listing, url: str) -> FolderPart:
    """The whole folder with a table that is given; it stands instead of what lies beside the images."""
    tables, own = [given_table(url, folder, listing.images)], url.removeprefix(f"{folder}/")
    others = [*listing.texts, *listing.tables]
    if n_others := len(others) - (own in others):
        listing.passed_over["texts and tables instead of which input.captions is read"] += n_others
    kind = f"files .{file_suffix(own)}"
    if own != url and own not in others and "/." not in f"/{own}" and kind in listing.passed_over:
        listing.passed_over -= Counter([kind])
    return FolderPart("", folder, tuple(listing.images), tuple(tables), depths=depths_of(listing.images, tables))


def _with_what_it_holds(folder: str, listing: Listing) -> FolderPart:
    """The whole folder with the texts beside its images and its own tables."""
    beside = tuple(texts_beside(listing.images, listing.texts))
    orphans = set(listing.texts).difference(name for names in beside for name in names)
    if pictures := sorted(name for name in orphans if _is_picture(folder, name)):
        listing.images, listing.texts = sorted([*listing.images, *pictures]), sorted(set(listing.texts).difference(pictures))
        beside = tuple(texts_beside(listing.images, listing.texts))
    refused: dict[str, str] = {}
    tables = own_tables(folder, listing.images, listing.tables, refused)
    read = {table.url for table in tables}
    others = [name for name in listing.tables if f"{folder}/{name}" not in read and name not in refused]
    listing.passed_over.update(f"files .{file_suffix(name)}" for name in others)
    if refused:
        first, reason = next(iter(refused.items()))
        listing.passed_over[f"tables metadata.* that are none of captions (the first, {first}: {reason})"] += len(refused)
    if n_orphans := len(listing.texts) - len({name for names in beside for name in names}):
        listing.passed_over[NO_IMAGES_TEXT] += n_orphans
    depths = depths_of(listing.images, tables) if tables else ()
    return FolderPart("", folder, tuple(listing.images), tuple(tables), beside if any(beside) else (), depths)


def _is_picture(folder: str, name: str) -> bool:
    """Whether a local file that is called a text is an image; on a store each look costs a request."""
    if not is_local(folder):
        return False
    try:
        with open_binary(f"{folder}/{name}") as file:
            return is_surely_image(file.read(HEAD_BYTES))
    except OSError:
        return False


def part_of(whole: FolderPart, name: str, places: Sequence[int]) -> FolderPart:
    """Some of the images of a folder, or of a part of one, as a part of that name."""
    images = tuple(whole.images[place] for place in places)
    texts = tuple(whole.texts[place] for place in places) if whole.texts else ()
    return replace(
        whole,
        url=f"{whole.folder}/#{name}",
        images=images,
        tables=tuple(by_table(images, whole.tables)),
        texts=texts if any(texts) else (),
        depths=tuple(whole.depths[place] for place in places) if whole.depths else (),
    )


def fingerprint(source: str | FolderPart | EmbeddingFile, *, sidecar: bool = False) -> str:
    """Cheap identity of a shard or part of a folder, by which a resumed run notices changes.

    `source`: URL of a shard, as `expand_shards` gives it.
    `sidecar`: whether the parquet beside a shard belongs to it.
    Returns 32 hex digits of size and modification time or ETag (for a part, of each of its images); "absent" if the file does not
    exist, "unreachable" if its file system does not answer.
    """
    url = source if isinstance(source, str) else source.url if isinstance(source, EmbeddingFile) else source.folder
    try:
        files, path = filesystem(url)
        if isinstance(source, EmbeddingFile):
            return _digest([stamp_of(files.info(path)), *([_stamp_of_rows(source.metadata)] if source.metadata else [])])
        if isinstance(source, str):
            beside = [stamp(sidecar_url(source))] if sidecar else []
            return _digest([stamp_of(files.info(path)), *beside])
        rows = [[name, *stamp_of(files.info(posixpath.join(path, name)))] for name in source.images]
        for table in source.tables:
            rows += [[table.url, *stamp(table.url)], [str(source.depths), str(table.has_exact)]]
        texts = sorted({name for names in source.texts for name in names})
        return _digest([*rows, *([name, *stamp(posixpath.join(url, name))] for name in texts)])
    except FileNotFoundError:
        return "absent"
    except Exception:  # each file system has its own; reading the shard will report what is wrong
        return "unreachable"


def _stamp_of_rows(url: str) -> list[str]:
    """The stamp of a table; of a data set of Lance those of its versions."""
    files, path = filesystem(url)
    names = matching(f"{url}/_versions", "*.manifest") if url.endswith(LANCE) else [path]
    return [text for name in names for text in stamp_of(files.info(name))]


def size_of(url: str) -> int | None:
    """Bytes of a file; None if its file system can't tell."""
    try:
        files, path = filesystem(url)
        size = files.info(path).get("size")
    except Exception:  # each file system has its own
        return None
    return int(size) if size is not None else None


def _digest(rows: list[list[str]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:32]
