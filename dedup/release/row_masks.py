"""Which rows of each input file a run keeps, as boolean arrays: what snip-dedup publishes for embeddings."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from dedup.contracts import Table
from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.storage.arrays import ArrayWriter
from dedup.storage.input.published import holds_rows, n_rows_of
from dedup.storage.input.samples import one_line
from dedup.storage.tables import dataset, read_table
from dedup.storage.urls import join

_BATCH_ROWS: Final = 1_000_000


def export_rows(run_dir: str, kept: Table, out: str) -> tuple[int, int]:
    """Write a boolean array for each file of rows that the run has read: True = the row is kept.

    `kept`: samples by sample_id, of which the files of an input come one after the other.
    `out`: folder; an array has the name of its file, ``.npy`` at its end, below the folder that all files share.
    Returns the number of files and of rows that are kept; rejected rows, and those of images that are copies, are False.
    Raises InputError if the run has read no files of rows, or one can no longer be read.
    """
    lengths = _lengths(run_dir)
    names = _names_below(list(lengths))
    written, n_kept = set[str](), 0
    for file, rows in _rows_of_files(kept):
        _write(join(out, names[file]), lengths[file], rows)
        written.add(file)
        n_kept += len(rows)
    for file in lengths.keys() - written:
        _write(join(out, names[file]), lengths[file], np.zeros(0, np.int64))
    return len(lengths), n_kept


def _lengths(run_dir: str) -> dict[str, int]:
    """Rows of each file of rows that the run has read."""
    run = Run(run_dir)
    found = {}
    for row in read_table(run.table("partitions"), ["shard", "status", "n_samples", "n_rejected"]).to_pylist():
        url = row["shard"]
        if row["status"] == "unreadable" or not holds_rows(url):
            continue
        try:
            found[url] = n_rows_of(url, run.config.input.raw)
        except Exception as error:  # of pyarrow, numpy or the file system
            if row["status"] != "ok" or run.has_images:
                raise InputError(f"{url} can't be read ({one_line(error)}); expected the file that the run has read: restore it") from error
            found[url] = row["n_samples"] + row["n_rejected"]  # of embeddings each row is in one of them
    if not found:
        expected = "expected a run over embeddings, parquet or Arrow files; --format keys names samples of tars and folders"
        raise InputError(f"{run_dir} has read no files of rows; {expected}")
    return found


def _rows_of_files(kept: Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Each file with the numbers of its rows that are kept, ascending."""
    held, parts = "", list[npt.NDArray[np.int64]]()
    for batch in dataset(kept).to_batches(columns=["file", "row"], filter=ds.field("file").is_valid(), batch_size=_BATCH_ROWS):
        files = batch["file"].dictionary_encode()
        places, rows = np.asarray(files.indices), np.asarray(batch["row"])
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(places)], strict=True):
            file = files.dictionary[int(places[start])].as_py()
            if file != held and parts:
                yield held, np.unique(np.concatenate(parts))
                parts = []
            held = file
            parts.append(rows[start:stop])
    if parts:
        yield held, np.unique(np.concatenate(parts))


def _names_below(files: Sequence[str]) -> Mapping[str, str]:
    """Relative path of the array of each file.

    >>> _names_below(["/data/a/img_emb_0.npy", "/data/b/img_emb_0.npy"])
    {'/data/a/img_emb_0.npy': 'a/img_emb_0.npy', '/data/b/img_emb_0.npy': 'b/img_emb_0.npy'}
    """
    folders = [posixpath.dirname(file).split("/") for file in files]
    shared = posixpath.commonprefix(folders)
    start = len("/".join(shared)) + 1 if shared else 0
    return {file: posixpath.splitext(file[start:])[0] + ".npy" for file in files}


def _write(url: str, n_rows: int, rows: npt.NDArray[np.int64]) -> None:
    is_kept = np.zeros(n_rows, dtype=np.bool_)
    is_kept[rows] = True
    with ArrayWriter(url, (), np.dtype(np.bool_)) as writer:
        writer.write(is_kept)
