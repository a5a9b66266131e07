"""Second looks: made and placed by the stage `index`, joined by the stage `pairs`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import EncoderConfig
from dedup.contracts import GroupRows, JsonDict, Pack
from dedup.encoders import look_maker
from dedup.numerics.collapse import Ownership
from dedup.numerics.distances import unit_rows
from dedup.numerics.lists import Lists, draw_sample, train_lists
from dedup.numerics.lookjoin import LookEdges, Looks, best_of_pairs, join_looks, no_edges
from dedup.numerics.looks import LookRows
from dedup.numerics.packs import count_lists, pack_lists
from dedup.numerics.torch_ops import choose_device
from dedup.stages.context import StageContext
from dedup.stages.lookmembers import LookMembers, Wholes
from dedup.storage.arrays import array_shape
from dedup.storage.atomic import link_or_copy
from dedup.storage.embeddings import InnerStore, open_store
from dedup.storage.lists import load_lists, save_lists
from dedup.storage.looks import clear_looks, look_part, look_parts, looks_folder, write_looks
from dedup.storage.tables import ask, read_table

_NPROBE = 3  # lists each look goes to
_N_LOOKS = 5  # of an image, about
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
    device: str


@dataclass(frozen=True)
class JoinLooks:
    """Joins the lists of looks of a pack; gives their edges, and the strips of products that a GPU had no memory for."""

    min_similarity: float
    look_min_similarity: float
    n_filter: int
    best: int
    device: str
    n_earlier: int = 0

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> tuple[LookEdges, int]:
        """Join each list; the edges are few, and go to the driver."""
        device = choose_device(self.device)
        found = [no_edges()]
        for number, rows in groups:
            look = rows.column("look")
            images = look["image"].astype(np.int64)
            looks = Looks(rows.column("vector"), images, look["kind"], look["orientation"], look["is_base"])
            asked = (self.min_similarity, self.look_min_similarity)
            share = (pack.share, pack.n_shares)
            joined = join_looks(
                looks,
                Ownership(rows.groups, number),
                Wholes(rows, images),
                *asked,
                n_filter=self.n_filter,
                best=self.best,
                share=share,
                device=device,
                n_earlier=self.n_earlier,
            )
            found.append(joined)
        return _united(found, self.best), 0 if device is None else device.n_left


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
    chosen, _ = replace(lists, n_filter=0).place(rows.vectors, task.nprobe, choose_device(task.device))
    rows = replace(rows, image=task.images[rows.image])
    write_looks(task.run_dir, task.number, rows, rows.vectors @ lists.axes, chosen)
    return len(rows.image)


def index_looks(context: StageContext) -> JsonDict:
    """Make the looks of all images that are searched for and place them in inverted lists of their own."""
    run_dir, config = context.layout.run_dir, context.config
    clear_looks(run_dir)
    images, ids, aspect = _searched(context)
    if not config.search.views or not len(ids) or look_maker(config.encoder) is None:
        return {"n_looks": 0}
    base_parts = () if context.base is None else look_parts(context.base.run_dir)
    if context.base is not None and base_parts:
        lists = load_lists(looks_folder(context.base.run_dir))
        nprobe, n_expected = min(_NPROBE, lists.nlist), _N_LOOKS * len(ids)
        base_ids = read_table(context.base.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        n_kept = int(np.isin(ids, base_ids, assume_unique=True).sum()) // _BLOCK
    else:
        lists, nprobe, n_expected = _train(context, ids, aspect)
        n_kept = 0
    device = context.device(n_expected)
    save_lists(looks_folder(run_dir), lists)
    n_looks = _link_looks(context, base_parts[:n_kept])
    tasks = [
        LookTask(run_dir, number, config.encoder, images[part], ids[part], aspect[part], nprobe, device)
        for number, part in enumerate(slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK))
        if number >= n_kept
    ]
    sizes = [len(task.images) for task in tasks]
    n_looks += sum(n for _, n in context.run_tasks("index", "looks", place_looks, tasks, sizes, uses_gpu=device != "cpu"))
    return {"n_looks": n_looks, "n_look_lists": lists.nlist}


def _link_looks(context: StageContext, parts: tuple[int, ...]) -> int:
    """Take over the first parts, whose images are those of the base; returns their looks."""
    for part in parts:
        for name in ("look", "vector"):
            link_or_copy(look_part(context.config.base.run_dir, name, part), look_part(context.layout.run_dir, name, part))
    return sum(array_shape(look_part(context.layout.run_dir, "look", part))[0][0] for part in parts)


def _searched(context: StageContext) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions among the representatives, sample_ids and width / height of images with enough detail for looks."""
    tables = {name: context.layout.table(name) for name in ("representatives", "metadata")}
    found = ask(context.engine, ASPECT_SQL, tables, ASPECT)
    images = np.flatnonzero(found["min_similarity"].to_numpy() <= np.float32(context.config.search.min_similarity))
    aspect = (found["width"].to_numpy() / np.maximum(found["height"].to_numpy(), 1)).astype(np.float32)
    return images, found["sample_id"].to_numpy()[images], aspect[images]


