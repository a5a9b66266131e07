"""Scores of published detectors joined to what was reproduced: how well each finds it, by duplication count and by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.attack.detector_files import BY_ID, BY_NUMBER, DetectorFile, read_scores
from dedup.attack.labels import decades, read_labels
from dedup.attack.one_target import NONE, TEMPLATE, VERBATIM
from dedup.attack.prompts import one_line_prompt, read_prompts
from dedup.contracts import JsonDict
from dedup.errors import ConfigError, InputError, MissingExtra
from dedup.numerics.arraytypes import Floats
from dedup.numerics.detection import measure_detection
from dedup.report.plot import load_pyplot, png_of
from dedup.schemas import DETECTORS
from dedup.storage.atomic import write_bytes
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join

_FEW_NEGATIVES: Final = 100  # with fewer, one of them is more than 1%
ALL: Final = "all"


@dataclass(frozen=True)
class JoinSummary:
    """What was joined, and how well each detector does over all targets."""

    out: str
    n_targets: int  # with a label
    n_unlabelled: int  # targets without one: nothing could be compared
    detectors: list[JsonDict] = field(default_factory=list)  # rows over all counts and labels
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def join_detectors(
    scores: Sequence[str], detectors: Sequence[DetectorFile], out: str, *, prompts: str = "", lower: Sequence[str] = ()
) -> JoinSummary:
    """Join detectors' scores to labels, and measure each detector.

    Parameters
    ----------
    scores : sequence of str
        Folders of `dedup extraction score`: targets, controls. What is labelled verbatim, template or retrieved is to be detected.
    detectors : sequence of DetectorFile
        `.jsonl`, `.csv`, `.npy`, `.parquet` or a number a line. Rows are found by `target_id`, else by index or prompt through the table of
        prompts, else by their order, which then has to have as many. Several files may have one name: they add up.
    out : str
        Folder for `joined.parquet`, `detectors.parquet` and, with matplotlib, `detectors.png`.
    prompts : str
        Folder of `dedup extraction prompts`, for files that name none themselves.
    lower : sequence of str
        Detectors that give lower scores to what is memorised.

    Raises
    ------
    InputError
        If a file can't be read, its rows can't be told apart, or no score belongs to a target.
    ConfigError
        If `lower` names no detector.
    """
    if unknown := set(lower) - {detector.name for detector in detectors}:
        names = ", ".join(sorted({detector.name for detector in detectors}))
        raise ConfigError(f"--lower {min(unknown)} is no detector; expected one of {names}")
    labelled, n_unlabelled = _labels(scores)
    columns: dict[str, Floats] = {}
    notes: list[str] = []
    for detector in detectors:
        values = columns.setdefault(detector.name, np.full(len(labelled), np.nan))
        notes += _fill(values, labelled["target_id"].to_pylist(), detector, detector.prompts or prompts)
    for name, values in columns.items():
        missing = int(np.isnan(values).sum())
        if missing == len(values):
            expected = "expected numbers, with target_ids, or with the table of their prompts"
            raise InputError(f"{name}: none of {len(values):,} targets has a score that is a number; {expected}")
        if missing:
            notes.append(f"{name}: {missing:,} of {len(values):,} targets have no score, or none that is a number; they are left out")
    joined = labelled
    for name, values in columns.items():
        # the duplication count may serve as a detector, and is a column already
        column = f"{name}_score" if name in labelled.column_names else name
        joined = joined.append_column(column, pa.array(values, from_pandas=True))
    rows = [row for name, values in columns.items() for row in _measure(name, -values if name in lower else values, labelled, notes)]
    files = [join(out, name) for name in ("joined.parquet", "detectors.parquet")]
    for path, table in zip(files, (joined, pa.Table.from_pylist(rows, schema=DETECTORS)), strict=True):
        with FileWriter(path, table.schema) as writer:
            writer.write(table)
    files += _draw(rows, join(out, "detectors.png"), notes)
    overall = [row for row in rows if row["label"] == ALL and row["least"] is None]
    return JoinSummary(out, len(labelled), n_unlabelled, overall, notes, files)


def _labels(scores: Sequence[str]) -> tuple[pa.Table, int]:
    table = read_labels(scores).select(["target_id", "label", "duplication_count"])
    labelled = table.filter(pc.is_valid(table["label"]))
    if not len(labelled):
        raise InputError(f"{' '.join(scores)}: no target has a label; expected scores of generations and training images")
    return labelled, len(table) - len(labelled)


def _fill(values: Floats, target_ids: list[str], detector: DetectorFile, prompts: str) -> list[str]:
    """Put the scores of a file in their places; returns notes."""
    rows, by = read_scores(detector)
    if by == BY_ID:
        ids = [str(key) for key, _ in rows]
    else:
        ids = _ids_by_prompts(rows, by, detector, prompts)
    place = {target: number for number, target in enumerate(target_ids)}
    n_foreign, n_repeated = 0, 0
    for target, (_, value) in zip(ids, rows, strict=True):
        if target not in place:
            n_foreign += 1
        elif np.isfinite(value):
            n_repeated += bool(np.isfinite(values[place[target]]))
            values[place[target]] = value
    notes = [f"{detector.path}: {n_foreign:,} scores belong to no labelled target; they are left out"] if n_foreign else []
    return notes + ([f"{detector.path}: {n_repeated:,} scores repeat a target; the last of each is used"] if n_repeated else [])


def _ids_by_prompts(rows: list[tuple[Any, float]], by: str, detector: DetectorFile, prompts: str) -> list[str]:
    """The target of each row, by the table of prompts; empty where it has none."""
    if not prompts:
        how = "order" if by == "" else f"column {by}"
        text = f"{detector.path} has no target_id, so its rows belong to targets by their {how}"
        raise InputError(f"{text}; give the table of prompts: --prompts FOLDER, or {detector.name}={detector.path}@FOLDER")
    table = read_prompts(prompts)
    ids = table["target_id"].to_pylist()
    if by == "":
        if len(rows) != len(ids):
            expected = f"expected one for each of the {len(ids):,} prompts of {prompts}"
            raise InputError(f"{detector.path} has {len(rows):,} scores, known by their order alone; {expected}")
        return [str(target) for target in ids]
    keys: list[Any] = table["index"].to_pylist() if by in BY_NUMBER else [one_line_prompt(text) for text in table["caption"].to_pylist()]
    found: dict[Any, str] = {}
    for key, target in zip(keys, ids, strict=True):
        # a prompt that two targets have belongs to neither
        found[key] = "" if key in found else target
    return [found.get(_normal(key, by), "") for key, _ in rows]


def _normal(key: Any, by: str) -> Any:
    """A row's number or prompt as the table of prompts has it; None for what is neither."""
    if by not in BY_NUMBER:
        return one_line_prompt(key) if isinstance(key, str) else None
    try:
        return int(float(key))
    except (TypeError, ValueError):
        return None


