"""The list of targets: a run's, or any parquet with its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from dedup.errors import InputError
from dedup.schemas import TARGETS
from dedup.storage.samples import one_line
from dedup.storage.urls import filesystem, join

_NEEDED = ("target_id",)
_WANTED = ("target_id", "component_id", "duplication_count", "shard", "key", "byte_offset", "n_bytes")


@dataclass(frozen=True)
class TargetList:
    """Targets in the order of the list.

    Parameters
    ----------
    run_dir : str
        The run they come from; empty for a list of one's own, whose groups are not known.
    rows : pyarrow.Table
        `target_id, component_id, duplication_count, shard, key, byte_offset, n_bytes`, nulls where the list has none.
    n_repeated : int
        Rows left out since their target_id occurred before.
    """

    run_dir: str
    rows: pa.Table
    n_repeated: int


def read_targets(url: str) -> TargetList:
    """Read a run's `targets/` folder, or parquet with the same columns.

    Raises
    ------
    InputError
        If there is no parquet, or no column target_id.
    """
    url = url.rstrip("/")
    fs, path = filesystem(url)
    try:
        names = sorted(str(name) for name in fs.glob(join(path, "*.parquet"))) if fs.isdir(path) else [path]
        found = ds.dataset(names, format="parquet", filesystem=fs)
        missing = [name for name in _NEEDED if name not in found.schema.names]
        if not names or missing:
            raise InputError(f"{url} has no {'parquet files' if not names else 'column ' + missing[0]}; expected a run's targets/ folder")
        known = found.to_table(columns=[name for name in _WANTED if name in found.schema.names])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{url} can't be read as targets: {one_line(error)}; expected a run's targets/ folder, or parquet like it"
        ) from error
    columns = {}
    for name in _WANTED:
        kind = TARGETS.field(name).type
        columns[name] = known[name].cast(kind) if name in known.schema.names else pa.nulls(len(known), kind)
    rows = pa.table(columns)
    ids = np.array(rows["target_id"].to_pylist(), dtype=object)
    _, first = np.unique(ids.astype(str), return_index=True)
    home = url.rpartition("/")[0] if url.rpartition("/")[2] == "targets" else ""
    is_run = bool(home) and filesystem(home)[0].exists(join(filesystem(home)[1], "groups"))
    return TargetList(home if is_run else "", rows.take(np.sort(first)), len(rows) - len(first))
