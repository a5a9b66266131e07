"""A run, one that adds to it, exclusion, lookups and cleaned shards with everything on S3: the same as on a disk."""

from __future__ import annotations

import io
import tarfile

import pyarrow.parquet as pq
import pytest
from shard_data import Sample, detailed, encode, make_samples, write_tar

import dedup
from dedup.runs.directory import Run
from dedup.storage.tables import read_table


def _run(root, name, *overrides):
    config = dedup.load_config(
        None, [f"output.run_dir={root}/{name}", "engine.workers=1", "embed.thumbnails=true", "search.exhaustive_below=0", *overrides]
    )
    return dedup.run(config)


def _rows(run_dir, name, root):
    table = read_table(Run(run_dir).table(name)).to_pylist()
    return [{key: value.replace(root, "") if isinstance(value, str) else value for key, value in row.items()} for row in table]


@pytest.mark.slow
def test_everything_on_s3(s3, tmp_path):
    samples = make_samples(15, n_broken=2)
    samples += [Sample(f"d{seed:03d}", encode(detailed(seed)), f"detailed {seed}", 900 + seed) for seed in range(6)]
    half = len(samples) // 2
    for name, part in (("old", samples[:half]), ("new", samples[half:])):
        write_tar(tmp_path / f"{name}.tar", part)
    write_tar(tmp_path / "eval.tar", [Sample("eval", encode(detailed(3), quality=50))])
    (tmp_path / "list.txt").write_text(f"key:{samples[half + 1].key}\nkey:{samples[-1].key}\n")
    for name in ("old.tar", "new.tar", "eval.tar", "list.txt"):
        s3.put_file(str(tmp_path / name), f"bucket/{name}")
    for root in (str(tmp_path), "s3://bucket"):
        _run(root, "base", f"input.shards={root}/old.tar")
        exclusion = [f"exclude.reference_shards={root}/eval.tar", f"exclude.list={root}/list.txt"]
        _run(root, "both", f"input.shards={root}/{{old,new}}.tar", f"base.run_dir={root}/base", *exclusion)
        dedup.rewrite(f"{root}/both", f"{root}/cleaned", per_shard=10)
        dedup.export(f"{root}/both", "keys", f"{root}/keys.csv")
    for name in ("manifest", "duplicates", "excluded", "edges", "statistics", "targets"):
        assert _rows("s3://bucket/both", name, "s3://bucket") == _rows(str(tmp_path / "both"), name, str(tmp_path)), name
    excluded = _rows("s3://bucket/both", "excluded", "s3://bucket")
    assert {"reference", "listed"} <= {row["reason"] for row in excluded}
    for path in sorted((tmp_path / "cleaned").glob("*.tar")):
        assert s3.cat(f"bucket/cleaned/{path.name}") == path.read_bytes()
        table = pq.read_table(io.BytesIO(s3.cat(f"bucket/cleaned/{path.stem}.parquet")))
        assert table.equals(pq.read_table(path.with_suffix(".parquet")))
    with tarfile.open(tmp_path / "cleaned" / "00000.tar") as tar:
        assert len({name.partition(".")[0] for name in tar.getnames()}) == 10
    keep, row = dedup.keep("s3://bucket/both"), _rows("s3://bucket/both", "manifest", "s3://bucket")[0]
    assert keep({"__url__": f"pipe:aws s3 cp s3://bucket{row['shard']} -", "__key__": row["key"]})
    answer = next(iter(dedup.open_index("s3://bucket/both").search([samples[0].image], k=1)))
    assert answer.matches[0].similarity == 1.0
