"""The samples of a finished run that are kept: its manifest, or what a keep list names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dedup.contracts import Engine, Table
from dedup.errors import InputError
from dedup.runs.directory import Run
from dedup.schemas import MANIFEST, with_carried
from dedup.storage.input.names import read_keep_list
from dedup.storage.input.row_files import is_row_file
from dedup.storage.input.samples import one_line
from dedup.storage.tables import ask, clear, files
from dedup.storage.urls import filesystem, open_binary

_NAMES_SHOWN = 3

FIRST_IMAGES = pc.field("sample_id") == pc.field("first_image_id")  # a row for each sample, however many images it has

_SAMPLES = """
(SELECT {columns}, FALSE AS is_excluded FROM manifest UNION ALL SELECT {columns}, FALSE AS is_excluded FROM duplicates
 UNION ALL SELECT {columns}, TRUE AS is_excluded FROM excluded) AS samples
"""

# several samples may have one url: a name means all of them, each with all its images
NAMED_SQL = """
SELECT {columns} FROM {samples}
JOIN (SELECT DISTINCT samples.first_image_id AS first_image_id
      FROM {samples} JOIN (SELECT DISTINCT {names} FROM named) AS named ON {same}) AS chosen
  ON samples.first_image_id = chosen.first_image_id
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

_COLUMNS = ("sample_id", "shard", "key", "n_bytes")
_OF_KEPT = "group_captions"  # which only kept samples have


@dataclass(frozen=True)
class KeepListResult:
    """How a keep list fits a run."""

    n_unknown: int = 0  # entries that name no sample of the run
    unknown: tuple[str, ...] = field(default_factory=tuple)  # the first of them
    n_excluded: int = 0  # samples that are named, but stay excluded


@dataclass(frozen=True)
class CleanedShard:
    """One shard to be written: a stretch of the kept samples, which are ordered by sample_id."""

    number: int  # its name is ``NNNNN.tar``, or ``NNNNN.parquet``
    first_id: int  # a sample_id, like last_id
    last_id: int
    n_samples: int
    image_bytes: int  # of its images, encoded
    # first_file, last_file: of the table's sorted files, those that hold its rows
    first_file: int
    last_file: int
    suffix: str = ".tar"  # or .parquet, for samples that are rows of files


def kept_table(run_dir: str) -> Table:
    """The manifest of a finished run, with its carried columns.

    Raises RunDirectoryError if there is no run, or its manifest is missing or out of date.
    """
    run = Run.open(run_dir)
    run.up_to_date("manifest")
    manifest = run.table("manifest")
    fs, _ = filesystem(manifest.path)
    with fs.open(files(manifest)[0], "rb") as file:
        columns = pq.read_schema(file).names
    return replace(manifest, schema=with_carried(MANIFEST, [name for name in columns if name not in MANIFEST.names]))


def named_table(run_dir: str, keep_list: str, folder: str, engine: Engine) -> tuple[Table, KeepListResult]:
    """Write the samples of a finished run that a keep list names into a folder, as a manifest, ordered by sample_id.

    Raises InputError if the list can't be read, names samples by a column the run did not carry, or names none of this run.
    """
    named, kept = read_keep_list(keep_list), kept_table(run_dir)
    missing = [name for name in named.column_names if name not in kept.schema.names]
    if missing:
        text = f"embed with input.carry=[{missing[0]}], or name them by key, url or sha256"
        raise InputError(f"{keep_list} names samples by {missing[0]}, which {run_dir} does not have; {text}")
    run, schema = Run(run_dir), pa.schema([field for field in kept.schema if field.name != _OF_KEPT])
    sources = {name: run.table(name) for name in ("manifest", "duplicates", "excluded")} | {"named": named}
    parts = {
        "columns": ", ".join(f"samples.{name} AS {name}" for name in schema.names),
        "names": ", ".join(named.column_names),
        "named": ", ".join(f"named.{name}" for name in named.column_names),
        "same": " AND ".join(f"samples.{name} = named.{name}" for name in named.column_names),
        "samples": _SAMPLES.format(columns=", ".join(schema.names)),
    }
    output = Table(folder, schema)
    clear(output)
    n = engine.sql_to(NAMED_SQL.format(**parts), sources, output)
    unknown = ask(engine, UNKNOWN_SQL.format(**parts), sources, named.schema)
    count = ask(engine, COUNT_SQL.format(**parts), sources, pa.schema([("n_excluded", pa.int64())]))
    last = named.column_names[-1]
    first = tuple(str(value) for value in unknown[last].slice(0, _NAMES_SHOWN).to_pylist())
    result = KeepListResult(unknown.num_rows, first, pc.sum(count["n_excluded"]).as_py() or 0)
    if not n:
        found = f"its first entries are {', '.join(first)}" if first else "all that it names are excluded"
        raise InputError(f"{keep_list} names no sample of {run_dir} to write; {found}; expected keys, sha256 or urls of its samples")
    return output, result


