"""What a person sees of the extraction attack: scores, thresholds, outliers."""

from __future__ import annotations

from rich.table import Table as RichTable

from dedup.attack.outliers import OutlierSummary
from dedup.attack.score import ScoreSummary
from dedup.attack.sweep import PAPER_IMAGES, PAPER_REMOVED, Sweep
from dedup.cli.show.terminal import console


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
        text = f"the run itself, at {found.min_similarity:g}, drops {found.n_dropped:,}: with views, and groups cut at their anchors"
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
