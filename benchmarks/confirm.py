"""What judging by pixels costs: ms per candidate pair on one core, reading included.

python benchmarks/confirm.py RUN_DIR [--pairs 1000]

RUN_DIR is a run whose stage `pairs` is done. Pairs are taken in the order of the stage, so that an image is read once for
the pairs that follow each other. Prints one JSON object; times are of this process's CPU, the machine being shared.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

import dedup
from dedup.engines.local import LocalEngine
from dedup.judge.pair import JudgeInputs, find_places, turns_of
from dedup.stages.stage import StageContext
from dedup.storage.tables import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir")
    parser.add_argument("--pairs", type=int, default=1_000)
    options = parser.parse_args()
    context = StageContext(dedup.load_config(None, [f"output.run_dir={options.run_dir}"]), LocalEngine(1))
    settings = context.judge_settings
    assert settings is not None
    candidates = read_table(context.run.table("candidates")).sort_by([("src", "ascending"), ("dst", "ascending")])
    candidates = candidates.filter([kind == "near" for kind in candidates["kind"].to_pylist()]).slice(0, options.pairs)
    ids = sorted({*candidates["src"].to_pylist(), *candidates["dst"].to_pylist()})
    inputs = JudgeInputs(settings, find_places(context.engine, context.run.table("metadata"), np.array(ids, dtype=np.int64)))
    spent = {"confirmed": 0.0, "refused": 0.0}
    counts = dict.fromkeys(spent, 0)
    started = time.perf_counter()
    reading = time.process_time()
    with inputs.judge() as judge:
        for sample_id in ids[:200]:
            judge.picture(sample_id)
    reading = (time.process_time() - reading) / max(1, min(200, len(ids)))
    n = 0
    while n < options.pairs and len(candidates):  # repeat if there are few pairs, reading them again
        with inputs.judge() as judge:
            for row in candidates.to_pylist():
                before = time.process_time()
                outcome = judge.judge(row["src"], row["dst"], turns_of(row["variant"]), row["source"])
                kind = "confirmed" if outcome.stands else "refused"
                spent[kind] += time.process_time() - before
                counts[kind] += 1
        n += len(candidates)
    print(
        json.dumps(
            {
                "pairs": n,
                "images": len(ids),
                "ms_per_pair": round(1e3 * sum(spent.values()) / max(n, 1), 2),
                "ms_reading_an_image": round(1e3 * reading, 2),
                **{f"ms_per_{kind}_pair": round(1e3 * spent[kind] / counts[kind], 2) for kind in spent if counts[kind]},
                **{f"n_{kind}": count for kind, count in counts.items()},
                "wall_s": round(time.perf_counter() - started, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
