"""What the commands of the extraction attack print: generations, scores, thresholds, outliers."""

from __future__ import annotations

from rich.table import Table as RichTable

from dedup.attack.generate import GenerateSummary
from dedup.attack.outliers import OutlierSummary
from dedup.attack.score import ScoreSummary
from dedup.attack.sweep import PAPER_IMAGES, PAPER_REMOVED, Sweep
from dedup.cli.show.terminal import console, print_lines, print_text
from dedup.text import times_text


def print_generated(summary: GenerateSummary) -> None:
    """Print how many images there are, and what is wrong with some."""
    lines = [
        (
            "targets",
            f"{summary.n_targets:,}" + (f", {summary.n_cut:,} with a prompt that the model reads in part" if summary.n_cut else ""),
        ),
        ("images", f"{summary.n_images:,}, {summary.n_made:,} of them made now"),
    ]
    if summary.n_blank:
        lines.append(("blank", f"{summary.n_blank:,}: of one colour, as a safety filter returns"))
    print_lines([*lines, ("table", summary.table), ("next", f"dedup extraction score TARGETS {summary.out} --out SCORES")])


def print_scores(summary: ScoreSummary) -> None:
    """Print how many targets were memorised and extracted, and the closest of them."""
    statuses = ", ".join(f"{name} {count:,}" for name, count in summary.by_status.items())
    lines = [
        ("targets", f"{summary.n_targets:,} ({statuses})"),
        ("memorised", f"{summary.n_memorized:,}"),
        ("extracted", f"{summary.n_extracted:,}"),
    ]
    for row in summary.closest:
        count = "" if row["duplication_count"] is None else f", {times_text(row['duplication_count'])} in the data"
        lines.append(("", f"{row['target_id']}  mean distance {row['mean_distance']:.4f} in a clique of {row['clique_size']:,}{count}"))
    if summary.n_memorized > len(summary.closest):
        lines.append(("", f"… all in {summary.out}/_memorized.jsonl"))
    print_lines([*lines, ("scores", summary.out)])


def print_sweep(sweep: Sweep) -> None:
    """Print what would be removed at each threshold."""
    table = RichTable(box=None, pad_edge=False)
    for name in ("threshold", "removed by similarity", "share", "removed of confirmed pairs", "share"):
        table.add_column(name, justify="right")
    for row in sweep.table.to_pylist():
        cells = [f"{row['threshold']:g}"]
        for kind in ("removed", "confirmed"):
            count, share = row[f"n_{kind}"], row[f"share_{kind}"]
            cells += ["not known" if count is None else f"{count:,}", "" if share is None else f"{share:.2%}"]
        table.add_row(*cells)
    console().print(table)
    if sweep.n_dropped is not None:
        print_text(f"the run itself, at {sweep.min_similarity:g}, drops {sweep.n_dropped:,}: with views, and groups cut at their anchors")
    share = f"{PAPER_REMOVED / PAPER_IMAGES:.2%}"
    print_text(f"Carlini et al. 2023 removed {PAPER_REMOVED:,} of {PAPER_IMAGES:,} images of CIFAR-10 ({share})")
    for note in sweep.notes:
        print_text(note)


def print_outliers(summary: OutlierSummary) -> None:
    """Print what the search for outliers found, and how well it searched."""
    lines = [
        ("images", f"{summary.n_images:,}, {summary.n_exact:,} of them compared with every other"),
        ("outliers", f"{summary.n_outliers:,}" + ("" if summary.n_certain is None else f", the first {summary.n_certain:,} certain")),
    ]
    if summary.recall is not None:
        lines.append(("lists", f"held {summary.recall:.4f} of the neighbours of sampled images"))
    print_lines([*lines, ("table", f"{summary.out}/"), ("prompts", f"{summary.out}/_outliers.jsonl")])
