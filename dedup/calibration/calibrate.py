"""Threshold advice on the user's own images: what each threshold would find, and what it would join wrongly."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import yaml

from dedup.attack.sweep import sweep
from dedup.calibration.copies import judged_copies, plant_in_sample
from dedup.calibration.draw import CalibrationOptions, Drawn, Effort, Population, Work, draw, read_population, share_confirmed
from dedup.calibration.pairs import FalsePairs, find_false_pairs, find_floor
from dedup.calibration.tables import Recall, recall_of
from dedup.config.encoders import encoder_kind
from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, Table
from dedup.engines.local import engine_or_own
from dedup.errors import ConfigError
from dedup.numerics.arraytypes import Floats
from dedup.report.plot import load_pyplot, png_of
from dedup.runs.directory import Run
from dedup.schemas import CALIBRATION, CALIBRATION_PAIRS, CALIBRATION_RECALLS, conform
from dedup.stages.stage import StageContext
from dedup.storage.atomic import write_bytes, write_json
from dedup.storage.tables import clear, write_table
from dedup.storage.urls import absolute, join

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEP = 0.01  # of the thresholds
_BELOW = 0.2  # how far below the run's own threshold they begin
_TABLES = {"thresholds": "table", "recalls": "recalls", "copies": "copies", "pairs": "pairs"}
_PLOT_FLOOR = 1e-3  # fewer expected pairs than this are plotted as this many


@dataclass(frozen=True)
class Advice:
    """The lowest threshold that reaches the wanted precision by the lower end of its interval."""

    rule: str  # confirmed (once pixels are judged) or similarity (by similarity alone)
    threshold: float | None  # None if no threshold does
    best: float | None  # the threshold with the highest lower end, if none does
    lines: tuple[str, ...] = ()  # configuration lines


@dataclass(frozen=True)
class Calibration:
    """The results of a calibration."""

    run_dir: str
    table: pa.Table  # of `schemas.CALIBRATION`, a row for each threshold
    recalls: pa.Table  # of `schemas.CALIBRATION_RECALLS`
    copies: pa.Table  # of `schemas.CALIBRATION_COPIES`
    pairs: pa.Table  # of `schemas.CALIBRATION_PAIRS`
    advice: Advice  # for the run as it is configured
    otherwise: Advice | None  # by similarity alone, if the run judges pixels
    figures: JsonDict  # for `_calibration.json`
    notes: list[str] = field(default_factory=list)


def calibrate(
    run_dir: str,
    out: str = "",
    *,
    precision: float = 0.99,
    n_images: int = 2_000,
    changes: str = "default",
    seed: int = 0,
    overrides: Sequence[str] = (),
    engine: Engine | None = None,
    reporter: Reporter | None = None,
    effort: Effort | None = None,
) -> Calibration:
    """Measure what each threshold would find among a run's images and what it would join wrongly, and recommend one.

    Parameters
    ----------
    run_dir : str
        A finished run.
    out : str
        Folder for tables, figures, configuration and plot; by default `calibration/` of the run.
    precision : float
        The recommended threshold is the lowest whose precision is that high by the lower end of its interval.
    n_images : int
        Images drawn at random, of which changed copies are planted. Unrelated pairs are those of at least as many images with all others.
    changes : {"default", "all"}
        Strengths of the changes of `dedup.numerics.image.planting`.
    seed : int
        Seed of everything drawn at random. Equal seeds give equal tables, however many workers there are.
    overrides : sequence of str
        ``section.key=value`` of `encoder`, `input` or `engine`, instead of what the run was made with; a run over precomputed embeddings
        names no encoder, and copies are planted only with one.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter
    effort : Effort, optional
        Maximum numbers of copies and pairs to judge.

    Returns
    -------
    Calibration

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or was embedded with another encoder.
    ConfigError, InputError
        If an option is not valid, or there are too few images.
    """
    options = CalibrationOptions(precision, n_images, changes, seed)
    _check(options)
    with engine_or_own(engine) as engine:
        calibration = _calibrate(run_dir, options, overrides, engine, reporter or SilentReporter(), effort or Effort())
    write_calibration(calibration, out or join(run_dir, "calibration"))
    return calibration


def _check(options: CalibrationOptions) -> None:
    if not 0.0 < options.precision < 1.0:
        raise ConfigError(f"--precision {options.precision:g}: expected a share between 0 and 1, such as 0.99")
    if options.n_images < 20:
        raise ConfigError(f"--n-images {options.n_images}: expected at least 20")
    if options.strengths not in ("default", "all"):
        raise ConfigError(f"--changes {options.strengths}: expected default or all")


def _calibrate(
    run_dir: str, options: CalibrationOptions, overrides: Sequence[str], engine: Engine, reporter: Reporter, effort: Effort
) -> Calibration:
    started = time.perf_counter()
    run = Run.open(run_dir, ("embed", "index"), overrides)
    if encoder_kind(run.config.encoder.name).has_images:
        run.check_encoder()
    run = Run.open(run_dir, (*("embed", "index", "confirm"), *(("groups",) if run.judges_pixels else ())), overrides)
    run.check_vectors()
    run_threshold = float(run.finished("index").config["search.min_similarity"])
    # workers may run in other folders
    output = replace(run.config.output, run_dir=absolute(run_dir))
    config = replace(run.config, search=replace(run.config.search, min_similarity=run_threshold), output=output)
    population = read_population(run, run_threshold, with_groups=run.judges_pixels)
    drawn = draw(population, options.n_images, options.seed)
    floor, thousandth = find_floor(run, population, drawn, options.seed)
    work = Work(run, StageContext(config, engine, reporter), options, effort, run_threshold, _thresholds(run_threshold, thousandth))
    if population.n_low_detail:
        least = config.search.low_detail_min_similarity
        low_detail = f"{population.n_low_detail:,} distinct images have little detail"
        work.notes.append(f"{low_detail}: they need a similarity of {least:g}, or equal bytes, at any threshold, and are left out")
    copies, n_unreadable = plant_in_sample(work, population, drawn)
    recall = recall_of(copies, work.thresholds, options.seed) if len(copies) else None
    false_pairs = find_false_pairs(work, population, drawn, floor, judged_copies(copies))
    table = _table(work, false_pairs, recall)
    is_judged = false_pairs.precision.confirmed is not None
    figures = _figures(work, population, drawn, false_pairs, n_unreadable)
    figures["seconds"] = round(time.perf_counter() - started, 1)
    recalls = CALIBRATION_RECALLS.empty_table() if recall is None else recall.by_change
    pairs = pa.Table.from_pylist(false_pairs.judged.rows, schema=CALIBRATION_PAIRS)
    advice = advise(table, "confirmed" if is_judged else "similarity", options.precision, turns_off=run.judges_pixels and not is_judged)
    otherwise = advise(table, "similarity", options.precision, turns_off=True) if is_judged else None
    return Calibration(run_dir, table, recalls, copies, pairs, advice, otherwise, figures, work.notes)


def _thresholds(run_threshold: float, thousandth: float) -> Floats:
    """In steps of 0.01, from somewhat below the run's own threshold, but not so low that every image has many false neighbours."""
    first = max(1, int(np.floor(round(min(run_threshold, max(run_threshold - _BELOW, thousandth)) / _STEP, 6))))
    return np.unique(np.append((np.arange(first, round(1 / _STEP) + 1) * _STEP).round(4), round(run_threshold, 6)))


