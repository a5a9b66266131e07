"""How much of generations is made of patches of their training images, by the size of a patch, the duplication count and the label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.attack.generations import Generations, find_generations, read_pixels, stack, stretched
from dedup.attack.labels import decades, read_labels
from dedup.attack.parts import begin, identity_of, missing_parts, part_url, refuse_other
from dedup.attack.prompts import read_prompts
from dedup.attack.target_list import place_of, read_targets
from dedup.config import ExtractionConfig
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, Table, reported
from dedup.engines.local import engine_or_own
from dedup.errors import InputError, MissingExtra, SampleError
from dedup.numerics.arraytypes import Pixels
from dedup.numerics.judge.lay import laid_on
from dedup.numerics.patches import count_patches
from dedup.report.plot import load_pyplot, png_of
from dedup.schemas import PATCH_CURVE, PATCHES
from dedup.storage.atomic import write_bytes
from dedup.storage.tables import FileWriter, dataset
from dedup.storage.urls import join

SIDES: Final = (32, 64, 128, 256)  # of patches, for generations of 512; of others in proportion
_FULL: Final = 512
_KINDS: Final = ("same", "any", "same_by_chance", "any_by_chance")


@dataclass(frozen=True)
class PatchTask:
    """Consecutive targets of the list, and the training image that each is compared with by chance."""

    number: int
    first: int
    rows: pa.Table
    unrelated: pa.Table
    labels: list[str | None]
    generations: Generations
    n_generations: int
    options: ExtractionConfig
    output: Table


@dataclass(frozen=True)
class PatchSummary:
    """What was counted, and the curve over all targets."""

    out: str
    n_targets: int  # with generations and a training image
    n_left_out: int  # without
    curve: list[JsonDict] = field(default_factory=list)  # rows over all counts and labels, a row a side
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def measure_patches(
    targets: str,
    generations: str,
    out: str,
    *,
    scores: str = "",
    prompts: str = "",
    n_generations: int = 20,
    options: ExtractionConfig | None = None,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> PatchSummary:
    """Measure the share of generations' patches that are patches of the training image, by size.

    Parameters
    ----------
    targets, generations, prompts : str
        As in `score_generations`.
    out : str
        Folder for the table `dedup.schemas.PATCHES`, a row for each target and size, `_curve.parquet` and, with matplotlib, `curve.png`.
        Measuring that was stopped continues with the missing parts.
    scores : str
        Folder of `dedup extraction score`, for the labels.
    n_generations : int
        Of each target, the first by name; all take long.
    options : ExtractionConfig
        `max_distance` is δ, `max_side` the size that generations are reduced to.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    InputError
        If targets, generations or scores can't be read.
    RunDirectoryError
        If `out` holds patches of other targets, generations or options.

    Notes
    -----
    Patches of N x N pixels, N = 32, 64, 128 and 256 of 512, half a side apart, as far as they have texture: within δ of the same place
    of the training image, once that is registered on the generation by the judge, or of any place of it. By chance: the same with the
    training image of the next target of the list.
    """
    options, reporter = options or ExtractionConfig(), reporter or SilentReporter()
    listed, known = read_targets(targets), read_labels([scores]) if scores else None
    rows = listed.rows
    labels = {} if known is None else dict(zip(known["target_id"].to_pylist(), known["label"].to_pylist(), strict=True))
    ids, output, size = rows["target_id"].to_pylist(), Table(out, PATCHES), options.targets_per_part
    table = read_prompts(prompts) if prompts else None
    made_of = {
        "targets": ids,
        "generations": generations,
        "options": [*vars(options).items(), n_generations],
        "prompts": None if table is None else table.to_pydict(),
        "labels": [labels.get(target) for target in ids],
    }
    identity = identity_of(output, made_of)
    refuse_other(output, identity)
    with engine_or_own(engine) as engine:
        located, notes = find_generations(generations, ids, join(out, "_generations"), engine, table)
        begin(output, identity)
        notes += listed.notes()
        tasks = []
        for number, start in enumerate(range(0, len(ids), size)):
            places = np.arange(start, min(start + size, len(ids)))
            unrelated, own = rows.take((places + 1) % len(ids)), [labels.get(ids[place]) for place in places]
            tasks.append(PatchTask(number, start, rows.take(places), unrelated, own, located, n_generations, options, output))
        missing = missing_parts(tasks, output)
        sizes = [len(task.rows) for task in missing]
        results = engine.map_partitions(count_targets, missing)
        for _ in reported(results, sizes, reporter, "patches", "targets", n_done=len(ids) - sum(sizes)):
            pass
    return _summarise(out, output, len(rows), notes)


def count_targets(task: PatchTask) -> int:
    """Count the patches of one part and write its file; returns the number of targets."""
    rows = task.rows.to_pylist()
    generations = task.generations.of_targets(task.first, [row["target_id"] for row in rows])
    with FileWriter(part_url(task.output, task.number), task.output.schema) as writer:
        for row, unrelated, label, found in zip(rows, task.unrelated.to_pylist(), task.labels, generations, strict=True):
            read = stack(found[: task.n_generations], task.options.max_side)
            about = {"target_id": row["target_id"], "label": label, "duplication_count": row["duplication_count"]}
            about["n_generations"] = len(read.names)
            counts = [about | numbers for numbers in _count(read.images, row, unrelated, task.options)]
            writer.write(pa.Table.from_pylist(counts, schema=task.output.schema))
    return len(rows)


def _count(images: Pixels, row: JsonDict, unrelated: JsonDict, options: ExtractionConfig) -> list[JsonDict]:
    """The counts of all generations of a target, a row for each size; none if there is nothing to compare."""
    if not len(images):
        return []
    try:
        target = _training(row, images)
    except (InputError, SampleError):
        return []
    try:
        other = _training(unrelated, images) if unrelated["target_id"] != row["target_id"] else None
    except (InputError, SampleError):
        other = None
    registered = [laid_on(target, image) for image in images]
    counts: list[JsonDict] = []
    for full in SIDES:
        side = round(full / _FULL * min(images.shape[1:3]))
        if side < 2:
            continue
        own = [count_patches(image, target, side, options.max_distance, laid) for image, laid in zip(images, registered, strict=True)]
        n_patches, n_same, n_any = np.array(own).sum(axis=0).tolist()
        chance = [count_patches(image, other, side, options.max_distance) for image in images] if other is not None else []
        _, same, anywhere = np.array(chance).sum(axis=0).tolist() if chance else (0, None, None)
        numbers = {"n_patches": n_patches, "n_same": n_same, "n_any": n_any, "n_same_by_chance": same, "n_any_by_chance": anywhere}
        counts.append({"side": full} | numbers)
    return counts


def _training(row: JsonDict, images: Pixels) -> Pixels:
    return stretched(read_pixels(*place_of(row)), *images.shape[1:3])


def _summarise(out: str, output: Table, n_listed: int, notes: list[str]) -> PatchSummary:
    table = dataset(output).to_table()
    n_targets = len(pc.unique(table["target_id"]))
    curve = patch_curve(table)
    path = join(out, "_curve.parquet")
    with FileWriter(path, PATCH_CURVE) as writer:
        writer.write(curve)
    rows = curve.to_pylist()
    files = [path, *_draw(rows, join(out, "curve.png"), notes)]
    return PatchSummary(
        out, n_targets, n_listed - n_targets, [row for row in rows if row["label"] is None and row["least"] is None], notes, files
    )


def patch_curve(table: pa.Table) -> pa.Table:
    """Shares of patches by size: over all, by label, and by decade of the duplication count; of `dedup.schemas.PATCH_CURVE`.

    Every target counts alike, however many patches it has: shares are means over targets.
    """
    rows: list[JsonDict] = []
    counts = pc.fill_null(table["duplication_count"], 0)
    groups: list[tuple[str | None, int | None, int | None, pa.Table]] = [(None, None, None, table)]
    groups += [
        (label, None, None, table.filter(pc.equal(table["label"], label))) for label in pc.unique(table["label"].drop_null()).to_pylist()
    ]
    for least, most in decades(int(pc.max(counts).as_py() or 0)):
        groups.append((None, least, most, table.filter(pc.and_(pc.greater_equal(counts, least), pc.less_equal(counts, most)))))
    for label, first, last, part in groups:
        for side in SIDES:
            own = part.filter(pc.and_(pc.equal(part["side"], side), pc.greater(part["n_patches"], 0)))
            if len(own):
                n = own["n_patches"].to_numpy()
                shares = {f"share_{kind}": _mean_share(own[f"n_{kind}"], n) for kind in _KINDS}
                rows.append({"label": label, "least": first, "most": last, "side": side, "n_targets": len(own)} | shares)
    return pa.Table.from_pylist(rows, schema=PATCH_CURVE)


def _mean_share(column: pa.ChunkedArray, n_patches: np.ndarray) -> float | None:
    values = pc.cast(column, pa.float64()).to_numpy() / n_patches
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


_LINES: Final = {
    "share_same": ("same place", "o-", "C0"),
    "share_any": ("any place", "s-", "C1"),
    "share_same_by_chance": ("same place, by chance", "o:", "C0"),
    "share_any_by_chance": ("any place, by chance", "s:", "C1"),
}


def _draw(rows: list[JsonDict], path: str, notes: list[str]) -> list[str]:
    """Shares over the size of patches, a panel for each label and one for duplication counts; nothing without matplotlib."""
    try:
        pyplot = load_pyplot()
    except MissingExtra as error:
        notes.append(f"no picture: {error}")
        return []
    labels = list(dict.fromkeys(row["label"] for row in rows if row["least"] is None))
    decades = [row for row in rows if row["least"] is not None]
    n_panels = len(labels) + bool(decades)
    if not rows:
        return []
    figure, panels = pyplot.subplots(1, n_panels, figsize=(4.2 * n_panels, 4), layout="constrained", sharey=True, squeeze=False)
    for panel, label in zip(panels[0], labels, strict=False):
        own = [row for row in rows if row["label"] == label and row["least"] is None]
        for name, (text, style, colour) in _LINES.items():
            shown = [(row["side"], row[name]) for row in own if row[name] is not None]
            if shown:
                panel.plot(*zip(*shown, strict=True), style, color=colour, markersize=4, label=text)
        panel.set(title=label or "all", xlabel="side of a patch, of 512")
    if decades:
        panel = panels[0][-1]
        for least, most in dict.fromkeys((row["least"], row["most"]) for row in decades):
            shown = [(row["side"], row["share_any"]) for row in decades if row["least"] == least]
            panel.plot(*zip(*shown, strict=True), "o-", markersize=4, label=f"{least:,} to {most:,} samples")
        panel.set(title="any place, by samples in the group", xlabel="side of a patch, of 512")
    for panel in panels[0]:
        panel.set_xscale("log", base=2)
        panel.set_xticks(SIDES, [str(side) for side in SIDES])
        panel.set_ylim(0.0, 1.05)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    panels[0][0].set_ylabel("share of patches with detail")
    write_bytes(path, png_of(figure))
    return [path]
