"""Writes what a run found as one file: what was kept and dropped, groups, counts, pairs; as CSV, JSON lines, parquet or a list."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dedup.contracts import Engine
from dedup.errors import ConfigError
from dedup.runs.directory import Run
from dedup.schemas import DUPLICATES, EDGES, STATISTICS
from dedup.schemas.pairs import NEAR_SQL
from dedup.storage.atomic import AtomicFile
from dedup.storage.tables import FileWriter

WHAT: Final = ("kept", "dropped", "groups", "counts", "pairs")
TABLE_FORMATS: Final = ("csv", "jsonl", "parquet", "txt")

_TABLES: Final = {"kept": "manifest", "dropped": "duplicates", "counts": "statistics", "edges": "edges", "metadata": "metadata"}
_OF_GROUPS: Final = ("component_id", "sample_id", "shard", "key", "member", "width", "height", "n_bytes", "caption", "originality", "edits")
_OF_DROPPED: Final = ("keeper_id", "keeper_key", "kind", "similarity_to_keeper", "distance_to_keeper")
_OF_PAIRS: Final = ("kind", "source", "variant", "similarity", "distance", "relation", "agreeing_share")


def _groups_sql() -> str:
    shared = ", ".join(_OF_GROUPS)
    nothing = ", ".join(f"CAST(NULL AS {_SQL_TYPES[DUPLICATES.field(name).type]}) AS {name}" for name in _OF_DROPPED)
    return f"""
SELECT * FROM (
    SELECT {shared}, TRUE AS is_kept, {nothing} FROM kept WHERE duplication_count > 1
    UNION ALL
    SELECT {shared}, FALSE AS is_kept, {", ".join(_OF_DROPPED)} FROM dropped
) AS every ORDER BY component_id, is_kept DESC, similarity_to_keeper DESC, sample_id
"""  # noqa: S608 (names of our own columns only)


_SQL_TYPES: Final = {pa.int64(): "BIGINT", pa.string(): "VARCHAR", pa.float32(): "FLOAT"}
_COUNTS_SQL: Final = f"""
SELECT {", ".join(f"counts.{name} AS {name}" for name in STATISTICS.names)}, metadata.shard AS shard, metadata.key AS key
FROM counts JOIN metadata ON counts.component_id = metadata.sample_id
ORDER BY counts.duplication_count DESC, counts.component_id
"""  # noqa: S608
_PAIRS_SQL: Final = f"""
SELECT a.shard AS shard, a.key AS key, b.shard AS other_shard, b.key AS other_key,
       {", ".join(f"edges.{name} AS {name}" for name in _OF_PAIRS)}
FROM edges JOIN metadata AS a ON edges.src = a.sample_id JOIN metadata AS b ON edges.dst = b.sample_id
WHERE edges.kind = 'exact' OR {NEAR_SQL}
ORDER BY edges.src, edges.dst
"""  # noqa: S608


def export_table(run_dir: str, what: str, form: str, out: str, engine: Engine) -> int:
    """Write a table of a finished run as one file, row by row.

    `what`: of `WHAT`.
    `form`: of `TABLE_FORMATS`. In CSV, lists are JSON; ``txt`` has a key per line, of what was kept or dropped.
    Returns the number of rows.
    Raises ConfigError if there is no list of that, RunDirectoryError if the run is not finished.
    """
    if form == "txt" and what not in ("kept", "dropped"):
        raise ConfigError(f"--what {what} --format txt: a list has one name per line; expected --format csv, jsonl or parquet")
    run = Run.open(run_dir)
    run.up_to_date("statistics" if what == "counts" else "manifest")
    tables = {name: run.table(table) for name, table in _TABLES.items()}
    query, schema, reads = _query(what, tables)
    batches = engine.sql(query, {name: tables[name] for name in reads}, schema)
    return _write(batches, schema, form, out)


def _query(what: str, tables: dict[str, Any]) -> tuple[str, pa.Schema, tuple[str, ...]]:
    """The query for a table, its columns, and what it reads."""
    if what in ("kept", "dropped"):
        schema = tables[what].schema
        columns = ", ".join(f'"{name}"' for name in schema.names)
        return f"SELECT {columns} FROM {what} ORDER BY sample_id", schema, (what,)  # noqa: S608
    if what == "groups":
        fields = [*(DUPLICATES.field(name) for name in _OF_GROUPS), pa.field("is_kept", pa.bool_())]
        of_dropped = [pa.field(name, DUPLICATES.field(name).type) for name in _OF_DROPPED]  # null for what is kept
        return _groups_sql(), pa.schema([*fields, *of_dropped]), ("kept", "dropped")
    names = [pa.field(name, pa.string()) for name in ("shard", "key")]
    if what == "counts":
        return _COUNTS_SQL, pa.schema([*STATISTICS, *names]), ("counts", "metadata")
    others = [pa.field(f"other_{field.name}", field.type) for field in names]
    return _PAIRS_SQL, pa.schema([*names, *others, *(EDGES.field(name) for name in _OF_PAIRS)]), ("edges", "metadata")


def _write(batches: Iterable[pa.Table], schema: pa.Schema, form: str, out: str) -> int:
    n_rows = 0
    with ExitStack() as opened:
        if form == "parquet":
            writer = opened.enter_context(FileWriter(out, schema.remove_metadata()))
            for batch in batches:
                writer.write(batch)
            return writer.n_rows
        file = opened.enter_context(AtomicFile(out))
        flat = pa.schema([pa.field(field.name, pa.string() if pa.types.is_nested(field.type) else field.type) for field in schema])
        lines = opened.enter_context(pyarrow.csv.CSVWriter(file, flat)) if form == "csv" else None
        for batch in batches:
            n_rows += batch.num_rows
            if lines is not None:
                lines.write(pa.table([_flat(column) for column in batch.columns], schema=flat))
            elif form == "jsonl":
                file.write("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in batch.to_pylist()).encode())
            else:
                keys = batch["key"]
                broken = pc.match_substring_regex(keys, "[\r\n]")
                if pc.any(broken).as_py():
                    raise ConfigError(f"{out}: a key holds a line break, which a list of lines can't; expected --format csv or parquet")
                file.write("".join(f"{key}\n" for key in keys.to_pylist()).encode())
    return n_rows


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column as CSV takes it: lists as JSON."""
    if not pa.types.is_nested(column.type):
        return column
    return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], pa.string())
