"""The main job on demo shards, against their planted truth."""

import collections

import pyarrow.parquet as pq

from dedup.config import Config, EngineConfig, InputConfig, OutputConfig
from dedup.demo.shards import make_demo_data
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.storage.tables import read_table


def test_planted_copies_are_found_and_no_two_scenes_merged(tmp_path):
    make_demo_data(tmp_path / "shards", n_images=700, seed=5, per_shard=250, workers=2)
    config = Config(
        InputConfig(shards=[str(tmp_path / "shards" / "*.tar")]), OutputConfig(str(tmp_path / "run")), engine=EngineConfig(workers=2)
    )
    pipeline.run(config)
    component = {}
    for name in ("manifest", "duplicates"):
        for row in read_table(Run(config.output.run_dir).table(name), ["key", "component_id"]).to_pylist():
            component[row["key"]] = row["component_id"]
    truth = [
        row for row in pq.read_table(tmp_path / "shards" / "truth.parquet").to_pylist() if row["key"] in component and not row["is_broken"]
    ]
    by_source, by_component = collections.defaultdict(list), collections.defaultdict(set)
    for row in truth:
        by_source[row["source_id"]].append(row)
        by_component[component[row["key"]]].add(row["source_id"])
    assert all(len(sources) == 1 for sources in by_component.values())
    expected = [row for rows in by_source.values() if len(rows) > 1 for row in rows if row["is_expected"]]
    found = [
        row
        for row in expected
        if any(component[row["key"]] == component[other["key"]] for other in by_source[row["source_id"]] if other is not row)
    ]
    assert len(expected) > 100
    assert len(found) / len(expected) > 0.97
    # what the truth says nothing about is either broken or the second sample of a key
    rejected = read_table(Run(config.output.run_dir).table("rejected")).num_rows
    assert len(component) + rejected == 700
