"""Seconds, size and memory of the report of a large run, with synthetic tables and real JPEGs.

python benchmarks/report.py --n 1000000 --groups 100000
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import describe_machine
from memory import PeakMemory, anonymous_bytes
from PIL import Image
from vectors import power_law_rows

from dedup.config import Config, InputConfig, OutputConfig
from dedup.config.load import resolved, to_dict
from dedup.engines.local import LocalEngine
from dedup.pipeline.stages import STAGES
from dedup.runs.directory import CONFIG_FILE, Run
from dedup.runs.record import StageRecord, write_record
from dedup.runs.vectors import embedding_path
from dedup.schemas import conform
from dedup.stages import statistics
from dedup.stages.stage import StageContext
from dedup.storage.arrays import ArrayWriter
from dedup.storage.atomic import write_json
from dedup.storage.tables import FileWriter, write_table
from dedup.storage.urls import join

PER_PARTITION = 10_000
PER_TAR = 40  # pictures that the samples of a partition share
REASONS = ("different", "moved", "unaligned", "overlap", "distorted")


def write_tar(path: Path, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Write a tar of synthetic photos, some 50 KB each; returns where each is."""
    places = []
    with tarfile.open(path, "w") as tar:
        for number in range(PER_TAR):
            small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            pixels = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC)).astype(np.int16) + rng.integers(-14, 15, (480, 640, 1))
            buffer = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(buffer.getvalue())
            places.append((tar.offset + 512, info.size))
            tar.addfile(info, io.BytesIO(buffer.getvalue()))
    return places


def group_sizes(rng: np.random.Generator, n: int, n_groups: int) -> np.ndarray:
    """Sizes of groups by a power law, one of a tenth of all samples; together at most six tenths."""
    sizes = np.minimum(1 + rng.zipf(2.2, n_groups), 2_000)
    sizes[0] = n // 10
    while sizes.sum() > 0.6 * n:
        sizes[1:] = np.maximum(2, sizes[1:] - 1)
    return sizes


def filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of a schema, with nulls for columns that may hold them and are not there."""
    for column in (column for column in schema if column.nullable and column.name not in table.column_names):
        table = table.append_column(column, pa.nulls(len(table), column.type))
    return conform(table, schema)


def write_run(config: Config, folder: Path, n: int, n_groups: int, dim: int) -> None:
    """Every table that a report reads, with the records of all stages."""
    rng, run = np.random.default_rng(0), Run(config.output.run_dir)
    partition = np.arange(n) // PER_PARTITION
    ids = (partition << 32) | (np.arange(n) % PER_PARTITION)
    sizes = group_sizes(rng, n, n_groups)
    order = rng.permutation(n)[: sizes.sum()]
    group = np.repeat(np.arange(n_groups), sizes)
    by_group = np.lexsort((order, group))
    order = order[by_group]  # the smallest of each group first
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    keeper = order[starts][group]
    is_near = rng.random(len(order)) < 0.7
    similarity = np.where(is_near, 0.7 + 0.3 * np.sqrt(rng.random(len(order))), 1.0).astype(np.float32)
    distance = np.where(is_near, 0.15 * rng.random(len(order)) ** 2, 0.0).astype(np.float32)
    similarity[starts], distance[starts] = 1.0, 0.0
    is_copy = np.ones(len(order), dtype=bool)
    is_copy[starts] = False

    (folder / "shards").mkdir()
    sha = np.array([hashlib.sha256(bytes([number % 256, number // 256 % 256, number // 65_536])).hexdigest() for number in range(n)])
    same = is_copy & ~is_near
    sha[order[same]] = sha[keeper[same]]
    samples = []
    for number in range(partition[-1] + 1):
        rows = np.flatnonzero(partition == number)
        shard = str(folder / "shards" / f"{number:05d}.tar")
        places = np.array(write_tar(Path(shard), rng))[np.arange(len(rows)) % PER_TAR]
        table = pa.table(
            {
                "sample_id": ids[rows], "shard": [shard] * len(rows), "key": [f"{row:09d}" for row in rows],
                "member": ["jpg"] * len(rows), "n_images": [1] * len(rows), "first_image_id": ids[rows],
                "url": [f"https://images{row % 97}.example.org/{sha[row][:16]}.jpg" for row in rows],
                "caption": [f"caption number {row % 200_003} of a picture with some words to it" for row in rows],
                "captions": pa.nulls(len(rows), pa.list_(pa.string())),
                "sha256": sha[rows], "width": [640] * len(rows), "height": [480] * len(rows), "n_frames": [1] * len(rows), "n_bytes": places[:, 1],
                "byte_offset": places[:, 0], "quality": np.full(len(rows), 50.0), "caption_similarity": pa.nulls(len(rows), pa.float32()),
            }
        )  # fmt: skip
        table = filled(table, run.table("metadata").schema)
        with FileWriter(join(run.table("metadata").path, f"metadata_{number:05d}.parquet"), table.schema) as file:
            file.write(table)
        samples.append(table)
        vectors = ArrayWriter(embedding_path(f"{config.output.run_dir}/embeddings", number), (dim,), np.float16)
        vectors.write(power_law_rows(rng, len(rows), dim))
        vectors.close()
    metadata = pa.concat_tables(samples).combine_chunks()

    def write(name: str, columns: dict[str, object]) -> int:
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        return write_table(run.table(name), [filled(table, run.table(name).schema)])

    component, count = ids.copy(), np.ones(n, dtype=np.int64)
    component[order], count[order] = ids[keeper], sizes[group]
    is_dropped = np.zeros(n, dtype=bool)
    is_dropped[order[is_copy]] = True
    kept = metadata.filter(pa.array(~is_dropped))
    kept = kept.append_column("component_id", pa.array(component[~is_dropped])).append_column(
        "duplication_count", pa.array(count[~is_dropped])
    )
    dropped, by_id = metadata.take(pa.array(np.sort(order[is_copy]))), np.argsort(order[is_copy])
    of = np.flatnonzero(is_copy)[by_id]
    for name, values in {
        "component_id": ids[keeper[of]], "duplication_count": sizes[group[of]], "keeper_id": ids[keeper[of]],
        "keeper_shard": ["00000.tar"] * len(of), "keeper_key": ["0"] * len(of), "similarity_to_keeper": similarity[of],
        "kind": np.where(is_near[of], "near", "exact"), "distance_to_keeper": distance[of],
    }.items():  # fmt: skip
        dropped = dropped.append_column(name, pa.array(values))
    raw = ids[keeper].copy()
    merged = group % 50 == 1  # one in fifty groups was cut from the one before
    raw[merged] = ids[order[starts[group[merged] - 1]]]
    rows = {
        "embed": {"metadata": n, "rejected": 50, "partitions": int(partition[-1]) + 1},
        "manifest": {"manifest": write("manifest", kept), "duplicates": write("duplicates", dropped)}
        | {"excluded": write("excluded", {name: [] for name in run.table("excluded").schema.names})},
        "exclude": {"exclusions": write("exclusions", {name: [] for name in run.table("exclusions").schema.names})},
    }
    write("groups", {"sample_id": ids[order], "component_id": ids[keeper], "raw_component_id": raw, "anchor_id": ids[keeper],
                     "similarity_to_anchor": similarity, "distance_to_anchor": distance})  # fmt: skip
    write("partitions", {"partition": np.arange(partition[-1] + 1), "shard": [f"{number:05d}.tar" for number in range(partition[-1] + 1)],
                         "status": ["ok"] * (partition[-1] + 1), "error": pa.nulls(partition[-1] + 1, pa.string()),
                         "n_samples": np.bincount(partition), "n_rejected": np.zeros(partition[-1] + 1, int),
                         "n_late": np.zeros(partition[-1] + 1, int)})  # fmt: skip
    home = run.table("rejected").path
    with FileWriter(join(home, "rejected_00000.parquet"), run.table("rejected").schema) as file:
        file.write(
            pa.table(
                {
                    "shard": ["00000.tar"] * 50,
                    "key": [str(k) for k in range(50)],
                    "member": ["jpg"] * 50,
                    "reason": ["empty_image"] * 50,
                    "detail": [""] * 50,
                }
            )
        )
    n_copies = int(is_copy.sum())
    ends = np.sort(np.column_stack([ids[keeper], ids[order]])[is_copy], axis=1)
    nulls = pa.nulls(n_copies, run.table("edges").schema.field("transform").type)
    pair = {"variant": ["none"] * n_copies, "source": ["whole"] * n_copies, "found_by": ["dct"] * n_copies, "transform": nulls}
    kind = np.where(is_near, "near", "exact")[is_copy]
    no_text = pa.nulls(n_copies, pa.string())
    pair |= {
        "relation": ["copy"] * n_copies,
        "inside": no_text,
        "agreeing_share": np.ones(n_copies, np.float32),
        "drawn": np.zeros(n_copies, np.float32),
        "traces": nulls,
    }
    rows["confirm"] = {
        "edges": write("edges", pair | {"src": ends[:, 0], "dst": ends[:, 1], "similarity": similarity[is_copy], "kind": kind,
                                        "confirmed": [True] * n_copies, "distance": distance[is_copy]})
    }  # fmt: skip
    apart = np.sort(rng.choice(ids, (n // 5, 2)), axis=1)
    apart = apart[apart[:, 0] < apart[:, 1]]
    m = len(apart)
    rows["confirm"]["refused"] = write(
        "refused",
        {"src": apart[:, 0], "dst": apart[:, 1], "similarity": 0.7 + 0.25 * rng.random(m) ** 2, "kind": ["near"] * m, "variant": ["none"] * m,
         "source": ["whole"] * m, "found_by": ["dct"] * m, "reason": np.array(REASONS)[rng.integers(0, 5, m)], "distance": 0.15 + 0.8 * rng.random(m),
         "moved": rng.random(m), "transform": pa.nulls(m, nulls.type), "stage": ["confirm"] * m, "relation": ["different"] * m,
         "inside": pa.nulls(m, pa.string()), "agreeing_share": pa.nulls(m, pa.float32()), "drawn": pa.nulls(m, pa.float32()), "mask": pa.nulls(m, pa.binary())},
    )  # fmt: skip
    is_exact = is_copy & ~is_near
    write("exact", {"sample_id": ids[order][is_exact], "representative_id": ids[keeper][is_exact]})
    for name in ("edits", "edit_counts", "templates", "template_counts", "scenes", "scene_counts"):
        write(name, run.table(name).schema.empty_table())
    found = statistics.count_duplicates(StageContext(config, LocalEngine()))
    rows["statistics"] = found.rows
    near = int(is_near[is_copy].sum())
    summaries = {
        "embed": {"n_shards": int(partition[-1]) + 1, "rejected": {"empty_image": 50}},
        "pairs": {"recall": None}, "confirm": {"n_judged": n_copies}, "groups": {"n_groups": n_groups},
        "manifest": {"n_exact": n_copies - near, "n_near": near}, "statistics": found.summary,
    }  # fmt: skip
    records: dict[str, StageRecord] = {}
    for stage in STAGES:
        inputs = {name: records[name].digest for name in stage.reads}
        encoder = {"model": "dct-384-v1"} if stage.name == "embed" else {}
        records[stage.name] = StageRecord(
            stage.name, stage.output_version, stage.picked(config), inputs, encoder, rows.get(stage.name, {}), 1.0, "2026-01-01T00:00:00+00:00",
            "0", summaries.get(stage.name, {}),
        )  # fmt: skip
        write_record(config.output.run_dir, records[stage.name])
    write_json(join(config.output.run_dir, CONFIG_FILE), to_dict(config))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--galleries", type=int, default=20)
    parser.add_argument("--out", default="", help="file to keep the report in")
    parser.add_argument("--scratch", default=None, help="folder for the run directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-report-", dir=args.scratch) as folder:
        run_dir = f"{folder}/run"
        config = resolved(replace(Config(), output=OutputConfig(run_dir), input=InputConfig(shards=[f"{folder}/shards/*.tar"])))
        write_run(config, Path(folder), args.n, args.groups, args.dim)
        out = args.out or f"{folder}/report.html"
        command = [sys.executable, "-m", "dedup", "report", run_dir, "--out", out, "--galleries", str(args.galleries)]
        before = anonymous_bytes(os.getpid())  # of this process, which made the run
        with PeakMemory(0.05) as memory:
            started = time.perf_counter()
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - started
        n_bytes = os.path.getsize(out)
    figures = {
        "n": args.n, "groups": args.groups, "dim": args.dim, "galleries": args.galleries, "seconds": round(seconds, 1),
        "mb": round(n_bytes / 1e6, 2), "said": said.stdout.strip(), "notes": said.stderr.strip(),
        "anonymous_gb": round((memory.peak - before) / 1e9, 2), "machine": describe_machine(),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
