"""Generated images of each target: where they are, in folders or shards, their pixels at one size, and which are still to be made."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from dedup.attack.parts import rows_by_number
from dedup.attack.target_list import to_generate
from dedup.config.keys import MAX_PIXELS
from dedup.contracts import Engine, Table
from dedup.errors import ConfigError, InputError, SampleError
from dedup.numerics.arraytypes import Pixels
from dedup.schemas import GENERATIONS, NAMED_FOLDERS
from dedup.storage.atomic import AtomicFile
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.input.samples import IMAGE_SUFFIXES, one_line
from dedup.storage.input.shards import read_image_bytes, read_shard
from dedup.storage.tables import FileWriter, clear, dataset
from dedup.storage.urls import filesystem, join, matching

SORTED_SQL = """
SELECT targets.number AS number, found.target_id AS target_id, found.name AS name, found.url AS url,
       found.byte_offset AS byte_offset, found.n_bytes AS n_bytes
FROM found JOIN targets ON found.target_id = targets.target_id
ORDER BY targets.number, found.name, found.url
"""

_BATCH = 10_000

_LEAST_RANGE = 3  # grey levels between the brightest and the darkest value of a channel of an image that shows anything


class Generation(NamedTuple):
    """One generated image; `byte_offset` is None for a file of its own."""

    name: str
    url: str
    byte_offset: int | None
    n_bytes: int


@dataclass(frozen=True)
class Generations:
    """The generated images of all targets; picklable."""

    folder: str  # holds a folder for each target
    listed: Table | None  # images in shards, and files named by the number of their prompt, sorted by target
    named: Table | None = None  # other folders than those named by a target_id, sorted by target

    def of_targets(self, first: int, target_ids: list[str]) -> list[list[Generation]]:
        """The generations of each of some consecutive targets, sorted by name; `first` is the place of the first in the list."""
        named, listed = (rows_by_number(table, first, len(target_ids)) for table in (self.named, self.listed))
        found = []
        for target, folders, rows in zip(target_ids, named, listed, strict=True):
            own = [image for name in (target, *(row["folder"] for row in folders)) for image in _in_folder(join(self.folder, name))]
            own += [Generation(row["name"], row["url"], row["byte_offset"], row["n_bytes"]) for row in rows]
            found.append(sorted(own, key=lambda image: (image.name, image.url)))
        return found


@dataclass(frozen=True)
class ListTask:
    """A shard of generated images to be listed."""

    shard: str
    number: int
    output: Table


@dataclass(frozen=True)
class Stack:
    """Images of one size."""

    images: Pixels  # shape (n, height, width, 3)
    places: list[Generation]  # of the images that decoded
    n_rejected: int  # images that did not decode, or show a single colour
    n_resized: int  # images that differed in size from most of them

    @property
    def names(self) -> list[str]:
        """Of the images, in their order."""
        return [place.name for place in self.places]


def find_generations(
    url: str, target_ids: list[str], scratch: str, engine: Engine, prompts: pa.Table | None = None
) -> tuple[Generations, list[str]]:
    """List the generated images; also returns notes for the user.

    `url`: folder with a folder for each target, or tars, or both.
    `scratch`: folder for the lists of folders and of images in shards.
    `prompts`: of `read_prompts`: folders may then also be named by the prompt, cut at 200 characters, or by its number, and files
    `img_NUMBER_SEED.jpg`, as published tools write them.
    Raises InputError if the folder does not exist, or holds nothing of these.
    """
    fs, path = filesystem(url)
    if not fs.isdir(path):
        raise InputError(f"{url} is not a folder; expected one with a folder of images for each target_id, or with webdataset tars")
    entries = [(str(entry["name"]).rstrip("/").rpartition("/")[2], entry) for entry in fs.ls(path, detail=True)]
    folders = {name for name, entry in entries if entry["type"] == "directory"}
    tars = sorted(name for pattern in ("*.tar", "*.tar.gz", "*.tgz") for name in matching(url, pattern))
    places = {target: number for number, target in enumerate(target_ids)}
    names = _Names.of(prompts, places)
    numbered = [(name, int(match[1])) for name, _ in entries if (match := _NUMBERED.fullmatch(name)) and prompts is not None]
    other = sorted((names.folders[name], name) for name in folders - places.keys() if name in names.folders)
    if not tars and not folders & places.keys() and not other and not numbered:
        expected = f"folders named by target_id, such as {target_ids[0]}, or tars"
        hint = "; for folders or files named by prompts, give the table of them: --prompts" if prompts is None else ""
        raise InputError(f"{url} holds no images of these targets; expected {expected}{hint}")
    notes = names.notes(folders - places.keys())
    taken = {name for name, _ in numbered}
    n_loose = sum(entry["type"] == "file" and name not in taken and _is_image(name) for name, entry in entries)
    if n_loose:
        notes.append(f"{n_loose:,} images lie beside the folders and belong to no target; they are left out")
    named = _write_named(other, join(scratch, "named")) if other else None
    if not tars and not numbered:
        return Generations(url, None, named), notes
    unsorted, listed = (Table(join(scratch, name), GENERATIONS) for name in ("found", "listed"))
    clear(unsorted)
    clear(listed)
    n_foreign = _write_numbered(numbered, names.ids, {name: int(entry["size"] or 0) for name, entry in entries}, url, unsorted)
    if n_foreign:
        notes.append(f"{n_foreign:,} files have numbers of no prompt of this list; they are left out")
    notes += _list_tars(url, tars, unsorted, engine)
    targets = pa.table({"number": pa.array(range(len(target_ids)), pa.int64()), "target_id": pa.array(target_ids, pa.string())})
    n_listed = engine.sql_to(SORTED_SQL, {"found": unsorted, "targets": targets}, listed)
    n_unlisted = int(dataset(unsorted).count_rows()) - n_listed
    if n_unlisted:
        notes.append(f"{n_unlisted:,} images in tars, or named by a number, belong to no target of the list")
    return Generations(url, listed, named), notes


# img_0012_03.jpg: the fourth image of the prompt with the index 12
_NUMBERED = re.compile(r"img_(\d+)_(\d+)\.(" + "|".join(sorted(IMAGE_SUFFIXES)) + ")", re.IGNORECASE)


@dataclass(frozen=True)
class _Names:
    """What folders and files of published tools are named by."""

    folders: dict[str, int]  # folder to place in the list: prompts that name one folder alone, and numbers
    ids: dict[int, str]  # index of a prompt to target_id
    shared: frozenset[str]  # folders that several prompts have: whose image is in them can't be told

    @classmethod
    def of(cls, prompts: pa.Table | None, places: dict[str, int]) -> _Names:
        """Of a table of prompts; those of other targets are known too, so that their images are not taken for ours."""
        if prompts is None:
            return cls({}, {}, frozenset())
        index, ids, names = (prompts[name].to_pylist() for name in ("index", "target_id", "folder"))
        counts = Counter(names)
        mine = [(number, target, name) for number, target, name in zip(index, ids, names, strict=True) if target in places]
        folders = {name: places[target] for _, target, name in mine if counts[name] == 1}
        folders |= {text: places[target] for number, target, _ in mine for text in (str(number), f"{number:04d}") if text not in counts}
        return cls(folders, dict(zip(index, ids, strict=True)), frozenset(name for name, n in counts.items() if n > 1))

    def notes(self, others: set[str]) -> list[str]:
        """What is to be said of the folders that are not named by a target_id."""
        told_apart = others & self.shared
        unknown = sorted(name for name in others - self.folders.keys() - told_apart if not name.startswith(("_", ".")))
        notes = [f"{len(unknown):,} folders match no target of the list, the first is {unknown[0]}"] if unknown else []
        if told_apart:
            text = f"{len(told_apart):,} folders are named by prompts that are equal or begin alike; the first is {min(told_apart)[:60]}"
            notes.append(f"{text}; whose images they hold can't be told, so they are left out")
        return notes


def _write_named(folders: list[tuple[int, str]], url: str) -> Table:
    table = Table(url, NAMED_FOLDERS)
    clear(table)
    with FileWriter(join(table.path, "part-00000.parquet"), table.schema) as writer:
        number, name = zip(*folders, strict=True)
        writer.write(pa.table({"number": list(number), "folder": list(name)}, schema=table.schema))
    return table


def _write_numbered(files: list[tuple[str, int]], ids: dict[int, str], sizes: dict[str, int], url: str, output: Table) -> int:
    """Write where files named by the number of their prompt are; returns how many have a number of no prompt."""
    known = [(name, ids[number]) for name, number in files if number in ids]
    place = {"number": -1, "url": url.rstrip("/") + "/", "byte_offset": 0}
    with FileWriter(join(output.path, "numbered-00000.parquet"), output.schema) as writer:
        for start in range(0, len(known), _BATCH):
            rows = [place | {"target_id": target, "name": name, "n_bytes": sizes[name]} for name, target in known[start : start + _BATCH]]
            writer.write(pa.Table.from_pylist(rows, schema=output.schema))
    return len(files) - len(known)


def _list_tars(url: str, tars: list[str], unsorted: Table, engine: Engine) -> list[str]:
    """Write where the images of tars are; returns notes."""
    prefix = url[: url.index("://") + 3] if "://" in url else ""
    tasks = [ListTask(prefix + name, number, unsorted) for number, name in enumerate(tars)]
    notes, n_nameless = [], 0
    for _, (nameless, trouble) in engine.map_partitions(list_shard, tasks):
        n_nameless += nameless
        notes += [trouble] if trouble else []
    if n_nameless:
        notes.append(f"{n_nameless:,} images in tars have no target_id in their json; they are left out")
    return notes


def _in_folder(url: str) -> list[Generation]:
    fs, path = filesystem(url)
    try:
        entries = fs.ls(path, detail=True) if fs.isdir(path) else []
    except OSError as error:
        raise InputError(f"{url} can't be listed: {one_line(error)}; run the same command again") from error
    names = {str(entry["name"]).rpartition("/")[2]: int(entry["size"] or 0) for entry in entries if entry["type"] == "file"}
    images = sorted(filter(_is_image, names))
    return [Generation(name, url.rstrip("/") + "/", 0, names[name]) for name in images]


def list_shard(task: ListTask) -> tuple[int, str]:
    """Write where a shard's images are; returns how many name no target, and what was wrong with the shard."""
    reader, rows, n_nameless = read_shard(task.shard, carry=("target_id",)), list[dict[str, object]](), 0
    with FileWriter(join(task.output.path, f"part-{task.number:05d}.parquet"), task.output.schema) as writer:
        for sample in reader:
            target = sample.carried.get("target_id")
            if target is None or sample.image is None:
                n_nameless += target is None
                continue
            place = {"url": task.shard, "byte_offset": sample.byte_offset, "n_bytes": sample.n_bytes}
            rows.append({"number": -1, "target_id": str(target), "name": sample.key} | place)
            if len(rows) >= _BATCH:
                writer.write(pa.Table.from_pylist(rows, schema=task.output.schema))
                rows.clear()
        writer.write(pa.Table.from_pylist(rows, schema=task.output.schema))
    return n_nameless, "" if reader.status == "ok" else f"{task.shard}: {reader.status}: {reader.error}"


