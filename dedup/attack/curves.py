"""The paper's curves, drawn from the table of scores: precision against recall, and extraction against duplication."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds

from dedup.contracts import Table
from dedup.errors import InputError, RunDirectoryError, ShapeError
from dedup.report.plot import load_pyplot, png_of
from dedup.schemas import SCORES
from dedup.storage.atomic import write_bytes
from dedup.storage.input.samples import one_line
from dedup.storage.tables import FileWriter, read_table
from dedup.storage.urls import join


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
    distance = pc.fill_null(scores["mean_distance"].cast(pa.float64()), np.inf).to_numpy()
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
            "mean_distance": pa.array(distance[order], mask=np.isinf(distance[order])),
        }
    )


def by_duplication_count(scores: pa.Table) -> pa.Table:
    """How many targets were memorised, extracted, and reproduced as templates, by how often their images occur, in powers of two.

    Returns
    -------
    pyarrow.Table
        `least, most, n_targets`, and of `memorized, extracted, template` the number and the share: `n_memorized, …, share_memorized, …`;
        bins without targets are left out. Memorised and extracted are of the whole image, template of an area of it.

    Examples
    --------
    >>> facts = {"duplication_count": [2, 3, 9], "is_memorized": [False, True, True], "is_extracted": [False, None, True]}
    >>> by_duplication_count(pa.table(facts | {"label": ["none", "template", "verbatim"]})).to_pylist()[0]["n_template"]
    1
    """
    scores = scores.filter(pc.is_valid(scores["duplication_count"]))
    least = 2 ** np.floor(np.log2(np.maximum(scores["duplication_count"].to_numpy(), 1))).astype(np.int64)
    is_true = {name: pc.fill_null(scores[f"is_{name}"].cast(pa.bool_()), False) for name in ("memorized", "extracted")}
    is_true["template"] = pc.fill_null(pc.equal(scores["label"], "template"), False)
    columns = {name: values.cast(pa.int64()) for name, values in is_true.items()}
    sums = [("least", "count"), *((name, "sum") for name in columns)]
    bins = pa.table({"least": least} | columns).group_by("least").aggregate(sums).sort_by("least")
    first, n = (bins[name].to_numpy().astype(np.int64) for name in ("least", "least_count"))
    numbers = {name: bins[f"{name}_sum"].to_numpy().astype(np.int64) for name in columns}
    counts = {"least": first, "most": 2 * first - 1, "n_targets": n} | {f"n_{name}": number for name, number in numbers.items()}
    return pa.table(counts | {f"share_{name}": number / n for name, number in numbers.items()})


def write_curves(scores: str, out: str, labels: str = "") -> list[str]:
    """Draw the curves of a table of scores; returns the files written.

    `scores`: folder written by `dedup extraction score`.
    `out`: folder for `by_duplication_count.parquet` and `.png`, and with labels `precision_recall.parquet` and `.png`.
    `labels`: CSV or parquet with `target_id` and `is_memorized`, as judged by a person. Targets without a label are left out.
    Raises InputError if the labels can't be read.
    Raises RunDirectoryError if the folder holds no scores.
    Raises MissingExtra if matplotlib is not installed.
    """
    load_pyplot()  # before any work
    try:
        table = read_table(Table(scores, SCORES))
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{scores} holds no scores; expected the --out of `dedup extraction score`") from error
    counts = by_duplication_count(table)
    lines = {
        "share_extracted": "extracted, whole image",
        "share_template": "an area of it (template)",
        "share_memorized": "memorised, whole image",
    }
    files = _write(out, "by_duplication_count", counts, "least", lines, "samples in the group", "share of targets")
    if labels:
        truths = _read_labels(labels)
        labelled = table.filter(pc.is_in(table["target_id"], truths["target_id"]))
        truth_of = dict(zip(truths["target_id"].to_pylist(), truths["is_memorized"].to_pylist(), strict=True))
        is_memorized = np.array([truth_of[target] for target in labelled["target_id"].to_pylist()], dtype=bool)
        curve = precision_recall(labelled, is_memorized)
        files += _write(out, "precision_recall", curve, "recall", {"precision": ""}, "recall", "precision")
    return files


def _write(out: str, name: str, table: pa.Table, column: str, lines: dict[str, str], x: str, y: str) -> list[str]:
    """Write a table and a picture of some of its columns, each with its label, over another; returns both files."""
    parquet, png = join(out, f"{name}.parquet"), join(out, f"{name}.png")
    with FileWriter(parquet, table.schema) as writer:
        writer.write(table)
    figure, axes = load_pyplot().subplots(figsize=(6, 4), layout="constrained")
    for line, label in lines.items():
        axes.plot(table[column].to_numpy(), table[line].to_numpy(), "o-", markersize=4, label=label)
    if column == "least":
        axes.set_xscale("log")
    if len(lines) > 1:
        axes.legend(frameon=False)
    axes.set(xlabel=x, ylabel=y, ylim=(0.0, 1.05))
    axes.grid(alpha=0.3)
    write_bytes(png, png_of(figure))
    return [parquet, png]


def _read_labels(path: str) -> pa.Table:
    expected = "expected CSV or parquet with target_id and is_memorized"
    try:
        table = pa_csv.read_csv(path) if path.endswith(".csv") else ds.dataset(path, format="parquet").to_table()
        missing = [name for name in ("target_id", "is_memorized") if name not in table.column_names]
        if missing:
            raise InputError(f"{path} has no column {missing[0]}; {expected}")
        return pa.table({"target_id": table["target_id"].cast(pa.string()), "is_memorized": table["is_memorized"].cast(pa.bool_())})
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {expected}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} can't be read as labels: {one_line(error)}; {expected}") from error
