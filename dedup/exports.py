"""What a run keeps in the forms other tools read, from paths to results."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from dedup.contracts import Engine, Progress, Reporter, Table
from dedup.engines.local import engine_or_own
from dedup.errors import ConfigError, RunDirectoryError
from dedup.stages.context import SilentReporter
from dedup.storage.atomic import write_json
from dedup.storage.export import Exported, export_datacomp, export_keys, export_urls
from dedup.storage.hfexport import FILE_BYTES, HfTask, export_file, write_card
from dedup.storage.kept import KeepListResult, kept_table, named_table
from dedup.storage.provenance import digest, read_record
from dedup.storage.rewriteplan import plan_shards
from dedup.storage.tables import dataset
from dedup.storage.urls import filesystem, join, read_json

_BEGUN = "_export.json"
FORMATS = ("keys", "urls", "datacomp", "hf")


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Parameters
    ----------
    form, path : str
    n_rows : int
        Keys, urls, uids, or samples.
    n_left_out : int
        Kept samples that could not be named in that form.
    keep_list : KeepListResult or None
    """

    form: str
    path: str
    n_rows: int
    n_left_out: int = 0
    keep_list: KeepListResult | None = None


def export(
    run_dir: str,
    form: str,
    out: str,
    *,
    keep_list: str = "",
    with_images: bool = True,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> ExportSummary:
    """Write what a run keeps in the form another tool reads.

    Parameters
    ----------
    run_dir : str
        A finished run.
    form : {"keys", "urls", "datacomp", "hf"}
        A key a line, or `shard, key` in a ``.csv`` or ``.parquet``; a url a line; DataComp's sorted ``.npy`` of uids; a folder of parquet
        files that Hugging Face's `datasets` reads.
    out : str
        File, or for hf a folder; a path or any fsspec URL.
    keep_list : str
        Instead of the manifest: see `dedup.storage.names.read_keep_list`.
    with_images : bool
        Whether the images' bytes go into hf's files.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    RunDirectoryError
        If the run is not finished.
    InputError
        If samples can't be named in that form, or an image can't be read any more.
    """
    if form not in FORMATS:
        raise ConfigError(f"the format {form!r} is unknown; expected one of {', '.join(FORMATS)}")
    reporter = reporter or SilentReporter()
    with engine_or_own(engine) as engine, engine.scratch() as scratch:
        kept, found = kept_table(run_dir), None
        if keep_list:
            kept, found = named_table(run_dir, keep_list, join(scratch, "kept"), engine)
        if form == "hf":
            done = _export_hf(run_dir, kept, out, with_images, engine, reporter)
        elif form == "datacomp":
            done = export_datacomp(kept, out, engine)
        else:
            done = export_keys(kept, out, engine) if form == "keys" else export_urls(kept, out)
        return ExportSummary(form, done.path, done.n_rows, done.n_left_out, found)


def _export_hf(run_dir: str, kept: Table, out: str, with_images: bool, engine: Engine, reporter: Reporter) -> Exported:
    """Write the files of a folder for `datasets`, in parallel; those that are there already stay."""
    n_rows = n_bytes = 0
    for batch in dataset(kept).to_batches(columns=["n_bytes"]):
        n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + (pc.sum(batch["n_bytes"]).as_py() or 0)
    per_file = max(1, min(1_000_000, int(FILE_BYTES / max(1, n_bytes / max(1, n_rows))) if with_images else 1_000_000))
    plan = list(plan_shards(kept, per_file))
    tasks = [HfTask(kept, part, len(plan), out, with_images) for part in plan]
    record = read_record(run_dir, "manifest")
    identity = digest(["" if record is None else record.digest, with_images, [part.as_json() for part in plan]])
    begun = read_json(join(out, _BEGUN))
    fs, path = filesystem(join(out, "data"))
    if (begun or {}).get("identity") != identity and fs.exists(path) and fs.ls(path, detail=False):
        raise RunDirectoryError(f"{out}/data holds files of another export; name another folder, or empty this one")
    write_json(join(out, _BEGUN), {"run": run_dir, "identity": identity})
    done = 0
    reporter.progress(Progress("export", 0, n_rows, "samples"))
    for _, n in engine.map_partitions(export_file, tasks):
        done += n
        reporter.progress(Progress("export", done, n_rows, "samples"))
    write_card(out, done)
    return Exported(out, done)
