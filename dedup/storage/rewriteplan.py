"""Which kept samples go into which cleaned shard: decided once, from the manifest's columns alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dedup.contracts import JsonDict, Table
from dedup.storage.tables import files
from dedup.storage.urls import filesystem

_COLUMNS = ("sample_id", "shard", "key", "n_bytes")


@dataclass(frozen=True)
class Cleaned:
    """One shard to be written: a stretch of the kept samples, which are ordered by sample_id.

    Parameters
    ----------
    number : int
        Of the shard: its name is ``NNNNN.tar``.
    first_id, last_id : int
        sample_id of its first and last sample.
    n_samples : int
    image_bytes : int
        Of its images, encoded.
    first_file, last_file : int
        Place, among the table's sorted files, of those that hold its rows.
    """

    number: int
    first_id: int
    last_id: int
    n_samples: int
    image_bytes: int
    first_file: int
    last_file: int

    def as_json(self) -> JsonDict:
        """Its fields."""
        return asdict(self)


def kept_rows(kept: Table, wanted: Cleaned) -> pa.Table:
    """All columns of the samples of one cleaned shard, by ascending sample_id."""
    fs, _ = filesystem(kept.path)
    names = files(kept)[wanted.first_file : wanted.last_file + 1]
    source = ds.dataset(names, schema=kept.schema, format="parquet", filesystem=fs)
    between = (pc.field("sample_id") >= wanted.first_id) & (pc.field("sample_id") <= wanted.last_id)
    return source.to_table(filter=between).sort_by("sample_id")


def plan_shards(kept: Table, per_shard: int) -> Iterator[Cleaned]:
    """Cut the kept samples into shards, in their order.

    Parameters
    ----------
    kept : Table
        Columns of the manifest; files and rows ordered by sample_id, as every engine writes them.
    per_shard : int
        Samples in each but the last; 0 = a cleaned shard for each shard that keeps any.

    Yields
    ------
    Cleaned

    Notes
    -----
    A shard ends early where its next sample would have the key of one that it holds: readers of webdatasets know samples by nothing
    else. Held in memory are the rows of one file and of one shard.
    """
    fs, _ = filesystem(kept.path)
    held: list[tuple[int, pa.Table]] = []  # place of the file, rows
    number = 0
    for place, name in enumerate(files(kept)):
        source = ds.dataset([name], schema=kept.schema, format="parquet", filesystem=fs)
        for batch in source.to_batches(columns=list(_COLUMNS)):
            if batch.num_rows:
                held.append((place, pa.Table.from_batches([batch])))
            while (n := _next_cut(held, per_shard, is_end=False)) > 0:
                yield _take(held, n, number)
                number += 1
    while (n := _next_cut(held, per_shard, is_end=True)) > 0:
        yield _take(held, n, number)
        number += 1


def _next_cut(held: list[tuple[int, pa.Table]], per_shard: int, *, is_end: bool) -> int:
    """Rows of the next shard; 0 = more rows are needed to tell, or there are none."""
    n_held = sum(rows.num_rows for _, rows in held)
    if not n_held or (per_shard and n_held < per_shard and not is_end):
        return 0
    rows = pa.concat_tables([part for _, part in held])
    shards = rows["shard"].combine_chunks().dictionary_encode()
    codes = shards.indices.to_numpy()
    if not per_shard:
        other = np.flatnonzero(codes != codes[0])
        return _before_repetition(rows, int(other[0]) if len(other) else n_held) if len(other) or is_end else 0
    n = min(per_shard, n_held)
    # inside one tar the keys differ
    return n if bool((codes[:n] == codes[0]).all()) and not _is_folder(rows) else _before_repetition(rows, n)


def _is_folder(rows: pa.Table) -> bool:
    return bool(rows["shard"][0].as_py().endswith("/"))


def _before_repetition(rows: pa.Table, n: int) -> int:
    """How many of the first n rows come before one whose key occurred."""
    keys = rows["key"].slice(0, n)
    if _is_folder(rows):
        keys = pa.chunked_array([pa.array([tar_key(key) for key in keys.to_pylist()], pa.string())])
    codes = keys.combine_chunks().dictionary_encode().indices.to_numpy()
    # codes are given in the order of first occurrence: one that is not larger than all before has occurred
    repeated = np.flatnonzero(codes[1:] <= np.maximum.accumulate(codes)[:-1])
    return int(repeated[0]) + 1 if len(repeated) else n


def tar_key(path: str) -> str:
    """The key that webdataset gives a file of a folder.

    Examples
    --------
    >>> tar_key("2024/photo.v2.jpg")
    '2024/photo'
    """
    folder, slash, base = path.rpartition("/")
    return folder + slash + (base.partition(".")[0] or base)


def _take(held: list[tuple[int, pa.Table]], n: int, number: int) -> Cleaned:
    """Take the next shard's rows off what is held."""
    left, taken = n, []
    while left:
        place, rows = held.pop(0)
        if rows.num_rows > left:
            held.insert(0, (place, rows.slice(left)))
            rows = rows.slice(0, left)
        taken.append((place, rows))
        left -= rows.num_rows
    ids = pa.concat_tables([rows for _, rows in taken])
    image_bytes = pc.sum(ids["n_bytes"]).as_py() or 0
    return Cleaned(number, ids["sample_id"][0].as_py(), ids["sample_id"][-1].as_py(), n, image_bytes, taken[0][0], taken[-1][0])
