"""Second looks: made and placed by the stage `index`, joined by the stage `pairs`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import EncoderConfig
from dedup.contracts import JsonDict
from dedup.encoders import look_maker
from dedup.numerics.collapse import Ownership
from dedup.numerics.distances import unit_rows
from dedup.numerics.lists import Lists, draw_sample, pack_lists, train_lists
from dedup.numerics.lookjoin import LookEdges, best_of_pairs, join_looks, no_edges
from dedup.numerics.looks import LookRows
from dedup.stages.context import StageContext
from dedup.storage.arrays import map_array, save_array
from dedup.storage.embeddings import InnerStore, SampleRows, open_store
from dedup.storage.lists import load_lists, save_lists
from dedup.storage.looks import clear_looks, has_looks, looks_folder, open_looks, write_looks
from dedup.storage.tables import join

_NPROBE = 3  # lists each look goes to
_BLOCK = 8_192  # images whose looks are made at a time

ASPECT_SQL = """
SELECT representatives.sample_id AS sample_id, representatives.min_similarity AS min_similarity,
       metadata.width AS width, metadata.height AS height
FROM representatives JOIN metadata ON representatives.sample_id = metadata.sample_id
ORDER BY representatives.sample_id
"""
ASPECT = pa.schema([("sample_id", pa.int64()), ("min_similarity", pa.float32()), ("width", pa.int32()), ("height", pa.int32())])


@dataclass(frozen=True)
class LookTask:
    """Images of one block whose looks are made and placed."""

    run_dir: str
    number: int
    encoder: EncoderConfig
    images: npt.NDArray[np.int64]
    sample_ids: npt.NDArray[np.int64]
    aspect: npt.NDArray[np.float32]
    nprobe: int


@dataclass(frozen=True)
class LookJoinTask:
    """Some inverted lists of looks."""

    run_dir: str
    scratch: str
    lists: npt.NDArray[np.int64]
    min_similarity: float
    look_min_similarity: float
    best: int


def make_looks(run_dir: str, encoder: EncoderConfig, sample_ids: npt.NDArray[np.int64], aspect: npt.NDArray[np.float32]) -> LookRows | None:
    """The looks of some samples, in order of their positions in `sample_ids`; None if the encoder makes none."""
    maker = look_maker(encoder)
    if maker is None:
        return None
    inner, of = InnerStore(run_dir).take(sample_ids)
    return maker(unit_rows(open_store(run_dir).take(sample_ids)), unit_rows(inner), of, aspect)


def place_looks(task: LookTask) -> int:
    """Make and write the looks of one block; returns their number."""
    rows = make_looks(task.run_dir, task.encoder, task.sample_ids, task.aspect)
    if rows is None:
        return 0
    lists = load_lists(looks_folder(task.run_dir))
    flat, _, _ = replace(lists, n_filter=0).place(rows.vectors, task.nprobe)
    rows = replace(rows, image=task.images[rows.image])
    write_looks(task.run_dir, task.number, rows, rows.vectors @ lists.axes, flat.reshape(len(rows.image), -1))
    return len(rows.image)


def index_looks(context: StageContext) -> JsonDict:
    """Make the looks of all images that are searched for and place them in inverted lists of their own."""
    run_dir, config = context.layout.run_dir, context.config
    clear_looks(run_dir)
    images, ids, aspect = _searched(context)
    if not config.search.looks or not len(ids) or look_maker(config.encoder) is None:
        return {"n_looks": 0}
    lists, nprobe = _train(context, ids, aspect)
    save_lists(looks_folder(run_dir), lists)
    tasks = [
        LookTask(run_dir, number, config.encoder, images[part], ids[part], aspect[part], nprobe)
        for number, part in enumerate(slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK))
    ]
    n_looks = sum(n for _, n in context.run_tasks("index", "looks", place_looks, tasks, [len(task.images) for task in tasks]))
    return {"n_looks": n_looks, "n_look_lists": lists.nlist}


def _searched(context: StageContext) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions among the representatives, sample_ids and width / height of images with enough detail for looks."""
    tables = {name: context.layout.table(name) for name in ("representatives", "metadata")}
    batches = list(context.engine.sql(ASPECT_SQL, tables, ASPECT))
    found = pa.concat_tables(batches) if batches else ASPECT.empty_table()
    images = np.flatnonzero(found["min_similarity"].to_numpy() <= np.float32(context.config.search.min_similarity))
    aspect = (found["width"].to_numpy() / np.maximum(found["height"].to_numpy(), 1)).astype(np.float32)
    return images, found["sample_id"].to_numpy()[images], aspect[images]


