"""What a run prints: progress, the closing summary, the state of its stages."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final

from rich import filesize
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from dedup.cli.show.terminal import console, print_lines, print_text
from dedup.config import Config
from dedup.config.load import resolved
from dedup.contracts import Progress
from dedup.pipeline.plan import StageStatus
from dedup.pipeline.run import RunSummary
from dedup.storage.input.recognise import Recognised
from dedup.text import counted, input_lines, printable

_PLAIN_EVERY_S = 5.0


class ConsoleReporter:
    """A bar per stage on a terminal, plain lines otherwise; everything goes to standard error."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        if self._console.is_terminal:
            whole = Column(no_wrap=True)
            self._bars = Bars(
                TextColumn("{task.description:<10}", table_column=whole),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}", table_column=whole),
                TextColumn("{task.fields[rate]}", table_column=whole),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )

    def progress(self, progress: Progress) -> None:
        """Draw a bar, or print a line every few seconds and at the end."""
        now = time.monotonic()
        started = self._started.setdefault(progress.stage, now)
        rate = progress.done / (now - started) if now > started and progress.done else 0.0
        text = f"{rate:,.{0 if rate >= 10 else 1}f} {progress.unit}/s{progress.detail}" if rate else ""
        if self._bars is not None:
            if progress.stage not in self._tasks:
                self._tasks[progress.stage] = self._bars.add_task(progress.stage, unit=progress.unit, rate="", total=progress.total)
            self._bars.update(self._tasks[progress.stage], completed=progress.done, total=progress.total, rate=text)
            return
        is_last = progress.done >= progress.total
        if progress.total and (is_last or now - self._last_line.get(progress.stage, started) >= _PLAIN_EVERY_S):
            self._last_line[progress.stage] = now
            remaining = f", {(progress.total - progress.done) / rate:,.0f} s left" if rate and not is_last else ""
            line = f"{progress.stage}: {progress.done:,} of {progress.total:,} {progress.unit} {text}{remaining}"
            self._console.print(line.rstrip(), soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(printable(text), soft_wrap=True, markup=False)

    def __enter__(self) -> ConsoleReporter:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()


Line = tuple[str, str]  # name and text
Lines = Callable[[RunSummary, Config], list[Line]]


def summary_lines(summary: RunSummary, config: Config) -> list[Line]:
    """The closing summary as (name, text) rows; stages that did not run are left out."""
    lines = [line for stage, of_stage in _LINES if stage in summary.records for line in of_stage(summary, config)]
    seconds = {name: "done before" if name in summary.skipped else f"{record.seconds:.1f}" for name, record in summary.records.items()}
    return [*lines, ("seconds", ", ".join(f"{name} {text}" for name, text in seconds.items()))]


def _embed(summary: RunSummary, config: Config) -> list[Line]:
    record = summary.records["embed"]
    n_samples, n_rejected = record.rows["metadata"], record.rows["rejected"]
    figures = record.summary
    lines = [("samples", f"{figures.get('n_keys', n_samples + n_rejected):,} in {counted(figures['n_shards'], config.input.source_noun)}")]
    if "embed" not in summary.skipped and record.seconds:
        n_embedded = n_samples - record.summary.get("n_base_samples", 0)
        lines.append(("embedding", f"{n_embedded / record.seconds:,.0f} images/s"))
    reasons = _counts(record.summary.get("rejected", {}))
    lines.append(("rejected", f"{n_rejected:,}" + (f" ({reasons})" if reasons else "")))
    return lines + input_lines(figures)


def _index(summary: RunSummary, _: Config) -> list[Line]:
    figures = summary.records["index"].summary
    if not figures.get("nlist"):
        return []
    lists = "one list: every pair compared" if figures["nlist"] == 1 else f"{figures['nlist']:,} lists, {figures['nprobe']} per image"
    lines = [("distinct images", f"{figures['n_images']:,} ({lists})")]
    if drift := figures.get("drift"):
        advice = f"a run without base.run_dir trains them anew: {'; '.join(drift['reasons'])}" if drift["reasons"] else "they suit"
        n_base = figures["n_base_images"]
        lines.append(("base", f"{n_base:,} of them from the base, {figures['n_images'] - n_base:,} new; the base's lists: {advice}"))
    return lines


def _pairs(summary: RunSummary, config: Config) -> list[Line]:
    figures, config = summary.records["pairs"].summary, resolved(config)
    exact = "exact" if summary.figure("embed", "exact_by") != "embedding" else "exact (equal embeddings)"
    parts = [
        f"{figures['n_exact_edges']:,} {exact}",
        f"{figures['n_near_edges']:,} near (similarity >= {config.search.min_similarity})",
        f"{figures['n_view_edges']:,} by views",
    ]
    if figures.get("n_also_edges"):
        parts.append(f"{figures['n_also_edges']:,} by {config.embed.also[0]} alone")
    return [("candidates", ", ".join(parts)), *_recall(summary)]


def _recall(summary: RunSummary) -> list[Line]:
    figures = summary.records["pairs"].summary
    images = f"{figures['recall_queries']:,} {'sampled new images' if summary.figure('index', 'n_base_images') else 'sampled images'}"
    if figures["recall"] is not None:
        return [("measured recall", f"{figures['recall']:.4f} of {figures['recall_pairs']:,} pairs of {images}")]
    return [("measured recall", f"no pair among {images}")] if figures["recall_queries"] else []


def _confirm(summary: RunSummary, _: Config) -> list[Line]:
    figures = summary.records["confirm"].summary
    if not figures["n_judged"]:
        return []
    text, reasons = f"{figures['n_confirmed']:,} of {figures['n_judged']:,} pairs by their pixels", _counts(figures["refused_by_reason"])
    return [("confirmed", text + (f"; refused: {reasons}" if reasons else ""))]


def _statistics(summary: RunSummary, _: Config) -> list[Line]:
    figures = summary.records["statistics"].summary
    groups = f"{counted(figures['n_components'], 'group')} of copies, the largest of {figures['largest_component']:,}"
    lines = [("components", f"{groups}; {figures['n_unique']:,} unique")]
    lines += [
        (name, f"{figures[f'n_{name}']:,}, with {counted(figures[f'n_in_{name}'], 'sample')}: {what}")
        for name, what in (("templates", "one layout or ground, other content"), ("scenes", "one place, other moments"))
        if figures.get(f"n_{name}")
    ]
    by_source = [f"{name} {confirmed:,} of {confirmed + others:,}" for name, (confirmed, others) in figures.get("candidates", {}).items()]
    return [*lines, ("found by", f"{', '.join(by_source)} candidates confirmed")] if len(by_source) > 1 else lines


def _exclude(summary: RunSummary, _: Config) -> list[Line]:
    n_excluded, figures = summary.records["exclude"].rows["exclusions"], summary.records["exclude"].summary
    if not n_excluded:
        return []
    reasons = {"reference": "near reference images", "listed": "on the list", "copy": "copies of these"}
    reasons["sample"] = "of samples with such an image"
    text = ", ".join(f"{figures['excluded'][reason]:,} {words}" for reason, words in reasons.items() if figures["excluded"].get(reason))
    references = f" ({counted(figures['n_references'], 'reference image')})" if figures.get("n_references") else ""
    return [("excluded", f"{n_excluded:,}: {text}{references}")]


def _manifest(summary: RunSummary, _: Config) -> list[Line]:
    rows, kinds = summary.records["manifest"].rows, summary.records["manifest"].summary
    images = rows["manifest"] + rows["duplicates"] + rows["excluded"]
    share = rows["duplicates"] / images if images else 0.0
    dropped = f"{rows['duplicates']:,} duplicates dropped ({share:.1%}): {kinds['n_exact']:,} exact, {kinds['n_near']:,} near"
    dropped += "".join(f", {kinds[f'n_{kind}']:,} of further {kind}s" for kind in ("template", "scene") if kinds.get(f"n_{kind}"))
    dropped += f"; {filesize.decimal(kinds['bytes_dropped'])} less" if kinds.get("bytes_dropped") else ""
    lines = [("kept", f"{rows['manifest']:,}; {dropped}")]
    if (kinds.get("n_kept_keys"), kinds.get("n_dropped_keys")) != (rows["manifest"], rows["duplicates"]) and "n_kept_keys" in kinds:
        lines.append(("in samples", f"{kinds['n_kept_keys']:,} kept, {kinds['n_dropped_keys']:,} dropped, each with all its images"))
    if kinds.get("n_edited"):
        share = kinds["n_edited"] / images
        lines.append(("edits", f"{kinds['n_edited']:,} samples ({share:.1%}) are changed copies: {_counts(kinds['edits'])}"))
    return lines


def _targets(summary: RunSummary, config: Config) -> list[Line]:
    figures, rate = summary.records["targets"].summary, config.targets.images_per_second
    hours = f", {figures['n_generations'] / rate / 3600:,.1f} GPU hours at {rate:g} images/s" if rate else ""
    return [("targets", f"{counted(figures['n_targets'], 'caption')}, {counted(figures['n_generations'], 'image')} to generate{hours}")]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


_LINES: Final[tuple[tuple[str, Lines], ...]] = (
    ("embed", _embed),
    ("index", _index),
    ("pairs", _pairs),
    ("confirm", _confirm),
    ("statistics", _statistics),
    ("exclude", _exclude),
    ("manifest", _manifest),
    ("targets", _targets),
)


def print_preview(paths: Sequence[str], found: Recognised, config: Config, overrides: Sequence[str], *, is_all: bool) -> None:
    """Say what was found at some paths and where the tables go; with `is_all` also the settings, on standard output."""
    lines = [(path, said) for path, said in zip(paths, found.said, strict=True)] + [("writes", config.output.run_dir.rstrip("/") + "/")]
    if is_all:
        settings = [*found.overrides, *overrides]
        settings += [] if any(text.startswith("output.run_dir=") for text in settings) else [f"output.run_dir={config.output.run_dir}"]
        lines += [("settings", shlex.join(settings)), ("", "nothing was done: without --dry-run it runs")]
    width = max(len(printable(name)) for name, _ in lines)
    target = console(stderr=not is_all)
    for name, said in lines:
        target.print(f"{printable(name):<{width}}  {printable(said)}", markup=False, highlight=False, soft_wrap=True)


def print_summary(summary: RunSummary, config: Config) -> None:
    """Print the closing summary and the paths of the tables."""
    lines, written = summary_lines(summary, config), {table for record in summary.records.values() for table in record.rows}
    width = max(len(name) for name, _ in lines)
    tables = ("manifest", "duplicates", "statistics", "targets")
    lines += [(table, f"{summary.run_dir}/{table}/") for table in tables if table in written]
    print_lines([*lines, *([("report", summary.report)] if summary.report else [])], width)


def print_status(stages: list[StageStatus]) -> None:
    """Print a line per stage, and below it what has changed since it ran."""
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        rows = ", ".join(f"{name} {count:,}" for name, count in stage.rows.items())
        when = f"{stage.seconds:.1f} s, {stage.finished}: {rows}" if stage.finished else ""
        print_text(f"{stage.name:<{width}}  {stage.state:<7}  {when}".rstrip())
        for name, text in input_lines(stage.input):
            print_text(f"{'':<{width}}  {name}  {text}")
        for change in stage.changes:
            print_text(f"{'':<{width}}  changed  {change}")
