"""A run that adds to another knows the data of that one again where it lies elsewhere now."""

import os
import shutil

import pyarrow.parquet as pq
import pytest
import shared_workers
from shard_data import encode, make_samples, scene, write_shards

from dedup.config.load import load_config
from dedup.contracts import SilentReporter
from dedup.errors import ConfigError, InputError

COLUMNS = ["sample_id", "key", "sha256", "duplication_count"]


class Notes(SilentReporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def run(given, out, *settings):
    notes = Notes()
    words = [f"input.{given[0]}={given[1]}", f"output.run_dir={out}", "engine.workers=1", *settings]
    shared_workers.run(load_config(None, words), reporter=notes)
    return notes.notes


def table(run_dir, name):
    return pq.read_table(f"{run_dir}/{name}").sort_by("sample_id")


def images(folder, n=24):
    folder.mkdir(parents=True)
    for number in range(n):
        (folder / f"{number:03d}.jpg").write_bytes(encode(scene(number // 2), quality=90 - number % 2))


@pytest.fixture(params=["shards", "images"])
def data(request, tmp_path):
    """A folder of tars or of images, and what to give for it as input: copied afterwards, so that only the contents are the same."""
    if request.param == "shards":
        write_shards(tmp_path / "a", make_samples(20, seed=1), per_shard=20)
        return request.param, tmp_path / "a", "/*.tar", ()
    images(tmp_path / "a")
    return request.param, tmp_path / "a", "", ("embed.images_per_partition=10",)


@pytest.mark.parametrize("is_told", [False, True])
def test_moved_data_is_known_again(data, tmp_path, is_told):
    kind, old, glob, settings = data
    run((kind, f"{old}{glob}"), tmp_path / "one", *settings)
    shutil.copytree(old, tmp_path / "b")  # other times of modification
    if not is_told:
        shutil.rmtree(old)
    told = [f"base.moved={old}={tmp_path}/b"] if is_told else []
    out = tmp_path / "two"
    notes = run((kind, f"{tmp_path}/b{glob}"), out, *settings, *told, f"base.run_dir={tmp_path}/one")
    assert any("of the base lie elsewhere now, the first" in note for note in notes) != is_told
    for name in ("manifest", "duplicates", "embeddings/metadata"):
        before, after = (table(folder, name) for folder in (tmp_path / "one", out))
        columns = [column for column in COLUMNS if column in before.column_names]
        assert before.select(columns).equals(after.select(columns))
        assert all(shard.startswith(f"{tmp_path}/b/") and os.path.exists(shard) for shard in after["shard"].to_pylist())
    shards = pq.read_table(f"{out}/partitions")["shard"].to_pylist()
    assert shards and all(shard.startswith(f"{tmp_path}/b/") for shard in shards)
    again = run((kind, f"{tmp_path}/b{glob}"), out, *settings, *told, f"base.run_dir={tmp_path}/one")
    assert not any("embed" in note for note in again), again


def test_a_copy_beside_the_old_data_counts_twice(data, tmp_path):
    kind, old, glob, settings = data
    run((kind, f"{old}{glob}"), tmp_path / "one", *settings)
    shutil.copytree(old, tmp_path / "b")
    run((kind, f"{tmp_path}/b{glob}"), tmp_path / "two", *settings, f"base.run_dir={tmp_path}/one")
    counts = [set(table(tmp_path / name, "manifest")["duplication_count"].to_pylist()) for name in ("one", "two")]
    assert counts[1] == {2 * count for count in counts[0]}


def test_data_that_moved_and_changed_is_refused(data, tmp_path):
    kind, old, glob, settings = data
    run((kind, f"{old}{glob}"), tmp_path / "one", *settings)
    old.rename(tmp_path / "b")
    changed = sorted((tmp_path / "b").iterdir())[-1]
    changed.write_bytes(changed.read_bytes() + bytes(1_024))
    given = (kind, f"{tmp_path}/b{glob}")
    with pytest.raises(InputError, match=r"1 (source changed|files have changed) since .*one embedded them, the first .*/b/"):
        run(given, tmp_path / "two", *settings, f"base.run_dir={tmp_path}/one", f"base.moved={old}={tmp_path}/b")
    if kind == "shards":
        notes = run(given, tmp_path / "three", *settings, f"base.run_dir={tmp_path}/one")
        assert any("1 source have the names" in note or "1 source has the name" in note for note in notes), notes


def test_old_data_that_is_not_given_lies_where_it_is_told(tmp_path):
    write_shards(tmp_path / "a", make_samples(12, seed=1), per_shard=20)
    write_shards(tmp_path / "c", make_samples(12, seed=2), per_shard=20)
    run(("shards", f"{tmp_path}/a/*.tar"), tmp_path / "one")
    (tmp_path / "a").rename(tmp_path / "b")
    run(("shards", f"{tmp_path}/c/*.tar"), tmp_path / "two", f"base.run_dir={tmp_path}/one", f"base.moved={tmp_path}/a={tmp_path}/b")
    found = pq.read_table(tmp_path / "two" / "manifest")["shard"].to_pylist()
    assert {os.path.basename(os.path.dirname(shard)) for shard in found} == {"b", "c"}
    assert all(os.path.exists(shard) for shard in found)


@pytest.mark.parametrize("entry", ["/old", "=/new", "/old="])
def test_what_is_no_move(tmp_path, entry):
    write_shards(tmp_path / "a", make_samples(3, seed=1), per_shard=20)
    with pytest.raises(ConfigError, match="base.moved=.*: expected OLD=NEW"):
        run(("shards", f"{tmp_path}/a/*.tar"), tmp_path / "two", f"base.run_dir={tmp_path}/one", f"base.moved={entry}")
    with pytest.raises(ConfigError, match="base.moved is set without base.run_dir"):
        run(("shards", f"{tmp_path}/a/*.tar"), tmp_path / "two", f"base.moved={entry}")
