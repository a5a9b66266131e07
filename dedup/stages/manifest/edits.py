"""What was done to each copy of a group, and which has lost least: the table `edits`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cachetools import LRUCache

from dedup.errors import InputError, SampleError
from dedup.judge.pair import JudgeInputs, PairJudge, Space, VerdictWriter
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.graph.originality import MANY, Member, PairOfCopies, mark_enlarged, put_together
from dedup.numerics.image.enlarged import is_enlarged
from dedup.runs.directory import Run
from dedup.schemas import EDGES, METADATA
from dedup.schemas.pairs import NEAR_SQL
from dedup.stages.groups.cover import judge_members, rows_per_task
from dedup.stages.stage import StageContext
from dedup.storage.arrays import clear_files
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.tables import FileWriter, ask, clear, rows_between, write_table
from dedup.storage.urls import join

_LOOKED_AT: Final = 12  # copies of a group that are looked at in full size, the likeliest originals first
_FINEST: Final = 4  # and those with most pixels
_ROUNDS: Final = 2  # in which the likeliest original is compared with the others: it may then be another
_COMPARED: Final = 64  # of a group, with the likeliest original
_NAME: Final = "edits"  # of files in `refused`
_LEAST_FACTOR: Final = 1.3  # more pixels to a side than another copy has, from which a copy may have been enlarged
_UNMOVED: Final = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])  # rows of an affine map
_MOVED: Final = 0.004  # of a side
_HELD_BYTES: Final = 256 * 1024 * 1024  # of pictures in full size
_AS_COARSE: Final = 0.04  # of the logarithm of pixels to a side, by which copies of one size differ
_MOST_PIXELS: Final = 24_000_000  # of a picture that is looked at in full size
_NEARLY: Final = 0.06  # loss by which copies may differ and still be told apart by how they were saved
_LOSSLESS: Final = ("PNG", "BMP", "TIFF", "GIF", "WebP", "WEBP", "PPM", "TGA", "JPEG XL", "JPEG2000")

# the distinct images of components that have two or more; a component may have been cut into several groups
MEMBERS_SQL = """
SELECT groups.raw_component_id AS raw_component_id, groups.component_id AS component_id,
       metadata.sample_id AS sample_id, metadata.width AS width, metadata.height AS height,
       metadata.format AS format, metadata.jpeg_quality AS jpeg_quality, metadata.shard AS shard, metadata.key AS key,
       metadata.byte_offset AS byte_offset, metadata.n_bytes AS n_bytes, metadata.member AS member, metadata.n_frames AS n_frames
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

