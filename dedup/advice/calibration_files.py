"""A calibration as files: tables, figures, a configuration and a plot."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import yaml

from dedup.advice.calibrate import Calibration
from dedup.contracts import Table
from dedup.storage.atomic import write_bytes, write_json
from dedup.storage.tables import clear, write_table
from dedup.storage.urls import join

_TABLES = {"thresholds": "table", "recalls": "recalls", "copies": "copies", "pairs": "pairs"}
_HEIGHT_OF_RARE = 1e-3  # expected pairs below which the plot shows none


def write_calibration(found: Calibration, out: str) -> list[str]:
    """Write what was found; returns the files and folders.

    Parameters
    ----------
    found : Calibration
    out : str
        Folder, a path or any fsspec URL: `thresholds/`, `recalls/`, `copies/`, `pairs/` (parquet), `_calibration.json`, and, where a
        threshold is recommended, `calibration.yaml`; with matplotlib `calibration.png`.
    """
    written = []
    for name, attribute in _TABLES.items():
        rows = getattr(found, attribute)
        table = Table(join(out, name), rows.schema)
        clear(table)
        write_table(table, [rows])
        written.append(f"{table.path}/")
    write_json(join(out, "_calibration.json"), summary_of(found))
    written.append(join(out, "_calibration.json"))
    if found.advice.threshold is not None:
        write_bytes(join(out, "calibration.yaml"), configuration_of(found).encode())
        written.append(join(out, "calibration.yaml"))
    if importlib.util.find_spec("matplotlib") is None:
        found.notes.append("no plot: matplotlib is not installed; run: pip install 'webdedup[report]'")
    else:
        write_bytes(join(out, "calibration.png"), _plot(found))
        written.append(join(out, "calibration.png"))
    return written


def summary_of(found: Calibration) -> dict[str, Any]:
    """What `_calibration.json` holds."""
    advice = [found.advice] if found.otherwise is None else [found.advice, found.otherwise]
    said = [{"rule": one.rule, "threshold": one.threshold, "best": one.best, "lines": list(one.lines)} for one in advice]
    return found.figures | {"advice": said, "notes": found.notes}


def configuration_of(found: Calibration) -> str:
    """The recommended threshold as a YAML file for `dedup run -c`."""
    sections: dict[str, dict[str, Any]] = {}
    for line in found.advice.lines:
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = yaml.safe_load(value)
    n, seed = found.figures["run"]["n_images"], found.figures["options"]["seed"]
    rule = "after the look at the pixels" if found.advice.rule == "confirmed" else "by similarity alone"
    wanted = found.figures["options"]["precision"]
    head = f"# `dedup calibrate`, seed {seed}: the least threshold that reaches a precision of {wanted:g} {rule},\n"
    head += f"# for the {n:,} distinct images of {found.run_dir}. More images need a higher one.\n"
    return head + yaml.safe_dump(sections, sort_keys=True)


def _plot(found: Calibration) -> bytes:
    """Recall, precision, and expected false pairs over the thresholds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = {name: found.table[name].to_pylist() for name in found.table.schema.names}
    x = columns["threshold"]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 7), sharex=True, layout="constrained")
    for name, label, colour in (
        ("recall", "recall, whole pictures", "#0b5394"),
        ("recall_looks", "with second looks", "#6fa8dc"),
        ("recall_confirmed", "found and confirmed by pixels", "#38761d"),
    ):
        if any(value is not None for value in columns[name]):
            above.plot(x, _numbers(columns[name]), color=colour, label=label)
    for name, label, colour in (
        ("similarity", "precision by similarity alone", "#b45f06"),
        ("confirmed", "precision after pixels", "#990000"),
    ):
        if any(value is not None for value in columns[f"precision_{name}"]):
            above.plot(x, _numbers(columns[f"precision_{name}"]), color=colour, label=label)
            low, high = (_numbers(columns[f"precision_{name}_{end}"]) for end in ("low", "high"))
            above.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    above.set(ylabel="share", ylim=(0.0, 1.03))
    above.grid(alpha=0.3)
    floor = _HEIGHT_OF_RARE
    below.plot(x, [max(value, floor) for value in columns["expected_false"]], color="#990000", label="expected false pairs")
    low, high = ([max(value, floor) for value in columns[f"expected_false_{end}"]] for end in ("low", "high"))
    below.fill_between(x, low, high, color="#990000", alpha=0.15, linewidth=0, label="95%")
    below.plot(x, [max(value, floor) for value in columns["n_links"]], color="#38761d", label="links of copies found")
    below.set(xlabel="search.min_similarity", ylabel="pairs", yscale="log", ylim=(floor, None))
    below.grid(alpha=0.3)
    for axes in (above, below):
        axes.axvline(found.figures["run"]["min_similarity"], color="grey", linestyle=":", label="the run's own")
        if found.advice.threshold is not None:
            axes.axvline(found.advice.threshold, color="black", linestyle="--", label=f"recommended: {found.advice.threshold:g}")
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    pyplot.close(figure)
    return buffer.getvalue()


def _numbers(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
