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
from dedup.errors import ConfigError
from dedup.numerics.graph.components import removed_by_threshold
from dedup.runs.directory import Run
from dedup.schemas import SWEEP, conform
from dedup.storage.atomic import write_bytes
from dedup.storage.tables import count_rows, dataset

PAPER_REMOVED, PAPER_IMAGES = 5_275, 50_000  # CIFAR-10, Carlini et al. (2023): imagededup, similarity > 0.85
_STEP = 0.05
_LAST = (0.97, 0.99, 1.0)


@dataclass(frozen=True)
class Sweep:
    """Images removed at each threshold."""

    table: pa.Table  # of `schemas.SWEEP`, in the order of the thresholds given
    min_similarity: float  # the run's own threshold: nothing is known below it
    n_dropped: int | None  # samples the run itself drops; None where its manifest is not written
    notes: list[str] = field(default_factory=list)


def sweep(run_dir: str, thresholds: Sequence[float] = ()) -> Sweep:
    """Count what each threshold would remove, from the candidate pairs and the confirmed pairs of a finished run.

    `thresholds`: cosines; by default from the run's own in steps of 0.05, and 0.97, 0.99 and 1.

    Raises ConfigError if a threshold is not a cosine from 0 to 1.
    Raises RunDirectoryError if there is no run, or its pairs are missing or out of date.

    Only byte-identical pairs and pairs found by whole images count: similarities of views, and of a second source of candidates, are on
    other scales. Images of little detail need a higher similarity, as in the run (`search.low_detail_min_similarity`).
    """
    run = Run.open(run_dir, ("index", "pairs"))
    run_threshold = float(run.finished("index").config["search.min_similarity"])
    cosines = list(thresholds) or _default(run_threshold)
    for value in cosines:
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"threshold {value}: expected a cosine from 0 to 1")
    n = count_rows(run.table("metadata"))
    measured = [value for value in cosines if np.float32(value) >= np.float32(run_threshold)]
    columns: dict[str, list[int | None]] = {"n_removed": _removed(run.table("candidates"), n, measured, cosines)}
    has_edges = run.record("confirm") is not None
    columns["n_confirmed"] = _removed(run.table("edges"), n, measured, cosines) if has_edges else [None] * len(cosines)
    shares = {f"share_{name[2:]}": [None if value is None else value / max(n, 1) for value in values] for name, values in columns.items()}
    table = conform(pa.table({"threshold": cosines, "n_samples": [n] * len(cosines)} | columns | shares), SWEEP)
    notes = []
    if len(measured) < len(cosines):
        notes.append(f"below {run_threshold:g}, the run's own threshold, nothing is known: run again with a lower search.min_similarity")
    dropped = count_rows(run.table("duplicates")) if run.record("manifest") is not None else None
    return Sweep(table, run_threshold, dropped, notes)


def parse_thresholds(text: str) -> list[float]:
    """Parse thresholds given on the command line: ``0.7,0.75,0.8``."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--thresholds {text}: expected numbers, such as 0.7,0.75,0.8 ({error})") from error


def write_sweep(result: Sweep, url: str) -> None:
    """Write the table as parquet or CSV, chosen by the file name."""
    buffer = io.BytesIO()
    if url.endswith(".parquet"):
        pq.write_table(result.table, buffer)
    elif url.endswith(".csv"):
        pyarrow.csv.write_csv(result.table, buffer)
    else:
        raise ConfigError(f"--out {url}: expected a name that ends in .parquet or .csv")
    write_bytes(url, buffer.getvalue())


def _default(run_threshold: float) -> list[float]:
    steps = [round(_STEP * number, 2) for number in range(20)]
    return sorted({run_threshold, *(value for value in (*steps, *_LAST) if value > run_threshold)})


def _removed(table: Table, n_samples: int, measured: list[float], cosines: list[float]) -> list[int | None]:
    is_whole = (ds.field("kind") == "exact") | (ds.field("source") == "whole")
    rows = dataset(table).to_table(columns=["src", "dst", "similarity"], filter=is_whole)
    # sample_ids are not consecutive: number those with an edge
    node_ids, ends = np.unique(np.concatenate([rows["src"].to_numpy(), rows["dst"].to_numpy()]), return_inverse=True)
    src, dst = ends[: len(rows)], ends[len(rows) :]
    counts = removed_by_threshold(src, dst, rows["similarity"].to_numpy(), max(n_samples, len(node_ids)), measured)
    count_of = dict(zip(measured, counts.tolist(), strict=True))
    return [count_of.get(value) for value in cosines]