def kept_rows(kept: Table, shard: CleanedShard, *, by_image: bool = False) -> pa.Table:
    """All columns of the samples of one cleaned shard, by ascending sample_id; `by_image`: a row for each of their images."""
    fs, _ = filesystem(kept.path)
    names = files(kept)[shard.first_file : shard.last_file + 1]
    source = ds.dataset(names, schema=kept.schema, format="parquet", filesystem=fs)
    in_shard = (pc.field("sample_id") >= shard.first_id) & (pc.field("sample_id") <= shard.last_id)
    return source.to_table(filter=in_shard if by_image else in_shard & FIRST_IMAGES).sort_by("sample_id")


def read_file(path: str, n_bytes: int) -> bytes:
    """Read the image of a sample in a folder; InputError if it is gone, or has another size than when it was embedded."""
    try:
        with open_binary(path) as file:
            data = file.read(n_bytes + 1)
    except Exception as error:  # each file system has its own
        raise InputError(f"{path} can't be read ({one_line(error)}); was it moved since it was embedded?") from error
    if len(data) != n_bytes:
        found = f"{len(data)} bytes" if len(data) < n_bytes else f"more than {n_bytes} bytes"
        raise InputError(f"{path} has {found}, expected {n_bytes}; it has changed since it was embedded, run embed again")
    return data


def plan_shards(kept: Table, per_shard: int, *, by_image: bool = False) -> Iterator[CleanedShard]:
    """Cut the kept samples into shards, in their order.

    `kept`: columns of the manifest; files and rows ordered by sample_id, as every engine writes them.
    `per_shard`: samples in each but the last; 0 = a cleaned shard for each shard that keeps any.
    `by_image`: count images instead of samples.

    A shard ends early where its next sample would repeat a key: readers of webdatasets tell samples by their keys alone. Images of a
    folder get keys of their own, and rows of parquet or Arrow files need none, so their shards end only where one of another kind
    follows. The rows of one file of the table and of one shard are held in memory.
    """
    fs, _ = filesystem(kept.path)
    held: list[tuple[int, pa.Table]] = []  # place of the file, rows
    number = 0
    for place, name in enumerate(files(kept)):
        source = ds.dataset([name], schema=kept.schema, format="parquet", filesystem=fs)
        for batch in source.to_batches(columns=list(_COLUMNS), filter=None if by_image else FIRST_IMAGES):
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
        other_shards = np.flatnonzero(codes != codes[0])
        return _before_repetition(rows, int(other_shards[0]) if len(other_shards) else n_held) if len(other_shards) or is_end else 0
    n = min(per_shard, n_held)
    # inside one tar the keys differ
    return n if bool((codes[:n] == codes[0]).all()) else _before_repetition(rows, n)


def _before_repetition(rows: pa.Table, n: int) -> int:
    """How many of the first n rows come before one that repeats a key in a tar, or before shards of another kind: folder, rows, tar."""
    shards = rows["shard"].slice(0, n).combine_chunks().dictionary_encode()
    kinds = np.array([_kind(shard) for shard in shards.dictionary.to_pylist()])[shards.indices.to_numpy()]
    n = int(np.argmax(np.append(kinds != kinds[0], True)))
    if kinds[0] != "tar":
        return n
    codes = rows["key"].slice(0, n).combine_chunks().dictionary_encode().indices.to_numpy()
    # codes are numbered by first occurrence: one that is not larger than all before it has occurred
    repeated = np.flatnonzero(codes[1:] <= np.maximum.accumulate(codes)[:-1])
    return int(repeated[0]) + 1 if len(repeated) else n


def _kind(shard: str) -> str:
    return "folder" if shard.endswith("/") else "rows" if is_row_file(shard) else "tar"


def _take(held: list[tuple[int, pa.Table]], n: int, number: int) -> CleanedShard:
    """Take the next shard's rows off what is held."""
    n_left, taken = n, []
    while n_left:
        place, rows = held.pop(0)
        if rows.num_rows > n_left:
            held.insert(0, (place, rows.slice(n_left)))
            rows = rows.slice(0, n_left)
        taken.append((place, rows))
        n_left -= rows.num_rows
    ids = pa.concat_tables([rows for _, rows in taken])
    image_bytes = pc.sum(ids["n_bytes"]).as_py() or 0
    suffix = ".parquet" if is_row_file(ids["shard"][0].as_py()) else ".tar"
    first_id, last_id = ids["sample_id"][0].as_py(), ids["sample_id"][-1].as_py()
    return CleanedShard(number, first_id, last_id, n, image_bytes, taken[0][0], taken[-1][0], suffix)
