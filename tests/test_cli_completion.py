"""The tab key, as a shell asks: by environment variables."""

import os
import subprocess
import sys

import pytest

from dedup.config_io import describe

KEYS = [f"{entry.key}=" for entry in describe()]


def complete(line, shell="bash"):
    words = line.split(" ")
    asked = {"_DEDUP_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run([sys.executable, "-m", "dedup"], capture_output=True, text=True, check=False, env=os.environ | asked, timeout=60)
    return done.stdout.split() if shell == "bash" else done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dedup run ", KEYS),
        ("dedup run input.sh", ["input.shards="]),
        ("dedup run -c conf/cifar10.yaml input.shards=a.tar search.min", ["search.min_similarity="]),
        ("dedup embed encoder.na", ["encoder.name="]),
        ("dedup index index.cod", ["index.codes="]),
        ("dedup index in", [key for key in KEYS if key.startswith("in")]),
        ("dedup status out confirm.en", ["confirm.enabled="]),
        ("dedup config targets.t", ["targets.top="]),
        ("dedup extraction score t g --out x extraction.max_d", ["extraction.max_distance="]),
        ("dedup query out a.jpg --set encoder.dev", ["encoder.device="]),
        ("dedup query out a.jpg --set search.", []),
        ("dedup run input.shards=", []),
        ("dedup run nothing.", []),
    ],
)
def test_configuration_keys(line, expected):
    found = [word for word in complete(line) if word not in ("info", "stage")]
    assert found == expected


def test_commands_and_options():
    assert {"explain", "extraction"} <= set(complete("dedup ex"))
    assert "info" in complete("dedup index in")
    assert complete("dedup explain --js") == ["--json"]
    assert "--redo" in complete("dedup index --re")


def test_zsh_shows_meanings():
    said = complete("dedup run search.min_sim", "zsh")
    meaning = next(entry.meaning for entry in describe() if entry.key == "search.min_similarity")
    assert "search.min_similarity=" in said
    assert meaning.split(":")[0][:20] in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_that_the_shell_loads(shell):
    done = subprocess.run(
        [sys.executable, "-m", "dedup"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"_DEDUP_COMPLETE": f"source_{shell}"},
    )
    assert done.returncode == 0
    assert "_DEDUP_COMPLETE" in done.stdout
