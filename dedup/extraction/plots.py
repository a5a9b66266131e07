"""The paper's curves as files: tables and pictures."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import Table
from dedup.errors import InputError, MissingExtra
from dedup.extraction.curves import by_duplication_count, precision_recall
from dedup.schemas import SCORES
from dedup.storage.samples import one_line
from dedup.storage.tables import read_table


def write_curves(scores: str, out: str, labels: str = "") -> list[str]:
    """Write the curves of a table of scores; returns the files.

    Parameters
    ----------
    scores : str
        What `dedup extraction score` has written.
    out : str
        Folder for `by_duplication_count.parquet` and `.png`, and with labels `precision_recall.parquet` and `.png`.
    labels : str
        CSV or parquet with `target_id` and `is_memorized`: what a person says. Targets without a label are left out.

    Raises
    ------
    InputError
        If scores or labels can't be read.
    MissingExtra
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "report") from error
    matplotlib.use("Agg")
    table = read_table(Table(scores, SCORES))
    os.makedirs(out, exist_ok=True)
    files = _write(
        out, "by_duplication_count", by_duplication_count(table), ("least", "share_extracted"), "samples in the group", "share extracted"
    )
    if labels:
        known = _read_labels(labels)
        labelled = table.filter(pc.is_in(table["target_id"], known["target_id"]))
        of = dict(zip(known["target_id"].to_pylist(), known["is_memorized"].to_pylist(), strict=True))
        truth = np.array([of[target] for target in labelled["target_id"].to_pylist()], dtype=bool)
        files += _write(out, "precision_recall", precision_recall(labelled, truth), ("recall", "precision"), "recall", "precision")
    return files


def _write(out: str, name: str, table: pa.Table, columns: tuple[str, str], x: str, y: str) -> list[str]:
    from matplotlib import pyplot

    parquet, png = os.path.join(out, f"{name}.parquet"), os.path.join(out, f"{name}.png")
    pq.write_table(table, parquet)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(table[columns[0]].to_numpy(), table[columns[1]].to_numpy(), "o-", markersize=4)
    if columns[0] == "least":
        axes.set_xscale("log")
    axes.set(xlabel=x, ylabel=y, ylim=(0.0, 1.05))
    axes.grid(alpha=0.3)
    figure.savefig(png, dpi=120)
    pyplot.close(figure)
    return [parquet, png]


def _read_labels(path: str) -> pa.Table:
    try:
        found = pa_csv.read_csv(path) if path.endswith(".csv") else ds.dataset(path, format="parquet").to_table()
        return pa.table({"target_id": found["target_id"].cast(pa.string()), "is_memorized": found["is_memorized"].cast(pa.bool_())})
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} can't be read as labels: {one_line(error)}; expected CSV or parquet with target_id and is_memorized"
        ) from error
