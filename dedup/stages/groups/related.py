"""Templates and scenes: groups of pictures that are no copies, but share a layout, a ground or a place."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dedup.judge.pair import png
from dedup.numerics.arraytypes import Ids, Pixels
from dedup.numerics.graph.components import connected_components
from dedup.numerics.judge.relation import MASK_SIDE, NEITHER
from dedup.runs.directory import Run
from dedup.stages.stage import StageContext
from dedup.storage.tables import clear, dataset

RELATED: Final = {"template": ("templates", "template_counts"), "scene": ("scenes", "scene_counts")}  # relation to its tables

_MOST_MASKS = 16  # pairs with the example that its mask is made from
_BATCH_ROWS = 65_536

MEMBERS_SQL: Final = """
SELECT groups.sample_id AS sample_id, labels.label AS {relation}_id, labels.component_id AS component_id
FROM labels JOIN groups ON labels.component_id = groups.component_id
UNION ALL
SELECT labels.component_id AS sample_id, labels.label AS {relation}_id, labels.component_id AS component_id
FROM labels LEFT JOIN groups ON labels.component_id = groups.sample_id
WHERE groups.sample_id IS NULL
ORDER BY sample_id
"""

COUNTS_SQL: Final = """
SELECT sizes.{relation}_id AS {relation}_id, sizes.n_components AS n_components, sizes.n_samples AS n_samples,
       figures.agreeing_share AS agreeing_share, figures.example_id AS example_id, figures.mask AS mask
