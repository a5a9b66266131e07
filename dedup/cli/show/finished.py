"""What the commands on a finished run print: explanations, calibrations, cleaned shards, exports and reports."""

from __future__ import annotations

import sys

from rich.table import Table as RichTable

from dedup.calibration.calibrate import Advice, Calibration
from dedup.cli.show.terminal import console, print_lines, print_text
from dedup.contracts import JsonDict
from dedup.explanation.explanation import Explanation, Refusal, Sample, Step
from dedup.release.apply import Applied
from dedup.release.export import ExportSummary
from dedup.release.plan import KeepListResult
from dedup.release.rewrite import RewriteSummary
from dedup.release.table_export import TABLE_FORMATS
from dedup.report.build import ReportSummary
from dedup.text import bytes_text, counted, printable

_CHARS = 100  # of a caption or address
_STEPS = 12  # printed of a path


def explanation_lines(explanation: Explanation) -> list[tuple[str, str]]:
    """An explanation as (name, text) rows, without control characters."""
    lines = [("sample", _where(explanation.sample)), ("", explanation.reason)]
    if explanation.edits:
        lines.append(("", f"beside the others of its group it is {', '.join(explanation.edits)}"))
    lines += _details(explanation.sample)
    if explanation.keeper is not None:
        distance = "" if explanation.distance_to_keeper is None else f", distance of the pixels {explanation.distance_to_keeper:.3f}"
        lines.append(("keeper", f"{_where(explanation.keeper)}: similarity {explanation.similarity_to_keeper:.4f}{distance}"))
        lines += _details(explanation.keeper)
    if explanation.n_copies:
        lines.append(("copies", f"dropped in favour of it: {explanation.n_copies:,}"))
    if explanation.rule is not None:
        rule = explanation.rule
        values = f"{_value(rule.value)} of {rule.preferred.key} against {_value(rule.other_value)} of {rule.other.key}"
        by = rule.term if rule.term.startswith("keep.") else f"keep.order_by, {rule.term}"
        lines.append(("rule", f"{by}: {values}"))
    for other in explanation.other_keepers:
        similarity = "" if other.similarity is None else f": similarity {other.similarity:.4f}"
        required = "" if other.min_similarity is None or other.similarity is None else f", a copy needs {other.min_similarity:.4g}"
        lines.append(("kept before", f"{other.sample.name}{similarity}{required}{f'; refused: {other.refused}' if other.refused else ''}"))
    lines += _component_lines(explanation)
    if explanation.path:
        weakest = min(step.similarity for step in explanation.path)
        which = "similarity" if len(explanation.path) == 1 else "the weakest"
        lines.append(("path", f"{counted(len(explanation.path), 'edge')} to the keeper, {which} {weakest:.4f}"))
        lines += _path_lines(explanation)
    elif explanation.edges:
        lines.append(("edges", f"{explanation.n_edges:,}, the most similar:"))
        lines += [("", f"to {other.name}: {_step(step)}") for other, step in zip(explanation.edge_samples, explanation.edges, strict=True)]
    if explanation.n_refused:
        few = "" if len(explanation.refused) == explanation.n_refused else f", the {len(explanation.refused)} most similar"
        lines.append(("refused", f"{counted(explanation.n_refused, 'image')} with similar vectors{few}:"))
        lines += [("", _refusal(pair)) for pair in explanation.refused]
    lines += [("rejected", f"{row.reason}: {row.detail}") for row in explanation.rejections if explanation.outcome != "rejected"]
    return [(name, printable(text)) for name, text in lines]


def print_explanation(explanation: Explanation, *, picture: str = "") -> None:
    """Print why a sample was kept or dropped, and the path of its picture."""
    print_lines([*explanation_lines(explanation), *([("picture", picture)] if picture else [])], width=11)


