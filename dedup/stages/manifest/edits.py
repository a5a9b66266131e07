"""What was done to each copy of a group, and which has lost least: the table `edits`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.errors import InputError, SampleError
from dedup.judge.pair import JudgeSettings
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.graph.originality import Member, PairOfCopies, mark_enlarged, put_together
from dedup.numerics.image.enlarged import detail_ratio, least_ratio
from dedup.runs.directory import Run
from dedup.schemas import EDGES, METADATA
from dedup.schemas.pairs import NEAR_SQL
from dedup.stages.stage import StageContext
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.tables import FileWriter, ask, clear, write_table
from dedup.storage.urls import join

_TASK_ROWS: Final = 2_000
_LOOKED_AT: Final = 12  # copies of a group that are looked at in full size, the likeliest originals first
_FINEST: Final = 4  # and those with most pixels
_LEAST_FACTOR: Final = 1.3  # more pixels to a side than another copy has, from which a copy may have been enlarged
_MOST_PIXELS: Final = 24_000_000  # of a picture that is looked at in full size
_NEARLY: Final = 0.06  # loss by which copies may differ and still be told apart by how they were saved
_LOSSLESS: Final = ("PNG", "BMP", "TIFF", "GIF", "WebP", "WEBP", "PPM", "TGA", "JPEG XL", "JPEG2000")

# the distinct images of components that have two or more; a component may have been cut into several groups
MEMBERS_SQL = """
SELECT groups.raw_component_id AS raw_component_id, groups.component_id AS component_id,
       metadata.sample_id AS sample_id, metadata.width AS width, metadata.height AS height,
       metadata.format AS format, metadata.jpeg_quality AS jpeg_quality, metadata.shard AS shard, metadata.key AS key,
       metadata.byte_offset AS byte_offset, metadata.n_bytes AS n_bytes, metadata.member AS member
FROM groups
JOIN metadata ON groups.sample_id = metadata.sample_id
JOIN (
    SELECT groups.raw_component_id AS raw_component_id
    FROM groups LEFT JOIN exact ON groups.sample_id = exact.sample_id
    WHERE exact.sample_id IS NULL
    GROUP BY groups.raw_component_id HAVING count(*) > 1
) AS several ON groups.raw_component_id = several.raw_component_id
LEFT JOIN exact ON groups.sample_id = exact.sample_id
WHERE exact.sample_id IS NULL
ORDER BY groups.raw_component_id, metadata.sample_id
"""

LINKS_SQL = f"""
SELECT a.raw_component_id AS raw_component_id, edges.src AS src, edges.dst AS dst, edges.variant AS variant, edges.transform AS transform,
       edges.traces AS traces