FROM (
    SELECT {relation}_id, count(DISTINCT component_id) AS n_components, count(*) AS n_samples FROM {members} GROUP BY {relation}_id
) AS sizes
JOIN figures ON sizes.{relation}_id = figures.label
ORDER BY sizes.{relation}_id
"""


@dataclass(frozen=True)
class _Pairs:
    """Refused pairs of one relation between different groups."""

    # src, dst: shape (n,); sample_ids; a, b: the groups they are in, by their smallest sample_id
    src: Ids
    dst: Ids
    a: Ids
    b: Ids
    share: npt.NDArray[np.float32]  # agreeing


def write_related(context: StageContext) -> dict[str, int]:
    """Write the tables of templates and scenes from the refused pairs and `groups`; returns the rows of each."""
    rows: dict[str, int] = {}
    for relation, (members, counts) in RELATED.items():
        pairs = _pairs(context.run, relation)
        nodes, ends = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
        n = len(pairs.a)
        component = connected_components(ends[:n], ends[n:], len(nodes))
        label = nodes[component]
        labels = pa.table({"component_id": nodes, "label": label})
        for table in (members, counts):
            clear(context.run.table(table))
        tables = {"labels": labels, "groups": context.run.table("groups")}
        rows[members] = context.engine.sql_to(MEMBERS_SQL.format(relation=relation), tables, context.run.table(members))
        tables = {"figures": _figures(context.run, relation, pairs, label[ends[:n]]), members: context.run.table(members)}
        rows[counts] = context.engine.sql_to(COUNTS_SQL.format(relation=relation, members=members), tables, context.run.table(counts))
    return rows


def _pairs(run: Run, relation: str) -> _Pairs:
    columns = ["src", "dst", "agreeing_share"]
    table = dataset(run.table("refused")).to_table(columns=columns, filter=pc.field("relation") == relation)
    src, dst = (table[end].to_numpy() for end in ("src", "dst"))
    wanted = np.unique(np.concatenate([src, dst]))
    group_of = wanted.copy()  # a unique sample is its own group
    for batch in dataset(run.table("groups")).to_batches(columns=["sample_id", "component_id"], batch_size=_BATCH_ROWS):
        ids = batch["sample_id"].to_numpy()
        place = np.searchsorted(wanted, ids).clip(0, max(len(wanted) - 1, 0))
        is_wanted = wanted[place] == ids if len(wanted) else np.zeros(len(ids), dtype=bool)
        group_of[place[is_wanted]] = batch["component_id"].to_numpy()[is_wanted]
    a, b = (group_of[np.searchsorted(wanted, end)] for end in (src, dst))
    share = table["agreeing_share"].to_numpy(zero_copy_only=False).astype(np.float32)
    apart = a != b
    return _Pairs(src[apart], dst[apart], a[apart], b[apart], share[apart])


_FIGURES = pa.schema([("label", pa.int64()), ("agreeing_share", pa.float32()), ("example_id", pa.int64()), ("mask", pa.binary())])


def _figures(run: Run, relation: str, pairs: _Pairs, label: Ids) -> pa.Table:
    """What the pairs of each template or scene have in common, a row each.

    `label`: shape (n_pairs,); the template of each pair.
    """
    if not len(label):
        return _FIGURES.empty_table()
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    labels, examples, shares = [], [], []
    for rows in np.split(order, starts[1:]):
        ids, n_pairs = np.unique(np.concatenate([pairs.src[rows], pairs.dst[rows]]), return_counts=True)
        labels.append(int(label[rows[0]]))
        examples.append(int(ids[n_pairs.argmax()]))  # of several, the smallest
        shares.append(float(np.nanmedian(pairs.share[rows])))
    masks = _masks(run, relation, np.array(examples, dtype=np.int64))
    columns = {"label": labels, "agreeing_share": shares, "example_id": examples, "mask": [masks.get(example) for example in examples]}
    return pa.table(columns, schema=_FIGURES)


def _masks(run: Run, relation: str, examples: Ids) -> dict[int, bytes]:
    """Where the others agree with each example, as PNG."""
    wanted, found = set(examples.tolist()), dict[int, list[Pixels]]()
    columns = ["src", "dst", "transform", "mask"]
    usable = (pc.field("relation") == relation) & (pc.field("variant") == "none") & pc.field("mask").is_valid()
    for batch in dataset(run.table("refused")).to_batches(columns=columns, filter=usable, batch_size=_BATCH_ROWS):
        is_wanted = pc.or_(*(pc.is_in(batch[end], pa.array(examples)) for end in ("src", "dst")))
        for row in batch.filter(is_wanted).to_pylist():
            for end in ("src", "dst"):
                if row[end] in wanted and len(masks := found.setdefault(row[end], [])) < _MOST_MASKS:
                    mask = np.asarray(Image.open(io.BytesIO(row["mask"])))
                    masks.append(mask if end == "dst" else across_src(mask, row["transform"]))
    return {example: png(shared_mask(masks)) for example, masks in found.items()}


def across_src(mask: Pixels, transform: list[float]) -> Pixels:
    """A mask across the second picture of a pair, laid over the first.

    `transform`: rows of the affine map from the first, upright, to the second, in coordinates from 0 to 1.
    """
    y, x = (np.mgrid[:MASK_SIDE, :MASK_SIDE] + 0.5) / MASK_SIDE
    a, b, c, d, e, f = transform
    columns, rows = (np.floor(place * MASK_SIDE).astype(np.int64) for place in (a * x + b * y + c, d * x + e * y + f))
    is_inside = (columns >= 0) & (columns < MASK_SIDE) & (rows >= 0) & (rows < MASK_SIDE)
    laid = np.full((MASK_SIDE, MASK_SIDE), NEITHER, dtype=np.uint8)
    laid[is_inside] = mask[rows[is_inside], columns[is_inside]]
    return laid


def shared_mask(masks: list[Pixels]) -> Pixels:
    """The share of masks that agree, 0 to 255, at each place where most have something to compare; elsewhere `NEITHER`."""
    stacked = np.stack(masks)
    compared = stacked != NEITHER
    n = compared.sum(axis=0)
    mean = (stacked * compared).sum(axis=0) / np.maximum(n, 1)
    # a mean of 128 must not read as nothing to compare
    values = np.where(mean.round() == NEITHER, NEITHER + 1, mean.round())
    return np.asarray(np.where(2 * n >= len(masks), values, NEITHER), dtype=np.uint8)
