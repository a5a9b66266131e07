"""Copies planted in a sample of the images, and how many of them the search and the judge find."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from dedup.calibration.draw import Drawn, Population, Work
from dedup.config import Config
from dedup.config.encoders import encoder_kind
from dedup.contracts import JsonDict, in_order
from dedup.encoders import load_encoder, view_maker
from dedup.encoders.dct import turns
from dedup.encoders.encoder import Encoder
from dedup.errors import InputError, SampleError
from dedup.judge.pair import PLACES, TURN_NAMES, InMemory, JudgeSettings, Outcome, PairJudge, find_places, likely_turns, turns_of
from dedup.numerics.arraytypes import Ids, Pixels, Rows16, Rows32, Sims
from dedup.numerics.image.descriptor import GRID, detail
from dedup.numerics.image.planting import CHANGES, changes, plant
from dedup.numerics.image.views import ViewRows
from dedup.numerics.judge.match import DRAWN
from dedup.numerics.judge.picture import use_one_thread
from dedup.numerics.search.balls import Ownership
from dedup.numerics.search.view_join import ViewRule, Views, join_views
from dedup.numerics.similarity import exact_similarity, unit_rows
from dedup.runs.directory import Run
from dedup.schemas import CALIBRATION_COPIES, conform
from dedup.stages.embed.prepare import Preparation, PreparedSample
from dedup.stages.embed.write import LEAST_INNER_QUALITY
from dedup.stages.index.views import make_views
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.input.samples import RawSample, one_line

_IMAGES_PER_TASK = 20
_SIZED_PLACES = pa.schema([*PLACES, ("width", pa.int32()), ("height", pa.int32())])
_SIDE = 256  # pixels that the shorter side keeps where an image is larger: LAION's size
_QUALITY = 90  # of the JPEG that a copy on the web is
_NUMBERS = {change.name: number for number, change in enumerate(CHANGES)}


@dataclass(frozen=True)
class CopyTask:
    """Images to plant copies of."""

    config: Config
    rows: tuple[JsonDict, ...]  # `sample_id, shard, key, byte_offset, n_bytes, width, height`, by sample_id
    changes: tuple[tuple[str, ...], ...]  # of each image, a copy for each change
    judged: tuple[tuple[bool, ...], ...]  # which of these copies are judged
    least: float  # similarity below which a copy is no candidate at any threshold
    has_views: bool
    seed: int


@dataclass
class _Copy:
    """A planted copy, prepared for the encoder."""

    place: int
    change: str
    is_judged: bool
    data: bytes
    prepared: PreparedSample


def plant_in_sample(work: Work, population: Population, drawn: Drawn) -> tuple[pa.Table, int]:
    """A table of `schemas.CALIBRATION_COPIES` of copies of the drawn images, and the number of images that could not be read."""
    config, options = work.config, work.options
    if not encoder_kind(config.encoder.name).has_images:
        named = "name the encoder that made them, such as encoder.name=clip encoder.model=ViT-B-32 encoder.pretrained=…"
        work.notes.append(f"the run holds precomputed embeddings: no copies can be planted, recall is not known; {named}")
        return CALIBRATION_COPIES.empty_table(), 0
    names = [change.name for change in changes(strengths="all" if options.strengths == "all" else "default")]
    rows = find_places(work.context.engine, work.context.run.table("metadata"), population.ids[drawn.images], _SIZED_PLACES).to_pylist()
    n_each = min(len(names), max(1, work.effort.n_copies // len(rows)))
    share = min(1.0, work.effort.n_copies_judged / (n_each * len(rows))) if work.run.judges_pixels else 0.0
    rng = np.random.default_rng([options.seed, 1])
    order = rng.permutation(len(names))
    has_views = view_maker(config.encoder) is not None and bool(work.run.index_facts.get("n_views"))
    lowest, tasks = float(work.thresholds[0]), []
    for start in range(0, len(rows), _IMAGES_PER_TASK):
        part = rows[start : start + _IMAGES_PER_TASK]
        # every change equally often, and none twice for one image
        changes_of_part = [tuple(names[order[((start + k) * n_each + j) % len(names)]] for j in range(n_each)) for k in range(len(part))]
        judged = [tuple((rng.random(n_each) < share).tolist()) for _ in part]
        tasks.append(CopyTask(config, tuple(part), tuple(changes_of_part), tuple(judged), lowest, has_views, options.seed))
    uses_gpu = encoder_kind(config.encoder.name).uses_gpu
    sizes = [len(task.rows) for task in tasks]
    results = list(in_order(work.context.run_tasks("copies", "images", plant_copies, tasks, sizes, uses_gpu=uses_gpu)))
    copies = pa.concat_tables([table for table, _ in results])
    unreadable = [text for _, texts in results for text in texts]
    if unreadable:
        work.notes.append(f"{len(unreadable):,} of {len(rows):,} drawn images can't be read, and have no copies: {unreadable[0]}")
    if not len(copies):
        work.notes.append("no copies could be planted: recall is not known")
    return copies, len(unreadable)


def plant_copies(task: CopyTask) -> tuple[pa.Table, list[str]]:
    """Make the copies of some images, and record how each would be found; also returns why some images could not be read."""
    use_one_thread()
    config, encoder = task.config, load_encoder(task.config.encoder, task.config.engine.device)
    preparation = Preparation(encoder, config.input.max_pixels, finds_inner=task.has_views, keeps_thumbnails=False)
    copies: list[_Copy] = []
    pixels: dict[int, Pixels] = {}
    unreadable: list[str] = []
    places = [Place(*(row[name] for name in ("sample_id", "shard", "key", "byte_offset", "n_bytes"))) for row in task.rows]
    run = Run(config.output.run_dir, config)
    with PictureReader(run.path("embeddings"), _SIDE, max_pixels=config.input.max_pixels, uses_thumbnails=False) as reader:
        reader.prefetch(places)
        for number, place in enumerate(places):
            try:
                pixels[number] = reader.read(place)
            except (InputError, SampleError) as error:
                unreadable.append(one_line(error))
                continue
            for change, is_judged in zip(task.changes[number], task.judged[number], strict=True):
                data = make_copy(pixels[number], change, np.random.default_rng([task.seed, place.sample_id, _NUMBERS[change]]))
                prepared = preparation((0, RawSample("copy", "", image=data, n_bytes=len(data))))
                if isinstance(prepared, PreparedSample):
                    copies.append(_Copy(number, change, is_judged, data, prepared))
    ids = np.array([row["sample_id"] for row in task.rows], dtype=np.int64)
    return _search_copies(task, ids, pixels, copies, encoder), unreadable


def judged_copies(copies: pa.Table) -> dict[str, tuple[int, int]]:
    """Of a table of `schemas.CALIBRATION_COPIES`, by kind: how many were judged by what they show, and how many of these passed."""
    counts = {"natural": (0, 0), "drawn": (0, 0)}
    for is_copy, is_drawn in zip(copies["is_copy"].to_pylist(), copies["is_drawn"].to_pylist(), strict=True):
        if is_drawn is not None:
            kind = "drawn" if is_drawn else "natural"
            counts[kind] = counts[kind][0] + 1, counts[kind][1] + is_copy
    return counts


def make_copy(pixels: Pixels, change: str, rng: np.random.Generator) -> bytes:
    """A copy as found on the web: changed, and re-encoded as JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(plant(pixels, change, rng)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _search_copies(task: CopyTask, ids: Ids, pixels: dict[int, Pixels], copies: list[_Copy], encoder: Encoder) -> pa.Table:
    """Compare the copies with their originals by vectors, views and pixels."""
    if not copies:
        return CALIBRATION_COPIES.empty_table()
    search = task.config.search
    vectors = _encoded([copy.prepared.prepared for copy in copies], encoder).astype(np.float16)
    place = np.array([copy.place for copy in copies])
    originals = Run(task.config.output.run_dir).vectors().take(ids)[place]
    similarity = exact_similarity(originals, vectors)
    quality = detail(np.stack([copy.prepared.grid for copy in copies]))
    required = np.where(quality < search.low_detail_quality, search.low_detail_min_similarity, 0.0)
    required = np.where(quality < search.flat_quality, 2.0, required).astype(np.float32)
    views = _views(task, ids, copies, vectors, required, encoder) if task.has_views else [None] * len(copies)
    likely = likely_turns(originals, vectors, turns() if encoder_kind(task.config.encoder.name).can_turn else ())
    judge = _CopyJudge(task.config, pixels)
    outcomes: list[Outcome | None] = []
    for number, (copy, view) in enumerate(zip(copies, views, strict=True)):
        is_candidate = required[number] < 2.0 and (similarity[number] >= max(task.least, float(required[number])) or view is not None)
        tries = copy.is_judged and is_candidate
        outcomes.append(judge(copy, _turns(view[1] if view else "none", likely[number])) if tries else None)
    columns: dict[str, Any] = {"sample_id": ids[place], "similarity": similarity, "min_similarity": required}
    columns |= {name: [getattr(copy, name) for copy in copies] for name in ("change", "is_judged")}
    columns["look_similarity"] = [view[0] if view else None for view in views]
    columns["is_copy"] = [outcome.stands if outcome else None for outcome in outcomes]
    columns["distance"] = [outcome.distance if outcome else None for outcome in outcomes]
    columns["is_drawn"] = [outcome.drawn > DRAWN if outcome and outcome.drawn is not None else None for outcome in outcomes]
    return conform(pa.table(columns), CALIBRATION_COPIES)


def _encoded(prepared: Sequence[npt.NDArray[Any]], encoder: Encoder) -> Rows32:
    size = encoder.batch_size
    return np.concatenate([encoder.encode(np.stack(prepared[start : start + size])) for start in range(0, len(prepared), size)])


def _views(
    task: CopyTask, ids: Ids, copies: list[_Copy], vectors: Rows16, required: Sims, encoder: Encoder
) -> list[tuple[float, str] | None]:
    """Similarity and turn of the views that find each copy, None if none does."""
    config, maker = task.config, view_maker(task.config.encoder)
    aspect = np.array([row["width"] / max(row["height"], 1) for row in task.rows], dtype=np.float32)
    original_views = make_views(Run(config.output.run_dir), config.encoder, ids, aspect)
    if maker is None or original_views is None:
        return [None] * len(copies)
    framed = [(number, grid) for number, copy in enumerate(copies) for grid in copy.prepared.inner]
    grids = np.stack([grid for _, grid in framed]) if framed else np.zeros((0, 3, GRID, GRID), np.float32)
    is_detailed = detail(grids) >= LEAST_INNER_QUALITY
    inner = encoder.encode(grids[is_detailed]).astype(np.float16) if is_detailed.any() else vectors[:0]
    framed_copies = np.array([number for number, _ in framed], dtype=np.int64)[is_detailed]
    copy_aspect = np.array([copy.prepared.row["width"] / max(copy.prepared.row["height"], 1) for copy in copies], dtype=np.float32)
    copy_views = maker(unit_rows(vectors), unit_rows(inner), framed_copies, copy_aspect)
    first, last = (np.searchsorted(original_views.image, np.arange(len(ids)), side=side) for side in ("left", "right"))
    start, stop = (np.searchsorted(copy_views.image, np.arange(len(copies)), side=side) for side in ("left", "right"))
    best: list[tuple[float, str] | None] = []
    for number, copy in enumerate(copies):
        if required[number] > 0.0:  # only images with detail have views
            best.append(None)
            continue
        original_rows, copy_rows = slice(int(first[copy.place]), int(last[copy.place])), slice(int(start[number]), int(stop[number]))
        best.append(best_view(original_views, original_rows, copy_views, copy_rows, config.search.view_min_similarity))
    return best


def best_view(originals: ViewRows, original_rows: slice, copies: ViewRows, copy_rows: slice, least: float) -> tuple[float, str] | None:
    """Similarity, `least` or more, of the views that find an image in another, and how the first is turned; None if none does."""
    n_first, n_second = original_rows.stop - original_rows.start, copy_rows.stop - copy_rows.start
    joined = Views(
        np.concatenate([originals.vectors[original_rows], copies.vectors[copy_rows]]).astype(np.float16),
        np.repeat(np.arange(2), [n_first, n_second]),
        *(
            np.concatenate([getattr(originals, name)[original_rows], getattr(copies, name)[copy_rows]])
            for name in ("kind", "orientation", "is_base")
        ),
    )
    # whole pictures are compared elsewhere: zeros, so that their similarity leaves no pair out here
    wholes = np.zeros((n_first + n_second, 1), dtype=np.float16)
    edges = join_views(joined, Ownership(np.zeros((n_first + n_second, 1), np.int32), 0), wholes, ViewRule(2.0, least))
    return (float(edges.similarity[0]), TURN_NAMES[edges.turn[0]]) if len(edges.src) else None


class _CopyJudge:
    """Judges planted copies against their originals by the pixels, as the run would."""

    def __init__(self, config: Config, pixels: dict[int, Pixels]) -> None:
        self._settings = JudgeSettings.of(config)
        self._judge = PairJudge(self._settings)
        self._originals = {place: InMemory(original) for place, original in pixels.items()}

    def __call__(self, copy: _Copy, turns: Sequence[str]) -> Outcome:
        image = decode_isolated(copy.data, max_pixels=self._settings.max_pixels, min_side=self._settings.min_side)
        return self._judge.judge(self._originals[copy.place], InMemory(image.pixels), turns)


def _turns(view: str, likely: str | None) -> list[str]:
    """All turns that the stage `confirm` would try: of a copy found whole at one threshold, and only by a view at another."""
    return list(dict.fromkeys(["none", *turns_of(view), *([likely] if likely else [])]))
