"""Thumbnails of shards on S3 in a run directory on S3, with a server that speaks its protocol and fails at times."""

from __future__ import annotations

from shard_data import Sample, encode, scene, write_tar

from dedup.config import Config, EngineConfig, InputConfig, OutputConfig
from dedup.engines.local import LocalEngine
from dedup.pipeline import run as pipeline
from dedup.runs.directory import Run
from dedup.storage.images.reader import PictureReader, Place
from dedup.storage.images.thumbnails import open_thumbnails
from dedup.storage.tables import read_table


class Here(LocalEngine):
    def map_partitions(self, work, tasks, *, uses_gpu=False):
        return ((number, work(task)) for number, task in enumerate(tasks))


def test_a_run_on_s3(s3, tmp_path):
    samples = [Sample(f"{i:03d}", encode(scene(i, (400, 330))), "c", i) for i in range(6)]
    write_tar(tmp_path / "a.tar", samples)
    s3.put_file(str(tmp_path / "a.tar"), "bucket/a.tar")
    run_dir = "s3://bucket/run"
    assert open_thumbnails(f"{run_dir}/embeddings") is None
    config = Config(input=InputConfig(shards=["s3://bucket/*.tar"]), output=OutputConfig(run_dir), engine=EngineConfig(workers=1))
    pipeline.run(config, ["embed"], engine=Here(1))
    rows = read_table(Run(run_dir).table("metadata")).to_pylist()
    places = [Place(*[row[name] for name in ("sample_id", "shard", "key", "byte_offset", "n_bytes")]) for row in rows]
    assert len(places) == 6
    assert open_thumbnails(f"{run_dir}/embeddings") is not None
    with PictureReader(f"{run_dir}/embeddings", None) as reader:
        assert {reader.read(place).shape for place in places} == {(132, 160, 3)}
    with PictureReader(f"{tmp_path}/embeddings", None) as reader:  # no thumbnails there: from the shard, by byte range
        assert reader.read(places[2]).shape == (330, 400, 3)
    assert pipeline.run(config, ["embed"], engine=Here(1)).skipped == ("embed",)
