"""The paper's curves, drawn from the table of scores: precision against recall, and extraction against duplication."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import Table
from dedup.errors import InputError, MissingExtra, ShapeError
from dedup.schemas import SCORES
from dedup.storage.input.samples import one_line
from dedup.storage.tables import read_table


def precision_recall(scores: pa.Table, is_memorized: npt.NDArray[np.bool_]) -> pa.Table:
    """Precision and recall as targets are taken in the paper's order: memorised ones first, by mean distance in the clique.

    Parameters
    ----------
    scores : pyarrow.Table
        Of `schemas.SCORES`.
    is_memorized : bool array, shape (n,)
        A person's label for each target, in the order of the table.

    Returns
    -------
    pyarrow.Table
        `n_taken, precision, recall, clique_size, mean_distance`, a row per target taken; targets without a clique come last.

    Examples
    --------
    >>> scores = pa.table({"clique_size": [12, 10, 1], "mean_distance": [0.02, 0.05, None]})
    >>> precision_recall(scores, np.array([True, False, True]))["precision"].to_pylist()
    [1.0, 0.5, 0.6666666666666666]
    """
    if len(scores) != len(is_memorized):
        raise ShapeError(f"expected a label for each of {len(scores)} targets, found {len(is_memorized)}")
    size = scores["clique_size"].to_numpy()
    distance = np.array([np.inf if value is None else value for value in scores["mean_distance"].to_pylist()], dtype=np.float64)
    # a clique of 10 counts as one of 500 does: among those the tightest is first
    order = np.lexsort((-size, distance, size < 10))
    n_right = np.cumsum(is_memorized[order])
    taken = np.arange(1, len(order) + 1)
    return pa.table(
        {
            "n_taken": taken,
            "precision": n_right / taken,
            "recall": n_right / max(int(is_memorized.sum()), 1),
            "clique_size": size[order],
            "mean_distance": pa.array([None if np.isinf(value) else value for value in distance[order]], pa.float64()),
        }
    )


def by_duplication_count(scores: pa.Table) -> pa.Table:
    """How many targets were memorised and extracted, by how often their images occur, binned by powers of two.

    Returns
    -------
    pyarrow.Table
        `least, most, n_targets, n_memorized, n_extracted, share_memorized, share_extracted`; bins without targets are left out.

    Examples
    --------
    >>> scores = pa.table({"duplication_count": [2, 3, 9], "is_memorized": [False, True, True], "is_extracted": [False, None, True]})
    >>> by_duplication_count(scores).to_pylist()[0]["n_memorized"]
    1
    """
    has_count = [value is not None for value in scores["duplication_count"].to_pylist()]
    scores = scores.filter(pa.array(has_count, pa.bool_()))
    count = scores["duplication_count"].to_numpy()
    bins = np.floor(np.log2(np.maximum(count, 1))).astype(np.int64)
    memorized = np.array(scores["is_memorized"].to_pylist(), dtype=bool)
    extracted = np.array([value is True for value in scores["is_extracted"].to_pylist()], dtype=bool)
    rows = []
    for exponent in np.unique(bins).tolist():
        in_bin = bins == exponent
        n, n_memorized, n_extracted = int(in_bin.sum()), int(memorized[in_bin].sum()), int(extracted[in_bin].sum())
        rows.append(
            {
                "least": 2**exponent,
                "most": 2 ** (exponent + 1) - 1,
                "n_targets": n,
                "n_memorized": n_memorized,
                "n_extracted": n_extracted,
                "share_memorized": n_memorized / n,
                "share_extracted": n_extracted / n,
            }
        )
    counts = [(name, pa.int64()) for name in ("least", "most", "n_targets", "n_memorized", "n_extracted")]
    schema = pa.schema([*counts, ("share_memorized", pa.float64()), ("share_extracted", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


def write_curves(scores: str, out: str, labels: str = "") -> list[str]:
    """Draw the curves of a table of scores; returns the files written.

    `scores`: folder written by `dedup extraction score`.
    `out`: folder for `by_duplication_count.parquet` and `.png`, and with labels `precision_recall.parquet` and `.png`.
    `labels`: CSV or parquet with `target_id` and `is_memorized`, as judged by a person. Targets without a label are left out.
    Raises InputError if scores or labels can't be read.
    Raises MissingExtra if matplotlib is not installed.
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
        truths = _read_labels(labels)
        labelled = table.filter(pc.is_in(table["target_id"], truths["target_id"]))
        truth_of = dict(zip(truths["target_id"].to_pylist(), truths["is_memorized"].to_pylist(), strict=True))
        is_memorized = np.array([truth_of[target] for target in labelled["target_id"].to_pylist()], dtype=bool)
        files += _write(out, "precision_recall", precision_recall(labelled, is_memorized), ("recall", "precision"), "recall", "precision")
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
        table = pa_csv.read_csv(path) if path.endswith(".csv") else ds.dataset(path, format="parquet").to_table()
        return pa.table({"target_id": table["target_id"].cast(pa.string()), "is_memorized": table["is_memorized"].cast(pa.bool_())})
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} can't be read as labels: {one_line(error)}; expected CSV or parquet with target_id and is_memorized"
        ) from error
