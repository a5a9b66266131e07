"""The command line as a user meets it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import dedup, leaves
from patience import HANGS_S
from PIL import Image
from shard_data import make_samples, write_shards

from dedup.cli.main import app
from dedup.config import Config
from dedup.config.load import to_dict
from dedup.machine import package_version


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "dedup", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=HANGS_S, **options
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), make_samples(24))


@pytest.fixture(scope="module")
def run_dir(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "out"
    done = process("run", f"input.shards={shards}", f"output.run_dir={out}", "engine.workers=2")
    assert done.returncode == 0, done.stderr
    (out.parent / "stdout.txt").write_text(done.stdout)
    (out.parent / "stderr.txt").write_text(done.stderr)
    return out


def test_run_prints_a_summary_and_plain_progress(run_dir):
    summary = (run_dir.parent / "stdout.txt").read_text()
    for word in (
        "samples",
        "rejected",
        "candidates",
        "confirmed",
        "measured recall",
        "components",
        "kept",
        "seconds",
        f"{run_dir}/manifest/",
        f"{run_dir}/report.html",
    ):
        assert word in summary
    progress = (run_dir.parent / "stderr.txt").read_text()
    assert "embed: 2 of 2 shards" in progress
    assert "\x1b" not in progress


def test_a_second_run_does_nothing_and_another_configuration_is_refused(run_dir, shards):
    again = dedup("run", f"input.shards={shards}", f"output.run_dir={run_dir}")
    assert again.returncode == 0
    assert "embed done before" in again.stdout
    other = dedup("run", f"input.shards={shards}", f"output.run_dir={run_dir}", "search.min_similarity=0.8")
    assert other.returncode == 2
    assert "search.min_similarity: 0.7 → 0.8" in other.stderr
    assert "Traceback" not in other.stderr


def test_status(run_dir):
    shown = dedup("status", run_dir, "search.min_similarity=0.8")
    assert shown.returncode == 0
    assert "search.min_similarity: 0.7 → 0.8" in " ".join(shown.stdout.split())
    missing = dedup("status", run_dir / "nothing")
    assert missing.returncode == 2
    assert "holds no run" in missing.stderr


def test_show(run_dir, tmp_path):
    assert dedup("show", run_dir, "--largest", 2, "--random", 1, "--out", tmp_path / "m.png").returncode == 0
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size[0] > 300
    wrong = dedup("show", run_dir, "--component", 999, "--out", tmp_path / "n.png")
    assert wrong.returncode == 1
    assert "999 is not a group of copies" in wrong.stderr


def test_show_without_the_tars(tmp_path):
    shards = write_shards(tmp_path / "shards", make_samples(8))
    assert dedup("run", f"input.shards={shards}", f"output.run_dir={tmp_path / 'out'}").returncode == 0
    for path in (tmp_path / "shards").iterdir():
        path.unlink()
    assert dedup("show", tmp_path / "out", "--largest", 1, "--out", tmp_path / "m.png").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["input.shards=/nowhere/*.tar"], 1, "matches no file"),
        (["input.shards=/nowhere/{000..002}.tar"], 1, "none of the 3 files exists"),
        (["input.shards=/nowhere/a.tar", "search.nprob=3"], 2, "did you mean"),
        (["input.shards=/nowhere/a.tar", "search.nprobe=8", "search.nlist=4"], 2, "nprobe"),
        (["input.shards=/nowhere/a.tar", "search.min_similarity=1.5"], 2, "min_similarity"),
        (["input.shards=/nowhere/a.tar", "search.min_similarity=high"], 2, "min_similarity"),
        (["input.shards=/nowhere/a.tar", "keep.order_by=[beauty desc]"], 2, "beauty"),
        (["input.shards=/nowhere/a.tar", "encoder.name=resnet"], 2, "resnet"),
        ([], 2, "no input"),
    ],
)
def test_one_clear_message_before_any_work(arguments, code, message, tmp_path):
    done = dedup("run", *arguments, f"output.run_dir={tmp_path / 'out'}")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_paths_say_what_they_hold_before_anything_is_done(shards, tmp_path):
    folder = Path(shards).parent
    for words in (["run", "--dry-run", folder, "search.nprobe=4"], [folder, "search.nprobe=4"]):
        done = dedup(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        name = f"{folder.name}-dedup"
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
        assert lines[0] == [str(folder), "2 tars (2 .tar)"] and lines[1] == ["writes", f"{name}/"]
        assert lines[2][0] == "settings" and lines[2][1].endswith(f"/*.tar' search.nprobe=4 output.run_dir={name}")
        assert "nothing was done" in done.stdout and list(tmp_path.iterdir()) == []
    said = json.loads(dedup("run", "--dry-run", folder, "--out", "x", "--json", cwd=tmp_path).stdout)
    assert said == {"overrides": [f"input.shards={folder}/*.tar", "output.run_dir=x"], "run_dir": "x"}


def test_a_run_over_a_path(shards, tmp_path):
    done = dedup("run", Path(shards).parent, "--out", "x", "--threshold", 0.93, "--workers", 1, "report.enabled=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 tars (2 .tar)" in done.stderr and "similarity >= 0.93" in done.stdout and (tmp_path / "x" / "manifest").is_dir()
    done = dedup("run", "nowhere", "--out", "y", cwd=tmp_path)
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: nowhere does not exist; expected a folder")
        and not (tmp_path / "y").exists()
    )


@pytest.fixture
def stages_of(run_dir):
    """The stages that a command line runs in a finished run."""

    def run(*arguments):
        done = dedup("run", *arguments, f"output.run_dir={run_dir}", "--json")
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["stages"])

    return run


def test_some_stages(stages_of):
    assert stages_of("--only", "confirm, pairs") == ["pairs", "confirm"]
    assert stages_of("--from", "statistics") == ["statistics", "targets"]
    assert stages_of("--from", "pairs", "--until", "confirm", "--set", "engine.preflight=warn") == ["pairs", "confirm"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "pairz"], "--only: unknown stage 'pairz'; expected one of embed, index, "),
        (["--only", "pairs,"], "--only: unknown stage ''"),
        (["--from", "confrim"], "did you mean 'confirm'?"),
        (["--only", "pairs", "--from", "index"], "--only and --from can't be combined; leave one out"),
        (["--from", "targets", "--until", "pairs"], "--from targets --until pairs: no stage is left"),
        (["--only", "index"], "has no finished stage 'embed'; run: dedup run --only embed output.run_dir="),
    ],
)
def test_stages_that_can_not_be_run(arguments, message, tmp_path):
    done = dedup("run", *arguments, f"output.run_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rewrite", "out", "cleaned", "search.nprobe=8"], "search.nprobe changes nothing here; expected a key of engine; leave it out"),
        (
            ["export", "out", "--format", "keys", "--out", "k.txt", "--set", "keep.per_component=2"],
            "keep.per_component changes nothing here",
        ),
        (["extraction", "score", "t", "g", "--out", "s", "search.views=true"], "expected a key of extraction or engine"),
        (["extraction", "outliers", "out", "index.seed=1"], "index.seed changes nothing here"),
        (["extraction", "sweep", "out", "--thresholds", "0.5,abc"], "--thresholds 0.5,abc: expected numbers"),
        (["query", "out", "a.jpg", "--k", "x"], "--k: expected a whole number of 1 or more, found 'x'"),
        (["query", "out", "a.jpg", "--k", "0"], "--k: expected a whole number of 1 or more, found '0'"),
        (["query", "out", "a.jpg", "--min-similarity", "high"], "--min-similarity: expected a number from -1 to 1, found 'high'"),
        (["show", "out", "--largest", "0"], "--largest: expected a whole number of 1 or more, found '0'"),
        (["explain", "out", "key", "--sample-id", "3"], "expected either KEY or --sample-id, found both"),
        (["explain", "out"], "expected either KEY or --sample-id, found neither"),
        (["run", "input.shards=x.tar", f"output.run_dir={__file__}"], "is a file; expected a folder; choose another"),
        (["run", "input.shards=x.tar", "engine.device=tpu"], "engine.device=tpu is unknown; expected one of auto, cpu, cuda\n"),
        (["config", "serch.x=1"], "unknown key 'serch.x'; run"),
        (["run", "input.shards=x.tar", "search.min_similarity=3"], "such as 0.9; or 0 for the encoder's own"),
    ],
)
def test_a_wrong_value_is_named(arguments, message, tmp_path):
    done = dedup(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["status"],
            ["show"],
            ["explain", "key"],
            ["report"],
            ["calibrate"],
            ["info"],
            ["query", "a.jpg"],
            ["flag", "a.jpg", "--out", "f.parquet"],
        ),
        *(["rewrite", "cleaned"], ["export", "--format", "keys", "--out", "k.txt"]),
        *(["extraction", "sweep"], ["extraction", "outliers", "--out", "o"]),
    ],
    ids=" ".join,
)
def test_every_command_says_alike_that_there_is_no_run(arguments, tmp_path):
    n_words = 2 if arguments[0] == "extraction" else 1
    done = dedup(*arguments[:n_words], "nowhere", *arguments[n_words:], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: nowhere holds no run: expected _stages/embed.json; give the output.run_dir of an earlier run\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_key_may_be_set_in_two_ways():
    shown = json.loads(dedup("config", "search.nlist=4", "--set", "search.nprobe=2", "--set", "search.nlist=8", "--json").stdout)
    assert (shown["search"]["nlist"], shown["search"]["nprobe"]) == (8, 2)


def test_every_command_that_works_with_processes_takes_workers():
    commands = dict(leaves(typer.main.get_command(app)))
    with_workers = {name for name, command in commands.items() if any("--workers" in entry.opts for entry in command.params)}
    assert with_workers == {
        *(("run",), ("demo-data",), ("plant",), ("query",), ("flag",), ("rewrite",), ("export",), ("calibrate",)),
        *(("extraction", "score"), ("extraction", "generate"), ("extraction", "outliers"), ("extraction", "controls")),
        ("extraction", "patches"),
    }


def test_a_damaged_index_is_made_again_as_the_error_says(run_dir, shards, tmp_path):
    run = shutil.copytree(run_dir, tmp_path / "run")
    (run / "index" / "index.ivfdata").write_bytes(b"")
    refused = dedup("query", run, shards)
    assert refused.returncode == 2
    assert f"delete {run}/_stages/index.json and run: dedup run --only index output.run_dir={run} …" in refused.stderr
    (run / "_stages" / "index.json").unlink()
    assert dedup("run", "--only", "index", f"output.run_dir={run}", "--workers", 1).returncode == 0
    assert {line.split()[1] for line in dedup("status", run).stdout.splitlines() if not line.startswith(" ")} == {"done"}
    assert dedup("info", run, "--queries", 0).returncode == 0


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["query", "nowhere", "--version"]])
def test_version(arguments):
    done = dedup(*arguments)
    assert (done.returncode, done.stdout) == (0, f"webdedup {package_version()}\n")


def test_all_commands_on_one_screen():
    for columns in ("80", "100"):
        lines = dedup("--help", env=os.environ | {"COLUMNS": columns}).stdout.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        words = [line.split()[0] for line in lines if line.startswith("  ")]
        assert words == list(typer.main.get_command(app).commands)
        assert words[:2] == ["run", "status"]


def test_no_run_dir_and_debug(tmp_path):
    assert "output.run_dir is not set" in dedup("run", "input.shards=x.tar").stderr
    shown = process("run", "input.shards=x.tar", f"output.run_dir={tmp_path / 'out'}", "--debug")
    assert "Traceback" in shown.stderr


def test_configuration_file_and_overrides(shards, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("search:\n  min_similarity: 0.75\nkeep:\n  per_component: 2\n")
    done = dedup("run", "-c", path, f"input.shards={shards}", f"output.run_dir={tmp_path / 'out'}", "keep.per_component=1")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "_stages" / "manifest.json").read_text())
    assert record["config"]["keep.per_component"] == 1
    assert json.loads((tmp_path / "out" / "_stages" / "index.json").read_text())["config"]["search.min_similarity"] == 0.75


def test_config_lists_every_key():
    shown = dedup("config").stdout
    for section, values in to_dict(Config()).items():
        for name in values:
            assert f"{section}.{name}" in shown


def test_a_missing_extra_is_one_line_with_its_remedy(shards, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "faiss.py").write_text("raise ImportError('not here')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])}
    done = process("run", f"input.shards={shards}", f"output.run_dir={tmp_path / 'out'}", "search.exhaustive_below=0", env=environment)
    assert done.returncode == 2
    assert "pip install 'webdedup[cpu]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_dedup_loads_nothing_heavy():
    code = "import sys, dedup; print([m for m in ('numpy', 'faiss', 'torch', 'pyspark', 'duckdb', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == "[]"
