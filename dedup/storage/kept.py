"""The samples of a finished run that stay: its manifest, or what a keep list names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dedup.contracts import Engine, Table
from dedup.errors import InputError, RunDirectoryError
from dedup.schemas import MANIFEST
from dedup.storage.layout import RunLayout
from dedup.storage.names import read_keep_list
from dedup.storage.tables import ask, clear, files
from dedup.storage.urls import filesystem

_NAMES_SHOWN = 3
_SAMPLES = """
(SELECT {columns}, FALSE AS is_excluded FROM manifest UNION ALL SELECT {columns}, FALSE AS is_excluded FROM duplicates
 UNION ALL SELECT {columns}, TRUE AS is_excluded FROM excluded) AS samples
"""
# several samples may have one url: a name stands for all of them
NAMED_SQL = """
SELECT {columns} FROM {samples} JOIN (SELECT DISTINCT {names} FROM named) AS named ON {same}
WHERE NOT samples.is_excluded
ORDER BY samples.sample_id
"""
COUNT_SQL = """
SELECT CAST(sum(CASE WHEN is_excluded THEN 1 ELSE 0 END) AS BIGINT) AS n_excluded
FROM {samples} JOIN (SELECT DISTINCT {names} FROM named) AS named ON {same}
"""
UNKNOWN_SQL = """
SELECT {named} FROM (SELECT DISTINCT {names} FROM named) AS named LEFT JOIN {samples} ON {same}
WHERE samples.sample_id IS NULL
ORDER BY {named}
"""


@dataclass(frozen=True)
class KeepListResult:
    """How a keep list fits a run.

    Parameters
    ----------
    n_unknown : int
        Entries that name no sample of the run.
    unknown : tuple of str
        The first of them.
    n_excluded : int
        Samples that are named but excluded: they do not come back.
    """

    n_unknown: int = 0
    unknown: tuple[str, ...] = field(default_factory=tuple)
    n_excluded: int = 0


def kept_table(run_dir: str) -> Table:
    """The manifest of a finished run, with its carried columns.

    Raises
    ------
    RunDirectoryError
        If there is none.
    """
    table = RunLayout(run_dir).table("manifest")
    return replace(table, schema=RunLayout(run_dir, _carried(table)).table("manifest").schema)


def _carried(manifest: Table) -> list[str]:
    """Names of the carried columns, which follow those that every manifest has."""
    fs, _ = filesystem(manifest.path)
    try:
        with fs.open(files(manifest)[0], "rb") as file:
            found = pq.read_schema(file).names
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{manifest.path} holds no manifest; run all stages first (dedup status shows what is missing)") from error
    return [name for name in found if name not in MANIFEST.names]


def named_table(run_dir: str, keep_list: str, folder: str, engine: Engine) -> tuple[Table, KeepListResult]:
    """Write the samples that a keep list names, in the form of a manifest.

    Parameters
    ----------
    run_dir : str
        A finished run.
    keep_list : str
        See `read_keep_list`.
    folder : str
        Where the table goes.
    engine : Engine

    Returns
    -------
    Table
        Ordered by sample_id.
    KeepListResult

    Raises
    ------
    InputError
        If the list can't be read, names samples by a column the run has not carried, or names none of this run.
    """
    named, kept = read_keep_list(keep_list), kept_table(run_dir)
    missing = [name for name in named.column_names if name not in kept.schema.names]
    if missing:
        raise InputError(
            f"{keep_list} names samples by {missing[0]}, which {run_dir} does not have; embed with input.carry=[{missing[0]}], "
            "or name them by key, url or sha256"
        )
    layout = RunLayout(run_dir, [name for name in kept.schema.names if name not in MANIFEST.names])
    sources = {name: layout.table(name) for name in ("manifest", "duplicates", "excluded")} | {"named": named}
    parts = {
        "columns": ", ".join(f"samples.{name} AS {name}" for name in kept.schema.names),
        "names": ", ".join(named.column_names),
        "named": ", ".join(f"named.{name}" for name in named.column_names),
        "same": " AND ".join(f"samples.{name} = named.{name}" for name in named.column_names),
        "samples": _SAMPLES.format(columns=", ".join(kept.schema.names)),
    }
    output = Table(folder, kept.schema)
    clear(output)
    n = engine.sql_to(NAMED_SQL.format(**parts), sources, output)
    unknown = ask(engine, UNKNOWN_SQL.format(**parts), sources, named.schema)
    count = ask(engine, COUNT_SQL.format(**parts), sources, pa.schema([("n_excluded", pa.int64())]))
    last = named.column_names[-1]
    first = tuple(str(value) for value in unknown[last].slice(0, _NAMES_SHOWN).to_pylist())
    result = KeepListResult(unknown.num_rows, first, pc.sum(count["n_excluded"]).as_py() or 0)
    if not n:
        raise InputError(f"{keep_list} names no sample of {run_dir} that may stay; its first entries are {', '.join(first) or 'excluded'}")
    return output, result