REFUSED_SQL = """
SELECT a.raw_component_id AS raw_component_id, refused.src AS src, refused.dst AS dst
FROM refused
JOIN groups AS a ON refused.src = a.sample_id
JOIN groups AS b ON refused.dst = b.sample_id
WHERE a.component_id = b.component_id
ORDER BY a.raw_component_id, refused.src, refused.dst
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

_OF_MEMBERS: Final = (
    "sample_id", "width", "height", "format", "jpeg_quality", "shard", "key", "byte_offset", "n_bytes", "member", "n_frames",
)  # fmt: skip
_OF_EDGES: Final = ("src", "dst", "variant", "transform", "traces")
MEMBERS = pa.schema(
    [("raw_component_id", pa.int64()), ("component_id", pa.int64()), *((name, METADATA.field(name).type) for name in _OF_MEMBERS)]
)
LINKS = pa.schema([("raw_component_id", pa.int64()), *((name, EDGES.field(name).type) for name in _OF_EDGES)])
REFUSED = pa.schema([("raw_component_id", pa.int64()), ("src", pa.int64()), ("dst", pa.int64())])
COMPARED = pa.schema([("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32()), ("distance", pa.float32())])
_PLACE: Final = ("sample_id", "shard", "key", "byte_offset", "n_bytes", "member")


@dataclass(frozen=True)
class EditsTask:
    """Whole components: their distinct images, and the pairs that were compared."""

    inputs: JudgeInputs
    number: int
    members: pa.Table
    links: pa.Table
    refused: pa.Table

    @property
    def run(self) -> Run:
        """The run."""
        return self.inputs.settings.run


def find_edits(context: StageContext) -> tuple[int, pa.Table]:
    """Write the table `edits`.

    The likeliest original of each group is compared with the others, also with those that no earlier stage compared it with: who else is
    kept is found out by the same pairs. Those that are no copies go to `refused`.

    Returns the rows written, one for each distinct image of a group of several, none where pixels are not judged; and the pairs
    found to be copies, as `COMPARED`.
    """
    run, table = context.run, context.run.table("edits")
    clear(table)
    for name in (_NAME, "manifest"):  # what an earlier attempt of this stage refused, here and for the keep policy
        clear_files(run.table("refused").path, f"{name}-*.parquet")
    settings = context.judge_settings
    if settings is None:
        return write_table(table, []), COMPARED.empty_table()
    members = ask(context.engine, MEMBERS_SQL, {name: run.table(name) for name in ("groups", "metadata", "exact")}, MEMBERS)
    links = ask(context.engine, LINKS_SQL, {name: run.table(name) for name in ("edges", "groups")}, LINKS)
    refused = ask(context.engine, REFUSED_SQL, {name: run.table(name) for name in ("refused", "groups")}, REFUSED)
    components = members["raw_component_id"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(components, prepend=-1)), len(components))
    per_task = rows_per_task(len(components))
    cuts = np.unique(starts[np.searchsorted(starts, np.arange(0, len(components) + per_task, per_task)).clip(0, len(starts) - 1)])
    tasks = []
    for number, (start, stop) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        part = rows_between(members, start, stop)
        inputs = JudgeInputs(settings, part.select([*_PLACE, "n_frames"]), spaces=context.spaces)
        pairs = (_of_components(table, components[start], components[stop - 1]) for table in (links, refused))
        tasks.append(EditsTask(inputs, number, part, *pairs))
    n_rows, compared = 0, [COMPARED.empty_table()]
    for _, (n, found) in context.run_tasks("manifest", "copies", write_edits, tasks, [len(task.members) for task in tasks]):
        n_rows += n
        compared.append(found)
    return n_rows if tasks else write_table(table, []), pa.concat_tables(compared).sort_by([("src", "ascending"), ("dst", "ascending")])


def _of_components(pairs: pa.Table, first: int, last: int) -> pa.Table:
    """The pairs of the components from one to another."""
    start, stop = np.searchsorted(pairs["raw_component_id"].to_numpy(), [first, last + 1]).tolist()
    return rows_between(pairs, start, stop)


def write_edits(task: EditsTask) -> tuple[int, pa.Table]:
    """Find the edits of some groups and write them as a file; returns its rows, and the pairs found to be copies."""
    table = task.run.table("edits")
    links = _rows_by_component(task.links)
    refused = set(zip(task.refused["src"].to_pylist(), task.refused["dst"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    reader = PictureReader(task.run.path("embeddings"), None, max_pixels=task.inputs.settings.max_pixels, uses_thumbnails=False)
    refusals = VerdictWriter(task.run, f"{_NAME}-{task.number:05d}", "manifest", writes_edges=False)
    part = join(table.path, f"part-{task.number:05d}.parquet")
    with reader, refusals, task.inputs.judge() as judge, FileWriter(part, table.schema) as writer:
        reader.prefetch(Place(*(row[name] for name in _PLACE)) for row in task.members.select(_PLACE).to_pylist())
        pictures = _Pictures(reader)
        comparer = _Comparer(judge, task.inputs.spaces, refused, refusals)
        for component, images in _rows_by_component(task.members).items():
            rows += _edits_of(images, links.get(component, []), pictures, comparer)
        writer.write(pa.Table.from_pylist(rows, schema=table.schema))
    return len(rows), pa.Table.from_pylist(comparer.copies, schema=COMPARED)


def _rows_by_component(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["raw_component_id"], []).append(row)
    return found


class _Comparer:
    """Compares members of a group that were not compared yet."""

    def __init__(self, judge: PairJudge, spaces: tuple[Space, ...], refused: set[tuple[int, int]], refusals: VerdictWriter) -> None:
        self._judge, self._spaces, self._refused, self._refusals = judge, spaces, refused, refusals
        self.copies: list[dict[str, Any]] = []  # as `COMPARED`

    def compare(self, first: int, second: int) -> dict[str, Any] | None:
        """What two samples show of each other, as a row of `LINKS`; None if they are no copies, or can't be read."""
        src, dst = sorted((first, second))
        if (src, dst) in self._refused:
            return None
        outcome, similarity = judge_members(self._judge, self._spaces, src, dst)
        if not outcome.stands:
            self._refusals.add(src, dst, similarity, outcome, "group")
            self._refused.add((src, dst))
        if not outcome.stands or outcome.traces is None:
            return None
        self.copies.append({"src": src, "dst": dst, "similarity": similarity, "distance": outcome.distance})
        return {"src": src, "dst": dst, "variant": outcome.turn, "transform": outcome.transform, "traces": outcome.traces}


def _edits_of(images: list[dict[str, Any]], links: list[dict[str, Any]], pictures: _Pictures, comparer: _Comparer) -> list[dict[str, Any]]:
    """The rows of one component."""
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(images):
        groups.setdefault(row["component_id"], []).append(place)
    links = list(links)
    for is_last in [False] * _ROUNDS + [True]:
        members = _members_of(images, links)
        for places in groups.values():
            _look_closer([images[place] for place in places], [members[place] for place in places], pictures, links)
        found = (
            [] if is_last else [row for places in groups.values() for row in _compared_with_best(images, members, places, links, comparer)]
        )
        if not found:
            break
        links += found
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


def _members_of(images: list[dict[str, Any]], links: list[dict[str, Any]]) -> list[Member]:
    """What pairs say of the images of one component."""
    place_of = {row["sample_id"]: place for place, row in enumerate(images)}
    members = [Member(row["width"], row["height"], row["jpeg_quality"]) for row in images]
    pairs = [
        PairOfCopies(place_of[row["src"]], place_of[row["dst"]], row["variant"], row["transform"], row["traces"])
        for row in links
        if row["src"] in place_of and row["dst"] in place_of
    ]
    put_together(members, pairs, [row["component_id"] for row in images])
    return members