def _table(work: Work, false_pairs: FalsePairs, recall: Recall | None) -> pa.Table:
    """A table of `schemas.CALIBRATION`."""
    shares, precision = false_pairs.shares, false_pairs.precision
    columns: dict[str, object] = {"threshold": work.thresholds, "is_fitted": ~shares.is_counted, "n_links": false_pairs.n_links}
    columns["n_counted"] = shares.n_counted
    estimates = {"expected_false": precision.false, "precision_similarity": precision.by_similarity}
    estimates |= {"precision_confirmed": precision.confirmed} if precision.confirmed else {}
    if recall is not None:
        estimates["recall"] = recall.whole
        columns |= {"recall_looks": recall.with_views, "recall_confirmed": _or_null(recall.confirmed)}
        columns |= {"least_change": recall.least_change, "least_recall": recall.least}
    for name, estimate in estimates.items():
        columns |= {name: _or_null(estimate.value), f"{name}_low": _or_null(estimate.low), f"{name}_high": _or_null(estimate.high)}
    removed = sweep(work.config.output.run_dir, work.thresholds.tolist()).table
    columns["share_removed"] = removed["share_removed"]
    if work.run.judges_pixels:
        confirmed = share_confirmed(work.run, removed["n_samples"][0].as_py(), work.thresholds)
        is_measured = np.asarray(work.thresholds.astype(np.float32) >= np.float32(work.run_threshold))
        columns["share_confirmed"] = _or_null(np.where(is_measured, confirmed, np.nan))
    unknown = {name: pa.nulls(len(work.thresholds)) for name in CALIBRATION.names if name not in columns}
    return conform(pa.table(columns | unknown), CALIBRATION)


