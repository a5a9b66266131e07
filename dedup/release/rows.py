"""A cleaned shard of rows: those kept of parquet or Arrow files, with all their columns, as parquet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dedup.errors import InputError
from dedup.storage.input.row_files import RowFile
from dedup.storage.input.row_images import images_in
from dedup.storage.input.samples import one_line

_GROUP_BYTES: Final = 32 * 1024 * 1024  # of a row group, which is held in memory


def copy_rows(samples: pa.Table, file: IO[bytes]) -> None:
    """Write the rows of samples, in their order, under the schema of the first one's file.

    `samples`: columns of the manifest, a row for each sample; by ascending sample_id, and so by ascending row of each file.
    Raises InputError if a file is gone or has changed, or files of one shard have different columns.
    """
    if samples["byte_offset"].null_count:
        raise InputError(f"{samples['shard'][0]} holds no images: it was read as embeddings; expected a run over the images themselves")
    columns = (samples[name].to_pylist() for name in ("shard", "byte_offset", "member", "n_bytes"))
    writer: pq.ParquetWriter | None = None
    held: list[pa.Table] = []
    try:
        for shard, places in groupby(zip(*columns, strict=True), key=lambda sample: sample[0]):
            for part in _rows_of(shard, {row: (member, n_bytes) for _, row, member, n_bytes in places}):
                writer = writer or pq.ParquetWriter(file, part.schema, compression="zstd")
                held.append(_like(part, writer.schema, shard))
                if sum(table.nbytes for table in held) >= _GROUP_BYTES:
                    _write(writer, held)
                    held = []
        if writer is not None and held:
            _write(writer, held)
    finally:
        if writer is not None:
            writer.close()


def _write(writer: pq.ParquetWriter, held: list[pa.Table]) -> None:
    rows = pa.concat_tables(held)
    writer.write_table(rows, row_group_size=rows.num_rows)


def _rows_of(shard: str, wanted: dict[int, tuple[str, int]]) -> Iterator[pa.Table]:
    """The wanted rows of a file, a stretch at a time, each checked to hold its image still."""
    n_found = 0
    try:
        with RowFile(shard) as file:
            for first, table in file.batches(file.schema.names, sorted(wanted)):
                rows = [row for row in range(first, first + table.num_rows) if row in wanted]
                chosen = table.take([row - first for row in rows])
                for row, sizes in zip(rows, images_in(chosen, [wanted[row][0] for row in rows]), strict=True):
                    if wanted[row][1] not in sizes:
                        raise InputError(f"{shard}: row {row} has no image of {wanted[row][1]} bytes any more; run embed again")
                n_found += len(rows)
                yield chosen.replace_schema_metadata(file.schema.metadata)
    except InputError:
        raise
    except Exception as error:  # of pyarrow or the file system
        raise InputError(f"{shard} can't be read ({one_line(error)}); restore it, or run embed again") from error
    if n_found < len(wanted):
        raise InputError(f"{shard} gave {n_found} of {len(wanted)} rows; it has changed, run embed again")


def _like(part: pa.Table, schema: pa.Schema, shard: str) -> pa.Table:
    try:
        return part.cast(schema)
    except (ValueError, pa.ArrowNotImplementedError) as error:
        text = f"{shard} has other columns than the files before it ({one_line(error)})"
        raise InputError(f"{text}; give --per-shard 0, a cleaned file for each") from error
