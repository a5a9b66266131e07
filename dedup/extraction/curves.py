"""The paper's curves from the table of scores: precision against recall, and extraction against duplication."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.errors import ShapeError


def precision_recall(scores: pa.Table, is_memorized: npt.NDArray[np.bool_]) -> pa.Table:
    """Precision and recall as targets are taken in the paper's order: memorised ones first, by mean distance in the clique.

    Parameters
    ----------
    scores : pyarrow.Table
        Of `schemas.SCORES`.
    is_memorized : bool array, shape (n,)
        What a person says of each target, in the order of the table.

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
    right = np.cumsum(is_memorized[order])
    taken = np.arange(1, len(order) + 1)
    return pa.table(
        {
            "n_taken": taken,
            "precision": right / taken,
            "recall": right / max(int(is_memorized.sum()), 1),
            "clique_size": size[order],
            "mean_distance": pa.array([None if np.isinf(value) else value for value in distance[order]], pa.float64()),
        }
    )


def by_duplication_count(scores: pa.Table) -> pa.Table:
    """How many targets were memorised and extracted, by how often their images occur, in powers of two.

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
    known = [value is not None for value in scores["duplication_count"].to_pylist()]
    scores = scores.filter(pa.array(known, pa.bool_()))
    count = scores["duplication_count"].to_numpy()
    bins = np.floor(np.log2(np.maximum(count, 1))).astype(np.int64)
    memorized = np.array(scores["is_memorized"].to_pylist(), dtype=bool)
    extracted = np.array([value is True for value in scores["is_extracted"].to_pylist()], dtype=bool)
    rows = []
    for number in np.unique(bins).tolist():
        of = bins == number
        n, n_memorized, n_extracted = int(of.sum()), int(memorized[of].sum()), int(extracted[of].sum())
        rows.append(
            {
                "least": 2**number,
                "most": 2 ** (number + 1) - 1,
                "n_targets": n,
                "n_memorized": n_memorized,
                "n_extracted": n_extracted,
                "share_memorized": n_memorized / n,
                "share_extracted": n_extracted / n,
            }
        )
    kinds = [
        ("least", pa.int64()),
        ("most", pa.int64()),
        ("n_targets", pa.int64()),
        ("n_memorized", pa.int64()),
        ("n_extracted", pa.int64()),
    ]
    schema = pa.schema([*kinds, ("share_memorized", pa.float64()), ("share_extracted", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)