def _or_null(values: Floats) -> pa.Array:
    """NaN becomes null."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _figures(work: Work, population: Population, drawn: Drawn, false_pairs: FalsePairs, n_unreadable: int) -> JsonDict:
    """The figures of `_calibration.json`."""
    decoys, accepted = false_pairs.judged.decoys()
    tail = false_pairs.shares.tail
    unrelated = [row for row in false_pairs.judged.rows if not row["is_decoy"]]
    made = false_pairs.lookalikes
    lookalikes = None if made is None else made.figures(len(population.ids), work.run_threshold, work.options.seed)
    return {
        "run_dir": work.config.output.run_dir,
        "options": vars(work.options),
        "run": {
            "encoder": work.config.encoder.name,
            "min_similarity": work.run_threshold,
            "judge_pixels": work.run.judges_pixels,
            "n_images": len(population.ids),
            "n_low_detail": population.n_low_detail,
        },
        "sample": {
            "n_images": len(drawn.images),
            "n_unreadable": n_unreadable,
            "n_rows": len(drawn.rows),
            "n_others": drawn.n_others,
            "is_exhaustive": len(drawn.rows) == len(population.ids) == len(drawn.columns),
        },
        "tail": None if tail is None else vars(tail),
        "looked_at": {"n_pairs": len(unrelated), "n_copies": sum(row["is_copy"] is True for row in unrelated)},
        "decoys": {"n_judged": len(decoys), "n_accepted": int(accepted.sum()), "least_similarity": float(decoys.min(initial=1.0))},
        "lookalikes": lookalikes,
    }


def advise(table: pa.Table, rule: str, wanted: float, *, turns_off: bool = False) -> Advice:
    """The lowest threshold of a table of `schemas.CALIBRATION` that reaches the wanted precision by the lower end of its interval.

    `rule`: confirmed or similarity.
    `turns_off`: whether following the advice means turning off the judging of pixels.
    """
    low = table[f"precision_{rule}_low"].to_pylist()
    bounds = [(threshold, value) for threshold, value in zip(table["threshold"].to_pylist(), low, strict=True) if value is not None]
    reached = [threshold for threshold, value in bounds if value >= wanted]
    if reached:
        return Advice(rule, reached[0], None, (f"search.min_similarity={reached[0]:g}", *(("confirm.enabled=false",) if turns_off else ())))
    return Advice(rule, None, max(bounds, key=lambda pair: (pair[1], -pair[0]))[0] if bounds else None)


def write_calibration(calibration: Calibration, out: str) -> list[str]:
    """Write a calibration; returns the files and folders written.

    `out`: folder, a path or any fsspec URL: `thresholds/`, `recalls/`, `copies/`, `pairs/` (parquet), `_calibration.json`, and, where a
    threshold is recommended, `calibration.yaml`; with matplotlib `calibration.png`.
    """
    written = []
    for name, attribute in _TABLES.items():
        rows = getattr(calibration, attribute)
        table = Table(join(out, name), rows.schema)
        clear(table)
        write_table(table, [rows])
        written.append(f"{table.path}/")
    write_json(join(out, "_calibration.json"), summary_of(calibration))
    written.append(join(out, "_calibration.json"))
    if calibration.advice.threshold is not None:
        write_bytes(join(out, "calibration.yaml"), configuration_of(calibration).encode())
        written.append(join(out, "calibration.yaml"))
    if importlib.util.find_spec("matplotlib") is None:
        calibration.notes.append("no plot: matplotlib is not installed; run: pip install 'webdedup[report]'")
    else:
        write_bytes(join(out, "calibration.png"), _plot(calibration))
        written.append(join(out, "calibration.png"))
    return written


def summary_of(calibration: Calibration) -> dict[str, Any]:
    """The content of `_calibration.json`."""
    advised = [calibration.advice] if calibration.otherwise is None else [calibration.advice, calibration.otherwise]
    rows = [{"rule": advice.rule, "threshold": advice.threshold, "best": advice.best, "lines": list(advice.lines)} for advice in advised]
    return calibration.figures | {"advice": rows, "notes": calibration.notes}


def configuration_of(calibration: Calibration) -> str:
    """The recommended threshold as a YAML file for `dedup run -c`."""
    sections: dict[str, dict[str, Any]] = {}
    for line in calibration.advice.lines:
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = yaml.safe_load(value)
    n, seed = calibration.figures["run"]["n_images"], calibration.figures["options"]["seed"]
    rule = "once pixels are judged" if calibration.advice.rule == "confirmed" else "by similarity alone"
    wanted = calibration.figures["options"]["precision"]
    head = f"# `dedup calibrate`, seed {seed}: the least threshold that reaches a precision of {wanted:g} {rule},\n"
    head += f"# for the {n:,} distinct images of {calibration.run_dir}. More images need a higher one.\n"
    return head + yaml.safe_dump(sections, sort_keys=True)


def _plot(calibration: Calibration) -> bytes:
    """Recall, precision, and expected false pairs over the thresholds."""
    columns = {name: calibration.table[name].to_pylist() for name in calibration.table.schema.names}
    figure, (above, below) = load_pyplot().subplots(2, 1, figsize=(7, 7), sharex=True, layout="constrained")
    _plot_shares(above, columns)
    _plot_pairs(below, columns)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.axvline(calibration.figures["run"]["min_similarity"], color="grey", linestyle=":", label="the run's own")
        if (advised := calibration.advice.threshold) is not None:
            axes.axvline(advised, color="black", linestyle="--", label=f"recommended: {advised:g}")
        axes.legend(fontsize="small")
    return png_of(figure)


def _plot_shares(axes: Axes, columns: dict[str, list[Any]]) -> None:
    """Recall and precision, where known."""
    x = columns["threshold"]
    for name, label, colour in (
        ("recall", "recall, whole pictures", "#0b5394"),
        ("recall_looks", "with views", "#6fa8dc"),
        ("recall_confirmed", "found and confirmed by pixels", "#38761d"),
        ("precision_similarity", "precision by similarity alone", "#b45f06"),
        ("precision_confirmed", "precision after pixels", "#990000"),
    ):
        if any(value is not None for value in columns[name]):
            axes.plot(x, _numbers(columns[name]), color=colour, label=label)
            if name.startswith("precision"):
                low, high = _numbers(columns[f"{name}_low"]), _numbers(columns[f"{name}_high"])
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(ylabel="share", ylim=(0.0, 1.03))


def _plot_pairs(axes: Axes, columns: dict[str, list[Any]]) -> None:
    """Expected false pairs and links of copies, on a scale that ends where pairs are rare."""
    x, floor = columns["threshold"], _PLOT_FLOOR
    names = ("expected_false", "expected_false_low", "expected_false_high", "n_links")
    false, low, high, links = ([max(value, floor) for value in columns[name]] for name in names)
    axes.plot(x, false, color="#990000", label="expected false pairs")
    axes.fill_between(x, low, high, color="#990000", alpha=0.15, linewidth=0, label="95%")
    axes.plot(x, links, color="#38761d", label="links of copies found")
    axes.set(xlabel="search.min_similarity", ylabel="pairs", yscale="log", ylim=(floor, None))


def _numbers(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
