"""What a person sees of a calibration."""

from __future__ import annotations

import sys

from rich.table import Table as RichTable

from dedup.calibration.calibrate import Advice, Calibration
from dedup.cli.show.terminal import console
from dedup.contracts import JsonDict

_EVERY = 5  # of the thresholds, in hundredths, are printed


def print_calibration(found: Calibration, out: str) -> None:
    """Print thresholds, advice and what they rest on."""
    terminal = console(width=None if sys.stdout.isatty() else 160)
    rows = [row for row in found.table.to_pylist() if _is_shown(row, found)]
    table = RichTable(box=None, pad_edge=False)
    table.add_column("threshold")
    has_recall, has_look = rows[0]["recall"] is not None, found.otherwise is not None
    names = ["recall", "with views", "least recall"] if has_recall else []
    names += ["false pairs (95%)", "precision alone"] + (["after pixels"] if has_look else []) + ["removed"]
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(_threshold(row, found), *_cells(row, has_recall=has_recall, has_look=has_look))
    terminal.print(table)
    for name, text in _lines(found):
        terminal.print(f"{name:<13} {text}", soft_wrap=True, markup=False)
    for advice in (found.advice, *([found.otherwise] if found.otherwise else [])):
        terminal.print(f"{'recommended':<13} {_advice(advice, found)}", soft_wrap=True, markup=False)
    for note in found.notes:
        terminal.print(f"{'note':<13} {note}", soft_wrap=True, markup=False)
    terminal.print(f"{'written':<13} {out}/", soft_wrap=True, markup=False)


def _is_shown(row: JsonDict, found: Calibration) -> bool:
    threshold, advised = row["threshold"], [one.threshold for one in (found.advice, found.otherwise) if one is not None]
    return round(100 * threshold, 6) % _EVERY == 0 or threshold == found.figures["run"]["min_similarity"] or threshold in advised


def _threshold(row: JsonDict, found: Calibration) -> str:
    words = ["the run's"] if row["threshold"] == found.figures["run"]["min_similarity"] else []
    words += ["recommended"] if row["threshold"] == found.advice.threshold else []
    return f"{row['threshold']:.2f}" + (f" ({', '.join(words)})" if words else "")


def _cells(row: JsonDict, *, has_recall: bool, has_look: bool) -> list[str]:
    cells = []
    if has_recall:
        cells += [f"{row['recall']:.3f}", f"{row['recall_looks']:.3f}", f"{row['least_recall']:.2f} {row['least_change']}"]
    low, high = row["expected_false_low"], row["expected_false_high"]
    cells.append(f"{_count(row['expected_false'])} ({_count(low)} to {_count(high)})")
    for rule in ["similarity", "confirmed"] if has_look else ["similarity"]:
        value, bound = row[f"precision_{rule}"], row[f"precision_{rule}_low"]
        cells.append("not known" if value is None else f"{value:.3f} (>= {bound:.3f})")
    share = row["share_confirmed"] if has_look else row["share_removed"]
    return [*cells, "not known" if share is None else f"{share:.2%}"]


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.005 else "0"


def _lines(found: Calibration) -> list[tuple[str, str]]:
    figures = found.figures
    run, sample, tail, decoys = (figures[name] for name in ("run", "sample", "tail", "decoys"))
    lines = [
        ("images", f"{run['n_images']:,} distinct; {len(found.copies):,} copies planted of {sample['n_images'] - sample['n_unreadable']:,}")
    ]
    if sample["is_exhaustive"]:
        lines.append(("pairs", "all were compared"))
    else:
        lines.append(("pairs", f"{sample['n_rows']:,} images with {sample['n_others']:,} others each"))
    if figures["looked_at"]["n_pairs"]:
        looked = figures["looked_at"]
        lines[-1] = (
            "pairs",
            f"{lines[-1][1]}; of the {looked['n_pairs']:,} most similar that share no group {looked['n_copies']:,} are copies",
        )
    if tail is None:
        lines.append(("tail", "too few pairs to fit one"))
    else:
        text = f"generalised Pareto from {tail['start']:.3f}: {tail['n_excesses']:,} pairs, shape {tail['shape']:.2f}"
        lines.append(("tail", f"{text}; off by {tail['deviation']:.3f} of them at most"))
    if decoys["n_judged"]:
        text = f"{decoys['n_accepted']:,} of {decoys['n_judged']:,} mirrored pairs pass for copies; their similarity is "
        lines.append(("decoys", f"{text}{decoys['least_similarity']:.2f} or more"))
    return lines


def _advice(advice: Advice, found: Calibration) -> str:
    wanted = found.figures["options"]["precision"]
    how = "once pixels are judged" if advice.rule == "confirmed" else "by similarity alone"
    rows = {row["threshold"]: row for row in found.table.to_pylist()}
    if advice.threshold is not None:
        row = rows[advice.threshold]
        cost = f"; {_count(row['expected_false'] + row['n_links'])} pairs to judge, or more" if advice.rule == "confirmed" else ""
        least = "; the lowest considered" if advice.threshold == min(rows) else ""
        return f"{' '.join(advice.lines)}  (precision {wanted:g} {how}{cost}{least})"
    if advice.best is None:
        return f"none: the run found no copies, so precision {how} is not known"
    bound = rows[advice.best][f"precision_{advice.rule}_low"]
    return f"none reaches a precision of {wanted:g} {how}; {advice.best:g} comes nearest: at least {bound:.3f}"
