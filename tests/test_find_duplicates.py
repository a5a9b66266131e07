"""Groups of copies as Python objects, from whatever holds images."""

import io
import os

import numpy as np
import pytest
from in_process import InProcess
from shard_data import detailed, encode, make_samples, scene, write_shards
from vector_data import all_similarities

import dedup
from dedup.errors import ConfigError, InputError
from dedup.numerics.graph.components import connected_components


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos, the first with an equal and a smaller copy."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(encode(detailed(number, (320, 240))))
    (folder / "deep/equal.jpg").write_bytes((folder / "0.jpg").read_bytes())
    (folder / "small.jpg").write_bytes(encode(detailed(0, (320, 240)).resize((160, 120)), quality=60))
    return folder


def test_of_a_folder(photos, tmp_path):
    found = dedup.find_duplicates(photos, out=tmp_path / "run", engine=InProcess())
    assert [set(group) for group in found.groups] == [{"0.jpg", "deep/equal.jpg", "small.jpg"}] and len(found) == 1
    assert found.groups[0][0] in ("0.jpg", "deep/equal.jpg") and found.groups[0][-1] == "small.jpg"
    assert sorted(found.unique) == ["1.jpg", "2.jpg"] and set(found.remove_list()) == set(found.groups[0][1:])
    assert repr(found) == "<Duplicates: 2 copies in 1 groups, of 5 images>"
    others = found.to_dict()
    assert others["1.jpg"] == [] and set(others["small.jpg"]) == {"0.jpg", "deep/equal.jpg"} and len(others) == 5
    frame = found.to_pandas()
    assert list(frame.columns[:4]) == ["name", "keeper", "group", "is_kept"] and frame["is_kept"].tolist() == [True, False, False]
    row = frame[frame["name"] == "small.jpg"].iloc[0]
    assert row["kind"] == "near" and row["distance"] < 0.05 and "reduced" in list(row["edits"])
    assert found.plot().size[0] > 300 and (tmp_path / "run" / "manifest").is_dir() and found.run_dir == str(tmp_path / "run")


def test_of_files_and_of_a_data_set(photos):
    import datasets

    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    of_files = dedup.find_duplicates(paths, engine=InProcess())
    assert [{os.path.basename(path) for path in group} for group in of_files.groups] == [{"0.jpg", "equal.jpg", "small.jpg"}]
    assert set(of_files.unique) < set(paths)
    rows = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    of_rows = dedup.find_duplicates(rows, engine=InProcess())
    assert [[paths[row] for row in group] for group in of_rows.groups] == of_files.groups
    folder = of_rows.run_dir
    del of_rows
    assert not os.path.exists(folder)  # it was temporary


def test_of_shards(tmp_path):
    samples = make_samples(12, n_broken=0)
    write_shards(tmp_path / "tars", samples)
    found = dedup.find_duplicates(tmp_path / "tars", threshold=0.9, settings={"confirm.enabled": False}, engine=InProcess())
    assert sum(map(len, found.groups)) + len(found.unique) == len(samples) and all(isinstance(name, str) for name in found.to_dict())


def test_of_an_array_against_exhaustive_search():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, 16)).astype(np.float32)
    rows[50:] = rows[:10] + 0.05 * rng.normal(size=(10, 16))
    found = dedup.find_duplicates(rows, threshold=0.9)
    near = np.argwhere(np.triu(all_similarities(rows) >= 0.9, 1))
    labels = connected_components(near[:, 0], near[:, 1], len(rows))
    expected = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    assert found.groups == [group for group in expected if len(group) > 1] and found.unique == [
        group[0] for group in expected if len(group) == 1
    ]
    assert found.remove_list() == list(range(50, 60)) and found.run_dir == ""
    with pytest.raises(InputError, match="can't be drawn"):
        found.plot()
    with pytest.raises(ConfigError, match="needs a threshold"):
        dedup.find_duplicates(rows)


def test_what_can_not_be_searched(photos, tmp_path):
    with pytest.raises(InputError, match="no path is given"):
        dedup.find_duplicates([])
    with pytest.raises(InputError, match="is given twice"):
        dedup.find_duplicates([photos / "0.jpg", photos / "0.jpg"])
    with pytest.raises(InputError, match="nowhere does not exist"):
        dedup.find_duplicates("nowhere")
    alone = dedup.find_duplicates([photos / "1.jpg", photos / "2.jpg"], engine=InProcess())
    assert alone.groups == [] and alone.to_dict().keys() == {str(photos / "1.jpg"), str(photos / "2.jpg")}
    with pytest.raises(InputError, match="no group of copies was found"):
        alone.plot()


def test_a_notebook_sees_progress_and_a_gallery(tmp_path):
    from dedup.contracts import Progress
    from dedup.pipeline.notebook import NotebookReporter, default_reporter

    written = io.StringIO()
    reporter = NotebookReporter(written)
    for done in range(1_001):
        reporter.progress(Progress("embed", done, 1_000, "images"))
    reporter.note("embed: a note")
    reporter.progress(Progress("index", 3, 3, "vectors"))
    lines = written.getvalue().split("\r")
    assert 2 <= len(lines) < 20  # not one for each image
    assert "embed: 1,000 of 1,000 images" in lines[-3]
    assert "index: 3 of 3 vectors" in lines[-1]
    assert type(default_reporter()).__name__ == "SilentReporter"  # nobody asked for lines in a script
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode(scene(number // 2), quality=90 - number))
    found = dedup.find_duplicates(str(tmp_path))
    shown = found._repr_html_()
    assert "1 copies in 1 groups" in shown
    assert "data:image/jpeg;base64," in shown
    assert dedup.find_duplicates(np.eye(3), threshold=0.9)._repr_html_() == "<p>&lt;Duplicates: 0 copies in 0 groups, of 3 images&gt;</p>"
