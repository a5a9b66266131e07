"""Writes what a run keeps in the forms that other tools read: lists of names, masks of rows, a folder for Hugging Face's `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, Table, reported
from dedup.engines.local import engine_or_own
from dedup.errors import ConfigError, InputError, RunDirectoryError
from dedup.release.file_lists import export_image_folder, export_open_clip
from dedup.release.plan import FIRST_IMAGES, CleanedShard, KeepListResult, kept_rows, kept_table, named_table, plan_shards, read_file
from dedup.release.row_masks import export_rows
from dedup.release.table_export import TABLE_FORMATS, WHAT, export_table
from dedup.runs.record import digest, read_record
from dedup.schemas import MANIFEST
from dedup.storage.arrays import ArrayWriter
from dedup.storage.atomic import AtomicFile, remove_half_written, write_bytes, write_json
from dedup.storage.input.encodings import file_at
from dedup.storage.input.samples import RawSample, SampleReader
from dedup.storage.input.shards import is_place, read_shard
from dedup.storage.tables import FileWriter, ask, dataset
from dedup.storage.urls import filesystem, join, read_json

FORMATS = ("keys", "urls", "rows", "datacomp", "hf", "open_clip", "imagefolder", *TABLE_FORMATS)
_SUFFIXES: Final = {
    "keys": (".txt", ".csv", ".parquet"),
    "datacomp": (".npy",),
    "imagefolder": ("metadata.jsonl",),
}  # of the file, by format; others may have any
_KEYS: Final = pa.schema([MANIFEST.field(name) for name in ("sample_id", "shard", "key")])
_UID_TYPE: Final = np.dtype("<u8,<u8")
UIDS_SQL = "SELECT DISTINCT lower(uid) AS uid FROM kept WHERE uid IS NOT NULL ORDER BY uid"
REPEATED_SQL = "SELECT key, count(*) AS n FROM kept WHERE sample_id = first_image_id GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1"
_BEGUN = "_export.json"
FILE_BYTES: Final = 500_000_000  # of images in a file: a size that suits the Hub
_GROUP_ROWS: Final = 10_000
_IMAGE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_KINDS: Final = {pa.string(): "string", pa.int32(): "int32", pa.int64(): "int64", pa.float32(): "float32", pa.float64(): "float64"}
_NOT_COPIED: Final = ("byte_offset", "n_bytes", "file", "row")

# the folder's README, which tells the Hub where the files are
_CARD: Final = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
{n_samples} samples, de-duplicated with webdedup: a row for each image that was kept; `duplication_count` tells how many samples of the
original data show it.
"""


@dataclass(frozen=True)
class ExportSummary:
    """What was exported."""

    form: str
    path: str
    n_rows: int  # keys, urls, uids, rows, or samples
    n_left_out: int = 0  # kept samples without a url, uid or caption, or with one that no line can hold
    keep_list: KeepListResult | None = None
    n_files: int = 0  # of boolean arrays
    what: str = "kept"


@dataclass(frozen=True)
class HfTask:
    """One parquet file to write."""

    kept: Table
    file: CleanedShard
    n_files: int
    out: str
    with_images: bool
    group_bytes: int = 32 * 1024 * 1024  # of images in a row group, which is held in memory


