"""An explanation as a picture: the sample, what joins it to its keeper, the keeper, and what was refused."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from dedup.advice.drawing import CELL, COPY, GAP, KEPT, TEXT, draw_cell, fit, font, thumbnail
from dedup.advice.explanation import Explanation, Sample, Step

_ARROW = 96  # pixels between two pictures
_COLUMNS = 4
_LEAST_COLUMNS = 3  # so that the line above has room
_MOST = 8  # pictures of a path
_HEAD = 26  # pixels of a line of text
_REFUSED = "#a40e26"
_LEFT_OUT = "#57606a"
_ROW = CELL + TEXT + GAP


def draw_explanation(explanation: Explanation, out: str | Path) -> None:
    """Draw the path as a montage, with the similarity of each edge on its arrow.

    Parameters
    ----------
    explanation : Explanation
    out : path
        PNG to write. Images whose tar is gone are drawn as «image can't be read».
    """
    path, steps = list(explanation.path_samples) or [explanation.sample], list(explanation.path)
    beside = [(other.sample, _beside(other.similarity, other.refused)) for other in explanation.other_keepers[:_COLUMNS]]
    drawn = {sample.sample_id for sample, _ in beside}
    others = [pair for pair in explanation.refused if pair.other.sample_id not in drawn]
    refused = [(pair.other, f"{pair.similarity:.3f}, {pair.reason}") for pair in others[:_COLUMNS]]
    n_drawn = min(len(path), _MOST + 1)
    n_rows = -(-n_drawn // _COLUMNS)
    sections = [(text, cells) for text, cells in (("kept before it", beside), ("alike, but no copies", refused)) if cells]
    n_columns = max(_LEAST_COLUMNS, min(n_drawn, _COLUMNS), len(beside), len(refused))
    width = _left(n_columns) - (_ARROW if n_rows == 1 else 0)
    sheet = Image.new("RGB", (width, GAP + _HEAD + n_rows * _ROW + len(sections) * (_HEAD + _ROW)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), fit(f"{explanation.sample.key}: {explanation.reason}", font(15), width - 2 * GAP), "black", font(15))
    _draw_path(sheet, explanation, path, steps, GAP + _HEAD)
    top = GAP + _HEAD + n_rows * _ROW
    for text, cells in sections:
        draw.text((GAP, top), text, "black", font(15))
        for column, (sample, label) in enumerate(cells):
            colour = KEPT if cells is beside else _REFUSED
            _draw_sample(sheet, column, top + _HEAD, sample, label, colour, is_framed=cells is beside)
        top += _HEAD + _ROW
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")


def _draw_path(sheet: Image.Image, explanation: Explanation, path: list[Sample], steps: list[Step], top: int) -> None:
    """The pictures of a path, row by row; of a long one both ends."""
    shown = list(range(len(path)))
    if len(path) > _MOST:
        shown = [*range(_MOST // 2), -1, *range(len(path) - _MOST // 2, len(path))]
    for place, k in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        upper = top + row * _ROW
        if k < 0:
            text = f"… {len(path) - _MOST:,} more …"
            ImageDraw.Draw(sheet).text((_left(column) + 24, upper + CELL // 2), text, "grey", font(15))
            continue
        label, colour = _label(explanation, k, len(path))
        _draw_sample(sheet, column, upper, path[k], label, colour, is_framed=colour != COPY)
        if k < len(steps):  # to the next picture, which may lie at the beginning of the next row
            step = steps[k]
            _draw_arrow(sheet, _left(column) + CELL + GAP // 2, upper + CELL // 2, f"{step.similarity:.4f}", _what(step))


def _label(explanation: Explanation, k: int, n: int) -> tuple[str, str]:
    key = explanation.path_samples[k].key if explanation.path_samples else explanation.sample.key
    if k == 0:
        word = explanation.outcome.partition("_")[0]
        return f"{word}: {key}", KEPT if word == "kept" else _REFUSED if word == "rejected" else _LEFT_OUT
    return (f"keeper: {key}", KEPT) if k == n - 1 else (key, COPY)


def _draw_sample(sheet: Image.Image, column: int, top: int, sample: Sample, label: str, colour: str, *, is_framed: bool) -> None:
    picture = thumbnail(sample.shard, sample.key, sample.byte_offset, sample.n_bytes)
    draw_cell(sheet, _left(column), top, picture, label, sample.caption or "(no caption)", colour, is_framed=is_framed)


def _draw_arrow(sheet: Image.Image, left: int, middle: int, above: str, below: str) -> None:
    draw, small = ImageDraw.Draw(sheet), font(13)
    end = left + _ARROW - GAP
    draw.line((left, middle, end, middle), fill=COPY, width=2)
    draw.polygon([(end, middle), (end - 8, middle - 5), (end - 8, middle + 5)], fill=COPY)
    draw.text((left + 6, middle - 20), fit(above, small, _ARROW - GAP), COPY, small)
    draw.text((left + 6, middle + 6), fit(below, small, _ARROW - GAP), "grey", small)


def _left(column: int) -> int:
    return GAP + column * (CELL + GAP + _ARROW)


def _what(step: Step) -> str:
    return step.kind if step.kind == "exact" else step.variant if step.variant != "none" else step.source


def _beside(similarity: float | None, refused: str | None) -> str:
    return ", ".join(text for text in ("" if similarity is None else f"{similarity:.3f}", refused or "") if text) or "kept"
