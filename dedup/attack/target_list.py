"""Lists of targets: a run's own, outliers, controls, or anybody's parquet with a target_id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from dedup.config import TargetsConfig
from dedup.contracts import JsonDict
from dedup.errors import InputError
from dedup.schemas import TARGETS
from dedup.storage.input.samples import one_line
from dedup.storage.urls import filesystem, join, matching

PLACES: Final = ("target_id", "component_id", "duplication_count", "shard", "key", "byte_offset", "n_bytes")
_EXPECTED: Final = "expected a run's targets/ folder, or parquet like it"
_BATCH = 4_096


@dataclass(frozen=True)
class TargetList:
    """Targets in the order of the list."""

    run_dir: str  # the run they come from; empty for other lists, whose groups are not known
    rows: pa.Table  # of the columns `PLACES`, null where the list lacks them
    n_repeated: int  # rows left out because an earlier one has their target_id


def read_targets(url: str, columns: tuple[str, ...] = PLACES) -> TargetList:
    """Read a run's `targets/` folder, or parquet with the same columns.

    Raises InputError if it can't be read, or has no target_id.
    """
    url = url.rstrip("/")
    try:
        table = parquet_at(url)
        if "target_id" not in table.schema.names:
            raise InputError(f"{url} has no {'column target_id' if table.files else 'parquet files'}; {_EXPECTED}")
        present = table.to_table(columns=[name for name in columns if name in table.schema.names])
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; {_EXPECTED}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{url} can't be read as targets: {one_line(error)}; {_EXPECTED}") from error
    absent = {name: pa.nulls(len(present)) for name in columns if name not in present.schema.names}
    schema = pa.schema([(name, TARGETS.field(name).type) for name in columns])
    rows = pa.table(dict(zip(present.column_names, present.columns, strict=True)) | absent).select(columns).cast(schema)
    ids = np.array(rows["target_id"].to_pylist(), dtype=object)
    _, first = np.unique(ids.astype(str), return_index=True)
    return TargetList(_run_of(url), rows.take(np.sort(first)), len(rows) - len(first))


def _run_of(url: str) -> str:
    """The run whose tables say where targets come from; empty if the list is no run's."""
    folder, _, name = url.rpartition("/")
    if not folder or name not in ("targets", "outliers", "controls"):
        return ""
    fs, path = filesystem(folder)
    return folder if fs.exists(join(path, "groups")) else ""


def prompts_of(url: str) -> Iterator[JsonDict]:
    """The targets of a list one by one, as far as it says: `target_id, caption, url, duplication_count, n_generations`.

    Raises InputError if the list can't be read, or lacks target_id or caption.
    """
    try:
        table = parquet_at(url)
        missing = [name for name in ("target_id", "caption") if name not in table.schema.names]
        if missing:
            raise InputError(f"{url} has no column {missing[0]}; {_EXPECTED}")
        names = [name for name in ("target_id", "caption", "url", "duplication_count", "n_generations") if name in table.schema.names]
        for batch in table.to_batches(columns=names, batch_size=_BATCH):
            yield from ({"url": None, "duplication_count": None, "n_generations": None} | row for row in batch.to_pylist())
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; {_EXPECTED}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{url} can't be read as targets: {one_line(error)}; {_EXPECTED}") from error


def to_generate(url: str) -> Iterator[tuple[int, JsonDict]]:
    """The targets of a list for which something can be generated, with their row from 1: `target_id, caption, n_generations`.

    Outliers and controls may lack a caption, and are passed over; a list that does not say how many images to generate means 500 each.
    Raises InputError as `prompts_of`.
    """
    default = TargetsConfig().n_generations
    for number, row in enumerate(prompts_of(url), 1):
        if row["caption"]:
            yield number, row | {"n_generations": default if row["n_generations"] is None else row["n_generations"]}


def parquet_at(url: str) -> ds.Dataset:
    """A parquet file, or those of a folder."""
    fs, path = filesystem(url.rstrip("/"))
    names = matching(url, "*.parquet") if fs.isdir(path) else [path]
    return ds.dataset(names, format="parquet", filesystem=fs)
