"""What the commands of the extraction attack print: generations, scores, thresholds, outliers."""

from __future__ import annotations

from rich.table import Table as RichTable

from dedup.attack.controls import ControlSummary
from dedup.attack.generate import GenerateSummary
from dedup.attack.join import JoinSummary
from dedup.attack.outliers import OutlierSummary
from dedup.attack.patches import PatchSummary
from dedup.attack.prompts import PromptSummary
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
        ("reproduced", _labels(summary.by_label)),
    ]
    for row in summary.closest:
        count = "" if row["duplication_count"] is None else f", {times_text(row['duplication_count'])} in the data"
        lines.append(("", f"{row['target_id']}  mean distance {row['mean_distance']:.4f} in a clique of {row['clique_size']:,}{count}"))
    if summary.n_memorized > len(summary.closest):
        lines.append(("", f"… all in {summary.out}/_memorized.jsonl"))
    print_lines([*lines, ("scores", summary.out)])


_LABELS = {"verbatim": "as a whole", "template": "in an area (templates)", "retrieved": "another image of the run"}


def _labels(by_label: dict[str, int]) -> str:
    return ", ".join(f"{by_label[label]:,} {text}" for label, text in _LABELS.items() if label in by_label)


_BALANCED = 0.1  # difference of means in standard deviations up to which sets count as alike (Austin 2009)


def print_controls(summary: ControlSummary) -> None:
    """Print how many targets have a control, and how alike the two sets are."""
    names = {"caption_length": "caption length", "n_caption_samples": "caption frequency", "n_pixels": "size"}
    levels = ("by quarters of a doubling", "by halves", "by doublings", "without size", "without caption frequency")
    found = [f"{n:,} {level}" for n, level in zip(summary.n_by_level, levels, strict=True) if n]
    how = f": {', '.join(found)}" if found else ""
    lines = [
        ("targets", f"{summary.n_targets:,}"),
        ("controls", f"{summary.n_controls:,} of {summary.n_candidates:,} unique images with a caption{how}"),
    ]
    if summary.n_controls < summary.n_known:
        lines.append(("", f"{summary.n_known - summary.n_controls:,} targets have none: no unique image is like them"))
    if summary.n_known < summary.n_targets:
        lines.append(
            ("", f"{summary.n_targets - summary.n_known:,} targets can't be matched: no caption, or the run does not keep their image")
        )
    for name, value in summary.imbalance.items():
        if value is not None:
            balance = "" if value < _BALANCED else "; not balanced"
            lines.append(("", f"{names[name]}: means differ by {value:.2f} standard deviations{balance}"))
    print_lines([*lines, ("table", f"{summary.out}/")])


def print_prompts(summary: PromptSummary) -> None:
    """Print how many prompts were written, and what was left out."""
    lines = [("prompts", f"{summary.n_prompts:,}")]
    if summary.n_without_caption:
        lines.append(("", f"{summary.n_without_caption:,} targets have no caption, and give none"))
    if summary.n_repeated:
        lines.append(("", f"{summary.n_repeated:,} rows repeat a target_id; the first of each is used"))
    if summary.n_one_folder:
        text = f"{summary.n_one_folder:,} prompts have the text of another, or its first 200 characters"
        lines.append(("", f"{text}: in folders named by prompts their generations can't be told apart"))
    print_lines([*lines, *_files(summary.files)])


def print_detectors(summary: JoinSummary) -> None:
    """Print what each detector finds over all targets."""
    table = RichTable(box=None, pad_edge=False)
    for name in ("detector", "reproduced", "others", "AUC (95%)", "TPR at 1% FPR (95%)"):
        table.add_column(name, justify="left" if name == "detector" else "right")
    for row in summary.detectors:
        figures = [f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})" for name in ("auc", "tpr")]
        table.add_row(row["detector"], f"{row['n_positive']:,}", f"{row['n_negative']:,}", *figures)
    console().print(table)
    if summary.n_unlabelled:
        print_text(f"{summary.n_unlabelled:,} targets have no label, since nothing could be compared; they are left out")
    for note in summary.notes:
        print_text(note)
    print_lines(_files(summary.files))


def print_patches(summary: PatchSummary) -> None:
    """Print the share of patches that are the training image's, by size."""
    table = RichTable(box=None, pad_edge=False)
    for name in ("patch", "same place", "any place", "by chance: same", "any"):
        table.add_column(name, justify="right")
    for row in summary.curve:
        shares = [row[f"share_{kind}"] for kind in ("same", "any", "same_by_chance", "any_by_chance")]
        table.add_row(f"{row['side']} of 512", *("" if share is None else f"{share:.1%}" for share in shares))
    console().print(table)
    print_text(f"{summary.n_targets:,} targets; {summary.n_left_out:,} without generations or training image")
    for note in summary.notes:
        print_text(note)
    print_lines(_files(summary.files))


def _files(paths: list[str]) -> list[tuple[str, str]]:
    return [("" if place else "files", path) for place, path in enumerate(paths)]


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
