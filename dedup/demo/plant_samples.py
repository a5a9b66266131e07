"""The samples of planted shards: exact and edited copies, templates filled in, pictures inside others, and the background."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from dedup.demo.plant_sources import Sources, read_original, read_pixels
from dedup.demo.samples import pick_by_family
from dedup.demo.shards import add_members
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.image.layouts import Box, fill_region, show_inside, template_region
from dedup.numerics.image.planting import changes
from dedup.schemas.fields import FLOAT32, INT32, INT64, TEXT, field, schema
from dedup.storage.input.kinds import usual_suffix

KINDS: Final = ("exact", "edited", "template", "partial")
BACKGROUND: Final = "background"
SHOWS_OTHERS: Final = ("template", "partial")  # kinds each of whose samples takes one image more

TRUTH: Final = schema(
    field("key", TEXT, "the sample's key, unique in the whole set"),
    field("shard", TEXT, "file name of its tar"),
    field("planted_id", INT64, "which of the chosen images it is a copy of, from 0; null for the background", nullable=True),
    field("kind", TEXT, "how its image was planted: exact, edited, template, partial; or background"),
    field("count", INT32, "how many samples have its planted_id; 1 for the background"),
    field(
        "edit",
        TEXT,
        "edited: name of the change (dedup.numerics.image.planting.CHANGES); partial: inset, page or collage; null for the bytes of the "
        "original, and for templates",
        nullable=True,
    ),
    field(
        "box",
        pa.list_(FLOAT32, 4),
        "left, top, right, bottom, as shares of the written picture's width and height: of a template the region that was replaced, of a "
        "partial copy where the chosen image lies; null for others",
        nullable=True,
    ),
    field("source_shard", TEXT, "URL of the shard that the chosen image comes from"),
    field("source_key", TEXT, "its key there"),
    field("caption", TEXT, "its caption there, which all its copies have"),
    field("sha256", TEXT, "SHA-256 of the image bytes that were written, 64 hex digits"),
)

_EDITS: Final = tuple(change for change in changes() if change.is_expected)
_EDIT_QUALITY: Final = (75, 96)  # JPEG, drawn from this range
_PICTURE_QUALITY: Final = 92  # JPEG, of templates and of pictures inside others
_TRIES: Final = 100
_EDIT, _REGION, _LAYOUT = range(1, 4)  # what a generator is seeded for; 0 is the plan


@dataclass(frozen=True)
class Rows:
    """What every sample of a set, or of one of its shards, is; shape (n,) each."""

    source: npt.NDArray[np.int64]  # number in `Sources` of the image that is copied
    other: npt.NDArray[np.int64]  # of the image that fills a template or holds a partial copy; -1 = none
    planted_id: npt.NDArray[np.int64]  # -1 = background
    kind: npt.NDArray[np.int8]  # place in `KINDS`; of the background one more
    count: npt.NDArray[np.int32]
    copy: npt.NDArray[np.int32]  # from 0, among the samples of the same planted_id

    def __len__(self) -> int:
        return len(self.source)

    def take(self, places: npt.NDArray[np.int64] | slice) -> Rows:
        """Some of the samples."""
        return Rows(*(getattr(self, name)[places] for name in Rows.__dataclass_fields__))

    def each(self) -> Iterator[Row]:
        """The samples one by one."""
        columns = (getattr(self, name).tolist() for name in Rows.__dataclass_fields__)
        for source, other, planted_id, kind, count, copy in zip(*columns, strict=True):
            yield Row(source, other, planted_id, (*KINDS, BACKGROUND)[kind], count, copy)


@dataclass(frozen=True)
class Row:
    """What one sample is."""

    source: int
    other: int
    planted_id: int
    kind: str
    count: int
    copy: int


@dataclass(frozen=True)
class WriteTask:
    """One shard to write."""

    folder: Path
    number: int
    rows: Rows
    sources: Sources
    seed: int


@dataclass(frozen=True)
class Made:
    """The image of a sample."""

    image: bytes
    edit: str | None = None
    box: list[float] | None = None


def write_shard(task: WriteTask) -> pa.Table:
    """Write a tar; returns its rows of `TRUTH`, in its order.

    Raises InputError if an image is no longer where it was.
    """
    name = f"{task.number:05d}.tar"
    numbers = np.unique(np.concatenate([task.rows.source, task.rows.other]))
    sources = task.sources.rows(numbers[numbers >= 0])
    truth = []
    with tarfile.open(task.folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, row in enumerate(task.rows.each()):
            source, other = sources[row.source], sources.get(row.other)
            made = make(row, source, other, task.seed)
            entry = {
                "key": f"{task.number:05d}{index:04d}",
                "planted_id": None if row.planted_id < 0 else row.planted_id,
                "source_shard": source["shard"],
                "source_key": source["key"],
                "caption": source["caption"],
                "sha256": hashlib.sha256(made.image).hexdigest(),
            }
            meta = entry | {"url": source["url"]} | ({} if other is None else {"other_shard": other["shard"], "other_key": other["key"]})
            members = [
                (usual_suffix(made.image), made.image),
                ("txt", source["caption"].encode()),
                ("json", json.dumps(meta, ensure_ascii=False).encode()),
            ]
            add_members(tar, entry["key"], members)
            truth.append(entry | {"shard": name, "kind": row.kind, "count": row.count, "edit": made.edit, "box": made.box})
    return pa.Table.from_pylist(truth, schema=TRUTH)


def make(row: Row, source: dict[str, Any], other: dict[str, Any] | None, seed: int) -> Made:
    """Make the image of a sample; `source`, `other`: its rows of `Sources`."""
    if row.kind == "edited" and row.copy > 0:
        return _edited(read_original(source), read_pixels(source), np.random.default_rng([seed, _EDIT, row.planted_id, row.copy]))
    if row.kind not in SHOWS_OTHERS or other is None:
        return Made(read_original(source))
    picture, second = read_pixels(source), read_pixels(other)
    if row.kind == "template":
        # seeded without the copy: all copies of a template have one layout
        region = template_region(picture.shape[1], picture.shape[0], np.random.default_rng([seed, _REGION, row.planted_id]))
        filled = fill_region(picture, region, second)
        return Made(_jpeg(filled, _PICTURE_QUALITY), box=_shares(region, filled))
    layout, shown, box = show_inside(picture, second, np.random.default_rng([seed, _LAYOUT, row.planted_id, row.copy]))
    return Made(_jpeg(shown, _PICTURE_QUALITY), layout, _shares(box, shown))


def _edited(original: bytes, pixels: Pixels, rng: np.random.Generator) -> Made:
    """A copy with other bytes: an edit may leave a plain picture as it was, and then another is drawn."""
    for _ in range(_TRIES):
        change = pick_by_family(rng, _EDITS)
        image = _jpeg(change.apply(pixels, rng), int(rng.integers(*_EDIT_QUALITY)))
        if image != original:
            break
    return Made(image, change.name)


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _shares(box: Box, picture: Pixels) -> list[float]:
    height, width = picture.shape[:2]
    return [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
