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

    def notes(self) -> list[str]:
        """What was left out, for the user."""
        return [f"{self.n_repeated:,} rows of the list repeat a target_id; the first of each is used"] if self.n_repeated else []


def read_targets(url: str, columns: tuple[str, ...] = PLACES) -> TargetList:
    """Read a run's `targets/` folder, or parquet with the same columns.

    Raises InputError if it can't be read, or has no target_id.
    """
    url = url.rstrip("/")
    schema = pa.schema([(name, TARGETS.field(name).type) for name in columns])
    try:
        table = parquet_at(url)
        if "target_id" not in table.schema.names:
            raise InputError(f"{url} has no {'column target_id' if table.files else 'parquet files'}; {_EXPECTED}")
        present = table.to_table(columns=[name for name in columns if name in table.schema.names])
        absent = {name: pa.nulls(len(present)) for name in columns if name not in present.schema.names}
        rows = pa.table(dict(zip(present.column_names, present.columns, strict=True)) | absent).select(columns).cast(schema)
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; {_EXPECTED}") from error
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{url} can't be read as targets: {one_line(error)}; {_EXPECTED}") from error
    if not len(rows):
        raise InputError(f"{url} lists no targets; expected one or more (a run without copies has none)")
    if n_null := rows["target_id"].null_count:
        raise InputError(f"{url}: {n_null:,} rows have no target_id; expected a name for each; leave them out")
    ids = np.array(rows["target_id"].to_pylist(), dtype=object)
    _, first = np.unique(ids.astype(str), return_index=True)
    return TargetList(_run_of(url), rows.take(np.sort(first)), len(rows) - len(first))


def place_of(row: JsonDict) -> tuple[str, str, int | None, int]:
    """Where the training image of a target, or an image of its group, is: shard, key, byte offset and size.

    Raises InputError if the list does not say.
    """
    if row["shard"] is None or row["key"] is None or not row["n_bytes"]:
        raise InputError("the list of targets does not say where the training image is (shard, key, byte_offset, n_bytes)")
    return row["shard"], row["key"], row["byte_offset"], row["n_bytes"]


def has_prompt(row: JsonDict) -> bool:
    """Whether a target has a caption that is not empty or blank."""
    return bool((row["caption"] or "").strip())


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
            for row in batch.to_pylist():
                if row["target_id"] is None:
                    raise InputError(f"{url}: a row has no target_id; expected a name for each; leave it out")
                yield {"url": None, "duplication_count": None, "n_generations": None} | row | {"target_id": str(row["target_id"])}
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; {_EXPECTED}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{url} can't be read as targets: {one_line(error)}; {_EXPECTED}") from error


def to_generate(url: str) -> Iterator[tuple[int, JsonDict]]:
    """The targets of a list for which something can be generated, with their row from 1: `target_id, caption, n_generations`.

    Rows without a caption, as outliers may be, and rows that repeat a target_id are passed over (`left_out` counts them); a list that does
    not say how many images to generate means 500 each.
    Raises InputError as `prompts_of`.
    """
    default, seen = TargetsConfig().n_generations, set[str]()
    for number, row in enumerate(prompts_of(url), 1):
        if has_prompt(row) and row["target_id"] not in seen:
            seen.add(row["target_id"])
            yield number, row | {"n_generations": default if row["n_generations"] is None else row["n_generations"]}


def left_out(url: str) -> list[str]:
    """What `to_generate` passes over, as notes for the user."""
    n, n_silent, ids = 0, 0, set[str]()
    for row in prompts_of(url):
        n, n_silent = n + 1, n_silent + (not has_prompt(row))
        ids.add(row["target_id"])
    notes = [f"{n_silent:,} of {n:,} targets have no caption, and give no prompt"] if n_silent else []
    return notes + ([f"{n - len(ids):,} rows of the list repeat a target_id; the first of each is used"] if n > len(ids) else [])


def parquet_at(url: str) -> ds.Dataset:
    """A parquet file, or those of a folder."""
    fs, path = filesystem(url.rstrip("/"))
    # names that begin with an underscore are those of files half written
    names = [name for name in matching(url, "*.parquet") if not name.rpartition("/")[2].startswith("_")] if fs.isdir(path) else [path]
    return ds.dataset(names, format="parquet", filesystem=fs)
