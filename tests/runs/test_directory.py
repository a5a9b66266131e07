"""A run directory: opened as it is, pickled by its URL, refused where it does not fit."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from dedup.config import Config
from dedup.config.key import STAGE_NAMES
from dedup.config.keys import keys_of, values_of
from dedup.errors import ConfigError, RunDirectoryError
from dedup.pipeline.plan import status
from dedup.pipeline.stages import STAGES, with_those_before
from dedup.runs.directory import Run
from dedup.runs.record import LAYOUT, StageRecord, read_record, record_path, write_record


def finish(url, stages=STAGE_NAMES, **config):
    """Records of stages as a run would leave them; `config` overrides values, by key with `__` for the dot."""
    values = values_of(Config()) | {key.replace("__", "."): value for key, value in config.items()}
    for stage in STAGES:
        if stage.name in stages:
            inputs = {name: read_record(url, name).digest for name in stage.reads}
            own = {key: values[key] for key in keys_of(stage.name)}
            write_record(url, StageRecord(stage.name, stage.output_version, own, inputs, rows={"table": 1}))


@pytest.fixture
def url(tmp_path):
    finish(str(tmp_path))
    return str(tmp_path)


def test_a_run_is_pickled_by_its_url(url):
    run = Run.open(url)
    assert run.records and run.config
    data = pickle.dumps(run)
    assert len(data) < 100 + len(url)
    again = pickle.loads(data)
    assert again == run and hash(again) == hash(run) and again.path("index") == f"{url}/index"
    second = pickle.loads(pickle.dumps(run.second("dct")))
    assert second.url == f"{url}/also/dct" and second.table("metadata").path == f"{url}/embeddings/metadata"


def test_an_opened_run_stays_as_it_was(url):
    run, finished = Run.open(url), read_record(url, "groups").finished
    write_record(url, replace(read_record(url, "groups"), finished="later"))
    assert run.finished("groups").finished == finished
    assert Run(url).finished("groups").finished == "later"


def test_stages_are_stale_where_one_before_them_was_redone(url):
    assert [line.state for line in status(url)] == ["done"] * 9
    write_record(url, replace(read_record(url, "confirm"), output_version=99))
    assert {line.name for line in status(url) if line.state == "stale"} == {"groups", "exclude", "manifest", "statistics", "targets"}
    assert Run.open(url, ("embed", "index")).earlier_inputs("groups") == ["confirm"]
    with pytest.raises(RunDirectoryError, match="stage 'groups' was made from an earlier 'confirm'; run: dedup run"):
        Run.open(url, ("confirm", "groups"))
    with pytest.raises(RunDirectoryError, match="stage 'manifest' was made from an earlier 'exclude'; run: dedup run"):
        Run.open(url).up_to_date("manifest")


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no run: expected _stages/embed.json"):
        Run.open(str(tmp_path))
    finish(str(tmp_path), ("embed", "index"))
    with pytest.raises(RunDirectoryError, match=r"has no finished stage 'groups'; run: dedup run output.run_dir="):
        Run.open(str(tmp_path), ("index", "groups"))


@pytest.mark.parametrize("layout", [None, 1, LAYOUT + 1])
def test_another_layout_is_refused_in_one_line(url, tmp_path, layout):
    path = Path(record_path(url, "index"))
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in record.items() if name != "layout"} | ({} if layout is None else {"layout": layout}))
    )
    for way in (lambda: Run.open(url), lambda: status(url), lambda: Run(url).finished("index")):
        with pytest.raises(
            RunDirectoryError, match=rf"layout {layout or 1}, written by another version; expected layout {LAYOUT}; make the run again"
        ) as told:
            way()
        assert "\n" not in str(told.value)


def test_records_where_earlier_layouts_had_them_are_refused_too(tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "_stage.json").write_text(json.dumps({"stage": "embed", "layout": 2}))
    with pytest.raises(RunDirectoryError, match=rf"layout 2, written by another version; expected layout {LAYOUT}"):
        Run.open(str(tmp_path))


def test_the_configuration_is_what_the_stages_were_made_with(tmp_path):
    url = str(tmp_path)
    finish(url, search__min_similarity=0.83, input__carry=["punsafe"], encoder__name="clip")
    run = Run.open(url, overrides=["encoder.pretrained=weights.pt", "engine.device=cpu"])
    assert run.config.search.min_similarity == 0.83 and run.config.encoder.name == "clip" and run.config.output.run_dir == url
    assert run.config.encoder.pretrained == "weights.pt" and run.config.engine.device == "cpu"
    assert "punsafe" in run.table("manifest").schema.names
    with pytest.raises(ConfigError, match="search.nprobe is fixed by the run; expected a key of encoder, input, engine"):
        Run.open(url, overrides=["search.nprobe=3"])


@pytest.mark.parametrize(
    ("encoder", "summary", "judges"), [("dct", {}, True), ("precomputed", {}, False), ("precomputed", {"has_pixels": True}, True)]
)
def test_pixels_are_judged_where_they_can_be_found(tmp_path, encoder, summary, judges):
    url = str(tmp_path)
    finish(url, encoder__name=encoder)
    write_record(url, replace(read_record(url, "embed"), summary=summary))
    assert Run(url).judges_pixels == judges
    # an encoder that is named for queries does not change what the run did
    assert Run.open(url, overrides=["encoder.name=clip"]).judges_pixels == judges
    finish(url, encoder__name=encoder, confirm__enabled=False)
    assert not Run(url).judges_pixels


def test_stages_are_told_of_once():
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES
    for number, stage in enumerate(STAGES):
        assert set(stage.reads) <= {earlier.name for earlier in STAGES[:number]}
        assert tuple(stage.picked(Config())) == keys_of(stage.name)
    assert with_those_before({"targets"}) == set(STAGE_NAMES)
    assert with_those_before({"index"}) == {"embed", "index"}