def _component_lines(explanation: Explanation) -> list[tuple[str, str]]:
    component = explanation.component
    if component is None:
        return []
    parts = [(component.n_kept, "kept"), (component.n_dropped, "dropped"), (component.n_excluded, "excluded")]
    counts = ", ".join(f"{n:,} {word}" for n, word in parts if n)
    size = "alone" if component.duplication_count == 1 else f"{component.duplication_count:,} samples: {counts}"
    lines = [("group", f"{component.component_id}, {size}")]
    if component.n_raw_members > 1:
        n_groups = component.n_raw_groups
        cut = "one group" if n_groups <= 1 else f"cut into {n_groups:,} groups: a chain whose ends are not copies of each other"
        lines.append(("component", f"{component.raw_component_id}, {component.n_raw_members:,} samples, {cut}"))
    if component.anchor is not None and component.anchor.sample_id != explanation.sample.sample_id:
        distance = "" if component.distance_to_anchor is None else f", distance of the pixels {component.distance_to_anchor:.3f}"
        lines.append(("anchor", f"{_where(component.anchor)}: similarity {component.similarity_to_anchor:.4f}{distance}"))
    neighbors = counted(explanation.n_neighbors, "other sample")
    return [*lines, ("neighbors", f"{neighbors} at similarity {explanation.min_similarity:.4g} or above")]


