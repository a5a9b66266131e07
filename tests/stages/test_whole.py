"""Samples of several images: copies only if all their images are, and never in part in one table, in part in another."""

import hashlib
import io
import itertools
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import shared_workers
from hypothesis import given
from hypothesis import strategies as st
from run_tables import table
from shard_data import detailed, encode

import dedup
from dedup.stages.manifest.whole import IMAGES, Members, comparable_groups


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def pair(key, before, after, **options):
    return [(f"{key}.input.jpg", encode(detailed(before), **options)), (f"{key}.output.jpg", encode(detailed(after), **options))]


def where(run_dir):
    """The table of each key; samples that are torn apart have several."""
    found = {}
    for name in ("manifest", "duplicates", "excluded"):
        for row in table(run_dir, name).to_pylist():
            found.setdefault(row["key"], set()).add(name)
    return {key: "+".join(sorted(names)) for key, names in found.items()}


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "0.tar"
    members = [member for number in range(4) for member in pair(f"edit{number}", 0, 10 + number)]  # one input, four outputs
    members += pair("copy1", 0, 11, quality=60) + pair("swapped", 12, 0)
    members += [
        ("single.jpg", encode(detailed(0), quality=70)),
        ("twin.jpg", encode(detailed(0), quality=70)),
        ("other.jpg", encode(detailed(13))),
    ]
    members += [("broken.input.jpg", encode(detailed(0))), ("broken.output.jpg", encode(detailed(11))[:200])]
    members += [
        ("frames.1.jpg", encode(detailed(30))),
        ("frames.2.jpg", encode(detailed(30), quality=80)),
        ("frames.3.jpg", encode(detailed(31))),
    ]
    members += [
        ("again.1.png", encode(detailed(30), "PNG")),
        ("again.2.png", encode(detailed(30), "PNG")),
        ("again.3.png", encode(detailed(31), "PNG")),
    ]
    write(path, members)
    return path


@pytest.mark.parametrize("confirm", ["true", "false"])
def test_only_whole_samples_are_copies(shard, tmp_path, confirm):
    config = dedup.load_config(
        None, [f"input.shards={shard}", f"output.run_dir={tmp_path}/run", "engine.workers=1", f"confirm.enabled={confirm}"]
    )
    summary = shared_workers.run(config)
    places = where(tmp_path / "run")
    copies = ({"edit1", "copy1"}, {"single", "twin"}, {"frames", "again"})
    for sample in copies:
        assert sorted(places[key] for key in sample) == ["duplicates", "manifest"], sample
    assert {key for key, place in places.items() if place != "manifest"} < set().union(*copies)
    rows = table(tmp_path / "run", "duplicates").to_pylist()
    for key, of_sample in itertools.groupby(sorted(rows, key=lambda row: row["key"]), lambda row: row["key"]):
        assert len({row["keeper_key"] for row in of_sample}) == 1, key
    assert summary.records["embed"].summary["n_keys"] == 12


def test_a_sample_is_excluded_as_a_whole(shard, tmp_path):
    (tmp_path / "list.txt").write_text(f"edit2\n{hashlib.sha256(encode(detailed(31))).hexdigest()}\n")
    settings = [f"input.shards={shard}", f"output.run_dir={tmp_path}/run", "engine.workers=1", f"exclude.list={tmp_path}/list.txt"]
    shared_workers.run(dedup.load_config(None, settings))
    places = where(tmp_path / "run")
    assert all("+" not in place for place in places.values())
    assert {"edit2", "frames", "again"} <= {key for key, place in places.items() if place == "excluded"}
    reasons = {(row["key"], row["member"]): row["reason"] for row in table(tmp_path / "run", "excluded").to_pylist()}
    assert reasons["frames", "3.jpg"] == "listed"
    assert reasons["frames", "1.jpg"] == "sample"


samples = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["a.jpg", "b.png", "jpg"]), st.integers(0, 3)), min_size=2, max_size=3, unique_by=lambda image: image[0]
    ),
    max_size=6,
)


@given(samples, st.data())
def test_classes_and_whole_samples_against_plain_loops(drawn, data):
    rows, first = [], 0
    for images in drawn:
        for place, (member, component) in enumerate(images):
            rows.append(
                {"sample_id": first + place, "first_image_id": first, "member": member, "n_images": len(images), "component_id": component}
            )
        first += len(images)
    numbers = comparable_groups(pa.Table.from_pylist(rows, schema=IMAGES))

    def parts(row):
        return sorted((r["member"].rpartition(".")[0], r["component_id"]) for r in rows if r["first_image_id"] == row["first_image_id"])

    for a, b in itertools.combinations(rows, 2):
        alike = parts(a) == parts(b) and a["component_id"] == b["component_id"]
        alike &= a["member"].rpartition(".")[0] == b["member"].rpartition(".")[0]
        assert (numbers[a["sample_id"]] == numbers[b["sample_id"]]) == alike
    if not rows:
        return
    group = np.array([len(rows) + numbers[row["sample_id"]] for row in rows])
    order = np.argsort(group, kind="stable")
    ids, sample = order.astype(np.int64), np.array([rows[place]["first_image_id"] for place in order])
    keeper = np.arange(len(rows))
    for number in np.unique(group):  # any cover: a keeper keeps itself
        members = np.flatnonzero(group[order] == number)
        kept = data.draw(st.lists(st.sampled_from(members.tolist()), min_size=1, unique=True))
        for member in members:
            keeper[member] = member if member in kept else data.draw(st.sampled_from(kept))
    result = Members(group[order], ids, ids, np.zeros_like(ids), sample).only_whole(keeper)
    for first in np.unique(sample):
        of_sample = np.flatnonzero(sample == first)
        targets = {int(sample[keeper[member]]) for member in of_sample}
        expected = keeper[of_sample] if len(targets) == 1 and targets != {int(first)} else of_sample
        assert result[of_sample].tolist() == expected.tolist()
    for member, target in enumerate(result):
        assert result[target] == target, (member, target)