def _train(context: StageContext, ids: npt.NDArray[np.int64], aspect: npt.NDArray[np.float32]) -> tuple[Lists, int]:
    """Axes and quantizer of the looks, and the lists each look goes to."""
    config, run_dir = context.config, context.layout.run_dir
    seed = config.index.seed

    def sample_of(n_images: int) -> LookRows:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:n_images])
        rows = make_looks(run_dir, config.encoder, ids[chosen], aspect[chosen])
        if rows is None:
            raise AssertionError("an encoder that makes looks made none")
        return rows

    rows = sample_of(1_000)
    per_image = len(rows.image) / min(1_000, len(ids))
    n_looks = per_image * len(ids)
    nlist, nprobe = 1, 1
    if n_looks >= max(config.search.exhaustive_below, 2):
        nlist, nprobe = min(round(math.sqrt(_NPROBE * n_looks)), len(rows.image) // 4), _NPROBE
        wanted = config.index.train_vectors_per_list * nlist
        rows = sample_of(math.ceil(wanted / per_image))
        context.reporter.note(f"index: training {nlist:,} lists of looks, {per_image:.1f} an image")
    vectors = rows.vectors[draw_sample(len(rows.vectors), config.index.train_vectors_per_list * nlist, seed)]
    similarity = config.search.look_min_similarity
    lists = train_lists(vectors, nlist, nprobe, similarity, iterations=config.index.train_iterations, seed=seed, is_rotated=True)
    return lists, min(nprobe, lists.nlist)


def join_task(task: LookJoinTask) -> LookEdges:
    """Join the lists of one task."""
    looks, store = open_looks(task.run_dir), open_store(task.run_dir)
    n_filter = load_lists(looks_folder(task.run_dir)).n_filter
    offsets, entries, sample_ids = (map_array(join(task.scratch, f"{name}.npy")) for name in ("look_offsets", "look_entries", "sample_id"))
    wholes = SampleRows(store, np.asarray(sample_ids))
    found = [no_edges()]
    for number in task.lists.tolist():
        rows, lists = looks.take(np.asarray(entries[offsets[number] : offsets[number + 1]]).astype(np.int64))
        ownership = Ownership(lists, number)
        found.append(join_looks(rows, ownership, wholes, task.min_similarity, task.look_min_similarity, n_filter=n_filter, best=task.best))
    return _united(found, task.best)


def _united(parts: list[LookEdges], best: int) -> LookEdges:
    columns = [[getattr(part, name) for part in parts] for name in ("src", "dst", "similarity", "turn")]
    return best_of_pairs(LookEdges(*(np.concatenate(column) for column in columns)), best)


def find_look_edges(context: StageContext, scratch: str) -> LookEdges:
    """Join all lists of looks; images are positions among the representatives, whose sample_ids lie in `scratch`."""
    search, run_dir = context.config.search, context.layout.run_dir
    if not search.looks or not has_looks(run_dir):
        return no_edges()
    lists = open_looks(run_dir).lists()
    order = np.argsort(lists, axis=None, kind="stable")
    sizes = np.bincount(lists.ravel(), minlength=int(lists.max()) + 1)
    save_array(join(scratch, "look_entries.npy"), (order // lists.shape[1]).astype(np.int32 if len(lists) < 2**31 else np.int64))
    save_array(join(scratch, "look_offsets.npy"), np.concatenate([[0], np.cumsum(sizes)]))
    tasks = [
        LookJoinTask(run_dir, scratch, part, search.min_similarity, search.look_min_similarity, search.best_edges)
        for part in pack_lists(sizes, context.engine.n_workers)
    ]
    results = context.run_tasks("pairs", "lists of looks", join_task, tasks, [len(task.lists) for task in tasks])
    # in the order of the tasks, not of their ends
    found = [edges for _, edges in sorted(results, key=lambda result: result[0])]
    return _united([no_edges(), *found], search.best_edges)