FROM edges
JOIN groups AS a ON edges.src = a.sample_id
JOIN groups AS b ON edges.dst = b.sample_id
WHERE {NEAR_SQL} AND edges.traces IS NOT NULL AND a.raw_component_id = b.raw_component_id
ORDER BY a.raw_component_id, edges.src, edges.dst
"""  # noqa: S608 (a condition of our own)

_OF_MEMBERS: Final = ("sample_id", "width", "height", "format", "jpeg_quality", "shard", "key", "byte_offset", "n_bytes", "member")
_OF_EDGES: Final = ("src", "dst", "variant", "transform", "traces")
MEMBERS = pa.schema(
    [("raw_component_id", pa.int64()), ("component_id", pa.int64()), *((name, METADATA.field(name).type) for name in _OF_MEMBERS)]
)
LINKS = pa.schema([("raw_component_id", pa.int64()), *((name, EDGES.field(name).type) for name in _OF_EDGES)])
_PLACE: Final = ("sample_id", "shard", "key", "byte_offset", "n_bytes", "member")


@dataclass(frozen=True)
class EditsTask:
    """Whole components: their distinct images, and the pairs that were compared."""

    run: Run
    settings: JudgeSettings
    number: int
    members: pa.Table
    links: pa.Table


def find_edits(context: StageContext) -> int:
    """Write the table `edits`; returns its rows: one for each distinct image of a group of several, none where pixels are not judged."""
    run, table = context.run, context.run.table("edits")
    clear(table)
    settings = context.judge_settings
    if settings is None:
        return write_table(table, [])
    members = ask(context.engine, MEMBERS_SQL, {name: run.table(name) for name in ("groups", "metadata", "exact")}, MEMBERS)
    links = ask(context.engine, LINKS_SQL, {name: run.table(name) for name in ("edges", "groups")}, LINKS)
    components = members["raw_component_id"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(components, prepend=-1)), len(components))
    cuts = np.unique(starts[np.searchsorted(starts, np.arange(0, len(components) + _TASK_ROWS, _TASK_ROWS)).clip(0, len(starts) - 1)])
    tasks = []
    of_links = links["raw_component_id"].to_numpy()
    for number, (start, stop) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        first, last = np.searchsorted(of_links, [components[start], components[stop - 1] + 1]).tolist()
        tasks.append(EditsTask(run, settings, number, members.slice(start, stop - start), links.slice(first, last - first)))
    n_rows = sum(n for _, n in context.run_tasks("manifest", "copies", write_edits, tasks, [len(task.members) for task in tasks]))
    return n_rows if tasks else write_table(table, [])


def write_edits(task: EditsTask) -> int:
    """Find the edits of some groups and write them as a file; returns its rows."""
    table = task.run.table("edits")
    links: dict[int, list[dict[str, Any]]] = {}
    for row in task.links.to_pylist():
        links.setdefault(row["raw_component_id"], []).append(row)
    reader = PictureReader(task.run.path("embeddings"), None, max_pixels=task.settings.max_pixels, uses_thumbnails=False)
    rows = []
    with reader, FileWriter(join(table.path, f"part-{task.number:05d}.parquet"), table.schema) as writer:
        reader.prefetch(Place(*(row[name] for name in _PLACE)) for row in task.members.select(_PLACE).to_pylist())
        components: dict[int, list[dict[str, Any]]] = {}
        for row in task.members.to_pylist():
            components.setdefault(row["raw_component_id"], []).append(row)
        for component, images in components.items():
            rows += _edits_of(images, links.get(component, []), reader)
        writer.write(pa.Table.from_pylist(rows, schema=table.schema))
    return len(rows)


def _edits_of(images: list[dict[str, Any]], links: list[dict[str, Any]], reader: PictureReader) -> list[dict[str, Any]]:
    """The rows of one component."""
    places = {row["sample_id"]: place for place, row in enumerate(images)}
    members = [Member(row["width"], row["height"], row["jpeg_quality"]) for row in images]
    put_together(
        members,
        [
            PairOfCopies(places[row["src"]], places[row["dst"]], row["variant"], row["transform"], row["traces"])
            for row in links
            if row["src"] in places and row["dst"] in places
        ],
        [row["component_id"] for row in images],
    )
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(images):
        groups.setdefault(row["component_id"], []).append(place)
    for group in groups.values():
        rows, own = [images[place] for place in group], [members[place] for place in group]
        _look_closer(rows, own, _Pictures(rows, reader))
    return [
        {
            "sample_id": row["sample_id"],
            "component_id": row["component_id"],
            "edits": member.edits(),
            "originality": member.originality,
            **member.figures(),
        }
        for row, member in zip(images, members, strict=True)
    ]


class _Pictures:
    """Pictures of a group in full size, each read once."""

    def __init__(self, group: list[dict[str, Any]], reader: PictureReader) -> None:
        self._group, self._reader = group, reader
        self._held: dict[int, Pixels | None] = {}

    def get(self, place: int) -> Pixels | None:
        """A picture; None if it is too large, or can't be read."""
        if place not in self._held:
            row = self._group[place]
            self._held[place] = None
            if row["width"] * row["height"] <= _MOST_PIXELS:
                with suppress(InputError, SampleError):  # its pairs were judged before: whoever judges them again says so
                    self._held[place] = self._reader.read(Place(*(row[name] for name in _PLACE)))
        return self._held[place]


def _look_closer(group: list[dict[str, Any]], members: list[Member], pictures: _Pictures) -> None:
    """See whether the likeliest originals were enlarged, or saved again without loss."""
    known = [place for place, member in enumerate(members) if member.is_known]
    looked = set[int]()
    while known and len(looked) < _LOOKED_AT:
        best = min(known, key=lambda place: (members[place].loss, -group[place]["width"] * group[place]["height"], place))
        if best in looked:
            break
        looked.add(best)
        _see_enlarged(best, known, members, pictures)
    # who sets the measure of the others' pixels must have them for its detail
    for _ in range(_FINEST if known else 0):
        finest = min(known, key=lambda place: (members[place].behind, place))
        if finest in looked:
            break
        looked.add(finest)
        _see_enlarged(finest, known, members, pictures)
    if known:
        least = min(members[place].loss for place in known)
        near = [place for place in known if members[place].loss - least <= _NEARLY]
        for place in near[:_LOOKED_AT]:
            _see_resaved(place, near, group, members, pictures)


def _see_enlarged(best: int, known: list[int], members: list[Member], pictures: _Pictures) -> None:
    """Whether a copy has no more detail than one with fewer pixels."""
    coarser = [members[place].coarseness - members[best].coarseness for place in known]
    factors = sorted({round(float(np.exp(step)), 3) for step in coarser if np.exp(step) >= _LEAST_FACTOR}, reverse=True)
    for factor in factors:
        pixels = pictures.get(best)
        ratio = None if pixels is None else detail_ratio(pixels, 1.0 / factor)
        if ratio is not None and ratio < least_ratio(factor):
            mark_enlarged(members, best, factor)
            return


def _see_resaved(place: int, near: list[int], group: list[dict[str, Any]], members: list[Member], pictures: _Pictures) -> None:
    """Whether a file without loss has the very pixels of a JPEG of its group."""
    if group[place]["format"] not in _LOSSLESS:
        return
    size = group[place]["width"], group[place]["height"]
    for other in near:
        if group[other]["format"] != "JPEG" or (group[other]["width"], group[other]["height"]) != size:
            continue
        ours, theirs = pictures.get(place), pictures.get(other)
        if ours is not None and theirs is not None and ours.shape == theirs.shape and _is_same(ours, theirs):
            members[place].is_resaved = True
            return


def _is_same(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Whether all but a few pixels are equal: decoders differ by a grey level."""
    return bool((np.abs(a.astype(np.int16) - b) <= 1).mean() > 0.999)
