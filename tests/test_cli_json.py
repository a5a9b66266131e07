"""What scripts get of every command: JSON on standard output, nothing else, and no escape codes."""

import json
import os
import pty
import subprocess
import sys

import pytest
import typer
from commands import dedup, leaves
from patience import HANGS_S
from shard_data import detailed, make_samples, write_shards

from dedup.cli.main import app
from dedup.config import Config
from dedup.config.load import to_dict

PLAIN = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR")}


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run in `out`, and what it was made of."""
    folder = tmp_path_factory.mktemp("json")
    write_shards(folder / "shards", make_samples(24))
    command = [sys.executable, "-m", "dedup", "run", "input.shards=shards/*.tar", "output.run_dir=out", "engine.workers=1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    target = json.loads((folder / "out" / "targets.jsonl").read_text().splitlines()[0])["target_id"]
    (folder / "generations" / target).mkdir(parents=True)
    for k in range(2):
        detailed(k, (128, 128)).save(folder / "generations" / target / f"{k}.png")
    (folder / "run.json").write_text(done.stdout)
    (folder / "run.err").write_text(done.stderr)
    return folder


def test_a_run_as_json_with_its_progress_beside_it(folder):
    found = json.loads((folder / "run.json").read_text())
    assert found["run_dir"] == "out"
    assert list(found["stages"]) == ["embed", "index", "pairs", "confirm", "groups", "exclude", "manifest", "statistics", "targets"]
    for name, stage in found["stages"].items():
        record = json.loads((folder / "out" / "_stages" / f"{name}.json").read_text())
        assert (stage["rows"], stage["summary"], stage["seconds"]) == (record["rows"], record["summary"], record["seconds"])
        assert stage["is_done_before"] is False
    assert "embed: 2 of 2 shards" in (folder / "run.err").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--only", "manifest", "output.run_dir=out"],
        ["info", "out", "--queries", 5],
        ["status", "out", "search.min_similarity=0.8"],
        ["config", "search.min_similarity=0.8"],
        ["show", "out", "--largest", 1, "--out", "m.png"],
        ["demo-data", "demo", "--n-images", 20],
        ["plant", "shards/*.tar", "--counts", "1,2", "--images-per-count", 2, "--out", "planted", "--workers", 1],
        ["explain", "out", "--sample-id", 0],
        ["flag", "out", "shards/00000.tar", "--out", "flags.parquet", "--no-pixels", "--workers", 1],
        ["extraction", "score", "out/targets", "generations", "--out", "scores", "--workers", 1],
        ["extraction", "work", "out/targets", "--out", "work"],
        ["extraction", "controls", "out", "engine.workers=1"],
        ["extraction", "prompts", "out/targets", "--out", "prompts"],
        ["extraction", "patches", "out/targets", "generations", "--out", "patches", "--generations", 1, "--workers", 1],
        ["extraction", "join", "scores", "--detector", "duplication_count=out/targets.jsonl", "--out", "joined"],
        ["extraction", "curves", "scores", "--out", "curves"],
        ["extraction", "sweep", "out"],
        ["extraction", "outliers", "out", "--out", "outliers", "--top", 3, "engine.workers=1"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_json_and_nothing_else(folder, arguments):
    done = dedup(*arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=pytest.fail)  # NaN is no JSON
    assert isinstance(found, dict)
    assert found
    if arguments[0] == "config":
        expected = to_dict(Config())
        expected["search"]["min_similarity"] = 0.8
        assert found == expected
    if arguments[0] == "status":
        assert found["stages"][1]["changes"] == ["search.min_similarity: 0.7 → 0.8"]
    if arguments[0] == "run":
        assert list(found["stages"]) == ["manifest"]
        assert found["stages"]["manifest"]["is_done_before"] is True


def test_a_query_gives_an_object_a_line(folder):
    done = dedup("query", "out", "shards/00000.tar", "--no-pixels", "--json", "--k", 1, cwd=folder)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 5
    assert all(set(line) == {"image", "is_copy", "error", "matches"} for line in lines)


def test_errors_leave_standard_output_empty(folder):
    done = dedup("explain", "out", "nothing", "--json", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: out has no sample nothing")
    assert dedup("explain", "out", cwd=folder).returncode == 2


def test_every_command_speaks_json():
    without = {name for name, command in COMMANDS.items() if not any("--json" in entry.opts for entry in command.params)}
    assert without == {("serve",)}  # which speaks it over HTTP


# ---- escape codes

EACH_HELP = """
import sys
from dedup.cli.main import main
for words in {commands!r}:
    sys.argv = ["dedup", *words, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
    print("=" * 20)
"""


def helps(**environment):
    groups = sorted({name[:k] for name in COMMANDS for k in range(len(name))} | set(COMMANDS))
    return groups, [sys.executable, "-c", EACH_HELP.format(commands=groups)], PLAIN | environment


def on_a_terminal(command, environment, cwd=None):
    """Output of a command that believes a person looks on."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment, cwd=cwd)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # what Linux says when the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait(HANGS_S) == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_help_of_every_command_has_an_example_and_no_escape_codes(environment):
    groups, command, variables = helps(**environment)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables, timeout=HANGS_S)
    assert "\x1b" not in done.stdout + done.stderr
    shown = dict(zip(groups, done.stdout.split("=" * 20 + "\n"), strict=False))
    assert len(shown) == len(groups)
    for name, text in shown.items():
        assert text.count("Usage:") == 1
        if name in COMMANDS:
            assert f"Example: dedup {' '.join(name)}" in " ".join(text.replace("│", " ").split()), name


def test_no_color_holds_on_a_terminal_too(folder):
    _, command, variables = helps(NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b" not in on_a_terminal(command, variables)
    _, command, variables = helps(TERM="xterm-256color")
    assert "\x1b[" in on_a_terminal(command, variables)  # a person gets colours
    plain = PLAIN | {"NO_COLOR": "1", "TERM": "xterm-256color"}
    for arguments in (
        ["run", "input.shards=shards/*.tar", "output.run_dir=again", "engine.workers=1"],  # with progress
        ["status", "out"],
        ["config"],
        ["explain", "out", "--sample-id", "0"],
        ["query", "out", "shards/00000.tar", "--no-pixels", "--k", "1"],
        ["extraction", "sweep", "out"],
    ):
        said = on_a_terminal([sys.executable, "-m", "dedup", *arguments], plain, folder)
        assert said
        assert "\x1b" not in said, arguments


def test_errors_without_escape_codes(folder):
    done = dedup("run", "input.shards=\x1b[31mred/*.tar", "output.run_dir=x", env=PLAIN, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.isprintable() or done.stderr.rstrip("\n").isprintable()