def stack(sources: Iterable[Generation], max_side: int) -> Stack:
    """Read images and bring them to the size that most of them have, its longer side at most `max_side`."""
    images: list[Pixels] = []
    places: list[Generation] = []
    n_rejected = 0
    for place in sources:
        try:
            pixels = read_pixels(place.url, place.name, place.byte_offset, place.n_bytes)
        except (InputError, SampleError):
            n_rejected += 1
            continue
        if is_one_colour(pixels):
            n_rejected += 1
            continue
        factor = min(1.0, max_side / max(pixels.shape[:2]))
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        images.append(stretched(pixels, height, width))  # at once, so that large images are never held together
        places.append(place)
    if not images:
        return Stack(np.zeros((0, max_side, max_side, 3), np.uint8), [], n_rejected, 0)
    sizes = Counter(image.shape[:2] for image in images)
    (height, width), n_equal = max(sizes.items(), key=lambda item: (item[1], item[0]))
    out = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        out[number] = stretched(image, height, width)
        images[number] = image[:0]  # freed as the stack fills
    return Stack(out, places, n_rejected, len(out) - n_equal)


def is_one_colour(pixels: Pixels) -> bool:
    """Whether an image shows nothing: what a safety filter returns instead of an image, and what pixels that are not finite become."""
    return int(np.ptp(pixels, axis=(0, 1)).max()) < _LEAST_RANGE


