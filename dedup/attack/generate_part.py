"""One part of the generations: the images of some targets, one PNG for each seed, and the rows of these targets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dedup.attack.generation_list import Prompt
from dedup.attack.generations import is_one_colour
from dedup.attack.painter import Drawing, Painter, load_painter
from dedup.config.keys import MAX_PIXELS
from dedup.contracts import JsonDict
from dedup.errors import InputError, RunDirectoryError, SampleError
from dedup.numerics.arraytypes import Mask, Pixels
from dedup.numerics.edges import EDGE_SIDE, edge_consistency, edge_masks
from dedup.schemas import GENERATED
from dedup.storage.atomic import remove_half_written, write_bytes, write_json
from dedup.storage.images.isolated import decode_isolated
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join, matching, read_bytes, read_json

TABLE: Final = "_generated"  # folder of the table; `dedup extraction score` passes over names that begin so

_OPTIONS: Final = "_options.json"
_NOISE: Final = "noise_magnitude"  # kept in the PNG, so that a resumed target has the mean over all its images


@dataclass(frozen=True)
class GenerateTask:
    """Consecutive targets of the list."""

    prompts: tuple[Prompt, ...]
    drawing: Drawing
    batch: int
    device: str
    out: str
    part: str  # the file of the table, written last: the part is finished


class GenerateResult(NamedTuple):
    """What a task did."""

    n_made: int
    notes: list[str]


class Facts(NamedTuple):
    """What the table needs to know of one image."""

    is_blank: bool
    noise: float | None
    edges: Mask | None  # shape (EDGE_SIDE, EDGE_SIDE); of an image of one step that is not blank


def record_options(out: str, drawing: Drawing, *, is_writing: bool = True) -> None:
    """Record how the images of a folder are made, or stop if it holds images made otherwise."""
    path, options = join(out, TABLE, _OPTIONS), asdict(drawing)
    recorded = read_json(path)
    if recorded is not None and recorded != options:
        changed = " and ".join(f"{name} {recorded.get(name)}" for name in options if recorded.get(name) != options[name])
        raise RunDirectoryError(f"{out} holds images made with {changed}; choose another --out, or the same options")
    if recorded is None and is_writing:
        write_json(path, options)


def generate_part(task: GenerateTask) -> GenerateResult:
    """Make the missing images of some targets, then write their rows."""
    painter = load_painter(task.drawing, task.batch, task.device)
    record_options(task.out, task.drawing)  # only now: a model that can't be loaded leaves no record
    present = [_present(join(task.out, prompt.target_id)) for prompt in task.prompts]
    missing = [
        (prompt.text, seed) for prompt, seeds in zip(task.prompts, present, strict=True) for seed in prompt.seeds if seed not in seeds
    ]
    # lazily: a batch may hold images of several targets, and is drawn when its first image is asked for
    pictures = painter.draw([text for text, _ in missing], [seed for _, seed in missing])
    rows = []
    for prompt, seeds in zip(task.prompts, present, strict=True):
        facts = []
        for seed in prompt.seeds:
            path = join(task.out, prompt.target_id, f"{seed}.png")
            if seed in seeds:
                facts.append(_facts_of(path, task.drawing))
            else:
                picture = next(pictures)
                _write(path, picture.pixels, picture.noise)
                facts.append(_facts(picture.pixels, picture.noise, task.drawing, is_blank=picture.is_flagged))
        rows.append(_row(prompt, len(seeds.intersection(prompt.seeds)), facts, painter))
    with FileWriter(task.part, GENERATED) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=GENERATED))
    return GenerateResult(len(missing), painter.notes)


def _present(folder: str) -> set[int]:
    """Seeds whose images are in a target's folder."""
    remove_half_written(folder)
    stems = [name.rpartition("/")[2].removesuffix(".png") for name in matching(folder, "[0-9]*.png")]
    return {int(stem) for stem in stems if stem.isdecimal()}


def _write(path: str, pixels: Pixels, noise: float | None) -> None:
    texts, file = PngInfo(), io.BytesIO()
    if noise is not None:
        texts.add_text(_NOISE, repr(noise))
    # the default level takes longer than a denoising step of a GPU, and saves little
    Image.fromarray(pixels).save(file, "PNG", pnginfo=texts, compress_level=1)
    write_bytes(path, file.getvalue())


def _facts_of(path: str, drawing: Drawing) -> Facts:
    """What the table needs to know of an image that was made before."""
    try:
        data = read_bytes(path) or b""
        pixels = decode_isolated(data, max_pixels=MAX_PIXELS).pixels
        with Image.open(io.BytesIO(data)) as image:
            noise = float(image.info[_NOISE]) if drawing.noise else None
    except (SampleError, OSError, KeyError, ValueError) as error:
        what = f"has no {_NOISE}" if isinstance(error, KeyError) else f"can't be read: {error}"
        raise InputError(f"{path} {what}; expected an image that this command wrote; delete it and run the same command again") from error
    return _facts(pixels, noise, drawing, is_blank=False)


def _facts(pixels: Pixels, noise: float | None, drawing: Drawing, *, is_blank: bool) -> Facts:
    is_blank = is_blank or is_one_colour(pixels)
    if drawing.steps > 1 or is_blank:
        return Facts(is_blank, noise, None)
    side = (EDGE_SIDE, EDGE_SIDE)
    reduced = Image.fromarray(pixels).resize(side, Image.Resampling.LANCZOS)  # as the paper does
    return Facts(is_blank, noise, edge_masks(np.asarray(reduced)[None])[0])


def _row(prompt: Prompt, n_present: int, facts: Sequence[Facts], painter: Painter) -> JsonDict:
    masks = [fact.edges for fact in facts if fact.edges is not None]
    magnitudes = [fact.noise for fact in facts if fact.noise is not None]
    mean = float(np.mean(magnitudes)) if magnitudes else np.nan
    return {
        "target_id": prompt.target_id,
        "first_seed": prompt.first_seed,
        "n_generated": len(facts) - n_present,
        "n_present": n_present,
        "n_blank": sum(fact.is_blank for fact in facts),
        "is_cut": painter.is_cut(prompt.text),
        "edge_score": edge_consistency(np.stack(masks)) if len(masks) > 1 else None,
        "noise_magnitude": mean if np.isfinite(mean) else None,
    }
