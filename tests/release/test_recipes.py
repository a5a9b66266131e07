"""The recipes of docs/published.md: its commands and its Python, on small data in the layouts that they name."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import dedup
from shard_data import encode, scene
from vector_data import copies_of, power_law

PAGE = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
N, N_COPIES = 200, 40


def with_copies(seed):
    rng = np.random.default_rng(seed)
    rows = power_law(rng, N, 64)
    rows[:N_COPIES] = [copies_of(rng, row, 1, 0.98)[0] for row in rows[N_COPIES : 2 * N_COPIES]]
    return rows.astype(np.float16)


def make_laion(folder):
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", with_copies(number))
        columns = {
            "url": [f"https://example.org/{number}/{row}.jpg" for row in range(N)],
            "caption": [f"caption {row}" for row in range(N)],
        }
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")


def make_datacomp(folder):
    folder.mkdir()
    for number in range(2):
        rows = with_copies(number)
        np.savez(folder / f"{number:032x}.npz", b32_img=rows, l14_img=rows, b32_txt=rows, l14_txt=rows)
        uids = [f"{number:016x}{row:016x}" for row in range(N)]
        columns = {"uid": uids, "url": ["u"] * N, "text": ["t"] * N, "sha256": [f"{number:032x}{row:032x}" for row in range(N)]}
        pq.write_table(pa.table(columns), folder / f"{number:032x}.parquet")


def make_photos(folder):
    folder.mkdir()
    for number in range(2):
        images = [{"bytes": encode(scene(10 * number + row)), "path": None} for row in (0, 1, 2, 0)]
        pq.write_table(pa.table({"image": images, "text": list("abcd")}), folder / f"{number}.parquet")


def commands(section):
    """The lines of a section that begin with a dollar, whose commands were run."""
    text = PAGE.partition(f"\n## {section}")[2].partition("\n## ")[0]
    found = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("$ ")]
    assert found
    return [line[1:] for line in found]


def run_section(section, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for arguments in commands(section):
        settings = ["engine.workers=1"] if arguments[0] == "run" else []
        done = dedup(*arguments, *settings)
        assert done.returncode == 0, done.stderr


def test_laion(tmp_path, monkeypatch):
    make_laion(tmp_path / "laion")
    run_section("LAION", tmp_path, monkeypatch)
    kept = pq.read_table("kept.parquet", columns=["url", "caption", "duplication_count"])
    assert kept.num_rows == len(set(kept["url"].to_pylist())) == 2 * (N - N_COPIES)
    assert sum(kept["duplication_count"].to_pylist()) == 2 * N


def test_datacomp(tmp_path, monkeypatch):
    make_datacomp(tmp_path / "datacomp")
    run_section("DataComp", tmp_path, monkeypatch)
    uids = np.load("kept.npy")
    assert uids.dtype == np.dtype("u8,u8")
    assert len(uids) == 2 * (N - N_COPIES)
    assert np.array_equal(uids, np.sort(uids))


def test_a_hugging_face_data_set(tmp_path, monkeypatch, require_extra):
    require_extra("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    make_photos(tmp_path / "photos")
    run_section("A Hugging Face", tmp_path, monkeypatch)
    assert [np.load(path).tolist() for path in sorted(Path("rows").iterdir())] == [[True, True, True, False]] * 2
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["clean"]["text"] == list("abcabc")


@pytest.mark.parametrize("page", ["index.md", "inputs.md"])
def test_the_page_is_found(page):
    assert "published.md" in (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
