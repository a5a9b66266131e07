"""Pictures of groups and of pairs: montages, and what an explanation shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from dedup.config.keys import MAX_PIXELS
from dedup.errors import DedupError, InputError, RunDirectoryError
from dedup.explanation.explanation import Explanation, Sample, Step
from dedup.runs.directory import Run
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.input.shards import read_image_bytes
from dedup.storage.tables import dataset, read_table
from dedup.text import bytes_text, printable

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Cell = tuple[dict[str, Any], str]  # a sample of the montage, and the first line under its picture
_CELL = 176  # pixels
_TEXT_HEIGHT = 44  # pixels under each picture
_GAP = 8
_ROW = _CELL + _TEXT_HEIGHT + _GAP
_HEAD = 24  # pixels above each row
_FACTS_HEIGHT = 78  # pixels under each picture of a montage: what it is, file, size, caption
_PER_PAGE = 25  # groups on one picture: viewers fail at some 30,000 pixels
_LINE_HEIGHT = 26  # pixels of a line of text
_ARROW = 96  # pixels between two pictures
_PICTURES_A_ROW = 4
_LEAST_COLUMNS = 3  # for the line above
_MAX_PATH = 8  # pictures of a path
_MAX_CHARACTERS = 200  # a caption may have megabytes
_KEY_CHARACTERS = 26
_KEPT = "#1a7f37"
_COPY = "#0b5394"
_REFUSED = "#a40e26"
_LEFT_OUT = "#57606a"
_OF_SAMPLE = ("sample_id", "shard", "key", "caption", "byte_offset", "n_bytes")
_COLUMNS = ["component_id", "duplication_count", "width", "height", "edits", *_OF_SAMPLE]


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
    """Draw groups of copies, a row each: keeper first, then copies by falling similarity, with what was done to them.

    Parameters
    ----------
    run_dir : str
        A run whose `manifest` and `statistics` stages are finished.
    out : path
        PNG to write; beyond 25 groups further ones beside it, ``NAME-2.png`` and so on.
    component_ids : sequence of int
        Groups to draw.
    n_largest, n_random : int
        Further groups; if no group is named either, the 6 largest.
    per_group : int
        Pictures per group; of more copies, the most and the least similar.
    seed : int

    Returns
    -------
    int
        Groups drawn.

    Raises
    ------
    InputError
        If a component_id is not a group of copies of this run.
    RunDirectoryError
        If there is no run, or a stage is missing or out of date.
    """
    run = Run.open(run_dir, ("manifest", "statistics"))
    statistics = read_table(run.table("statistics"), ["component_id", "duplication_count"])
    ids, counts = statistics["component_id"].to_numpy(), statistics["duplication_count"].to_numpy()
    unknown = sorted(set(component_ids) - set(ids.tolist()))
    if unknown:
        raise InputError(f"{unknown[0]} is not a group of copies in {run_dir}; its statistics/ table lists the component_ids")
    if not (component_ids or n_largest or n_random):
        n_largest = 6
    chosen = list(component_ids)
    chosen += ids[np.lexsort((ids, -counts))[:n_largest]].tolist()
    chosen += np.random.default_rng(seed).choice(ids, min(n_random, len(ids)), replace=False).tolist()
    drawn = [cells for cells in _cells(run, list(dict.fromkeys(chosen)), per_group) if cells]
    if not drawn:
        raise RunDirectoryError("no group of copies to draw: every image of this run is unique")
    for path, start in zip(pages(out, len(drawn)), range(0, len(drawn), _PER_PAGE), strict=True):
        _draw(drawn[start : start + _PER_PAGE], path, per_group)
    return len(drawn)


def pages(out: str | Path, n_groups: int) -> list[Path]:
    """The pictures that a montage of so many groups consists of.

    >>> [str(path) for path in pages("m.png", 60)]
    ['m.png', 'm-2.png', 'm-3.png']
    """
    first = Path(out)
    others = (first.with_name(f"{first.stem}-{number}{first.suffix}") for number in range(2, -(-n_groups // _PER_PAGE) + 1))
    return [first, *others]


def _cells(run: Run, groups: Sequence[int], per_group: int) -> list[list[_Cell]]:
    in_groups = pc.field("component_id").isin(groups)
    kept = dataset(run.table("manifest")).to_table(columns=_COLUMNS, filter=in_groups).to_pylist()
    columns = [*_COLUMNS, "similarity_to_keeper", "kind"]
    dropped = dataset(run.table("duplicates")).to_table(columns=columns, filter=in_groups).to_pylist()
    dropped.sort(key=lambda row: (-row["similarity_to_keeper"], row["sample_id"]))
    cells = []
    for group in groups:
        keepers, copies = ([row for row in rows if row["component_id"] == group] for rows in (kept, dropped))
        room = max(1, per_group - len(keepers))
        if len(copies) > room:
            copies = copies[: room - room // 2] + copies[len(copies) - room // 2 :]
        labels = ["identical bytes" if row["kind"] == "exact" else _edits_of(row) for row in copies]
        cells.append([*((row, "kept") for row in keepers[:per_group]), *zip(copies, labels, strict=True)])
    return cells


def _edits_of(row: dict[str, Any]) -> str:
    """What tells a copy from the others of its group; where nothing does, how similar it is to the one that is kept."""
    if row["edits"]:
        return ", ".join(row["edits"])
    return row["kind"] if row["kind"] not in ("near", "exact") else f"copy, similarity {row['similarity_to_keeper']:.3f}"


def _draw(rows: list[list[_Cell]], out: Path, per_group: int) -> None:
    n_columns = min(per_group, max(len(row) for row in rows))
    height = _HEAD + _CELL + _FACTS_HEIGHT + _GAP
    sheet = Image.new("RGB", (_GAP + n_columns * (_CELL + _GAP), _GAP + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _GAP + number * height
        first, _ = row[0]
        draw.text((_GAP, top), f"component {first['component_id']}: {first['duplication_count']} samples", "black", _font(15))
        for column, (shown, label) in enumerate(row[:n_columns]):
            sample, is_kept = Sample(**{name: shown[name] for name in _OF_SAMPLE}), label == "kept"
            left = _GAP + column * (_CELL + _GAP)
            lines = [_last(sample.key), _size_of(shown), sample.caption or ""]
            _draw_sample(sheet, left, top + _HEAD, sample, label, _KEPT if is_kept else _COPY, is_framed=is_kept, lines=lines)
    _save(sheet, out)


def _last(key: str) -> str:
    """The end of a key, which tells more than its folders."""
    return key if len(key) <= _KEY_CHARACTERS else f"…{key[-_KEY_CHARACTERS:]}"


def _size_of(row: dict[str, Any]) -> str:
    pixels = f"{row['width']:,} x {row['height']:,}" if row["width"] else ""
    return ", ".join(filter(None, (pixels, bytes_text(row["n_bytes"]) if row["n_bytes"] else "")))


def _save(sheet: Image.Image, out: str | Path) -> None:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")


def draw_explanation(explanation: Explanation, out: str | Path) -> None:
    """Draw the path as a PNG, with the similarity of each edge on its arrow; images whose tar is gone as «image can't be read»."""
    path, steps = list(explanation.path_samples) or [explanation.sample], list(explanation.path)
    beside = [(keeper.sample, _beside(keeper.similarity, keeper.refused)) for keeper in explanation.other_keepers[:_PICTURES_A_ROW]]
    drawn = {sample.sample_id for sample, _ in beside}
    pairs = [pair for pair in explanation.refused if pair.other.sample_id not in drawn]
    refused = [(pair.other, f"{pair.similarity:.3f}, {pair.reason}") for pair in pairs[:_PICTURES_A_ROW]]
    n_drawn = min(len(path), _MAX_PATH + 1)
    n_rows = -(-n_drawn // _PICTURES_A_ROW)
    copies = [(copy, "dropped") for copy in explanation.copies]
    rows = [("kept before it", beside)]
    for start in range(0, len(copies), _PICTURES_A_ROW):
        rows.append(("dropped in favour of it" if not start else "", copies[start : start + _PICTURES_A_ROW]))
    sections = [(text, cells) for text, cells in (*rows, ("similar, but not copies", refused)) if cells]
    n_columns = max(_LEAST_COLUMNS, min(n_drawn, _PICTURES_A_ROW), len(beside), len(refused), min(len(copies), _PICTURES_A_ROW))
    width = _column_x(n_columns) - (_ARROW if n_rows == 1 else 0)
    sheet = Image.new("RGB", (width, _GAP + _LINE_HEIGHT + n_rows * _ROW + len(sections) * (_LINE_HEIGHT + _ROW)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _fit(f"{explanation.sample.key}: {explanation.reason}", _font(15), width - 2 * _GAP), "black", _font(15))
    _draw_path(sheet, explanation, path, steps, _GAP + _LINE_HEIGHT)
    top = _GAP + _LINE_HEIGHT + n_rows * _ROW
    for text, cells in sections:
        draw.text((_GAP, top), text, "black", _font(15))
        for column, (sample, label) in enumerate(cells):
            colour = _KEPT if cells is beside else _REFUSED if cells is refused else _COPY
            _draw_sample(sheet, _column_x(column), top + _LINE_HEIGHT, sample, label, colour, is_framed=cells is beside)
        top += _LINE_HEIGHT + _ROW
    _save(sheet, out)


def _draw_path(sheet: Image.Image, explanation: Explanation, path: list[Sample], steps: list[Step], top: int) -> None:
    """The pictures of a path, row by row; only both ends of a long one."""
    shown = list(range(len(path)))
    if len(path) > _MAX_PATH:
        shown = [*range(_MAX_PATH // 2), -1, *range(len(path) - _MAX_PATH // 2, len(path))]
    for place, k in enumerate(shown):
        row, column = divmod(place, _PICTURES_A_ROW)
        upper = top + row * _ROW
        if k < 0:
            text = f"… {len(path) - _MAX_PATH:,} more …"
            ImageDraw.Draw(sheet).text((_column_x(column) + 24, upper + _CELL // 2), text, "grey", _font(15))
            continue
        label, colour = _label(explanation, k, len(path))
        _draw_sample(sheet, _column_x(column), upper, path[k], label, colour, is_framed=colour != _COPY)
        if k < len(steps):  # to the next picture, which may lie at the beginning of the next row
            step = steps[k]
            how = step.kind if step.kind == "exact" else step.variant if step.variant != "none" else step.source
            _draw_arrow(sheet, _column_x(column) + _CELL + _GAP // 2, upper + _CELL // 2, f"{step.similarity:.4f}", how)


def _label(explanation: Explanation, k: int, n: int) -> tuple[str, str]:
    key = explanation.path_samples[k].key if explanation.path_samples else explanation.sample.key
    if k == 0:
        word = explanation.outcome.partition("_")[0]
        return f"{word}: {key}", _KEPT if word == "kept" else _REFUSED if word == "rejected" else _LEFT_OUT
    return (f"keeper: {key}", _KEPT) if k == n - 1 else (key, _COPY)


def _draw_arrow(sheet: Image.Image, left: int, middle: int, above: str, below: str) -> None:
    draw, small = ImageDraw.Draw(sheet), _font(13)
    end = left + _ARROW - _GAP
    draw.line((left, middle, end, middle), fill=_COPY, width=2)
    draw.polygon([(end, middle), (end - 8, middle - 5), (end - 8, middle + 5)], fill=_COPY)
    draw.text((left + 6, middle - 20), _fit(above, small, _ARROW - _GAP), _COPY, small)
    draw.text((left + 6, middle + 6), _fit(below, small, _ARROW - _GAP), "grey", small)


def _column_x(column: int) -> int:
    return _GAP + column * (_CELL + _GAP + _ARROW)


def _beside(similarity: float | None, refused: str | None) -> str:
    return ", ".join(text for text in ("" if similarity is None else f"{similarity:.3f}", refused or "") if text) or "kept"


def _draw_sample(
    sheet: Image.Image, left: int, top: int, sample: Sample, label: str, colour: str, *, is_framed: bool, lines: Sequence[str] | None = None
) -> None:
    """Draw a sample's picture, with a coloured label and lines under it: by default its caption."""
    draw, small, picture = ImageDraw.Draw(sheet), _font(13), _thumbnail(sample)
    if picture is None:
        draw.rectangle((left, top, left + _CELL, top + _CELL), outline="grey")
        draw.text((left + 8, top + _CELL // 2), "image can't be read", "grey", small)
    else:
        sheet.paste(picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2))
    if is_framed:
        draw.rectangle((left - 2, top - 2, left + _CELL + 1, top + _CELL + 1), outline=colour, width=2)
    draw.text((left, top + _CELL + 3), _fit(label, small, _CELL), colour, small)
    for number, text in enumerate([sample.caption or "(no caption)"] if lines is None else filter(None, lines), 1):
        draw.text((left, top + _CELL + 3 + 17 * number), _fit(text, small, _CELL), "black", small)


def _thumbnail(sample: Sample) -> Image.Image | None:
    """A picture that fits a cell, or None where the shard or the image is gone."""
    if not sample.n_bytes:
        return None
    try:
        data = read_image_bytes(sample.shard, sample.key, sample.byte_offset, sample.n_bytes)
        picture = Image.fromarray(decode_isolated(data, max_pixels=MAX_PIXELS, min_side=_CELL).pixels)
    except DedupError:
        return None
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _fit(text: str, font: Font, width: int) -> str:
    """As much of a text as fits on one line of so many pixels."""
    text = printable(text, _MAX_CHARACTERS)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
