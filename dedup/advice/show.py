"""Montages: groups of copies as a person would look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from dedup.errors import DedupError, InputError, RunDirectoryError
from dedup.storage.images import decode_image
from dedup.storage.layout import RunLayout
from dedup.storage.shards import read_image_bytes
from dedup.storage.tables import dataset, read_table

_CELL = 176  # pixels
_TEXT = 44  # pixels under each picture
_GAP = 8
_HEAD = 24
_MAX_PIXELS = 178_956_970
_COLUMNS = ["sample_id", "component_id", "duplication_count", "shard", "key", "caption", "byte_offset", "n_bytes"]


@dataclass(frozen=True)
class _Cell:
    """A picture of the montage and the two lines under it."""

    row: dict[str, object]
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
    height = _HEAD + _CELL + _TEXT + _GAP
    sheet = Image.new("RGB", (_GAP + n_columns * (_CELL + _GAP), _GAP + len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, row in enumerate(rows):
        top = _GAP + number * height
        first = row[0].row
        draw.text(
            (_GAP, top), f"component {first['component_id']}: {first['duplication_count']} samples", "black", ImageFont.load_default(15)
        )
        for column, cell in enumerate(row[:n_columns]):
            left, upper = _GAP + column * (_CELL + _GAP), top + _HEAD
            picture = _picture(cell.row)
            if picture is None:
                draw.rectangle((left, upper, left + _CELL, upper + _CELL), outline="grey")
                draw.text((left + 8, upper + _CELL // 2), "image can't be read", "grey", font)
            else:
                sheet.paste(picture, (left + (_CELL - picture.width) // 2, upper + (_CELL - picture.height) // 2))
            if cell.label == "kept":
                draw.rectangle((left - 2, upper - 2, left + _CELL + 1, upper + _CELL + 1), outline="#1a7f37", width=2)
            draw.text((left, upper + _CELL + 3), cell.label, "#1a7f37" if cell.label == "kept" else "#0b5394", font)
            caption = " ".join(str(cell.row["caption"] or "(no caption)").split())
            draw.text((left, upper + _CELL + 20), _fit(caption, font), "black", font)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")


def _picture(row: dict[str, object]) -> Image.Image | None:
    """A thumbnail, or None where the shard or the image is gone."""
    offset, n_bytes = row["byte_offset"], row["n_bytes"]
    try:
        data = read_image_bytes(str(row["shard"]), str(row["key"]), offset if isinstance(offset, int) else None, int(str(n_bytes)))
        picture = Image.fromarray(decode_image(data, max_pixels=_MAX_PIXELS, min_side=_CELL).pixels)
    except DedupError:
        return None
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as fits under a picture."""
    text = text[:200]  # a caption may have megabytes
    if font.getlength(text) <= _CELL:
        return text
    while text and font.getlength(text + "…") > _CELL:
        text = text[:-1]
    return text + "…"