def _path_lines(explanation: Explanation) -> list[tuple[str, str]]:
    names = [sample.name for sample in explanation.path_samples]
    lines = [("", f"{names[k]} to {names[k + 1]}: {_step(step)}") for k, step in enumerate(explanation.path)]
    if len(lines) > _STEPS:
        lines[_STEPS // 2 : -(_STEPS // 2)] = [("", f"… {len(lines) - _STEPS:,} more …")]
    return lines


def _step(step: Step) -> str:
    if step.kind == "exact":
        return "byte-identical" if step.source != "embedding" else "equal embeddings"
    parts = [f"{step.similarity:.4f}", _how_found(step.source, step.found_by, step.variant)]
    parts.append({True: "confirmed", False: "refused", None: "not judged"}[step.confirmed])
    if step.distance is not None:
        parts.append(f"distance {step.distance:.3f}")
    return ", ".join(parts)


def _refusal(pair: Refusal) -> str:
    distance = "" if pair.distance is None else f", distance {pair.distance:.3f}"
    fate = "kept" if pair.is_kept else "not kept"
    group = ", in the same group by others" if pair.is_same_group else ""
    how_found = _how_found(pair.source, pair.found_by, pair.variant)
    return f"{pair.other.name}: {pair.similarity:.4f}, {how_found}, {pair.reason}{distance} (by {pair.stage}); {fate}{group}"


def _how_found(source: str, found_by: str | None, variant: str) -> str:
    turned = "" if variant == "none" else f", {variant}"
    return f"{source}{f' by {found_by}' if found_by else ''}{turned}"


def _details(sample: Sample) -> list[tuple[str, str]]:
    size = f"{sample.width:,} x {sample.height:,} pixels, " if sample.width and sample.height else ""
    n_bytes = f"{sample.n_bytes:,} bytes" if sample.n_bytes else ""
    texts = [f"{size}{n_bytes}".rstrip(", "), printable(sample.caption or "", _CHARS), printable(sample.url or "", _CHARS)]
    return [("", text) for text in texts if text]


def _where(sample: Sample) -> str:
    return f"{sample.key} in {sample.shard}"


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "nothing" if value is None else f"{value}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else f"{value}"


_EVERY = 5  # thresholds that are a multiple of this many hundredths are printed


def print_calibration(calibration: Calibration, out: str) -> None:
    """Print thresholds, advice and the evidence for them."""
    rows = [row for row in calibration.table.to_pylist() if _is_shown(row, calibration)]
    table = RichTable(box=None, pad_edge=False)
    table.add_column("threshold")
    has_recall, is_judged = rows[0]["recall"] is not None, calibration.otherwise is not None
    names = ["recall", "with views", "least recall"] if has_recall else []
    names += ["false pairs (95%)", "precision alone"] + (["after pixels"] if is_judged else []) + ["removed"]
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(_threshold(row, calibration), *_cells(row, has_recall=has_recall, is_judged=is_judged))
    console(width=None if sys.stdout.isatty() else 160).print(table)
    lines = _calibration_lines(calibration)
    lines += [("recommended", _advice(advice, calibration)) for advice in (calibration.advice, calibration.otherwise) if advice]
    for name, text in [*lines, *(("note", note) for note in calibration.notes), ("written", f"{out}/")]:
        print_text(f"{name:<13} {text}")


def _is_shown(row: JsonDict, calibration: Calibration) -> bool:
    threshold = row["threshold"]
    advised = [advice.threshold for advice in (calibration.advice, calibration.otherwise) if advice is not None]
    return round(100 * threshold, 6) % _EVERY == 0 or threshold == calibration.figures["run"]["min_similarity"] or threshold in advised


def _threshold(row: JsonDict, calibration: Calibration) -> str:
    words = ["the run's"] if row["threshold"] == calibration.figures["run"]["min_similarity"] else []
    words += ["recommended"] if row["threshold"] == calibration.advice.threshold else []
    return f"{row['threshold']:.2f}" + (f" ({', '.join(words)})" if words else "")


def _cells(row: JsonDict, *, has_recall: bool, is_judged: bool) -> list[str]:
    cells = []
    if has_recall:
        cells += [f"{row['recall']:.3f}", f"{row['recall_looks']:.3f}", f"{row['least_recall']:.2f} {row['least_change']}"]
    low, high = row["expected_false_low"], row["expected_false_high"]
    cells.append(f"{_expected(row['expected_false'])} ({_expected(low)} to {_expected(high)})")
    for rule in ["similarity", "confirmed"] if is_judged else ["similarity"]:
        value, bound = row[f"precision_{rule}"], row[f"precision_{rule}_low"]
        cells.append("not known" if value is None else f"{value:.3f} (>= {bound:.3f})")
    share = row["share_confirmed"] if is_judged else row["share_removed"]
    return [*cells, "not known" if share is None else f"{share:.2%}"]


def _expected(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.005 else "0"


def _calibration_lines(calibration: Calibration) -> list[tuple[str, str]]:
    figures = calibration.figures
    run, sample, tail, decoys = (figures[name] for name in ("run", "sample", "tail", "decoys"))
    n_readable = sample["n_images"] - sample["n_unreadable"]
    lines = [("images", f"{run['n_images']:,} distinct; {len(calibration.copies):,} copies planted of {n_readable:,}")]
    text = "all were compared" if sample["is_exhaustive"] else f"{sample['n_rows']:,} images with {sample['n_others']:,} others each"
    judged = figures["looked_at"]
    if judged["n_pairs"]:
        text += f"; of the {judged['n_pairs']:,} most similar that share no group {judged['n_copies']:,} are copies"
    lines.append(("pairs", text))
    if tail is None:
        lines.append(("tail", "too few pairs to fit one"))
    else:
        text = f"generalised Pareto from {tail['start']:.3f}: {tail['n_excesses']:,} pairs, shape {tail['shape']:.2f}"
        lines.append(("tail", f"{text}; off by {tail['deviation']:.3f} of them at most"))
    if decoys["n_judged"]:
        text = f"{decoys['n_accepted']:,} of {decoys['n_judged']:,} mirrored pairs pass for copies; their similarity is "
        lines.append(("decoys", f"{text}{decoys['least_similarity']:.2f} or more"))
    for kind, made in (figures["lookalikes"] or {}).items():
        if made["n_judged"] or made["n_refused"]:
            passed = f"{made['n_accepted']:,} of {made['n_judged']:,} look-alikes pass (a part exchanged)"
            low, wrong, high = (_expected(made[f"{name}_per_10_000"]) for name in ("wrong_low", "wrong", "wrong_high"))
            decided = f"of the run's pairs {made['n_standing']:,} stand, {made['n_refused']:,} were refused"
            expected = f"expected wrong drops in 10,000 images: {wrong} ({low} to {high})"
            lines.append((f"{kind} pictures", f"{passed}; {decided}; {expected}"))
    return lines


def _advice(advice: Advice, calibration: Calibration) -> str:
    wanted = calibration.figures["options"]["precision"]
    how = "once pixels are judged" if advice.rule == "confirmed" else "by similarity alone"
    rows = {row["threshold"]: row for row in calibration.table.to_pylist()}
    if advice.threshold is not None:
        row = rows[advice.threshold]
        cost = f"; {_expected(row['expected_false'] + row['n_links'])} pairs to judge, or more" if advice.rule == "confirmed" else ""
        least = "; the lowest considered" if advice.threshold == min(rows) else ""
        return f"{' '.join(advice.lines)}  (precision {wanted:g} {how}{cost}{least})"
    if advice.best is None:
        return f"none: the run found no copies, so precision {how} is not known"
    bound = rows[advice.best][f"precision_{advice.rule}_low"]
    return f"none reaches a precision of {wanted:g} {how}; {advice.best:g} comes nearest: at least {bound:.3f}"


def _keep_list_lines(result: KeepListResult | None) -> list[tuple[str, str]]:
    if result is None:
        return []
    lines = []
    if result.n_unknown:
        first = ", ".join(result.unknown)
        lines.append(("unknown", f"{result.n_unknown:,} entries of the keep list name no sample of the run: {first}, …"))
    if result.n_excluded:
        lines.append(("excluded", f"{result.n_excluded:,} samples of the keep list are excluded, and stay out"))
    return lines


def print_rewrite(summary: RewriteSummary) -> None:
    """Print what rewriting did, or would do."""
    what = f"{summary.n_samples:,} in {counted(summary.n_shards, 'shard')}; images {bytes_text(summary.image_bytes)}"
    if summary.is_dry_run:
        size = f"some {bytes_text(summary.n_bytes)} in {summary.out}"
        print_lines([("would keep", what), ("size", size), *_keep_list_lines(summary.keep_list)])
        return
    before = f", {summary.n_done_before:,} of them done before" if summary.n_done_before else ""
    lines = [("kept", what), ("size", f"{bytes_text(summary.n_bytes)}{before}"), *_keep_list_lines(summary.keep_list)]
    lines += [("failed", error) for error in summary.errors]
    if summary.n_failed > len(summary.errors):
        lines.append(("", f"… and {summary.n_failed - len(summary.errors):,} more"))
    print_lines([*lines, ("shards", f"{summary.out}/")])


def print_export(summary: ExportSummary) -> None:
    """Print what was exported."""
    arrays = f" of {counted(summary.n_files, 'file')}" if summary.n_files else ""
    name = summary.form if summary.form not in TABLE_FORMATS else summary.what
    lines = [(name, f"{summary.n_rows:,}{arrays} in {summary.path}")]
    if summary.n_left_out:
        lines.append(("left out", f"{summary.n_left_out:,} kept samples that have no such name"))
    print_lines([*lines, *_keep_list_lines(summary.keep_list)])


def print_report(summary: ReportSummary) -> None:
    """Print the path of a report; what it lacks goes to standard error."""
    for note in summary.notes:
        print_text(note, stderr=True)
    print_text(f"{summary.path}  {bytes_text(summary.n_bytes)}, {counted(summary.n_pictures, 'picture')}")


def print_applied(done: Applied, run_dir: str) -> None:
    """Say what was done to copies, what was left alone and why, and how to take it back."""
    verb = {
        "list": "can be acted on", "move": "moved", "trash": "moved to the trash", "delete": "deleted", "hard": "replaced by hard links",
        "sym": "replaced by symbolic links", "reflink": "replaced by clones", "undo": "are as they were",
    }[done.action]  # fmt: skip
    would = "would be " if done.is_dry_run and done.action != "list" else ""
    what = "files" if done.action == "undo" else f"copies ({bytes_text(done.n_bytes)})"
    lines = [("done" if not done.is_dry_run else "found", f"{done.n_files:,} {what} {would}{verb}")]
    if done.n_sidecars:
        lines.append(("beside", f"{done.n_sidecars:,} files with them"))
    lines += [("left alone", f"{count:,}: {reason}") for reason, count in done.left.most_common()]
    if done.action == "list":
        lines.append(
            ("next", f"dedup apply {run_dir} --move DIR, --trash, --delete or --link hard; --dry-run checks, --undo takes it back")
        )
    elif done.journal and done.action != "undo":
        lines.append(("undo", f"dedup apply {run_dir} --undo"))
    print_lines(lines)
