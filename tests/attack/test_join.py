"""Detectors' files of every form, joined by target, number, prompt and order; figures as counted by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.attack.detector_files import DetectorFile
from dedup.attack.join import join_detectors
from dedup.attack.prompts import write_prompts
from dedup.errors import ConfigError, InputError
from dedup.numerics.detection import area_under_roc, true_positives
from dedup.schemas import DETECTORS, SCORES

LABELS = ["verbatim", "template", "none", "none", None, "retrieved"] * 40
COUNTS = [300, 40, 1, 1, 5, 7] * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("joined"), np.random.default_rng(0)
    ids = [f"{k:016x}" for k in range(len(LABELS))]
    empty = dict.fromkeys(SCORES.names) | {"n_generations": 1, "n_rejected": 0, "n_resized": 0, "clique_size": 1, "clique_is_exact": True}
    empty |= {"is_memorized": False, "status": "ok"}
    rows = [empty | {"target_id": a, "label": b, "duplication_count": c} for a, b, c in zip(ids, LABELS, COUNTS, strict=True)]
    for name, part in (("scores", rows[:100]), ("controls", rows[100:])):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(part, schema=SCORES), folder / name / "part-00000.parquet")
        (folder / name / "_summary.json").write_text("{}")
    captions = [f"prompt number {k}" for k in range(len(ids))]
    pq.write_table(pa.table({"target_id": ids, "caption": captions}), folder / "targets.parquet")
    write_prompts([f"{folder}/targets.parquet"], f"{folder}/prompts")
    values = rng.normal(0, 1, len(ids)) + np.array([2.0 if label in ("verbatim", "template") else 0.0 for label in LABELS])
    return folder, ids, captions, values


def write(folder, kind, ids, captions, values):
    path = folder / f"det.{kind.rpartition('-')[2]}"
    if kind == "by-id.jsonl":
        path.write_text("".join(json.dumps({"target_id": a, "wen": v}) + "\n" for a, v in reversed(list(zip(ids, values, strict=True)))))
    elif kind == "nested-by-prompt.jsonl":
        lines = [
            {"uncond_noise_norm": [[9.0]], "wen": [[v - 1, v + 1], [v, v]], "prompt": f" {c}"}
            for c, v in zip(captions, values, strict=True)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    elif kind == "by-index.csv":
        path.write_text(
            ";Caption;Index;wen\n" + "".join(f"0;{c};{k};{v!r}\n" for k, (c, v) in enumerate(zip(captions, values.tolist(), strict=True)))
        )
    elif kind == "order.npy":
        np.save(path, values)
    elif kind == "order.txt":
        path.write_text("".join(f"{v!r}\n" for v in values.tolist()))
    else:
        table = pq.read_table(folder / "prompts" / "prompts.parquet")
        pq.write_table(table.append_column("wen", pa.array(values)), path)
    return path


KINDS = ["by-id.jsonl", "nested-by-prompt.jsonl", "by-index.csv", "order.npy", "order.txt", "prompts.parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_same_figures(kind, made, tmp_path):
    folder, ids, captions, values = made
    path = write(folder, kind, ids, captions, values)
    scores = [f"{folder}/scores", f"{folder}/controls"]
    summary = join_detectors(scores, [DetectorFile("wen", str(path))], str(tmp_path), prompts=f"{folder}/prompts")
    assert (summary.n_targets, summary.n_unlabelled) == (200, 40)
    labels, counts = np.array(LABELS), np.array(COUNTS)
    negative = values[labels == "none"]
    rows = pq.read_table(tmp_path / "detectors.parquet", schema=DETECTORS).to_pylist()
    parts = {("all", None): np.isin(labels, ["verbatim", "template", "retrieved"])} | {
        (x, None): labels == x for x in ("verbatim", "template")
    }
    parts |= {("all", 1): (counts == 7), ("all", 10): counts == 40, ("template", 10): counts == 40, ("all", 100): counts == 300}
    parts |= {("verbatim", 100): counts == 300}
    assert {(row["label"], row["least"]) for row in rows} == parts.keys()
    for row in rows:
        members = parts[row["label"], row["least"]]
        assert (row["n_positive"], row["n_negative"]) == (members.sum(), 80)
        assert row["auc"] == pytest.approx(area_under_roc(values[members], negative))
        assert row["tpr"] == pytest.approx(true_positives(values[members], negative))
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert any("with fewer than 100 targets of which nothing is reproduced" in note for note in summary.notes)
    assert (tmp_path / "detectors.png").stat().st_size > 5_000
    joined = {row["target_id"]: row["wen"] for row in pq.read_table(tmp_path / "joined.parquet").to_pylist()}
    assert joined == {a: pytest.approx(v) for a, v, label in zip(ids, values.tolist(), LABELS, strict=True) if label}


def test_scores_that_are_no_numbers_are_left_out_and_counted(made, tmp_path):
    folder, _, _, values = made
    bad = values.copy()
    bad[[0, 6]], bad[2] = np.nan, np.inf
    np.save(tmp_path / "d.npy", bad)
    summary = join_detectors([f"{folder}/scores"], [DetectorFile("d", f"{tmp_path}/d.npy", f"{folder}/prompts")], str(tmp_path))
    assert any("3 of 84 targets have no score, or none that is a number" in note for note in summary.notes)
    assert any("156 scores belong to no labelled target" in note for note in summary.notes)


def test_lower_may_mean_memorised_and_files_add_up(made, tmp_path):
    folder, ids, _, values = made
    for name, part in (("a", slice(0, 120)), ("b", slice(120, None))):
        rows = [{"target_id": a, "score": -v} for a, v in zip(ids[part], values[part].tolist(), strict=True)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    files = [DetectorFile("d", f"{tmp_path}/{name}.parquet") for name in ("a", "b")]
    scores = [f"{folder}/scores", f"{folder}/controls"]
    plain, turned = (join_detectors(scores, files, str(tmp_path / "out"), lower=lower).detectors[0] for lower in ((), ("d",)))
    assert turned["auc"] == pytest.approx(1 - plain["auc"])
    assert turned["auc"] > 0.7
    assert turned["n_positive"] == 120


def test_what_can_not_be_joined_is_said(made, tmp_path):
    folder, ids, _, values = made
    scores = [f"{folder}/scores"]

    def join(path, name="d", **options):
        return join_detectors(scores, [DetectorFile(name, str(path))], str(tmp_path / "out"), **options)

    np.save(tmp_path / "short.npy", values[:-1])
    with pytest.raises(InputError, match=r"239 scores, known by their order alone; expected one for each of the 240 prompts"):
        join(tmp_path / "short.npy", prompts=f"{folder}/prompts")
    with pytest.raises(InputError, match=r"no target_id, so its rows belong to targets by their order; give the table of prompts"):
        join(tmp_path / "short.npy")
    (tmp_path / "two.csv").write_text("target_id,a,b\nx,1,2\n")
    with pytest.raises(InputError, match=r"expected a column d, or one column of numbers; found columns of numbers a, b"):
        join(tmp_path / "two.csv")
    (tmp_path / "foreign.csv").write_text("target_id,a\nx,1\n")
    with pytest.raises(InputError, match=r"d: none of 84 targets has a score that is a number"):
        join(tmp_path / "foreign.csv")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"bad.jsonl can't be read as scores"):
        join(tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match=r"gone.npy does not exist"):
        join(tmp_path / "gone.npy")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv has no rows"):
        join(tmp_path / "empty.csv")
    with pytest.raises(ConfigError, match=r"--lower e is no detector; expected one of d"):
        join(tmp_path / "two.csv", lower=["e"])
    with pytest.raises(ConfigError, match=r"det.npy: expected NAME=FILE"):
        DetectorFile.parse("det.npy")
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        join_detectors([f"{tmp_path}/nowhere"], [DetectorFile("d", "x.npy")], str(tmp_path / "out"))
    # without negatives nothing can be told apart
    only = [a for a, label in zip(ids, LABELS, strict=True) if label == "verbatim"]
    pq.write_table(pa.table({"target_id": only, "d": np.ones(len(only))}), tmp_path / "only.parquet")
    summary = join(tmp_path / "only.parquet")
    assert summary.detectors == []
    assert any("such as controls" in note for note in summary.notes)