def _compared_with_best(
    images: list[dict[str, Any]], members: list[Member], group: list[int], links: list[dict[str, Any]], comparer: _Comparer
) -> list[dict[str, Any]]:
    """Compare the likeliest original of a group with the next likeliest ones, as far as they were not compared; rows of `LINKS`."""
    known = sorted((place for place in group if members[place].is_known), key=lambda place: (_loss_and_size(images, members, place), place))
    if len(known) < 3:
        return []
    best, *others = (images[place]["sample_id"] for place in known)
    compared = {row["dst"] if row["src"] == best else row["src"] for row in links if best in (row["src"], row["dst"])}
    found = (comparer.compare(best, other) for other in others[:_COMPARED] if other not in compared)
    return [row for row in found if row is not None]


def _loss_and_size(images: list[dict[str, Any]], members: list[Member], place: int) -> tuple[float, int]:
    return members[place].loss, -images[place]["width"] * images[place]["height"]


class _Pictures:
    """Pictures in full size, the last ones held."""

    def __init__(self, reader: PictureReader) -> None:
        self._reader = reader
        self._held: LRUCache[int, Pixels | None] = LRUCache(_HELD_BYTES, getsizeof=lambda pixels: 1 if pixels is None else pixels.nbytes)

    def get(self, image: dict[str, Any]) -> Pixels | None:
        """A picture; None if it is too large, or can't be read."""
        if image["width"] * image["height"] > _MOST_PIXELS:
            return None
        sample = image["sample_id"]
        if sample not in self._held:
            pixels = None
            with suppress(InputError, SampleError):  # its pairs were judged before: whoever judges them again says so
                pixels = self._reader.read(Place(*(image[name] for name in _PLACE)))
            self._held[sample] = pixels
        return self._held[sample]


def _look_closer(group: list[dict[str, Any]], members: list[Member], pictures: _Pictures, links: list[dict[str, Any]]) -> None:
    """See whether the likeliest originals were enlarged, or saved again without loss."""
    alike = _show_the_same(group, links)
    known = [place for place, member in enumerate(members) if member.is_known]
    looked = set[int]()
    while known and len(looked) < _LOOKED_AT:
        best = min(known, key=lambda place: (_loss_and_size(group, members, place), place))
        if best in looked:
            break
        looked.add(best)
        _see_enlarged(best, known, group, members, pictures, alike)
    # who sets the measure of the others' pixels must have them for its detail
    for _ in range(_FINEST if known else 0):
        finest = min(known, key=lambda place: (members[place].behind, place))
        if finest in looked:
            break
        looked.add(finest)
        _see_enlarged(finest, known, group, members, pictures, alike)
    if known:
        least = min(members[place].loss for place in known)
        near = [place for place in known if members[place].loss - least <= _NEARLY]
        for place in near[:_LOOKED_AT]:
            _see_resaved(place, near, group, members, pictures)


def _show_the_same(group: list[dict[str, Any]], links: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Places of pairs that show just the same, upright; both ways."""
    place_of = {row["sample_id"]: place for place, row in enumerate(group)}
    found = set()
    for row in links:
        if row["variant"] != "none" or row["src"] not in place_of or row["dst"] not in place_of or row["transform"] is None:
            continue
        if np.abs(np.array(row["transform"]) - _UNMOVED).max() < _MOVED:
            ends = place_of[row["src"]], place_of[row["dst"]]
            found |= {ends, ends[::-1]}
    return found


def _see_enlarged(
    best: int, known: list[int], group: list[dict[str, Any]], members: list[Member], pictures: _Pictures, alike: set[tuple[int, int]]
) -> None:
    """Whether a copy has no more detail than one with fewer pixels."""
    coarser = [members[place].coarseness - members[best].coarseness for place in known]
    if len(known) >= MANY and 2 * sum(abs(step) < _AS_COARSE for step in coarser) >= len(known):
        return  # of the size of most: a soft photo and not an enlarged one
    factors = sorted({round(float(np.exp(step)), 3) for step in coarser if np.exp(step) >= _LEAST_FACTOR}, reverse=True)
    for factor in factors:
        pixels = pictures.get(group[best])
        smaller = next(
            (
                place
                for place, step in zip(known, coarser, strict=True)
                if round(float(np.exp(step)), 3) == factor and (best, place) in alike
            ),
            None,
        )
        if pixels is not None and is_enlarged(pixels, factor, None if smaller is None else pictures.get(group[smaller])):
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
        ours, theirs = pictures.get(group[place]), pictures.get(group[other])
        if ours is not None and theirs is not None and ours.shape == theirs.shape and _is_same(ours, theirs):
            members[place].is_resaved = True
            return


def _is_same(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Whether all but a few pixels are equal: decoders differ by a grey level."""
    return bool((np.abs(a.astype(np.int16) - b) <= 1).mean() > 0.999)
