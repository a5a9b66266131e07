"""What a person sees of cleaned shards, exports and reports."""

from __future__ import annotations

from dedup.cli.show.terminal import console
from dedup.release.export import ExportSummary
from dedup.release.plan import KeepListResult
from dedup.release.rewrite import RewriteSummary
from dedup.report.build import ReportSummary
from dedup.text import bytes_text, printable


def _print(lines: list[tuple[str, str]]) -> None:
    out = console()
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        out.print(f"{name:<{width}}  {printable(text)}", soft_wrap=True, markup=False)


def _of_list(found: KeepListResult | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    lines = []
    if found.n_unknown:
        lines.append(("unknown", f"{found.n_unknown:,} entries of the keep list name no sample of the run: {', '.join(found.unknown)}, …"))
    if found.n_excluded:
        lines.append(("excluded", f"{found.n_excluded:,} samples of the keep list are excluded, and stay out"))
    return lines


def print_rewrite(summary: RewriteSummary) -> None:
    """Print what rewriting did, or would do."""
    what = f"{summary.n_samples:,} in {summary.n_shards:,} shards; images {bytes_text(summary.image_bytes)}"
    if summary.is_dry_run:
        _print([("would keep", what), ("tars", f"some {bytes_text(summary.n_bytes)} in {summary.out}"), *_of_list(summary.keep_list)])
        return
    before = f", {summary.n_done_before:,} of them done before" if summary.n_done_before else ""
    lines = [("kept", what), ("tars", f"{bytes_text(summary.n_bytes)}{before}"), *_of_list(summary.keep_list)]
    lines += [("failed", error) for error in summary.errors]
    if summary.n_failed > len(summary.errors):
        lines.append(("", f"… and {summary.n_failed - len(summary.errors):,} more"))
    _print([*lines, ("shards", f"{summary.out}/")])


def print_export(summary: ExportSummary) -> None:
    """Print what was exported."""
    lines = [(summary.form, f"{summary.n_rows:,} in {summary.path}")]
    if summary.n_left_out:
        lines.append(("left out", f"{summary.n_left_out:,} kept samples that have no such name"))
    _print([*lines, *_of_list(summary.keep_list)])


def print_report(summary: ReportSummary) -> None:
    """Print where a report lies; what it lacks goes to standard error."""
    for note in summary.notes:
        console(stderr=True).print(note, soft_wrap=True, markup=False)
    console().print(f"{summary.path}  {bytes_text(summary.n_bytes)}, {summary.n_pictures:,} pictures", soft_wrap=True, markup=False)