def _train(context: StageContext, ids: npt.NDArray[np.int64], aspect: npt.NDArray[np.float32]) -> tuple[Lists, int, int]:
    """Axes and quantizer of the looks, the number of lists each look goes to, and how many looks there will be, about."""
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
    n_looks = round(per_image * len(ids))
    nlist, nprobe = 1, 1
    if n_looks >= max(config.search.exhaustive_below, 2):
        nlist, nprobe = min(round(math.sqrt(_NPROBE * n_looks)), len(rows.image) // 4), _NPROBE
        wanted = config.index.train_vectors_per_list * nlist
        rows = sample_of(math.ceil(wanted / per_image))
        context.reporter.note(f"index: training {nlist:,} lists of looks, {per_image:.1f} an image")
    vectors = rows.vectors[draw_sample(len(rows.vectors), config.index.train_vectors_per_list * nlist, seed)]
    similarity = config.search.view_min_similarity
    device, iterations = context.driver_device(n_looks), config.index.train_iterations
    lists = train_lists(vectors, nlist, nprobe, similarity, iterations=iterations, seed=seed, is_rotated=True, device=device)
    return lists, min(nprobe, lists.nlist), n_looks


def _united(parts: list[LookEdges], best: int) -> LookEdges:
    columns = [[getattr(part, name) for part in parts] for name in ("src", "dst", "similarity", "turn")]
    return best_of_pairs(LookEdges(*(np.concatenate(column) for column in columns)), best)


def find_look_edges(context: StageContext, scratch: str, n_earlier: int, earlier: LookEdges) -> LookEdges:
    """Join all lists of looks; images are positions among the representatives, whose sample_ids lie in `scratch`.

    Parameters
    ----------
    context : StageContext
    scratch : str
    n_earlier : int
        Images, the first ones, that the run's base has compared with each other.
    earlier : LookEdges
        What it found.
    """
    search, run_dir = context.config.search, context.layout.run_dir
    parts = look_parts(run_dir) if search.views else ()
    if not parts:
        return no_edges()
    members = LookMembers.of(run_dir, scratch, parts)
    counts, fresh = count_lists(members.groups(block) for block in range(len(parts))), None
    if n_earlier:
        counted = count_lists(members.groups(block)[members.images(block) >= n_earlier] for block in range(len(parts)))
        fresh = np.zeros(len(counts), dtype=np.int64)
        fresh[: len(counted)] = counted
    n_filter = load_lists(looks_folder(run_dir)).n_filter
    device = context.device(int(counts.sum()) // _NPROBE)
    work = JoinLooks(search.min_similarity, search.view_min_similarity, n_filter, search.best_edges, device, n_earlier)
    packs = pack_lists(counts, context.engine.n_workers, fresh)
    results = context.run_groups("pairs", "lists of looks", members, work, packs, uses_gpu=device != "cpu")
    # in the order of the packs, not of their ends
    joined = [found for _, found in sorted(results, key=lambda result: result[0])]
    context.note_left("looks", sum(n_left for _, n_left in joined))
    edges = [found for found, _ in joined]
    return _united([earlier, *edges], search.best_edges)
