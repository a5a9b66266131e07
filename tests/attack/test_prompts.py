"""Prompt lists, read by doubles of the published readers, and what they write found again."""

import ast
import csv
import json
import shutil

import numpy as np
import pandas as pd
import planted_generations as planted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dedup
from dedup.attack.prompts import folder_of, read_prompts, write_prompts
from dedup.errors import InputError
from dedup.schemas import SCORES

CAPTIONS = [
    "a cat; on a mat",
    'said "hello", twice',
    "two\nlines / and a slash",
    "名前",
    " ",
    None,
    "x" * 230 + "1",
    "x" * 230 + "2",
    "a cat; on a mat",
]


@pytest.fixture
def listed(tmp_path):
    rows = [
        {"target_id": f"{k:016x}", "caption": caption, "url": None if k == 3 else f"https://example.org/{k}", "duplication_count": 10 * k}
        for k, caption in enumerate(CAPTIONS)
    ]
    pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), tmp_path / "targets.parquet")
    summary = write_prompts([f"{tmp_path}/targets.parquet"], f"{tmp_path}/prompts")
    return tmp_path / "prompts", [row for row in rows if row["caption"] and row["caption"].strip()], summary


def test_what_is_left_out_is_counted(listed):
    _, rows, summary = listed
    assert (summary.n_prompts, summary.n_without_caption, summary.n_repeated) == (len(rows), 2, 1)
    assert summary.n_one_folder == 4  # two of more than 200 characters, two of one text


def test_onestep_extraction(listed):
    """It reads caption and url, makes a folder of each caption, and adds its scores to the table."""
    out, rows, _ = listed
    table = pd.read_parquet(out / "prompts.parquet")
    assert list(table["caption"]) == [row["caption"] for row in rows]
    folders = [prompt.replace("/", "_")[: min(len(prompt), 200)] for prompt in table["caption"]]
    assert folders == list(table["folder"]) == [folder_of(row["caption"]) for row in rows]
    table["edge_scores"] = np.arange(len(table)) / 10
    table.to_parquet(out / "scored.parquet")
    assert read_prompts(f"{out}/scored.parquet")["target_id"].to_pylist() == [row["target_id"] for row in rows]


def test_wen(listed):
    out, rows, _ = listed
    records = [json.loads(line) for line in (out / "prompts.jsonl").read_text().splitlines()]
    assert [record["caption"] for record in records] == [row["caption"] for row in rows]
    assert [record["index"] for record in records] == list(range(len(rows)))
    assert all(isinstance(record["url"], str) for record in records)


def test_a_prompt_a_line(listed):
    out, rows, _ = listed
    lines = (out / "prompts.txt").read_text().split("\n")[:-1]
    assert lines == [" ".join(row["caption"].split()) for row in rows]


def test_nemo(listed):
    out, rows, _ = listed
    table = pd.read_csv(out / "prompts.csv", sep=";")
    assert list(table.columns[1:]) == ["Caption", "URL", "type", "mean_sscd", "max_sscd", "Index"]
    assert table["Caption"].tolist() == [row["caption"] for row in rows]
    assert table["Index"].tolist() == list(range(len(rows)))


def test_membench(listed):
    out, rows, _ = listed
    with (out / "membench.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["prompt"] for record in records] == [row["caption"] for row in rows]
    assert [ast.literal_eval(record["urls"]) for record in records] == [[row["url"]] if row["url"] else [] for row in rows]


def test_nothing_to_write(tmp_path):
    pq.write_table(pa.table({"target_id": ["a"], "caption": pa.array([None], pa.string())}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="1 target, none with a caption"):
        write_prompts([f"{tmp_path}/t.parquet"], f"{tmp_path}/out")
    assert not (tmp_path / "out" / "prompts.parquet").exists()
    pq.write_table(pa.table({"target_id": ["a"]}), tmp_path / "u.parquet")
    with pytest.raises(InputError, match="has no column caption"):
        write_prompts([f"{tmp_path}/u.parquet"], f"{tmp_path}/out")
    with pytest.raises(InputError, match="holds no table of prompts"):
        read_prompts(f"{tmp_path}/out")


def rows_of(out):
    return pq.read_table(sorted(out.glob("part-*.parquet")), schema=SCORES).to_pylist()


@pytest.mark.parametrize("layout", ["prompt", "number", "flat"])
def test_generations_come_back_in_layouts_of_tools(layout, tmp_path, engine):
    """The same scores as from folders named by target_id."""
    planted.write_planted(tmp_path, 2, 64, 0)
    targets, made = f"{tmp_path}/targets.parquet", tmp_path / "generations"
    write_prompts([targets], f"{tmp_path}/prompts")
    dedup.score_generations(targets, str(made), f"{tmp_path}/by-id", engine=engine)
    back = tmp_path / "back"
    back.mkdir()
    for row in read_prompts(f"{tmp_path}/prompts").to_pylist():
        source = made / row["target_id"]
        if layout == "flat":
            for seed, path in enumerate(sorted(source.iterdir())):
                shutil.copy(path, back / f"img_{row['index']:04d}_{seed:02d}.png")
        else:
            shutil.copytree(source, back / (row["folder"] if layout == "prompt" else str(row["index"])))
    with pytest.raises(InputError, match="give the table of them: --prompts"):
        dedup.score_generations(targets, str(back), f"{tmp_path}/out", engine=engine)
    (back / "img_0099_00.png").write_bytes(b"of no prompt")
    summary = dedup.score_generations(targets, str(back), f"{tmp_path}/out", prompts=f"{tmp_path}/prompts", engine=engine)
    assert "1 files have numbers of no prompt of this list; they are left out" in summary.notes
    found, expected = rows_of(tmp_path / "out"), rows_of(tmp_path / "by-id")
    names = {"generation", "generation_masked"}  # of the files
    assert [{k: v for k, v in row.items() if k not in names} for row in found] == [
        {k: v for k, v in row.items() if k not in names} for row in expected
    ]


def test_folders_of_prompts_that_begin_alike_are_left_out(tmp_path, engine):
    kinds = planted.write_planted(tmp_path, 1, 64, 0)
    table = pq.read_table(tmp_path / "targets.parquet")
    captions = ["x" * 200 + "1", "x" * 200 + "2", "another"]
    pq.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", pa.array(captions)), tmp_path / "targets.parquet")
    assert write_prompts([f"{tmp_path}/targets.parquet"], f"{tmp_path}/prompts").n_one_folder == 2
    ids = table["target_id"].to_pylist()
    for target, folder in ((ids[0], "x" * 200), (ids[2], "another"), (ids[1], "unknown")):
        shutil.move(tmp_path / "generations" / target, tmp_path / "generations" / folder)
    summary = dedup.score_generations(
        f"{tmp_path}/targets.parquet", f"{tmp_path}/generations", f"{tmp_path}/out", prompts=f"{tmp_path}/prompts", engine=engine
    )
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["no_generations", "no_generations", "ok"]
    assert len(kinds) == 3
    assert any("1 folders are named by prompts that are equal or begin alike" in note for note in summary.notes)
    assert any("1 folders match no target of the list, the first is unknown" in note for note in summary.notes)
