"""What a finished run would have removed at other thresholds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import Table
from dedup.errors import InputError, RunDirectoryError
from dedup.numerics.graph.components import removed_by_threshold
from dedup.runs.directory import Run
from dedup.runs.record import read_record
from dedup.schemas import SWEEP, conform
from dedup.storage.atomic import write_bytes
from dedup.storage.tables import count_rows, dataset

PAPER_REMOVED, PAPER_IMAGES = 5_275, 50_000  # CIFAR-10, Carlini et al. (2023): imagededup, similarity > 0.85
_STEP = 0.05
_LAST = (0.97, 0.99, 1.0)


@dataclass(frozen=True)
class Sweep:
    """Images removed at each threshold."""

    table: pa.Table  # of `schemas.SWEEP`, in the order asked for
    min_similarity: float  # the run's own threshold: below it nothing is known
    n_dropped: int | None  # samples the run itself drops; None where its manifest is not written
    notes: list[str] = field(default_factory=list)


def sweep(run_dir: str, thresholds: Sequence[float] = ()) -> Sweep:
    """Tell what would be removed at each threshold, from the candidate pairs and the confirmed ones of a finished run.

    `thresholds`: cosines; by default from the run's own in steps of 0.05, and 0.97, 0.99 and 1.
    Raises RunDirectoryError if the run has no pairs yet.
    Raises InputError if a threshold is no cosine.

    Notes
    -----
    Of the pairs, those count that whole images made candidates, and the byte-identical ones: similarities of second looks, and of a second
    source of candidates, are on other scales. Images of little detail ask for more of a copy, as in the run
    (`search.low_detail_min_similarity`).
    """
    run = Run(run_dir)
    record = read_record(run_dir, "index")
    if record is None or read_record(run_dir, "pairs") is None:
        raise RunDirectoryError(f"{run_dir} has no finished stage pairs; run it first: dedup run output.run_dir={run_dir} …")
    own = float(record.config["search.min_similarity"])
    wanted = list(thresholds) or _default(own)
    for value in wanted:
        if not 0.0 <= value <= 1.0:
            raise InputError(f"threshold {value}: expected a cosine from 0 to 1")
    n = count_rows(run.table("metadata"))
    known = [value for value in wanted if np.float32(value) >= np.float32(own)]
    columns: dict[str, list[int | None]] = {"n_removed": _removed(run.table("candidates"), n, known, wanted)}
    has_edges = read_record(run_dir, "confirm") is not None
    columns["n_confirmed"] = _removed(run.table("edges"), n, known, wanted) if has_edges else [None] * len(wanted)
    shares = {
        name.replace("n_", "share_"): [None if value is None else value / max(n, 1) for value in values] for name, values in columns.items()
    }
    table = conform(pa.table({"threshold": wanted, "n_samples": [n] * len(wanted)} | columns | shares, schema=None), SWEEP)
    notes = []
    if len(known) < len(wanted):
        notes.append(f"below {own:g}, the run's own threshold, nothing is known: run again with a lower search.min_similarity")
    dropped = count_rows(run.table("duplicates")) if read_record(run_dir, "manifest") is not None else None
    return Sweep(table, own, dropped, notes)


def parse_thresholds(text: str) -> list[float]:
    """Thresholds as the command line has them: ``0.7,0.75,0.8``.

    Raises InputError if one is no number.
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--thresholds {text}: expected numbers, such as 0.7,0.75,0.8 ({error})") from error


def write_sweep(found: Sweep, url: str) -> None:
    """Write the table as parquet or CSV, by the name of the file.

    Raises InputError if the name ends in neither.
    """
    buffer = io.BytesIO()
    if url.endswith(".parquet"):
        pq.write_table(found.table, buffer)
    elif url.endswith(".csv"):
        pyarrow.csv.write_csv(found.table, buffer)
    else:
        raise InputError(f"{url}: expected a name that ends in .parquet or .csv")
    write_bytes(url, buffer.getvalue())


def _default(own: float) -> list[float]:
    steps = [round(_STEP * number, 2) for number in range(20)]
    return sorted({own, *(value for value in (*steps, *_LAST) if value > own)})


def _removed(table: Table, n: int, known: list[float], wanted: list[float]) -> list[int | None]:
    rows = dataset(table).to_table(
        columns=["src", "dst", "similarity"], filter=(ds.field("kind") == "exact") | (ds.field("source") == "whole")
    )
    # sample_ids are not consecutive: those with an edge are numbered
    names, ends = np.unique(np.concatenate([rows["src"].to_numpy(), rows["dst"].to_numpy()]), return_inverse=True)
    src, dst = ends[: len(rows)], ends[len(rows) :]
    counts = dict(
        zip(known, removed_by_threshold(src, dst, rows["similarity"].to_numpy(), max(n, len(names)), known).tolist(), strict=True)
    )
    return [counts.get(value) for value in wanted]
