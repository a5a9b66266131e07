"""The stages `pairs` and `groups` on Spark beside the local engine: same vectors, same quantizer, one run.

python benchmarks/engines.py --n 1000000 --dim 512 [--rounds 1]

Spark runs as local[CORES] with a JVM heap of --heap, which holds the shuffle too. Prints a JSON object: seconds of each
engine and stage, their ratio, and whether the tables are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile

import pyarrow as pa
from machine import describe_machine
from vectors import vectors_only, write_embeddings

from dedup.config import Config, IndexConfig, SearchConfig
from dedup.contracts import Engine
from dedup.engines.local import LocalEngine
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.runs.record import record_path
from dedup.storage.tables import read_table

STAGES = ("pairs", "confirm", "groups")
ORDER = {"candidates": ["src", "dst"], "neighbors": ["sample_id"], "groups": ["sample_id"]}


def timed(config: Config, engine: Engine) -> tuple[dict[str, float], dict[str, pa.Table]]:
    """Seconds of each stage, and the tables written, sorted."""
    for stage in STAGES:
        record = record_path(config.output.run_dir, stage)
        if os.path.exists(record):
            os.unlink(record)
    summary = pipeline.run(config, STAGES, engine=engine)
    tables = {}
    for name, keys in ORDER.items():
        tables[name] = read_table(Run(config.output.run_dir).table(name)).sort_by([(key, "ascending") for key in keys])
    return {name: summary.records[name].seconds for name in STAGES}, tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--min-similarity", type=float, default=0.96)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--heap", default="3g")
    parser.add_argument("--spark", action="append", default=[], help="further Spark setting NAME=VALUE")
    parser.add_argument("--scratch", default=None, help="folder for the run directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dedup-bench-", dir=options.scratch) as run_dir:
        search = SearchConfig(min_similarity=options.min_similarity, recall_queries=0)
        config = vectors_only(run_dir, search, IndexConfig(codes="none"))
        write_embeddings(config, options.n, options.dim, share=0.05, low=0.961, high=0.999, n_crowd=0)
        local = LocalEngine(options.cores)
        pipeline.run(config, ["index"], engine=local)
        seconds, tables = {}, {}
        seconds["local"], tables["local"] = timed(config, local)
        local.close()
        from dedup.engines.spark.engine import SparkEngine

        settings = [f"spark.driver.memory={options.heap}", "spark.ui.enabled=false", f"spark.local.dir={run_dir}", *options.spark]
        for name, sends_rows in (("spark gathers rows", False), ("spark sends rows", True)):
            spark = SparkEngine(
                os.path.join(run_dir, "_scratch"), master=f"local[{options.cores}]", options=settings, sends_rows=sends_rows
            )
            seconds[name], tables[name] = timed(config, spark)
            spark.close()
    total = {name: sum(stages.values()) for name, stages in seconds.items()}
    result = {
        "n": options.n,
        "dim": options.dim,
        "cores": options.cores,
        "heap": options.heap,
        "seconds": seconds,
        "ratio": {name: round(total[name] / total["local"], 2) for name in total},
        "is_equal": all(tables["local"][name].equals(other[name]) for other in tables.values() for name in ORDER),
        "machine": describe_machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