def read_pixels(shard: str, key: str, byte_offset: int | None, n_bytes: int) -> Pixels:
    """Decode one image from a tar or a folder; InputError if it is gone, SampleError if it does not decode."""
    return decoded(read_image_bytes(shard, key, byte_offset, n_bytes))


def decoded(data: bytes) -> Pixels:
    """The pixels of an encoded image; SampleError if it does not decode."""
    return decode_isolated(data, max_pixels=MAX_PIXELS).pixels


def stretched(pixels: Pixels, height: int, width: int) -> Pixels:
    """The whole image, uncropped, at another size: bicubic, over the area that each pixel covers."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))


_SEED_BITS = 16  # seeds of a target: as many generations as anyone makes of one prompt

_ID_DIGITS = 11  # of the target_id that a seed begins with: 44 bits, so that seeds stay below 2^63


def first_seed(target_id: str) -> int:
    """Seed of a target's first generation; later ones follow consecutively, and no two targets share a seed.

    It depends on the target alone, so a longer list, or another split, makes no image twice.

    Examples
    --------
    >>> first_seed("000000000010abcd")
    65536
    """
    try:
        return int(target_id[:_ID_DIGITS], 16) << _SEED_BITS
    except ValueError as error:
        raise InputError(f"target_id {target_id!r} is not a number; expected hex digits as in a run's targets/") from error


def write_work(targets: str, out: str, *, n_parts: int = 1, generations: str = "") -> list[tuple[str, int, int]]:
    """Write what is still to be generated, one line per target: `target_id, prompt, first_seed, n_generations`.

    `targets`: a run's `targets/` folder.
    `n_parts`: targets are dealt out by rank, so all parts, `part-00000.jsonl` and so on, cost the same.
    `generations`: folder whose `TARGET_ID/` hold what was generated before: these count as each target's first seeds, and
    complete targets are left out.
    Returns path, number of targets and of images of each part.
    """
    if n_parts < 1:
        raise ConfigError(f"--n-parts={n_parts}; expected 1 or more")
    paths = [join(out, f"part-{number:05d}.jsonl") for number in range(n_parts)]
    n_targets, n_images = [0] * n_parts, [0] * n_parts
    with ExitStack() as whole_files:
        parts = [whole_files.enter_context(AtomicFile(path)) for path in paths]
        for rank, (_, row) in enumerate(to_generate(targets)):
            n_done = _n_images(join(generations, row["target_id"])) if generations else 0
            if (n_missing := row["n_generations"] - n_done) > 0:
                line = {"target_id": row["target_id"], "prompt": row["caption"], "first_seed": first_seed(row["target_id"]) + n_done}
                parts[rank % n_parts].write(json.dumps(line | {"n_generations": n_missing}, ensure_ascii=False).encode() + b"\n")
                n_targets[rank % n_parts] += 1
                n_images[rank % n_parts] += n_missing
    return list(zip(paths, n_targets, n_images, strict=True))


def _n_images(folder: str) -> int:
    fs, path = filesystem(folder)
    names = fs.ls(path, detail=False) if fs.isdir(path) else []
    return sum(_is_image(str(name).rpartition("/")[2]) for name in names)


def _is_image(name: str) -> bool:
    """By the suffix; names that begin with an underscore are those of files half written."""
    return not name.startswith(("_", ".")) and name.rpartition(".")[2].lower() in IMAGE_SUFFIXES