def export(
    run_dir: str,
    form: str,
    out: str,
    *,
    what: str = "kept",
    keep_list: str = "",
    with_images: bool = True,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> ExportSummary:
    """Write a list of the samples that a run keeps, in another tool's format; or what it found, as one file.

    Parameters
    ----------
    run_dir : str
        A finished run.
    form : {"keys", "urls", "rows", "datacomp", "hf", "open_clip", "imagefolder", "csv", "jsonl", "parquet", "txt"}
        Keys, one per line, or `shard, key` in a ``.csv`` or ``.parquet``; urls, one per line; a boolean array for each file of
        embeddings, parquet or Arrow, True for each row that is kept; DataComp's sorted ``.npy`` of uids; a folder of parquet files for
        Hugging Face's `datasets`. Of folders of images: the CSV of paths and captions that open_clip trains on; the ``metadata.jsonl`` by
        which `datasets` reads the kept files of a folder alone. Or a table of `what`, as one file.
    out : str
        File, or for rows and hf a folder; a path or any fsspec URL.
    what : {"kept", "dropped", "groups", "counts", "pairs"}
        For csv, jsonl, parquet and txt: the samples that are kept, those that are dropped with their keepers, both of every group side by
        side, the duplication counts, or the pairs that stand.
    keep_list : str
        Instead of the manifest, for the first five formats: see `dedup.storage.input.names.read_keep_list`.
    with_images : bool
        For hf: include the images' bytes.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    RunDirectoryError
        If the run is not finished.
    InputError
        If samples can't be named in that form, or an image can no longer be read.
    """
    if form not in FORMATS or what not in WHAT:
        expected = ("format", form, FORMATS) if form not in FORMATS else ("table", what, WHAT)
        raise ConfigError(f"the {expected[0]} {expected[1]!r} is unknown; expected one of {', '.join(expected[2])}")
    if form in TABLE_FORMATS:
        if keep_list:
            raise ConfigError(
                f"--keep-list with --format {form}, which writes what the run found; leave it out, or use keys, urls, datacomp or hf"
            )
        with engine_or_own(engine) as engine:
            return ExportSummary(form, out, export_table(run_dir, what, form, out, engine), what=what)
    if what != "kept":
        raise ConfigError(f"--what {what} with --format {form}; expected one of {', '.join(TABLE_FORMATS)}")
    if not out.endswith(_SUFFIXES.get(form, "")):
        raise ConfigError(f"--out {out}: expected a name that ends in {' or '.join(', '.join(_SUFFIXES[form]).rsplit(', ', 1))}")
    reporter = reporter or SilentReporter()
    kept, keep_list_result = kept_table(run_dir), None  # before anything is written
    with engine_or_own(engine) as engine, engine.scratch() as scratch:
        if keep_list:
            kept, keep_list_result = named_table(run_dir, keep_list, join(scratch, "kept"), engine)
        n_left_out = n_files = 0
        if form == "hf":
            n_rows = _export_hf(run_dir, kept, out, with_images, engine, reporter)
        elif form == "rows":
            n_files, n_rows = export_rows(run_dir, kept, out)
        elif form == "datacomp":
            n_rows, n_left_out = export_datacomp(kept, out, engine)
        elif form == "open_clip":
            n_rows, n_left_out = export_open_clip(kept, out)
        elif form == "imagefolder":
            n_rows = export_image_folder(kept, out)
        elif form == "keys":
            n_rows = export_keys(kept, out, engine)
        else:
            n_rows, n_left_out = _write_lines(kept, "url", out, is_strict=False)
        return ExportSummary(form, out, n_rows, n_left_out, keep_list_result, n_files)


def export_keys(kept: Table, out: str, engine: Engine) -> int:
    """Write the keys of kept samples, in their order: as text, or with their shards as ``.csv`` or ``.parquet``; returns their number.

    Raises InputError if, for text, a key occurs in several shards or holds a line break.
    """
    if out.endswith(".parquet"):
        with FileWriter(out, _KEYS) as writer:
            for batch in dataset(kept).to_batches(columns=_KEYS.names, filter=FIRST_IMAGES):
                writer.write(batch)
        return writer.n_rows
    if not out.endswith(".csv"):
        repeated = ask(engine, REPEATED_SQL, {"kept": kept}, pa.schema([("key", pa.string()), ("n", pa.int64())]))
        if repeated.num_rows:
            key, n = repeated.to_pylist()[0].values()
            apart = "a list of keys would not tell them apart; name a .csv or .parquet"
            raise InputError(f"{out}: the key {key!r} occurs in {n} shards, {apart}")
        return _write_lines(kept, "key", out, is_strict=True)[0]
    n_rows, schema = 0, pa.schema([pa.field("shard", pa.string()), pa.field("key", pa.string())])
    with AtomicFile(out) as file, pyarrow.csv.CSVWriter(file, schema) as lines:
        for batch in dataset(kept).to_batches(columns=schema.names, filter=FIRST_IMAGES):
            lines.write(batch.cast(schema))
            n_rows += batch.num_rows
    return n_rows


def export_datacomp(kept: Table, out: str, engine: Engine) -> tuple[int, int]:
    """Write the uids of kept samples as DataComp's resharder takes them: a sorted ``.npy`` of dtype ``u8,u8``, without repetitions.

    Returns the number of uids, and of samples without one.
    """
    if "uid" not in kept.schema.names:
        raise InputError(f"{kept.path} has no column uid; embed with input.carry=[uid], which DataComp's json and parquet files have")
    with ArrayWriter(out, (), _UID_TYPE) as writer:
        # hex digits sort as their numbers do
        for batch in engine.sql(UIDS_SQL, {"kept": kept}, pa.schema([("uid", pa.string())])):
            uids = batch["uid"].combine_chunks()
            wrong = uids.filter(pc.invert(pc.match_substring_regex(uids, "^[0-9a-f]{32}$")))
            if len(wrong):
                raise InputError(f"{kept.path}: the uid {wrong[0].as_py()!r} is no DataComp uid; expected 32 hex digits")
            halves = np.frombuffer(bytes.fromhex("".join(uids.to_pylist())), dtype=">u8")
            writer.write(halves.astype("<u8").view(_UID_TYPE))
    n_samples = sum(batch.num_rows - batch["uid"].null_count for batch in dataset(kept).to_batches(columns=["uid"]))
    return writer.n_rows, dataset(kept).count_rows() - n_samples


def _write_lines(kept: Table, column: str, out: str, *, is_strict: bool) -> tuple[int, int]:
    """Write a column as text, a line for each value; one with a line break is left out, or an error if `is_strict`.

    Returns the number of lines, and of samples left out.
    """
    n_rows, n_all = 0, 0
    with AtomicFile(out) as file:
        for batch in dataset(kept).to_batches(columns=[column], filter=FIRST_IMAGES):
            n_all += batch.num_rows
            values = batch[column].drop_null()
            is_line = pc.invert(pc.match_substring_regex(values, "[\r\n]"))
            if is_strict and not pc.all(is_line).as_py():
                raise InputError(f"{out}: a {column} holds a line break, which a list of lines can't; name a .csv or .parquet")
            lines = values.filter(is_line).to_pylist()
            file.write("".join(f"{line}\n" for line in lines).encode())
            n_rows += len(lines)
    return n_rows, n_all - n_rows


def _export_hf(run_dir: str, kept: Table, out: str, with_images: bool, engine: Engine, reporter: Reporter) -> int:
    """Write the files of a folder for `datasets`, in parallel; those of an earlier call are kept. Returns the number of samples."""
    n_rows = n_bytes = 0
    for batch in dataset(kept).to_batches(columns=["n_bytes"]):
        n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + (pc.sum(batch["n_bytes"]).as_py() or 0)
    per_file = max(1, min(1_000_000, int(FILE_BYTES / max(1, n_bytes / max(1, n_rows))) if with_images else 1_000_000))
    plan = list(plan_shards(kept, per_file, by_image=True))
    tasks = [HfTask(kept, part, len(plan), out, with_images) for part in plan]
    record = read_record(run_dir, "manifest")
    identity = digest(["" if record is None else record.digest, with_images, [asdict(part) for part in plan]])
    begun = read_json(join(out, _BEGUN))
    fs, path = filesystem(join(out, "data"))
    if (begun or {}).get("identity") != identity and fs.exists(path) and fs.ls(path, detail=False):
        raise RunDirectoryError(f"{out}/data holds files of another export; name another folder, or empty this one")
    remove_half_written(join(out, "data"))  # left behind by a killed attempt
    write_json(join(out, _BEGUN), {"run": run_dir, "identity": identity})
    written = engine.map_partitions(export_file, tasks)
    n_written = sum(n for _, n in reported(written, [part.n_samples for part in plan], reporter, "export", "samples"))
    write_bytes(join(out, "README.md"), _CARD.format(n_samples=f"{n_written:,}").encode())
    return n_written


def export_file(task: HfTask) -> int:
    """Write one file, unless it exists; returns its number of rows."""
    target = join(task.out, "data", f"train-{task.file.number:05d}-of-{task.n_files:05d}.parquet")
    fs, path = filesystem(target)
    if fs.exists(path):
        return task.file.n_samples
    places = kept_rows(task.kept, task.file, by_image=True)
    rows = places.select([name for name in places.column_names if name not in _NOT_COPIED or not task.with_images])
    schema = _schema(rows.schema, task.with_images)
    with AtomicFile(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in _with_images(places, rows, task.group_bytes) if task.with_images else [rows]:
            writer.write_table(part.cast(schema), row_group_size=_GROUP_ROWS)
    return int(rows.num_rows)


def _schema(rows: pa.Schema, with_images: bool) -> pa.Schema:
    """The file's schema, with the metadata that tells `datasets` which column holds images."""
    fields = [pa.field("image", _IMAGE)] if with_images else []
    fields += [pa.field(field.name, field.type) for field in rows]
    features: JsonDict = {field.name: {"dtype": _KINDS[field.type], "_type": "Value"} for field in fields if field.type in _KINDS}
    if with_images:
        features["image"] = {"_type": "Image"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _with_images(places: pa.Table, rows: pa.Table, group_bytes: int) -> Iterator[pa.Table]:
    """The rows in parts, each with its images' bytes."""
    held: list[dict[str, Any]] = []
    n_bytes, start = 0, 0
    for image in _images(places):
        held.append(image)
        n_bytes += len(image["bytes"])
        if n_bytes >= group_bytes or len(held) == _GROUP_ROWS:
            yield rows.slice(start, len(held)).add_column(0, "image", pa.array(held, _IMAGE))
            start, held, n_bytes = start + len(held), [], 0
    if held:
        yield rows.slice(start).add_column(0, "image", pa.array(held, _IMAGE))


def _images(places: pa.Table) -> Iterator[dict[str, Any]]:
    """The images of samples, in the order of their shards; each shard is read once, as a stream."""
    shard_read, reader = "", SampleReader(lambda reader: iter(()))
    samples: Iterator[RawSample] = iter(())
    columns = (places[name].to_pylist() for name in ("shard", "key", "n_bytes", "member"))
    for shard, key, n_bytes, member in zip(*columns, strict=True):
        if shard.endswith("/"):
            yield {"bytes": read_file(file_at(shard, key), n_bytes), "path": key}
            continue
        if shard != shard_read:
            reader = read_shard(shard)
            shard_read, samples = shard, iter(reader)
        sample = next((sample for sample in samples if is_place(sample, key, n_bytes, member)), None)
        if sample is None:
            why = reader.error or "it has changed since it was embedded"
            raise InputError(f"{shard} gave no image of {n_bytes} bytes under the key {key!r} ({why}); restore it, or run embed again")
        yield {"bytes": sample.image, "path": sample.image_name}
