"""Montages: groups of copies as a person would look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from dedup.advice.drawing import CELL, COPY, GAP, KEPT, TEXT, draw_cell, font, thumbnail
from dedup.errors import InputError, RunDirectoryError
from dedup.storage.layout import RunLayout
from dedup.storage.tables import dataset, read_table

_HEAD = 24  # pixels above each row
_COLUMNS = ["sample_id", "component_id", "duplication_count", "shard", "key", "caption", "byte_offset", "n_bytes"]


@dataclass(frozen=True)
class _Cell:
    """A picture of the montage and the two lines under it."""

    row: dict[str, Any]
    label: str


def montage(
    run_dir: str,
    out: str | Path,
    *,
    component_ids: Sequence[int] = (),
    n_largest: int = 0,
    n_random: int = 0,
    per_group: int = 8,
    seed: int = 0,
) -> int:
    """Draw groups of copies, a row each: keeper first, then copies by falling similarity.

    Parameters
    ----------
    run_dir : str
        A run whose `manifest` and `statistics` stages are finished.
    out : path
        PNG to write.
    component_ids : sequence of int
        Groups to draw.
    n_largest, n_random : int
        Further groups; with none asked for, the 6 largest.
    per_group : int
        Pictures per group; the most and the least similar copies are drawn where there are more.
    seed : int

    Returns
    -------
    int
        Groups drawn.

    Raises
    ------
    InputError
        If a component_id is no group of copies of this run.
    """
    layout = RunLayout(run_dir)
    statistics = read_table(layout.table("statistics"), ["component_id", "duplication_count"])
    ids, counts = statistics["component_id"].to_numpy(), statistics["duplication_count"].to_numpy()
    unknown = sorted(set(component_ids) - set(ids.tolist()))
    if unknown:
        raise InputError(f"{unknown[0]} is no group of copies in {run_dir}; component_ids stand in its statistics/ table")
    if not (component_ids or n_largest or n_random):
        n_largest = 6
    chosen = list(component_ids)
    chosen += ids[np.lexsort((ids, -counts))[:n_largest]].tolist()
    chosen += np.random.default_rng(seed).choice(ids, min(n_random, len(ids)), replace=False).tolist()
    groups = list(dict.fromkeys(chosen))
    cells = _cells(layout, groups, per_group)
    drawn = [cells[group] for group in groups if cells[group]]
    _draw(drawn, Path(out), per_group)
    return len(drawn)


def _cells(layout: RunLayout, groups: Sequence[int], per_group: int) -> dict[int, list[_Cell]]:
    wanted = pc.field("component_id").isin(groups)
    kept = dataset(layout.table("manifest")).to_table(columns=_COLUMNS, filter=wanted).to_pylist()
    columns = [*_COLUMNS, "similarity_to_keeper", "kind"]
    dropped = dataset(layout.table("duplicates")).to_table(columns=columns, filter=wanted).to_pylist()
    cells: dict[int, list[_Cell]] = {}
    for group in groups:
        keepers = [row for row in kept if row["component_id"] == group]
        copies = sorted(
            (row for row in dropped if row["component_id"] == group), key=lambda row: (-row["similarity_to_keeper"], row["sample_id"])
        )
        n = max(1, per_group - len(keepers))
        if len(copies) > n:
            copies = copies[: n - n // 2] + copies[len(copies) - n // 2 :]
        cells[group] = [_Cell(row, "kept") for row in keepers[:per_group]]
        cells[group] += [
            _Cell(row, "exact copy" if row["kind"] == "exact" else f"similarity {row['similarity_to_keeper']:.3f}") for row in copies
        ]
    return cells


def _draw(rows: list[list[_Cell]], out: Path, per_group: int) -> None:
    if not rows:
        raise RunDirectoryError("no group of copies to draw: every image of this run is unique")
    n_columns = min(per_group, max(len(row) for row in rows))
    height = _HEAD + CELL + TEXT + GAP
    sheet = Image.new("RGB", (GAP + n_columns * (CELL + GAP), GAP + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = GAP + number * height
        first = row[0].row
        draw.text((GAP, top), f"component {first['component_id']}: {first['duplication_count']} samples", "black", font(15))
        for column, cell in enumerate(row[:n_columns]):
            picture = thumbnail(cell.row["shard"], cell.row["key"], cell.row["byte_offset"], cell.row["n_bytes"])
            caption, is_kept = cell.row["caption"] or "(no caption)", cell.label == "kept"
            left = GAP + column * (CELL + GAP)
            draw_cell(sheet, left, top + _HEAD, picture, cell.label, caption, KEPT if is_kept else COPY, is_framed=is_kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
