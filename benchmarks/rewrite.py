"""Rate and memory of writing cleaned shards, on tars of random bytes, a share of which is kept.

python benchmarks/rewrite.py --sample-bytes 110000 --n 20000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
from machine import describe_machine
from memory import PeakMemory

from dedup.engines.local import LocalEngine
from dedup.release.rewrite import rewrite
from dedup.runs.directory import Run
from dedup.runs.record import StageRecord, write_record
from dedup.storage.tables import FileWriter, write_table
from dedup.storage.urls import join


def write_input(folder: str, n: int, sample_bytes: int, per_shard: int, share: float) -> str:
    """Shards of image, txt and json, and the manifest of a run that keeps a share of them; returns the run directory."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(sample_bytes + 4_096)
    run, rows, ids = Run(join(folder, "run")), [], 0
    os.makedirs(join(folder, "shards"))
    for number, start in enumerate(range(0, n, per_shard)):
        path = join(folder, "shards", f"{number:05d}.tar")
        with tarfile.open(path, "w") as tar:
            for row in range(min(per_shard, n - start)):
                key = f"{start + row:09d}"
                text = {
                    "txt": b"a caption of some length, as they are",
                    "json": json.dumps({"key": key, "url": "https://example.org/" + key}).encode(),
                }
                image = noise[row % 4_096 :][:sample_bytes]
                for suffix, data in {"jpg": image, **text}.items():
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(data)
                    if suffix == "jpg":
                        place = tar.offset + tarfile.BLOCKSIZE
                    tar.addfile(info, io.BytesIO(data))
                if rng.random() < share:
                    ids = (number << 32) + row
                    rows.append(
                        {
                            "sample_id": ids, "shard": path, "key": key, "url": f"https://example.org/{key}", "caption": "a caption",
                            "captions": ["a caption"], "member": "jpg", "n_images": 1, "first_image_id": ids,
                            "sha256": "0" * 64, "width": 512, "height": 512, "n_frames": 1, "n_bytes": len(image), "byte_offset": place, "quality": 50.0,
                            "caption_similarity": None, "component_id": ids, "duplication_count": 1,
                        }
                    )  # fmt: skip
    with FileWriter(join(run.table("manifest").path, "part-00000.parquet"), run.table("manifest").schema) as writer:
        writer.write(pa.Table.from_pylist(rows, run.table("manifest").schema))
    shards = sorted({row["shard"] for row in rows})
    counts = {"status": "ok", "error": None, "n_samples": n, "n_rejected": 0, "n_late": 0}
    table = run.table("partitions")
    partitions = [{"partition": number, "shard": shard} | counts for number, shard in enumerate(shards)]
    write_table(table, [pa.Table.from_pylist(partitions, table.schema)])
    write_record(run.url, StageRecord("manifest", 1, {}, {}))
    return run.url


def copied(folder: str, out: str) -> float:
    """Seconds that the file system takes to copy the same shards."""
    started = time.perf_counter()
    for name in sorted(os.listdir(folder)):
        with open(join(folder, name), "rb") as source, open(join(out, name), "wb") as target:
            while data := source.read(1 << 20):
                target.write(data)
    return time.perf_counter() - started


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--sample-bytes", type=int, default=110_000)
    parser.add_argument("--per-shard", type=int, default=2_000)
    parser.add_argument("--share", type=float, default=0.7, help="share of the samples that are kept")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scratch", default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-rewrite-", dir=args.scratch) as folder:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as aside:  # in another process, so that its memory does not count
            run_dir = aside.submit(write_input, folder, args.n, args.sample_bytes, args.per_shard, args.share).result()
        os.mkdir(join(folder, "copy"))
        copy_seconds = copied(join(folder, "shards"), join(folder, "copy"))
        read = sum(os.path.getsize(join(folder, "shards", name)) for name in os.listdir(join(folder, "shards")))
        engine = LocalEngine(args.workers)
        try:
            rewrite(run_dir, join(folder, "warm"), per_shard=args.per_shard, dry_run=True, engine=engine)
            list(engine.map_partitions(len, [()] * args.workers))  # the workers have started
            started = time.perf_counter()
            with PeakMemory() as memory:
                summary = rewrite(run_dir, join(folder, "out"), per_shard=args.per_shard, engine=engine)
            seconds = time.perf_counter() - started
        finally:
            engine.close()
    per_core = seconds * args.workers * 1e6
    print(
        json.dumps(
            {
                "n": args.n, "sample_bytes": args.sample_bytes, "workers": args.workers, "seconds": round(seconds, 2),
                "written_mb_per_s_per_core": round(summary.n_bytes / per_core, 1), "read_mb_per_s_per_core": round(read / per_core, 1),
                "copy_mb_per_s": round(read / copy_seconds / 1e6, 1), "samples_per_s": round(args.n / seconds),
                "peak_anonymous_mb": round(memory.peak / 1e6),
                "machine": describe_machine(),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
