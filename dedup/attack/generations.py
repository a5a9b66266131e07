"""Generated images of each target: where they are, in folders or shards, their pixels at one size, and which are still to be made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from PIL import Image

from dedup.config.keys import MAX_PIXELS
from dedup.contracts import Engine, JsonDict, Table
from dedup.errors import ConfigError, InputError, SampleError
from dedup.numerics.arraytypes import Pixels
from dedup.schemas import GENERATIONS
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
    listed: Table | None  # images in shards, sorted by target

    def of_targets(self, first: int, target_ids: list[str]) -> list[list[Generation]]:
        """The generations of each of some consecutive targets, sorted by name; `first` is the place of the first in the list."""
        generations = [_in_folder(join(self.folder, target)) for target in target_ids]
        if self.listed is not None:
            number = pc.field("number")
            rows = dataset(self.listed).to_table(filter=(number >= first) & (number < first + len(target_ids)))
            for row in rows.to_pylist():
                generations[row["number"] - first].append(Generation(row["name"], row["url"], row["byte_offset"], row["n_bytes"]))
        return generations


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
    names: list[str]  # of the images that decoded
    n_rejected: int  # images that did not decode, or show a single colour
    n_resized: int  # images that differed in size from most of them


def find_generations(url: str, target_ids: list[str], scratch: str, engine: Engine) -> tuple[Generations, list[str]]:
    """List the generated images; also returns notes for the user.

    `url`: folder with a folder for each target, or tars, or both.
    `scratch`: folder for the list of images in shards.
    Raises InputError if the folder does not exist, or holds neither.
    """
    fs, path = filesystem(url)
    if not fs.isdir(path):
        raise InputError(f"{url} is not a folder; expected one with a folder of images for each target_id, or with webdataset tars")
    tars = sorted(name for pattern in ("*.tar", "*.tar.gz", "*.tgz") for name in matching(url, pattern))
    folders = {str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=True) if entry["type"] == "directory"}
    ids, notes = set(target_ids), []
    if not tars and not folders & ids:
        raise InputError(f"{url} holds no images of these targets; expected folders named by target_id, such as {target_ids[0]}, or tars")
    if unknown := sorted(name for name in folders - ids if not name.startswith(("_", "."))):
        notes.append(f"{len(unknown):,} folders match no target of the list, the first is {unknown[0]}")
    if not tars:
        return Generations(url, None), notes
    prefix = url[: url.index("://") + 3] if "://" in url else ""
    unsorted, listed = (Table(join(scratch, name), GENERATIONS) for name in ("found", "listed"))
    clear(unsorted)
    clear(listed)
    tasks = [ListTask(prefix + name, number, unsorted) for number, name in enumerate(tars)]
    n_nameless = 0
    for _, (nameless, trouble) in engine.map_partitions(list_shard, tasks):
        n_nameless += nameless
        notes += [trouble] if trouble else []
    if n_nameless:
        notes.append(f"{n_nameless:,} images in tars have no target_id in their json; they are left out")
    targets = pa.table({"number": pa.array(range(len(target_ids)), pa.int64()), "target_id": pa.array(target_ids, pa.string())})
    n_listed = engine.sql_to(SORTED_SQL, {"found": unsorted, "targets": targets}, listed)
    n_unlisted = int(dataset(unsorted).count_rows()) - n_listed
    if n_unlisted:
        notes.append(f"{n_unlisted:,} images in tars belong to no target of the list")
    return Generations(url, listed), notes


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
    names: list[str] = []
    n_rejected = 0
    for name, url, byte_offset, n_bytes in sources:
        try:
            pixels = read_pixels(url, name, byte_offset, n_bytes)
        except (InputError, SampleError):
            n_rejected += 1
            continue
        if is_one_colour(pixels):
            n_rejected += 1
            continue
        factor = min(1.0, max_side / max(pixels.shape[:2]))
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        images.append(stretched(pixels, height, width))  # at once, so that large images are never held together
        names.append(name)
    if not images:
        return Stack(np.zeros((0, max_side, max_side, 3), np.uint8), [], n_rejected, 0)
    sizes = Counter(image.shape[:2] for image in images)
    (height, width), n_equal = max(sizes.items(), key=lambda item: (item[1], item[0]))
    out = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for place, image in enumerate(images):
        out[place] = stretched(image, height, width)
        images[place] = image[:0]  # freed as the stack fills
    return Stack(out, names, n_rejected, len(out) - n_equal)


def is_one_colour(pixels: Pixels) -> bool:
    """Whether an image shows nothing: what a safety filter returns instead of an image, and what pixels that are not finite become."""
    return int(np.ptp(pixels, axis=(0, 1)).max()) < _LEAST_RANGE


def read_pixels(shard: str, key: str, byte_offset: int | None, n_bytes: int) -> Pixels:
    """Decode one image from a tar or a folder; InputError if it is gone, SampleError if it does not decode."""
    return decode_isolated(read_image_bytes(shard, key, byte_offset, n_bytes), max_pixels=MAX_PIXELS).pixels


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
        for rank, row in enumerate(target_rows(targets)):
            n_done = _n_images(join(generations, row["target_id"])) if generations else 0
            if (n_missing := row["n_generations"] - n_done) > 0:
                line = {"target_id": row["target_id"], "prompt": row["caption"], "first_seed": first_seed(row["target_id"]) + n_done}
                parts[rank % n_parts].write(json.dumps(line | {"n_generations": n_missing}, ensure_ascii=False).encode() + b"\n")
                n_targets[rank % n_parts] += 1
                n_images[rank % n_parts] += n_missing
    return list(zip(paths, n_targets, n_images, strict=True))


def target_rows(targets: str) -> Iterator[JsonDict]:
    """`target_id`, `caption` and `n_generations` of a run's `targets/` folder, or of parquet like it.

    Raises InputError if it can't be read.
    """
    try:
        for batch in parquet_at(targets).to_batches(columns=["target_id", "caption", "n_generations"], batch_size=4_096):
            yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise InputError(f"{targets} does not exist; expected a run's targets/ folder") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{targets} can't be read as targets: {one_line(error)}; expected a run's targets/ folder") from error


def parquet_at(url: str) -> ds.Dataset:
    """A parquet file, or those of a folder."""
    fs, path = filesystem(url.rstrip("/"))
    names = matching(url, "*.parquet") if fs.isdir(path) else [path]
    return ds.dataset(names, format="parquet", filesystem=fs)


def _n_images(folder: str) -> int:
    fs, path = filesystem(folder)
    names = fs.ls(path, detail=False) if fs.isdir(path) else []
    return sum(_is_image(str(name).rpartition("/")[2]) for name in names)


def _is_image(name: str) -> bool:
    """By the suffix; names that begin with an underscore are those of files half written."""
    return not name.startswith(("_", ".")) and name.rpartition(".")[2].lower() in IMAGE_SUFFIXES
