"""The stages `embed` and `pairs` on one and on two Spark workers, each bound to one core: the speed-up.

    python benchmarks/workers.py --n 500000 --dim 512 --shards 'shards/*.tar'

A standalone cluster on loopback: each worker's JVM and Python run on a core of their own, since JVM and Python together
would else use two. Driver and master run where the system lets them. Without --shards demo images of 100 KB are made.
Prints a JSON object: seconds of each stage at each number of workers, in the order they were run, and ratios of the best.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from machine import describe_machine
from vectors import vectors_only, write_embeddings

import dedup
from dedup.config import Config, IndexConfig, SearchConfig
from dedup.demo.shards import make_demo_data
from dedup.engines.local import LocalEngine
from dedup.engines.spark.engine import SparkEngine
from dedup.pipeline import run as pipeline

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from spark_cluster import Cluster


def seconds(config: Config, stage: str, n_workers: int, heap_mb: int, folder: str) -> float:
    """Wall seconds of a stage on executors that have started and have run Python."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="cluster-", dir=folder)))
    cluster.start(0)
    for core in range(n_workers):
        cluster.add_worker(core=core, memory=f"{heap_mb + 500}m")
    settings = [f"spark.executor.memory={heap_mb}m", "spark.ui.enabled=false", "spark.driver.host=127.0.0.1"]
    engine = SparkEngine(os.path.join(config.output.run_dir, "_scratch"), master=cluster.master, options=settings)
    shutil.rmtree(os.path.join(config.output.run_dir, {"embed": "embeddings", "pairs": "candidates"}[stage]), ignore_errors=True)
    try:
        assert sorted(engine.map_partitions(abs, range(8 * n_workers))) == [(k, k) for k in range(8 * n_workers)]
        summary = pipeline.run(config, [stage], engine=engine)
        assert not summary.skipped
        return summary.records[stage].seconds
    finally:
        engine.close()
        cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500_000, help="vectors for `pairs`")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--min-similarity", type=float, default=0.96)
    parser.add_argument("--shards", help="tars for `embed`")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 1, 2])
    parser.add_argument("--stages", nargs="+", default=["embed", "pairs"], choices=["embed", "pairs"])
    parser.add_argument("--heap-mb", type=int, default=1_500)
    parser.add_argument("--scratch", default=None, help="folder for shards and run directories")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=options.scratch) as folder:
        shards = options.shards
        if shards is None and "embed" in options.stages:
            make_demo_data(f"{folder}/shards", n_images=4_000, per_shard=250, jpeg_size=100_000, workers=os.cpu_count() or 1)
            shards = f"{folder}/shards/*.tar"
        embedding = dedup.load_config(None, [f"input.shards={shards or ''}", f"output.run_dir={folder}/embed"])
        search = SearchConfig(min_similarity=options.min_similarity, recall_queries=0)
        pairing = vectors_only(f"{folder}/pairs", search, IndexConfig(codes="none"))
        if "pairs" in options.stages:
            write_embeddings(pairing, options.n, options.dim, share=0.05, low=0.961, high=0.999, n_crowd=0)
            local = LocalEngine()
            pipeline.run(pairing, ["index"], engine=local)
            local.close()
        configs = {"embed": embedding, "pairs": pairing}
        runs: dict[str, list[tuple[int, float]]] = {stage: [] for stage in options.stages}
        for n_workers in options.workers:
            for stage in options.stages:
                runs[stage].append((n_workers, round(seconds(configs[stage], stage, n_workers, options.heap_mb, folder), 2)))
    best = {stage: {n: min(s for m, s in taken if m == n) for n, _ in taken} for stage, taken in runs.items()}
    result = {
        "n": options.n,
        "dim": options.dim,
        "seconds": runs,
        "speedup": {stage: {n: round(taken[min(taken)] / s, 2) for n, s in taken.items()} for stage, taken in best.items()},
        "machine": describe_machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