def _measure(name: str, values: Floats, labelled: pa.Table, notes: list[str]) -> list[JsonDict]:
    """The figures of a detector: over all, by label, and by decade of the duplication count."""
    labels = np.array(labelled["label"].to_pylist())
    counts = pc.fill_null(labelled["duplication_count"].cast(pa.int64()), 0).to_numpy()
    is_scored = np.isfinite(values)
    negative = values[is_scored & (labels == NONE)]
    is_positive = is_scored & (labels != NONE)
    if not len(negative) or not is_positive.any():
        missing = "reproduced by nothing (label none), such as controls" if not len(negative) else "reproduced"
        notes.append(f"{name}: no scored target is {missing}; without any nothing can be told apart")
        return []
    if len(negative) < _FEW_NEGATIVES:
        few = f"with fewer than {_FEW_NEGATIVES} targets of which nothing is reproduced, tpr counts the targets above all of them"
        notes += [] if few in notes else [few]
    parts: list[tuple[str, int | None, int | None, Any]] = [(ALL, None, None, is_positive)]
    parts += [(label, None, None, is_positive & (labels == label)) for label in (VERBATIM, TEMPLATE)]
    for least, most in decades(int(counts[is_positive].max(initial=0))):
        inside = is_positive & (counts >= least) & (counts <= most)
        parts += [(label, least, most, inside if label == ALL else inside & (labels == label)) for label in (ALL, VERBATIM, TEMPLATE)]
    rows: list[JsonDict] = []
    for label, first, last, members in parts:
        if members.any():
            figures = measure_detection(values[members], negative)
            sizes = {"n_positive": int(members.sum()), "n_negative": len(negative)}
            rows.append({"detector": name, "label": label, "least": first, "most": last} | sizes | figures._asdict())
    return rows


def _draw(rows: list[JsonDict], path: str, notes: list[str]) -> list[str]:
    """The area under the curve by duplication count, a panel for each kind; nothing without matplotlib."""
    try:
        pyplot = load_pyplot()
    except MissingExtra as error:
        notes.append(f"no picture: {error}")
        return []
    decades = [row for row in rows if row["least"] is not None]
    labels = [label for label in (ALL, VERBATIM, TEMPLATE) if any(row["label"] == label for row in decades)]
    if not labels:
        return []
    figure, panels = pyplot.subplots(1, len(labels), figsize=(4.5 * len(labels), 4), layout="constrained", sharey=True, squeeze=False)
    for panel, label in zip(panels[0], labels, strict=True):
        for name in dict.fromkeys(row["detector"] for row in decades):
            own = [row for row in decades if row["detector"] == name and row["label"] == label]
            x, auc = (np.array([row[key] for row in own], dtype=float) for key in ("least", "auc"))
            low, high = (np.array([row[key] for row in own], dtype=float) for key in ("auc_low", "auc_high"))
            panel.errorbar(x, auc, yerr=[auc - low, high - auc], fmt="o-", markersize=4, capsize=3, label=name)
        panel.set(xscale="log", xlabel="samples in the group, from", title=label, ylim=(0.0, 1.05))
        panel.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("area under the ROC curve")
    panels[0][0].legend(loc="lower right")
    write_bytes(path, png_of(figure))
    return [path]
