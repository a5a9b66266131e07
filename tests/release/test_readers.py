"""Every folder of a table opens with what people read tables with."""

import glob
import os

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shared_workers
from shard_data import make_samples, write_shards

import dedup


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run, with vectors of its views and of every table a file."""
    folder = tmp_path_factory.mktemp("readers")
    write_shards(folder / "shards", make_samples(30, seed=4), per_shard=25)
    words = [f"input.shards={folder}/shards/*.tar", f"output.run_dir={folder}/run", "engine.workers=2", "embed.thumbnails=true"]
    shared_workers.run(dedup.load_config(None, words))
    return str(folder / "run")


def tables(run_dir):
    """Each folder with a parquet file, with the rows of all its files."""
    folders = {os.path.dirname(path) for path in glob.glob(f"{run_dir}/**/*.parquet", recursive=True)}
    assert len(folders) > 20
    return {folder: sum(pq.read_metadata(path).num_rows for path in glob.glob(f"{folder}/*.parquet")) for folder in folders}


def test_folders_of_tables_hold_nothing_else(run_dir):
    for folder in tables(run_dir):
        assert {os.path.splitext(name)[1] for name in os.listdir(folder)} == {".parquet"}, folder


@pytest.mark.parametrize(
    "count",
    [
        lambda folder: pl.read_parquet(folder).height,
        lambda folder: pl.scan_parquet(folder).collect().height,
        lambda folder: len(pd.read_parquet(folder)),
        lambda folder: int(duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/*')").fetchall()[0][0]),
        lambda folder: ds.dataset(folder).count_rows(),
    ],
    ids=["polars", "polars-lazy", "pandas", "duckdb", "pyarrow"],
)
def test_every_reader_opens_every_table(run_dir, count):
    expected = tables(run_dir)
    assert {folder: count(folder) for folder in expected} == expected


def test_datasets_opens_every_table_with_rows(run_dir, tmp_path):
    for folder, n_rows in tables(run_dir).items():
        if n_rows:  # it makes no dataset of none
            found = datasets.load_dataset("parquet", data_dir=folder, cache_dir=str(tmp_path))["train"]
            assert found.num_rows == n_rows


@pytest.mark.spark
def test_spark_opens_every_table(run_dir, start_spark):
    from pyspark.sql import SparkSession

    start_spark()
    session = SparkSession.getActiveSession()
    expected = tables(run_dir)
    assert {folder: session.read.parquet(f"file://{folder}").count() for folder in expected} == expected


def test_vectors_open_as_arrays(run_dir):
    paths = glob.glob(f"{run_dir}/embeddings/img_emb/*.npy")
    assert sum(len(np.load(path, mmap_mode="r")) for path in paths) == tables(run_dir)[f"{run_dir}/embeddings/metadata"]
