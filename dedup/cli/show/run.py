"""What a person sees while a run goes on and when it ends."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.table import Table as RichTable

from dedup.attack.outliers import OutlierSummary
from dedup.attack.score import ScoreSummary
from dedup.attack.sweep import PAPER_IMAGES, PAPER_REMOVED, Sweep
from dedup.cli.show.terminal import console
from dedup.config import Config
from dedup.config.load import resolved
from dedup.contracts import Progress
from dedup.pipeline.run import RunSummary, StageStatus
from dedup.text import printable

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
            left = f", {(progress.total - progress.done) / rate:,.0f} s left" if rate and not is_last else ""
            self._console.print(
                f"{progress.stage}: {progress.done:,} of {progress.total:,} {progress.unit} {text}{left}".rstrip(),
                soft_wrap=True,
                markup=False,
            )

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


def summary_lines(summary: RunSummary, config: Config) -> list[tuple[str, str]]:
    """The closing summary as (name, text) rows; stages that did not run are left out."""
    lines: list[tuple[str, str]] = []
    records = summary.records
    if "embed" in records:
        embedded, rejected = records["embed"].rows, records["embed"].summary.get("rejected", {})
        lines.append(("samples", f"{embedded['metadata'] + embedded['rejected']:,} in {records['embed'].summary['n_shards']:,} shards"))
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        if "embed" not in summary.skipped and records["embed"].seconds:
            n_embedded = embedded["metadata"] - records["embed"].summary.get("n_base_samples", 0)
            lines.append(("embedding", f"{n_embedded / records['embed'].seconds:,.0f} images/s"))
        lines.append(("rejected", f"{embedded['rejected']:,}" + (f" ({reasons})" if reasons else "")))
    if "index" in records and records["index"].summary.get("nlist"):
        figures = records["index"].summary
        lists = "one list: every pair compared" if figures["nlist"] == 1 else f"{figures['nlist']:,} lists, {figures['nprobe']} per image"
        lines.append(("distinct images", f"{figures['n_images']:,} ({lists})"))
        if drift := figures.get("drift"):
            advice = f"a run without base.run_dir trains new ones: {'; '.join(drift['reasons'])}" if drift["reasons"] else "they fit"
            added = f"{figures['n_base_images']:,} of them from the base, {figures['n_images'] - figures['n_base_images']:,} new"
            lines.append(("base", f"{added}; the base's lists: {advice}"))
    if "pairs" in records:
        figures, similarity = records["pairs"].summary, resolved(config).search.min_similarity
        by = summary.figure("embed", "exact_by")
        exact = "exact" if by != "embedding" else "exact (equal embeddings)"
        lines.append(
            (
                "candidates",
                f"{figures['n_exact_edges']:,} {exact}, {figures['n_near_edges']:,} near (similarity >= {similarity}), "
                f"{figures['n_view_edges']:,} by views"
                + (f", {figures['n_also_edges']:,} by {config.embed.also[0]} alone" if figures.get("n_also_edges") else ""),
            )
        )
        kind = "sampled new images" if summary.figure("index", "n_base_images") else "sampled images"
        if figures["recall"] is not None:
            lines.append(
                (
                    "measured recall",
                    f"{figures['recall']:.4f} of {figures['recall_pairs']:,} pairs of {figures['recall_queries']:,} {kind}",
                )
            )
        elif figures["recall_queries"]:
            lines.append(("measured recall", f"no pair among {figures['recall_queries']:,} {kind}"))
    if records.get("confirm") and records["confirm"].summary["n_judged"]:
        figures = records["confirm"].summary
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in figures["refused_by_reason"].items())
        text = f"{figures['n_confirmed']:,} of {figures['n_judged']:,} pairs by their pixels"
        lines.append(("confirmed", text + (f"; refused: {reasons}" if reasons else "")))
    if "statistics" in records:
        figures = records["statistics"].summary
        groups = f"{figures['n_components']:,} groups of copies, the largest of {figures['largest_component']:,}"
        lines.append(("components", f"{groups}; {figures['n_unique']:,} unique"))
        found = [f"{name} {confirmed:,} of {confirmed + others:,}" for name, (confirmed, others) in figures.get("candidates", {}).items()]
        if len(found) > 1:
            lines.append(("found by", f"{', '.join(found)} candidates confirmed"))
    if "exclude" in records and records["exclude"].rows["exclusions"]:
        figures = records["exclude"].summary
        counts = figures["excluded"]
        named = {"reference": "near reference images", "listed": "on the list", "copy": "copies of these"}
        text = ", ".join(f"{counts[reason]:,} {words}" for reason, words in named.items() if counts.get(reason))
        looked = f" ({figures['n_references']:,} reference images)" if figures.get("n_references") else ""
        lines.append(("excluded", f"{records['exclude'].rows['exclusions']:,}: {text}{looked}"))
    if "manifest" in records:
        rows = records["manifest"].rows
        images = rows["manifest"] + rows["duplicates"] + rows["excluded"]
        share = rows["duplicates"] / images if images else 0.0
        kinds = records["manifest"].summary
        dropped = f"{rows['duplicates']:,} duplicates dropped ({share:.1%}): {kinds['n_exact']:,} exact, {kinds['n_near']:,} near"
        lines.append(("kept", f"{rows['manifest']:,}; {dropped}"))
    if "targets" in records:
        figures = records["targets"].summary
        rate = config.targets.images_per_second
        hours = f", {figures['n_generations'] / rate / 3600:,.1f} GPU hours at {rate:g} images/s" if rate else ""
        lines.append(("targets", f"{figures['n_targets']:,} captions, {figures['n_generations']:,} images to generate{hours}"))
    seconds = [f"{name} {'done before' if name in summary.skipped else f'{record.seconds:.1f}'}" for name, record in records.items()]
    lines.append(("seconds", ", ".join(seconds)))
    return lines


def print_summary(summary: RunSummary, config: Config) -> None:
    """Print the closing summary and where the tables lie."""
    out = console()
    width = max(len(name) for name, _ in summary_lines(summary, config))
    for name, text in summary_lines(summary, config):
        out.print(f"{name:<{width}}  {text}", soft_wrap=True, markup=False)
    for table in ("manifest", "duplicates", "statistics", "targets"):
        if any(table in record.rows for record in summary.records.values()):
            out.print(f"{table:<{width}}  {summary.run_dir}/{table}/", soft_wrap=True, markup=False)
    if summary.report:
        out.print(f"{'report':<{width}}  {summary.report}", soft_wrap=True, markup=False)


def print_status(stages: list[StageStatus]) -> None:
    """Print a line per stage, and under it what has changed since."""
    out = console()
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        rows = ", ".join(f"{name} {count:,}" for name, count in stage.rows.items())
        when = f"{stage.seconds:.1f} s, {stage.finished}: {rows}" if stage.finished else ""
        out.print(f"{stage.name:<{width}}  {stage.state:<7}  {when}".rstrip(), soft_wrap=True, markup=False)
        for change in stage.changes:
            out.print(f"{'':<{width}}  changed  {change}", soft_wrap=True, markup=False)


def print_scores(summary: ScoreSummary) -> None:
    """Print what scoring found."""
    statuses = ", ".join(f"{name} {count:,}" for name, count in summary.by_status.items())
    out = console()
    out.print(f"targets    {summary.n_targets:,} ({statuses})", highlight=False)
    out.print(f"memorised  {summary.n_memorized:,}", highlight=False)
    out.print(f"extracted  {summary.n_extracted:,}", highlight=False)
    for row in summary.closest:
        count = "" if row["duplication_count"] is None else f", {row['duplication_count']:,} times in the data"
        text = f"{row['target_id']}  mean distance {row['mean_distance']:.4f} in a clique of {row['clique_size']:,}{count}"
        out.print(f"           {text}", soft_wrap=True, markup=False, highlight=False)
    if summary.n_memorized > len(summary.closest):
        out.print(f"           … all in {summary.out}/_memorized.jsonl", soft_wrap=True, markup=False, highlight=False)
    out.print(f"scores     {summary.out}", soft_wrap=True, markup=False, highlight=False)


def print_sweep(found: Sweep) -> None:
    """Print what would be removed at each threshold."""
    out, numbers = console(), {"justify": "right"}
    table = RichTable(box=None, pad_edge=False)
    for name in ("threshold", "removed by similarity", "share", "removed of confirmed pairs", "share"):
        table.add_column(name, **numbers)  # type: ignore[arg-type]
    for row in found.table.to_pylist():
        cells = [f"{row['threshold']:g}"]
        for kind in ("removed", "confirmed"):
            count, share = row[f"n_{kind}"], row[f"share_{kind}"]
            cells += ["not known" if count is None else f"{count:,}", "" if share is None else f"{share:.2%}"]
        table.add_row(*cells)
    out.print(table)
    if found.n_dropped is not None:
        text = f"the run itself, at {found.min_similarity:g}, drops {found.n_dropped:,}: with views, and with groups cut at their anchors"
        out.print(text, soft_wrap=True, markup=False)
    text = f"Carlini et al. 2023 removed {PAPER_REMOVED:,} of {PAPER_IMAGES:,} images of CIFAR-10 ({PAPER_REMOVED / PAPER_IMAGES:.2%})"
    out.print(text, soft_wrap=True, markup=False)
    for note in found.notes:
        out.print(note, soft_wrap=True, markup=False)


def print_outliers(summary: OutlierSummary) -> None:
    """Print what the search for outliers found, and how well it searched."""
    out = console()
    lines = [
        ("images", f"{summary.n_images:,}, {summary.n_exact:,} of them compared with every other"),
        ("outliers", f"{summary.n_outliers:,}" + ("" if summary.n_certain is None else f", the first {summary.n_certain:,} certain")),
    ]
    if summary.recall is not None:
        lines.append(("lists", f"held {summary.recall:.4f} of the neighbours of sampled images"))
    for name, text in [*lines, ("table", f"{summary.out}/"), ("prompts", f"{summary.out}/_outliers.jsonl")]:
        out.print(f"{name:<8}  {text}", soft_wrap=True, markup=False)
