"""Views: made and assigned to lists of their own by the stage `index`, joined by the stage `pairs`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config import EncoderConfig
from dedup.contracts import JsonDict
from dedup.encoders import view_maker
from dedup.numerics.arraytypes import Ids
from dedup.numerics.image.views import ViewRows
from dedup.numerics.search.gpu import choose_device
from dedup.numerics.search.lists import Lists, Training, draw_sample, train_lists
from dedup.numerics.search.project import one_thread
from dedup.numerics.similarity import unit_rows
from dedup.runs.directory import Run
from dedup.runs.index import save_lists
from dedup.runs.vectors import view_part, view_parts, write_views
from dedup.stages.stage import StageContext
from dedup.storage.arrays import array_shape, clear_files
from dedup.storage.atomic import link_or_copy
from dedup.storage.tables import ask, read_table

LISTS_OF_A_VIEW = 3  # lists that each view is in
_N_VIEWS = 5  # of an image, about
_BLOCK = 8_192  # images whose views are made at a time

ASPECT_SQL = """
SELECT representatives.sample_id AS sample_id, representatives.min_similarity AS min_similarity,
       metadata.width AS width, metadata.height AS height
FROM representatives JOIN metadata ON representatives.sample_id = metadata.sample_id
ORDER BY representatives.sample_id
"""

ASPECT = pa.schema([("sample_id", pa.int64()), ("min_similarity", pa.float32()), ("width", pa.int32()), ("height", pa.int32())])


@dataclass(frozen=True)
class ViewTask:
    """Images of one block whose views are made and placed."""

    run: Run
    number: int
    encoder: EncoderConfig
    images: Ids
    sample_ids: Ids
    aspect: npt.NDArray[np.float32]
    nprobe: int
    device: str


def make_views(run: Run, encoder: EncoderConfig, sample_ids: Ids, aspect: npt.NDArray[np.float32]) -> ViewRows | None:
    """The views of some samples, in order of their positions in `sample_ids`; None if the encoder makes none."""
    maker = view_maker(encoder)
    if maker is None:
        return None
    inner, inner_of = run.inner_vectors().take(sample_ids)
    return maker(unit_rows(run.vectors().take(sample_ids)), unit_rows(inner), inner_of, aspect)


def place_views(task: ViewTask) -> int:
    """Make the views of one block, assign them to lists and write them; returns their number."""
    rows = make_views(task.run, task.encoder, task.sample_ids, task.aspect)
    if rows is None:
        return 0
    lists = task.run.view_lists()
    chosen, _ = replace(lists, n_filter=0).place(rows.vectors, task.nprobe, choose_device(task.device))
    rows = replace(rows, image=task.images[rows.image])
    write_views(task.run.views_folder, task.number, rows, rows.vectors @ lists.axes, chosen)
    return len(rows.image)


def index_views(context: StageContext) -> JsonDict:
    """Make the views of all images that have enough detail and assign them to inverted lists of their own."""
    run, config = context.run, context.config
    clear_files(run.views_folder, "*.npy")
    images, ids, aspect = _searched(context)
    if not config.search.views or not len(ids) or view_maker(config.encoder) is None:
        return {"n_views": 0}
    base_parts = () if context.base is None else view_parts(context.base.views_folder)
    if context.base is not None and base_parts:
        lists = context.base.view_lists()
        nprobe, n_expected = min(LISTS_OF_A_VIEW, lists.nlist), _N_VIEWS * len(ids)
        base_ids = read_table(context.base.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        n_kept = int(np.isin(ids, base_ids, assume_unique=True).sum()) // _BLOCK
    else:
        lists, nprobe, n_expected = _train(context, ids, aspect)
        n_kept = 0
    device = context.device(n_expected)
    save_lists(run.views_folder, lists)
    n_views = _link_views(context.base, run, base_parts[:n_kept])
    tasks = [
        ViewTask(run, number, config.encoder, images[part], ids[part], aspect[part], nprobe, device)
        for number, part in enumerate(slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK))
        if number >= n_kept
    ]
    sizes = [len(task.images) for task in tasks]
    n_views += sum(n for _, n in context.run_tasks("index", "views", place_views, tasks, sizes, uses_gpu=device != "cpu"))
    return {"n_views": n_views, "n_view_lists": lists.nlist}


def _link_views(base: Run | None, run: Run, parts: tuple[int, ...]) -> int:
    """Take over the first parts, whose images are the base's; returns the number of their views."""
    if base is None:
        return 0
    for part in parts:
        for name in ("view", "vector"):
            link_or_copy(view_part(base.views_folder, name, part), view_part(run.views_folder, name, part))
    return sum(array_shape(view_part(run.views_folder, "view", part))[0][0] for part in parts)


def _searched(context: StageContext) -> tuple[Ids, Ids, npt.NDArray[np.float32]]:
    """Positions among the representatives, sample_ids and width / height of images with enough detail for views."""
    tables = {name: context.run.table(name) for name in ("representatives", "metadata")}
    sizes = ask(context.engine, ASPECT_SQL, tables, ASPECT)
    images = np.flatnonzero(sizes["min_similarity"].to_numpy() <= np.float32(context.config.search.min_similarity))
    aspect = (sizes["width"].to_numpy() / np.maximum(sizes["height"].to_numpy(), 1)).astype(np.float32)
    return images, sizes["sample_id"].to_numpy()[images], aspect[images]


def _train(context: StageContext, ids: Ids, aspect: npt.NDArray[np.float32]) -> tuple[Lists, int, int]:
    """Axes and quantizer of the views, the number of lists each view is in, and about how many views there will be."""
    config, run = context.config, context.run
    seed = config.index.seed

    def sample_of(n_images: int) -> ViewRows:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:n_images])
        with one_thread():
            rows = make_views(run, config.encoder, ids[chosen], aspect[chosen])
        if rows is None:
            raise AssertionError("an encoder that makes views made none")
        return rows

    rows = sample_of(1_000)
    per_image = len(rows.image) / min(1_000, len(ids))
    n_views = round(per_image * len(ids))
    nlist, nprobe = 1, 1
    if n_views >= max(config.search.exhaustive_below, 2):
        nlist, nprobe = min(round(math.sqrt(LISTS_OF_A_VIEW * n_views)), len(rows.image) // 4), LISTS_OF_A_VIEW
        rows = sample_of(math.ceil(config.index.train_vectors_per_list * nlist / per_image))
        context.reporter.note(f"index: training {nlist:,} lists of views, {per_image:.1f} an image")
    vectors = rows.vectors[draw_sample(len(rows.vectors), config.index.train_vectors_per_list * nlist, seed)]
    training = Training(nlist, nprobe, config.index.train_iterations, seed)
    device = context.driver_device(n_views)
    lists = train_lists(vectors, training, config.search.view_min_similarity, is_rotated=True, device=device)
    return lists, min(nprobe, lists.nlist), n_views
