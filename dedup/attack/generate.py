"""Generations of an attack's targets, for those who have the model: one PNG for each seed, resumable by image and by part."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow.dataset as ds

from dedup.attack.generate_part import TABLE, GenerateTask, generate_part, record_options
from dedup.attack.generation_list import Prompt, left_out_of, read_list
from dedup.attack.models import n_processes
from dedup.attack.painter import Drawing
from dedup.contracts import Engine, GpuUse, Reporter, SilentReporter, reported
from dedup.engines.local import LocalEngine
from dedup.errors import ConfigError
from dedup.runs.record import digest
from dedup.schemas import GENERATED
from dedup.storage.urls import absolute, filesystem, join, matching
from dedup.text import counted


@dataclass(frozen=True)
class GenerateSummary:
    """Counts over all targets of the list."""

    out: str
    n_targets: int
    n_images: int  # there now
    n_made: int  # of these, made by this call
    n_blank: int  # of one colour, as a safety filter returns them
    n_cut: int  # targets whose prompt is longer than the model reads
    table: str
    notes: list[str] = field(default_factory=list)


def generate_targets(
    targets: str,
    out: str,
    *,
    model: str,
    steps: int = 50,
    guidance: float = 7.5,
    batch: int = 8,
    height: int = 0,
    width: int = 0,
    dtype: str = "auto",
    noise: bool = False,
    targets_per_part: int = 100,
    limit: int = 0,
    device: str = "auto",
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> GenerateSummary:
    """Generate the images of an attack's targets with a text-to-image model.

    Parameters
    ----------
    targets : str
        A run's `targets/` folder, or a list `part-*.jsonl` of `dedup extraction work`.
    out : str
        Folder for `TARGET_ID/SEED.png`, which `score_generations` reads, and the table `_generated/part-*.parquet`. Images that are
        there are not made again; a call that was stopped continues where it was.
    model : str
        Folder that a pipeline of diffusers was saved in, or its name on the hub.
    steps : int
        Denoising steps; with 1, the table has the edge consistency score of Webster (2023).
    guidance : float
        Scale of classifier-free guidance; up to 1 there is none.
    batch : int
        Images at a time; halved where a GPU runs out of memory. No image depends on it, but for rounding.
    height, width : int
        Pixels, a multiple of 8; 0 = the model's own.
    dtype : str
        fp16, fp32; auto = fp16 on a GPU, fp32 on a CPU.
    noise : bool
        Whether to measure the magnitude of the text-conditional noise (Wen et al. 2024).
    targets_per_part : int
        Targets of a task, and rows of a file of the table.
    limit : int
        Most targets, the first of the list; 0 = all.
    device : str
        cpu or cuda; auto = cuda where torch finds a GPU.
    engine : Engine
        By default a process for each GPU of this machine, or one on all cores.
    reporter : Reporter

    Returns
    -------
    GenerateSummary

    Raises
    ------
    MissingExtra
        If the extra `extraction` is not installed.
    ConfigError
        If the model can't be loaded, or can't do what is asked of it.
    InputError
        If the list can't be read, or an image that is there.
    RunDirectoryError
        If `out` holds images made with another model or other options.
    StageError
        If a GPU has no memory for one image.

    Notes
    -----
    After Carlini et al. (2023), "Extracting Training Data from Diffusion Models", section 4; Webster (2023), "A Reproducible Extraction
    of Training Images from Diffusion Models"; Wen et al. (2024), "Detecting, Explaining, and Mitigating Memorization in Diffusion Models".
    """
    for name, number, least in (("batch", batch, 1), ("targets-per-part", targets_per_part, 1), ("limit", limit, 0)):
        if number < least:
            raise ConfigError(f"--{name}={number}; expected {least} or more")
    model = absolute(model) if os.path.exists(model) else model
    drawing = Drawing(model, steps, guidance, height, width, dtype, noise)
    prompts, out = read_list(targets, limit), absolute(out)
    record_options(out, drawing, is_writing=False)
    tasks, reporter = _tasks(prompts, targets_per_part, drawing, batch, device, out), reporter or SilentReporter()
    if engine is not None:
        return _generate(tasks, out, engine, reporter, left_out_of(targets))
    with closing(LocalEngine(count_gpus=partial(n_processes, device))) as own:
        return _generate(tasks, out, own, reporter, left_out_of(targets))


def _tasks(prompts: Sequence[Prompt], size: int, drawing: Drawing, batch: int, device: str, out: str) -> list[GenerateTask]:
    # several generators may share the folder, each with a list of its own
    name = digest([size, prompts])[:8]
    return [
        GenerateTask(
            tuple(prompts[start : start + size]), drawing, batch, device, out, join(out, TABLE, f"part-{name}-{number:05d}.parquet")
        )
        for number, start in enumerate(range(0, len(prompts), size))
    ]


def _generate(tasks: Sequence[GenerateTask], out: str, engine: Engine, reporter: Reporter, notes: list[str]) -> GenerateSummary:
    finished = set(matching(join(out, TABLE), "part-*.parquet"))
    missing = [task for task in tasks if filesystem(task.part)[1] not in finished]
    sizes = [sum(prompt.n_generations for prompt in task.prompts) for task in missing]
    n_images = sum(prompt.n_generations for task in tasks for prompt in task.prompts)
    n_made = 0
    if len(missing) < len(tasks):
        notes.append(f"{len(tasks) - len(missing):,} of {counted(len(tasks), 'part')} were finished before")
    for note in notes:
        reporter.note(f"extraction: {note}")
    # on Spark a task that computes on the CPU must not wait for a GPU; here it shares no cores with others
    uses_gpu: GpuUse = "alone" if tasks[0].device != "cpu" or engine.is_local else False
    results = engine.map_partitions(generate_part, missing, uses_gpu=uses_gpu)
    for _, result in reported(results, sizes, reporter, "generate", "images", n_done=n_images - sum(sizes)):
        n_made += result.n_made
        for note in result.notes:
            reporter.note(f"extraction: {note}")
            notes.append(note)
    return _summarise(tasks, out, n_made, notes, reporter)


def _summarise(tasks: Sequence[GenerateTask], out: str, n_made: int, notes: list[str], reporter: Reporter) -> GenerateSummary:
    fs, _ = filesystem(out)
    parts = ds.dataset([filesystem(task.part)[1] for task in tasks], schema=GENERATED, format="parquet", filesystem=fs)
    rows = parts.to_table(columns=["n_generated", "n_present", "n_blank", "is_cut"])
    totals = {name: int(np.sum(rows[name].to_numpy())) for name in rows.column_names}
    if totals["is_cut"]:
        notes.append(f"{totals['is_cut']:,} of {counted(len(rows), 'prompt')} are longer than the model reads; their ends have no effect")
        reporter.note(f"extraction: {notes[-1]}")
    n_images = totals["n_generated"] + totals["n_present"]
    return GenerateSummary(out, len(rows), n_images, n_made, totals["n_blank"], totals["is_cut"], join(out, TABLE), notes)
